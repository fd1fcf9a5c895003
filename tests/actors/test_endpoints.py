"""endpoints.json: the contract's shape, for the default cluster."""

from pathlib import Path
from typing import Any

from actors.endpoints import checksummed, describe
from actors.plan import ClusterOptions, build_plan
from actors.ports import cluster_ports


def default_endpoints() -> dict[str, Any]:
    options = ClusterOptions()
    plan = build_plan(options, cluster_ports(groups=5, proxies=2, rpc_nodes=1, ingresses=1), Path("/data"))
    pids = {each.actor_name: 1000 + number for number, each in enumerate(plan)}
    return describe(
        options,
        plan,
        pids=pids,
        restarts={"sequencer-1/builder": 2},
        data_dir=Path("/data"),
        chain={"genesis_hash": "0xaa"},
    )


def test_the_keys_the_contract_names() -> None:
    found = default_endpoints()
    assert (found["name"], found["chain_id"]) == ("default", 901)
    assert found["rpc"] == {"http": "http://127.0.0.1:8545", "ws": "ws://127.0.0.1:8545"}
    assert found["stream"] == ["ws://127.0.0.1:8550/ws", "ws://127.0.0.1:8560/ws"]
    assert [group["name"] for group in found["groups"]] == [f"sequencer-{index}" for index in range(5)]
    first = found["groups"][0]["actors"]
    assert {name: set(entry) - {"restarts"} for name, entry in first.items()} == {
        "op-node": {"pid", "rpc"},
        "conductor": {"pid", "rpc", "ws", "raft"},
        "rollup-boost": {"pid", "engine", "debug", "health", "ws"},
        "builder": {"pid", "engine", "rpc", "ws"},
        "fallback-el": {"pid", "engine", "rpc"},
    }
    assert found["groups"][1]["actors"]["builder"]["restarts"] == 2
    assert found["genesis_hash"] == "0xaa"
    assert [proxy["name"] for proxy in found["proxies"]] == ["proxy-0", "proxy-1"]


def test_the_accounts_are_those_of_the_public_mnemonic_with_checksums() -> None:
    accounts = default_endpoints()["accounts"]
    assert len(accounts) == 10
    assert accounts[0] == {
        "address": "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266",
        "private_key": "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80",
    }


def test_checksums_of_the_eip_55_examples() -> None:
    for text in (
        "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
        "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
        "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB",
        "0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb",
    ):
        assert checksummed(bytes.fromhex(text[2:])) == text


def test_without_an_rpc_node_there_is_no_rpc() -> None:
    options = ClusterOptions(rpc_nodes=0)
    plan = build_plan(options, cluster_ports(groups=5, proxies=2, rpc_nodes=0, ingresses=1), Path("/data"))
    pids = {each.actor_name: 1 for each in plan}
    assert describe(options, plan, pids=pids, restarts={}, data_dir=Path("/data"), chain={})["rpc"] is None
