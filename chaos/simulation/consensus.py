"""A model of what PySyncObj, as `raft.syncobj` uses it, guarantees: elections, terms, replication, commit, snapshots.

PySyncObj itself stays outside: it is driven by threads, sockets and files, and is simulated on its own, for real, in
`tests/raft/test_simulation.py`. The model is Raft (Ongaro and Ousterhout, figures 2 and 3.10) with this project's
additions – pre-votes, elections in turn when the leader's connection breaks, fallback of an isolated leader, no
forwarding, a member without its journal that does not vote until it is level – and the time-outs of `raft.settings`.
The rules that are pure in the product (`PreVotes`, `as_good_as`, `election_rank`, the ledger) are the product's own.

The interface to the conductor is that of `raft.node.RaftNode`, events and answers in the same order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import msgspec

from chaos.simulation.handover import hand_over
from chaos.simulation.kernel import Future, Process
from chaos.simulation.network import Network
from chaos.simulation.raft_disk import AppendEntries, RaftDisk
from flashblocks.conductor.candidates import Voter
from raft.commands import Answer, Command, Event, Reason, Refused
from raft.elections import PREVOTE_FAVOUR_S, PREVOTE_RETRY_S, prevote_retry_s
from raft.ledger import Ledger
from raft.node import Outcome, Transferred, Unknown
from raft.replication import PreVotes, as_good_as, election_rank
from raft.settings import RaftSettings
from raft.view import LedgerView

_SETTINGS: Final = {field.name: field.default for field in msgspec.structs.fields(RaftSettings)}
ELECTION_S_MIN: Final[float] = _SETTINGS["raft_min_timeout_s"]
ELECTION_S_MAX: Final[float] = _SETTINGS["raft_max_timeout_s"]
APPEND_PERIOD_S: Final[float] = _SETTINGS["append_entries_period_s"]
FALLBACK_S: Final[float] = _SETTINGS["leader_fallback_timeout_s"]
CONNECTION_S: Final[float] = _SETTINGS["connection_timeout_s"]
STAGGER_S: Final[float] = _SETTINGS["election_stagger_s"]
SUBMIT_S_MAX: Final = 0.001
"""From the event loop to the Raft thread; leadership may change in between."""
TELL_S_MAX: Final = 0.0005
"""From the Raft thread back to the event loop."""
COMPACTION_ENTRIES: Final = 40
TRAILING_ENTRIES: Final = 15

GENESIS_HASH: Final = bytes(31) + b"\x01"


@dataclass(frozen=True, slots=True)
class Variant:
    """What a mutant leaves out; the defaults are the product."""

    fallback_s: float = FALLBACK_S
    forgets_vote: bool = False
    forwards: bool = False
    ledger: Callable[[int, bytes], Ledger] = Ledger


def slot_of(member: str) -> str:
    """Where a member runs."""
    return f"{member}/conductor"


class Consensus:
    """One member. `post(member, method, …)` reaches the same object at another one."""

    def __init__(
        self, network: Network, process: Process, name: str, members: list[str], disk: RaftDisk, variant: Variant
    ) -> None:
        self.name, self.disk = name, disk
        self._network, self._process, self._variant = network, process, variant
        self._clock, self._draw = process.clock, process.clock.draw
        self._others = [member for member in members if member != name]
        self._majority = len(members) // 2 + 1
        self._ledger = variant.ledger(0, GENESIS_HASH)
        self.commit = self.applied = 0
        self.role_leader = False
        self._leader = ""
        self._candidate_votes: set[str] | None = None
        self._pre_votes = PreVotes(len(members), PREVOTE_FAVOUR_S)
        self._heard_at = -1e9
        self._answered_at: dict[str, float] = {}
        self._next: dict[str, int] = {}
        self._match: dict[str, int] = {}
        self._down: dict[str, bool] = {}
        self._waiting: dict[int, tuple[int, Callable[[Answer | None], None]]] = {}
        self._outstanding: dict[Future, None] = {}
        self._first_own = 0
        self._transferring = False
        self._told_at = 0.0
        self._deadline = 0.0
        self._checks = 0
        self._leader_committed: int | None = None
        self.on_event: Callable[[Event, bool], None] = lambda event, replayed: None
        self.on_leadership: Callable[[bool, int], None] = lambda leading, term: None
        self.on_voted: Callable[[], None] = lambda: None
        if variant.forgets_vote:
            disk.voted_for, disk.term = "", disk.log[-1][0] if disk.log else 0
        self._replayed_to = self.disk.last_index

    # What the conductor sees

    @property
    def ledger(self) -> LedgerView:
        """The ledger as applied here."""
        return self._ledger.view

    @property
    def is_leader(self) -> bool:
        """Whether this member believes to lead."""
        return self.role_leader

    @property
    def term(self) -> int:
        """The current term."""
        return self.disk.term

    def leader(self) -> str | None:
        """Whom this member follows and is connected to, or itself."""
        if self.role_leader:
            return self.name
        return self._leader if self._leader and self._connected(self._leader) else None

    def voters(self) -> list[Voter]:
        """Every other member, as the conductor's candidates want them."""
        last = self.disk.last_index
        return [
            Voter(
                node=other,
                connected=self._connected(other),
                lag_entries=max(0, last - self._match.get(other, 0)) if self.role_leader else None,
            )
            for other in self._others
        ]

    def start(self) -> None:
        """Begin from the disk."""
        if self.disk.snapshot is not None:
            index, _, ledger = self.disk.snapshot
            restored = self._ledger.restore(ledger)
            self.commit = self.applied = index
            self._tell(self.on_event, restored, True)
        for other in self._others:
            self._network.watch(self._process, slot_of(other), partial(self._on_peer, other))
        self._stand_in(*PREVOTE_RETRY_S)

    def propose(self, command: Command, timeout_s: float) -> Future:
        """Have a command committed: Accepted, Refused or Unknown."""
        future = Future(self._process)
        if not self.role_leader and not self._variant.forwards:
            future.set(Refused(Reason.NOT_LEADER, f"leader is {self.leader()}"))
            return future
        if self._transferring:
            future.set(Refused(Reason.TRANSFERRING, "leadership is being handed over"))
            return future
        self._outstanding[future] = None
        self._process.after(timeout_s, self._settle, future, Unknown("timeout"))
        self._process.after(SUBMIT_S_MAX * self._draw(), self._submit, command, partial(self._answered, future))
        return future

    def _answered(self, future: Future, answer: Answer | None) -> None:
        outcome: Outcome = Refused(Reason.NOT_LEADER, "leadership ended before") if answer is None else answer
        self._tell(self._settle, future, outcome)

    def _settle(self, future: Future, outcome: Outcome) -> None:
        self._outstanding.pop(future, None)
        future.set(outcome)

    def _submit(self, command: Command, answer: Callable[[Answer | None], None]) -> None:
        if not self.role_leader:
            if self._variant.forwards and self._leader:
                self._post(self._leader, "on_forwarded", command)
            else:
                answer(None)
            return
        self.disk.log.append((self.disk.term, command))
        self._waiting[self.disk.last_index] = (self.disk.term, answer)
        self._send_to_all()
        self._advance_commit()

    def on_forwarded(self, command: Command) -> None:
        """A mutant's follower passed a command on."""
        if self.role_leader:
            self._submit(command, lambda answer: None)

    async def transfer_leadership(self, target: str | None, timeout_s: float) -> Transferred | Refused | Unknown:
        """Hand leadership on, as `RaftNode.transfer_leadership` does."""
        if not self.role_leader:
            return Refused(Reason.NOT_LEADER, "")
        if self._transferring:
            return Refused(Reason.TRANSFERRING, "")
        self._transferring = True
        try:
            return await hand_over(self, self._process, target, timeout_s)
        finally:
            self._transferring = False

    def asks_to_stand(self, target: str | None) -> bool:
        """Ask the target, or the most level member, to stand for election now, if it is level; whether it was asked."""
        connected = [other for other in self._others if self._connected(other)]
        if target is None and connected:
            target = max(connected, key=lambda other: (self._match.get(other, 0), other))
        idle = self.role_leader and not self._outstanding
        if not idle or target not in connected or self._match.get(target or "", 0) != self.disk.last_index:
            return False
        assert target is not None
        self._post(target, "on_timeout_now", self.disk.term)
        return True

    # The log

    def _apply_committed(self) -> None:
        disk = self.disk
        while self.applied < self.commit:
            self.applied += 1
            term, command = disk.log[self.applied - disk.first]
            waiting = self._waiting.pop(self.applied, None)
            if command is None:
                continue
            answer, events = self._ledger.apply(command)
            for event in events:
                self._tell(self.on_event, event, self.applied <= self._replayed_to)
            if waiting is not None:
                waiting[1](answer if waiting[0] == term else None)
        if len(disk.log) > COMPACTION_ENTRIES:
            disk.compact(self.applied, TRAILING_ENTRIES, self._ledger.snapshot)

    # The leader

    def _send_to_all(self) -> None:
        for other in self._others:
            self._send(other)

    def _send(self, other: str) -> None:
        disk, following = self.disk, self._next[other]
        previous_term = self.disk.term_at(following - 1)
        if previous_term is None or following < disk.first:
            assert disk.snapshot is not None, "what is no longer in the log is in the snapshot"
            self._post(other, "on_snapshot", disk.term, self.name, disk.snapshot)
            return
        entries = tuple(disk.log[following - disk.first :])
        message = AppendEntries(disk.term, self.name, following - 1, previous_term, entries, self.commit)
        self._post(other, "on_append", message)

    def _lead(self) -> None:
        disk = self.disk
        self.role_leader, self._leader, self._candidate_votes = True, self.name, None
        self._pre_votes.abandon()
        disk.log.append((disk.term, None))
        self._first_own = self.disk.last_index
        now = self._clock.now
        self._answered_at = dict.fromkeys(self._others, now)
        self._next = dict.fromkeys(self._others, self.disk.last_index)
        self._match = dict.fromkeys(self._others, 0)
        self._tell(self._on_role, True, disk.term)
        self._beat(disk.term)
        self._advance_commit()

    def _beat(self, term: int) -> None:
        if not self.role_leader or term != self.disk.term:
            return
        now = self._clock.now
        heard = 1 + sum(now - at < self._variant.fallback_s for at in self._answered_at.values())
        if heard < self._majority:
            self._step_down(self.disk.term)
            return
        self._send_to_all()
        self._process.after(APPEND_PERIOD_S, self._beat, term)

    def _step_down(self, term: int) -> None:
        disk = self.disk
        if term > disk.term:
            disk.term, disk.voted_for = term, ""
        self._candidate_votes = None
        self._leader = ""
        if self.role_leader:
            self.role_leader = False
            self._tell(self._on_role, False, disk.term)
            waiting, self._waiting = self._waiting, {}
            del waiting  # their futures end as unknown when the conductor is told
            self._stand_in(ELECTION_S_MIN, ELECTION_S_MAX)

    def _on_role(self, leading: bool, term: int) -> None:
        if not leading:
            for future in list(self._outstanding):
                self._settle(future, Unknown("leadership_lost"))
        self.on_leadership(leading, term)

    def on_position(self, other: str, term: int, matched: int, following: int) -> None:
        """A follower says how far its log agrees, or where to go on."""
        if not self.role_leader or term != self.disk.term:
            return
        self._answered_at[other] = self._clock.now
        if matched:
            self._match[other] = max(self._match[other], matched)
            self._next[other] = max(self._next[other], matched + 1)
            self._advance_commit()
        else:
            self._next[other] = max(1, min(following, self._next[other]))
            self._send(other)

    def _advance_commit(self) -> None:
        matches = sorted([self.disk.last_index, *self._match.values()], reverse=True)
        agreed = matches[self._majority - 1]
        if agreed > self.commit and self.disk.term_at(agreed) == self.disk.term:
            self.commit = agreed
            self._apply_committed()
            self._send_to_all()  # followers learn of the commit at once

    # The follower

    def on_append(self, message: AppendEntries) -> None:
        """Entries, or a sign of life."""
        disk = self.disk
        if message.term < disk.term:
            self._post(message.leader, "on_higher_term", disk.term)
            return
        self._follow(message.term, message.leader, message.commit)
        if message.previous < self.applied:
            skip = self.applied - message.previous
            agreed, entries = self.applied, message.entries[skip:]
            if len(message.entries) < skip:
                agreed = message.previous + len(message.entries)
        elif self.disk.term_at(message.previous) == message.previous_term:
            agreed, entries = message.previous, message.entries
        else:
            self._report(
                message.leader, 0, min(self.disk.last_index, message.previous - 1) + 1 if message.previous else 1
            )
            return
        if entries and agreed + 1 <= message.commit:
            self._replayed_to = max(self._replayed_to, min(agreed + len(entries), message.commit))
        safe_below = 0 if self._variant.forgets_vote else self.commit
        agreed = disk.merge(agreed, entries, safe_below)
        self._report(message.leader, agreed, 0)
        if min(message.commit, agreed) > self.commit:
            self.commit = min(message.commit, agreed)
            self._apply_committed()
        self._consider_rejoined(message)

    def _consider_rejoined(self, message: AppendEntries) -> None:
        if self.disk.rejoining and self.commit >= message.commit and self.disk.term_at(self.commit) == message.term:
            self.disk.rejoining = False

    def on_snapshot(self, term: int, leader: str, snapshot: tuple[int, int, bytes]) -> None:
        """What this member lacks is no longer in the leader's log."""
        disk = self.disk
        if term < disk.term:
            self._post(leader, "on_higher_term", disk.term)
            return
        self._follow(term, leader, snapshot[0])
        index, _, ledger = snapshot
        if index > self.applied:
            disk.install(snapshot)
            self.commit = self.applied = index
            self._replayed_to = max(self._replayed_to, index)
            self._tell(self.on_event, self._ledger.restore(ledger), True)
        self._report(leader, max(index, self.applied), 0)

    def _follow(self, term: int, leader: str, committed: int) -> None:
        if term > self.disk.term or self.role_leader:
            assert not (self.role_leader and term == self.disk.term) or self._variant.forgets_vote, (
                f"two leaders of term {term}: {self.name} and {leader}"
            )
            self._step_down(term)
        self._candidate_votes = None
        self._leader, self._heard_at, self._leader_committed = leader, self._clock.now, committed
        self._pre_votes.abandon()
        self._deadline = self._clock.now + ELECTION_S_MIN + (ELECTION_S_MAX - ELECTION_S_MIN) * self._draw()

    def _report(self, leader: str, matched: int, following: int) -> None:
        self._post(leader, "on_position", self.name, self.disk.term, matched, following)

    def on_higher_term(self, term: int) -> None:
        """Somebody is further."""
        if term > self.disk.term:
            self._step_down(term)

    # Elections

    def _stand_in(self, seconds_min: float, seconds_max: float) -> None:
        self._deadline = self._clock.now + seconds_min + (seconds_max - seconds_min) * self._draw()
        self._checks += 1
        self._process.after(self._deadline - self._clock.now, self._check_deadline, self._checks)

    def _check_deadline(self, check: int) -> None:
        if check != self._checks or self.role_leader:
            return
        left = self._deadline - self._clock.now
        if left > 1e-6:
            self._process.after(left, self._check_deadline, check)
            return
        if self.disk.rejoining:
            self._stand_in(ELECTION_S_MAX, ELECTION_S_MAX)
            return
        asked = self._pre_votes.begin(self._clock.now, self.name)
        self._stand_in(*prevote_retry_s(self._pre_votes.rounds))
        for other in self._others:
            self._post(
                other, "on_pre_vote", self.name, self.disk.term, self.disk.last_term, self.disk.last_index, asked
            )

    def on_pre_vote(self, candidate: str, term: int, last_term: int, last_index: int, round_: int) -> None:
        """Somebody asks whether it would be elected."""
        if term < self.disk.term:
            self._post(candidate, "on_higher_term", self.disk.term)
            return
        complete = as_good_as(last_term, last_index, [(b"", self.disk.last_index, self.disk.last_term)])
        free = not self.disk.rejoining and not self._leader_lives()
        if complete and free and self._pre_votes.favour(candidate, self._clock.now):
            self._post(candidate, "on_pre_vote_granted", self.name, round_)

    def _leader_lives(self) -> bool:
        recently = self._clock.now - self._heard_at < ELECTION_S_MIN
        return self.role_leader or (recently and self.leader() is not None)

    def on_pre_vote_granted(self, voter: str, round_: int) -> None:
        """Somebody would vote for us."""
        if not self.role_leader and self._pre_votes.grant(voter, round_, self._heard_at):
            self._pre_votes.take()
            self._stand()

    def on_timeout_now(self, term: int) -> None:
        """The leader hands over: stand at once."""
        if term == self.disk.term and not self.role_leader and not self.disk.rejoining:
            self._stand()

    def _stand(self) -> None:
        disk = self.disk
        disk.term, disk.voted_for = disk.term + 1, self.name
        self._leader = ""
        self._candidate_votes = {self.name}
        self._stand_in(ELECTION_S_MIN, ELECTION_S_MAX)
        if len(self._candidate_votes) >= self._majority:
            self._lead()
            return
        for other in self._others:
            self._post(other, "on_request_vote", self.name, disk.term, self.disk.last_term, self.disk.last_index)

    def on_request_vote(self, candidate: str, term: int, last_term: int, last_index: int) -> None:
        """Somebody wants to lead."""
        disk = self.disk
        if term > disk.term:
            self._step_down(term)
        if term < disk.term or disk.rejoining:
            return
        complete = as_good_as(last_term, last_index, [(b"", self.disk.last_index, self.disk.last_term)])
        if complete and disk.voted_for in ("", candidate) and not self.role_leader:
            disk.voted_for = candidate
            self._stand_in(ELECTION_S_MIN, ELECTION_S_MAX)
            self._post(candidate, "on_vote", self.name, term)
            self.on_voted()

    def on_vote(self, voter: str, term: int) -> None:
        """A vote."""
        if self._candidate_votes is None or term != self.disk.term:
            return
        self._candidate_votes.add(voter)
        if len(self._candidate_votes) >= self._majority:
            self._lead()

    # Connections

    def _on_peer(self, other: str, up: bool) -> None:
        self._down[other] = not up
        if up or other != self._leader or self.role_leader or self._network.cut_for(*self._hosts(other), 0.0):
            return
        names = {name for name in self._others if self._connected(name)}
        soon = self._clock.now + election_rank(self.name, other, names) * STAGGER_S
        if soon < self._deadline:
            self._stand_in(soon - self._clock.now, soon - self._clock.now)

    def _hosts(self, other: str) -> tuple[str, str]:
        return self._process.host, self._network.slots[slot_of(other)].host

    def _connected(self, other: str) -> bool:
        if self._down.get(other, True):
            return False
        process = self._network.slots[slot_of(other)].process
        hung = process is not None and process.paused and self._clock.now - process.paused_at > CONNECTION_S
        return not hung and not self._network.cut_for(*self._hosts(other), CONNECTION_S)

    def _post(self, other: str, method: str, *arguments: Any) -> None:
        self._network.post(self._process, slot_of(other), "on_raft", method, arguments)

    def receive(self, method: str, arguments: tuple[Any, ...]) -> None:
        """A message of another member."""
        getattr(self, method)(*arguments)

    def _tell(self, function: Callable[..., None], *arguments: Any) -> None:
        """To the event loop, in order."""
        self._told_at = max(self._told_at, self._clock.now + TELL_S_MAX * self._draw())
        self._clock.at(self._told_at, self._process, function, *arguments)

    def check(self) -> None:
        """Assert what must hold."""
        assert self.applied == self.commit <= self.disk.last_index or self.disk.snapshot is not None
        self._ledger.check()
