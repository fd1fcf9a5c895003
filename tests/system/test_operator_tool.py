"""The operator tool's commands – status, transfer-leader, pause, halt, force-active, resume, … – on a real cluster."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from tests.system.operator_tool import Network, Refused, Sequencer
from tests.system.running import NAME, Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

T = TypeVar("T")
WAIT_S_MAX = 60.0
STILL_S = 3.0
"""A stopped chain is one without a block in this time; a block takes two seconds."""


@pytest.fixture
def network(cluster: Cluster) -> Network:
    return Network(Path(cluster.endpoints["data_dir"]) / "op-conductor-ops.toml", NAME)


def eventually(ask: Callable[[], T | None], what: str) -> T:
    deadline = time.monotonic() + WAIT_S_MAX
    while (found := ask()) is None:
        assert time.monotonic() < deadline, what
        time.sleep(0.1)
    return found


def leading(network: Network) -> Sequencer:
    """The leader, once it sequences."""

    def ask() -> Sequencer | None:
        leader = network.leader()
        return leader if leader is not None and leader.admin("sequencerActive") else None

    return eventually(ask, "nobody leads and sequences")


def grows(network: Network) -> None:
    """Two further blocks on every op-node."""
    wanted = max(each.unsafe_head()[0] for each in network.sequencers) + 2
    eventually(
        lambda: all(each.unsafe_head()[0] >= wanted for each in network.sequencers) or None,
        f"not everybody reached block {wanted}",
    )


def fit(network: Network, leader: Sequencer) -> Sequencer:
    """A healthy follower."""

    def ask() -> Sequencer | None:
        others = (each for each in network.sequencers if each.name != leader.name)
        return next((each for each in others if each.conductor("sequencerHealthy")), None)

    return eventually(ask, "no follower is healthy")


def test_status(network: Network) -> None:
    leader = leading(network)
    for each in network.sequencers:
        assert each.conductor("active") is True
        assert each.conductor("leader") is (each.name == leader.name)
        assert each.conductor("sequencerHealthy") in (True, False)
        assert each.admin("sequencerActive") is (each.name == leader.name)
        assert each.boost("getExecutionMode") == {"execution_mode": "enabled"}
    membership = {each["id"]: each for each in leader.conductor("clusterMembership")["servers"]}
    assert {name: (each["addr"], each["suffrage"]) for name, each in membership.items()} == {
        each.name: (each.raft_addr, 0) for each in network.sequencers
    }


def test_transfer_leader(network: Network) -> None:
    before = leading(network)
    target = fit(network, before)
    before.conductor("transferLeaderToServer", target.name, target.raft_addr)
    assert leading(network).name == target.name
    with pytest.raises(Refused, match="not the leader"):
        before.conductor("transferLeaderToServer", target.name, target.raft_addr)


def test_pause_halt_force_active_and_resume(network: Network) -> None:
    leader = leading(network)
    for each in network.sequencers:
        each.conductor("pause")
    assert not any(each.conductor("active") for each in network.sequencers)

    active = network.active()
    assert active is not None and active.name == leader.name
    stopped_at = active.admin("stopSequencer")
    assert network.active() is None
    head = active.unsafe_head()
    assert head[1] == stopped_at
    time.sleep(STILL_S)
    assert active.unsafe_head() == head

    leader.admin("startSequencer", stopped_at)
    grows(network)
    for each in network.sequencers:
        each.conductor("resume")
    assert all(each.conductor("active") for each in network.sequencers)
    grows(network)


def test_the_chain_resumes_when_a_halted_cluster_is_only_resumed(network: Network) -> None:
    leader = leading(network)
    for each in network.sequencers:
        each.conductor("pause")
    leader.admin("stopSequencer")
    for each in network.sequencers:
        each.conductor("resume")
    grows(network)


def test_override_leader_and_back(network: Network) -> None:
    other = fit(network, leading(network))
    other.conductor("overrideLeader", True)
    assert other.conductor("leader") is True
    other.conductor("overrideLeader", False)
    assert other.conductor("leader") is False


def test_set_rollup_boost_mode(network: Network) -> None:
    other = fit(network, leading(network))
    assert other.boost("setExecutionMode", {"execution_mode": "dry_run"}) == {"execution_mode": "dry_run"}
    assert other.boost("getExecutionMode") == {"execution_mode": "dry_run"}
    assert other.boost("setExecutionMode", "enabled") == {"execution_mode": "enabled"}


def test_update_cluster_membership_and_remove_server(network: Network) -> None:
    leader = leading(network)
    for each in network.sequencers:
        leader.conductor("addServerAsVoter", each.name, each.raft_addr, 0)  # all there: nothing to do
    assert leader.conductor("clusterMembership")["version"] == 1
    with pytest.raises(Refused, match="transfer leadership first"):
        leader.conductor("removeServer", leader.name, 0)
    with pytest.raises(Refused, match="no members without a vote"):
        leader.conductor("addServerAsNonvoter", "newcomer", network.sequencers[0].raft_addr, 0)

    removed = fit(network, leader)
    leader.conductor("removeServer", removed.name, 0)
    left = leader.conductor("clusterMembership")
    assert (len(left["servers"]), left["version"]) == (len(network.sequencers) - 1, 2)
    with pytest.raises(Refused, match="configuration changed since 1"):
        leader.conductor("addServerAsVoter", removed.name, removed.raft_addr, 1)
    leader.conductor("addServerAsVoter", removed.name, removed.raft_addr, 2)
    grows(network)  # the one that was away, too
    assert len(removed.conductor("clusterMembership")["servers"]) == len(network.sequencers)
