"""The cluster table: which components a cluster has and with which settings each one starts.

`build_plan` is a pure function of the options and the ports, so the whole wiring – who connects to whom – can be read
and tested without starting anything.  The order of the plan is the order of creation: what the first flashblock needs
comes first.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec

from actors.placement import Placement, on_one_machine
from actors.ports import GROUPS_MAX, INGRESSES_MAX, PROXIES_MAX, RPC_NODES_MAX, ClusterPorts, GroupPorts

NAME_LENGTH_MAX = 16  # Ray's socket paths hold the name and end at 107 bytes
NAME_PATTERN = re.compile(rf"[a-z0-9][a-z0-9-]{{0,{NAME_LENGTH_MAX - 1}}}")
PROXY_CONNECTIONS_MAX = 2_000
LOG_LEVELS = ("debug", "info", "warning", "error")

GENESIS_FILE = "genesis.json"
JWT_FILE = "jwt.hex"
RAFT_PASSWORD_FILE = "raft-password"
LOG_DIRECTORY = "logs"


class OptionsError(ValueError):
    """The options of a cluster contradict each other or leave their range; the text says which and how."""


class ClusterOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a user may choose about a cluster; every default of ``flashblocks up`` is named here."""

    name: str = "default"
    groups: int = 5
    proxies: int = 2
    rpc_nodes: int = 1
    ingresses: int = 1
    block_time_s: int = 2
    flashblock_time_ms: int = 200
    round_trip_ms: int = 0
    raft_fsync: bool = False
    host: str = "127.0.0.1"
    chain_id: int = 901
    log_level: str = "info"

    def check(self) -> None:
        """Raise `OptionsError` for the first option out of range."""
        if not NAME_PATTERN.fullmatch(self.name):
            raise OptionsError(
                f"--name {self.name!r}: use 1 to {NAME_LENGTH_MAX} of a–z, 0–9 and '-', starting with a letter or digit"
            )
        ranges = (
            ("--groups", self.groups, 1, GROUPS_MAX),
            ("--proxies", self.proxies, 1, PROXIES_MAX),
            ("--rpc-nodes", self.rpc_nodes, 0, RPC_NODES_MAX),
            ("--ingresses", self.ingresses, 0, INGRESSES_MAX),
            ("--block-time", self.block_time_s, 1, 60),
            ("--round-trip", self.round_trip_ms, 0, 1000),
            ("--flashblock-time", self.flashblock_time_ms, 50, self.block_time_s * 1000),
        )
        for flag, value, low, high in ranges:
            if not low <= value <= high:
                raise OptionsError(f"{flag} {value}: must be between {low} and {high}")
        if self.rpc_nodes and not self.ingresses:
            raise OptionsError(
                "--ingresses 0: an rpc-node needs an ingress to send transactions to; use --rpc-nodes 0 too"
            )
        if self.log_level not in LOG_LEVELS:
            raise OptionsError(f"--log-level {self.log_level}: must be one of {', '.join(LOG_LEVELS)}")


class ComponentPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One component of the cluster: what it is, how it is configured, where others reach it."""

    component: str  # "op-node", "conductor", …: a key of actors.process.COMPONENTS
    instance: str  # "sequencer-0", "proxy-1", …
    group: int  # the sequencer group, or the index among its kind
    settings: dict[str, Any]
    addresses: dict[str, str]  # as written to endpoints.json: {"rpc": "http://…"}
    host: str = ""  # the address of the host it is placed on; empty: this machine

    @property
    def actor_name(self) -> str:
        """The unique name of the actor, ``sequencer-0/conductor``."""
        return f"{self.instance}/{self.component}"

    @property
    def note_name(self) -> str:
        """The file name of the actor's note in the run directory."""
        return f"{self.instance}.{self.component}"


def build_plan(
    options: ClusterOptions, ports: ClusterPorts, data_dir: Path, placement: Placement | None = None
) -> list[ComponentPlan]:
    """Every component of the cluster with its complete settings, in the order of creation.

    With a *placement* each component gets its host, listens there on the host's own address with what other hosts
    must reach, and on loopback with the rest.
    """
    wiring = _Wiring(options, ports, data_dir, placement)
    groups = range(options.groups)
    conductors = [wiring.conductor(group) for group in groups]
    proxies = [wiring.proxy(index) for index in range(options.proxies)]
    others = [
        [wiring.fallback_el(group), wiring.builder(group), wiring.rollup_boost(group), wiring.op_node(group)]
        for group in groups
    ]
    majority = options.groups // 2 + 1
    # A block needs a majority of conductors, one whole group and a proxy that shows it; the rest follows.
    return [
        *conductors[:majority],
        *others[0],
        *proxies,
        *conductors[majority:],
        *(wiring.ingress(index) for index in range(options.ingresses)),
        *(wiring.rpc_node(index) for index in range(options.rpc_nodes)),
        *(plan for group in others[1:] for plan in group),
    ]


