"""One member of the Raft group, as an asyncio program sees it: propose, be told, hand leadership on.

The consensus itself runs in a thread of its own; everything public here belongs to the event loop that called
`start`. A proposal has three outcomes that are never folded into each other: done (Accepted), refused
(Refused: certainly no effect), and unknown (Unknown: it may or may not take effect, now or later).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from raft.ledger import Accepted, Command, Event, LedgerView, Refused
from raft.settings import RaftSettings


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

    async def start(self) -> None:
        """Open journal and snapshot, bind the port, start the thread; does not wait for other members.

        Raises JournalDamaged (then `journal.move_aside` and start again), JournalFull, or OSError (port in use,
        directory locked by another process).
        """
        raise NotImplementedError

    async def close(self) -> None:
        """Stop; outstanding proposals end as Unknown("closed"). Idempotent; leaves no thread, port or task."""
        raise NotImplementedError

    async def propose(self, command: Command, timeout_s: float) -> Outcome:
        """Have the command committed and applied; its answer, decided by the ledger on a majority.

        On a node that does not lead the answer is Refused(not_leader): a command is never forwarded.
        """
        raise NotImplementedError

    @property
    def ledger(self) -> LedgerView:
        """The ledger as applied on this node so far, frozen. Callbacks may lag behind it, never run ahead of it."""
        raise NotImplementedError

    @property
    def node_id(self) -> str:
        """This node's name among the members."""
        return self._settings.node_id

    @property
    def is_leader(self) -> bool:
        """Whether this node believes to lead. Two nodes may for a moment: only a claimed epoch proves anything."""
        raise NotImplementedError

    def leader(self) -> str | None:
        """The member this node believes to lead, or None."""
        raise NotImplementedError

    @property
    def term(self) -> int:
        """The current Raft term; a fresh leader may claim an epoch equal to it (terms only grow)."""
        raise NotImplementedError

    @property
    def caught_up(self) -> bool:
        """Whether this node has applied everything that its leader, with whom it is in contact, had committed."""
        raise NotImplementedError

    @property
    def fault(self) -> str | None:
        """Why the node stopped taking part, or None while it does."""
        raise NotImplementedError

    def on_event(self, callback: EventCallback) -> None:
        """Call back for every event applied on this node, in order, on the event loop. Register before `start`."""
        raise NotImplementedError

    def on_leadership(self, callback: LeadershipCallback) -> None:
        """Call back on every change of leadership of this node, on the event loop, in order with the events."""
        raise NotImplementedError

    def on_fault(self, callback: FaultCallback) -> None:
        """Call back once if the node stops taking part by itself, on the event loop."""
        raise NotImplementedError

    async def transfer_leadership(self, target: str | None, timeout_s: float) -> Transferred | Refused | Unknown:
        """Hand leadership to `target` (None: the most caught-up connected member) and wait until it is elsewhere.

        New proposals are refused (transferring) meanwhile, so that the target can catch up; outstanding
        ones end first. Refused: not_leader, unknown_target, not_caught_up (leadership stays here).
        Unknown("timeout"): look at `leader()`.
        """
        raise NotImplementedError

    def members(self) -> list[Member]:
        """All members, by name."""
        raise NotImplementedError

    def status(self) -> dict[str, Any]:
        """JSON-able: node, role, leader, term, commit_index, last_applied, log entries and bytes, connected, fault …"""
        raise NotImplementedError
