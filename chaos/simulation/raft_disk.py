"""A member's memory that outlives its process: term, vote, log and snapshot; kept as Raft prescribes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec

from raft.commands import Command

LogEntry = tuple[int, Command | None]
"""(term, command); None is the entry with which a leader begins."""


class AppendEntries(msgspec.Struct, frozen=True):
    """Raft's AppendEntries; without entries a sign of life."""

    term: int
    leader: str
    previous: int
    previous_term: int
    entries: tuple[LogEntry, ...]
    commit: int


@dataclass(slots=True)
class RaftDisk:
    """What survives a crash. `log[0]` is the entry at `first`; all before it is in `snapshot`."""

    term: int = 0
    voted_for: str = ""
    first: int = 1
    log: list[LogEntry] = field(default_factory=list)
    snapshot: tuple[int, int, bytes] | None = None
    """(index, term, the ledger's bytes)."""
    rejoining: bool = False
    """The journal was lost: what was acknowledged before is unknown."""

    def lose(self) -> None:
        """The journal is damaged and put aside."""
        self.term, self.voted_for, self.first, self.snapshot, self.rejoining = 0, "", 1, None, True
        self.log.clear()

    @property
    def last_index(self) -> int:
        """Index of the newest entry."""
        return self.first + len(self.log) - 1

    @property
    def last_term(self) -> int:
        """Term of the newest entry."""
        return self.term_at(self.last_index) or 0

    def term_at(self, index: int) -> int | None:
        """Term of an entry; None where it is neither in the log nor the snapshot's last."""
        if index == 0:
            return 0
        if 0 <= index - self.first < len(self.log):
            return self.log[index - self.first][0]
        if self.snapshot is not None and self.snapshot[0] == index:
            return self.snapshot[1]
        return None

    def merge(self, agreed: int, entries: Sequence[LogEntry], committed: int) -> int:
        """Take entries in after `agreed`, cutting only at a real conflict; the index up to which both logs agree now.

        What is committed is never cut: the assertion would be our bug, or that of a mutant.
        """
        for entry in entries:
            position = agreed + 1 - self.first
            if position < len(self.log) and self.log[position][0] != entry[0]:
                assert agreed + 1 > committed, "a committed entry is about to be cut"
                del self.log[position:]
            if position >= len(self.log):
                self.log.append(entry)
            agreed += 1
        return agreed

    def compact(self, applied: int, trailing: int, snapshot: Callable[[], bytes]) -> None:
        """Replace what is applied, but for a tail, by a snapshot."""
        keep_from = applied - trailing
        if keep_from <= self.first:
            return
        term = self.term_at(applied)
        assert term is not None
        self.snapshot = (applied, term, snapshot())
        del self.log[: keep_from - self.first]
        self.first = keep_from

    def install(self, snapshot: tuple[int, int, bytes]) -> None:
        """Take a leader's snapshot instead of what is older; what follows on it stays."""
        index, term, _ = snapshot
        if self.term_at(index) == term:
            del self.log[: index + 1 - self.first]
        else:
            self.log.clear()
        self.first, self.snapshot = index + 1, snapshot
