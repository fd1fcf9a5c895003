"""A real cluster sends its traces to a real OTLP receiver: whole trees, also when the leader dies in the middle."""

import json
import os
import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.tracing import jaeger
from tracing import names
from tracing.context import transaction_root
from tracing.exposition import names_in
from tracing.reading import Span, orphans, root, spans_of_jaeger, trace

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]

NAME = "traces"
COMMAND_S_MAX = 240.0
ARRIVAL_S_MAX = 30.0
PROTOBUF = "application/x-protobuf"
GRAFANA = Path(__file__).parents[2] / "docs/grafana"
FLASHBLOCKS = Path(sys.executable).with_name("flashblocks")
TRANSACTION_SERVICES = {"rpc-node", "ingress", "builder", "rollup-boost", "conductor", "websocket-proxy"}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # twenty processes connect once a second


class Receiver:
    """An OTLP/HTTP receiver on a free port; passes on to another, where there is one."""

    def __init__(self, onwards: str | None = None) -> None:
        self.spans: list[Span] = []
        received = self.spans

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers["Content-Length"]))
                assert self.path == "/v1/traces"
                received.extend(spans_of(ExportTraceServiceRequest.FromString(raw)))
                self.send_response(200)
                self.end_headers()
                if onwards is not None:
                    request = urllib.request.Request(onwards + self.path, raw, {"Content-Type": PROTOBUF})
                    urllib.request.urlopen(request, timeout=ARRIVAL_S_MAX).close()

            def log_message(self, *_: Any) -> None: ...

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def traces(self) -> dict[str, list[Span]]:
        found: dict[str, dict[str, Span]] = defaultdict(dict)
        for span in list(self.spans):
            found[span.trace_id][span.span_id] = span
        return {trace_id: list(spans.values()) for trace_id, spans in found.items()}

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def spans_of(request: ExportTraceServiceRequest) -> Iterator[Span]:
    for resource in request.resource_spans:
        who = {each.key: each.value.string_value for each in resource.resource.attributes}
        for scope in resource.scope_spans:
            for span in scope.spans:
                values = {each.key: each.value for each in span.attributes}
                yield Span(
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent_id=span.parent_span_id.hex(),
                    name=span.name,
                    service=who["service.name"],
                    instance=who["service.instance.id"],
                    start=span.start_time_unix_nano / 1e9,
                    end=span.end_time_unix_nano / 1e9,
                    attributes={key: value.string_value or value.int_value for key, value in values.items()},
                    error=span.status.message if span.status.code == 2 else None,
                    links=tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
                )


class Cluster:
    def __init__(self, directory: Path) -> None:
        self._environment = {**os.environ, "FLASHBLOCKS_RUN_ROOT": str(directory)}

    def run(self, *words: str) -> str:
        done = subprocess.run(
            [FLASHBLOCKS, *words, "--name", NAME],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=COMMAND_S_MAX,
            check=False,
        )
        assert done.returncode == 0, f"flashblocks {' '.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def jaeger_server() -> Iterator[jaeger.Jaeger | None]:
    made = jaeger.Jaeger() if jaeger.binary() is not None else None
    yield made
    if made is not None:
        made.close()


@pytest.fixture(scope="module")
def receiver(jaeger_server: jaeger.Jaeger | None) -> Iterator[Receiver]:
    made = Receiver(None if jaeger_server is None else jaeger_server.otlp_url)
    yield made
    made.close()


@pytest.fixture(scope="module")
def cluster(receiver: Receiver) -> Iterator[Cluster]:
    directory = Path(f"/tmp/flashblocks-otlp-{os.getpid()}")  # short: Ray's socket paths end at 107 bytes
    directory.mkdir(mode=0o700)
    made = Cluster(directory)
    try:
        made.run("up", "--groups", "3", "--otlp", receiver.url, "--detach", "--json")
        yield made
    finally:
        made.run("down")
        if directory.exists():  # down removes it with the last cluster
            directory.rmdir()


