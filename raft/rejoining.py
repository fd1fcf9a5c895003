"""What a member does whose disk does not know what it acknowledged and voted: it takes no part in elections at first.

Its journal was damaged and put aside, or its disk is empty: new, or lost. The disk cannot tell a member that was never
there from one that forgot, so an empty one counts as forgetful, too. Three rules bring such a member back:

- Until it knows a term in which, or after which, all its votes were, it hears no leader: a leader of an earlier term
  than those votes could otherwise count it for a majority against the one it had helped to elect. So many others are
  asked that every majority it ever belonged to has one of them in it. (A journal put aside leaves the vote behind.)
- It votes, and stands for election, once it is level with a leader that has committed in its own term: then whatever
  was acknowledged here before is back.
- Or once every other member has said that its log is empty as well: then nothing was ever acknowledged, and this is the
  first start of the whole group. It needs all members, once; a majority would not do, as members that lost their disks
  could pass for such that never had anything.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from raft.elections import prevote_retry_s
from raft.journal import REJOINING_FILE, Journal, replace_file
from raft.replication import Message, term_at
from raft.settings import RaftSettings
from raft.transport import Peer, Transport

if TYPE_CHECKING:
    from raft.membership import Membership

EMPTY_LOG_INDEX: Final = 1
"""The entry that every log begins with stands for nothing."""
HEARD_WITH_A_TERM: Final = ("append_entries", "higher_term")
"""What is not heard by a member that does not know in which terms it may have voted."""
WAITING_TOLD_ROUNDS: Final = 64
"""After so many rounds of questions, some 40 s, the log says again whom a member waits for."""

_log = logging.getLogger(__name__)


class Memory(msgspec.Struct, frozen=True):
    """One member's word: its term, the end of its log, and whether it knows all that it ever acknowledged."""

    term: int
    last_index: int
    whole: bool


class Memories:
    """What the others told, each its latest word."""

    def __init__(self) -> None:
        self._told: dict[str, Memory] = {}

    def hear(self, member: str, memory: Memory) -> None:
        """A member said this."""
        self._told[member] = memory

    def term(self, others: Collection[str]) -> int | None:
        """A term no earlier than any this member voted in; None while too few have told theirs.

        A majority that it belonged to has `majority - 1` of the others: all but fewer than so many must have spoken,
        and those who forgot do not count.
        """
        members = len(others) + 1
        needed = min(members - members // 2, len(others))
        if sum(self._told[name].whole for name in others if name in self._told) < needed:
            return None
        return self.highest_term()

    def highest_term(self) -> int:
        """The highest term anybody told, 0 if nobody did."""
        return max((memory.term for memory in self._told.values()), default=0)

    def all_empty(self, others: Collection[str]) -> bool:
        """Whether every other member has said that its log is empty."""
        return all(name in self._told and self._told[name].last_index <= EMPTY_LOG_INDEX for name in others)

    def silent(self, others: Collection[str]) -> list[str]:
        """Who has not said anything yet."""
        return sorted(set(others) - set(self._told))


def lacks_memory(directory: Path, journal: Journal) -> bool:
    """Whether the disk may have forgotten what this member acknowledged; from now on it says so itself."""
    marker = directory / REJOINING_FILE
    if not marker.exists() and (journal.fresh or not journal.knows_vote):
        replace_file(marker, [b"rejoining\n"])
    return marker.exists()


class Rejoining:
    """Mixed into the consensus: how a member without memory comes back. Runs on the Raft thread."""

    _settings: RaftSettings
    _journal: Journal
    _memories: Memories
    _memory_rounds: int
    transport: Transport
    membership: Membership
    rejoining: bool
    _SyncObj__raftElectionDeadline: float
    _SyncObj__raftCommitIndex: int
    _SyncObj__raftCurrentTerm: int
    _SyncObj__otherNodes: set[Any]
    _SyncObj__setCurrentTerm: Any

    def _begin_rejoining(self) -> None:
        self._memories, self._memory_rounds = Memories(), 0
        self.rejoining = lacks_memory(self._settings.data_dir, self._journal)

    def _others(self) -> set[str]:
        return set(self.membership.addresses) - {self._settings.node_id}

    def _ask_for_memories(self, now: float) -> None:
        """Ask all others what they know, again and again."""
        self._memory_rounds += 1
        self._SyncObj__raftElectionDeadline = now + random.uniform(*prevote_retry_s(self._memory_rounds))
        for node in self._SyncObj__otherNodes:
            self.transport.send(node, {"type": "ask_memory"})
        silent = self._memories.silent(self._others())
        if self._memory_rounds % WAITING_TOLD_ROUNDS == 0:
            _log.warning(
                "%s has an empty or a damaged disk and does not vote yet; not heard of: %s",
                self._settings.node_id,
                ", ".join(silent) or "nobody, but there is no leader to catch up with",
            )
        self._consider_memories()

    def _tell_memory(self, node: Peer) -> None:
        self.transport.send(
            node,
            {
                "type": "memory",
                "term": self._SyncObj__raftCurrentTerm,
                "last_log_index": self._journal.last_index,
                "whole": not self.rejoining,
            },
        )

    def _on_memory(self, node: Peer, message: Message) -> None:
        if self.rejoining:
            self._memories.hear(node.id, Memory(message["term"], message["last_log_index"], message["whole"]))
            self._consider_memories()

    def _consider_memories(self) -> None:
        others = self._others()
        term = self._memories.term(others)
        if term is not None and not self._journal.knows_vote:
            self._give_no_vote_up_to(term)
        empty = self._journal.last_index <= EMPTY_LOG_INDEX and self._memories.all_empty(others)
        if empty or not others:
            self._give_no_vote_up_to(self._memories.highest_term())
            self._end_rejoining()

    def _give_no_vote_up_to(self, term: int) -> None:
        """It may have been given already: it is stored as if it were."""
        self._SyncObj__setCurrentTerm(max(term, self._SyncObj__raftCurrentTerm), self._settings.node_id)

    def _consider_rejoined(self, message: Message) -> None:
        """After a leader's message: whether this member is level with it, and it has committed in its own term."""
        committed = self._SyncObj__raftCommitIndex
        if committed >= message["commit_index"] and term_at(self._journal, committed) == message["term"]:
            self._give_no_vote_up_to(message["term"])
            self._end_rejoining()

    def _end_rejoining(self) -> None:
        (self._settings.data_dir / REJOINING_FILE).unlink(missing_ok=True)
        self.rejoining = False
        for node in self._SyncObj__otherNodes:
            self._tell_memory(node)
