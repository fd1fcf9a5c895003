"""What a drill may do inside a process: kill it at a named place of a commit, move its clock, slow its disk down.

Only a cluster that was started with FLASHBLOCKS_FAULT_POINTS=DIRECTORY in its environment has them (a drill's own
cluster is); elsewhere each place is one comparison. A drill arms a place for one process by making the file
``DIRECTORY/<pid>.<place>``, which is removed when it fires. Seconds in ``DIRECTORY/<pid>.clock`` are added to the wall
clock, seconds in ``<pid>.slow-disk`` to every write of a journal or store; while ``<pid>.diverges`` exists, a builder's
state is not the others'.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec

P = ParamSpec("P")
VARIABLE = "FLASHBLOCKS_FAULT_POINTS"
CLOCK = "clock"
DIVERGES = "diverges"
DIVERGED_ACCOUNT, DIVERGED_WEI = b"\xdd" * 20, 1
SLOW_DISK = "slow-disk"
DIAL_READ_PERIOD_S = 0.02

BEFORE_APPEND = "before-append"
BEFORE_PUBLISH = "before-publish"
AFTER_PUBLISH = "after-publish"
BEFORE_SEAL = "before-seal"
DURING_SEAL = "during-seal"
BEFORE_INSERT = "before-insert"
PLACES = {
    BEFORE_APPEND: "conductor",
    BEFORE_PUBLISH: "conductor",
    AFTER_PUBLISH: "conductor",
    BEFORE_SEAL: "op-node",
    DURING_SEAL: "conductor",
    BEFORE_INSERT: "op-node",
}
"""Place → the actor that passes it: a flashblock is offered, committed, published; a block is sealed by the builder,
committed as the ledger's, and not yet inserted."""

_directory = os.environ.get(VARIABLE, "")


def reach(place: str) -> None:
    """The process is at a place: it dies here, as by SIGKILL, if a drill has armed it."""
    if _directory:
        armed = Path(_directory) / f"{os.getpid()}.{place}"
        if armed.exists():
            armed.unlink()
            os.kill(os.getpid(), signal.SIGKILL)


def diverge(mint: Callable[[bytes, int], None]) -> None:
    """While it is armed, what is built next is built on a state in which one account has a wei too much."""
    if _directory and (Path(_directory) / f"{os.getpid()}.{DIVERGES}").exists():
        mint(DIVERGED_ACCOUNT, DIVERGED_WEI)


def arm(directory: Path, pid: int, place: str) -> Path:
    """Arm a place for one process; returns the file to remove if it should not fire after all."""
    armed = directory / f"{pid}.{place}"
    armed.touch()
    return armed


class Dial:
    """A number that a drill writes into a file; read at most every 20 ms, 0.0 where there is none."""

    def __init__(self, path: Path, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._path, self._monotonic = path, monotonic
        self._read_at = float("-inf")
        self._value = 0.0

    def read(self) -> float:
        """The number as it was not long ago."""
        now = self._monotonic()
        if now - self._read_at > DIAL_READ_PERIOD_S:
            self._read_at = now
            try:
                self._value = float(self._path.read_text())
            except (OSError, ValueError):
                self._value = 0.0
        return self._value


def fit_dials() -> None:
    """Let drills move this process's wall clock and slow its writes to disk down; nothing outside a drill's cluster."""
    if _directory:
        own = Path(_directory) / str(os.getpid())
        time.time = shifted(time.time, Dial(own.with_suffix(f".{CLOCK}")))
        slow = Dial(own.with_suffix(f".{SLOW_DISK}"))
        os.pwrite, os.pwritev = slowed(os.pwrite, slow), slowed(os.pwritev, slow)


def shifted(clock: Callable[[], float], offset_s: Dial) -> Callable[[], float]:
    """A clock that is so many seconds off."""
    return lambda: clock() + offset_s.read()


def slowed(write: Callable[P, int], delay_s: Dial) -> Callable[P, int]:
    """A write that takes so many seconds longer, as one to a disk that is busy with something else."""

    def write_slowly(*args: P.args, **kwargs: P.kwargs) -> int:
        delay = delay_s.read()
        if delay > 0:
            time.sleep(delay)
        return write(*args, **kwargs)

    return write_slowly
