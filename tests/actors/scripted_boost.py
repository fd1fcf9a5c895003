"""A rollup-boost, builder and execution client in one object, without execution: for tests of op-node and conductor.

Blocks are real payloads whose hash is a digest of their fields; nothing is executed. While its conductor says that it
leads, it makes index 0 and then a flashblock every interval, offers each, and goes on when it is committed. Committed
flashblocks of other leaders are taken over, so that a build with the same payload id continues after them.
"""

from __future__ import annotations

import asyncio
from typing import Any

from actors.frame_link import FrameServer, Peer
from actors.rpc_server import Probes, RpcServer
from flashblocks.sequencing.deposits import decode_l1_info
from flashblocks.wire.assembly import assemble
from flashblocks.wire.engine import Envelope, ExecutionPayload, ForkchoiceState, PayloadAttributes
from flashblocks.wire.flashblock import (
    Flashblock,
    FlashblockBase,
    FlashblockDiff,
    FlashblockMetadata,
    decode_body,
    encode_body,
)
from flashblocks.wire.frames import (
    CommittedFrame,
    FlashblockFrame,
    Frame,
    HealthFrame,
    LeadershipFrame,
    RefusedFrame,
    SealedFrame,
    frame_of,
)
from flashblocks.wire.hexadecimal import data, quantity, to_bytes
from flashblocks.wire.jsonrpc import RpcError
from flashblocks.wire.keccak import keccak256
from flashblocks.wire.payload_id import payload_id as payload_id_of

ZERO = b"\0" * 32
BLOOM = b"\0" * 256


def block_hash_of(parent_hash: bytes, timestamp: int, transactions: tuple[bytes, ...]) -> bytes:
    return keccak256(b"block" + parent_hash + timestamp.to_bytes(8, "big") + b"".join(map(keccak256, transactions)))


class Build:
    """One payload id: what its flashblocks are so far; `made` runs ahead of `committed` by at most one."""

    def __init__(self, number: int, parent_hash: bytes, attributes: PayloadAttributes) -> None:
        self.number, self.parent_hash, self.attributes = number, parent_hash, attributes
        self.id = payload_id_of(parent_hash, attributes)
        self.committed: list[Flashblock] = []

    def next(self) -> Flashblock:
        index = len(self.committed)
        own = self.attributes.transactions if index == 0 else (b"\x02" + bytes((index,)) + self.id,)
        transactions = tuple(tx for one in self.committed for tx in one.diff.transactions) + own
        a = self.attributes
        base = FlashblockBase(
            a.parent_beacon_block_root,
            self.parent_hash,
            a.fee_recipient,
            a.prev_randao,
            self.number,
            a.gas_limit,
            a.timestamp,
            b"\0" + a.eip1559_params,
            1,
        )
        hash_ = block_hash_of(self.parent_hash, a.timestamp, transactions)
        diff = FlashblockDiff(ZERO, ZERO, BLOOM, 21_000 * len(transactions), hash_, own, ZERO)
        return Flashblock(self.id, index, base if index == 0 else None, diff, FlashblockMetadata(self.number))

    def fallback(self) -> Envelope:
        a = self.attributes
        hash_ = block_hash_of(self.parent_hash, a.timestamp, a.transactions)
        payload = ExecutionPayload(
            parent_hash=self.parent_hash,
            fee_recipient=a.fee_recipient,
            state_root=ZERO,
            receipts_root=ZERO,
            logs_bloom=BLOOM,
            prev_randao=a.prev_randao,
            block_number=self.number,
            gas_limit=a.gas_limit,
            gas_used=0,
            timestamp=a.timestamp,
            extra_data=b"\0" + a.eip1559_params,
            base_fee_per_gas=1,
            block_hash=hash_,
            transactions=a.transactions,
            withdrawals_root=ZERO,
        )
        return Envelope(a.parent_beacon_block_root, payload)


