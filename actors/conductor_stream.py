"""The conductor's data path: rollup-boost's flashblocks into the ledger, the ledger's commits out to the world.

The public stream is fed from the ledger's events and from nothing else: what is published is committed.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, Protocol

import msgspec

from actors import fault_points
from actors.conductor_commit import append_command, appended_frame
from actors.conductor_trace import ConductorTrace
from actors.fanout import Query
from actors.frame_link import FrameClient, FrameServer
from flashblocks.conductor.publishing import Publisher, frames_from, frames_to_republish, open_frames
from flashblocks.wire.frames import (
    CommittedFrame,
    FlashblockFrame,
    Frame,
    LeadershipFrame,
    RefusedFrame,
    SealedFrame,
)
from raft.commands import (
    Accepted,
    Appended,
    Claimed,
    Command,
    Event,
    Refused,
    Restored,
    Sealed,
)
from raft.node import Outcome
from raft.view import LedgerView

APPEND_S_MAX = 2.0


class Ledgers(Protocol):
    """Where flashblocks are committed: Raft, or this node alone by an operator's word."""

    @property
    def ledger(self) -> LedgerView:
        """The ledger that counts."""

    @property
    def is_leader(self) -> bool:
        """Whether this node leads."""

    async def propose(self, command: Command, timeout_s: float) -> Outcome:
        """Have a command committed."""


class Stream:
    """Connects one rollup-boost, the ledger and the public server. Everything here runs on the event loop."""

    def __init__(self, raft: Ledgers, node: str, log: Any, trace: ConductorTrace) -> None:
        self.publisher = Publisher(node)
        self.published = 0
        self.last_published: tuple[int, int] | None = None
        self._raft = raft
        self._node = node
        self._log, self._trace = log, trace
        trace.failover.on_finished = lambda told: log.info("failover over", **told)
        self._server: FrameServer | None = None
        self._boost: FrameClient | None = None
        self._offers: set[asyncio.Task[None]] = set()
        self._behind = True

    def bind(self, server: FrameServer, boost: FrameClient) -> None:
        """Say where frames go: the public stream and the own rollup-boost."""
        self._server, self._boost = server, boost

    def greet(self, query: Query) -> list[FlashblockFrame]:
        """What a new subscriber is owed: what it asked for, or the open block from the node that publishes it."""
        view = self._raft.ledger
        if query.start is not None:
            return frames_from(view, *query.start)
        return open_frames(view) if self.publisher.epoch is not None else []

    def on_boost(self, up: bool) -> None:
        """The link to rollup-boost came up: tell it who leads and what is committed of the open block."""
        if up:
            self._tell_leadership()
            self._tell_open_block()

    def on_leadership_lost(self) -> None:
        """Stop publishing and stop taking offers, at once."""
        self.publisher.on_leadership_lost()
        self._tell_leadership()

    def on_event(self, event: Event, replayed: bool) -> None:
        """The ledger applied something on this node."""
        if replayed:
            self._behind = True
            return
        if self._behind or isinstance(event, Restored):
            self._behind = False
            self._tell_leadership()
            self._tell_open_block()
        if isinstance(event, Appended):
            self._on_appended(event)
        elif isinstance(event, Claimed):
            self._on_claimed(event)
        elif isinstance(event, Sealed):
            fault_points.reach(fault_points.DURING_SEAL)
            self._send(SealedFrame(event.number, event.block_hash))

    def _on_appended(self, event: Appended) -> None:
        frame = appended_frame(event)
        began, published = time.time(), self.publisher.publishes(event.epoch, event.node)
        if published:
            fault_points.reach(fault_points.BEFORE_PUBLISH)
            self._publish(frame)
            fault_points.reach(fault_points.AFTER_PUBLISH)
        ended = time.time()
        self._send(CommittedFrame(frame))
        if published:
            self._trace.published(frame, began, ended)

    def _on_claimed(self, event: Claimed) -> None:
        if self.publisher.on_claimed(event.epoch, event.node, self._raft.is_leader):
            frames = frames_to_republish(self._raft.ledger, event.epoch)
            trace_id = self._trace.failover.trace_id(event.epoch)
            self._log.info("epoch claimed", epoch=event.epoch, republished=len(frames), trace_id=trace_id)
            for frame in frames:
                self._publish(frame)
        self._tell_leadership()

    def offer(self, frame: FlashblockFrame) -> None:
        """Rollup-boost offers a judged flashblock: propose it in our epoch, or refuse it."""
        epoch = self.publisher.epoch
        if epoch is None:
            self._refuse(frame, "not_leader")
            return
        task = asyncio.create_task(self._propose(frame, epoch), name=f"append {frame.number}.{frame.index}")
        self._offers.add(task)
        task.add_done_callback(self._offers.discard)

    async def _propose(self, frame: FlashblockFrame, epoch: int) -> None:
        command = append_command(epoch, self._node, frame)
        self._trace.offered(frame)
        fault_points.reach(fault_points.BEFORE_APPEND)
        outcome = await self._raft.propose(command, APPEND_S_MAX)
        if isinstance(outcome, Refused):
            self._trace.refused(frame, outcome.reason.value)
            self._log.warning(
                "flashblock refused",
                block=frame.number,
                index=frame.index,
                reason=outcome.reason,
                detail=outcome.detail,
                traceparent=frame.traceparent,
            )
            self._refuse(frame, outcome.reason.value)
        elif isinstance(outcome, Accepted):
            if outcome.duplicate:  # there is no event for what was committed before
                self._send(CommittedFrame(msgspec.structs.replace(frame, epoch=epoch)))
        else:
            # Unknown is not refused: the commit, or the next leadership, will tell rollup-boost what became of it.
            self._log.warning(
                "flashblock unknown",
                block=frame.number,
                index=frame.index,
                reason=outcome.reason,
                traceparent=frame.traceparent,
            )

    async def close(self) -> None:
        """End what is under way."""
        offers = list(self._offers)
        for task in offers:
            task.cancel()
        await asyncio.gather(*offers, return_exceptions=True)

    def _publish(self, frame: FlashblockFrame) -> None:
        if self._server is not None:
            self._server.publish(frame)
        self.published += 1
        self.last_published = frame.key

    def _refuse(self, frame: FlashblockFrame, reason: str) -> None:
        self._send(RefusedFrame(frame.number, frame.index, frame.payload_id, reason))

    def _tell_leadership(self) -> None:
        epoch = self.publisher.epoch
        self._send(LeadershipFrame(self._raft.ledger.epoch if epoch is None else epoch, epoch is not None))

    def _tell_open_block(self) -> None:
        for frame in open_frames(self._raft.ledger):
            self._send(CommittedFrame(frame))

    def _send(self, frame: Frame) -> None:
        if self._boost is not None:
            self._boost.send(frame)
