"""The main job on a real cluster: a real transaction is preconfirmed, also when the leader dies."""

import json
import os
import re
import time
from pathlib import Path

import pytest
from web3 import Web3
from web3.types import RPCEndpoint

from tests.clients.first_transaction import first_transactions
from tests.system.running import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

DEPOSIT_S_MAX = 40.0  # an L1 block lasts 12 s
FIT_S_MAX = 30.0
ACTORS = ["conductor", "op-node", "rollup-boost", "builder", "fallback-el"]


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_endpoints_name_every_actor(cluster: Cluster) -> None:
    endpoints = json.loads((Path(cluster.endpoints["data_dir"]) / "endpoints.json").read_text())  # as it is by now
    assert endpoints["chain_id"] == 901
    assert len(endpoints["groups"]) == 5
    assert len(endpoints["stream"]) == 2
    assert len(endpoints["accounts"]) == 10
    pids = [group["actors"][actor]["pid"] for group in endpoints["groups"] for actor in ACTORS]
    assert len(set(pids)) == 25
    assert all(alive(pid) for pid in pids)


def test_a_new_users_transactions_are_preconfirmed_and_sealed(cluster: Cluster) -> None:
    report = first_transactions(cluster.endpoints["rpc"]["http"], count=20)
    print(json.dumps(report))
    assert report["transfers"] == 20


def test_one_leads_and_everybody_is_healthy(cluster: Cluster) -> None:
    status = cluster.json("status")
    leader = cluster.json("leader", "show")
    assert len(status["groups"]) == 5
    assert re.fullmatch(r"sequencer-[0-4]", leader["group"])
    assert leader["active"]


def test_load_is_preconfirmed_and_sealed(cluster: Cluster) -> None:
    report = cluster.json("load", "--tps", "10", "--duration", "6", "--mix", "transfer,erc20")
    assert report["sent"] == report["preconfirmed"] == report["sealed"] == 60


def test_an_injected_deposit_is_minted(cluster: Cluster) -> None:
    op_node = Web3(Web3.HTTPProvider(cluster.endpoints["groups"][1]["actors"]["op-node"]["rpc"]))
    rpc = Web3(Web3.HTTPProvider(cluster.endpoints["rpc"]["http"]))
    receiver = rpc.eth.account.create().address
    deposit = {"from": receiver, "to": receiver, "mint": hex(10**18), "value": "0x0"}
    answer = op_node.provider.make_request(RPCEndpoint("flashblocks_injectDeposit"), [deposit])
    assert "error" not in answer, answer
    deadline = time.monotonic() + DEPOSIT_S_MAX
    while rpc.eth.get_balance(receiver, "latest") != 10**18:
        assert time.monotonic() < deadline, "the deposit was not executed"
        time.sleep(0.2)


@pytest.mark.parametrize("actor", ACTORS)
def test_nothing_seen_is_lost_when_an_actor_of_the_leader_is_killed(cluster: Cluster, actor: str) -> None:
    result = cluster.json("drill", "kill-leader", "--actor", actor, "--count", "1", "--tps", "10", "--seed", "7")
    assert result["verdict"] == "pass", result
    assert (result["kills"], result["lost"], result["duplicates"], result["gaps"]) == (1, 0, 0, 0)
    assert result["transactions"] > 0
    assert os.path.exists(f"/proc/{result['runs'][0]['pid']}") is False


def fit_follower(cluster: Cluster) -> str:
    """A group that is fit to lead: the drills before this test have only just hurt some of them."""
    deadline = time.monotonic() + FIT_S_MAX
    while True:
        status = json.loads(cluster.run("status", "--json", check=False).stdout)  # 3 while somebody does not answer
        for group in status["groups"]:
            said = group["actors"]["conductor"]["status"] or {}
            if (said.get("role"), said.get("health"), said.get("readiness")) == ("follower", "healthy", "ready"):
                return str(group["name"])
        assert time.monotonic() < deadline, "no follower is fit to lead"
        time.sleep(0.2)


def test_leadership_can_be_handed_over(cluster: Cluster) -> None:
    before = cluster.json("leader", "show")
    target = fit_follower(cluster)
    cluster.run("leader", "transfer", "--to", target)
    after = cluster.json("leader", "show")
    assert after["group"] == target
    assert after["epoch"] > before["epoch"]