class ScriptedBoost:
    """Engine API and frame stream of one group."""

    def __init__(
        self, genesis_hash: bytes, genesis_time: int, flashblock_time_s: float = 0.05, log: Any = None
    ) -> None:
        self.flashblock_time_s = flashblock_time_s
        self.leading, self.epoch, self.health = False, 0, 200
        self.builder = True
        self.blocks: dict[bytes, Envelope | None] = {genesis_hash: None}
        self.numbers = {genesis_hash: 0}
        self.genesis_time = genesis_time
        self.genesis_hash = genesis_hash
        self.head = genesis_hash
        self.builds: dict[bytes, Build] = {}
        self.current: Build | None = None
        self.committed_frames: list[FlashblockFrame] = []
        self.refused: list[RefusedFrame] = []
        self.sealed: list[SealedFrame] = []
        self.leaderships: list[LeadershipFrame] = []
        self.fail_new_payload = False
        self.calls: list[str] = []
        self._turn = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.server = RpcServer(
            "127.0.0.1",
            0,
            {
                "engine_forkchoiceUpdatedV3": self.forkchoice_updated,
                "engine_getPayloadV4": self.get_payload,
                "engine_newPayloadV4": self.new_payload,
                "eth_getBlockByNumber": self.get_block,
            },
            name="scripted-boost",
            log=log,
            probes=lambda: Probes(health=(self.health, "")),
        )
        self.stream = FrameServer("127.0.0.1", 0, None, on_frame=self._on_frame, on_peer=self._on_peer)

    async def start(self) -> None:
        await self.server.start()
        await self.stream.start()

    async def close(self) -> None:
        self._end_build()
        await self.server.close()
        await self.stream.close()

    @property
    def url(self) -> str:
        return self.server.url

    @property
    def ws_url(self) -> str:
        return f"ws://127.0.0.1:{self.stream.port}"

    def set_health(self, status: int) -> None:
        self.health, self.builder = status, status == 200
        self.stream.publish(HealthFrame(status, ""))

    # Engine API

    async def forkchoice_updated(self, state: Any, attributes: Any) -> Any:
        self.calls.append("forkchoiceUpdated" + ("+" if attributes else ""))
        wanted = ForkchoiceState.from_json(state)
        if wanted.head not in self.blocks:
            return {"payloadStatus": {"status": "SYNCING", "latestValidHash": None, "validationError": None}}
        self.head = wanted.head
        answer = {"payloadStatus": {"status": "VALID", "latestValidHash": data(self.head), "validationError": None}}
        if attributes is None:
            return answer | {"payloadId": None}
        build = Build(self.numbers[self.head] + 1, self.head, PayloadAttributes.from_json(attributes))
        build = self.builds.setdefault(build.id, build)
        if self.current is not build or self._task is None:
            self._end_build()
            self.current = build
            self._task = asyncio.create_task(self._make_flashblocks(build))
        return answer | {"payloadId": data(build.id)}

    async def get_payload(self, payload_id: str) -> Any:
        self.calls.append("getPayload")
        build = self.builds.get(to_bytes(payload_id, 8))
        if build is None:
            raise RpcError(-38001, "Unknown payload")
        self._end_build()
        envelope = assemble(build.committed) if build.committed else build.fallback()
        return envelope.to_json() | {"blockValue": "0x0"}

    async def new_payload(self, payload: Any, hashes: list[Any], root: str, requests: list[Any]) -> Any:
        self.calls.append("newPayload")
        one = Envelope(to_bytes(root, 32), ExecutionPayload.from_json(payload))
        parent, hash_ = one.payload.parent_hash, one.payload.block_hash
        if self.fail_new_payload:
            raise RpcError(-32000, "execution client is gone")
        if parent not in self.blocks:
            return {"status": "SYNCING", "latestValidHash": None, "validationError": None}
        if block_hash_of(parent, one.payload.timestamp, one.payload.transactions) != hash_:
            return {"status": "INVALID", "latestValidHash": data(parent), "validationError": "blockhash mismatch"}
        self.blocks[hash_], self.numbers[hash_] = one, self.numbers[parent] + 1
        return {"status": "VALID", "latestValidHash": data(hash_), "validationError": None}

    async def get_block(self, tag: str, full: bool) -> Any:
        wanted = self.head
        if tag not in ("latest", "pending"):
            number = 0 if tag in ("safe", "finalized") else int(tag, 16)
            found = [hash_ for hash_ in self.chain() if self.numbers[hash_] == number]
            if not found:
                return None
            wanted = found[0]
        envelope = self.blocks[wanted]
        if envelope is None:
            return {
                "number": "0x0",
                "hash": data(wanted),
                "parentHash": data(ZERO),
                "timestamp": quantity(self.genesis_time),
                "transactions": [],
                "stateRoot": data(ZERO),
                "withdrawalsRoot": data(ZERO),
            }
        info = decode_l1_info(envelope.payload.transactions[0])
        return {
            "number": quantity(self.numbers[wanted]),
            "hash": data(wanted),
            "parentHash": data(envelope.payload.parent_hash),
            "timestamp": quantity(envelope.payload.timestamp),
            "stateRoot": data(ZERO),
            "withdrawalsRoot": data(ZERO),
            "transactions": [{"type": "0x7e", "input": data(info.to_calldata())}],
        }

    def chain(self) -> list[bytes]:
        """Hashes from the head back to genesis."""
        hashes, at = [], self.head
        while (envelope := self.blocks[at]) is not None:
            hashes.append(at)
            at = envelope.payload.parent_hash
        return [*hashes, at]

    # Flashblocks

    async def _make_flashblocks(self, build: Build) -> None:
        while True:
            if self.leading and self.builder:
                flashblock = build.next()
                self._turn.clear()
                self.stream.publish(frame_of(flashblock, encode_body(flashblock), build.parent_hash))
                await self._turn.wait()
            await asyncio.sleep(self.flashblock_time_s)

    def _end_build(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def _on_peer(self, peer: Peer, joined: bool) -> None:
        if joined:
            self.stream.send(peer, HealthFrame(self.health, ""))

    def _on_frame(self, peer: Peer, frame: Frame) -> None:
        if isinstance(frame, CommittedFrame):
            self.committed_frames.append(frame.frame)
            self._apply(decode_body(frame.frame.body))
        elif isinstance(frame, LeadershipFrame):
            self.leaderships.append(frame)
            self.leading, self.epoch = frame.leading, frame.epoch
        elif isinstance(frame, RefusedFrame):
            self.refused.append(frame)
        elif isinstance(frame, SealedFrame):
            self.sealed.append(frame)
        self._turn.set()

    def _apply(self, flashblock: Flashblock) -> None:
        build = self.builds.get(flashblock.payload_id)
        if build is None:
            if flashblock.base is None:
                return
            base = flashblock.base
            attributes = PayloadAttributes(
                timestamp=base.timestamp,
                prev_randao=base.prev_randao,
                fee_recipient=base.fee_recipient,
                parent_beacon_block_root=base.parent_beacon_block_root,
                transactions=flashblock.diff.transactions,
                gas_limit=base.gas_limit,
                eip1559_params=base.extra_data[1:9],
            )
            build = self.builds.setdefault(
                flashblock.payload_id, Build(base.block_number, base.parent_hash, attributes)
            )
        if flashblock.index == len(build.committed):
            build.committed.append(flashblock)
