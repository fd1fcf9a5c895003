"""The op-node's spans: its calls while it sequences, its imports while it follows – all in the trace of their block."""

from __future__ import annotations

import time

from opentelemetry.trace import SpanKind
from prometheus_client import CollectorRegistry

from actors.rpc_server import CALLER
from flashblocks.sequencing.driver import AskOpenBlock, Commit, Insert, SealBlock, StartBuild, Step
from flashblocks.wire.engine import Envelope
from flashblocks.wire.payload_id import payload_id
from tracing import names
from tracing.context import TraceRoot, block_root, parse_traceparent, root_of
from tracing.stages import component_stages, jsonrpc_attributes
from tracing.tracer import Attribute

SPANS: dict[type[Step], str] = {
    StartBuild: names.FORKCHOICE_UPDATED,
    SealBlock: names.GET_PAYLOAD,
    Commit: names.COMMIT_PAYLOAD,
    Insert: names.IMPORT,
}
METHODS: dict[type[Step], str] = {
    StartBuild: "engine_forkchoiceUpdatedV3",
    SealBlock: "engine_getPayload",
    Commit: "conductor_commitUnsafePayload",
}


class OpNodeTrace:
    """Spans of one op-node. The sequencer makes one block at a time, so the trace it is in is the last one begun."""

    def __init__(self, chain_id: int, name: str, data_dir: str, registry: CollectorRegistry) -> None:
        self.stages = component_stages("op-node", name, data_dir, registry)
        self._chain_id = chain_id
        self._root: TraceRoot | None = None

    def begins(self, step: Step) -> dict[str, str] | None:
        """A step is taken now; the headers for its calls."""
        if isinstance(step, StartBuild):
            self._root = self._root_of(payload_id(step.head.hash, step.attributes))
        elif isinstance(step, SealBlock):
            self._root = self._root_of(step.payload_id)
        return None if self._root is None else {"traceparent": self._root.traceparent}

    def _root_of(self, payload: bytes) -> TraceRoot:
        return self.stages.tracer.sampled(block_root(self._chain_id, payload))

    def ended(self, step: Step, took_s: float, error: str | None = None) -> None:
        """A step is through."""
        root = self._root
        if root is None or isinstance(step, AskOpenBlock):
            return
        attributes: dict[str, Attribute] = {names.OUTCOME: error or "ok"}
        if type(step) in METHODS:
            attributes |= jsonrpc_attributes(METHODS[type(step)])
        if isinstance(step, Commit | Insert):
            attributes |= _block(step.envelope)
        now = time.time()
        kind = SpanKind.INTERNAL if isinstance(step, Insert) else SpanKind.CLIENT
        stage = SPANS[type(step)]
        self.stages.observe(stage, took_s, root)
        self.stages.tracer.span(root, stage, now - took_s, now, attributes, kind=kind, error=error)

    def passed_on(self) -> dict[str, str] | None:
        """The headers for the calls that this call leads to: its own trace."""
        traceparent = CALLER.get().traceparent
        return {"traceparent": traceparent} if traceparent else None

    def imported(self, envelope: Envelope, took_s: float, outcome: str, error: str | None = None) -> None:
        """A payload of the conductor was taken; the call names the block's trace."""
        caller = parse_traceparent(CALLER.get().traceparent)
        if caller is None:
            self.stages.observe(names.IMPORT, took_s)
            return
        now = time.time()
        self.stages.observe(names.IMPORT, took_s, caller)
        attributes = _block(envelope) | {names.OUTCOME: outcome}
        kind = SpanKind.CONSUMER
        self.stages.tracer.span(root_of(caller), names.IMPORT, now - took_s, now, attributes, kind=kind, error=error)


def _block(envelope: Envelope) -> dict[str, Attribute]:
    payload = envelope.payload
    return {
        names.BLOCK_NUMBER: payload.block_number,
        names.BLOCK_HASH: "0x" + payload.block_hash.hex(),
        names.TRANSACTIONS: len(payload.transactions),
    }
