"""``endpoints.json``: where everything of a cluster is, for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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


def _entry(plan: ComponentPlan, pids: Mapping[str, int], restarts: Mapping[str, int]) -> dict[str, Any]:
    name = {} if plan.component in GROUP_COMPONENTS else {"name": plan.instance}
    counted = restarts.get(plan.actor_name, 0)
    return {**name, "pid": pids[plan.actor_name], **plan.addresses, "restarts": counted}


def checksummed(address: bytes) -> str:
    """The mixed-case form of a 20-byte address (EIP-55), which web3.py insists on."""
    digits = address.hex()
    mask = keccak256(digits.encode()).hex()
    return "0x" + "".join(
        digit.upper() if int(nibble, 16) >= 8 else digit for digit, nibble in zip(digits, mask, strict=False)
    )
