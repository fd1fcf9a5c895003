"""The port table: the field's ports, no clash in the largest cluster, a free block found by shifting."""

import pytest

from actors.ports import (
    GROUPS_MAX,
    INGRESSES_MAX,
    OFFSET_MAX,
    OFFSET_STEP,
    PROXIES_MAX,
    RPC_NODES_MAX,
    ClusterPorts,
    NoFreePorts,
    choose_ports,
    cluster_ports,
)


def test_group_zero_uses_the_ports_the_field_knows() -> None:
    ports = cluster_ports(groups=2, proxies=2, rpc_nodes=2, ingresses=2)
    first, second = ports.groups
    assert (first.op_node_rpc, first.conductor_rpc, first.conductor_ws, first.conductor_raft) == (
        9545,
        8547,
        8546,
        5050,
    )
    assert (first.rollup_boost_engine, first.rollup_boost_debug, first.rollup_boost_ws) == (8081, 5555, 1112)
    assert (first.builder_engine, first.builder_rpc, first.builder_ws) == (8552, 8543, 1111)
    assert (first.fallback_el_engine, first.fallback_el_rpc) == (8551, 8544)
    assert second.op_node_rpc == 9645
    assert ports.rpc_nodes == (8545, 8555)
    assert ports.proxies == (8550, 8560)
    assert ports.ingresses == (8080, 8079)


@pytest.mark.parametrize("offset", range(0, OFFSET_MAX + 1, OFFSET_STEP))
def test_the_largest_cluster_has_no_port_twice_and_none_out_of_range(offset: int) -> None:
    every = cluster_ports(
        groups=GROUPS_MAX, proxies=PROXIES_MAX, rpc_nodes=RPC_NODES_MAX, ingresses=INGRESSES_MAX, offset=offset
    ).every()
    assert len(every) == len(set(every))
    assert min(every) > 1023
    assert max(every) < 32768, "in the ephemeral range an outgoing connection may already hold the port"


def choose(
    *, usual_first: bool = True, taken: frozenset[int] = frozenset(), busy: frozenset[int] = frozenset()
) -> ClusterPorts:
    return choose_ports(
        groups=5,
        proxies=2,
        rpc_nodes=1,
        ingresses=1,
        usual_first=usual_first,
        taken=taken,
        is_free=lambda port: port not in busy,
    )


def test_the_usual_ports_are_taken_when_free() -> None:
    assert choose().offset == 0


def test_a_named_cluster_leaves_the_usual_ports_to_the_default_one() -> None:
    assert choose(usual_first=False).offset == OFFSET_STEP


def test_one_busy_port_moves_the_whole_block() -> None:
    assert choose(busy=frozenset({8545})).offset == OFFSET_STEP


def test_ports_promised_to_another_cluster_are_left_alone() -> None:
    first = choose()
    second = choose(taken=frozenset(first.every()))
    assert not set(first.every()) & set(second.every())


def test_no_free_block_is_said() -> None:
    with pytest.raises(NoFreePorts, match="no free block"):
        choose_ports(
            groups=1, proxies=1, rpc_nodes=1, ingresses=1, usual_first=True, taken=(), is_free=lambda port: False
        )
