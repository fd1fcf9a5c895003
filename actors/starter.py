"""Starts a cluster in the background: claims its name, chooses its ports, and launches reaper and supervisor.

The starter (the ``flashblocks`` command) stays light: it imports neither Ray nor the EVM.  What it decided is handed
to the supervisor as files in the run directory.  The supervisor reads the starter's life from a pipe: end of file
without the word ``detach`` means that the starter died, and ends the cluster.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from actors import reaper
from actors.data_directory import write_secret
from actors.free_ports import is_free
from actors.plan import ClusterOptions, ComponentPlan, build_plan
from actors.ports import ClusterPorts, choose_ports
from actors.ray_environment import ray_environment
from actors.run_directory import (
    MARKER_VARIABLE,
    Claim,
    RunDirectory,
    RunState,
    claim,
    clean_after_crash,
    ports_of_running_clusters,
    run_root,
)

DETACH_WORD = b"detach"
STOP_S_MAX = 20.0
KILL_S_MAX = 10.0
STOP_POLL_S = 0.05
RAY_TOKEN_FILE = "ray-token"


class StartOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the supervisor needs to know (``options.json``)."""

    options: ClusterOptions
    plan: list[ComponentPlan]
    data_dir: str
    command_at: float  # when the user's command began, seconds since the epoch
    prepare_chain: bool = True


class Started:
    """A launched cluster, seen from its starter."""

    def __init__(self, directory: RunDirectory, process: subprocess.Popen[bytes], alive: int) -> None:
        self.directory = directory
        self._process = process
        self._alive: int | None = alive

    @property
    def detached(self) -> bool:
        """Whether the cluster was told to live on without us."""
        return self._alive is None

    def detach(self) -> None:
        """Let the cluster live on after us."""
        if self._alive is not None:
            os.write(self._alive, DETACH_WORD)
            os.close(self._alive)
            self._alive = None

    @property
    def pid(self) -> int:
        """The reaper's process number."""
        return self._process.pid

    def wait(self, timeout_s: float) -> int:
        """Wait for the end; returns the supervisor's exit status."""
        return self._process.wait(timeout_s)

    def has_ended(self) -> bool:
        """Whether supervisor and reaper are gone and everything is cleaned up."""
        return self._process.poll() is not None

    def stop(self) -> None:
        """End the cluster and wait until nothing of it is left."""
        if self.has_ended():  # another cluster may have the name by now
            return
        stop(self.directory)
        self._process.wait(KILL_S_MAX)


def start(options: ClusterOptions, data_dir: Path | None, command_at: float) -> Started:
    """Launch a cluster and return at once; its progress is in ``RunDirectory.progress``.

    Raises `OptionsError`, `AlreadyRunning`, `NoFreePorts`, `PermissionError`.
    """
    options.check()
    taken = claim(options.name)
    temporary = data_dir is None
    data = (data_dir or taken.directory.temporary_data).absolute()
    try:
        ports = _promise_ports(taken, options, data, temporary)
        plan = build_plan(options, ports, data)
        order = StartOrder(options=options, plan=plan, data_dir=str(data), command_at=command_at)
        return launch(taken, order, [] if temporary else [data / "endpoints.json"])
    except BaseException:
        taken.directory.remove()
        raise
    finally:
        taken.release()


def _promise_ports(taken: Claim, options: ClusterOptions, data_dir: Path, temporary: bool) -> ClusterPorts:
    """Choose free ports and write them down before another starter can choose the same."""
    with _ports_lock():
        ports = choose_ports(
            groups=options.groups,
            proxies=options.proxies,
            rpc_nodes=options.rpc_nodes,
            ingresses=options.ingresses,
            usual_first=options.name == ClusterOptions().name,
            taken=ports_of_running_clusters(),
            is_free=lambda port: is_free(options.host, port),
        )
        write_state(taken, data_dir, temporary, ports.every())
    return ports


def write_state(taken: Claim, data_dir: Path, temporary: bool, ports: Sequence[int]) -> None:
    """Write the run's first ``state.json``; the supervisor adds its pid."""
    state = RunState(
        name=taken.directory.name,
        marker=taken.marker,
        supervisor_pid=0,
        started_at=time.time(),
        data_dir=str(data_dir),
        temporary_data=temporary,
        ports=tuple(ports),
    )
    taken.directory.state.write_bytes(msgspec.json.encode(state))


def launch(taken: Claim, order: StartOrder, remove_at_end: Sequence[Path] = ()) -> Started:
    """Start the reaper, which starts the supervisor, for a claimed name whose state is written."""
    directory = taken.directory
    directory.options.write_bytes(msgspec.json.encode(order))
    token = directory.path / RAY_TOKEN_FILE
    write_secret(token)
    environment = {
        **os.environ,
        **ray_environment(len(order.plan), token),
        MARKER_VARIABLE: taken.marker,
    }
    read_end, write_end = os.pipe()
    removed = [str(path) for path in (*remove_at_end, directory.path)]
    command = [
        *(sys.executable, "-I", "-S", reaper.__file__, "--lock", str(taken.descriptor), "--alive", str(read_end)),
        *(part for path in removed for part in ("--remove", path)),
        *("--", sys.executable, "-P", "-m", "actors.supervisor"),
        *(directory.name, str(taken.descriptor), str(read_end)),
    ]
    with open(directory.supervisor_log, "ab") as log:
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            pass_fds=(taken.descriptor, read_end),
        )
    os.close(read_end)
    return Started(directory, process, write_end)


def stop(directory: RunDirectory) -> bool:
    """End the cluster of *directory* and wait until nothing of it is left; False when none was running.

    First asks (SIGTERM), then kills the supervisor, whose reaper ends the rest; what a dead reaper left is ended here.
    """
    if not directory.is_running():
        clean_after_crash(directory)
        return False
    state = directory.read_state()
    marker = f"{MARKER_VARIABLE}={state.marker}" if state is not None else ""
    for number, patience_s in ((signal.SIGTERM, STOP_S_MAX), (signal.SIGKILL, KILL_S_MAX)):
        deadline = time.monotonic() + patience_s
        signalled = False
        while directory.is_running() and time.monotonic() < deadline:
            signalled = signalled or _signal_supervisor(directory, number)
            time.sleep(STOP_POLL_S)
    clean_after_crash(directory)
    deadline = time.monotonic() + KILL_S_MAX
    while marker and reaper.marked_processes(marker) and time.monotonic() < deadline:
        time.sleep(STOP_POLL_S)  # the reaper is on its last lines
    return True


def _signal_supervisor(directory: RunDirectory, number: signal.Signals) -> bool:
    """Send *number* to the supervisor; False while its pid is not known yet."""
    state = directory.read_state()
    if state is None or state.supervisor_pid == 0:
        return False
    # Never signal a stranger that was given the number since: the process must carry the run's marker.
    if state.supervisor_pid in reaper.marked_processes(f"{MARKER_VARIABLE}={state.marker}"):
        os.kill(state.supervisor_pid, number)
    return True


@contextmanager
def _ports_lock() -> Iterator[None]:
    """One starter at a time chooses ports; the lock is on the root directory itself, so no file is left."""
    descriptor = os.open(run_root(), os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
