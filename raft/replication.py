"""Pure rules that repair what the consensus library does with replicated entries and votes.

PySyncObj cuts a follower's log wherever a message ends, even if the rest is the same log a little further on; it lets
a piece of a snapshot commit whatever log the follower has; and it has no pre-vote. These are small decisions over a
message and a log, so they are made here and tested as such.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol

import msgspec

LogEntry = tuple[bytes, int, int]
"""(command, index, term), as the library stores it."""

Message = dict[str, Any]


class Log(Protocol):
    """What is needed of a journal: a sequence of entries with consecutive indices."""

    def __len__(self) -> int:
        """Number of entries."""

    def __getitem__(self, position: int) -> LogEntry:
        """Entry at a position (not an index)."""


class Repair(msgspec.Struct, frozen=True):
    """What to do with an append message: hand `message` on; `keep_suffix`: do not cut the log after it."""

    message: Message
    keep_suffix: bool


_FIELDS: Final[dict[str, dict[str, type]]] = {
    "append_entries": {"term": int, "commit_index": int},
    "next_node_idx": {"term": int, "next_node_idx": int, "reset": bool, "success": bool},
    "request_vote": {"term": int, "last_log_index": int, "last_log_term": int},
    "response_vote": {"term": int},
    "timeout_now": {"term": int},
    "pre_vote": {"term": int, "last_log_index": int, "last_log_term": int, "round": int},
    "pre_vote_granted": {"round": int},
    "higher_term": {"term": int},
    "ask_memory": {},
    "memory": {"term": int, "last_log_index": int, "whole": bool},
}
"""Every message members exchange; `apply_command` (forwarding to the leader) is not among them on purpose."""


def well_formed(message: Message) -> bool:
    """Whether a decoded message is one of ours, with fields of the right types."""
    kind = message.get("type")
    fields = _FIELDS.get(kind) if isinstance(kind, str) else None
    if fields is None or not all(type(message.get(name)) is expected for name, expected in fields.items()):
        return False
    return kind != "append_entries" or _well_formed_append(message)


def _well_formed_append(message: Message) -> bool:
    if "transmission" in message:
        return False
    if "prevLogIdx" in message:
        entries = message.get("entries")
        return (
            isinstance(entries, list)
            and all(isinstance(message.get(name), int | None) for name in ("prevLogIdx", "prevLogTerm"))
            and all(_types(entry) == (bytes, int, int) for entry in entries)
        )
    serialized = message.get("serialized")
    return serialized is None or _types(serialized) == (bytes, bool, bool)


def _types(values: object) -> tuple[type, ...]:
    return tuple(type(value) for value in values) if isinstance(values, list | tuple) else ()


def term_at(log: Log, index: int) -> int | None:
    """Term of the entry with that index, or None if the log does not hold it."""
    position = index - log[0][1]
    if not 0 <= position < len(log):
        return None
    return log[position][2]


def repair_append(message: Message, log: Log) -> Repair:
    """Skip the entries the log already holds; cut only at a real conflict (Raft, section 5.3, receiver rule 3).

    What a majority has acknowledged must not vanish even for a moment: an old message, a retransmission of a part
    or a heartbeat with an older position must leave the log after it alone. The commit index of a message counts
    only up to where the message itself proves that both logs agree.
    """
    if "prevLogIdx" not in message:
        # A piece of a snapshot proves nothing about our log, yet the library would commit it as far as it goes.
        return Repair({**message, "commit_index": 0}, keep_suffix=False)
    previous, previous_term = message["prevLogIdx"], message["prevLogTerm"]
    if previous is None or "transmission" in message or term_at(log, previous) != previous_term:
        return Repair(message, keep_suffix=False)
    entries: Sequence[LogEntry] = message.get("entries") or ()
    known = 0
    while known < len(entries) and term_at(log, entries[known][1]) == entries[known][2]:
        known += 1
    if known:
        _, previous, previous_term = entries[known - 1]
        message = {**message, "prevLogIdx": previous, "prevLogTerm": previous_term, "entries": list(entries[known:])}
    if known < len(entries) or log[-1][1] == previous:
        return Repair(message, keep_suffix=False)
    if log[-1][2] == message["term"]:
        # The rest was written by the same leader, who never cuts its own log: it agrees up to our last entry.
        message = {**message, "prevLogIdx": log[-1][1], "prevLogTerm": log[-1][2]}
        return Repair(message, keep_suffix=False)
    return Repair({**message, "commit_index": min(message["commit_index"], previous)}, keep_suffix=True)


def as_good_as(last_term: int, last_index: int, log: Log) -> bool:
    """Whether a candidate's log is at least as complete as ours (Raft, section 5.4.1)."""
    return (last_term, last_index) >= (log[-1][2], log[-1][1])


def election_rank(self_id: str, leader: str, connected: set[str]) -> int:
    """Position of this node among the survivors of a leader: how many stand for election before it."""
    survivors = sorted((connected | {self_id}) - {leader})
    return survivors.index(self_id)


class PreVotes:
    """One node's pre-votes, asked for and given.

    A round is won by a majority, unless a leader was heard of since it began. A node favours one candidate for a
    moment, so that of several that ask at once only one can win, and none deposes the other in its first breath.
    """

    def __init__(self, members: int, favour_s: float) -> None:
        self.members = members
        self._favour_s = favour_s
        self._favourite = ""
        self._favoured_at = -1e9
        self._own = ""
        self._round = 0
        self._began_at = -1e9
        self._granted: set[str] = set()
        self._won = False
        self.rounds = 0
        """How many rounds were begun since a leader was last there."""

    def begin(self, now: float, own: str) -> int:
        """Start a round with one's own vote; its number, to be quoted by the answers."""
        self._own = own
        self.rounds += 1
        self._round += 1
        self._began_at = now
        self._granted = {own}
        self._won = False
        return self._round

    def grant(self, node: str, round_: int, heard_leader_at: float) -> bool:
        """Count an answer; True exactly when it completes a majority."""
        if round_ != self._round or self._won or heard_leader_at > self._began_at:
            return False
        self._granted.add(node)
        self._won = len(self._granted) * 2 > self.members
        return self._won

    def favour(self, candidate: str, now: float) -> bool:
        """Whether to give another node one's pre-vote; False while somebody else has it.

        Of two that ask each other, the one whose name sorts first goes ahead and the other one withdraws.
        """
        if now - self._began_at < self._favour_s and self._granted:
            if self._won or candidate > self._own:
                return False
            self._granted = set()
            self._round += 1
        if candidate != self._favourite and now - self._favoured_at < self._favour_s:
            return False
        self._favourite, self._favoured_at = candidate, now
        return True

    def abandon(self) -> None:
        """A leader is there: a victory that was not used yet is void."""
        self._won = False
        self.rounds = 0

    def take(self) -> bool:
        """Whether a round was won and not yet used; it is used now."""
        won, self._won = self._won, False
        return won
