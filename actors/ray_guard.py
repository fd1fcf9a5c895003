"""Keeps Ray running on one host: starts it, waits, and starts it again when it ended unasked.

    python -P -m actors.ray_guard RUN_FILE

A raylet that was cut off from the head for too long ends itself, and so does all that runs on its host; a host that
was switched off has nobody to start Ray when it is back.  The guard adopts Ray's processes (PR_SET_CHILD_SUBREAPER),
so it knows how they ended.  ``ray stop`` ends a raylet politely (SIGTERM, status 0): then the guard goes too.  Every
other end is an accident: what is left of that Ray is killed, so that no port stays taken, and Ray is started anew –
but for a head without a storage, which would not know its hosts any more and would have them end everything.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from actors.data_directory import write_private
from actors.open_files import raise_limit
from actors.ray_host import shown
from actors.reaper import PR_SET_CHILD_SUBREAPER, descendants, end_descendants
from actors.run_directory import is_locked

ROOT = "~/.flashblocks"
ESSENTIAL = ("raylet", "gcs_server")
POLITE_STATUS = (0, -signal.SIGTERM)
AGAIN_PAUSE_S = 2.0
START_S_MAX = 120.0
STOP_S_MAX = 15.0
POLL_S = 0.2
PRIVATE_MODE = 0o600
PRIVATE_DIRECTORY_MODE = 0o700
STARTING, RUNNING = "starting", "running"


class GuardOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What a guard has to run."""

    command: list[str]
    environment: dict[str, str]
    again: bool = True  # start it again when it ended unasked


class GuardFiles:
    """The files of the guard of one host address; in the home directory, where the token is too."""

    def __init__(self, address: str) -> None:
        root = Path(ROOT).expanduser()
        self.root = root
        self.lock = root / f"ray-{address}.lock"
        self.order = root / f"ray-{address}.json"
        self.log = root / f"ray-{address}.log"

    def make_root(self) -> None:
        """The root exists, and nobody else can look into it: a virtual environment may have been there first."""
        self.root.mkdir(mode=PRIVATE_DIRECTORY_MODE, parents=True, exist_ok=True)
        self.root.chmod(PRIVATE_DIRECTORY_MODE)

    def open_log(self) -> int:
        """A descriptor to append to the log, which its owner alone can read."""
        descriptor = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, PRIVATE_MODE)
        os.fchmod(descriptor, PRIVATE_MODE)  # of an older version's, too
        return descriptor

    def read_order(self) -> GuardOrder | None:
        """What the guard has to run, None when there is none."""
        try:
            return msgspec.json.decode(self.order.read_bytes(), type=GuardOrder)
        except OSError:
            return None

    def guard(self) -> tuple[int, bool] | None:
        """The pid of the living guard and whether Ray runs; None when there is none: the lock is the kernel's word."""
        try:
            if not is_locked(self.lock):
                return None
            pid, state = (self.lock.read_text() or f"0 {STARTING}").split()
        except FileNotFoundError:  # it ended in between
            return None
        return int(pid), state == RUNNING

    def take(self) -> int | None:
        """The descriptor of the lock, ours now; None when another guard has it."""
        descriptor = os.open(self.lock, os.O_RDWR | os.O_CREAT, PRIVATE_MODE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, state_text(STARTING), 0)
        return descriptor


def guarded_addresses() -> list[str]:
    """The addresses of this host on which a guard of this user keeps Ray running."""
    locks = sorted(Path(ROOT).expanduser().glob("ray-*.lock"))
    return [lock.stem.removeprefix("ray-") for lock in locks if is_locked(lock)]


