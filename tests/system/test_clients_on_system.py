"""viem, ethers and web3.py on a whole cluster whose leaders are killed: no error that a user would see."""

import json
import os
import signal
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.clients import test_node_clients
from tests.clients.first_transaction import first_transactions
from tests.clients.test_node_clients import pytestmark as node_marks
from tests.clients.test_node_clients import suite
from tests.system.running import Cluster

__all__ = ["suite"]  # a fixture

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

FIT_S_MAX = 40.0
BETWEEN_KILLS_S = 3.0
TRANSACTIONS = 40


def kill_leader(cluster: Cluster) -> None:
    """SIGKILL the leading conductor, as soon as there is one with followers that are fit to follow it."""
    deadline = time.monotonic() + FIT_S_MAX
    while time.monotonic() < deadline:
        done = cluster.run("status", "--json", check=False)  # 3 while somebody does not answer
        groups = json.loads(done.stdout)["groups"]
        said = [group["actors"]["conductor"]["status"] or {} for group in groups]
        fit = sum((each.get("health"), each.get("readiness")) == ("healthy", "ready") for each in said)
        leaders = [each["pid"] for each in said if each.get("active")]
        if fit > len(groups) // 2 and len(leaders) == 1:
            os.kill(leaders[0], signal.SIGKILL)
            return
        time.sleep(0.2)
    raise AssertionError("nobody is fit to take over")


def while_leaders_die(cluster: Cluster, work: Future[Any]) -> int:
    kills = 0
    while not work.done():
        kill_leader(cluster)
        kills += 1
        time.sleep(BETWEEN_KILLS_S)
    return kills


@node_marks[1]
def test_viem_and_ethers_do_not_notice_dying_leaders(cluster: Cluster, suite: Path) -> None:
    rpc = cluster.endpoints["rpc"]
    edge: Any = SimpleNamespace(url=rpc["http"], ws_url=rpc["ws"])
    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(test_node_clients.run, suite, edge, rounds=6)
        kills = while_leaders_die(cluster, work)
        results = work.result()
    assert kills > 0
    assert {name: result["error"] for name, result in results.items() if not result["ok"]} == {}


def test_web3_does_not_notice_dying_leaders(cluster: Cluster) -> None:
    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(first_transactions, cluster.endpoints["rpc"]["http"], count=TRANSACTIONS)
        kills = while_leaders_die(cluster, work)
        report = work.result()
    assert kills > 0
    assert report["transfers"] == TRANSACTIONS
