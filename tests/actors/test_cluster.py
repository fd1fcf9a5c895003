"""Real Ray, tiny components: what starts, what comes back after a kill, and that nothing is ever left behind."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from actors import reaper
from actors.plan import ClusterOptions, ComponentPlan
from actors.run_directory import (
    MARKER_VARIABLE,
    ROOT_VARIABLE,
    AlreadyRunning,
    RunDirectory,
    claim,
    ports_of_running_clusters,
)
from actors.starter import Started, StartOrder, launch, stop, write_state

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]
WAIT_S_MAX = 100.0


@pytest.fixture(autouse=True)
def run_root(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A short directory of the test's own: Ray's socket paths are limited to 107 bytes."""
    root = Path(f"/tmp/fbt{os.getpid()}")
    monkeypatch.setenv(ROOT_VARIABLE, str(root))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    yield root
    if root.exists():
        for directory in root.iterdir():
            stop(RunDirectory(directory.name))
    assert not root.exists(), list(root.iterdir())


def free_ports(count: int) -> list[int]:
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def start_tiny(name: str, count: int = 2) -> Started:
    taken = claim(name)
    data = taken.directory.temporary_data
    data.mkdir()
    ports = free_ports(count)
    plan = [
        ComponentPlan(
            component="tiny_component:Tiny",
            instance=f"tiny-{index}",
            group=index,
            settings={"port": port, "group": index, "data_dir": str(data / f"tiny-{index}")},
            addresses={"rpc": f"http://127.0.0.1:{port}"},
        )
        for index, port in enumerate(ports)
    ]
    write_state(taken, data, True, ports)
    order = StartOrder(
        options=ClusterOptions(name=name), plan=plan, data_dir=str(data), command_at=time.time(), prepare_chain=False
    )
    started = launch(taken, order)
    taken.release()
    return started


def wait_until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + WAIT_S_MAX
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)
    return found


def events(directory: RunDirectory) -> list[dict[str, Any]]:
    try:
        return [orjson.loads(line) for line in directory.progress.read_bytes().splitlines()]
    except (OSError, orjson.JSONDecodeError):
        return []


def wait_ready(started: Started) -> None:
    def over() -> bool:
        names = [event["event"] for event in events(started.directory)]
        assert "failed" not in names, events(started.directory)
        return "ready" in names

    wait_until(over)


def entries(directory: RunDirectory) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = orjson.loads(directory.endpoints.read_bytes())["others"]
    return found


def ask(entry: dict[str, Any], word: bytes = b"HI") -> int | None:
    """The pid the component at the entry's address answers with."""
    try:
        with socket.create_connection(("127.0.0.1", int(entry["rpc"].rpartition(":")[2])), timeout=2) as connection:
            connection.sendall(word + b"\n")
            return int(connection.makefile().readline() or 0) or None
    except OSError:
        return None


def marker_of(directory: RunDirectory) -> str:
    state = directory.read_state()
    assert state is not None
    return f"{MARKER_VARIABLE}={state.marker}"


def supervisor_of(directory: RunDirectory) -> int:
    state = directory.read_state()
    assert state is not None
    return state.supervisor_pid


def assert_nothing_is_left(directory: RunDirectory, marker: str) -> None:
    wait_until(lambda: not directory.path.exists() and not reaper.marked_processes(marker))


def kill_fork_server(directory: RunDirectory) -> None:
    for pid in reaper.descendants(supervisor_of(directory)):
        if b"actors.fork_server" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)
            return
    raise AssertionError("no fork server")


def test_a_cluster_starts_heals_and_ends() -> None:
    started = start_tiny("heals")
    directory = started.directory
    wait_ready(started)
    marker = marker_of(directory)
    first, second = entries(directory)
    assert ask(first) == first["pid"]
    assert first["pid"] != second["pid"]

    with pytest.raises(AlreadyRunning, match="flashblocks down --name heals"):
        claim("heals")

    os.kill(first["pid"], signal.SIGKILL)  # a killed actor comes back on its port, and endpoints.json follows
    wait_until(lambda: entries(directory)[0]["restarts"] == 1)
    wait_until(lambda: ask(first) == entries(directory)[0]["pid"])

    ask(second, b"BUG")  # a bug ends the process loudly, and it comes back as well
    wait_until(lambda: entries(directory)[1]["restarts"] == 1)
    wait_until(lambda: ask(second) == entries(directory)[1]["pid"])
    kill_fork_server(directory)  # then workers start the ordinary way, if more slowly
    third = entries(directory)[0]
    os.kill(third["pid"], signal.SIGKILL)
    wait_until(lambda: entries(directory)[0]["restarts"] == 2)
    wait_until(lambda: ask(third) == entries(directory)[0]["pid"])
    assert "this is our own bug" in (directory.temporary_data / "logs" / "Tiny-1.jsonl").read_text()

    assert stop(directory)
    assert started.has_ended() or started.wait(WAIT_S_MAX) == 0
    assert_nothing_is_left(directory, marker)


