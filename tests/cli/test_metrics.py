"""`flashblocks metrics` on real servers: every component's exposition as one, targets, and what does not answer."""

import asyncio
import json
from typing import Any

import structlog
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from actors.rpc_server import RpcServer
from cli.metrics import collect, doors, targets
from tracing.exposition import names_in

GONE = "127.0.0.1:9"


def endpoints(port: int) -> dict[str, Any]:
    return {
        "name": "c",
        "groups": [{"name": "sequencer-0", "actors": {"conductor": {"rpc": f"http://127.0.0.1:{port}", "pid": 1}}}],
        "proxies": [{"name": "proxy-0", "ws": f"ws://{GONE}/ws"}],
        "rpc_nodes": [],
        "ingress": [{"name": "ingress-0", "http": f"http://127.0.0.1:{port}"}],
    }


def test_every_component_is_a_target_with_its_name() -> None:
    found = targets(endpoints(7))
    assert [target["targets"] for target in found] == [["127.0.0.1:7"], [GONE], ["127.0.0.1:7"]]
    assert found[0]["labels"] == {"component": "conductor", "name": "sequencer-0", "cluster": "c"}
    assert json.dumps(found)


async def test_all_that_answer_are_in_one_text_and_the_others_are_counted() -> None:
    registry = CollectorRegistry()
    Counter("things", "Things", registry=registry).inc(3)
    server = RpcServer("127.0.0.1", 0, {}, name="t", log=structlog.get_logger(), registry=registry)
    await server.start()
    try:
        text = await collect(endpoints(server.port))
        families = list(text_string_to_metric_families(await collect(endpoints(server.port), openmetrics=True)))
    finally:
        await server.close()
    assert 'things_total{component="conductor",name="sequencer-0"} 3.0' in text.splitlines()
    assert text.count("# TYPE things_total counter") == 1
    assert 'flashblocks_scrape_up{component="websocket-proxy",name="proxy-0"} 0' in text.splitlines()
    assert {"things_total", "flashblocks_scrape_up"} <= names_in(text)
    assert {family.name for family in families} == {"things", "flashblocks_scrape_up"}


def test_a_cluster_without_anybody_left_is_still_told() -> None:
    text = asyncio.run(collect(endpoints(9)))
    assert text.count("flashblocks_scrape_up{") == len(list(doors(endpoints(9)))) == 3
    assert "} 1" not in text
