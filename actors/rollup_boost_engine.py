"""rollup-boost's Engine API door: what op-node calls, routed to the execution client, the builder and the core."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Coroutine
from functools import partial
from inspect import signature
from typing import Any

from actors.rollup_boost_clients import ERROR_CODE_WITHOUT_ANSWER, EngineClientOfBoost
from actors.rpc_client import RpcRefused, RpcUnknown
from actors.rpc_server import CALLER
from flashblocks.rollup_boost.facts import (
    AnswerEnvelope,
    AnswerFrom,
    AskForBlocks,
    BlocksOffered,
    Called,
    Decision,
    Fact,
    Forkchoice,
    Forward,
    PayloadAsked,
    PayloadIdAnswered,
    Status,
    Target,
)
from flashblocks.rollup_boost.selection import Offer, Source
from flashblocks.wire.engine import (
    INVALID_PAYLOAD_ATTRIBUTES,
    UNKNOWN_PAYLOAD,
    UNSUPPORTED_FORK,
    Envelope,
    ForkchoiceState,
    PayloadAttributes,
)
from flashblocks.wire.hexadecimal import WireError, data, to_bytes
from flashblocks.wire.jsonrpc import INVALID_PARAMS, METHOD_NOT_FOUND, RpcError
from flashblocks.wire.payload_id import payload_id
from tracing import names

SPANS = {
    "fork_choice_updated_v3": names.FORKCHOICE_UPDATED,
    "new_payload_v3": names.NEW_PAYLOAD,
    "new_payload_v4": names.NEW_PAYLOAD,
    "get_payload_v3": names.GET_PAYLOAD,
    "get_payload_v4": names.GET_PAYLOAD,
    "get_payload_v5": names.GET_PAYLOAD,
}
BOTH = frozenset(
    (
        "eth_sendRawTransaction",
        "eth_sendRawTransactionConditional",
        "miner_setExtra",
        "miner_setGasPrice",
        "miner_setGasLimit",
        "miner_setMaxDASize",
    )
)
CALLERS_FAULTS = frozenset((INVALID_PARAMS, UNKNOWN_PAYLOAD, INVALID_PAYLOAD_ATTRIBUTES, UNSUPPORTED_FORK))
GET_PAYLOAD_S_MAX = 3.0
BUILDER_CALLS_WAITING_MAX = 8
UPDATES_KEPT_MAX = 4

Tell = Callable[[Fact], list[Decision]]
Spawn = Callable[[Coroutine[Any, Any, Any]], None]


class _Payload:
    """A payload being answered: an envelope of ours, or the client's own JSON."""

    def __init__(self, source: Source, envelope: Envelope | None, raw: Any, flashblocks: int) -> None:
        self.source, self.envelope, self.raw, self.flashblocks = source, envelope, raw, flashblocks


