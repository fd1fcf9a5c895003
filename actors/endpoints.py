"""``endpoints.json``: where everything of a cluster is, for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from actors.plan import GENESIS_FILE, JWT_FILE, LOG_DIRECTORY, ClusterOptions, ComponentPlan

ENDPOINTS_FILE = "endpoints.json"
GROUP_COMPONENTS = ("op-node", "conductor", "rollup-boost", "builder", "fallback-el")

# The ten accounts of anvil's and hardhat's public test mnemonic ("test test … junk"): keys everybody knows, on purpose.
FUNDED_KEYS = (
    "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80",
    "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d",
    "0x5de4111afa1a4b94908f83103eb1f1706367c2e68ca870fc3fb9a804cdab365a",
    "0x7c852118294e51e653712a81e05800f419141751be58f605c371e15141b007a6",
    "0x47e179ec197488593b187f80a00eb0da91f1b9d0b13f8733639f19c30a34926a",
    "0x8b3a350cf5c34c9194ca85829a2df0ec3153be0318b5e2d3348e872092edffba",
    "0x92db14e403b83dfe3df233f83dfa3a0d7096f21ca9b0d6d6b8d88b2b4ec1564e",
    "0x4bbbf85ce3377467afe5d46f804f221813b2bb87f24d81f60f1fcdbf7cbf4356",
    "0xdbda1821b80551c9d65939329250298aa3472ba22feea921c0cf5d620ea67b97",
    "0x2a871d0798f97d79848a013d4936a73bf4cc922c825d33c1cf7073dff6d409c6",
)
FUNDED_ADDRESSES = (
    "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266",
    "0x70997970C51812dc3A010C7d01b50e0d17dc79C8",
    "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC",
    "0x90F79bf6EB2c4f870365E785982E1f101E93b906",
    "0x15d34AAf54267DB7D7c367839AAf71A00a2C6A65",
    "0x9965507D1a55bcC2695C58ba16FB37d819B0A4dc",
    "0x976EA74026E726554dB657fA54763abd0C3a0aa9",
    "0x14dC79964da2C08b23698B3D3cc7Ca32193d9955",
    "0x23618e81E3f5cdF7f54C3d65f7FBc0aBf5B21E8f",
    "0xa0Ee7A142d267C1f36714E4a8F75612F20a79720",
)


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
            {"address": address, "private_key": key} for address, key in zip(FUNDED_ADDRESSES, FUNDED_KEYS, strict=True)
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
