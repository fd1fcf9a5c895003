"""The conductor: the real control table, health, watchdog, candidates, catch-up and publisher around the model of Raft.

Wired as `actors.conductor` and its neighbours do it, event by event.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from actors.conductor import CLAIM_RETRY_S, CLAIM_S_MAX, TICK_S, TRANSFER_S_MAX
from actors.conductor_commit import COMMIT_S_MAX, append_command, appended_frame, seal_command
from actors.conductor_peers import ASK_INTERVAL_S as PEERS_INTERVAL_S
from actors.conductor_peers import ASK_S_MAX as PEERS_S_MAX
from actors.conductor_rpc import LEADER_REASONS, LEADERSHIP_LOST, MISMATCHES, NOT_LEADER
from actors.conductor_sequencer import (
    ASK_S_MAX,
)
from actors.conductor_stream import APPEND_S_MAX
from chaos.simulation.consensus import Consensus
from chaos.simulation.kernel import Event as Flag
from chaos.simulation.kernel import Lock, Process, Task
from chaos.simulation.network import CallRefused, CallUnknown, Connection, Link, Network
from chaos.simulation.schedule import AFTER_PUBLISH, BEFORE_APPEND, BEFORE_PUBLISH, DURING_SEAL
from chaos.simulation.sequencer_handle import SequencerHandle
from flashblocks.conductor.candidates import Candidate, Report, candidates
from flashblocks.conductor.control import Action, Control, Decision
from flashblocks.conductor.health import Health, HealthLimits, HealthMonitor, Readiness, Sickness
from flashblocks.conductor.publishing import Publisher, frames_from, frames_to_republish, open_frames
from flashblocks.conductor.watchdog import ProgressWatchdog
from flashblocks.sequencing.driver import OpenBlock
from flashblocks.wire.assembly import attributes_of
from flashblocks.wire.engine import Envelope
from flashblocks.wire.flashblock import decode_body
from flashblocks.wire.frames import (
    CommittedFrame,
    FlashblockFrame,
    Frame,
    HealthFrame,
    LeadershipFrame,
    RefusedFrame,
    SealedFrame,
)
from raft.commands import Accepted, Appended, Claim, Claimed, Event, Reason, Refused, Restored, Sealed
from raft.node import Transferred
from raft.view import SealedBlock

HEALTH_INTERVAL_S = 0.25
SILENCE_S_MAX = 1.0


class Conductor:
    """One conductor. `flashblock_s` and `block_s` are the cadence of the chain."""

    def __init__(
        self,
        network: Network,
        process: Process,
        name: str,
        raft: Consensus,
        members: list[str],
        publisher: Publisher,
        cadence_s: tuple[float, float],
        clock_skew: list[float],
    ) -> None:
        self.name, self.raft = name, raft
        self.network, self.process = network, process
        self.control = Control()
        self.health = HealthMonitor(HealthLimits(silence_s_max=SILENCE_S_MAX, min_peer_count=min(1, len(members) - 1)))
        self.watchdog = ProgressWatchdog(*cadence_s)
        self.publisher = publisher
        self._boost_slot = f"{name}/rollup-boost"
        self._peers = [member for member in members if member != name]
        self._reports: dict[str, Report] = {}
        self._skew = clock_skew
        self._claims_without_commit = 0
        self._leadership = 0
        self._action: Task | None = None
        self._transferring = Lock(process)
        self.sequencer = SequencerHandle(
            network,
            process,
            f"{name}/op-node",
            lambda: raft.ledger,
            lambda: self.control.active and self.control.leader,
            self._on_pushed,
        )
        self._poll_wanted = Flag(process)
        self._boost: Link | None = None
        self._subscribers: list[Connection] = []
        self._behind = True
        self.on_stage: Callable[[str], None] = lambda stage: None
        raft.on_event = self._on_event
        raft.on_leadership = self._on_leadership

    def start(self) -> None:
        """Join the group and conduct."""
        self.raft.start()
        self.network.watch(self.process, f"{self.name}/op-node", self._on_op_node)
        self._boost = Link(self.network, self.process, self._boost_slot, self._on_boost_frame, self._on_boost)
        for work in (self.sequencer.keep_level(), self._keep_polling_op_node(), self._keep_polling_boost()):
            self.process.spawn(work)
        for peer in self._peers:
            self.process.spawn(self._keep_asking(peer))
        self.process.every(TICK_S, self._tick)
        self.sequencer.want_level()

    def on_raft(self, method: str, arguments: tuple[Any, ...]) -> None:
        """A message of another member."""
        self.raft.receive(method, arguments)

    @property
    def _now(self) -> float:
        return self.process.clock.now

    # Events

    def _on_event(self, event: Event, replayed: bool) -> None:
        if isinstance(event, Claimed):
            self._claims_without_commit += 1
        elif isinstance(event, Appended | Sealed):
            self._claims_without_commit = 0
        self._stream_event(event, replayed)
        if replayed and not isinstance(event, Restored):
            return
        if isinstance(event, Claimed):
            if event.epoch == self.publisher.epoch:
                self.control.on_claimed()
                self.watchdog.on_leading(self._now, self._claims_without_commit - 1)
            else:
                self.watchdog.on_follower()
        elif isinstance(event, Appended | Sealed) and event.node == self.name:
            self.watchdog.on_commit(self._now)
        if not isinstance(event, Claimed | Appended):
            self.sequencer.want_level()
        self._look()

    def _on_leadership(self, leading: bool, term: int) -> None:
        self._leadership += 1
        self.control.on_leadership(leading)
        busy = self.control.busy
        if leading and self._action is not None and busy is not None and busy.action is Action.STOP:
            self._action.cancel()
            self._ended(False)
        if leading:
            self.process.spawn(self._claim_epoch(self._leadership))
        else:
            self.publisher.on_leadership_lost()
            self._tell_leadership()
            self.watchdog.on_follower()
        self._look()

    async def _claim_epoch(self, leadership: int) -> None:
        while self.raft.is_leader and leadership == self._leadership:
            epoch = max(self.raft.ledger.epoch + 1, self.raft.term)
            outcome = await self.raft.propose(Claim(epoch, self.name), CLAIM_S_MAX)
            if isinstance(outcome, Accepted):
                return
            if isinstance(outcome, Refused) and outcome.reason is Reason.STALE_EPOCH:
                continue
            await self.process.sleep(CLAIM_RETRY_S)

    def _on_op_node(self, up: bool) -> None:
        self.sequencer.up = up
        self.health.on_op_node(self._now, up)
        if up:
            self._poll_wanted.set()
            self.sequencer.want_level()
        else:
            self.control.on_active(False)
        self._look()

    def _on_boost(self, up: bool) -> None:
        if up:
            self._tell_leadership()
            self._tell_open_block()
        else:
            self.health.on_rollup_boost(self._now, None)
        self._look()

    def _on_boost_frame(self, frame: Frame) -> None:
        if isinstance(frame, FlashblockFrame):
            self._offer(frame)
        elif isinstance(frame, HealthFrame):
            self._on_boost_status(frame.status)

    def _on_boost_status(self, status: int) -> None:
        self.health.on_rollup_boost(self._now, status)
        self.watchdog.builder = status == 200
        self._look()

    # Decisions

    def _tick(self) -> None:
        self._look()

    def _look(self) -> None:
        now = self._now
        self.health.on_ledger(now, self.raft.ledger.head_number)
        self.control.on_health(self._verdict(now))
        if self._action is not None:
            return
        decision = self.control.next(now, self._candidates(now) if self.control.leader else [])
        if decision is not None:
            self._action = self.process.spawn(self._act(decision))
            if self._action.done:
                self._action = None

    def _candidates(self, now: float) -> list[Candidate]:
        return candidates(now, self.raft.voters(), self._reports.values())

    def _verdict(self, now: float) -> Health:
        verdict = self.health.health(now)
        if self.watchdog.stuck(now) and not self.control.paused:
            return Health(Sickness.NO_PROGRESS, min(verdict.readiness, Readiness.BEHIND, key=lambda r: r.value))
        return verdict

    async def _act(self, decision: Decision) -> None:
        await self.process.sleep(0.0)
        self._ended(await self._carry_out(decision))

    def _ended(self, ok: bool) -> None:
        self._action = None
        self.control.on_done(self._now, ok, self.process.clock.draw())
        self._look()

    async def _carry_out(self, decision: Decision) -> bool:
        if decision.action is Action.START:
            return await self.sequencer.start()
        if decision.action is Action.STOP:
            return await self.sequencer.stop()
        ok = await self._transfer(decision.target)
        if decision.action is Action.STOP_AND_TRANSFER and (ok or not self.raft.is_leader):
            self.control.on_active(not await self.sequencer.stop())
        return ok

    async def _transfer(self, target: str | None) -> bool:
        async with self._transferring:
            if not self.raft.is_leader:
                return True
            if target is None:
                judged = self._candidates(self._now)
                target = judged[0].node if judged else None
            outcome = await self.raft.transfer_leadership(target, TRANSFER_S_MAX)
            ok = isinstance(outcome, Transferred) or not self.raft.is_leader
            if not ok and self._boost is not None and self._boost.connected:
                self._tell_leadership()
                self._tell_open_block()
            return ok

    async def operator_transfers(self) -> None:
        """conductor_transferLeader."""
        if self.raft.is_leader:
            await self._transfer(None)

    def _on_pushed(self, block: SealedBlock) -> None:
        self.health.on_head(self._now, block.number, self._now)
        self._look()

    # What only a question can tell

    async def _call(self, slot: str, method: str, *arguments: Any, timeout_s: float) -> Any:
        return await self.network.call(self.process, slot, method, *arguments, timeout_s=timeout_s)

    async def _keep_polling_op_node(self) -> None:
        while True:
            await self._poll_wanted.wait(HEALTH_INTERVAL_S)
            self._poll_wanted.clear()
            if self.sequencer.up:
                await self._poll_op_node()

    async def _poll_op_node(self) -> None:
        asked = self.control.actions
        try:
            number, _, timestamp, _, peers, active = await self.sequencer.ask()
        except (CallRefused, CallUnknown):
            return
        head_time = timestamp - self._skew[0]  # block times are of the wall clock, which may jump
        self.health.on_op_node_answer(self._now, number, head_time, peers, head_time)
        self.watchdog.on_head(head_time)
        if self._action is None and asked == self.control.actions:
            self.control.on_active(active)
        if number < self.raft.ledger.head_number:
            self.sequencer.want_level()
        self._look()

    async def _keep_polling_boost(self) -> None:
        while True:
            await self.process.sleep(HEALTH_INTERVAL_S)
            if self._boost is None or not self._boost.connected:
                continue
            try:
                status = await self._call(self._boost_slot, "healthz", timeout_s=ASK_S_MAX)
            except (CallRefused, CallUnknown):
                continue
            if self._boost.connected:
                self._on_boost_status(status)

    async def _keep_asking(self, peer: str) -> None:
        while True:
            try:
                readiness, head = await self._call(f"{peer}/conductor", "readiness", timeout_s=PEERS_S_MAX)
                self._reports[peer] = Report(
                    node=peer, readiness=readiness, head_number=head, paused=False, received_at=self._now
                )
            except (CallRefused, CallUnknown):
                self._reports.pop(peer, None)
            await self.process.sleep(PEERS_INTERVAL_S)

    # RPC

    def leads(self) -> bool:
        """conductor_leader."""
        return self.raft.is_leader

    def readiness(self) -> tuple[Readiness, int]:
        """flashblocks_readiness."""
        return self.control.readiness, self.health.head_number

    def open_block(self) -> OpenBlock | None:
        """flashblocks_openBlock."""
        if self.publisher.epoch is None:
            raise CallRefused(NOT_LEADER)
        block = self.raft.ledger.open
        if block is None:
            return None
        attributes = attributes_of(decode_body(block.entries[0].body))
        return OpenBlock(block.number, block.payload_id, block.parent_hash, attributes, block.last_index)

    async def commit_unsafe_payload(self, envelope: Envelope) -> None:
        """conductor_commitUnsafePayload."""
        epoch = self.publisher.epoch
        if epoch is None:
            raise CallRefused(NOT_LEADER)
        command = seal_command(self.raft.ledger, epoch, self.name, envelope)
        if command is None:
            raise CallRefused("prefix mismatch")
        outcome = await self.raft.propose(command, COMMIT_S_MAX)
        if isinstance(outcome, Accepted):
            return
        if not isinstance(outcome, Refused):
            raise CallRefused("timed out enqueuing operation" if outcome.reason == "timeout" else LEADERSHIP_LOST)
        if outcome.reason in MISMATCHES:
            raise CallRefused(f"prefix mismatch: {outcome.detail}")
        raise CallRefused(NOT_LEADER if outcome.reason in LEADER_REASONS else f"{outcome.reason}: {outcome.detail}")

    # The stream: `actors.conductor_stream`

    def _stream_event(self, event: Event, replayed: bool) -> None:
        if replayed:
            self._behind = True
            return
        if self._behind or isinstance(event, Restored):
            self._behind = False
            self._tell_leadership()
            self._tell_open_block()
        if isinstance(event, Appended):
            frame = appended_frame(event)
            if self.publisher.publishes(event.epoch, event.node):
                self.on_stage(BEFORE_PUBLISH)
                self._publish(frame)
                self.on_stage(AFTER_PUBLISH)
            self._to_boost(CommittedFrame(frame))
        elif isinstance(event, Claimed):
            if self.publisher.on_claimed(event.epoch, event.node, self.raft.is_leader):
                for frame in frames_to_republish(self.raft.ledger, event.epoch):
                    self._publish(frame)
            self._tell_leadership()
        elif isinstance(event, Sealed):
            if event.node == self.name:
                self.on_stage(DURING_SEAL)
            self._to_boost(SealedFrame(event.number, event.block_hash))

    def _offer(self, frame: FlashblockFrame) -> None:
        epoch = self.publisher.epoch
        if epoch is None:
            self._to_boost(RefusedFrame(frame.number, frame.index, frame.payload_id, "not_leader"))
            return
        self.process.spawn(self._propose(frame, epoch))

    async def _propose(self, frame: FlashblockFrame, epoch: int) -> None:
        command = append_command(epoch, self.name, frame)
        self.on_stage(BEFORE_APPEND)
        outcome = await self.raft.propose(command, APPEND_S_MAX)
        if isinstance(outcome, Refused):
            self._to_boost(RefusedFrame(frame.number, frame.index, frame.payload_id, outcome.reason.value))
        elif isinstance(outcome, Accepted) and outcome.duplicate:
            self._to_boost(CommittedFrame(msgspec.structs.replace(frame, epoch=epoch)))

    def _tell_leadership(self) -> None:
        epoch = self.publisher.epoch
        self._to_boost(LeadershipFrame(self.raft.ledger.epoch if epoch is None else epoch, epoch is not None))

    def _tell_open_block(self) -> None:
        for frame in open_frames(self.raft.ledger):
            self._to_boost(CommittedFrame(frame))

    def _to_boost(self, frame: Frame) -> None:
        if self._boost is not None:
            self._boost.send(frame)

    def _publish(self, frame: FlashblockFrame) -> None:
        for peer in self._subscribers:
            peer.to_client(frame)

    def on_peer(self, peer: Connection, start: tuple[int, int] | None, port: str) -> None:
        """A subscriber of /ws is owed what it asked for, or the open block from the node that publishes it."""
        self._subscribers.append(peer)
        view = self.raft.ledger
        if start is not None:
            owed = frames_from(view, *start)
        else:
            owed = open_frames(view) if self.publisher.epoch is not None else []
        for frame in owed:
            peer.to_client(frame)

    def on_peer_lost(self, peer: Connection) -> None:
        """A subscriber left."""
        if peer in self._subscribers:
            self._subscribers.remove(peer)

    def on_peer_frame(self, peer: Connection, message: object) -> None:
        """A subscriber has nothing to say."""

    def check(self) -> None:
        """The ledger's invariants."""
        self.raft.check()