def arrived(
    receiver: Receiver,
    wanted: Callable[[dict[str, list[Span]]], Any],
    what: str,
    why: Callable[[dict[str, list[Span]]], str] = lambda _: "",
) -> Any:
    deadline = time.monotonic() + ARRIVAL_S_MAX
    while not (found := wanted(receiver.traces())):
        late = time.monotonic() > deadline
        assert not late, f"{what}: not in what {len(receiver.spans)} spans tell: {why(receiver.traces())}"
        time.sleep(0.2)
    return found


def told(spans: list[Span]) -> str:
    return "; ".join(f"{span.name} ({span.service} {span.instance}) {span.attributes}" for span in spans)


def roots_named(traces: dict[str, list[Span]], name: str) -> list[list[Span]]:
    return [spans for spans in traces.values() if (whole := root(spans)) is not None and whole.name == name]


def check_tree(spans: list[Span]) -> None:
    assert [span.name for span in spans if not span.parent_id] == [names.SEND]
    assert not orphans(spans)
    tx_hash = next(span.attributes[names.TX_HASH] for span in spans if not span.parent_id)
    assert spans[0].trace_id == f"{transaction_root(bytes.fromhex(tx_hash[2:])).trace_id:032x}"


def test_every_transaction_is_one_unbroken_tree(cluster: Cluster, receiver: Receiver) -> None:
    report = json.loads(cluster.run("load", "--tps", "5", "--duration", "4", "--json"))
    assert report["sealed"] == 20

    def missing(spans: list[Span]) -> set[str]:
        """Of a block that the fallback made alone no stage is told; of a flashblock that it made, who judges it."""
        streamed = root(spans).attributes[names.OUTCOME] == "ok"  # type: ignore[union-attr]
        services = {span.service for span in spans}
        made_by = {"fallback-el"} if "fallback-el" in services else {"builder", "rollup-boost"}
        wanted = TRANSACTION_SERVICES - {"builder", "rollup-boost"} | made_by
        return wanted - services if streamed else set()

    def whole(traces: dict[str, list[Span]]) -> list[list[Span]]:
        found = roots_named(traces, names.SEND)
        return found if len(found) >= 20 and not any(map(missing, found)) else []

    def why(traces: dict[str, list[Span]]) -> str:
        found = roots_named(traces, names.SEND)
        rootless = [spans for spans in traces.values() if root(spans) is None and names.TX_HASH in spans[0].attributes]
        lines = [f"{len(found)} roots of transactions"]
        lines += [f"without {' and '.join(sorted(missing(spans)))}: {told(spans)}" for spans in found if missing(spans)]
        lines += [f"without a root: {told(spans)}" for spans in rootless]
        return "\n".join(lines)

    trees = arrived(receiver, whole, "twenty traces of transactions", why)
    assert len(trees) == 20
    for spans in trees:
        check_tree(spans)
    include = next(span for spans in trees for span in spans if span.name == names.INCLUDE)
    assert include.links and include.links[0][0] != include.trace_id
    assert include.links[0] in {(span.trace_id, span.span_id) for span in receiver.spans if span.name == names.BUILD}


def test_a_blocks_trace_joins_seven_services_on_every_group(cluster: Cluster, receiver: Receiver) -> None:
    services = (TRANSACTION_SERVICES - {"ingress"}) | {"op-node", "fallback-el"}

    def groups(spans: list[Span], name: str, service: str) -> int:
        return len({span.instance for span in spans if (span.name, span.service) == (name, service)})

    def complete(traces: dict[str, list[Span]]) -> list[list[Span]]:
        return [
            spans
            for spans in roots_named(traces, names.BLOCK)
            if {span.service for span in spans} >= services
            and groups(spans, names.IMPORT, "op-node") == 3
            and groups(spans, names.APPLY, "fallback-el") == 3
            and groups(spans, names.NEW_PAYLOAD, "fallback-el") == 3
        ]

    for spans in arrived(receiver, complete, "a whole block"):
        assert not orphans(spans)
        assert {names.FORKCHOICE_UPDATED, names.GET_PAYLOAD, names.SEAL} <= names_of(spans)
        built = {span.attributes[names.FLASHBLOCK_INDEX] for span in spans if span.name == names.BUILD}
        committed = {span.attributes[names.FLASHBLOCK_INDEX] for span in spans if span.name == names.COMMIT}
        assert committed
        assert committed <= built


