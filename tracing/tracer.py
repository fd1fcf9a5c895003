"""A component's tracer: spans are recorded when they are over, batched off the data path, and never block it.

Without a collector they go to a rotating OTLP-JSON file under the data directory; with OTEL_EXPORTER_OTLP_ENDPOINT (or
the option of the same meaning) to that collector over OTLP/HTTP, or gRPC if OTEL_EXPORTER_OTLP_PROTOCOL says so.
OTEL_SDK_DISABLED=true turns tracing off.
"""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import getrandbits
from typing import Any

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

from tracing.context import TraceRoot
from tracing.otlp_json import FileExporter

QUEUE_SPANS_MAX = 8192
BATCH_SPANS_MAX = 512
BATCH_DELAY_MS = 1000  # what a killed process takes with it
EXPORT_TIMEOUT_MS = 5000
CLOSE_S_MAX = 1.0

SAMPLED = TraceFlags(TraceFlags.SAMPLED)
UNSET = Status(StatusCode.UNSET)
SCOPE = InstrumentationScope("flashblocks")

Attribute = str | bool | int | float


class Tracer:
    """Records finished spans of one component; every call is a few microseconds and safe from any thread.

    A span is made when it is over, out of what is known then: the SDK's own way – start, sampler, locks, end – costs
    three times as much and could not give a root span its derived id without tricks.
    """

    def __init__(self, component: str, group: str, exporter: SpanExporter | None) -> None:
        self.enabled = exporter is not None
        self._closed = False
        self._resource = Resource.create({"service.name": component, "service.instance.id": group})
        self._processor: BatchSpanProcessor | None = None
        if exporter is not None:
            self._processor = BatchSpanProcessor(
                exporter,
                max_queue_size=QUEUE_SPANS_MAX,
                max_export_batch_size=BATCH_SPANS_MAX,
                schedule_delay_millis=BATCH_DELAY_MS,
                export_timeout_millis=EXPORT_TIMEOUT_MS,
            )

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
        """Record a span below `parent`; `start` and `end` are Unix seconds. Returns its own context."""
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
        trace_id = own.trace_id if own else parent.trace_id if parent else getrandbits(128) or 1
        made = own or TraceRoot(trace_id, getrandbits(64) or 1)
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
        return made

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


def make_tracer(
    component: str, group: str, data_dir: Path | None, environment: Mapping[str, str] | None = None
) -> Tracer:
    """Make the tracer that the OTEL_* variables ask for: a collector, a file under `data_dir`, or nothing."""
    variables = os.environ if environment is None else environment
    return Tracer(component, group, _exporter(component, group, data_dir, variables))


def component_tracer(component: str, name: str, data_dir: str) -> Tracer:
    """The tracer of one component from its settings; off without a data directory and a collector."""
    return make_tracer(component, name, Path(data_dir) if data_dir else None)


def no_tracer() -> Tracer:
    """A tracer that records nothing."""
    return Tracer("none", "none", None)


def _exporter(component: str, group: str, data_dir: Path | None, variables: Mapping[str, str]) -> SpanExporter | None:
    if variables.get("OTEL_SDK_DISABLED", "").lower() == "true" or variables.get("OTEL_TRACES_EXPORTER") == "none":
        return None
    endpoint = variables.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or variables.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    if endpoint:
        protocol = variables.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or variables.get("OTEL_EXPORTER_OTLP_PROTOCOL")
        if protocol == "grpc":
            return _grpc_exporter(endpoint)
        exact = variables.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
        exporter: SpanExporter = import_otlp()(endpoint=exact or endpoint.rstrip("/") + "/v1/traces")
        return exporter
    return None if data_dir is None else FileExporter(data_dir / "traces" / f"{component}-{group}.jsonl")


def import_otlp() -> Any:
    """Import the exporter, which takes a while: done once for all processes that are forked."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter


def _grpc_exporter(endpoint: str) -> SpanExporter:
    """OTLP over gRPC, where its package is installed; raises RuntimeError saying so where it is not."""
    try:
        module = importlib.import_module("opentelemetry.exporter.otlp.proto.grpc.trace_exporter")
    except ImportError:
        package = "opentelemetry-exporter-otlp-proto-grpc"
        raise RuntimeError(f"OTEL_EXPORTER_OTLP_PROTOCOL=grpc needs: pip install {package}") from None
    exporter: SpanExporter = module.OTLPSpanExporter(endpoint=endpoint, insecure=endpoint.startswith("http://"))
    return exporter


def _remote(root: TraceRoot) -> SpanContext:
    return SpanContext(root.trace_id, root.span_id, is_remote=True, trace_flags=SAMPLED)
