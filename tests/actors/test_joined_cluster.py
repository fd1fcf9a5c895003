"""A cluster in a Ray that is not its own: four raylets of this machine, one group; ``down`` leaves Ray alone."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from actors.free_ports import is_free
from actors.ray_guard import GuardFiles
from actors.ray_host import GCS_PORT, METRICS_PORT
from actors.run_directory import ROOT_VARIABLE, RunDirectory

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(500)]

HEAD, SEQUENCER, EDGE, SPARE = "127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4"
NODES = ((SEQUENCER, "sequencer"), (EDGE, "edge"), (SPARE, "sequencer"))
WAIT_S_MAX = 120.0
COMMAND_S_MAX = 240.0
OFFSETS = range(300, 6000, 300)
NAME = "joined"


def command(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", *words], capture_output=True, text=True, timeout=COMMAND_S_MAX, check=False
    )
    assert not check or done.returncode == 0, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def wait_until(condition: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + WAIT_S_MAX
    while not (found := condition()):
        assert time.monotonic() < deadline, what
        time.sleep(0.2)
    return found


def free_offset() -> int:
    """An offset at which four raylets find their pinned ports free; all of them bind to every address."""
    for offset in OFFSETS:
        ports = [port + offset + 10 * node for node in range(4) for port in range(GCS_PORT, METRICS_PORT + 1)]
        if all(is_free("0.0.0.0", port) for port in ports):
            return offset
    pytest.skip("no free ports for four raylets")


@pytest.fixture(scope="module")
def environment() -> Iterator[Path]:
    root = Path(f"/tmp/fbj{os.getpid()}")  # short: Ray's socket paths end at 107 bytes
    root.mkdir(mode=0o700)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(root))
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
        patch.setenv(ROOT_VARIABLE, str(root / "runs"))
        for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS"):
            patch.delenv(name, raising=False)
        yield root
    subprocess.run(["rm", "-r", str(root)], check=True)


@pytest.fixture(scope="module")
def ray_address(environment: Path) -> Iterator[str]:
    """Ray with a head, two sequencer hosts and an edge host, all of them this machine."""
    offset = free_offset()
    address = f"{HEAD}:{GCS_PORT + offset}"
    command("ray", "token")
    try:
        command(
            *("ray", "start", "--head", "--node-address", HEAD),
            *("--port-offset", str(offset), "--temp-dir", str(environment / "r")),
        )
        for place, (node, kind) in enumerate(NODES, start=1):
            command(
                *("ray", "start", "--head-address", address, "--node-address", node),
                *("--port-offset", str(offset + 10 * place), "--resources", json.dumps({kind: 1})),
            )
        yield address
    finally:
        for node in (SPARE, EDGE, SEQUENCER, HEAD):
            command("ray", "stop", "--node-address", node)


@pytest.fixture(scope="module")
def endpoints(ray_address: str) -> Iterator[dict[str, Any]]:
    shape = ("--groups", "1", "--proxies", "1", "--rpc-nodes", "1", "--ingresses", "1")
    done = command("up", "--address", ray_address, "--name", NAME, *shape, "--detach", "--json")
    yield orjson.loads(done.stdout)
    command("down", "--name", NAME)


def test_it_flows_and_says_where_everything_is(endpoints: dict[str, Any]) -> None:
    assert [host["address"] for host in endpoints["hosts"]] == [SEQUENCER, EDGE]  # one group needs no more
    conductor = endpoints["groups"][0]["actors"]["conductor"]
    assert conductor["host"] == SEQUENCER
    assert conductor["rpc"] == f"http://{SEQUENCER}:8547"
    assert endpoints["rpc"]["http"] == f"http://{EDGE}:8545"
    status = orjson.loads(command("status", "--name", NAME, "--json").stdout)
    assert status["leader"]["active"]


def test_secrets_lie_in_private_files_where_they_are_needed(endpoints: dict[str, Any]) -> None:
    directory = RunDirectory(NAME)
    assert directory.path.stat().st_mode & 0o077 == 0
    for name in ("jwt.hex", "raft-password", "genesis.json"):
        assert (directory.temporary_data / name).stat().st_mode & 0o777 == 0o600


def test_a_killed_component_comes_back_and_the_keeper_tells(endpoints: dict[str, Any]) -> None:
    before = endpoints["ingress"][0]["pid"]
    os.kill(before, signal.SIGKILL)

    def is_back() -> bool:
        found = orjson.loads(command("status", "--name", NAME, "--json", check=False).stdout)["ingress"][0]
        return found["pid"] not in (0, before) and found["restarts"] == 1 and found["status"] is not None

    wait_until(is_back, "the ingress did not come back")


@pytest.mark.slow  # a minute; tests/hosts replaces real hosts
def test_another_host_takes_the_place_of_one_that_is_gone(endpoints: dict[str, Any]) -> None:
    command("ray", "stop", "--node-address", SEQUENCER)
    done = command("replace-host", "--name", NAME, SEQUENCER, SPARE)
    assert f"{SPARE}: serves" in done.stdout

    def flows() -> bool:
        done = command("status", "--name", NAME, "--json", check=False)
        found = orjson.loads(done.stdout)
        addresses = [host["address"] for host in found["hosts"]]
        return done.returncode == 0 and addresses == [SPARE, EDGE] and found["leader"]["active"]

    wait_until(flows, "the chain does not go on")
    conductor = orjson.loads(command("status", "--name", NAME, "--json").stdout)["groups"][0]["actors"]["conductor"]
    assert conductor["rpc"] == f"http://{SPARE}:8547"


def test_a_second_cluster_of_that_name_is_refused(endpoints: dict[str, Any], ray_address: str) -> None:
    done = command("up", "--address", ray_address, "--name", NAME, "--detach", check=False)
    assert done.returncode == 1
    assert "is running" in done.stderr


def test_down_ends_its_own_and_leaves_ray(endpoints: dict[str, Any], ray_address: str) -> None:
    before = orjson.loads(command("status", "--name", NAME, "--json").stdout)
    done = command("down", "--name", NAME)
    assert "Ray goes on" in done.stdout
    assert not RunDirectory(NAME).path.exists()
    pids = [entry["pid"] for group in before["groups"] for entry in group["actors"].values()]
    assert all(pids)
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "components are left")
    for node in (HEAD, SPARE, EDGE):
        guard = GuardFiles(node).guard()
        assert guard is not None
        assert guard[1], f"Ray does not run on {node}"
