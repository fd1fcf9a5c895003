"""`conductor_overrideLeader`: the operator's word that this group goes on without a majority, and the way back.

Everything of the conductor that reads the ledger or has something committed goes through here. As long as there is no
override that is Raft. While one is in force it is a copy of the ledger of this node alone: flashblocks and blocks are
accepted by the same rules and published in the epoch of the last majority, continuing what was streamed, and every
later leader's claim fences them. They are safe against nothing: one process has them.

When a majority is back, its leader hands leadership here before it claims an epoch (`Conductor._claim_epoch`), and
what was made alone is committed under this node's own claim. If another one claims nevertheless, its word counts: what
it contradicts is replaced, which is logged block by block.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from actors.conductor_commit import COMMIT_S_MAX, is_final, readmission
from raft.alone import AloneLedger
from raft.commands import Accepted, Claimed, Command, Event
from raft.node import EventCallback, Outcome
from raft.view import LedgerView

if TYPE_CHECKING:
    from actors.conductor import Conductor

REMINDER_S: Final = 10.0
"""How often the log says that no majority stands behind what is published."""
BEGIN_WAIT_S_MAX: Final = 3.0
"""How long a leader that lost its majority may take to notice: the lease is well below a second."""
BEGIN_POLL_S: Final = 0.05
RETRY_S: Final = 0.05


class Override:
    """One conductor's override. `wanted` is what the operator said last, `in_force` whether it has an effect."""

    def __init__(self, conductor: Conductor) -> None:
        self._conductor = conductor
        self._raft, self._log = conductor.raft, conductor.log
        self._node = conductor.settings.name
        self._hears: list[EventCallback] = []
        self._hears_leadership: list[Callable[[bool, int], None]] = []
        self._changing = asyncio.Lock()
        self._reminded_at = 0.0
        self.wanted = self.in_force = False
        self.alone: AloneLedger | None = None
        """What was made without a majority and is not yet taken in by one; kept when the override ends before that."""
        self.returning = False
        self._raft.on_event(self._on_event)
        self._raft.on_leadership(self._on_leadership)

    def on_event(self, callback: EventCallback) -> None:
        """Call back for every event of the ledger that counts: Raft's, or the one of this node alone."""
        self._hears.append(callback)

    def on_leadership(self, callback: Callable[[bool, int], None]) -> None:
        """Call back when Raft gives or takes leadership, while its word counts."""
        self._hears_leadership.append(callback)

    # The ledger that counts

    @property
    def ledger(self) -> LedgerView:
        """The ledger that counts here."""
        return self.alone.view if self.alone is not None and self.in_force else self._raft.ledger

    @property
    def is_leader(self) -> bool:
        """Whether this node leads, by Raft's word or by the operator's."""
        return self.in_force or self._raft.is_leader

    @property
    def changing(self) -> bool:
        """Whether an override begins or ends just now: the control loop waits, leadership is not to be handed on."""
        return self._changing.locked() or (self.alone is not None and self._raft.is_leader)

    @property
    def epoch_min(self) -> int:
        """The lowest epoch that is above everything published from here."""
        return max(self._raft.ledger.epoch, 0 if self.alone is None else self.alone.epoch) + 1

    async def propose(self, command: Command, timeout_s: float) -> Outcome:
        """Have a command committed; alone, it is as soon as the ledger's rules accept it."""
        if self.alone is None or not self.in_force:
            return await self._raft.propose(command, timeout_s)
        answer, events = self.alone.apply(command)
        for event in events:
            self._tell(event)
        return answer

    def adopt(self, number: int, block_hash: bytes) -> bool:
        """The op-node has blocks that are not here, as after a restart of its conductor: go on from there."""
        assert self.alone is not None
        self._log.error("OVERRIDE: going on from the op-node's head", block=number, ledger=self.ledger.head_number)
        self.alone.begin_at(number, block_hash)
        return True

    # The operator's word

    async def set(self, wanted: bool) -> None:
        """What `conductor_overrideLeader` says; returns when it has its effect."""
        async with self._changing:
            self._log.error("LEADER OVERRIDE: no majority stands behind this node's answers", override=wanted)
            if wanted and not self.in_force:
                self.wanted = True
                await self._begin()
            elif not wanted and self.wanted:
                await self._end()

    async def _begin(self) -> None:
        if await self._majority():
            self._log.error("OVERRIDE without effect on the chain: a majority is there", leader=self._raft.leader())
            return
        if self.alone is None:
            async with asyncio.timeout(BEGIN_WAIT_S_MAX):
                view, log = await self._raft.whole_log()
            self.alone = AloneLedger(view, log, self._node)
        self._announce()

    async def _majority(self) -> bool:
        """Whether somebody leads with a majority; a leader that has just lost it gets the time to notice."""
        deadline = time.monotonic() + BEGIN_WAIT_S_MAX
        while self._raft.leader() is not None:
            members = self._raft.members()
            if 2 * sum(member.connected for member in members) > len(members) or time.monotonic() > deadline:
                return True
            await asyncio.sleep(BEGIN_POLL_S)
        return False

    def _announce(self) -> None:
        """Lead alone: everybody in this group hears what it would hear of a claim."""
        assert self.alone is not None
        self.in_force = True
        view = self.alone.view
        index = None if view.open is None else view.open.last_index
        self._log.error("OVERRIDE IN FORCE", epoch=view.epoch, sealed=view.head_number, open_index=index)
        self._reminded_at = time.monotonic()
        self._conductor.control.on_leadership(True)
        self._tell(Claimed(self.alone.epoch, self._node))
        self._conductor.stream.on_boost(self._conductor.boost.connected)

    async def _end(self) -> None:
        """Stop; what was made alone is kept until a majority takes it in, or contradicts it."""
        if self.in_force:
            await self._conductor.stop_sequencer()
            self.in_force = False
            self._step_down()
        self.wanted = False
        self._log.error("OVERRIDE ENDED", kept_to=None if self.alone is None else self.alone.view.head_number)

    def _step_down(self) -> None:
        self._conductor.control.on_active(False)
        self._conductor.control.on_leadership(self._raft.is_leader)
        self._conductor.stream.on_leadership_lost()
        self._conductor.watchdog.on_follower()

    def remind(self, now: float) -> None:
        """Say from time to time that the override is still in force."""
        if self.in_force and now - self._reminded_at >= REMINDER_S:
            self._reminded_at = now
            view = self.ledger
            self._log.error("OVERRIDE STILL IN FORCE: no majority has this", sealed=view.head_number, epoch=view.epoch)

    # Raft's word

    def _tell(self, event: Event, replayed: bool = False) -> None:
        for callback in self._hears:
            callback(event, replayed)

    def _on_event(self, event: Event, replayed: bool) -> None:
        if self.alone is None:
            self._tell(event, replayed)
        elif isinstance(event, Claimed) and event.node == self._node:
            if event.epoch > self.alone.epoch and not replayed:
                self._conductor.begin(self._return(event, self.alone), "end the override")
        elif event.node == self._node and self.returning:
            pass  # what is taken in here was published long ago
        elif not self.alone.agrees(event):
            self._contradicted(event, self.alone)
            self._tell(event, replayed)

    def _on_leadership(self, leading: bool, term: int) -> None:
        if not self.in_force:
            for callback in self._hears_leadership:
                callback(leading, term)
            return
        self._log.error("OVERRIDE: leadership while this node goes on alone", leading=leading, term=term)
        self._conductor.on_news_of_leadership(leading)

    def _contradicted(self, event: Event, alone: AloneLedger) -> None:
        """A majority goes on without what was made here: its word counts."""
        was_in_force = self.in_force
        self.alone, self.in_force, self.wanted = None, False, False
        self._log.error(
            "OVERRIDE ENDED BY A MAJORITY: blocks made alone are replaced",
            first=alone.began_at + 1,
            last=alone.view.head_number,
            open_index=None if alone.view.open is None else alone.view.open.last_index,
            epoch=event.epoch,
            leader=event.node,
        )
        if was_in_force:
            active = self._conductor.control.active
            self._step_down()
            self._conductor.control.on_active(active)  # the control loop stops it
        self._conductor.sequencer.want_level()

    async def _return(self, claimed: Claimed, alone: AloneLedger) -> None:
        """Our claim is committed by a majority: have it take in what was made alone, and lead as anybody does."""
        async with self._changing:
            if self.alone is not alone or self.returning:
                return
            self.returning = True
            try:
                if self.in_force:
                    await self._conductor.stop_sequencer()
                    self._step_down()
                complete = await self._take_in(claimed.epoch, alone)
                while complete is None and self._raft.is_leader and self.alone is alone:
                    await asyncio.sleep(RETRY_S)
                    complete = await self._take_in(claimed.epoch, alone)
            finally:
                self.returning = False
            if self.alone is not alone:
                return
            if complete is None:
                self._log.error("OVERRIDE: the majority is gone again", in_force=self.in_force)
                if self.in_force:
                    self._announce()
                return
            self.alone, self.in_force, self.wanted = None, False, False
            self._log.error("OVERRIDE ENDED: a majority is back", epoch=claimed.epoch, complete=complete)
            self._tell(claimed)
            self._conductor.sequencer.want_level()

    async def _take_in(self, epoch: int, alone: AloneLedger) -> bool | None:
        """Whether all of it is committed now; None where that is not known and may be tried again."""
        first = self._raft.ledger.head_number + 1
        async for number, command in readmission(alone, first, epoch, self._node, self._conductor.adoption.fetch):
            outcome = None if command is None else await self._raft.propose(command, COMMIT_S_MAX)
            if isinstance(outcome, Accepted):
                continue
            if outcome is not None and not is_final(outcome):
                return None
            last = alone.view.head_number
            self._log.error("OVERRIDE: not taken in, to be replaced", block=number, last=last, outcome=str(outcome))
            return False
        self._log.error("OVERRIDE: what was made alone is taken in", first=first, last=alone.view.head_number)
        return True