class Guard:
    """One guard: `run` returns when Ray was ended on purpose."""

    def __init__(self, order: GuardOrder, lock: int) -> None:
        self._order = order
        self._lock = lock
        self._stopping = False

    def run(self) -> None:
        """Start Ray, for ever."""
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        raise_limit()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        while not self._stopping:
            end_descendants()
            if self._start() and self._wait_for_end():
                break
            if not self._order.again:
                _say("Ray's head has lost the cluster's directory: one without it would end the actors of every host")
                break
            _say("Ray is not running; starting it again")
            time.sleep(AGAIN_PAUSE_S)
        self._end()

    def _stop(self, *_: Any) -> None:
        self._stopping = True

    def _start(self) -> bool:
        """Run the command; whether Ray runs now."""
        _say(shown(self._order.command))
        environment = {**os.environ, **self._order.environment}
        try:
            starting = subprocess.Popen(self._order.command, env=environment, stdin=subprocess.DEVNULL)
        except OSError as error:
            _say(f"cannot start Ray: {error}")
            return False
        deadline = time.monotonic() + START_S_MAX
        while starting.poll() is None and not self._stopping:
            if time.monotonic() > deadline:
                _say(f"Ray did not start within {START_S_MAX:.0f} s")
                break
            time.sleep(POLL_S)
        is_running = starting.returncode == 0 and bool(essential_children())
        self._say_state(RUNNING if is_running else STARTING)
        return is_running

    def _say_state(self, state: str) -> None:
        os.pwrite(self._lock, state_text(state), 0)

    def _wait_for_end(self) -> bool:
        """Wait until an essential process of Ray has ended; whether that was on purpose."""
        watched = essential_children()
        while not self._stopping:
            for pid, status in _collected():
                if pid in watched:
                    code = os.waitstatus_to_exitcode(status)
                    _say(f"{watched[pid]} (pid {pid}) ended with status {code}")
                    self._say_state(STARTING)
                    return code in POLITE_STATUS
            time.sleep(POLL_S)
        return True

    def _end(self) -> None:
        """End what is left of Ray: politely, then for good."""
        for pid in essential_children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_S_MAX
        while essential_children() and time.monotonic() < deadline:
            for _ in _collected():
                pass
            time.sleep(POLL_S)
        end_descendants()
        _say("Ray was ended")


def essential_children() -> dict[int, str]:
    """The processes below this one without which Ray does not work, by pid."""
    found = {}
    for pid in descendants(os.getpid()):
        try:
            name = Path(f"/proc/{pid}/comm").read_text().strip()
        except OSError:
            continue
        if name in ESSENTIAL:
            found[pid] = name
    return found


def _collected() -> list[tuple[int, int]]:
    """The (pid, wait status) of every child that has ended since."""
    found: list[tuple[int, int]] = []
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if pid == 0:
            return found
        found.append((pid, status))


def state_text(state: str) -> bytes:
    """What a guard writes into its lock file; of one length, so that it may be overwritten at once."""
    return f"{os.getpid()} {state:<{len(STARTING)}}".encode()


def _say(text: str) -> None:
    print(time.strftime("%Y-%m-%dT%H:%M:%S"), text, flush=True)


def launch(files: GuardFiles, order: GuardOrder) -> subprocess.Popen[bytes]:
    """Start a guard in the background."""
    _write_order(files, order)
    log = files.open_log()
    try:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "actors.ray_guard", str(files.order)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    finally:
        os.close(log)


def become(files: GuardFiles, order: GuardOrder) -> int:
    """Be the guard, in the foreground; another guard that lives is waited for.

    Returns 0 when Ray was ended on purpose, by that other guard too: a guard that ended in order leaves no order
    behind; whose order still lies there was killed, and its place is taken.
    """
    while True:
        if files.guard() is not None:
            _say("another guard keeps Ray running here; waiting for its end")
            while files.guard() is not None:
                time.sleep(POLL_S)
            if not files.order.exists():
                return 0
        _write_order(files, order)
        if main([str(files.order)]) == 0:
            return 0


def _write_order(files: GuardFiles, order: GuardOrder) -> None:
    files.make_root()
    write_private(files.order, msgspec.json.encode(order))  # a Redis password may be in it


def main(arguments: Sequence[str]) -> int:
    """Guard what the file says; 1 when another guard does."""
    path = Path(arguments[0])
    files = GuardFiles(path.stem.removeprefix("ray-"))
    descriptor = files.take()
    if descriptor is None:
        return 1
    order = msgspec.json.decode(path.read_bytes(), type=GuardOrder)
    try:
        Guard(order, descriptor).run()
    finally:
        for file in (files.order, files.lock):
            file.unlink(missing_ok=True)
        os.close(descriptor)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
