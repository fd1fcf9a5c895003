"""``endpoints.json``: where everything of a cluster is, for programs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from actors.join_order import JoinOrder
from actors.listening import listens
from actors.placement import EDGE, SEQUENCER
from actors.plan import GENESIS_FILE, JWT_FILE, LOG_DIRECTORY, ClusterOptions, ComponentPlan
from flashblocks.execution.accounts import TEST_ACCOUNTS
from flashblocks.wire.keccak import keccak256

ENDPOINTS_FILE = "endpoints.json"
GROUP_COMPONENTS = ("op-node", "conductor", "rollup-boost", "builder", "fallback-el")


def describe(
    options: ClusterOptions,
    plan: Sequence[ComponentPlan],
    *,
    pids: Mapping[str, int],
    restarts: Mapping[str, int],
    data_dir: Path,
    chain: Mapping[str, Any],
) -> dict[str, Any]:
    """The content of ``endpoints.json``; *pids* and *restarts* are by actor name."""
    entries = {each.actor_name: _entry(each, pids, restarts) for each in plan}
    of_kind = {
        component: [entries[each.actor_name] for each in plan if each.component == component]
        for component in ("websocket-proxy", "rpc-node", "ingress")
    }
    first_rpc = of_kind["rpc-node"][:1]
    return {
        "name": options.name,
        "chain_id": options.chain_id,
        "rpc": {"http": first_rpc[0]["http"], "ws": first_rpc[0]["ws"]} if first_rpc else None,
        "stream": [proxy["ws"] for proxy in of_kind["websocket-proxy"]],
        "accounts": [
            {"address": checksummed(funded.address), "private_key": "0x" + funded.private_key.hex()}
            for funded in TEST_ACCOUNTS
        ],
        "groups": [
            {
                "name": instance,
                "actors": {
                    component: entries[f"{instance}/{component}"]
                    for component in GROUP_COMPONENTS
                    if f"{instance}/{component}" in entries
                },
            }
            for instance in dict.fromkeys(each.instance for each in plan if each.component in GROUP_COMPONENTS)
        ],
        "proxies": of_kind["websocket-proxy"],
        "rpc_nodes": of_kind["rpc-node"],
        "ingress": of_kind["ingress"],
        "others": [
            entries[each.actor_name]
            for each in plan
            if each.component not in GROUP_COMPONENTS and each.component not in of_kind
        ],
        "block_time_s": options.block_time_s,
        "flashblock_time_ms": options.flashblock_time_ms,
        "genesis_hash": chain.get("genesis_hash"),
        "data_dir": str(data_dir),
        "log_dir": str(data_dir / LOG_DIRECTORY),
        "genesis": str(data_dir / GENESIS_FILE),
        "jwt_secret": str(data_dir / JWT_FILE),
    }


def describe_hosts(
    order: JoinOrder,
    plan: Sequence[ComponentPlan],
    *,
    pids: Mapping[str, int],
    restarts: Mapping[str, int],
    chain: Mapping[str, Any],
    alive: Collection[str],
) -> dict[str, Any]:
    """The same for a cluster on many hosts: pids are each host's own, 0 where a host does not answer."""
    placement = order.placement
    found = describe(order.options, plan, pids=pids, restarts=restarts, data_dir=Path(order.data_dir), chain=chain)
    return {
        **found,
        "hosts": [
            {
                "address": address,
                "for": SEQUENCER if address in placement.groups else EDGE,
                "alive": address in alive,
                "instances": list(dict.fromkeys(each.instance for each in plan if each.host == address)),
            }
            for address in placement.hosts()
        ],
        "keeper": order.keeper_urls(),
        "listens": [msgspec.to_builtins(each) for each in listens(order, plan)],
        "ray_address": order.ray_address,
        "remarks": list(placement.remarks),
    }


def _entry(plan: ComponentPlan, pids: Mapping[str, int], restarts: Mapping[str, int]) -> dict[str, Any]:
    name = {} if plan.component in GROUP_COMPONENTS else {"name": plan.instance}
    host = {"host": plan.host} if plan.host else {}
    counted = restarts.get(plan.actor_name, 0)
    return {**name, **host, "pid": pids.get(plan.actor_name, 0), **plan.addresses, "restarts": counted}


def checksummed(address: bytes) -> str:
    """The mixed-case form of a 20-byte address (EIP-55), which web3.py insists on."""
    digits = address.hex()
    mask = keccak256(digits.encode()).hex()
    return "0x" + "".join(
        digit.upper() if int(nibble, 16) >= 8 else digit for digit, nibble in zip(digits, mask, strict=False)
    )
