"""`flashblocks trace` on files written by real tracers."""

import io
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import pytest
from rich.console import Console

from cli.main import main
from cli.trace import as_json, picture
from tracing import names
from tracing.conducting import BlockTrace, FailoverTrace
from tracing.context import block_root, failover_root, transaction_root
from tracing.reading import read_files, spans_of_otlp, trace
from tracing.sending import SendTrace
from tracing.stages import Stages
from tracing.tracer import make_tracer

PAYLOAD = b"\3" * 8
TX = b"\x11" * 32
BLOCK_HASH = b"\x22" * 32


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    conductor = Stages(make_tracer("conductor", "sequencer-1", tmp_path / "sequencer-1", {}))
    blocks, failover = BlockTrace(conductor, 901, "a"), FailoverTrace(conductor, 901)
    blocks.sealing(22, None, 1.0, 2.9)
    blocks.sealed(22, "a", PAYLOAD, BLOCK_HASH, 4, 3.0)
    for epoch, last_commit in ((1, None), (4, 10.0)):
        if last_commit is not None:
            failover.committed(False, 22, 3, last_commit)
        failover.elected(True, None if last_commit is None else 10.2, 10.3)
        failover.claimed(epoch, 10.35)
        failover.committed(True, 22, 4, 10.5)
    node = Stages(make_tracer("rpc-node", "rpc-0", tmp_path / "rpc-0", {}))
    sends = SendTrace(node, names.SEND)
    sends.took(TX, 1.0, 1.0, "")
    sends.seen("", 22, 3, [TX], 1.19, 1.2)
    conductor.close()
    node.close()
    return tmp_path


