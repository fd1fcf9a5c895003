"""What a crash or a bad disk leaves: the end of a log torn off, bytes altered, everything gone.

The processes are stopped while their files are hurt and killed right after, so they come up on what was left.
"""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

from chaos.faults import Fault, Victim, all_back, send_signal
from chaos.history import Event
from chaos.signalling import signal_process
from chaos.target import DrillError, Target

TORN_BYTES = 37
"""More than a record's header, less than any record: what is torn is the last one, in its middle."""
ALTERED_MASK = 0x5A

Hurt = Callable[[Path], None]


class Damage(Fault):
    """Some actors of a group, killed, with their files hurt before they come back."""

    def __init__(self, target: Target, kind: str, hurt: Sequence[Victim], how: Hurt) -> None:
        self.kind, self.victims = kind, list(hurt)
        self._target, self._how = target, how
        self._stopped: list[int] = []

    async def inject(self) -> None:
        """Stop, hurt the files, kill; raises DrillError when there is nothing to be hurt."""
        data_dir = Path(self._target.endpoints()["data_dir"])
        for victim in self.victims:
            send_signal(victim.pid, signal.SIGSTOP)
            self._stopped.append(victim.pid)
        for victim in self.victims:
            self._how(data_dir / victim.group / victim.actor)
        for victim in self.victims:
            send_signal(victim.pid, signal.SIGKILL)
        self._stopped.clear()

    async def recovered(self, run: int) -> list[Event]:
        """Wait until they are back and level."""
        return await all_back(self._target, {victim: victim.pid for victim in self.victims}, run)

    def abandon(self) -> None:
        """Wake whoever is stopped."""
        for pid in self._stopped:
            signal_process(pid, signal.SIGCONT)
        self._stopped.clear()


def tear(directory: Path) -> None:
    """The last record that was written was not written whole."""
    log = newest_log(directory)
    content = log.read_bytes()
    used = len(content.rstrip(b"\0"))
    with open(log, "r+b") as file:
        if used == len(content):
            file.truncate(max(0, used - TORN_BYTES))
        else:  # preallocated: what was not written is zero
            file.seek(max(0, used - TORN_BYTES))
            file.write(bytes(TORN_BYTES))


def alter(directory: Path) -> None:
    """One byte in the middle of what was written is another one."""
    log = newest_log(directory)
    used = len(log.read_bytes().rstrip(b"\0"))
    with open(log, "r+b") as file:
        file.seek(used // 2)
        (byte,) = file.read(1)
        file.seek(used // 2)
        file.write(bytes([byte ^ ALTERED_MASK]))


def wipe(directory: Path) -> None:
    """A new, empty machine."""
    for entry in directory.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def newest_log(directory: Path) -> Path:
    """The segment of a journal or chain store that was written last; raises DrillError when there is none.

    Both number their files; of those in use, the one with the largest number is what a crash would have hurt.
    """
    segments = [path for path in directory.rglob("*") if path.is_file() and path.suffix in (".log", ".segment")]
    written = [path for path in segments if path.read_bytes().strip(b"\0")]
    if not written:
        raise DrillError(f"nothing to be hurt in {directory}")
    return max(written, key=lambda path: path.name)
