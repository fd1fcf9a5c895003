"""Which port every server of a cluster listens on, and how a free block of ports is chosen.

One cluster on one machine uses the ports the field knows; group g adds ``GROUP_STEP * g`` and a further cluster
adds its *offset* to all of them.  Nobody else computes a port.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import msgspec

from actors.placement import Placement, slots

GROUP_STEP = 100
INSTANCE_STEP = 10
GROUPS_MAX = 9
PROXIES_MAX = 9
RPC_NODES_MAX = 9
INGRESSES_MAX = 9
OFFSET_STEP = 1000
OFFSET_MAX = 21_000  # above it ports would enter Linux's ephemeral range (32768…): see RAFT_PORT
KEEPER_PORT = 8070
RAFT_PORT = 5050  # not upstream's 50050: an outgoing connection of any process may sit on that one when we bind


class NoFreePorts(Exception):
    """No offset leaves every port of the cluster free."""


class GroupPorts(msgspec.Struct, frozen=True, kw_only=True):
    """The ports of one sequencer group."""

    op_node_rpc: int
    conductor_rpc: int
    conductor_ws: int
    conductor_raft: int
    rollup_boost_engine: int
    rollup_boost_debug: int
    rollup_boost_ws: int
    rollup_boost_metrics: int  # bound only where other hosts look at it
    builder_engine: int
    builder_rpc: int
    builder_ws: int
    fallback_el_engine: int
    fallback_el_rpc: int


class ClusterPorts(msgspec.Struct, frozen=True, kw_only=True):
    """The ports of a cluster; each tuple is indexed by group or instance."""

    offset: int
    groups: tuple[GroupPorts, ...]
    rpc_nodes: tuple[int, ...]
    proxies: tuple[int, ...]
    ingresses: tuple[int, ...]

    def every(self) -> tuple[int, ...]:
        """All ports of the cluster, in no promised order."""
        of_groups = [port for group in self.groups for port in msgspec.structs.astuple(group)]
        return (*of_groups, *self.rpc_nodes, *self.proxies, *self.ingresses)


def cluster_ports(*, groups: int, proxies: int, rpc_nodes: int, ingresses: int, offset: int = 0) -> ClusterPorts:
    """The ports of a cluster of the given shape, all moved up by *offset*."""
    return ClusterPorts(
        offset=offset,
        groups=tuple(_group_ports(offset + GROUP_STEP * index) for index in range(groups)),
        rpc_nodes=tuple(8545 + offset + INSTANCE_STEP * index for index in range(rpc_nodes)),
        proxies=tuple(8550 + offset + INSTANCE_STEP * index for index in range(proxies)),
        ingresses=tuple(8080 + offset - index for index in range(ingresses)),
    )


def placed_ports(placement: Placement, offset: int = 0) -> ClusterPorts:
    """The ports on many hosts: the k-th group or instance on a host takes the k-th ports, so hosts look alike."""
    return ClusterPorts(
        offset=offset,
        groups=tuple(_group_ports(offset + GROUP_STEP * slot) for slot in slots(placement.groups)),
        rpc_nodes=tuple(8545 + offset + INSTANCE_STEP * slot for slot in slots(placement.rpc_nodes)),
        proxies=tuple(8550 + offset + INSTANCE_STEP * slot for slot in slots(placement.proxies)),
        ingresses=tuple(8080 + offset - slot for slot in slots(placement.ingresses)),
    )


def _group_ports(shift: int) -> GroupPorts:
    return GroupPorts(
        op_node_rpc=9545 + shift,
        conductor_rpc=8547 + shift,
        conductor_ws=8546 + shift,
        conductor_raft=RAFT_PORT + shift,
        rollup_boost_engine=8081 + shift,
        rollup_boost_debug=5555 + shift,
        rollup_boost_ws=1112 + shift,
        rollup_boost_metrics=7300 + shift,
        builder_engine=8552 + shift,
        builder_rpc=8543 + shift,
        builder_ws=1111 + shift,
        fallback_el_engine=8551 + shift,
        fallback_el_rpc=8544 + shift,
    )


def choose_ports(
    *,
    groups: int,
    proxies: int,
    rpc_nodes: int,
    ingresses: int,
    usual_first: bool,
    taken: Collection[int],
    is_free: Callable[[int], bool],
) -> ClusterPorts:
    """The first block of ports that is free as a whole.

    *usual_first* tries the field's own ports (offset 0) before the others; a cluster with a name of its own leaves
    them to the default one.  *taken* are ports promised to clusters that may still be binding them.
    Raises `NoFreePorts`.
    """
    for offset in range(0 if usual_first else OFFSET_STEP, OFFSET_MAX + 1, OFFSET_STEP):
        ports = cluster_ports(groups=groups, proxies=proxies, rpc_nodes=rpc_nodes, ingresses=ingresses, offset=offset)
        if all(port not in taken and is_free(port) for port in ports.every()):
            return ports
    raise NoFreePorts(f"no free block of ports up to offset {OFFSET_MAX}")
