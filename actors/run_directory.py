"""Where a running cluster keeps its temporary files, and who owns them.

``/tmp/flashblocks-<uid>/<name>/`` (mode 0700) exists while the cluster runs.  Its ``lock`` file is held (flock) by the
supervisor and its reaper for as long as either lives, so the kernel itself says whether a cluster is alive: a
directory whose lock is free is what a crash or a power loss left behind.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from actors.reaper import end_marked_processes, remove_path

ROOT_VARIABLE = "FLASHBLOCKS_RUN_ROOT"  # for tests, and for machines without /tmp
MARKER_VARIABLE = "FLASHBLOCKS_RUN"  # in the environment of every process of a cluster
RAY_SOCKET_PATH_BYTES_MAX = 107
RAY_SOCKET_SUFFIX_BYTES = 68  # /session_<date>_<time>_<us>_<pid>/sockets/plasma_store
CLAIM_TRIES_MAX = 20
CLAIM_PAUSE_S = 0.05


class RunState(msgspec.Struct, frozen=True, kw_only=True):
    """What a cluster's supervisor says about itself (``state.json``)."""

    name: str
    marker: str
    supervisor_pid: int
    started_at: float  # seconds since the epoch
    data_dir: str
    temporary_data: bool
    ports: tuple[int, ...]
    ray_address: str = ""  # of the Ray cluster it lives in; empty: a Ray of its own on this machine
    keeper_urls: tuple[str, ...] = ()  # on many hosts: where to ask for endpoints.json


class AlreadyRunning(Exception):
    """A cluster of this name is alive."""

    def __init__(self, name: str) -> None:
        super().__init__(f"a cluster named {name!r} is running; stop it with: flashblocks down --name {name}")


class RunDirectory:
    """The paths of one cluster's run directory."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = run_root() / name
        self.lock = self.path / "lock"
        self.state = self.path / "state.json"
        self.options = self.path / "options.json"
        self.progress = self.path / "progress.jsonl"
        self.endpoints = self.path / "endpoints.json"
        self.supervisor_log = self.path / "supervisor.log"
        self.notes = self.path / "notes"
        self.ray = self.path / "r"
        self.temporary_data = self.path / "data"

    def read_state(self) -> RunState | None:
        """The supervisor's own words, or None when there are none (yet)."""
        try:
            return msgspec.json.decode(self.state.read_bytes(), type=RunState)
        except (OSError, msgspec.DecodeError):
            return None

    def is_joined(self) -> bool:
        """Whether the cluster lives on many hosts, in a Ray that is not its own."""
        state = self.read_state()
        return state is not None and bool(state.ray_address)

    def is_running(self) -> bool:
        """Whether a supervisor or its reaper is alive, asked of the kernel.

        A cluster on many hosts runs until it is ended by command: no process of this machine stands for it.
        """
        if self.is_joined():
            return True
        return is_locked(self.lock)

    def remove(self) -> None:
        """Remove the directory, and the root with it when this was the last cluster."""
        remove_path(str(self.path))


def is_locked(path: Path) -> bool:
    """Whether a living process holds this lock file: the kernel's word, which no crash outlives."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


class Claim:
    """The right to run a cluster of one name: an open, locked file that is handed to the supervisor."""

    def __init__(self, directory: RunDirectory, descriptor: int) -> None:
        self.directory = directory
        self.descriptor = descriptor
        self.marker = secrets.token_hex(8)

    def release(self) -> None:
        """Give our copy of the lock up; the supervisor's keeps the claim."""
        os.close(self.descriptor)


def run_root() -> Path:
    """The directory of all run directories of this user."""
    return Path(os.environ.get(ROOT_VARIABLE) or f"/tmp/flashblocks-{os.getuid()}")


def claim(name: str) -> Claim:
    """Take the name for a new cluster, cleaning up after one that crashed.

    Raises `AlreadyRunning`, and `PermissionError` when the root directory is somebody else's.
    """
    directory = RunDirectory(name)
    _check_socket_paths(directory)
    for _ in range(CLAIM_TRIES_MAX):
        try:
            _make_private(directory.path.parent)
            _make_private(directory.path)
            descriptor = _lock(directory.lock)
        except FileNotFoundError:  # the last cluster's reaper is removing the root just now
            continue
        if descriptor is not None:
            if directory.is_joined():
                os.close(descriptor)
                break
            _end_processes(directory)
            _empty(directory)
            return Claim(directory, descriptor)
        time.sleep(CLAIM_PAUSE_S)  # it may only be ending, or somebody only asks whether it runs
    raise AlreadyRunning(name)


def _lock(path: Path) -> int | None:
    """An exclusively locked descriptor of *path*, or None when it is held or was just removed."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The reaper removes the file while holding it: a lock on a removed file protects nothing.
        if os.stat(path).st_ino == os.fstat(descriptor).st_ino:
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return None


def clean_after_crash(directory: RunDirectory) -> int:
    """End the processes and remove the files a dead cluster left; does nothing to a living one.

    Returns how many processes were ended.
    """
    descriptor = _lock(directory.lock) if directory.path.is_dir() and not directory.is_joined() else None
    if descriptor is None:
        return 0
    try:
        ended = _end_processes(directory)
        directory.remove()
        return ended
    finally:
        os.close(descriptor)


def _end_processes(directory: RunDirectory) -> int:
    state = directory.read_state()
    return end_marked_processes(f"{MARKER_VARIABLE}={state.marker}") if state is not None else 0


def _empty(directory: RunDirectory) -> None:
    """Remove everything but the lock, which the caller holds."""
    for entry in directory.path.iterdir():
        if entry == directory.lock:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)


def all_runs() -> Iterator[RunDirectory]:
    """The run directories of this user, alive or not, by name."""
    try:
        names = sorted(entry.name for entry in run_root().iterdir() if entry.is_dir())
    except OSError:
        return
    for name in names:
        yield RunDirectory(name)


def ports_of_running_clusters() -> frozenset[int]:
    """The ports promised to clusters that are alive, bound or not yet."""
    states = [run.read_state() for run in all_runs() if run.is_running()]
    return frozenset(port for state in states if state is not None for port in state.ports)


def _make_private(path: Path) -> None:
    path.mkdir(mode=0o700, exist_ok=True)
    info = path.lstat()
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid() or info.st_mode & 0o077:
        raise PermissionError(f"{path} must be a directory of your own with mode 0700")


def _check_socket_paths(directory: RunDirectory) -> None:
    length = len(os.fsencode(directory.ray)) + RAY_SOCKET_SUFFIX_BYTES
    if length > RAY_SOCKET_PATH_BYTES_MAX:
        raise PermissionError(
            f"{directory.ray} is too long by {length - RAY_SOCKET_PATH_BYTES_MAX} bytes for the sockets in it; "
            f"set {ROOT_VARIABLE} to a shorter directory or use a shorter --name"
        )
