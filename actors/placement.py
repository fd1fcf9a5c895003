"""Which host of a Ray cluster runs what: one sequencer group per sequencer host, the doors for users on edge hosts.

A pure function of the hosts and the options.  A host says what it is for by Ray's custom resources ``sequencer`` and
``edge``; a host that says neither – Ray's head, as a rule – gets nothing of ours.  Groups are spread, the members of
one group stay together.  With fewer hosts than groups they are packed evenly, and the remarks say what that costs.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import msgspec

SEQUENCER = "sequencer"
EDGE = "edge"
NODE_PREFIX = "node:"
HEAD_RESOURCE = "node:__internal_head__"
LOOPBACK = "127.0.0.1"


class PlacementError(ValueError):
    """The hosts cannot carry the cluster; the text says what is missing and how to provide it."""


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """One living node of the Ray cluster."""

    address: str
    sequencer: bool = False
    edge: bool = False
    head: bool = False

    @property
    def order(self) -> tuple[int, str]:
        """By number where the address is one, so that .9 comes before .10."""
        try:
            return int(ipaddress.ip_address(self.address)), self.address
        except ValueError:
            return 0, self.address


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """The address of the host of every group and instance, by index; and what the operator should know about it."""

    groups: tuple[str, ...]
    proxies: tuple[str, ...]
    rpc_nodes: tuple[str, ...]
    ingresses: tuple[str, ...]
    keepers: tuple[str, ...] = ()
    """The hosts on which the keeper may live, all of one kind."""
    keeper_kind: str = EDGE
    inner: str = LOOPBACK
    """The address of what only members of one group talk to."""
    remarks: tuple[str, ...] = ()

    def hosts(self) -> tuple[str, ...]:
        """Every host that has something of ours, sequencers first, each once."""
        return tuple(dict.fromkeys((*self.groups, *self.proxies, *self.rpc_nodes, *self.ingresses, *self.keepers)))

    def moved(self, old: str, new: str) -> Placement:
        """The same placement with the host *new* in the place of *old*; raises `PlacementError`."""
        if old not in self.hosts():
            raise PlacementError(f"{old} has nothing of this cluster; its hosts: {', '.join(self.hosts())}")
        if new in self.hosts():
            raise PlacementError(f"{new} is a host of this cluster already")

        def move(addresses: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(new if address == old else address for address in addresses)

        return msgspec.structs.replace(
            self,
            groups=move(self.groups),
            proxies=move(self.proxies),
            rpc_nodes=move(self.rpc_nodes),
            ingresses=move(self.ingresses),
            keepers=move(self.keepers),
        )


def on_one_machine(host: str, *, groups: int, proxies: int, rpc_nodes: int, ingresses: int) -> Placement:
    """Everything on *host*, inside and outside."""
    return Placement(
        groups=(host,) * groups,
        proxies=(host,) * proxies,
        rpc_nodes=(host,) * rpc_nodes,
        ingresses=(host,) * ingresses,
        inner=host,
    )


def read_hosts(nodes: Iterable[Mapping[str, object]]) -> list[Host]:
    """The living hosts out of what ``ray.nodes()`` returns, in the order of their addresses."""
    found = []
    for node in nodes:
        resources = node["Resources"]
        assert isinstance(resources, Mapping)
        if node["Alive"]:
            host = Host(
                address=str(node["NodeManagerAddress"]),
                sequencer=SEQUENCER in resources,
                edge=EDGE in resources,
                head=HEAD_RESOURCE in resources,
            )
            found.append(host)
    return sorted(found, key=lambda host: host.order)


def place(hosts: Sequence[Host], *, groups: int, proxies: int, rpc_nodes: int, ingresses: int) -> Placement:
    """Lay the cluster out over *hosts*; raises `PlacementError` when none of them is for sequencers."""
    sequencers = [host.address for host in hosts if host.sequencer]
    edges = [host.address for host in hosts if host.edge]
    if not sequencers:
        raise PlacementError(
            f"none of the {len(hosts)} hosts of this Ray cluster is for sequencers; start Ray on them with: "
            "flashblocks ray start --head-address HEAD  (or ray start --resources '{\"sequencer\": 1}')"
        )
    # Without an edge host the doors start on the hosts that carry the fewest groups: the last ones.
    doors = edges or list(reversed(sequencers))
    placed = Placement(
        groups=_in_turn(sequencers, groups),
        proxies=_in_turn(doors, proxies),
        rpc_nodes=_in_turn(doors, rpc_nodes),
        ingresses=_in_turn(doors, ingresses),
        keepers=tuple(doors),
        keeper_kind=EDGE if edges else SEQUENCER,
    )
    remarks = tuple(_remarks(placed, hosts, edges, groups))
    return msgspec.structs.replace(placed, remarks=remarks)


def missing(hosts: Sequence[Host], *, groups: int) -> str:
    """Which hosts a cluster still lacks to have one per group and one for the edge; empty when it lacks none."""
    sequencers = sum(1 for host in hosts if host.sequencer)
    lacking = [f"{groups - sequencers} sequencer hosts"] if sequencers < groups else []
    if not any(host.edge for host in hosts):
        lacking.append("an edge host")
    return " and ".join(lacking)


def _in_turn(addresses: Sequence[str], count: int) -> tuple[str, ...]:
    return tuple(addresses[index % len(addresses)] for index in range(count))


def _remarks(placed: Placement, hosts: Sequence[Host], edges: Sequence[str], groups: int) -> Iterable[str]:
    load = Counter(placed.groups)
    if max(load.values()) > 1:
        shown = ", ".join(f"{count} on {address}" for address, count in load.items())
        yield f"packed: {groups} groups on {len(load)} sequencer hosts ({shown})"
    spare = groups - (groups // 2 + 1)
    fatal = [address for address, count in load.items() if count > spare]
    if fatal:
        lost = " or ".join(fatal)
        yield f"the loss of {lost} alone takes the majority of the groups: the chain stops until it is back"
    if not edges:
        yield "no host is for the edge: proxies, rpc-nodes and ingresses share the sequencer hosts"
    for host in hosts:
        if host.head and host.address in placed.hosts():
            yield f"Ray's head {host.address} has components of ours: its loss is theirs too"


def slots(addresses: Sequence[str]) -> tuple[int, ...]:
    """For each address how often it occurred before: the k-th of a kind on a host takes the k-th ports."""
    seen: Counter[str] = Counter()
    found = []
    for address in addresses:
        found.append(seen[address])
        seen[address] += 1
    return tuple(found)
