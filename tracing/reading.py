"""Reads traces back – from the OTLP-JSON files of a cluster, or from Jaeger's query API – and says where time went."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import orjson

from tracing import names
from tracing.otlp_json import attributes_json

ERROR_CODE = 2  # opentelemetry-proto, Status.StatusCode
SPAN_KIND_INTERNAL = 1
TRACE_FILES = "**/traces/*.jsonl*"


PHASES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("queue", (names.ADMIT, names.POOL)),
    ("build", (names.BUILD, names.INCLUDE)),
    ("judge", (names.JUDGE,)),
    ("commit", (names.COMMIT,)),
    ("fan-out", (names.PUBLISH, names.FAN_OUT, names.PRECONFIRM)),
)
"""What the stages are for, in the order of a flashblock's life."""


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """One span, wherever it was read; times in Unix seconds, ids in hex."""

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    service: str
    instance: str
    start: float
    end: float
    attributes: dict[str, Any]
    error: str | None = None
    links: tuple[tuple[str, str], ...] = ()

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.end - self.start


class Share(msgspec.Struct, frozen=True):
    """What one stage took of the whole: `seconds` of it in total over `count` spans, the longest `seconds_max`."""

    stage: str
    seconds: float
    count: int
    seconds_max: float


def read_files(directory: Path, needle: str = "") -> list[Span]:
    """Every span below *directory* whose batch holds *needle*, each once; what is cut off or broken is passed over."""
    found: dict[tuple[str, str], Span] = {}
    for path in sorted(directory.glob(TRACE_FILES)):
        try:
            content = path.read_bytes()
        except OSError:
            continue  # rotated away just now
        for line in content.splitlines():
            if needle.encode() in line:
                for span in _spans_of_line(line):
                    found[span.trace_id, span.span_id] = span
    return list(found.values())


def _spans_of_line(line: bytes) -> list[Span]:
    try:
        return list(spans_of_otlp(orjson.loads(line)))
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        return []


def spans_of_otlp(batch: Mapping[str, Any]) -> Iterator[Span]:
    """The spans of one OTLP-JSON object; raises KeyError, TypeError or ValueError for what is none."""
    for resource in batch["resourceSpans"]:
        who = _values(resource["resource"]["attributes"])
        for scope in resource["scopeSpans"]:
            for span in scope["spans"]:
                status = span.get("status", {})
                attributes = _values(span.get("attributes", []))
                failed = status.get("code") in (ERROR_CODE, "STATUS_CODE_ERROR")
                yield Span(
                    trace_id=span["traceId"],
                    span_id=span["spanId"],
                    parent_id=span.get("parentSpanId", ""),
                    name=span["name"],
                    service=str(who.get("service.name", "")),
                    instance=str(who.get(names.GROUP, "")),
                    start=int(span["startTimeUnixNano"]) / 1e9,
                    end=int(span["endTimeUnixNano"]) / 1e9,
                    attributes=attributes,
                    error=(status.get("message") or str(attributes.get(names.OUTCOME, "error"))) if failed else None,
                    links=tuple((link["traceId"], link["spanId"]) for link in span.get("links", [])),
                )


def otlp_of(spans: Iterable[Span]) -> dict[str, Any]:
    """The inverse of `spans_of_otlp`: one object that Jaeger's UI opens as a file."""
    by_resource: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for span in spans:
        obj: dict[str, Any] = {
            "traceId": span.trace_id,
            "spanId": span.span_id,
            "name": span.name,
            "kind": SPAN_KIND_INTERNAL,
            "startTimeUnixNano": str(round(span.start * 1e6) * 1000),
            "endTimeUnixNano": str(round(span.end * 1e6) * 1000),
            "attributes": attributes_json(span.attributes),
            "status": {} if span.error is None else {"code": ERROR_CODE, "message": span.error},
            "links": [{"traceId": trace_id, "spanId": span_id} for trace_id, span_id in span.links],
        }
        if span.parent_id:
            obj["parentSpanId"] = span.parent_id
        by_resource.setdefault((span.service, span.instance), []).append(obj)
    return {
        "resourceSpans": [
            {
                "resource": {"attributes": attributes_json({"service.name": service, names.GROUP: instance})},
                "scopeSpans": [{"scope": {"name": "flashblocks"}, "spans": own}],
            }
            for (service, instance), own in by_resource.items()
        ]
    }


