"""The OTEL_* variables: what each does, alone and together; and a real collector that speaks gRPC."""

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from tracing.context import TraceRoot, failover_root
from tracing.exporting import (
    BATCH_DELAY_MS,
    BATCH_SPANS_MAX,
    EXPORT_TIMEOUT_MS,
    GRPC,
    HTTP,
    QUEUE_SPANS_MAX,
    Batching,
    batching,
    is_on,
    is_sampled,
    make_exporter,
    protocol,
    sampled_share,
)
from tracing.otlp_json import FileExporter
from tracing.tracer import make_tracer

COLLECTOR = "http://127.0.0.1:4318"


class GrpcCollector(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self) -> None:
        self.requests: list[trace_service_pb2.ExportTraceServiceRequest] = []
        self.headers: dict[str, str] = {}
        self._server = grpc.server(ThreadPoolExecutor(2))
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def Export(self, request, context):
        self.requests.append(request)
        self.headers = dict(context.invocation_metadata())
        return trace_service_pb2.ExportTraceServiceResponse()

    def close(self) -> None:
        self._server.stop(None).wait()


@pytest.fixture
def grpc_collector() -> Iterator[GrpcCollector]:
    made = GrpcCollector()
    yield made
    made.close()


@pytest.mark.parametrize("scheme", ["http://", ""])
def test_a_collector_gets_the_spans_over_grpc_with_the_headers(tmp_path, monkeypatch, grpc_collector, scheme):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"{scheme}127.0.0.1:{grpc_collector.port}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=blocks")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_INSECURE", "true")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test,service.name=overruled")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "my-chain")
    tracer = make_tracer("conductor", "sequencer-3", tmp_path)
    root = failover_root(901, 4)
    tracer.root(root, "failover", 1.0, 1.2, {"epoch": 4})
    tracer.flush()
    tracer.close()
    (resource,) = grpc_collector.requests[0].resource_spans
    (span,) = resource.scope_spans[0].spans
    assert (span.name, span.trace_id.hex()) == ("failover", f"{root.trace_id:032x}")
    who = {each.key: each.value.string_value for each in resource.resource.attributes}
    assert who["service.name"] == "conductor"
    assert who["service.instance.id"] == "sequencer-3"
    assert who["service.namespace"] == "my-chain"
    assert who["deployment.environment.name"] == "test"
    assert grpc_collector.headers["x-tenant"] == "blocks"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, HTTP),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, GRPC),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf"}, HTTP),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}, HTTP),
    ],
)
def test_the_protocol(variables, expected):
    assert protocol(variables) == expected


@pytest.mark.parametrize(
    ("variables", "url"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": COLLECTOR}, COLLECTOR + "/v1/traces"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": COLLECTOR + "/"}, COLLECTOR + "/v1/traces"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://no", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": COLLECTOR}, COLLECTOR),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, "http://localhost:4318/v1/traces"),
        ({"OTEL_TRACES_EXPORTER": "zipkin", "OTEL_EXPORTER_OTLP_ENDPOINT": COLLECTOR}, COLLECTOR + "/v1/traces"),
    ],
)
def test_where_spans_go_over_http(tmp_path, variables, url):
    exporter = make_exporter(tmp_path / "spans.jsonl", variables)
    assert exporter._endpoint == url
    exporter.shutdown()


def test_without_a_collector_they_go_to_the_file_or_nowhere(tmp_path):
    exporter = make_exporter(tmp_path / "spans.jsonl", {})
    assert isinstance(exporter, FileExporter)
    assert make_exporter(None, {}) is None


@pytest.mark.parametrize(
    ("variables", "on"),
    [
        ({}, True),
        ({"OTEL_SDK_DISABLED": "TRUE"}, False),
        ({"OTEL_SDK_DISABLED": "false"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": COLLECTOR}, False),
    ],
)
def test_switching_it_off(tmp_path, variables, on):
    assert is_on(variables) == on
    assert (make_exporter(tmp_path / "spans.jsonl", variables) is not None) == on


def test_batching_is_the_operators_and_nonsense_is_nobodys():
    assert batching({}) == Batching(
        queue_spans_max=QUEUE_SPANS_MAX,
        batch_spans_max=BATCH_SPANS_MAX,
        delay_ms=BATCH_DELAY_MS,
        timeout_ms=EXPORT_TIMEOUT_MS,
    )
    asked = {
        "OTEL_BSP_MAX_QUEUE_SIZE": "100",
        "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "200",
        "OTEL_BSP_SCHEDULE_DELAY": "250",
        "OTEL_BSP_EXPORT_TIMEOUT": "-1",
    }
    made = Batching(queue_spans_max=100, batch_spans_max=100, delay_ms=250, timeout_ms=EXPORT_TIMEOUT_MS)
    assert batching(asked) == made


@pytest.mark.parametrize(
    ("sampler", "argument", "share"),
    [
        (None, None, 1.0),
        ("always_on", None, 1.0),
        ("always_off", None, 0.0),
        ("parentbased_always_off", "0.5", 0.0),
        ("traceidratio", "0.25", 0.25),
        ("parentbased_traceidratio", "0.25", 0.25),
        ("traceidratio", None, 1.0),
        ("traceidratio", "a quarter", 1.0),
        ("traceidratio", "1.5", 1.0),
        ("jaeger_remote", None, 1.0),
    ],
)
def test_the_sampler(sampler, argument, share):
    variables = {"OTEL_TRACES_SAMPLER": sampler, "OTEL_TRACES_SAMPLER_ARG": argument}
    assert sampled_share({name: value for name, value in variables.items() if value is not None}) == share


def test_a_share_is_a_share_of_the_ids_and_a_smaller_one_is_part_of_a_larger():
    ids = [failover_root(901, epoch).trace_id for epoch in range(2000)]
    kept = [{each for each in ids if is_sampled(each, share)} for share in (0.0, 0.1, 0.5, 1.0)]
    assert (len(kept[0]), len(kept[3])) == (0, 2000)
    assert kept[1] < kept[2]
    assert 0.07 < len(kept[1]) / 2000 < 0.13


def test_of_a_trace_that_is_not_kept_errors_and_what_was_slow_are(tmp_path):
    tracer = make_tracer("builder", "sequencer-0", tmp_path, {"OTEL_TRACES_SAMPLER": "always_off"})
    root = tracer.sampled(TraceRoot(7 << 64, 7))
    assert root.traceparent.endswith("-00")
    tracer.span(root, "fine", 1.0, 1.1, {})
    tracer.root(root, "whole", 1.0, 3.0, {})
    tracer.span(root, "wrong", 1.0, 1.1, {}, error="it broke")
    tracer.span(root, "slow", 1.0, 2.0, {})
    tracer.close()
    (path,) = (tmp_path / "traces").iterdir()
    spans = [
        span
        for line in path.read_text().splitlines()
        for scope in json.loads(line)["resourceSpans"][0]["scopeSpans"]
        for span in scope["spans"]
    ]
    assert [span["name"] for span in spans] == ["wrong", "slow"]
    for span in spans:
        assert "parentSpanId" not in span
        assert span["traceId"] != f"{root.trace_id:032x}"
        assert [link["traceId"] for link in span["links"]] == [f"{root.trace_id:032x}"]


def test_a_component_without_a_collector_does_not_import_the_exporters():
    code = (
        "import sys, tracing.tracer; "
        "print([name for name in sys.modules if name.startswith(('grpc', 'requests', 'opentelemetry.exporter'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
