"""What of a cluster on many hosts listens where others can reach it, and what for: the firewall's table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from actors.join_order import KEEPER, JoinOrder
from actors.placement import LOOPBACK
from actors.plan import ComponentPlan
from actors.ports import KEEPER_PORT

# Who needs which server of which component; a server that stands here and not on loopback must be let through.
NEEDED_BY: Mapping[tuple[str, str], str] = {
    ("conductor", "raft"): "the other conductors (encrypted and authenticated with the Raft password)",
    ("conductor", "rpc"): "the other conductors, operators",
    ("conductor", "ws"): "the websocket-proxies",
    ("op-node", "rpc"): "the other op-nodes, operators",
    ("builder", "rpc"): "the other groups, ingresses, rpc-nodes",
    ("fallback-el", "rpc"): "the other groups, ingresses, rpc-nodes",
    ("rollup-boost", "metrics"): "operators; read-only",
    ("websocket-proxy", "ws"): "users, rpc-nodes, ingresses",
    ("rpc-node", "http"): "users",
    ("ingress", "http"): "the rpc-nodes, users",
    (KEEPER, "http"): "the command line on other hosts; read-only",
}


class Listening(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """One socket that hosts other than its own can reach."""

    address: str
    port: int
    component: str
    server: str
    for_whom: str


def socket_of(url: str) -> tuple[str, int]:
    """The (host, port) of ``http://host:port/path`` or ``host:port``."""
    host, _, port = url.rpartition("//")[2].partition("/")[0].rpartition(":")
    return host, int(port)


def sockets(each: ComponentPlan) -> list[tuple[str, int]]:
    """Everything a component listens on, loopback too."""
    return sorted({socket_of(url) for url in each.addresses.values()})


def listens(order: JoinOrder, plan: Sequence[ComponentPlan]) -> list[Listening]:
    """Everything that listens beyond loopback, by host and port; each socket once."""
    found: dict[tuple[str, int], Listening] = {}
    for each in plan:
        for server, url in each.addresses.items():
            host, port = socket_of(url)
            if host != LOOPBACK and (host, port) not in found:
                found[host, port] = _entry(host, port, each.component, server)
    for address in order.placement.keepers:
        port = KEEPER_PORT + order.port_offset
        found[address, port] = _entry(address, port, KEEPER, "http")
    return [found[key] for key in sorted(found)]


def _entry(host: str, port: int, component: str, server: str) -> Listening:
    for_whom = NEEDED_BY[component, server]
    return Listening(address=host, port=port, component=component, server=server, for_whom=for_whom)