def spans_of_jaeger(answer: Mapping[str, Any]) -> Iterator[Span]:
    """The spans in an answer of Jaeger's `/api/traces`; raises KeyError, TypeError or ValueError for what is none."""
    for trace in answer.get("data") or []:
        processes = trace["processes"]
        for span in trace["spans"]:
            process = processes[span["processID"]]
            who = {tag["key"]: tag["value"] for tag in process.get("tags", [])}
            tags = {tag["key"]: tag["value"] for tag in span.get("tags", [])}
            references = span.get("references", [])
            parents = [each["spanID"] for each in references if each["refType"] == "CHILD_OF"]
            failed = tags.get("error") in (True, "true") or tags.get("otel.status_code") == "ERROR"
            yield Span(
                trace_id=span["traceID"].zfill(32),
                span_id=span["spanID"].zfill(16),
                parent_id=parents[0].zfill(16) if parents else "",
                name=span["operationName"],
                service=process["serviceName"],
                instance=str(who.get(names.GROUP, "")),
                start=span["startTime"] / 1e6,
                end=(span["startTime"] + span["duration"]) / 1e6,
                attributes=tags,
                error=str(tags.get("otel.status_description") or tags.get(names.OUTCOME, "error")) if failed else None,
                links=tuple((each["traceID"], each["spanID"]) for each in references if each["refType"] != "CHILD_OF"),
            )


def trace(spans: Iterable[Span], trace_id: str) -> list[Span]:
    """One trace, its root first, then by start; a span that was recorded twice is there once."""
    own = {span.span_id: span for span in spans if span.trace_id == trace_id}
    return sorted(own.values(), key=lambda span: (span.parent_id != "", span.start, -span.end))


def root(spans: Sequence[Span]) -> Span | None:
    """The span without a parent, where there is one."""
    return next((span for span in spans if not span.parent_id), None)


def orphans(spans: Sequence[Span]) -> list[Span]:
    """Spans whose parent is not in the trace."""
    known = {span.span_id for span in spans}
    return [span for span in spans if span.parent_id and span.parent_id not in known]


def shares(spans: Sequence[Span]) -> list[Share]:
    """Where the time went: every stage, in the order in which they first began."""
    by_stage: dict[str, list[float]] = {}
    for span in sorted(spans, key=lambda span: span.start):
        if span.parent_id:
            by_stage.setdefault(span.name, []).append(span.seconds)
    return [Share(stage, sum(took), len(took), max(took)) for stage, took in by_stage.items()]


def phases(spans: Sequence[Span]) -> dict[str, float]:
    """Seconds of the trace in each phase that it has; what goes on at the same time counts once."""
    took = {name: _covered_s([span for span in spans if span.name in stages]) for name, stages in PHASES}
    return {name: seconds for name, seconds in took.items() if seconds > 0}


def between_s(spans: Sequence[Span]) -> float:
    """Seconds of the root during which no other span was open: sockets, queues between processes, waiting."""
    whole = root(spans)
    if whole is None:
        return 0.0
    return whole.seconds - _covered_s([span for span in spans if span.parent_id], whole.start, whole.end)


def _covered_s(spans: Sequence[Span], start: float = 0.0, until: float = math.inf) -> float:
    """Seconds between these moments in which at least one of the spans was open."""
    covered, reached = 0.0, start
    for span in sorted(spans, key=lambda span: span.start):
        begin, end = max(span.start, reached), min(span.end, until)
        if end > begin:
            covered, reached = covered + end - begin, end
    return covered


def newest(spans: Iterable[Span], name: str) -> Span | None:
    """The root of this name that began last."""
    roots = [span for span in spans if span.name == name and not span.parent_id]
    return max(roots, key=lambda span: span.start, default=None)


def _values(attributes: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    return {each["key"]: _value(each["value"]) for each in attributes}


def _value(value: Mapping[str, Any]) -> Any:
    if "intValue" in value:
        return int(value["intValue"])
    if "arrayValue" in value:
        return [_value(each) for each in value["arrayValue"].get("values", [])]
    return next(iter(value.values()), None)
