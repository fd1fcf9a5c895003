"""The consensus: PySyncObj with our transport, journal and rules around it. The only module that imports it.

What is changed, and why (the library is 0.3.17, its private names are listed in `_PRIVATE` and checked at import):

- The log holds our own MessagePack commands; nothing is pickled, neither on the wire nor on disk.
- A follower never forwards a command: a proposal on a node that does not lead is refused.
- A follower's log is cut only at a real conflict (`replication.repair_append`).
- A piece of a snapshot commits nothing (the library committed whatever a follower's log held there).
- A position report of an earlier term is ignored: it could count entries that were overwritten since.
- Elections begin with a pre-vote, and at once when the leader's connection breaks (`elections.py`).
- The members are what the log says, through overlaps of messages, cuts and snapshots (`membership.py`).
- A node whose disk is empty or damaged does not vote until it has caught up (`rejoining.py`).

All methods but `submit` run on the Raft thread.
"""

from __future__ import annotations

import logging
import os
import queue
import random
from collections.abc import Callable
from typing import Any, Final, Protocol

import pysyncobj.syncobj as library
from pysyncobj import SyncObj, SyncObjConf
from pysyncobj.config import FAIL_REASON
from pysyncobj.monotonic import monotonic
from pysyncobj.node import Node
from pysyncobj.version import VERSION

from raft.elections import CANDIDATE, FOLLOWER, LEADER, PREVOTE_FAVOUR_S, PREVOTE_RETRY_S, Elections
from raft.journal import SNAPSHOT_FILE, Journal, JournalDamaged
from raft.ledger import Answer, Event, Ledger, SnapshotError, decode_command
from raft.link import Poller
from raft.membership import GUESTS_MAY, MEMBERSHIP, ChangeRefused, MemberChange, Membership, Overlay, encode_change
from raft.rejoining import HEARD_WITH_A_TERM, Rejoining
from raft.replication import Message, PreVotes, repair_append, term_at, well_formed
from raft.settings import RaftSettings, library_options
from raft.snapshots import Snapshot, SnapshotHeader, SnapshotStore, keep_from
from raft.transport import Peer, Transport, Watched
from raft.waker import Waker

ROLES: Final = {FOLLOWER: "follower", CANDIDATE: "candidate", LEADER: "leader"}

SUCCESS: Final[int] = FAIL_REASON.SUCCESS
QUEUE_FULL: Final[int] = FAIL_REASON.QUEUE_FULL
MISSING_LEADER: Final[int] = FAIL_REASON.MISSING_LEADER
DISCARDED: Final[int] = FAIL_REASON.DISCARDED
NOT_LEADER: Final[int] = FAIL_REASON.NOT_LEADER

REGULAR: Final = b"\x00"
"""First byte of a log entry that holds a ledger command."""

STALL_S: Final = 0.1
"""If the thread was away for so long, received messages are read before an election is considered."""

NEVER: Final = float("inf")

_log = logging.getLogger(__name__)

_PRIVATE: Final = (
    "raftState",
    "raftLeader",
    "raftLog",
    "raftCurrentTerm",
    "raftElectionDeadline",
    "raftLastApplied",
    "raftCommitIndex",
    "raftMatchIndex",
    "transferInProgress",
    "connectedNodes",
    "otherNodes",
    "raftNextIndex",
    "noopIDx",
    "lastResponseTime",
    "commandsQueue",
    "pipeNotifier",
    "serializer",
    "forceLogCompaction",
)

Callback = Callable[[Answer | None, int], None]
"""(answer, reason): reason is one of the library's FAIL_REASON codes, SUCCESS with an answer."""


class UnsupportedLibrary(RuntimeError):
    """The installed PySyncObj is not the one whose internals were read."""


if tuple(int(part) for part in VERSION.split(".")) < (0, 3, 17):
    raise UnsupportedLibrary(f"PySyncObj {VERSION} forgets its vote at a restart; at least 0.3.17 is needed")


def _close_pipe(notifier: Any, poller: Poller) -> None:
    poller.unsubscribe(notifier._PipeNotifier__pipeR)
    os.close(notifier._PipeNotifier__pipeR)
    os.close(notifier._PipeNotifier__pipeW)