def test_two_clusters_coexist_and_a_name_can_be_used_again() -> None:
    one, two = start_tiny("one", 1), start_tiny("two", 1)
    wait_ready(one)
    wait_ready(two)
    assert len(ports_of_running_clusters()) == 2
    one.stop()
    assert not one.directory.path.exists()
    (entry,) = entries(two.directory)
    assert ask(entry) == entry["pid"]
    again = start_tiny("one", 1)
    wait_ready(again)
    again.stop()
    two.stop()


def test_components_are_closed_before_the_end(tmp_path: Path) -> None:
    started = start_tiny("closes", 1)
    wait_ready(started)
    data = started.directory.temporary_data
    kept = tmp_path / "kept"
    os.link(data / "logs" / "Tiny-0.jsonl", kept)  # the directory itself will be gone
    started.stop()
    assert '"event":"ended"' in kept.read_text()


def kill_ray(supervisor: int, process: str) -> None:
    (pid,) = (pid for pid in reaper.descendants(supervisor) if Path(f"/proc/{pid}/comm").read_text().strip() == process)
    os.kill(pid, signal.SIGKILL)


def test_without_its_gcs_a_cluster_goes_on_and_ends_as_any() -> None:
    started = start_tiny("headless", 1)
    directory = started.directory
    wait_ready(started)
    marker = marker_of(directory)
    (entry,) = entries(directory)
    kill_ray(supervisor_of(directory), "gcs_server")
    wait_until(lambda: any(event["event"] == "ray-lost" for event in events(directory)))
    assert ask(entry) == entry["pid"]
    assert directory.is_running()
    started.stop()
    assert_nothing_is_left(directory, marker)


@pytest.mark.parametrize("victim", ["supervisor", "reaper", "raylet"])
def test_whoever_is_killed_nothing_is_left(victim: str) -> None:
    started = start_tiny("killed", 1)
    directory = started.directory
    wait_ready(started)
    marker = marker_of(directory)
    supervisor = supervisor_of(directory)
    if victim == "supervisor":
        os.kill(supervisor, signal.SIGKILL)
    elif victim == "reaper":
        os.kill(started.pid, signal.SIGKILL)
    else:
        kill_ray(supervisor, "raylet")  # nothing would ever be started again: the cluster ends and says why
    status = started.wait(WAIT_S_MAX)
    assert status != 0
    assert_nothing_is_left(directory, marker)


STARTER = """
import sys, time
from test_cluster import start_tiny
started = start_tiny("orphan", 1)
print("launched", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("moment", ["while starting", "when ready"])
def test_a_starter_that_dies_takes_its_cluster_with_it(moment: str) -> None:
    with subprocess.Popen([sys.executable, "-c", STARTER], stdout=subprocess.PIPE) as starter:
        assert starter.stdout is not None
        starter.stdout.readline()
        directory = RunDirectory("orphan")
        marker = marker_of(directory)
        wanted = "starting" if moment == "while starting" else "ready"
        wait_until(lambda: any(event["event"] == wanted for event in events(directory)))
        starter.kill()
    assert_nothing_is_left(directory, marker)


def test_a_detached_cluster_outlives_its_starter_and_a_crash_of_everything_is_cleaned_up() -> None:
    script = STARTER.replace("time.sleep(600)", "started.detach()")
    subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.DEVNULL)
    directory = RunDirectory("orphan")
    marker = marker_of(directory)
    wait_until(lambda: any(event["event"] == "ready" for event in events(directory)))

    # Kill reaper and supervisor in one breath: nobody is left to clean up, so the next claim of the name does.
    supervisor = supervisor_of(directory)
    with open(f"/proc/{supervisor}/stat", "rb") as file:
        parent = int(file.read().rpartition(b")")[2].split()[1])
    os.kill(parent, signal.SIGSTOP)
    os.kill(supervisor, signal.SIGKILL)
    os.kill(parent, signal.SIGKILL)
    wait_until(lambda: not directory.is_running())
    assert directory.path.exists()
    taken = claim("orphan")
    assert not reaper.marked_processes(marker)
    assert not directory.state.exists()
    directory.remove()
    taken.release()
