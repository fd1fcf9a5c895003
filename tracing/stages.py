"""The stages of a flashblock's life, each recorded once: as a span of its block, of its transactions, as a duration."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from opentelemetry.trace import SpanKind

from tracing import names
from tracing.context import TraceRoot, parse_frame_context, root_of, transaction_root
from tracing.tracer import Attribute, Tracer, component_tracer

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from flashblocks.wire.frames import FlashblockFrame

METRIC = "flashblocks_stage_seconds"
BUCKETS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4)

NOT_OF_TRANSACTIONS = frozenset((names.PUBLISH, names.PENDING, names.APPLY))
"""Of a transaction's trace the first is too short to see, the second is what `PRECONFIRM` shows, and the third goes on
in every group, mostly after the transaction is preconfirmed."""

MESSAGING: dict[str, tuple[SpanKind, dict[str, Attribute]]] = {
    stage: (
        kind,
        {
            names.MESSAGING_SYSTEM: "flashblocks",
            names.MESSAGING_DESTINATION: "flashblocks",
            names.MESSAGING_OPERATION: operation,
            names.MESSAGING_OPERATION_TYPE: operation_type,
        },
    )
    for stage, kind, operation, operation_type in (
        (names.PUBLISH, SpanKind.PRODUCER, "publish", "send"),
        (names.FAN_OUT, SpanKind.PRODUCER, "fan-out", "send"),
        (names.PENDING, SpanKind.CONSUMER, "show", "process"),
        (names.PRECONFIRM, SpanKind.CONSUMER, "preconfirm", "process"),
    )
}
"""The stages that hand a flashblock to a stream or take it out of one (semantic conventions, messaging)."""


class Stages:
    """One component's door to traces and to the histogram of stages. Times are Unix seconds."""

    def __init__(self, tracer: Tracer, registry: CollectorRegistry | None = None) -> None:
        self.tracer = tracer
        self._seconds = None
        if registry is not None:
            from prometheus_client import Histogram

            self._seconds = Histogram(
                METRIC,
                "Duration of a stage on the way to a preconfirmation",
                ["stage"],
                buckets=BUCKETS_S,
                registry=registry,
            )

    def observe(self, stage: str, seconds: float, trace: TraceRoot | None = None) -> None:
        """Count a duration; the trace, where it is recorded, is its exemplar."""
        if self._seconds is not None and math.isfinite(seconds):
            recorded = trace is not None and trace.sampled and self.tracer.enabled
            exemplar = {"trace_id": f"{trace.trace_id:032x}"} if recorded and trace is not None else None
            self._seconds.labels(stage).observe(max(0.0, seconds), exemplar)

    def flashblock(
        self,
        context_text: str,
        stage: str,
        start: float,
        end: float,
        *,
        number: int,
        index: int,
        payload_id: bytes,
        error: str | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        more: dict[str, Attribute] | None = None,
    ) -> None:
        """Record a stage of one flashblock in its block's trace, and in those of its traced transactions.

        `context_text` is the frame's; without it only the duration is counted.
        """
        context = parse_frame_context(context_text)
        self.observe(stage, end - start, None if context is None else context.build)
        if context is None or not self.tracer.enabled:
            return
        attributes = flashblock_attributes(number, index, payload_id, error or "ok")
        if stage in MESSAGING:
            kind, messaging = MESSAGING[stage]
            attributes.update(messaging)
        if more:
            attributes.update(more)
        root = root_of(context.build)
        own = self.tracer.span(root, stage, start, end, attributes, kind=kind, error=error, links=[context.build])
        if stage in NOT_OF_TRANSACTIONS:
            return
        for tx_hash in context.transactions:
            attributes = {**attributes, names.TX_HASH: "0x" + tx_hash.hex()}
            trace = transaction_root(tx_hash)
            self.tracer.span(trace, stage, start, end, attributes, kind=kind, error=error, links=[own])

    def frame(
        self,
        frame: FlashblockFrame,
        stage: str,
        took_s: float,
        error: str | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        more: dict[str, Attribute] | None = None,
        ended: float | None = None,
    ) -> None:
        """Record a stage of a frame's flashblock that ended at `ended`, or just now."""
        now = time.time() if ended is None else ended
        self.flashblock(
            frame.traceparent,
            stage,
            now - took_s,
            now,
            number=frame.number,
            index=frame.index,
            payload_id=frame.payload_id,
            error=error or None,
            kind=kind,
            more=more,
        )

    def call(
        self,
        traceparent: str,
        span: str,
        start: float,
        end: float,
        error: str | None = None,
        *,
        method: str = "",
        status: str = "",
    ) -> None:
        """Record a served JSON-RPC call below the caller's trace; nothing without a `traceparent` header of ours.

        `method` is its full name, where that is not the span's; `status` is the code of the answer's error.
        """
        context = parse_frame_context(traceparent)
        if context is not None and self.tracer.enabled:
            attributes = jsonrpc_attributes(method or span)
            if status:
                attributes |= {names.RPC_STATUS: status, names.ERROR_TYPE: status}
            self.tracer.span(root_of(context.build), span, start, end, attributes, kind=SpanKind.SERVER, error=error)

    def close(self) -> None:
        """Hand over what is recorded and stop."""
        self.tracer.close()


def component_stages(component: str, name: str, data_dir: str, registry: CollectorRegistry | None = None) -> Stages:
    """The stages of one component, with the tracer its settings and the environment ask for."""
    return Stages(component_tracer(component, name, data_dir), registry)


def jsonrpc_attributes(method: str) -> dict[str, Attribute]:
    """What a span of a JSON-RPC call carries (semantic conventions, JSON-RPC)."""
    return {names.RPC_SYSTEM: "jsonrpc", names.RPC_METHOD: method, names.JSONRPC_VERSION: "2.0"}


def flashblock_attributes(number: int, index: int, payload_id: bytes, outcome: str) -> dict[str, Attribute]:
    """What every span about a flashblock carries."""
    return {
        names.BLOCK_NUMBER: number,
        names.FLASHBLOCK_INDEX: index,
        names.PAYLOAD_ID: "0x" + payload_id.hex(),
        names.OUTCOME: outcome,
    }