@pytest.mark.parametrize(
    ("what", "trace_id", "name"),
    [
        ("22", block_root(901, PAYLOAD).trace_id, names.BLOCK),
        ("0x16", block_root(901, PAYLOAD).trace_id, names.BLOCK),
        ("0x" + BLOCK_HASH.hex(), block_root(901, PAYLOAD).trace_id, names.BLOCK),
        ("0x" + TX.hex(), transaction_root(TX).trace_id, names.SEND),
        ("last-failover", failover_root(901, 4).trace_id, names.FAILOVER),
    ],
)
def test_each_kind_of_trace_is_found(data_dir, capsys, what, trace_id, name):
    assert main(["trace", what, "--data-dir", str(data_dir), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["trace_id"], found["name"], found["complete"]) == (f"{trace_id:032x}", name, True)
    assert found["spans"][0]["parent_id"] is None
    assert found["stages"]


def test_a_saved_trace_is_otlp_json_of_the_same_spans(data_dir, tmp_path, capsys):
    saved = tmp_path / "trace.json"
    assert main(["trace", "last-failover", "--data-dir", str(data_dir), "--json", "--save", str(saved)]) == 0
    shown = json.loads(capsys.readouterr().out)["spans"]
    again = list(spans_of_otlp(json.loads(saved.read_text())))
    told = [(one["span_id"], one["parent_id"] or "", one["name"], one["service"], one["attributes"]) for one in shown]
    assert [(one.span_id, one.parent_id, one.name, one.service, one.attributes) for one in again] == told
    assert [round(1000 * one.seconds, 3) for one in again] == [one["duration_ms"] for one in shown]
    assert main(["trace", "last-failover", "--data-dir", str(data_dir), "--save", str(tmp_path)]) == 1
    assert "--save" in capsys.readouterr().err


def test_the_picture_shows_the_stages_in_their_order(data_dir, capsys):
    assert main(["trace", "last-failover", "--data-dir", str(data_dir)]) == 0
    shown = capsys.readouterr().out
    steps = [names.FAILOVER, names.DETECT, names.ELECT, names.CLAIM, names.CATCH_UP, names.RESUME]
    places = [shown.index(f"{step} ") for step in steps]
    assert places == sorted(places)
    assert "where the time went" in shown
    assert "leader lost" in shown


def test_a_trace_without_its_root_says_so(data_dir):
    trace_id = f"{failover_root(901, 4).trace_id:032x}"
    spans = [span for span in trace(read_files(data_dir), trace_id) if span.parent_id]
    assert not as_json(spans, None)["complete"]
    console = Console(file=io.StringIO(), width=140)
    for part in picture(spans, "http://j/trace/1", console.width):
        console.print(part)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "the root span is not there" in text
    assert "http://j/trace/1" in text


@pytest.mark.parametrize(
    ("what", "status", "text"),
    [("23", 1, "no trace of 23"), ("0x" + "00" * 32, 1, "no trace"), ("yesterday", 2, "is no transaction hash")],
)
def test_what_is_not_there_is_said_in_one_line(data_dir, capsys, what, status, text):
    assert main(["trace", what, "--data-dir", str(data_dir)]) == status
    error = capsys.readouterr().err
    assert text in error
    assert error.count("\n") == 1


def test_a_jaeger_that_does_not_answer_is_said(capsys):
    assert main(["trace", "22", "--jaeger", "http://127.0.0.1:9"]) == 1
    assert "does not answer" in capsys.readouterr().err


def test_a_broken_line_hides_nothing_else(data_dir):
    (path,) = (data_dir / "rpc-0").rglob("*.jsonl")
    path.write_bytes(b'{"resourceSpans":[{' + b"\n" + path.read_bytes() + b'{"resourceSp')
    assert len(read_files(data_dir / "rpc-0")) == 2


class _Jaeger(BaseHTTPRequestHandler):
    """Answers the two questions of Jaeger's query API, in its own form."""

    spans: ClassVar[list[dict[str, Any]]] = []

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = parse_qs(url.query)
        spans = self.spans
        if url.path == "/api/traces":
            wanted = json.loads(query["tags"][0]) if "tags" in query else {}
            assert query["service"] == ["conductor"]
            tags = [{tag["key"]: tag["value"] for tag in span["tags"]} for span in spans]
            hit = any(wanted.items() <= {key: str(value) for key, value in own.items()}.items() for own in tags)
            spans = spans if hit else []
        elif url.path != f"/api/traces/{spans[0]['traceID']}":
            self.send_error(404)
            return
        body = json.dumps({"data": [{"processes": {"p": {"serviceName": "conductor"}}, "spans": spans}]}).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None: ...


def test_jaeger_is_asked_instead_of_the_files(capsys):
    root = failover_root(901, 4)
    span = {"traceID": f"{root.trace_id:x}".zfill(32), "processID": "p", "references": []}
    parent = {"refType": "CHILD_OF", "traceID": span["traceID"], "spanID": f"{root.span_id:016x}"}
    cause = [{"key": names.CAUSE, "value": "leader lost"}, {"key": names.BLOCK_NUMBER, "value": 22}]
    whole = {"spanID": f"{root.span_id:016x}", "operationName": names.FAILOVER, "startTime": 10**6, "duration": 200}
    claim = {"spanID": "2", "operationName": names.CLAIM, "startTime": 10**6 + 20, "duration": 50}
    _Jaeger.spans = [{**span, **whole, "tags": cause}, {**span, **claim, "tags": [], "references": [parent]}]
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Jaeger)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        assert main(["trace", "last-failover", "--jaeger", url, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["name"], found["complete"], found["stages"][0]["total_ms"]) == (names.FAILOVER, True, 0.05)
        assert found["jaeger"] == f"{url}/trace/{found['trace_id']}"
        assert main(["trace", "0x" + "00" * 32, "--jaeger", url]) == 1
        assert main(["trace", "23", "--jaeger", url]) == 1
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_where_there_are_no_files_one_is_told_to_ask_the_collector(tmp_path, capsys):
    assert main(["trace", "23", "--data-dir", str(tmp_path)]) == 1
    assert "--jaeger URL" in capsys.readouterr().err
