"""Placement: groups spread over sequencer hosts, doors on edge hosts, nothing on a host that says nothing."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.placement import Host, Placement, PlacementError, missing, place, read_hosts, slots


def sequencers(*addresses: str) -> list[Host]:
    return [Host(address=address, sequencer=True) for address in addresses]


HEAD = Host(address="10.0.0.1", head=True)
FIVE = sequencers(*(f"10.0.0.1{index}" for index in range(5)))
EDGE = Host(address="10.0.0.21", edge=True)


def lay_out(hosts: list[Host], groups: int = 5) -> Placement:
    return place(hosts, groups=groups, proxies=2, rpc_nodes=1, ingresses=1)


def test_one_group_per_sequencer_host_and_the_doors_on_the_edge() -> None:
    placed = lay_out([HEAD, *FIVE, EDGE])
    assert placed.groups == tuple(host.address for host in FIVE)
    assert set(placed.proxies + placed.rpc_nodes + placed.ingresses + placed.keepers) == {EDGE.address}
    assert HEAD.address not in placed.hosts()
    assert placed.remarks == ()
    assert placed.inner == "127.0.0.1"


def test_fewer_hosts_are_packed_evenly_and_the_operator_is_told() -> None:
    placed = lay_out([HEAD, *FIVE[:2], EDGE])
    assert Counter(placed.groups) == {"10.0.0.10": 3, "10.0.0.11": 2}
    packed, fatal = placed.remarks
    assert "5 groups on 2 sequencer hosts (3 on 10.0.0.10, 2 on 10.0.0.11)" in packed
    assert "the loss of 10.0.0.10 alone" in fatal


def test_without_an_edge_host_the_doors_share_the_least_loaded_sequencer_hosts() -> None:
    placed = lay_out(FIVE[:3])
    assert placed.proxies == ("10.0.0.12", "10.0.0.11")
    assert placed.keeper_kind == "sequencer"
    assert any("no host is for the edge" in remark for remark in placed.remarks)


def test_a_head_that_asks_for_components_gets_them_with_a_warning() -> None:
    placed = lay_out([Host(address="10.0.0.1", sequencer=True, edge=True, head=True)], groups=3)
    assert set(placed.hosts()) == {"10.0.0.1"}
    assert any("Ray's head 10.0.0.1" in remark for remark in placed.remarks)


def test_no_sequencer_host_is_an_error_that_says_how_to_get_one() -> None:
    with pytest.raises(PlacementError, match="flashblocks ray start"):
        lay_out([HEAD, EDGE])


@given(hosts=st.integers(1, 12), groups=st.integers(1, 9))
def test_groups_are_spread_as_evenly_as_they_can_be(hosts: int, groups: int) -> None:
    placed = lay_out(sequencers(*(f"10.0.0.{index}" for index in range(hosts))), groups=groups)
    load = Counter(placed.groups)
    assert len(load) == min(hosts, groups)
    assert max(load.values()) - min(load.values()) <= 1


def test_hosts_are_read_from_ray_in_the_order_of_their_addresses() -> None:
    nodes = [
        {"Alive": True, "NodeManagerAddress": "10.0.0.10", "Resources": {"sequencer": 1.0, "CPU": 1.0}},
        {"Alive": True, "NodeManagerAddress": "10.0.0.9", "Resources": {"edge": 1.0}},
        {"Alive": False, "NodeManagerAddress": "10.0.0.8", "Resources": {}},
        {"Alive": True, "NodeManagerAddress": "10.0.0.1", "Resources": {"node:__internal_head__": 1.0}},
    ]
    head, edge, sequencer = read_hosts(nodes)
    assert (head.address, head.head, head.sequencer, head.edge) == ("10.0.0.1", True, False, False)
    assert (edge.address, edge.edge) == ("10.0.0.9", True)
    assert (sequencer.address, sequencer.sequencer) == ("10.0.0.10", True)


def test_a_replaced_host_leaves_everything_else_where_it_is() -> None:
    placed = lay_out([HEAD, *FIVE, EDGE])
    moved = placed.moved("10.0.0.12", "10.0.0.99")
    assert moved.groups == ("10.0.0.10", "10.0.0.11", "10.0.0.99", "10.0.0.13", "10.0.0.14")
    assert moved.proxies == placed.proxies
    with pytest.raises(PlacementError, match="has nothing of this cluster"):
        placed.moved("10.0.0.1", "10.0.0.99")
    with pytest.raises(PlacementError, match="already"):
        placed.moved("10.0.0.12", "10.0.0.13")


def test_the_slots_of_a_host_are_counted_from_zero() -> None:
    assert slots(("a", "b", "a", "a", "b")) == (0, 0, 1, 2, 1)


def test_what_is_still_missing_is_said() -> None:
    assert missing([HEAD, *FIVE, EDGE], groups=5) == ""
    assert missing([HEAD, *FIVE[:3]], groups=5) == "2 sequencer hosts and an edge host"
    assert missing([HEAD, *FIVE], groups=3) == "an edge host"
