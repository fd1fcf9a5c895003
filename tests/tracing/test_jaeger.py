"""A real Jaeger takes our spans over both protocols, and `flashblocks trace --jaeger` reads them back."""

import json
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlencode

import pytest

from cli import trace
from tests.tracing import jaeger
from tracing import names, reading
from tracing.conducting import BlockTrace, FailoverTrace
from tracing.context import block_root, failover_root
from tracing.stages import Stages
from tracing.tracer import make_tracer

pytestmark = [pytest.mark.skipif(jaeger.binary() is None, reason=jaeger.WHY_NOT), pytest.mark.timeout(120)]

ARRIVAL_S_MAX = 30.0
PAYLOAD = b"\3" * 8
BLOCK_HASH = b"\5" * 32
NUMBER = 7


@pytest.fixture(scope="module")
def server() -> Iterator[jaeger.Jaeger]:
    made = jaeger.Jaeger()
    yield made
    made.close()


def tell(
    server: jaeger.Jaeger, group: str, payload: bytes, epoch: int, began: float, variables: dict[str, str]
) -> None:
    """One block and the failover before it, as a conductor tells them."""
    tracer = make_tracer("conductor", group, None, variables)
    stages = Stages(tracer)
    failover = FailoverTrace(stages, 901)
    failover.committed(False, NUMBER, 3, began)
    failover.elected(True, began + 0.2, began + 0.3)
    failover.claimed(epoch, began + 0.35)
    failover.starting(began + 0.36)
    failover.started(began + 0.40)
    failover.committed(True, NUMBER, 4, began + 0.5)
    text = block_root(901, payload).traceparent
    stages.flashblock(text, names.COMMIT, began, began + 0.1, number=NUMBER, index=1, payload_id=payload)
    stages.flashblock(
        text, names.COMMIT, began, began + 0.1, number=NUMBER, index=2, payload_id=payload, error="index_gap"
    )
    blocks = BlockTrace(stages, 901, group)
    blocks.sealing(NUMBER, None, began, began + 1.9)
    blocks.sealed(NUMBER, group, payload, BLOCK_HASH, epoch, began + 2.0)
    tracer.flush()
    tracer.close()


def arrived(asked: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + ARRIVAL_S_MAX
    while not (found := asked()):
        assert time.monotonic() < deadline, f"Jaeger never showed {what}"
        time.sleep(0.1)
    return found


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_jaeger_finds_what_an_operator_looks_for(server, monkeypatch, capsys, protocol):
    url = server.grpc_url if protocol == "grpc" else server.otlp_url
    payload, epoch, began = protocol.encode()[:4] * 2, len(protocol), time.time() - 10.0
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_EXPORTER_OTLP_PROTOCOL": protocol}
    tell(server, "sequencer-1", payload, epoch, began, variables)

    def search(operation: str, tags: dict[str, str]) -> Any:
        query = urlencode({"service": "conductor", "operation": operation, "tags": json.dumps(tags), "lookback": "1h"})
        return server.ask(f"/api/traces?{query}")

    arrived(lambda: "conductor" in server.ask("/api/services"), "the service")
    by_payload = {names.PAYLOAD_ID: "0x" + payload.hex(), names.BLOCK_NUMBER: str(NUMBER)}
    (block,) = arrived(lambda: search(names.BLOCK, by_payload), "the block by its payload's id")
    assert block["traceID"] == f"{block_root(901, payload).trace_id:032x}"
    spans = reading.trace(reading.spans_of_jaeger({"data": [block]}), block["traceID"])
    assert spans[0].name == names.BLOCK
    assert not reading.orphans(spans)
    assert {span.instance for span in spans} == {"sequencer-1"}
    assert {each.get("warnings") is None for each in block["spans"]} == {True}
    failed = arrived(lambda: search(names.COMMIT, {"error": "true", **by_payload}), "the refused commit")
    assert failed[0]["traceID"] == block["traceID"]
    found = arrived(lambda: search(names.FAILOVER, {names.CAUSE: "leader lost", names.EPOCH: str(epoch)}), "failover")
    assert found[0]["traceID"] == f"{failover_root(901, epoch).trace_id:032x}"

    options = trace.argparse.Namespace(what="last-failover", jaeger=server.url, json=True, save=None, name=None)
    assert trace.run(options) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["complete"]
    assert told["jaeger"] == f"{server.url}/trace/{told['trace_id']}"
    assert [stage["stage"] for stage in told["stages"]] == [
        names.DETECT,
        names.ELECT,
        names.CLAIM,
        names.CATCH_UP,
        names.RESUME,
        names.FIRST_FLASHBLOCK,
    ]
    options.what = str(NUMBER)
    assert trace.run(options) == 0
    assert json.loads(capsys.readouterr().out)["name"] == names.BLOCK


def test_jaegers_upload_takes_our_files(server, tmp_path):
    """The UI's "JSON File" puts the lines of a file together, posts them to `/api/transform` and shows the answer."""
    for _ in range(2):  # a batch each
        tracer = make_tracer("conductor", "sequencer-0", tmp_path, {})
        BlockTrace(Stages(tracer), 901, "sequencer-0").sealed(NUMBER, "sequencer-0", PAYLOAD, BLOCK_HASH, 3, 11.0)
        tracer.close()
    (path,) = (tmp_path / "traces").iterdir()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(lines) == 2
    together = {"resourceSpans": [resource for line in lines for resource in line["resourceSpans"]]}
    saved = reading.otlp_of(reading.read_files(tmp_path))
    for otlp in (lines[0], together, saved):
        request = urllib.request.Request(server.url + "/api/transform", json.dumps(otlp).encode(), method="POST")
        with urllib.request.urlopen(request, timeout=10) as response:
            answer = json.load(response)
        spans = list(reading.spans_of_jaeger(answer))
        assert {span.name for span in spans} == {names.BLOCK, names.SEAL}
        assert {span.trace_id for span in spans} == {f"{block_root(901, PAYLOAD).trace_id:032x}"}
