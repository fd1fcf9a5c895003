"""The two execution clients behind rollup-boost: how a flashblock is executed there, and how whole blocks are checked.

Our own clients execute flashblocks one by one (``/flashblocks/v1/apply``).  A foreign one does not know that path; it
judges by ``engine_newPayload`` of the block so far, which is what the Flashblocks specification asks for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgpack

from actors.rpc_client import RpcClient, RpcRefused, RpcUnknown
from flashblocks.rollup_boost.facts import Status, Target
from flashblocks.wire.engine import ACCEPTED, INVALID, SYNCING, VALID, Envelope, PayloadStatus
from flashblocks.wire.flashblock import Flashblock, decode_body
from flashblocks.wire.frames import (
    APPLY_PATH,
    PAYLOAD_PATH,
    STAND_IN_PATH,
    FlashblockFrame,
    decode_frame,
    encode_frame,
)
from flashblocks.wire.hexadecimal import WireError, data

NO_SUCH_PATH = (404, 405)
ERROR_CODE_WITHOUT_ANSWER = 13


class Verdict:
    """What a client said to a flashblock."""

    __slots__ = ("error", "execution_us", "expected_index", "status")

    def __init__(self, status: Status, expected_index: int = 0, error: str = "", execution_us: int = 0) -> None:
        self.status, self.expected_index, self.error, self.execution_us = status, expected_index, error, execution_us


class EngineClientOfBoost:
    """One execution client as rollup-boost uses it."""

    def __init__(self, target: Target, url: str, jwt_secret: bytes | None, timeout_s: float) -> None:
        self.target = target
        self.rpc = RpcClient(url, jwt_secret=jwt_secret, timeout_s=timeout_s)
        self.foreign = False

    async def close(self) -> None:
        """Close the connections."""
        await self.rpc.close()

    async def apply(self, frame: FlashblockFrame, prefix: Callable[[], Envelope | None]) -> Verdict:
        """Have a flashblock executed; ``prefix`` gives the block up to it, for a client that only knows blocks."""
        if not self.foreign:
            try:
                return _read_verdict(await self.rpc.post_binary(APPLY_PATH, encode_frame(frame)))
            except RpcUnknown as error:
                return Verdict(Status.UNREACHABLE, error=str(error))
            except RpcRefused as error:
                if error.code not in NO_SUCH_PATH:
                    return Verdict(Status.UNREACHABLE, error=str(error))
                self.foreign = True
        if self.target is Target.BUILDER:
            return Verdict(Status.VALID)  # a foreign builder follows whole blocks only; there is nothing to tell it
        envelope = prefix()
        if envelope is None:
            return Verdict(Status.UNREACHABLE, error="the flashblock was replaced meanwhile")
        return await self.judge_block(envelope)

    async def flashblocks_of(self, payload_id: bytes) -> tuple[tuple[FlashblockFrame, Flashblock], ...]:
        """The client's own payload as flashblocks; empty where it does not know how, or its answer is no such thing."""
        if self.foreign:
            return ()
        try:
            raw = await self.rpc.post_binary(PAYLOAD_PATH, payload_id)
            frames = [decode_frame(frame) for frame in msgpack.unpackb(raw)]
            made = tuple((frame, decode_body(frame.body)) for frame in frames if isinstance(frame, FlashblockFrame))
        except (RpcRefused, RpcUnknown, WireError, ValueError, TypeError):
            return ()
        fits = all((frame.payload_id, frame.index) == (payload_id, index) for index, (frame, _) in enumerate(made))
        return made if fits else ()

    async def stand_in(self, payload_id: bytes, index: int) -> tuple[FlashblockFrame, Flashblock]:
        """Have the client make this flashblock; raises RpcRefused, RpcUnknown, and WireError for what is none."""
        if self.foreign:
            raise RpcRefused(NO_SUCH_PATH[0], "it makes no flashblocks")
        frame = decode_frame(await self.rpc.post_binary(STAND_IN_PATH, msgpack.packb((payload_id, index))))
        if not isinstance(frame, FlashblockFrame) or (frame.payload_id, frame.index) != (payload_id, index):
            raise WireError("another flashblock than was asked for")
        return frame, decode_body(frame.body)

    async def judge_block(self, envelope: Envelope) -> Verdict:
        """Judge a whole block by engine_newPayload."""
        try:
            status = PayloadStatus.from_json(await self.new_payload(envelope))
        except (RpcUnknown, WireError) as error:
            return Verdict(Status.UNREACHABLE, error=str(error))
        except RpcRefused as error:
            return Verdict(Status.INVALID, error=str(error))
        if status.status == VALID:
            return Verdict(Status.VALID)
        if status.status in (SYNCING, ACCEPTED):
            return Verdict(Status.UNKNOWN_PARENT, error=status.status)
        return Verdict(Status.INVALID, error=status.validation_error or INVALID)

    async def new_payload(self, envelope: Envelope) -> Any:
        """engine_newPayload in the version of the block's fork: V4 has a withdrawals root (Isthmus)."""
        payload, root = envelope.payload.to_json(), data(envelope.parent_beacon_block_root)
        if envelope.payload.withdrawals_root is None:
            return await self.rpc.call("engine_newPayloadV3", payload, [], root)
        return await self.rpc.call("engine_newPayloadV4", payload, [], root, [])


def _read_verdict(raw: bytes) -> Verdict:
    try:
        answer = msgpack.unpackb(raw)
        return Verdict(
            Status(answer["status"]),
            int(answer.get("expected_index") or 0),
            str(answer.get("error") or ""),
            int(answer.get("execution_us") or 0),
        )
    except Exception as error:  # whatever msgpack found, the peer's bytes are at fault
        return Verdict(Status.UNREACHABLE, error=f"unreadable answer: {error!r}")