def test_a_killed_leader_breaks_no_tree_and_the_failover_has_its_own(cluster: Cluster, receiver: Receiver) -> None:
    result = json.loads(cluster.run("drill", "kill-leader", "--count", "1", "--tps", "10", "--json"))
    assert result["verdict"] == "pass", result

    def lost(traces: dict[str, list[Span]]) -> list[list[Span]]:
        failovers = roots_named(traces, names.FAILOVER)
        return [spans for spans in failovers if root(spans).attributes[names.CAUSE] == "leader lost"]  # type: ignore[union-attr]

    steps = arrived(receiver, lost, "the failover")[-1]
    assert not orphans(steps)
    own = sorted((span for span in steps if span.parent_id), key=lambda span: (span.start, span.end))
    assert {span.name for span in own} == {
        names.DETECT,
        names.ELECT,
        names.CLAIM,
        names.CATCH_UP,
        names.RESUME,
        names.FIRST_FLASHBLOCK,
    }
    whole = root(steps)
    assert whole is not None
    assert own[0].start == whole.start
    assert own[-1].end == whole.end
    time.sleep(3.0)  # what is on its way belongs to the trees too
    for spans in roots_named(receiver.traces(), names.SEND):
        check_tree(spans)


@pytest.mark.skipif(jaeger.binary() is None, reason=jaeger.WHY_NOT)
def test_jaeger_shows_the_same(cluster: Cluster, receiver: Receiver, jaeger_server: jaeger.Jaeger) -> None:
    sent = roots_named(receiver.traces(), names.SEND)[0]
    tx_hash = next(span.attributes[names.TX_HASH] for span in sent if not span.parent_id)
    query = urlencode({"service": "rpc-node", "tags": json.dumps({names.TX_HASH: tx_hash}), "lookback": "1h"})
    (found,) = jaeger_server.ask(f"/api/traces?{query}")
    spans = trace(spans_of_jaeger({"data": [found]}), found["traceID"])
    assert {(span.span_id, span.name, span.service) for span in spans} == {
        (span.span_id, span.name, span.service) for span in sent
    }
    assert not orphans(spans)
    assert set(jaeger_server.ask("/api/services")) >= TRANSACTION_SERVICES | {"op-node"}
    graph = jaeger_server.ask(
        f"/api/dependencies?{urlencode({'endTs': int(time.time() * 1000), 'lookback': 3600_000})}"
    )
    edges = {(edge["parent"], edge["child"]) for edge in graph}
    assert edges >= {("rpc-node", service) for service in TRANSACTION_SERVICES - {"rpc-node"}}
    told = json.loads(cluster.run("trace", "last-failover", "--jaeger", jaeger_server.url, "--json"))
    assert told["complete"] and told["jaeger"].startswith(jaeger_server.url)


def metrics_of(expression: str) -> set[str]:
    """The metrics a PromQL expression reads: what is a word outside selectors and is neither function nor label."""
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\bby \([^)]*\)", "", expression)
    return set(re.findall(r"[a-z_]+(?![a-z_]*\()\b", bare)) - {"sum", "max", "by", "and", "or"}


def names_of(spans: list[Span]) -> set[str]:
    return {span.name for span in spans}


def test_dashboard_and_alerts_ask_for_metrics_that_are_exported(cluster: Cluster) -> None:
    exported = names_in(cluster.run("metrics"))
    dashboard = json.loads((GRAFANA / "dashboard.json").read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    asked += re.findall(r"^ +expr: (.+)$", (GRAFANA / "alerts.yml").read_text(), re.MULTILINE)
    assert len(asked) > 30
    for expression in asked:
        wanted = metrics_of(expression)
        assert wanted, expression
        assert wanted <= exported, f"{expression}: nobody exports {wanted - exported}"


def test_every_component_is_a_target_and_answers(cluster: Cluster) -> None:
    found = json.loads(cluster.run("metrics", "--targets"))
    assert len(found) == 3 * 5 + 2 + 1 + 1
    assert len({target["targets"][0] for target in found}) == len(found)
    up = re.findall(r"^flashblocks_scrape_up\{.*\} (\d)$", cluster.run("metrics"), re.MULTILINE)
    assert up == ["1"] * len(found)
