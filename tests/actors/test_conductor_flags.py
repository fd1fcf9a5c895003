"""Every flag of op-conductor is understood, as a flag and in the environment: it sets something or says why not."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from actors import process
from actors.conductor import Conductor
from actors.conductor_rpc import ConductorRpc
from actors.process import settings_type
from actors.rpc_client import RpcClient, RpcRefused
from actors.settings import from_environment, load
from cli.main import main
from tests.actors.group_under_test import Cluster

MEANS: dict[str, tuple[str, Any]] = {
    "rpc.addr=0.0.0.0": ("host", "0.0.0.0"),
    "rpc.port=8547": ("rpc_port", 8547),
    "rpc.enable-proxy=false": ("rpc_enable_proxy", False),
    "consensus.addr=10.0.0.1": ("raft_host", "10.0.0.1"),
    "consensus.port=50051": ("raft_port", 50051),
    "raft.server.id=sequencer-1": ("name", "sequencer-1"),
    "raft.storage.dir=/data/raft": ("data_dir", "/data/raft"),
    "node.rpc=http://node:9545": ("op_node_url", "http://node:9545"),
    "execution.rpc=http://el:8545": ("execution_url", "http://el:8545"),
    "healthcheck.interval=1": ("healthcheck_interval_s", 1.0),
    "healthcheck.unsafe-interval=5": ("healthcheck_unsafe_interval_s", 5.0),
    "healthcheck.safe-enabled=true": ("healthcheck_safe_enabled", True),
    "healthcheck.safe-interval=600": ("healthcheck_safe_interval_s", 600.0),
    "healthcheck.min-peer-count=2": ("healthcheck_min_peer_count", 2),
    "rollup-boost.healthcheck-timeout=1500ms": ("rollup_boost_healthcheck_timeout_s", 1.5),
    "healthcheck.rollup-boost-partial-healthiness-tolerance-limit=3": (
        "healthcheck_rollup_boost_partial_healthiness_tolerance_limit",
        3,
    ),
    "healthcheck.rollup-boost-partial-healthiness-tolerance-interval-seconds=60": (
        "healthcheck_rollup_boost_partial_healthiness_tolerance_interval_s",
        60.0,
    ),
    "rollupboost.ws-url=ws://boost:1112": ("rollup_boost_ws_url", "ws://boost:1112"),
    "websocket.server-port=8546": ("ws_port", 8546),
    "paused=true": ("paused", True),
    "log.level=debug": ("log_level", "debug"),
}
CHANGES_NOTHING = [
    "consensus.advertised=a:1",
    "raft.bootstrap=true",
    "raft.snapshot-interval=120s",
    "raft.snapshot-threshold=8192",
    "raft.trailing-logs=10240",
    "raft.heartbeat-timeout=1000ms",
    "raft.lease-timeout=500ms",
    "supervisor.rpc=http://s",
    "healthcheck.execution-p2p-enabled=true",
    "healthcheck.execution-p2p-min-peer-count=1",
    "healthcheck.execution-p2p-rpc-url=http://el",
    "healthcheck.execution-p2p-check-api=net",
    "rollup-boost.enabled=true",
    "rollup-boost.next-enabled=true",
    "rollup-boost.next-healthcheck-url=http://b",
    "metrics.enabled=true",
    "metrics.addr=0.0.0.0",
    "metrics.port=7300",
    "pprof.enabled=true",
    "pprof.addr=0.0.0.0",
    "pprof.port=6060",
    "pprof.path=/p",
    "pprof.type=cpu",
    "log.format=json",
    "log.color=true",
    "log.pid=true",
    "network=op-mainnet",
    "rollup.config=/r.json",
    "rpc.enable-admin=true",
    "raft.round-robin-leader-transfer=true",
]
EVERYTHING_ELSE = {
    "data_dir": "/d",
    "name": "sequencer-1",
    "raft_peers": "sequencer-1=127.0.0.1:1",
    "raft_password_path": "/p",
    "op_node_url": "http://n",
    "rollup_boost_url": "http://b",
    "rollup_boost_ws_url": "ws://b",
}


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The values of what would have been started."""
    calls: list[dict[str, Any]] = []

    def remember(component: str, values: dict[str, Any]) -> int:
        calls.append(values)
        return 0

    monkeypatch.setattr(process, "run_component", remember)
    return calls


def value_of(values: dict[str, Any], field: str) -> Any:
    return getattr(load(settings_type("conductor"), {**EVERYTHING_ELSE, **values}), field)


def environment_of(flag: str) -> dict[str, str]:
    name, _, value = flag.partition("=")
    return {"OP_CONDUCTOR_" + name.upper().replace(".", "_").replace("-", "_"): value}


@pytest.mark.parametrize("flag", MEANS)
def test_a_flag_sets_what_it_means(flag: str, started: list[dict[str, Any]]) -> None:
    assert main(["run", "conductor", f"--{flag}"]) == 0
    field, value = MEANS[flag]
    assert value_of(started[0], field) == value


@pytest.mark.parametrize("flag", MEANS)
def test_so_does_the_environment(flag: str) -> None:
    warnings: list[str] = []
    values = from_environment("conductor", settings_type("conductor"), environment_of(flag), warnings.append)
    field, value = MEANS[flag]
    assert value_of(values, field) == value
    assert warnings == []


@pytest.mark.parametrize("flag", CHANGES_NOTHING)
def test_a_flag_that_changes_nothing_here_is_accepted_and_told(
    flag: str, started: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "conductor", f"--{flag}"]) == 0
    assert started == [{"name": "conductor"}]
    assert f"--{flag.partition('=')[0]} has no effect: " in capsys.readouterr().err
    warnings: list[str] = []
    assert from_environment("conductor", settings_type("conductor"), environment_of(flag), warnings.append) == {}
    assert [" has no effect: " in warning for warning in warnings] == [True]


async def test_without_its_proxies_a_conductor_serves_its_own_methods_only(tmp_path: Path) -> None:
    group = Cluster(tmp_path, 1).groups[0]
    conductor = Conductor(msgspec.structs.replace(group.settings, rpc_enable_proxy=False), group.log)
    await conductor.server.start()
    rpc = RpcClient(conductor.server.url)
    try:
        assert await rpc.call("conductor_active") is True
        for method in ("eth_getBlockByNumber", "optimism_syncStatus", "admin_sequencerActive", "miner_setMaxDASize"):
            with pytest.raises(RpcRefused, match="does not exist"):
                await rpc.call(method)
        assert {name.partition("_")[0] for name in ConductorRpc(conductor).methods()} == {"conductor", "flashblocks"}
    finally:
        await rpc.close()
        await conductor.close()
