"""Derived traces, the OTLP-JSON file, and a real OTLP receiver on a socket."""

import asyncio
import json
import threading

import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.trace import SpanKind

from tracing.context import TraceRoot, block_root, failover_root, parse_traceparent, transaction_root
from tracing.otlp_json import FileExporter
from tracing.tracer import Tracer, make_tracer

GIVES_UP_S_MAX = 40.0


def spans_of(path):
    for line in path.read_text().splitlines():
        for resource in json.loads(line)["resourceSpans"]:
            names = {one["key"]: one["value"]["stringValue"] for one in resource["resource"]["attributes"]}
            for scope in resource["scopeSpans"]:
                for span in scope["spans"]:
                    yield names["service.name"], names["service.instance.id"], span


def test_everyone_derives_the_same_trace():
    assert block_root(901, b"\1" * 8) == block_root(901, b"\1" * 8)
    roots = {block_root(901, b"\1" * 8), block_root(902, b"\1" * 8), block_root(901, b"\2" * 8)}
    roots |= {transaction_root(b"\1" * 32), failover_root(901, 1), failover_root(901, 2)}
    assert len({root.trace_id for root in roots}) == 6


def test_a_traceparent_survives_and_garbage_does_not():
    root = transaction_root(b"\7" * 32)
    assert parse_traceparent(root.traceparent) == root
    zero = "00-" + "0" * 32 + "-" + "0" * 16 + "-01"
    for text in (
        None,
        "",
        "00-ab-cd-01",
        zero,
        root.traceparent.replace("00-", "ff-", 1),
        "x" * 55,
        "00-" + "g" * 32 + root.traceparent[35:],
    ):
        assert parse_traceparent(text) is None


def test_two_processes_make_one_tree_in_their_files(tmp_path):
    root = block_root(901, b"\1" * 8)
    builder, boost = (make_tracer(name, "sequencer-0", tmp_path, {}) for name in ("builder", "rollup-boost"))
    build = builder.span(root, "flashblock build", 10.0, 10.5, {"flashblock.index": 1, "ok": True, "ratio": 0.5})
    boost.root(root, "block", 9.0, 11.0, {"payload.id": "0x01"}, kind=SpanKind.SERVER, error="late", links=[build])
    builder.close()
    boost.close()
    spans = [
        one
        for name in ("builder", "rollup-boost")
        for one in spans_of(tmp_path / "traces" / f"{name}-sequencer-0.jsonl")
    ]
    (_, _, child), (service, instance, parent) = spans
    assert (service, instance) == ("rollup-boost", "sequencer-0")
    assert child["traceId"] == parent["traceId"] == f"{root.trace_id:032x}"
    assert child["parentSpanId"] == parent["spanId"] == f"{root.span_id:016x}"
    assert "parentSpanId" not in parent
    assert (child["startTimeUnixNano"], child["endTimeUnixNano"]) == ("10000000000", "10500000000")
    assert {"key": "flashblock.index", "value": {"intValue": "1"}} in child["attributes"]
    assert parent["status"]["code"] == 2
    assert parent["links"] == [{"traceId": child["traceId"], "spanId": child["spanId"]}]


def test_the_file_rotates_and_stays_bounded(tmp_path):
    path = tmp_path / "spans.jsonl"
    for _ in range(40):
        tracer = Tracer("builder", "sequencer-0", FileExporter(path, size_bytes_max=1500, files_max=3))
        tracer.span(TraceRoot(1, 2), "span", 1.0, 2.0, {})
        tracer.close()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["spans.jsonl", "spans.jsonl.1", "spans.jsonl.2"]
    assert all(file.stat().st_size <= 1500 for file in tmp_path.iterdir())


@pytest.mark.parametrize("variables", [{"OTEL_SDK_DISABLED": "true"}, {"OTEL_TRACES_EXPORTER": "none"}])
def test_tracing_can_be_turned_off(tmp_path, variables):
    tracer = make_tracer("builder", "sequencer-0", tmp_path, variables)
    tracer.span(TraceRoot(1, 2), "span", 1.0, 2.0, {})
    tracer.close()
    assert list(tmp_path.iterdir()) == []


async def test_a_collector_gets_the_spans_over_http(tmp_path):
    received = asyncio.Queue()

    async def collect(request):
        received.put_nowait(ExportTraceServiceRequest.FromString(await request.read()))
        return web.Response()

    app = web.Application()
    app.router.add_post("/v1/traces", collect)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{runner.addresses[0][1]}"}
    tracer = make_tracer("conductor", "sequencer-3", tmp_path, variables)
    root = failover_root(901, 4)
    tracer.root(root, "failover", 1.0, 1.2, {"epoch": 4})
    await asyncio.to_thread(tracer.close)
    request = await received.get()
    await runner.cleanup()
    (span,) = request.resource_spans[0].scope_spans[0].spans
    assert (span.name, span.trace_id.hex()) == ("failover", f"{root.trace_id:032x}")
    assert list(tmp_path.iterdir()) == []


def test_a_collector_that_is_gone_costs_nothing_but_spans(tmp_path):
    tracer = make_tracer(
        "conductor", "s", tmp_path, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_BSP": "x"}
    )
    for _ in range(10_000):
        tracer.span(TraceRoot(1, 2), "span", 1.0, 2.0, {})
    others = set(threading.enumerate())
    tracer.close()
    tracer.close()
    assert list(tmp_path.iterdir()) == []
    for ending in set(threading.enumerate()) - others:  # none is left behind to try again
        ending.join(GIVES_UP_S_MAX)
        assert not ending.is_alive()
