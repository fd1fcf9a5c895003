"""The op-node's end of the Engine API: three calls, and what their answers mean for a chain that others committed."""

from __future__ import annotations

from typing import Any

from actors.rpc_client import RpcClient, RpcRefused, RpcUnknown
from flashblocks.wire.engine import VALID, Envelope, ForkchoiceState, PayloadAttributes, PayloadStatus
from flashblocks.wire.hexadecimal import WireError, data, to_bytes

FORKCHOICE_S_MAX = 5.0
NEW_PAYLOAD_S_MAX = 8.0
GET_PAYLOAD_S_MAX = 3.0
READ_S_MAX = 2.0


class EngineRefused(Exception):
    """The engine answered, but not with VALID; `syncing` when it lacks a parent block."""

    def __init__(self, text: str, syncing: bool = False) -> None:
        super().__init__(text)
        self.syncing = syncing


class EngineUnknown(Exception):
    """The engine did not answer: nobody knows what it did."""


class EngineClient:
    """Engine API V3/V4 (Isthmus) over JSON-RPC with a JWT; raises EngineRefused or EngineUnknown."""

    def __init__(self, url: str, jwt_secret: bytes | None) -> None:
        self._client = RpcClient(url, jwt_secret=jwt_secret, timeout_s=READ_S_MAX)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def start_build(
        self, state: ForkchoiceState, attributes: PayloadAttributes, headers: dict[str, str] | None = None
    ) -> bytes:
        """engine_forkchoiceUpdatedV3 with attributes: the payload id."""
        params = (state.to_json(), attributes.to_json())
        answer = await self._call("engine_forkchoiceUpdatedV3", *params, timeout_s=FORKCHOICE_S_MAX, headers=headers)
        self._expect_valid("forkchoiceUpdated", _member(answer, "payloadStatus"))
        payload_id = _member(answer, "payloadId")
        if payload_id is None:
            raise EngineRefused("forkchoiceUpdated: no payload id for valid attributes")
        return to_bytes(payload_id, 8, "payloadId")

    async def set_head(self, state: ForkchoiceState, headers: dict[str, str] | None = None) -> None:
        """engine_forkchoiceUpdatedV3 without attributes."""
        params: tuple[Any, ...] = (state.to_json(), None)
        answer = await self._call("engine_forkchoiceUpdatedV3", *params, timeout_s=FORKCHOICE_S_MAX, headers=headers)
        self._expect_valid("forkchoiceUpdated", _member(answer, "payloadStatus"))

    async def get_payload(self, payload_id: bytes, headers: dict[str, str] | None = None) -> Envelope:
        """engine_getPayloadV4: the sealed payload with its parent beacon block root."""
        answer = await self._call("engine_getPayloadV4", data(payload_id), timeout_s=GET_PAYLOAD_S_MAX, headers=headers)
        try:
            return Envelope.from_json(answer)
        except WireError as error:
            raise EngineRefused(f"getPayload: {error}") from error

    async def new_payload(self, envelope: Envelope, headers: dict[str, str] | None = None) -> None:
        """engine_newPayloadV4."""
        params: tuple[Any, ...] = (envelope.payload.to_json(), [], data(envelope.parent_beacon_block_root), [])
        answer = await self._call("engine_newPayloadV4", *params, timeout_s=NEW_PAYLOAD_S_MAX, headers=headers)
        self._expect_valid("newPayload", answer)

    async def block(self, tag: str) -> dict[str, Any] | None:
        """eth_getBlockByNumber with full transactions; None where there is no such block."""
        answer = await self._call("eth_getBlockByNumber", tag, True)
        return answer if isinstance(answer, dict) else None

    async def _call(
        self, method: str, *params: Any, timeout_s: float = READ_S_MAX, headers: dict[str, str] | None = None
    ) -> Any:
        try:
            return await self._client.call(method, *params, timeout_s=timeout_s, headers=headers)
        except RpcRefused as error:
            raise EngineRefused(f"{method}: {error.message} ({error.code})") from None
        except RpcUnknown as error:
            raise EngineUnknown(f"{method}: {error}") from None

    @staticmethod
    def _expect_valid(method: str, obj: Any) -> None:
        try:
            status = PayloadStatus.from_json(obj)
        except WireError as error:
            raise EngineRefused(f"{method}: {error}") from error
        if status.status != VALID:
            text = f"{method}: {status.status} {status.validation_error or ''}".rstrip()
            raise EngineRefused(text, syncing=status.status in ("SYNCING", "ACCEPTED"))


def _member(answer: Any, name: str) -> Any:
    if not isinstance(answer, dict):
        raise EngineRefused(f"answer is not an object: {answer!r}"[:200])
    return answer.get(name)
