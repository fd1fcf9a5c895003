"""The Engine API of an execution client (execution-apis engine/; OP specs protocol/exec-engine), and the judge's door.

Method names, status values and error codes are the specification's. `POST /flashblocks/v1/apply` is ours: it takes a
flashblock frame and answers what became of it; `POST /flashblocks/v1/payload` gives a payload as flashblocks.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import msgpack
from aiohttp import web
from opentelemetry.trace import SpanKind

from actors.payload_source import OutOfStep, StreamablePayloads, UnknownPayload
from actors.rpc_server import Method
from flashblocks.execution.chain import ZERO_HASH, Imported, UnknownBlock
from flashblocks.execution.errors import ExecutionError, InvalidBlock
from flashblocks.execution.payloads import block_of
from flashblocks.execution.store import StoreError
from flashblocks.wire.engine import (
    INVALID,
    INVALID_FORKCHOICE_STATE,
    INVALID_PAYLOAD_ATTRIBUTES,
    SYNCING,
    UNKNOWN_PAYLOAD,
    UNSUPPORTED_FORK,
    VALID,
    Envelope,
    ExecutionPayload,
    ForkchoiceState,
    PayloadAttributes,
    PayloadStatus,
)
from flashblocks.wire.flashblock import Flashblock, decode_body, encode_body
from flashblocks.wire.frames import (
    APPLY_PATH,
    PAYLOAD_PATH,
    STAND_IN_PATH,
    CommittedFrame,
    FlashblockFrame,
    decode_frame,
    encode_frame,
    frame_of,
)
from flashblocks.wire.hexadecimal import WireError, data, quantity, to_bytes
from flashblocks.wire.jsonrpc import INVALID_PARAMS, SERVER_ERROR, RpcError
from flashblocks.wire.payload_id import payload_id
from tracing import names
from tracing.tracer import Attribute

if TYPE_CHECKING:
    from actors.execution_client import ExecutionClient


CAPABILITIES = (
    "engine_forkchoiceUpdatedV3",
    "engine_getPayloadV3",
    "engine_getPayloadV4",
    "engine_newPayloadV3",
    "engine_newPayloadV4",
)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class EngineApi:
    """The methods of the authenticated port."""

    def __init__(self, client: ExecutionClient) -> None:
        self.client = client

    def methods(self) -> dict[str, Method]:
        """Method name → handler."""
        return {
            "engine_exchangeCapabilities": self.exchange_capabilities,
            "engine_forkchoiceUpdatedV3": self.forkchoice_updated,
            "engine_getPayloadV3": self.get_payload_v3,
            "engine_getPayloadV4": self.get_payload_v4,
            "engine_newPayloadV3": self.new_payload_v3,
            "engine_newPayloadV4": self.new_payload_v4,
        }

    def routes(self) -> list[tuple[str, str, Handler]]:
        """Further paths of the same port, behind the same JWT."""
        return [
            ("POST", APPLY_PATH, self.apply),
            ("POST", PAYLOAD_PATH, self.payload),
            ("POST", STAND_IN_PATH, self.stand_in),
        ]

    async def exchange_capabilities(self, theirs: Any = None) -> list[str]:
        """What this client supports, whatever the other side does."""
        return list(CAPABILITIES)

    async def forkchoice_updated(self, state_json: Any, attributes_json: Any = None) -> dict[str, Any]:
        """Choose the head and, with attributes, begin a build on it."""
        state = ForkchoiceState.from_json(state_json)
        status = self._choose(state)
        # The head moves even when the attributes are refused (engine spec, forkchoiceUpdated).
        attributes = self._read_attributes(attributes_json)
        if status.status != VALID or attributes is None:
            return {"payloadStatus": status.to_json(), "payloadId": None}
        head = self.client.chain.head.header
        if attributes.timestamp <= head.timestamp:
            raise RpcError(INVALID_PAYLOAD_ATTRIBUTES, "Invalid payload attributes", "timestamp not after the head's")
        name = payload_id(head.hash, attributes)
        try:
            self.client.source.start(name, head, attributes)
        except ExecutionError as error:
            raise RpcError(INVALID_PAYLOAD_ATTRIBUTES, "Invalid payload attributes", str(error)) from error
        return {"payloadStatus": status.to_json(), "payloadId": data(name)}

    def _read_attributes(self, obj: Any) -> PayloadAttributes | None:
        if obj is None:
            return None
        try:
            attributes = PayloadAttributes.from_json(obj)
        except WireError as error:
            raise RpcError(INVALID_PAYLOAD_ATTRIBUTES, "Invalid payload attributes", str(error)) from error
        if obj.get("withdrawals") is None:
            raise RpcError(INVALID_PAYLOAD_ATTRIBUTES, "Invalid payload attributes", "withdrawals: missing")
        return attributes

    def _choose(self, state: ForkchoiceState) -> PayloadStatus:
        client = self.client
        bad = client.chain.invalid(state.head)
        if bad is not None:
            return PayloadStatus(INVALID, bad.latest_valid_hash, bad.error)
        if state.head == ZERO_HASH:
            return PayloadStatus(INVALID, None, "forkchoice requested update to zero hash")
        try:
            known = client.follower.settle(state.head)
            if known:
                self._check_ancestors(state)
                client.set_head(state.head, state.safe, state.finalized)
                client.backfill.reached(state.head)
        except StoreError as error:
            raise RpcError(SERVER_ERROR, f"chain store: {error}") from error
        except UnknownBlock as error:
            raise RpcError(INVALID_FORKCHOICE_STATE, "Invalid forkchoice state", str(error)) from error
        if not known:
            if state.head in client.chain:
                raise RpcError(
                    INVALID_FORKCHOICE_STATE, "Invalid forkchoice state", "the head block is too old to build on"
                )
            client.backfill.want(state.head, state)
            return PayloadStatus(SYNCING)
        return PayloadStatus(VALID, state.head)

    def _check_ancestors(self, state: ForkchoiceState) -> None:
        """Safe and finalized must be known, and of the head's branch; zero says nothing."""
        chain = self.client.chain
        head = chain.loaded(state.head)
        assert head is not None
        for name, wanted in (("safe", state.safe), ("finalized", state.finalized)):
            if wanted in (ZERO_HASH, state.head):
                continue
            number = chain.number_of(wanted)
            if number is None:
                raise UnknownBlock(f"{name} block not available in database")
            if number > head.number or chain.ancestor_hashes(state.head)(number) != wanted:
                raise UnknownBlock(f"{name} block not in canonical chain")

    async def get_payload_v3(self, payload: Any) -> dict[str, Any]:
        """The payload begun under this id, before Isthmus."""
        return await self._get_payload(payload, isthmus=False)

    async def get_payload_v4(self, payload: Any) -> dict[str, Any]:
        """The payload begun under this id, since Isthmus."""
        return await self._get_payload(payload, isthmus=True)

    async def _get_payload(self, payload: Any, *, isthmus: bool) -> dict[str, Any]:
        try:
            envelope = await self.client.source.get(to_bytes(payload, 8, "payloadId"))
        except UnknownPayload as error:
            raise RpcError(UNKNOWN_PAYLOAD, "Unknown payload") from error
        if self.client.spec.is_isthmus(envelope.payload.timestamp) != isthmus:
            raise RpcError(UNSUPPORTED_FORK, "Unsupported fork")
        return payload_answer(envelope, isthmus=isthmus)

    async def new_payload_v3(self, payload: Any, blob_hashes: Any, parent_beacon_root: Any) -> dict[str, Any]:
        """Import a block of before Isthmus."""
        return await self._new_payload(payload, blob_hashes, parent_beacon_root, isthmus=False)

    async def new_payload_v4(
        self, payload: Any, blob_hashes: Any, parent_beacon_root: Any, requests: Any
    ) -> dict[str, Any]:
        """Import a block of since Isthmus; execution requests must be empty on OP."""
        if requests != []:
            raise RpcError(INVALID_PARAMS, "executionRequests must be an empty array")
        return await self._new_payload(payload, blob_hashes, parent_beacon_root, isthmus=True)

    async def _new_payload(
        self, payload: Any, blob_hashes: Any, parent_beacon_root: Any, *, isthmus: bool
    ) -> dict[str, Any]:
        if blob_hashes != []:
            raise RpcError(INVALID_PARAMS, "expectedBlobVersionedHashes must be an empty array")
        root = to_bytes(parent_beacon_root, 32, "parentBeaconBlockRoot")
        envelope = Envelope(root, ExecutionPayload.from_json(payload))
        if self.client.spec.is_isthmus(envelope.payload.timestamp) != isthmus:
            raise RpcError(UNSUPPORTED_FORK, "Unsupported fork")
        try:
            block = block_of(self.client.spec, envelope)
        except InvalidBlock as error:
            return PayloadStatus(INVALID, None, str(error)).to_json()
        try:
            imported = await self.client.import_block(block)
        except StoreError as error:
            raise RpcError(SERVER_ERROR, f"chain store: {error}") from error
        if imported.status == SYNCING:
            self.client.backfill.offer(block)
        return _status_of(imported).to_json()

    async def apply(self, request: web.Request) -> web.Response:
        """Judge the flashblock frame in the body; the answer is a MessagePack map. 400 for what is no frame."""
        try:
            frame = decode_frame(await request.read())
            if isinstance(frame, CommittedFrame):
                frame = frame.frame
            if not isinstance(frame, FlashblockFrame):
                raise WireError("expected a flashblock frame")
            flashblock = decode_body(frame.body)
        except WireError as error:
            return web.Response(status=400, text=str(error))
        committed = frame.epoch > 0
        verdict, took_s = await self.client.apply(flashblock, committed=committed)
        wrong = f"INVALID {verdict.error}" if verdict.status == INVALID else None
        more: dict[str, Attribute] = {names.VERDICT: verdict.status, names.COMMITTED: committed}
        self.client.stages.frame(frame, names.APPLY, took_s, wrong, kind=SpanKind.SERVER, more=more)
        answer = {
            "status": verdict.status,
            "expected_index": verdict.expected_index,
            "block_hash": verdict.block_hash,
            "error": verdict.error,
            "execution_us": int(took_s * 1e6),
        }
        return web.Response(body=msgpack.packb(answer), content_type="application/msgpack")

    async def payload(self, request: web.Request) -> web.Response:
        """The payload of the id in the body (8 bytes) as a MessagePack list of flashblock frames; 404 where unknown."""
        source = self.client.source
        if not isinstance(source, StreamablePayloads):
            return web.Response(status=404, text="this client streams its payloads itself")
        began = time.time()
        try:
            made = source.flashblocks(await request.read())
        except UnknownPayload:
            return web.Response(status=404, text="unknown payload")
        base = made[0].base
        assert base is not None, "index 0 has one"
        frames = [encode_frame(self._framed(one, base.parent_hash, began)) for one in made]
        return web.Response(body=msgpack.packb(frames), content_type="application/msgpack")

    async def stand_in(self, request: web.Request) -> web.Response:
        """The flashblock of (payload id, index) in the body, made here, as a frame; 404 for what cannot be made."""
        source = self.client.source
        if not isinstance(source, StreamablePayloads):
            return web.Response(status=404, text="this client streams its payloads itself")
        began = time.time()
        try:
            name, index = msgpack.unpackb(await request.read())
            made = await source.stand_in(name, index)
        except (UnknownPayload, OutOfStep, ExecutionError, ValueError, TypeError) as error:
            return web.Response(status=404, text=str(error))
        followed = self.client.follower.open(name)
        assert followed is not None, "it was just adopted"
        frame = self._framed(made, followed.parent_hash, began)
        return web.Response(body=encode_frame(frame), content_type="application/msgpack")

    def _framed(self, made: Flashblock, parent_hash: bytes, began: float) -> FlashblockFrame:
        """A flashblock made here in a builder's place, traced as a builder's is."""
        trace, now = self.client.building, time.time()
        hashes = tuple(made.metadata.receipts)
        context = trace.built(made.payload_id, made.number, made.index, began, now, hashes)
        frame = frame_of(made, encode_body(made), parent_hash, traceparent=context)
        trace.published(made.payload_id, made.number, made.index, hashes, now)
        return frame


def payload_answer(envelope: Envelope, *, isthmus: bool) -> dict[str, Any]:
    """What engine_getPayload answers: the payload with OP's parentBeaconBlockRoot, and empty everything else."""
    answer: dict[str, Any] = {
        "executionPayload": envelope.payload.to_json(),
        "blockValue": quantity(envelope.block_value),
        "blobsBundle": {"commitments": [], "proofs": [], "blobs": []},
        "shouldOverrideBuilder": False,
        "parentBeaconBlockRoot": data(envelope.parent_beacon_block_root),
    }
    if isthmus:
        answer["executionRequests"] = []
    return answer


def _status_of(imported: Imported) -> PayloadStatus:
    return PayloadStatus(imported.status, imported.latest_valid_hash, imported.error)