class MemberNode(Node):  # type: ignore[misc]
    """A member as the library knows it, by name, and where it listens."""

    def __init__(self, name: str, address: str) -> None:
        super().__init__(name)
        self.address = address


class Listener(Protocol):
    """Whom the consensus tells what happened; called on the Raft thread."""

    def on_event_applied(self, event: Event, replayed: bool) -> None:
        """The ledger applied something."""

    def on_role_changed(self, leading: bool, term: int) -> None:
        """This node became leader or ceased to be it."""


def _use_given_journal(journal: object) -> object:
    return journal


library.createJournal = _use_given_journal
"""The library makes its journal from a file name; ours is opened before, because opening it may fail clearly."""


class Consensus(Rejoining, Elections, SyncObj):  # type: ignore[misc]
    """One member's consensus. Construct it, `transport.listen()`, then `tick` for ever, then `shut_down`."""

    _SyncObj__raftCommitIndex: int
    _SyncObj__pipeNotifier: Any

    def __init__(
        self,
        settings: RaftSettings,
        journal: Journal,
        listener: Listener,
        transport_class: type[Transport] = Transport,
    ) -> None:
        self._settings = settings
        self._transport_class = transport_class
        self._journal = journal
        self._listener = listener
        self._begin_rejoining()
        self.ledger = Ledger(settings.genesis_number, settings.genesis_hash)
        self._ticked_at = self._deadline = monotonic()
        self.leader_lost_at: float | None = None
        self._heard_leader_at = -1e9
        self._replayed_to = journal[-1][1] if len(journal) else 0
        self._leader_committed: int | None = None
        """The commit index the current leader announced last; the library's own notion is only what is proven."""
        self._pre_votes = PreVotes(len(settings.peers), PREVOTE_FAVOUR_S)
        self.malformed_messages = 0
        self.membership = Membership(settings.peers)
        self._changing = False
        self._nodes = {name: MemberNode(name, address) for name, address in settings.peers.items()}
        snapshot_path = settings.data_dir / SNAPSHOT_FILE
        conf = SyncObjConf(**library_options(settings), fullDumpFile=str(snapshot_path), journalFile=journal)
        conf.onStateChanged = self._on_state_changed
        own = self._nodes[settings.node_id]
        others = [node for node in self._nodes.values() if node is not own]
        super().__init__(own, others, conf, transportClass=self._make_transport)
        for name in _PRIVATE:
            if not hasattr(self, f"_SyncObj__{name}"):
                raise UnsupportedLibrary(f"PySyncObj {VERSION} has no {name}")
        self._snapshots = SnapshotStore(
            snapshot_path,
            view=lambda: self.ledger.view,
            keep_from=self._keep_from,
            overlay=self.membership.overlay,
            backlog_bytes=self.transport.backlog_bytes,
            clock=monotonic,
        )
        self._SyncObj__serializer = self._snapshots
        self._SyncObj__needLoadDumpFile = False
        _close_pipe(self._SyncObj__pipeNotifier, self._poller)
        self._SyncObj__pipeNotifier = self._waker = Waker(self._poller)
        self._begin_from_disk()
        journal.watch(self._on_added, self._on_cut)
        # A fresh node knows of no leader; a pre-vote disturbs nobody, so it need not wait a whole time-out for one.
        self._SyncObj__raftElectionDeadline = monotonic() + random.uniform(*PREVOTE_RETRY_S)

    def _make_transport(self, _library: object, _own: Node, others: set[Node]) -> Watched:
        self.transport = self._transport_class(self._settings, self._poller, monotonic)
        self.transport.on_peer_death = self._on_peer_death
        self.transport.make_guest = lambda name: MemberNode(name, "")
        for node in others:
            self.transport.addNode(node)
        self.addOnTickCallback(self.transport.upkeep)
        return Watched(self.transport, self)

    # What the node calls.

    def submit(self, command: bytes, callback: Callback) -> None:
        """Queue an encoded command (any thread); the callback comes on the Raft thread, or at once if full."""
        self._applyCommand(REGULAR + command, callback)

    def wake(self) -> None:
        """End the wait of a running `tick` (any thread)."""
        self._waker.notify()

    def tick(self) -> None:
        """One round: elections, commits, sending, and a wait of at most the tick period for messages."""
        now = monotonic()
        if now - self._ticked_at > STALL_S:
            self._poller.poll(0.0)
            self._forgive_silence(now - self._ticked_at)
            now = monotonic()
        self._ticked_at = now
        wait = self._settings.tick_period_s
        may_stand = self._consider_election(now)
        self._deadline = self._SyncObj__raftElectionDeadline
        if self._SyncObj__raftState != LEADER:
            wait = min(wait, max(0.0, self._deadline - now))
        if self._journal.entry_bytes > self._settings.compaction_bytes:
            self._SyncObj__forceLogCompaction = True
        if may_stand:
            self.doTick(wait)
            return
        # However long this thread is held up between here and there, the library must not stand for election.
        self._SyncObj__raftElectionDeadline = NEVER
        self.doTick(wait)
        if self._SyncObj__raftElectionDeadline == NEVER:
            self._SyncObj__raftElectionDeadline = self._deadline

    def _forgive_silence(self, stalled_s: float) -> None:
        """While this thread was away nobody could answer it: a leader still linked to a majority counts from now."""
        linked = len(self._SyncObj__connectedNodes) + 1
        if self._SyncObj__raftState == LEADER and linked * 2 > len(self.membership.addresses):
            heard = self._SyncObj__lastResponseTime
            for node in heard:
                heard[node] += stalled_s

    def shut_down(self) -> None:
        """Close port, links, files and pipes."""
        self._snapshots.close()
        self.destroy()
        self._waker.close()

    def hand_over(self, target: str, callback: Callback) -> None:
        """Ask a connected and fully caught-up member to stand for election now; SUCCESS says that it was asked."""
        node = self._nodes.get(target)
        if node is not None and node in self._SyncObj__connectedNodes:
            self.transferLeadership(node, callback)
        else:
            callback(None, FAIL_REASON.REQUEST_DENIED)

    def clock(self) -> float:
        """The library's clock: monotonic seconds."""
        return float(monotonic())

    def propose_change(self, change: MemberChange, callback: Callback) -> None:
        """Add or remove one member; on the Raft thread. Raises ChangeRefused; the callback comes as after `submit`."""
        if self._SyncObj__raftState != LEADER:
            raise ChangeRefused("this node does not lead")
        if self._SyncObj__raftLastApplied < self._SyncObj__noopIDx:
            raise ChangeRefused("this leader has committed nothing in its term yet: try again")
        own, commit_index = self._settings.node_id, self._SyncObj__raftCommitIndex
        self.membership.check(change, own, self.transport.connected(), commit_index)
        if self._changing:
            raise ChangeRefused("another change is on its way: try again")
        self._changing = True

        def answered(answer: Answer | None, reason: int) -> None:
            self._changing = False
            callback(answer, reason)

        self._applyCommand(encode_change(change), answered)

    def role(self) -> int:
        """FOLLOWER, CANDIDATE or LEADER (any thread)."""
        return int(self._SyncObj__raftState)

    def leader_name(self) -> str | None:
        """The leader this node follows and has a link to, or itself, or None (any thread)."""
        leader = self._SyncObj__raftLeader
        if leader is None or (leader.id != self._settings.node_id and leader not in self._SyncObj__connectedNodes):
            return None
        return str(leader.id)

    def is_caught_up(self) -> bool:
        """Whether everything known to be committed is applied, and the leader is known (any thread)."""
        applied = self._SyncObj__raftLastApplied
        if self.role() == LEADER:
            first_own = self._SyncObj__noopIDx
            return first_own is not None and bool(applied >= max(first_own, self._SyncObj__raftCommitIndex))
        committed = self._leader_committed
        return self.leader_name() is not None and committed is not None and bool(applied >= committed)

    def match_index(self, node: str) -> int | None:
        """How far a member's log is known to agree with this leader's; None if this node does not lead (any thread)."""
        if self.role() != LEADER:
            return None
        return int(self._SyncObj__raftMatchIndex.get(self._nodes.get(node), 0))

    def figures(self) -> dict[str, Any]:
        """Counters and positions for the status (any thread)."""
        return {
            "term": self._SyncObj__raftCurrentTerm,
            "commit_index": self._SyncObj__raftCommitIndex,
            "last_applied": self._SyncObj__raftLastApplied,
            "last_index": self._journal.last_index,
            "log_entries": len(self._journal),
            "log_bytes": self._journal.entry_bytes,
            "rejoining": self.rejoining,
            "rejected_connections": self.transport.rejected,
            "malformed_messages": self.malformed_messages,
            "snapshot_failure": self._snapshots.failure,
        }

    # What the library calls, replaced.

    def _SyncObj__doApplyCommand(self, entry: bytes) -> Answer | None:
        if entry[:1] != REGULAR:
            return None
        answer, events = self.ledger.apply(decode_command(entry[1:]))
        replayed = self._SyncObj__raftLastApplied + 1 <= self._replayed_to
        for event in events:
            self._listener.on_event_applied(event, replayed)
        return answer

    def _checkCommandsToApply(self) -> None:
        if self._SyncObj__raftState == LEADER:
            super()._checkCommandsToApply()
            return
        while True:
            try:
                _, callback = self._SyncObj__commandsQueue.get_nowait()
            except queue.Empty:
                return
            callback(None, NOT_LEADER)

    def _SyncObj__loadDumpFile(self, clearJournal: bool) -> None:
        """Install the snapshot that a leader has just sent."""
        snapshot = self._snapshots.load()
        assert snapshot is not None and clearJournal
        applied = self._SyncObj__raftLastApplied
        if snapshot.header.last[1] <= applied:
            # Older than what is applied here. The library reports our log's end as agreed next: keep only what is.
            self._journal.deleteEntriesFrom(applied + 1 - self._journal[0][1])
            return
        self._adopt(snapshot)
        self._replace_log(snapshot.header)
        self._restore_members(snapshot.header.members, snapshot.header.last[1])

    # Members.

    def _on_added(self, command: bytes, index: int) -> None:
        if command[:1] == MEMBERSHIP:
            self._changing = False
        if self.membership.on_entry(command, index):
            self._use_members()

    def _on_cut(self, index: int) -> None:
        self._replayed_to = min(self._replayed_to, index - 1)
        if self.membership.on_cut(index):
            self._use_members()

    def _use_members(self) -> None:
        """Have links to the members as they are now, and count majorities of them."""
        wanted, own = self.membership.addresses, self._settings.node_id
        for name, node in list(self._nodes.items()):
            if wanted.get(name) != node.address and name != own:
                del self._nodes[name]
                self._SyncObj__otherNodes.discard(node)
                self._SyncObj__connectedNodes.discard(node)
                self._SyncObj__raftNextIndex.pop(node, None)
                self._SyncObj__raftMatchIndex.pop(node, None)
                self.transport.dropNode(node)
        for name, address in wanted.items():
            if name not in self._nodes:
                node = self._nodes[name] = MemberNode(name, address)
                self._SyncObj__otherNodes.add(node)
                self._SyncObj__raftNextIndex[node] = self._journal.last_index + 1
                self._SyncObj__raftMatchIndex[node] = 0
                self._SyncObj__lastResponseTime[node] = monotonic()
                self.transport.addNode(node)
        self.transport.introduce_as(sorted(wanted), self.membership.version)
        self._pre_votes.members = len(wanted)
        _log.warning("members are now %s (version %d)", dict(wanted), self.membership.version)

    # Disk.

    def _begin_from_disk(self) -> None:
        snapshot = self._snapshots.load()
        if snapshot is None:
            if self._journal[0][1] != 1:
                raise JournalDamaged(f"the journal begins at entry {self._journal[0][1]} and there is no snapshot")
            self._restore_members(Overlay(), 0)
            return
        self._adopt(snapshot)
        _, index, term = snapshot.header.last
        if self._journal[0][1] > index + 1:
            raise JournalDamaged(f"the snapshot ends at entry {index}, the journal begins at {self._journal[0][1]}")
        if term_at(self._journal, index) != term:
            self._replace_log(snapshot.header)
        self._restore_members(snapshot.header.members, index)
        self._SyncObj__raftCurrentTerm = max(self._SyncObj__raftCurrentTerm, term)

    def _restore_members(self, before: Overlay, index: int) -> None:
        if self.membership.restore(before, index, self._journal):
            self._use_members()

    def _adopt(self, snapshot: Snapshot) -> None:
        try:
            restored = self.ledger.restore(snapshot.ledger)
        except SnapshotError as error:
            raise JournalDamaged(str(error)) from error
        index = snapshot.header.last[1]
        self._SyncObj__raftLastApplied = index
        self._SyncObj__raftCommitIndex = max(index, self._SyncObj__raftCommitIndex)
        self._replayed_to = max(index, self._replayed_to)
        self._listener.on_event_applied(restored, True)

    def _replace_log(self, header: SnapshotHeader) -> None:
        self._journal.clear()
        self._journal.add(*header.previous)
        self._journal.add(*header.last)
        self._SyncObj__raftCommitIndex = self._replayed_to = header.last[1]

    def _keep_from(self) -> int:
        applied = self._SyncObj__raftLastApplied - 1
        return keep_from(self._journal, applied, self._settings.trailing_entries, self._settings.trailing_bytes_max)

    # Messages.

    def outgoing(self, message: Message) -> Message:
        """Before anything leaves: what it rests on is on disk; position reports carry their term."""
        self._journal.sync()
        if message["type"] == "next_node_idx":
            return {**message, "term": self._SyncObj__raftCurrentTerm}
        return message

    def incoming(self, deliver: Callable[[Peer, Message], None], node: Peer, message: Message) -> None:
        """Every message of an authenticated member, before the library sees it."""
        if not well_formed(message):
            self.malformed_messages += 1
            return
        kind, term = message["type"], self._SyncObj__raftCurrentTerm
        if node.id not in self._nodes and kind not in GUESTS_MAY:
            return
        if kind in HEARD_WITH_A_TERM and not self._journal.knows_vote:
            return
        if kind == "append_entries":
            self._on_append(deliver, node, message)
        elif kind == "next_node_idx":
            if message["term"] == term:
                deliver(node, message)
        elif kind == "pre_vote":
            self._on_pre_vote(node, message)
        elif kind == "pre_vote_granted":
            self._on_pre_vote_granted(node, message)
        elif kind == "higher_term":
            if message["term"] > term:
                self._step_down(message["term"])
        elif kind == "ask_memory":
            self._tell_memory(node)
        elif kind == "memory":
            self._on_memory(node, message)
        elif not self.rejoining:
            deliver(node, message)

    def _on_append(self, deliver: Callable[[Peer, Message], None], node: Peer, message: Message) -> None:
        if message["term"] < self._SyncObj__raftCurrentTerm:
            self.transport.send(node, {"type": "higher_term", "term": self._SyncObj__raftCurrentTerm})
            return
        self._heard_leader_at = monotonic()
        self._pre_votes.abandon()
        self._leader_committed = message["commit_index"]
        repair = repair_append(message, self._journal)
        self._journal.keep_suffix = repair.keep_suffix
        try:
            deliver(node, repair.message)
        finally:
            self._journal.keep_suffix = False
        new = repair.message.get("entries")
        if new and new[0][1] <= message["commit_index"]:
            self._replayed_to = max(self._replayed_to, min(new[-1][1], message["commit_index"]))
        if message.get("serialized") is not None:
            self._confirm_piece(node)
        if self.rejoining:
            self._consider_rejoined(message)

    def _confirm_piece(self, node: Peer) -> None:
        """The library answers only the last piece of a snapshot; a leader that hears nothing would step down."""
        following = self._journal[-1][1] + 1
        report = {"type": "next_node_idx", "next_node_idx": following, "reset": False, "success": False}
        self.transport.send(node, self.outgoing(report))

    def connected(self, deliver: Callable[[Peer], None], node: Peer) -> None:
        """A member is back, perhaps without the end of its log: it must report its position again."""
        if node.id not in self._nodes:
            return
        if self._SyncObj__raftState == LEADER:
            self._SyncObj__raftMatchIndex[node] = 0
        deliver(node)
        if self.rejoining:
            self.transport.send(node, {"type": "ask_memory"})
