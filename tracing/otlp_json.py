"""Spans as OTLP JSON (opentelemetry-proto, "JSON Protobuf Encoding": ids in hex, times as decimal strings).

Jaeger's UI opens such a file as it is; `flashblocks trace` reads it too.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

FILE_SIZE_BYTES_MAX = 16 * 1024 * 1024
FILES_KEPT_MAX = 3


class FileExporter(SpanExporter):
    """Appends one OTLP JSON object a batch to `path`; at the size limit the file becomes `path.1` and so on.

    Bounded: at most FILES_KEPT_MAX files of FILE_SIZE_BYTES_MAX each. A full disk drops the batch, nothing else.
    """

    def __init__(self, path: Path, size_bytes_max: int = FILE_SIZE_BYTES_MAX, files_max: int = FILES_KEPT_MAX) -> None:
        self.path, self.dropped = path, 0
        self._size_bytes_max, self._files_max = size_bytes_max, files_max
        path.parent.mkdir(parents=True, exist_ok=True)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Write one batch."""
        if not spans:
            return SpanExportResult.SUCCESS
        line = orjson.dumps(spans_to_json(spans)) + b"\n"
        try:
            if self.path.exists() and self.path.stat().st_size + len(line) > self._size_bytes_max:
                self._rotate()
            with self.path.open("ab") as file:
                file.write(line)
        except OSError:
            self.dropped += len(spans)
            return SpanExportResult.FAILURE
        return SpanExportResult.SUCCESS

    def _rotate(self) -> None:
        for number in range(self._files_max - 1, 0, -1):
            older = self.path if number == 1 else self.path.with_name(f"{self.path.name}.{number - 1}")
            if older.exists():
                os.replace(older, self.path.with_name(f"{self.path.name}.{number}"))


def spans_to_json(spans: Sequence[ReadableSpan]) -> dict[str, Any]:
    """Return the TracesData object of spans that share one resource, as all spans of one process do."""
    return {
        "resourceSpans": [
            {
                "resource": {"attributes": attributes_json(spans[0].resource.attributes)},
                "scopeSpans": [{"scope": {"name": "flashblocks"}, "spans": [_span(span) for span in spans]}],
            }
        ]
    }


def _span(span: ReadableSpan) -> dict[str, Any]:
    context = span.get_span_context()
    assert context is not None  # the SDK gives every recorded span one
    obj: dict[str, Any] = {
        "traceId": f"{context.trace_id:032x}",
        "spanId": f"{context.span_id:016x}",
        "name": span.name,
        "kind": span.kind.value + 1,
        "startTimeUnixNano": str(span.start_time),
        "endTimeUnixNano": str(span.end_time),
        "attributes": attributes_json(span.attributes or {}),
        "status": {"code": span.status.status_code.value, "message": span.status.description or ""},
    }
    if span.parent is not None:
        obj["parentSpanId"] = f"{span.parent.span_id:016x}"
    if span.links:
        obj["links"] = [
            {"traceId": f"{link.context.trace_id:032x}", "spanId": f"{link.context.span_id:016x}"}
            for link in span.links
        ]
    return obj


def attributes_json(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Attributes as OTLP JSON has them: a list of key and typed value."""
    return [{"key": key, "value": _value(value)} for key, value in values.items()]


def _value(value: Any) -> dict[str, Any]:
    if isinstance(value, str):  # most are, and asking an abstract class is slow
        return {"stringValue": value}
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, Sequence):
        return {"arrayValue": {"values": [_value(one) for one in value]}}
    return {"stringValue": str(value)}