class EngineProxy:
    """The methods of the engine port; ``tell`` is the core's door, ``spawn`` runs what nobody waits for."""

    def __init__(
        self, l2: EngineClientOfBoost, builder: EngineClientOfBoost, tell: Tell, spawn: Spawn, log: Any, metrics: Any
    ) -> None:
        self._l2, self._builder = l2, builder
        self._tell, self._spawn, self._log, self._metrics = tell, spawn, log, metrics
        self._tokens = itertools.count(1)
        self._asked: dict[int, asyncio.Future[_Payload]] = {}
        self._blocks: dict[int, dict[Source, Any]] = {}
        self._versions: dict[int, int] = {}
        self._updates: dict[bytes, tuple[list[Any], str]] = {}  # parameters, trace
        self.on_call: Callable[[str, str, float, float, str | None], None] = lambda *call: None
        self._builder_turn = asyncio.Lock()
        self._builder_waiting = 0
        self.methods: dict[str, Callable[..., Coroutine[Any, Any, Any]]] = {
            "engine_exchangeCapabilities": self._timed("exchange_capabilities", self._exchange_capabilities),
            "engine_forkchoiceUpdatedV3": self._timed("fork_choice_updated_v3", self._forkchoice_updated),
        }
        for version in (3, 4):
            method = f"engine_newPayloadV{version}"
            self.methods[method] = self._timed(f"new_payload_v{version}", partial(self._new_payload, method))
        for version in (3, 4, 5):
            serve = partial(self._get_payload, version)
            self.methods[f"engine_getPayloadV{version}"] = self._timed(f"get_payload_v{version}", serve)

    async def proxy(self, method: str, params: list[Any]) -> Any:
        """Everything that is not ours: to the execution client; raw transactions and miner calls to both."""
        if method.startswith("engine_"):
            raise RpcError(METHOD_NOT_FOUND, f"the method {method} does not exist/is not available")
        if method in BOTH:
            self._spawn(self._to_builder(method, params))
        began, labels = time.perf_counter(), {"span_kind": "client", "target": "l2", "status": "error"}
        if method in BOTH:
            labels["method"] = method  # callers choose the others' names
        try:
            answer = await self._to_l2(method, params)
            labels["status"] = "ok"
            return answer
        except RpcError as error:
            labels["code"] = str(error.code)
            raise
        finally:
            self._metrics.observe("forward_duration", time.perf_counter() - began, **labels)

    def resume_builder(self, payload_id: bytes) -> None:
        """Repeat the forkchoice update of this payload to the builder, in turn with its other calls."""
        update = self._updates.get(payload_id)
        if update is not None:
            params, traceparent = update
            self._log.info("the builder came back", payload_id=data(payload_id), traceparent=traceparent)
            self._spawn(self._repeat_forkchoice(params, payload_id, traceparent))

    def carry_out(self, decision: AnswerEnvelope | AnswerFrom | AskForBlocks) -> None:
        """Do what the core decided about a getPayload."""
        match decision:
            case AskForBlocks():
                self._spawn(self._ask_for_blocks(decision))
            case AnswerEnvelope():
                self._resolve(
                    decision.token, _Payload(Source.FLASHBLOCKS, decision.envelope, None, decision.flashblocks)
                )
            case AnswerFrom(token, None):
                self._fail(token)
            case AnswerFrom(token, source):
                assert source is not None
                self._resolve(token, _Payload(source, None, self._blocks.get(token, {}).get(source), 0))

    def _timed(
        self, span: str, method: Callable[..., Coroutine[Any, Any, Any]]
    ) -> Callable[..., Coroutine[Any, Any, Any]]:
        """Note the duration of every call under the name of upstream's span."""

        shape = signature(method)

        async def timed(*params: Any) -> Any:
            try:
                shape.bind(*params)
            except TypeError:
                raise RpcError(INVALID_PARAMS, f"wrong number of arguments for {span}") from None
            began, labels = time.perf_counter(), {"span_kind": "server", "status": "error"}
            try:
                answer = await method(*params)
                labels["status"] = "ok"
                return answer
            except RpcError as error:
                labels["code"] = str(error.code)
                raise
            finally:
                took_s, now = time.perf_counter() - began, time.time()
                self._metrics.observe(f"{span}_duration", took_s, **labels)
                error_text = None if labels["status"] == "ok" else "error"
                if span in SPANS:
                    self.on_call(CALLER.get().traceparent, SPANS[span], now - took_s, now, error_text)

        return timed

    async def _exchange_capabilities(self, *params: Any) -> Any:
        return await self._to_l2("engine_exchangeCapabilities", list(params))

    async def _forkchoice_updated(self, state: Any, attributes: Any = None) -> Any:
        forkchoice = ForkchoiceState.from_json(state)
        wanted = None if attributes is None else PayloadAttributes.from_json(attributes)
        identifier = b"" if wanted is None else payload_id(forkchoice.head, wanted)
        token = next(self._tokens)
        decisions = self._tell(Forkchoice(token, forkchoice.head, wanted, identifier))
        to_builder = any(decision.to_builder for decision in decisions if isinstance(decision, Forward))
        if to_builder and identifier:
            self._updates[identifier] = [state, attributes], CALLER.get().traceparent
            while len(self._updates) > UPDATES_KEPT_MAX:
                del self._updates[next(iter(self._updates))]
        if to_builder:
            # Not awaited: a slow or hung builder must not delay the block. Its id is ours unless it says otherwise.
            self._spawn(self._forkchoice_to_builder([state, attributes], identifier))
        answer = await self._to_l2("engine_forkchoiceUpdatedV3", [state, attributes], Target.EXECUTION)
        if wanted is not None:
            self._tell(PayloadIdAnswered(Target.EXECUTION, identifier, _payload_id_of(answer)))
        return answer

    async def _repeat_forkchoice(self, params: list[Any], identifier: bytes, traceparent: str) -> None:
        CALLER.set(CALLER.get()._replace(traceparent=traceparent))  # of this task alone: nobody calls now
        await self._forkchoice_to_builder(params, identifier)

    async def _forkchoice_to_builder(self, params: list[Any], identifier: bytes) -> None:
        began = time.perf_counter()
        answer = await self._to_builder_in_turn("engine_forkchoiceUpdatedV3", params)
        status = "error" if answer is None else "ok"
        labels = {"span_kind": "client", "target": "builder", "status": status}
        span = "flashblocks_fork_choice_updated_v3" if identifier else "fork_choice_updated_v3"
        self._metrics.observe(f"{span}_duration", time.perf_counter() - began, **labels)
        if identifier and answer is not None:
            self._tell(PayloadIdAnswered(Target.BUILDER, identifier, _payload_id_of(answer)))

    async def _new_payload(self, method: str, *params: Any) -> Any:
        self._spawn(self._to_builder_in_turn(method, list(params)))
        return await self._to_l2(method, list(params), Target.EXECUTION)

    async def _get_payload(self, version: int, identifier: Any) -> Any:
        client_id = to_bytes(identifier, 8, "payloadId")
        token = next(self._tokens)
        future: asyncio.Future[_Payload] = asyncio.get_running_loop().create_future()
        self._asked[token], self._versions[token] = future, version
        try:
            self._tell(PayloadAsked(token, client_id))
            async with asyncio.timeout(GET_PAYLOAD_S_MAX):
                payload = await future
        except TimeoutError:
            raise RpcError(ERROR_CODE_WITHOUT_ANSWER, "no client answered getPayload in time") from None
        finally:
            self._asked.pop(token, None)
            self._versions.pop(token, None)
            self._blocks.pop(token, None)
        context = "l2" if payload.source is Source.L2 else "builder"
        self._metrics.count("rpc_blocks_created", source=context)
        self._log.info(
            "returning block",
            context=context,
            payload_id=identifier,
            flashblocks=payload.flashblocks,
            version=version,
            **_headers(),
        )
        return payload.raw if payload.envelope is None else get_payload_answer(payload.envelope, version)

    async def _ask_for_blocks(self, asked: AskForBlocks) -> None:
        version = self._versions.get(asked.token, 4)
        method = f"engine_getPayloadV{version}"
        found: dict[Source, Any] = {}
        self._blocks[asked.token] = found
        builder: Offer | None = None
        l2_call = asyncio.create_task(self._own_block_of_l2(method, asked))
        if asked.builder_id is not None:
            raw = await self._to_builder(method, [data(asked.builder_id)])
            builder = None if raw is None else await self._judge(raw)
            found[Source.BUILDER] = raw
        try:
            found[Source.L2] = await l2_call
        except RpcError as error:
            self._fail(asked.token, error)  # the id is wrong, not the client
            return
        l2 = None if found[Source.L2] is None else _offer(found[Source.L2])
        if builder is not None and l2 is not None:
            self._metrics.observe("block_building_gas_delta", builder.gas_used - l2.gas_used)
            self._metrics.observe("block_building_tx_count_delta", builder.transactions - l2.transactions)
        flashblocks = await self._l2.flashblocks_of(asked.client_id) if asked.flashblocks and l2 is not None else ()
        self._tell(BlocksOffered(asked.token, asked.client_id, l2, builder, flashblocks))

    async def _judge(self, raw: Any) -> Offer | None:
        """A builder's whole block is answered only when the execution client finds it VALID."""
        try:
            envelope = Envelope.from_json(raw)
        except WireError:
            return None
        verdict = await self._l2.judge_block(envelope)
        return Offer(envelope.payload.gas_used, verdict.status is Status.VALID, len(envelope.payload.transactions))

    async def _own_block_of_l2(self, method: str, asked: AskForBlocks) -> Any:
        try:
            return await self._l2.rpc.call(method, data(asked.client_id), headers=_headers())
        except (RpcRefused, RpcUnknown) as error:
            if isinstance(error, RpcRefused) and error.code == UNKNOWN_PAYLOAD:
                raise RpcError(error.code, error.message, error.data) from None
            self._log.warning("the execution client has no block", method=method, error=str(error), **_headers())
            return None

    async def _to_l2(self, method: str, params: list[Any], tell: Target | None = None) -> Any:
        try:
            answer = await self._l2.rpc.call(method, *params, headers=_headers())
        except RpcRefused as error:
            # An answer with an error of the protocol is the caller's fault; the client itself is well.
            raise RpcError(error.code, error.message, error.data) from None
        except RpcUnknown as error:
            if tell is not None:
                self._tell(Called(tell, f"{method}: {error}"))
            raise RpcError(ERROR_CODE_WITHOUT_ANSWER, str(error)) from None
        if tell is not None:
            self._tell(Called(tell))
        return answer

    async def _to_builder_in_turn(self, method: str, params: list[Any]) -> Any:
        """Calls that change the builder's chain reach it in op-node's order, although nobody waits for them."""
        if self._builder_waiting >= BUILDER_CALLS_WAITING_MAX:
            self._tell(Called(Target.BUILDER, f"{method}: {self._builder_waiting} calls are waiting already"))
            return None
        self._builder_waiting += 1
        try:
            async with self._builder_turn:
                failure, answer = await self._call_builder(method, params)
        finally:
            self._builder_waiting -= 1
        self._tell(Called(Target.BUILDER, failure))
        return answer

    async def _to_builder(self, method: str, params: list[Any]) -> Any:
        return (await self._call_builder(method, params))[1]

    async def _call_builder(self, method: str, params: list[Any]) -> tuple[str, Any]:
        try:
            return "", await self._builder.rpc.call(method, *params, headers=_headers())
        except (RpcRefused, RpcUnknown) as error:
            self._log.warning("the builder did not do it", method=method, error=str(error), **_headers())
            asked_wrongly = isinstance(error, RpcRefused) and error.code in CALLERS_FAULTS
            return "" if asked_wrongly else f"{method}: {error}", None

    def _resolve(self, token: int, payload: _Payload) -> None:
        future = self._asked.get(token)
        if future is not None and not future.done():
            future.set_result(payload)

    def _fail(self, token: int, error: RpcError | None = None) -> None:
        future = self._asked.get(token)
        if future is not None and not future.done():
            future.set_exception(error or RpcError(ERROR_CODE_WITHOUT_ANSWER, "the execution client has no payload"))


def get_payload_answer(envelope: Envelope, version: int) -> dict[str, Any]:
    """An envelope as engine_getPayload of this version answers it, with OP's parentBeaconBlockRoot."""
    answer: dict[str, Any] = {
        "executionPayload": envelope.payload.to_json(),
        "blockValue": "0x0",
        "blobsBundle": {"commitments": [], "proofs": [], "blobs": []},
        "shouldOverrideBuilder": False,
        "parentBeaconBlockRoot": data(envelope.parent_beacon_block_root),
    }
    if version >= 4:
        answer["executionRequests"] = []
    return answer


def _headers() -> dict[str, str]:
    """What goes along with a call that op-node's call leads to: the block's trace."""
    traceparent = CALLER.get().traceparent
    return {"traceparent": traceparent} if traceparent else {}


def _payload_id_of(answer: Any) -> bytes | None:
    text = answer.get("payloadId") if isinstance(answer, dict) else None
    try:
        return None if text is None else to_bytes(text, 8, "payloadId")
    except WireError:
        return None


def _offer(raw: Any) -> Offer | None:
    try:
        payload = Envelope.from_json(raw).payload
        return Offer(payload.gas_used, transactions=len(payload.transactions))
    except WireError:
        return None
