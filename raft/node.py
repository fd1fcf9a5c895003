"""One member of the Raft group, as an asyncio program sees it: propose, be told, hand leadership on.

The consensus itself runs in a thread of its own; everything public here belongs to the event loop that called
`start`. A proposal has three outcomes that are never folded into each other: done (Accepted), refused
(Refused: certainly no effect), and unknown (Unknown: it may or may not take effect, now or later).
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import msgspec

from raft.elections import LEADER
from raft.journal import Journal, StorageError, is_disk_full
from raft.ledger import (
    ENTRY_SIZE_BYTES_MAX,
    Accepted,
    Answer,
    Command,
    Event,
    Ledger,
    LedgerView,
    Reason,
    Refused,
    decode_command,
    encode_command,
)
from raft.membership import ChangeRefused, MemberChange
from raft.settings import RaftSettings
from raft.syncobj import DISCARDED, MISSING_LEADER, NOT_LEADER, QUEUE_FULL, REGULAR, ROLES, SUCCESS, Consensus

TRANSFER_RETRY_S: Final = 0.002
"""How often a transfer looks whether its target is level, and whether leadership has moved."""
TRANSFER_ASK_AGAIN_S: Final = 0.1
UNKNOWN_REASONS: Final = {DISCARDED: "discarded"}

_log = logging.getLogger(__name__)


class Unknown(msgspec.Struct, frozen=True):
    """Nobody here knows whether the command took effect: read the ledger under a new epoch before deciding.

    `reason` is one of timeout, leadership_lost, leader_changed, discarded, closed.
    """

    reason: str


Outcome = Accepted | Refused | Unknown


class Transferred(msgspec.Struct, frozen=True):
    """Leadership is elsewhere now: `leader` leads in `term`."""

    leader: str
    term: int


class Member(msgspec.Struct, frozen=True):
    """One member as this node sees it. `match_index` and `lag_entries` are known to the leader only."""

    id: str
    address: str
    voter: bool
    connected: bool
    match_index: int | None
    lag_entries: int | None


EventCallback = Callable[[Event, bool], None]
"""(event, replayed): `replayed` is True for what the majority had committed before it reached this process:
journal replay at start, catching up after an absence, a snapshot. False for what is committed live."""

LeadershipCallback = Callable[[bool, int], None]
"""(leading, term), called whenever this node becomes leader or ceases to be it."""

FaultCallback = Callable[[str], None]
"""Why the node stopped taking part (disk full, damaged journal, a bug); the shell restarts or gives up."""


class RaftNode:
    """A voting member. Construct it, register callbacks, `await start()`; `await close()` leaves nothing behind."""

    def __init__(self, settings: RaftSettings) -> None:
        self._settings = settings
        self._event_callbacks: list[EventCallback] = []
        self._leadership_callbacks: list[LeadershipCallback] = []
        self._fault_callbacks: list[FaultCallback] = []
        self._genesis = Ledger(settings.genesis_number, settings.genesis_hash).view
        self._loop: asyncio.AbstractEventLoop | None = None
        self._consensus: Consensus | None = None
        self._journal: Journal | None = None
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._requests: deque[Callable[[Consensus], None]] = deque()
        self._outstanding: set[asyncio.Future[Outcome]] = set()
        self._transferring = False
        self._reluctant = False
        self._fault: str | None = None
        self._disk_full = False

    async def start(self) -> None:
        """Open journal and snapshot, bind the port, start the thread; does not wait for other members.

        Raises JournalDamaged (then `journal.move_aside` and start again), JournalFull, or OSError (port in use,
        directory locked by another process).
        """
        if self._thread is not None:
            raise RuntimeError("the node is already started")
        self._loop = asyncio.get_running_loop()
        self._stop.clear()
        self._fault, self._disk_full = None, False
        self._journal = await asyncio.to_thread(self._open_journal)
        try:
            self._consensus = Consensus(self._settings, self._journal, self)
            self._consensus.reluctant = self._reluctant
            try:
                self._consensus.transport.listen()
            except BaseException:
                self._consensus.shut_down()
                raise
        except BaseException:
            self._journal._destroy()
            self._journal = self._consensus = None
            raise
        name = f"raft-{self._settings.node_id}"
        self._thread = threading.Thread(target=self._run, args=(self._consensus,), name=name, daemon=True)
        self._thread.start()

    def _open_journal(self) -> Journal:
        settings = self._settings
        return Journal(settings.data_dir, settings.segment_bytes, settings.free_space_bytes_min, settings.fsync)

    async def close(self) -> None:
        """Stop; outstanding proposals end as Unknown("closed"). Idempotent; leaves no thread, port or task."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._stop.set()  # seen within a tick; waking the thread now could write into a pipe that it just closed
        await asyncio.to_thread(thread.join)
        self._settle_outstanding(Unknown("closed"))

    def stand_back(self, reluctant: bool) -> None:
        """Say whether other members had better lead: this one then stands for election later than they do."""
        self._reluctant = reluctant
        if self._consensus is not None:
            self._consensus.reluctant = reluctant

    async def propose(self, command: Command, timeout_s: float) -> Outcome:
        """Have the command committed and applied; its answer, decided by the ledger on a majority.

        On a node that does not lead the answer is Refused(not_leader): a command is never forwarded.
        """
        consensus = self._consensus
        if consensus is None or self._loop is None or not self.is_leader:
            return Refused(Reason.NOT_LEADER, f"leader is {self.leader()}")
        if self._transferring:
            return Refused(Reason.TRANSFERRING, "leadership is being handed over")
        encoded = encode_command(command)
        if len(encoded) > ENTRY_SIZE_BYTES_MAX:
            return Refused(Reason.TOO_LARGE, f"{len(encoded)} bytes, at most {ENTRY_SIZE_BYTES_MAX}")
        future: asyncio.Future[Outcome] = self._loop.create_future()
        self._outstanding.add(future)
        consensus.submit(encoded, partial(self._on_answer, future))
        try:
            async with asyncio.timeout(timeout_s):
                return await future
        except TimeoutError:
            return Unknown("timeout")
        finally:
            self._outstanding.discard(future)

    @property
    def ledger(self) -> LedgerView:
        """The ledger as applied on this node so far, frozen. Callbacks may lag behind it, never run ahead of it."""
        return self._consensus.ledger.view if self._consensus is not None else self._genesis

    async def whole_log(self) -> tuple[LedgerView, list[Command]]:
        """The ledger, and what this node's log has after it: a majority may have committed that too, or may never."""
        loop, consensus = self._loop, self._consensus
        if loop is None or consensus is None or not self._running:
            return self.ledger, []
        told: asyncio.Future[tuple[LedgerView, list[Command]]] = loop.create_future()

        def tell(consensus: Consensus) -> None:
            self._post(_settle, told, (consensus.ledger.view, self._unapplied(consensus)))

        self._requests.append(tell)
        consensus.wake()
        return await told

    @property
    def node_id(self) -> str:
        """This node's name among the members."""
        return self._settings.node_id

    @property
    def is_leader(self) -> bool:
        """Whether this node believes to lead. Two nodes may for a moment: only a claimed epoch proves anything."""
        return self._running and self._consensus is not None and self._consensus.role() == LEADER

    def leader(self) -> str | None:
        """The member this node believes to lead, or None."""
        return self._consensus.leader_name() if self._running and self._consensus is not None else None

    @property
    def term(self) -> int:
        """The current Raft term; a fresh leader may claim an epoch equal to it (terms only grow)."""
        return int(self._consensus.figures()["term"]) if self._consensus is not None else 0

    @property
    def leader_lost_at(self) -> float | None:
        """When the connection to a leader broke last (Unix seconds), None if it never did; for traces only."""
        return self._consensus.leader_lost_at if self._consensus is not None else None

    @property
    def caught_up(self) -> bool:
        """Whether this node has applied everything that its leader, with whom it is in contact, had committed."""
        return self._running and self._consensus is not None and self._consensus.is_caught_up()

    @property
    def fault(self) -> str | None:
        """Why the node stopped taking part, or None while it does."""
        return self._fault

    @property
    def disk_full(self) -> bool:
        """Whether the node stopped because there is no room: then it can be closed and started again."""
        return self._disk_full

    @property
    def _running(self) -> bool:
        return self._thread is not None and self._fault is None

    def on_event(self, callback: EventCallback) -> None:
        """Call back for every event applied on this node, in order, on the event loop. Register before `start`."""
        self._event_callbacks.append(callback)

    def on_leadership(self, callback: LeadershipCallback) -> None:
        """Call back on every change of leadership of this node, on the event loop, in order with the events."""
        self._leadership_callbacks.append(callback)

    def on_fault(self, callback: FaultCallback) -> None:
        """Call back once if the node stops taking part by itself, on the event loop."""
        self._fault_callbacks.append(callback)

    async def transfer_leadership(self, target: str | None, timeout_s: float) -> Transferred | Refused | Unknown:
        """Hand leadership to `target` (None: the most caught-up connected member) and wait until it is elsewhere.

        New proposals are refused (transferring) meanwhile, so that the target can catch up; outstanding
        ones end first. Refused: not_leader, unknown_target, not_caught_up (leadership stays here).
        Unknown("timeout"): look at `leader()`.
        """
        if not self.is_leader:
            return Refused(Reason.NOT_LEADER, f"leader is {self.leader()}")
        if target is not None and (target == self.node_id or target not in self._addresses()):
            return Refused(Reason.UNKNOWN_TARGET, f"{target!r} is not another member")
        if self._transferring:
            return Refused(Reason.TRANSFERRING, "leadership is already being handed over")
        self._transferring = True
        try:
            return await self._transfer(target, timeout_s)
        finally:
            self._transferring = False

    async def _transfer(self, target: str | None, timeout_s: float) -> Transferred | Refused | Unknown:
        asked_at: float | None = None
        try:
            async with asyncio.timeout(timeout_s):
                if self._outstanding:
                    await asyncio.wait(self._outstanding)
                while (leader := self.leader()) is None or leader == self.node_id:
                    now = time.monotonic()
                    if self.is_leader and (asked_at is None or now - asked_at > TRANSFER_ASK_AGAIN_S):
                        chosen = target if target is not None else self._best_successor()
                        if chosen is not None and await self._ask_to_take_over(chosen):
                            asked_at = now
                    await asyncio.sleep(TRANSFER_RETRY_S)
        except TimeoutError:
            if asked_at is not None or not self.is_leader:
                return Unknown("timeout")
            return Refused(
                Reason.NOT_CAUGHT_UP, f"{target or 'no other member'} is not connected or not level with this leader"
            )
        return Transferred(leader, self.term)

    def _best_successor(self) -> str | None:
        candidates = [member for member in self.members() if member.connected and member.id != self.node_id]
        return max(candidates, key=lambda member: (member.match_index or 0, member.id)).id if candidates else None

    async def _ask_to_take_over(self, target: str) -> bool:
        """Send the request if the target's log is level now; whether it was sent."""
        assert self._loop is not None and self._consensus is not None
        loop, asked = self._loop, self._loop.create_future()

        def answer(_: Answer | None, reason: int) -> None:
            loop.call_soon_threadsafe(_settle, asked, reason == SUCCESS)

        self._requests.append(lambda consensus: consensus.hand_over(target, answer))
        self._consensus.wake()
        return bool(await asked)

    def members(self) -> list[Member]:
        """All members, by name."""
        return [self._member(name, address) for name, address in sorted(self._addresses().items())]

    def _addresses(self) -> Mapping[str, str]:
        return self._consensus.membership.addresses if self._consensus is not None else self._settings.peers

    @property
    def membership_version(self) -> int:
        """1 for the members of the settings; grows with every change in this node's log."""
        return self._consensus.membership.version if self._consensus is not None else 1

    async def change_member(self, change: MemberChange, timeout_s: float) -> Refused | Unknown | None:
        """Add a member (which may start before or after) or remove one; None once a majority has agreed.

        Only the leader can, and not while an earlier change is on its way: Refused(not_leader, membership).
        A removed member is not told: it goes on as a follower that nobody listens to, and should be stopped.
        """
        if not self.is_leader or self._loop is None or self._consensus is None:
            return Refused(Reason.NOT_LEADER, f"leader is {self.leader()}")
        agreed: asyncio.Future[Refused | Unknown | None] = self._loop.create_future()

        def answered(_: Answer | None, reason: int) -> None:
            self._post(_settle, agreed, None if reason == SUCCESS else _outcome(None, reason))

        def propose(consensus: Consensus) -> None:
            try:
                consensus.propose_change(change, answered)
            except ChangeRefused as error:
                self._post(_settle, agreed, Refused(Reason.MEMBERSHIP, str(error)))

        self._requests.append(propose)
        self._consensus.wake()
        try:
            async with asyncio.timeout(timeout_s):
                return await agreed
        except TimeoutError:
            return Unknown("timeout")

    def _member(self, name: str, address: str) -> Member:
        consensus = self._consensus
        if consensus is None or not self._running:
            return Member(name, address, True, False, None, None)
        last = int(consensus.figures()["last_index"])
        if name == self.node_id:
            match: int | None = last if self.is_leader else None
            connected = True
        else:
            match = consensus.match_index(name)
            connected = name in consensus.transport.connected()
        return Member(name, address, True, connected, match, None if match is None else max(0, last - match))

    def status(self) -> dict[str, Any]:
        """JSON-able: node, role, leader, term, commit_index, last_applied, log entries and bytes, connected, fault …"""
        consensus, view = self._consensus, self.ledger
        status: dict[str, Any] = {
            "node": self.node_id,
            "role": ROLES[consensus.role()] if consensus is not None and self._running else "stopped",
            "leader": self.leader(),
            "caught_up": self.caught_up,
            "fault": self._fault,
            "epoch": view.epoch,
            "owner": view.owner,
            "head_number": view.head_number,
            "open_number": view.open.number if view.open is not None else None,
            "open_last_index": view.open.last_index if view.open is not None else None,
            "proposals_outstanding": len(self._outstanding),
        }
        if consensus is not None and self._running:
            status["connected"] = sorted(consensus.transport.connected())
            status |= consensus.figures()
        return status

    # The Raft thread.

    def _run(self, consensus: Consensus) -> None:
        fault: str | None = None
        try:
            while not self._stop.is_set():
                while self._requests:
                    self._requests.popleft()(consensus)
                consensus.tick()
        except (StorageError, OSError) as error:
            fault = f"{type(error).__name__}: {error}"
            self._disk_full = is_disk_full(error)
            _log.error("raft node %s stops: %s", self.node_id, fault)
        except Exception as error:
            fault = f"{type(error).__name__}: {error}"
            _log.exception("raft node %s stops because of a bug", self.node_id)
        finally:
            if fault is not None:
                self._fault = fault
            consensus.shut_down()
            if fault is not None:
                self._post(self._on_fault, fault)

    def on_event_applied(self, event: Event, replayed: bool) -> None:
        """Raft thread: the ledger applied something."""
        self._post(self._tell_event, event, replayed)

    def on_role_changed(self, leading: bool, term: int) -> None:
        """Raft thread: leadership of this node changed."""
        self._post(self._tell_role, leading, term)

    def _on_answer(self, future: asyncio.Future[Outcome], answer: Answer | None, reason: int) -> None:
        self._post(_settle, future, _outcome(answer, reason))

    def _post(self, function: Callable[..., None], *arguments: Any) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            # The loop is closed: nobody is left to be told.
            self._stop.set()

    def _unapplied(self, consensus: Consensus) -> list[Command]:
        applied, log = int(consensus.figures()["last_applied"]), self._journal
        assert log is not None
        entries = [log[position] for position in range(len(log)) if log[position][1] > applied]
        return [decode_command(entry[0][1:]) for entry in entries if entry[0][:1] == REGULAR]

    # Back on the event loop.

    def _tell_event(self, event: Event, replayed: bool) -> None:
        for callback in self._event_callbacks:
            callback(event, replayed)

    def _tell_role(self, leading: bool, term: int) -> None:
        if not leading:
            self._settle_outstanding(Unknown("leadership_lost"))
        for callback in self._leadership_callbacks:
            callback(leading, term)

    def _on_fault(self, fault: str) -> None:
        self._settle_outstanding(Unknown("closed"))
        for tell_leadership in self._leadership_callbacks:
            tell_leadership(False, self.term)
        for tell_fault in self._fault_callbacks:
            tell_fault(fault)

    def _settle_outstanding(self, outcome: Outcome) -> None:
        for future in list(self._outstanding):
            _settle(future, outcome)


def _settle(future: asyncio.Future[Any], outcome: Any) -> None:
    if not future.done():
        future.set_result(outcome)


def _outcome(answer: Answer | None, reason: int) -> Outcome:
    """The library's callback as one of the three outcomes."""
    if reason == SUCCESS and answer is not None:
        return answer
    if reason == QUEUE_FULL:
        return Refused(Reason.QUEUE_FULL, "too many proposals wait")
    if reason in (NOT_LEADER, MISSING_LEADER):
        return Refused(Reason.NOT_LEADER, "leadership ended before the command entered the log")
    return Unknown(UNKNOWN_REASONS.get(reason, "leader_changed"))
