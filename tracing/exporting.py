"""What the OTEL_* variables ask for: where spans go, how they are batched, how many ordinary traces are kept.

Read once per process. The exporters themselves read what concerns the connection alone: OTEL_EXPORTER_OTLP_HEADERS,
_TIMEOUT, _COMPRESSION, _CERTIFICATE, _CLIENT_KEY, _CLIENT_CERTIFICATE and their _TRACES_ forms. A value that means
nothing is said in the log and counts as absent (OpenTelemetry, "SDK environment variables").
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from opentelemetry.sdk.trace.export import SpanExporter

from tracing.otlp_json import FileExporter

QUEUE_SPANS_MAX = 8192
BATCH_SPANS_MAX = 512
BATCH_DELAY_MS = 1000  # what a killed process takes with it
EXPORT_TIMEOUT_MS = 5000

GRPC = "grpc"
HTTP = "http/protobuf"
TRACE_ID_HALF = 1 << 64

_log = logging.getLogger("opentelemetry.flashblocks")


class Batching(msgspec.Struct, frozen=True, kw_only=True):
    """How spans wait for their export; OTEL_BSP_…, with a shorter delay and a longer queue than the SDK's."""

    queue_spans_max: int = QUEUE_SPANS_MAX
    batch_spans_max: int = BATCH_SPANS_MAX
    delay_ms: int = BATCH_DELAY_MS
    timeout_ms: int = EXPORT_TIMEOUT_MS


def is_on(variables: Mapping[str, str]) -> bool:
    """Whether anything is recorded: OTEL_SDK_DISABLED, OTEL_TRACES_EXPORTER=none."""
    return variables.get("OTEL_SDK_DISABLED", "").lower() != "true" and variables.get("OTEL_TRACES_EXPORTER") != "none"


def batching(variables: Mapping[str, str]) -> Batching:
    """OTEL_BSP_SCHEDULE_DELAY, _EXPORT_TIMEOUT, _MAX_QUEUE_SIZE, _MAX_EXPORT_BATCH_SIZE."""
    queue = _positive(variables, "OTEL_BSP_MAX_QUEUE_SIZE", QUEUE_SPANS_MAX)
    return Batching(
        queue_spans_max=queue,
        batch_spans_max=min(queue, _positive(variables, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", BATCH_SPANS_MAX)),
        delay_ms=_positive(variables, "OTEL_BSP_SCHEDULE_DELAY", BATCH_DELAY_MS),
        timeout_ms=_positive(variables, "OTEL_BSP_EXPORT_TIMEOUT", EXPORT_TIMEOUT_MS),
    )


def sampled_share(variables: Mapping[str, str]) -> float:
    """Which share of the ordinary traces is kept: OTEL_TRACES_SAMPLER and OTEL_TRACES_SAMPLER_ARG.

    Our roots have no parents, so the `parentbased_` samplers are what they are based on.
    """
    sampler = variables.get("OTEL_TRACES_SAMPLER", "").strip().lower().removeprefix("parentbased_")
    if sampler in ("", "always_on"):
        return 1.0
    if sampler == "always_off":
        return 0.0
    if sampler == "traceidratio":
        text = variables.get("OTEL_TRACES_SAMPLER_ARG", "1.0")
        try:
            share = float(text)
        except ValueError:
            share = -1.0
        if 0.0 <= share <= 1.0:
            return share
        _log.warning("OTEL_TRACES_SAMPLER_ARG=%r is no share between 0 and 1: every trace is kept", text)
        return 1.0
    _log.warning("OTEL_TRACES_SAMPLER=%r is not known: every trace is kept", sampler)
    return 1.0


def is_sampled(trace_id: int, share: float) -> bool:
    """Whether a trace is among the share: the same answer in every process (SDK, TraceIdRatioBased)."""
    return trace_id % TRACE_ID_HALF < round(share * TRACE_ID_HALF)


def make_exporter(path: Path | None, variables: Mapping[str, str]) -> SpanExporter | None:
    """The exporter that is asked for: to a collector, or without one to the file `path`; None for neither."""
    if not is_on(variables):
        return None
    wanted = variables.get("OTEL_TRACES_EXPORTER", "")
    if wanted not in ("", "otlp"):
        _log.warning("OTEL_TRACES_EXPORTER=%r is not supported: otlp or none", wanted)
    own, shared = _endpoints(variables)
    if not own and not shared and wanted != "otlp":
        return None if path is None else FileExporter(path)
    exporter: SpanExporter
    if protocol(variables) == GRPC:
        endpoint = own or shared
        insecure = endpoint.startswith("http://") or None  # else as OTEL_EXPORTER_OTLP_INSECURE says
        exporter = import_otlp(GRPC)(endpoint=endpoint or None, insecure=insecure)
    else:
        url = own or (shared.rstrip("/") + "/v1/traces" if shared else None)
        exporter = import_otlp(HTTP)(endpoint=url)
    return exporter


def protocol(variables: Mapping[str, str]) -> str:
    """How to talk to the collector: OTEL_EXPORTER_OTLP_TRACES_PROTOCOL, OTEL_EXPORTER_OTLP_PROTOCOL."""
    wanted = variables.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or variables.get("OTEL_EXPORTER_OTLP_PROTOCOL") or HTTP
    if wanted not in (GRPC, HTTP):
        _log.warning("OTEL_EXPORTER_OTLP_PROTOCOL=%r is not supported: %s or %s", wanted, HTTP, GRPC)
    return GRPC if wanted == GRPC else HTTP


def import_otlp(wanted: str) -> Any:
    """The exporter's class of this protocol; only then is it imported, which takes a tenth of a second or two."""
    if wanted == GRPC:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as OverGrpc

        return OverGrpc
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter


def import_exporter() -> None:
    """Import what the environment asks for, once for all processes that are forked afterwards."""
    own, shared = _endpoints(os.environ)
    if is_on(os.environ) and (own or shared):
        import_otlp(protocol(os.environ))


def _endpoints(variables: Mapping[str, str]) -> tuple[str, str]:
    return (
        variables.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", ""),
        variables.get("OTEL_EXPORTER_OTLP_ENDPOINT", ""),
    )


def _positive(variables: Mapping[str, str], name: str, default: int) -> int:
    text = variables.get(name, "").strip()
    if text.isascii() and text.isdigit() and int(text) > 0:
        return int(text)
    if text:
        _log.warning("%s=%r is no positive number: %d", name, text, default)
    return default
