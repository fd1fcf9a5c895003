"""What a cluster on many hosts is made of: the order that its keeper carries out, kept as a file on every host.

Everything else – ports, addresses, settings – follows from it by pure functions, so whoever holds the newest version
of the order can take the cluster over.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from actors.placement import Placement
from actors.plan import ClusterOptions, ComponentPlan, build_plan
from actors.ports import KEEPER_PORT, ClusterPorts, placed_ports
from actors.run_directory import RunState

ORDER_FILE = "order.json"
REQUEST_FILE = "join.json"
KEEPER = "keeper"
NAMESPACE_PREFIX = "flashblocks/"


class JoinRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What the user asked for (``join.json``)."""

    options: ClusterOptions
    address: str
    data_dir: str
    temporary_data: bool
    port_offset: int
    wait_s: int = 0  # for a host per group and one for the edge
    marker: str
    command_at: float
    otlp_url: str = ""


class JoinOrder(msgspec.Struct, frozen=True, kw_only=True):
    """One version of the order; a replaced host makes the next one."""

    version: int = 1
    marker: str  # of this run of the cluster, random
    options: ClusterOptions
    placement: Placement
    port_offset: int = 0
    run_dir: str  # the same on every host
    data_dir: str  # the same on every host
    temporary_data: bool
    ray_address: str
    command_at: float  # seconds since the epoch
    otlp_url: str = ""

    @property
    def namespace(self) -> str:
        """The Ray namespace of everything of this cluster."""
        return namespace_of(self.options.name)

    def ports(self) -> ClusterPorts:
        """The ports of every component."""
        return placed_ports(self.placement, self.port_offset)

    def plan(self) -> list[ComponentPlan]:
        """Every component with its settings and its host."""
        return build_plan(self.options, self.ports(), Path(self.data_dir), self.placement)

    def keeper_urls(self) -> list[str]:
        """Where the keeper may be asked for ``endpoints.json``; it lives at one of these."""
        return [f"http://{address}:{KEEPER_PORT + self.port_offset}" for address in self.placement.keepers]

    def state(self) -> RunState:
        """The ``state.json`` of this cluster on each of its hosts."""
        return RunState(
            name=self.options.name,
            marker=self.marker,
            supervisor_pid=0,
            started_at=self.command_at,
            data_dir=self.data_dir,
            temporary_data=self.temporary_data,
            ports=(),
            ray_address=self.ray_address,
            keeper_urls=tuple(self.keeper_urls()),
        )

    def replacing(self, old: str, new: str) -> JoinOrder:
        """The next version, with the host *new* in the place of *old*; raises `PlacementError`."""
        placement = self.placement.moved(old, new)
        return msgspec.structs.replace(self, version=self.version + 1, placement=placement)


def namespace_of(name: str) -> str:
    """The Ray namespace of the cluster *name*."""
    return NAMESPACE_PREFIX + name


def newest(orders: list[JoinOrder], marker: str) -> JoinOrder | None:
    """The newest version among *orders* that belong to the run *marker*."""
    return max((order for order in orders if order.marker == marker), key=lambda order: order.version, default=None)
