"""The snippets people paste are well-formed and name this cluster's own addresses."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from actors.endpoints import describe
from actors.plan import ClusterOptions, build_plan
from actors.ports import cluster_ports
from cli import snippets


@pytest.fixture
def endpoints() -> dict[str, Any]:
    options = ClusterOptions(name="two", groups=2)
    plan = build_plan(options, cluster_ports(groups=2, proxies=2, rpc_nodes=1, ingresses=1, offset=1000), Path("/d"))
    pids = {each.actor_name: 1 for each in plan}
    return describe(options, plan, pids=pids, restarts={}, data_dir=Path("/d"), chain={})


def test_the_curl_line_carries_a_request_in_json(endpoints: dict[str, Any]) -> None:
    text = snippets.curl(endpoints)
    assert "curl -s http://127.0.0.1:9545 " in text
    body = re.search(r"-d '(.*)'", text)
    assert body is not None
    assert json.loads(body.group(1))["params"] == ["0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266", "pending"]


def test_the_web3_script_is_python_and_says_where_to(endpoints: dict[str, Any]) -> None:
    script = "\n".join(line.removeprefix("  ") for line in snippets.web3_py(endpoints).splitlines()[1:])
    compile(script, "snippet", "exec")
    assert "http://127.0.0.1:9545" in script
    assert '"chainId": 901' in script


def test_the_introduction_names_everything_a_user_needs(endpoints: dict[str, Any]) -> None:
    text = snippets.introduction(endpoints)
    for wanted in (
        "chain id     901",
        "ws://127.0.0.1:9550/ws",
        "ws://127.0.0.1:9560/ws",
        "0x2a871d0798f97d79848a013d4936a73bf4cc922c825d33c1cf7073dff6d409c6",
        "viem",
        "sequencer-1",
    ):
        assert wanted in text


def test_without_an_rpc_node_there_is_nothing_to_paste(endpoints: dict[str, Any]) -> None:
    text = snippets.introduction({**endpoints, "rpc": None})
    assert "web3" not in text
    assert "none (--rpc-nodes 0)" in text