class _Wiring:
    """Turns ports into the URLs and settings of each component (names: the components' own Settings)."""

    def __init__(
        self, options: ClusterOptions, ports: ClusterPorts, data_dir: Path, placement: Placement | None
    ) -> None:
        self.options = options
        self.ports = ports
        self.data_dir = data_dir
        self.is_placed = placement is not None
        self.at = placement or on_one_machine(
            options.host,
            groups=options.groups,
            proxies=options.proxies,
            rpc_nodes=options.rpc_nodes,
            ingresses=options.ingresses,
        )

    def _execution_urls(self, *, without_group: int | None = None) -> list[str]:
        return [
            _http(self.at.groups[index], port)
            for index, group in enumerate(self.ports.groups)
            if index != without_group
            for port in (group.fallback_el_rpc, group.builder_rpc)
        ]

    def _stream_urls(self) -> list[str]:
        return [_ws(host, port, "/ws") for host, port in zip(self.at.proxies, self.ports.proxies, strict=True)]

    def _ingress_urls(self) -> list[str]:
        return [_http(host, port) for host, port in zip(self.at.ingresses, self.ports.ingresses, strict=True)]

    def _plan(
        self,
        component: str,
        instance: str,
        group: int,
        host: str,
        addresses: dict[str, str],
        settings: dict[str, Any],
    ) -> ComponentPlan:
        settings = {
            "name": instance,
            "group": group,
            "host": host,
            "data_dir": str(self.data_dir / instance / component),
            "log_level": self.options.log_level,
            **settings,
        }
        return ComponentPlan(
            component=component,
            instance=instance,
            group=group,
            settings=settings,
            addresses=addresses,
            host=host if self.is_placed else "",
        )

    def _jwt(self) -> dict[str, str]:
        return {"jwt_secret_path": str(self.data_dir / JWT_FILE)}

    def _genesis(self) -> dict[str, str]:
        return {"genesis_path": str(self.data_dir / GENESIS_FILE)}

    def _group(self, group: int) -> tuple[str, str, GroupPorts]:
        return f"sequencer-{group}", self.at.groups[group], self.ports.groups[group]

    def op_node(self, group: int) -> ComponentPlan:
        instance, host, own = self._group(group)
        settings = {
            **self._jwt(),
            **self._genesis(),
            "rpc_port": own.op_node_rpc,
            "engine_url": _http(self.at.inner, own.rollup_boost_engine),
            "conductor_url": _http(host, own.conductor_rpc),
            "block_time_s": self.options.block_time_s,
            "peer_urls": self._execution_urls(without_group=group),
            "peer_op_node_urls": [
                _http(self.at.groups[index], ports.op_node_rpc)
                for index, ports in enumerate(self.ports.groups)
                if index != group
            ],
            "sequencer_stopped": True,
            "conductor_enabled": True,
        }
        return self._plan("op-node", instance, group, host, {"rpc": _http(host, own.op_node_rpc)}, settings)

    def conductor(self, group: int) -> ComponentPlan:
        instance, host, own = self._group(group)
        members = [
            (f"sequencer-{index}", self.at.groups[index], ports) for index, ports in enumerate(self.ports.groups)
        ]
        settings = {
            **self._genesis(),
            "rpc_port": own.conductor_rpc,
            "ws_port": own.conductor_ws,
            "raft_port": own.conductor_raft,
            "raft_peers": {name: f"{address}:{ports.conductor_raft}" for name, address, ports in members},
            "raft_password_path": str(self.data_dir / RAFT_PASSWORD_FILE),
            "peer_urls": {name: _http(address, ports.conductor_rpc) for name, address, ports in members},
            "op_node_url": _http(host, own.op_node_rpc),
            "rollup_boost_url": _http(self.at.inner, own.rollup_boost_engine),
            "rollup_boost_ws_url": _ws(self.at.inner, own.rollup_boost_ws),
            "execution_url": _http(host, own.fallback_el_rpc),
            "round_trip_ms": self.options.round_trip_ms,
            "raft_fsync": self.options.raft_fsync,
            "block_time_s": self.options.block_time_s,
            "flashblock_time_ms": self.options.flashblock_time_ms,
        }
        addresses = {
            "rpc": _http(host, own.conductor_rpc),
            "ws": _ws(host, own.conductor_ws, "/ws"),
            "raft": f"{host}:{own.conductor_raft}",
        }
        return self._plan("conductor", instance, group, host, addresses, settings)

    def rollup_boost(self, group: int) -> ComponentPlan:
        instance, host, own = self._group(group)
        inner = self.at.inner
        settings = {
            **self._jwt(),
            "host": inner,
            "engine_port": own.rollup_boost_engine,
            "debug_port": own.rollup_boost_debug,
            "ws_port": own.rollup_boost_ws,
            "l2_url": _http(inner, own.fallback_el_engine),
            "builder_url": _http(inner, own.builder_engine),
            "builder_ws_url": _ws(inner, own.builder_ws),
            "commit_required": True,
            "flashblock_time_ms": self.options.flashblock_time_ms,
        }
        engine = _http(inner, own.rollup_boost_engine)
        addresses = {
            "engine": engine,
            "debug": _http(inner, own.rollup_boost_debug),
            "health": f"{engine}/healthz",
            "ws": _ws(inner, own.rollup_boost_ws),
        }
        if self.is_placed:  # none of the above is for other hosts, but they may look at it
            settings |= {"metrics_host": host, "metrics_port": own.rollup_boost_metrics}
            addresses["metrics"] = _http(host, own.rollup_boost_metrics)
        return self._plan("rollup-boost", instance, group, host, addresses, settings)

    def builder(self, group: int) -> ComponentPlan:
        instance, host, own = self._group(group)
        settings = {
            **self._jwt(),
            **self._genesis(),
            **self._engine_host(),
            "engine_port": own.builder_engine,
            "rpc_port": own.builder_rpc,
            "ws_port": own.builder_ws,
            "block_time_s": self.options.block_time_s,
            "flashblock_time_ms": self.options.flashblock_time_ms,
            "peer_urls": self._execution_urls(without_group=group),
        }
        addresses = {
            "engine": _http(self.at.inner, own.builder_engine),
            "rpc": _http(host, own.builder_rpc),
            "ws": _ws(self.at.inner, own.builder_ws),
        }
        return self._plan("builder", instance, group, host, addresses, settings)

    def fallback_el(self, group: int) -> ComponentPlan:
        instance, host, own = self._group(group)
        settings = {
            **self._jwt(),
            **self._genesis(),
            **self._engine_host(),
            "engine_port": own.fallback_el_engine,
            "rpc_port": own.fallback_el_rpc,
            "peer_urls": self._execution_urls(without_group=group),
        }
        addresses = {
            "engine": _http(self.at.inner, own.fallback_el_engine),
            "rpc": _http(host, own.fallback_el_rpc),
        }
        return self._plan("fallback-el", instance, group, host, addresses, settings)

    def _engine_host(self) -> dict[str, str]:
        return {"engine_host": self.at.inner} if self.is_placed else {}

    def proxy(self, index: int) -> ComponentPlan:
        host, port = self.at.proxies[index], self.ports.proxies[index]
        upstream = [
            _ws(address, group.conductor_ws, "/ws")
            for address, group in zip(self.at.groups, self.ports.groups, strict=True)
        ]
        addresses = {"ws": _ws(host, port, "/ws"), "http": _http(host, port)}
        settings = {
            "port": port,
            "upstream_ws": upstream,
            # on a development machine, and for a drill on an edge host, every subscriber has the same address
            "per_ip_connection_limit": 0,
            "instance_connection_limit": PROXY_CONNECTIONS_MAX,
        }
        return self._plan("websocket-proxy", f"proxy-{index}", index, host, addresses, settings)

    def rpc_node(self, index: int) -> ComponentPlan:
        host, port = self.at.rpc_nodes[index], self.ports.rpc_nodes[index]
        settings = {
            **self._genesis(),
            "port": port,
            "stream_urls": self._stream_urls(),
            "execution_urls": self._execution_urls(),
            "ingress_urls": self._ingress_urls(),
            "flashblock_time_ms": self.options.flashblock_time_ms,
        }
        addresses = {"http": _http(host, port), "ws": _ws(host, port)}
        return self._plan("rpc-node", f"rpc-{index}", index, host, addresses, settings)

    def ingress(self, index: int) -> ComponentPlan:
        host, port = self.at.ingresses[index], self.ports.ingresses[index]
        settings = {
            **self._jwt(),
            "port": port,
            "target_urls": self._execution_urls(),
            "stream_urls": self._stream_urls(),
            "execution_urls": self._execution_urls(),
            # the rpc-nodes say which wallet a transaction is from
            "trusted_proxy_addresses": sorted({"127.0.0.1", "::1", *self.at.rpc_nodes}),
        }
        return self._plan("ingress", f"ingress-{index}", index, host, {"http": _http(host, port)}, settings)


def _http(host: str, port: int) -> str:
    return f"http://{host}:{port}"


def _ws(host: str, port: int, path: str = "") -> str:
    return f"ws://{host}:{port}{path}"
