"""The short form, which CI runs: the system comes up on seven hosts, preconfirms, loses the leader's host and heals."""

import pytest

from chaos.drill import Scene
from tests.clients.first_transaction import first_transactions
from tests.hosts.deployment import EDGE, HEAD, SEQUENCERS, Deployment
from tests.hosts.drilling import drilled
from tests.hosts.host_faults import HostKilled

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(900)]


def test_each_group_has_a_host_of_its_own_and_the_head_has_nothing(deployment: Deployment) -> None:
    homes = [deployment.host_of(group["name"]).name for group in deployment.endpoints["groups"]]
    assert sorted(homes) == sorted(SEQUENCERS)
    for group in deployment.endpoints["groups"]:
        assert len({actor["host"] for actor in group["actors"].values()}) == 1
    edge = deployment.machines.address(EDGE)
    assert deployment.endpoints["rpc"]["http"] == f"http://{edge}:8545"
    assert all(url.startswith(f"ws://{edge}:") for url in deployment.endpoints["stream"])
    ours = deployment.machines[HEAD].run("ps", "-e", "-o", "args=").stdout
    assert "Component" not in ours
    assert "HostAgent" not in ours


def test_transactions_are_preconfirmed_and_sealed(deployment: Deployment) -> None:
    report = first_transactions(deployment.endpoints["rpc"]["http"], count=10)
    assert report["transfers"] == 10


async def test_nothing_seen_is_lost_when_the_leaders_host_dies_and_it_comes_back_level(deployment: Deployment) -> None:
    def fault(scene: Scene) -> HostKilled:
        return HostKilled(deployment, scene, scene.leader)

    result = await drilled(deployment, "leader's host killed", fault)
    assert result.verdict == "pass", result.violations
    assert result.runs[0].leader != result.runs[0].new_leader
    assert result.transactions > 0
