"""Named places on the way of a commit where a drill may have the process killed, its clock moved, its state changed.

Only a cluster that was started with FLASHBLOCKS_FAULT_POINTS=DIRECTORY in its environment has them (a drill's own
cluster is); elsewhere each place is one comparison. A drill arms a place for one process by making the file
``DIRECTORY/<pid>.<place>``, which is removed when it fires, and moves a process's wall clock by writing seconds to
``DIRECTORY/<pid>.clock``. While ``DIRECTORY/<pid>.diverges`` exists, a builder's state is not the others'.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

VARIABLE = "FLASHBLOCKS_FAULT_POINTS"
CLOCK = "clock"
DIVERGES = "diverges"
DIVERGED_ACCOUNT, DIVERGED_WEI = b"\xdd" * 20, 1
CLOCK_READ_PERIOD_S = 0.02

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


class ShiftedClock:
    """`time.time` of a process whose clock a drill may move; it reads the file at most every 20 ms."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._real, self._monotonic = time.time, time.monotonic
        self._read_at = float("-inf")
        self._offset_s = 0.0

    def __call__(self) -> float:
        """Seconds since the epoch, as this process believes."""
        now = self._monotonic()
        if now - self._read_at > CLOCK_READ_PERIOD_S:
            self._read_at = now
            try:
                self._offset_s = float(self._path.read_text() or 0)
            except (OSError, ValueError):
                self._offset_s = 0.0
        return self._real() + self._offset_s


def let_the_clock_be_moved() -> None:
    """Put a movable clock in the place of this process's; does nothing outside a drill's cluster."""
    if _directory:
        time.time = ShiftedClock(Path(_directory) / f"{os.getpid()}.{CLOCK}")
