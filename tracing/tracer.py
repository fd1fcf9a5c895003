"""A component's tracer: spans are recorded when they are over, batched off the data path, and never block it.

Without a collector they go to a rotating OTLP-JSON file under the data directory; `tracing.exporting` says what the
OTEL_* variables make of that.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import getrandbits

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    Link,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
)

from tracing import names
from tracing.context import TraceRoot
from tracing.exporting import EXPORT_TIMEOUT_MS, Batching, batching, is_sampled, make_exporter, sampled_share

CLOSE_S_MAX = 1.0
SLOW_S = 1.0
"""A span as long as this is kept although its trace is not."""

SAMPLED = TraceFlags(TraceFlags.SAMPLED)
UNSET = Status(StatusCode.UNSET)
SCOPE = InstrumentationScope("flashblocks")

Attribute = str | bool | int | float


class Tracer:
    """Records finished spans of one component; every call is a few microseconds and safe from any thread.

    A span is made when it is over, out of what is known then: the SDK's own way – start, sampler, locks, end – costs
    three times as much and could not give a root span its derived id without tricks.
    """

    def __init__(
        self,
        component: str,
        group: str,
        exporter: SpanExporter | None,
        *,
        sampled_share: float = 1.0,
        batching: Batching | None = None,
        namespace: str = "",
    ) -> None:
        self.enabled = exporter is not None
        self.samples_all = sampled_share >= 1.0
        self._share = sampled_share
        self._closed = False
        who = {"service.name": component, names.GROUP: group}
        self._resource = Resource.create(who | ({names.NAMESPACE: namespace} if namespace else {}))
        self._exporter = exporter
        self._processor: BatchSpanProcessor | None = None
        if exporter is not None:
            batching = batching or Batching()
            self._processor = BatchSpanProcessor(
                exporter,
                max_queue_size=batching.queue_spans_max,
                max_export_batch_size=batching.batch_spans_max,
                schedule_delay_millis=batching.delay_ms,
                export_timeout_millis=batching.timeout_ms,
            )

    def sampled(self, root: TraceRoot) -> TraceRoot:
        """A derived root with the word on whether its trace is kept: the same in every process."""
        return root if self.samples_all or is_sampled(root.trace_id, self._share) else root._replace(sampled=False)

    def span(
        self,
        parent: TraceRoot,
        name: str,
        start: float,
        end: float,
        attributes: Mapping[str, Attribute],
        *,
        kind: SpanKind = SpanKind.INTERNAL,
        error: str | None = None,
        links: Sequence[TraceRoot] = (),
    ) -> TraceRoot:
        """Record a span below `parent`; `start` and `end` are Unix seconds. Returns its own context.

        Of a trace that is not kept, errors and what took SLOW_S are recorded apart, with a link to where they belong.
        """
        return self._record(parent, None, name, start, end, attributes, kind, error, links)

    def root(
        self,
        root: TraceRoot,
        name: str,
        start: float,
        end: float,
        attributes: Mapping[str, Attribute],
        *,
        kind: SpanKind = SpanKind.INTERNAL,
        error: str | None = None,
        links: Sequence[TraceRoot] = (),
    ) -> TraceRoot:
        """Record the root span of a derived trace under its derived id: exactly one process does this per trace."""
        return self._record(None, root, name, start, end, attributes, kind, error, links)

    def apart(
        self,
        name: str,
        start: float,
        end: float,
        attributes: Mapping[str, Attribute],
        *,
        kind: SpanKind = SpanKind.INTERNAL,
        error: str | None = None,
        links: Sequence[TraceRoot] = (),
    ) -> TraceRoot:
        """Record a trace of this one span, under an id of its own."""
        return self._record(None, None, name, start, end, attributes, kind, error, links)

    def _record(
        self,
        parent: TraceRoot | None,
        own: TraceRoot | None,
        name: str,
        start: float,
        end: float,
        attributes: Mapping[str, Attribute],
        kind: SpanKind,
        error: str | None,
        links: Sequence[TraceRoot],
    ) -> TraceRoot:
        if self._processor is None:
            return own or parent or TraceRoot(1, 1)
        links = [link for link in links if link.sampled]
        whole = own or parent
        if whole is not None and not whole.sampled:
            if error is not None or (own is None and end - start >= SLOW_S):
                self._emit(None, _new_trace(), name, start, end, attributes, kind, error, [*links, whole])
            return whole
        made = own or (_new_trace() if parent is None else TraceRoot(parent.trace_id, getrandbits(64) or 1))
        self._emit(parent, made, name, start, end, attributes, kind, error, links)
        return made

    def _emit(
        self,
        parent: TraceRoot | None,
        made: TraceRoot,
        name: str,
        start: float,
        end: float,
        attributes: Mapping[str, Attribute],
        kind: SpanKind,
        error: str | None,
        links: Sequence[TraceRoot],
    ) -> None:
        assert self._processor is not None
        if error is not None:
            attributes = {names.ERROR_TYPE: names.OTHER_ERROR, **attributes}
        span = ReadableSpan(
            name,
            context=SpanContext(made.trace_id, made.span_id, is_remote=False, trace_flags=SAMPLED),
            parent=None if parent is None else _remote(parent),
            resource=self._resource,
            attributes=attributes,
            links=[Link(_remote(link)) for link in links],
            kind=kind,
            status=UNSET if error is None else Status(StatusCode.ERROR, error),
            start_time=int(start * 1e9),
            end_time=int(max(start, end) * 1e9),
            instrumentation_scope=SCOPE,
        )
        self._processor.on_end(span)

    def flush(self) -> None:
        """Hand everything recorded so far to the exporter."""
        if self._processor is not None:
            self._processor.force_flush(EXPORT_TIMEOUT_MS)

    def close(self) -> None:
        """Flush and stop; takes at most CLOSE_S_MAX, even when the collector hangs. Safe to call twice."""
        if self._closed or self._processor is None:
            return
        self._closed = True
        closing = threading.Thread(target=self._processor.shutdown, name="end of tracing", daemon=True)
        closing.start()
        closing.join(CLOSE_S_MAX)
        if closing.is_alive() and self._exporter is not None:
            self._exporter.shutdown()  # ends its retries, and with them the thread


def make_tracer(
    component: str, group: str, data_dir: Path | None, environment: Mapping[str, str] | None = None
) -> Tracer:
    """Make the tracer that the OTEL_* variables ask for: a collector, a file under `data_dir`, or nothing.

    One cluster has many services, so OTEL_SERVICE_NAME names what they have in common: `service.namespace`.
    """
    variables = os.environ if environment is None else environment
    path = None if data_dir is None else data_dir / "traces" / f"{component}-{group}.jsonl"
    return Tracer(
        component,
        group,
        make_exporter(path, variables),
        sampled_share=sampled_share(variables),
        batching=batching(variables),
        namespace=variables.get("OTEL_SERVICE_NAME", ""),
    )


def component_tracer(component: str, name: str, data_dir: str) -> Tracer:
    """The tracer of one component from its settings; off without a data directory and a collector."""
    return make_tracer(component, name, Path(data_dir) if data_dir else None)


def no_tracer() -> Tracer:
    """A tracer that records nothing."""
    return Tracer("none", "none", None)


def _new_trace() -> TraceRoot:
    return TraceRoot(getrandbits(128) or 1, getrandbits(64) or 1)


def _remote(root: TraceRoot) -> SpanContext:
    return SpanContext(root.trace_id, root.span_id, is_remote=True, trace_flags=SAMPLED)
