"""The conductor: leader election, health, the control loop, and the only door of the public stream.

The rules are in `flashblocks.conductor`, the ledger in `raft`; here are the sockets. Nothing on the way from a lost
leader to the next flashblock waits for a timer: leadership, claims, closed sockets and commits are events, and every
event asks the control table what to do now. A slow tick looks at what only time can tell (silence, the watchdog).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from actors.conductor_commit import Adoption
from actors.conductor_journal import ConductorJournal
from actors.conductor_metrics import ConductorMetrics
from actors.conductor_override import Override
from actors.conductor_peers import ConductorPeers
from actors.conductor_rpc import ConductorRpc
from actors.conductor_sequencer import SequencerHandle
from actors.conductor_settings import Settings
from actors.conductor_stream import Stream
from actors.conductor_trace import ConductorTrace
from actors.frame_link import FrameClient, FrameServer
from actors.lifeline import Lifeline
from actors.raft_timing import for_distance
from actors.rpc_client import RpcClient, RpcRefused, RpcUnknown
from actors.rpc_server import Probes, RpcServer
from actors.sidecar import read_genesis_hash
from actors.tasks import Tasks
from flashblocks.conductor.control import Action, Control, Decision
from flashblocks.conductor.health import Health, HealthLimits, HealthMonitor, Readiness, Sickness
from flashblocks.conductor.ledger_shape import SealedBlock
from flashblocks.conductor.watchdog import ProgressWatchdog
from flashblocks.wire.frames import FlashblockFrame, Frame, HealthFrame
from flashblocks.wire.hexadecimal import WireError
from raft.commands import Accepted, Appended, Claim, Claimed, Event, Reason, Refused, Restored, Sealed
from raft.node import RaftNode, Transferred
from raft.settings import RaftSettings, read_password

TICK_S = 0.05
CLAIM_S_MAX = 1.0
CLAIM_RETRY_S = 0.05
TRANSFER_S_MAX = 0.5
EXECUTION_S_MAX = 0.5
RAFT_DIRECTORY = "raft"


class Conductor:
    """One conductor; `start` serves at once, everybody else may come later and in any order."""

    def __init__(self, settings: Settings, log: Any) -> None:
        self.settings, self.log = settings, log
        raft_settings = for_distance(self._raft_settings(), settings.round_trip_ms)
        self.raft = RaftNode(raft_settings)
        self.journal = ConductorJournal(self.raft, raft_settings.data_dir, raft_settings.room_bytes, log)
        self.control = Control(paused=settings.paused)
        self.health = HealthMonitor(self._health_limits())
        self.watchdog = ProgressWatchdog(settings.flashblock_time_ms / 1000, settings.block_time_s)
        self.trace = ConductorTrace(self.raft, settings.name, settings.data_dir, settings.genesis_path)
        self.override = Override(self)
        self.stream = Stream(self.override, settings.name, log, self.trace)
        self.sequencer = SequencerHandle(settings.op_node_url, lambda: self.override.ledger, log)
        self.sequencer.headers = self.trace.headers
        self.trace.bind(lambda: self.stream.publisher.epoch is not None)
        self.adoption = Adoption(self.raft, settings.name, settings.execution_url, log)
        self.sequencer.bind(lambda: self.control.active and self.control.leader, self._on_pushed, self._adopt)
        self.peers = ConductorPeers(settings.peer_urls, settings.name, self.raft, log)
        self._claims_without_commit = 0
        self._leadership = 0
        self._action: asyncio.Task[None] | None = None
        self._transferring = asyncio.Lock()
        self._tasks = Tasks()
        self._running = False
        self._poll_wanted = asyncio.Event()
        self.boost_http = RpcClient(settings.rollup_boost_url, timeout_s=settings.rollup_boost_healthcheck_timeout_s)
        self.execution = RpcClient(settings.execution_url, timeout_s=EXECUTION_S_MAX)
        self._lifeline = Lifeline(settings.op_node_url, self._on_op_node)
        self.boost = FrameClient(settings.rollup_boost_ws_url, self._on_boost_frame, self._on_boost)
        self.public = FrameServer(
            settings.host,
            settings.ws_port,
            "/ws",
            greet=self.stream.greet,
            traceparent_in_metadata=settings.traceparent_in_metadata,
        )
        self.stream.bind(self.public, self.boost)
        for hears_events in (self.trace.on_event, self._on_event):
            self.override.on_event(hears_events)
        for hears_leadership in (self.trace.on_leadership, self._on_leadership):
            self.override.on_leadership(hears_leadership)
        registry = self.trace.registry
        self.metrics = ConductorMetrics(registry, self)
        self.server = RpcServer(
            settings.host,
            settings.rpc_port,
            ConductorRpc(self).methods(),
            name="conductor",
            log=log,
            probes=self._probes,
            registry=registry,
        )

    def _raft_settings(self) -> RaftSettings:
        settings = self.settings
        return RaftSettings(
            node_id=settings.name,
            peers=settings.raft_peers,
            data_dir=Path(settings.data_dir) / RAFT_DIRECTORY,
            password=read_password(Path(settings.raft_password_path)),
            fsync=settings.raft_fsync,
            genesis_number=0,
            genesis_hash=read_genesis_hash(settings.genesis_hash, settings.genesis_path),
            listen=f"{settings.raft_host or settings.host}:{settings.raft_port}",
        )

    def _health_limits(self) -> HealthLimits:
        settings = self.settings
        return HealthLimits(
            unsafe_interval_s=settings.healthcheck_unsafe_interval_s,
            silence_s_max=settings.healthcheck_silence_s_max,
            safe_interval_s=settings.healthcheck_safe_interval_s if settings.healthcheck_safe_enabled else None,
            min_peer_count=min(settings.healthcheck_min_peer_count, len(settings.raft_peers) - 1),
            partial_tolerance_limit=settings.healthcheck_rollup_boost_partial_healthiness_tolerance_limit,
            partial_tolerance_interval_s=settings.healthcheck_rollup_boost_partial_healthiness_tolerance_interval_s,
        )

    async def start(self) -> None:
        """Open the journal, join the group, bind the ports."""
        await self.journal.open()
        await self.public.start()
        await self.server.start()
        self.log.info("conductor serves", rpc=self.server.url, ws=self.public.port)

    async def run(self) -> None:
        """Conduct until cancelled; a bug in the Raft node ends the process, which is then restarted."""
        self._lifeline.start()
        await self.boost.start()
        for name, loop in {
            "keep the op-node level": self.sequencer.keep_level(),
            "ask the peers": self.peers.keep_asking(),
            "poll the op-node": self._keep_polling_op_node(),
            "poll rollup-boost": self._keep_polling_rollup_boost(),
            "tick": self._keep_ticking(),
            "keep raft": self.journal.keep(),
            "link to rollup-boost": self.boost.run(),
            "public stream": self.public.run(),
        }.items():
            self._tasks.begin(loop, name)
        self._running = True
        self.sequencer.want_level()
        if self.raft.is_leader:  # elected before anybody listened
            self._claim()
        try:
            await self._tasks.wait()
        finally:
            self._running = False
            await self._tasks.close()

    async def close(self) -> None:
        """Leave: a leader hands on first, so that nobody has to notice its death. Bounded, idempotent."""
        await self._tasks.close()
        if self.raft.is_leader:
            with contextlib.suppress(Exception):
                await self.transfer(None)
        await self._lifeline.close()
        await self.boost.close()
        await self.stream.close()
        await self.server.close()
        await self.public.close()
        clients = (self.sequencer, self.peers, self.boost_http, self.execution, self.adoption)
        await asyncio.gather(*(client.close() for client in clients))
        await self.raft.close()
        await asyncio.to_thread(self.trace.stages.close)

    # Events

    def _on_event(self, event: Event, replayed: bool) -> None:
        now = time.monotonic()
        if isinstance(event, Claimed):
            self._claims_without_commit += 1
        elif isinstance(event, Appended | Sealed):
            self._claims_without_commit = 0
        self.stream.on_event(event, replayed)
        if replayed and not isinstance(event, Restored):
            return
        if isinstance(event, Claimed):
            self._on_claimed(now, event)
        elif isinstance(event, Appended | Sealed) and event.node == self.settings.name:
            self.watchdog.on_commit(now)
        if not isinstance(event, Claimed | Appended):  # sealed or restored: the head moved
            self.sequencer.want_level()
        self._look(now)

    def _on_claimed(self, now: float, event: Claimed) -> None:
        if event.epoch == self.stream.publisher.epoch:
            self.control.on_claimed()
            self.watchdog.on_leading(now, self._claims_without_commit - 1)
        else:
            self.watchdog.on_follower()

    def _on_leadership(self, leading: bool, term: int) -> None:
        self.log.info("leadership", leading=leading, term=term, epoch=self.raft.ledger.epoch)
        self._leadership += 1
        self.control.on_leadership(leading)
        busy = self.control.busy
        if leading and self._action is not None and busy is not None and busy.action is Action.STOP:
            self._action.cancel()  # stopping a hung op-node takes its time-out; leading is more urgent now
        if leading:
            self._claim()
        else:
            self.stream.on_leadership_lost()
            self.watchdog.on_follower()
        self._look(time.monotonic())

    def on_news_of_leadership(self, leading: bool) -> None:
        """Raft's word while this node goes on alone: it claims, so that a majority takes in what was made."""
        self._leadership += 1
        if leading:
            self._claim()

    def _claim(self) -> None:
        if self._running:
            self._tasks.begin(self._claim_epoch(self._leadership), "claim")

    async def _claim_epoch(self, leadership: int) -> None:
        """Claim the next epoch, until it is ours or leadership is gone."""
        if self.override.alone is None:
            await self.peers.let_alone_lead(lambda: self.raft.is_leader and leadership == self._leadership)
        while self.raft.is_leader and leadership == self._leadership:
            epoch = max(self.override.epoch_min, self.raft.term)
            outcome = await self.raft.propose(Claim(epoch, self.settings.name), CLAIM_S_MAX)
            if isinstance(outcome, Accepted):
                return
            self.log.info("claim not accepted", epoch=epoch, outcome=str(outcome))
            if isinstance(outcome, Refused) and outcome.reason is Reason.STALE_EPOCH:
                continue
            # Other refusals come at once, without a turn of the loop (a hand-over under way, say): never spin on them.
            await asyncio.sleep(CLAIM_RETRY_S)

    def _on_op_node(self, up: bool) -> None:
        self.log.info("op-node up" if up else "op-node down")
        self.health.on_op_node(time.monotonic(), up)
        if up:
            self._poll_wanted.set()
            self.sequencer.want_level()
        else:
            self.control.on_active(False)  # a dead op-node does not sequence, and a new one starts stopped
        self._look(time.monotonic())

    def _on_boost(self, up: bool) -> None:
        self.log.info("rollup-boost up" if up else "rollup-boost down")
        self.stream.on_boost(up)
        if not up:
            self.health.on_rollup_boost(time.monotonic(), None)
        self._look(time.monotonic())

    def _on_boost_frame(self, frame: Frame) -> None:
        if isinstance(frame, FlashblockFrame):
            self.stream.offer(frame)
        elif isinstance(frame, HealthFrame):
            self._on_boost_status(frame.status)

    def _on_boost_status(self, status: int) -> None:
        now = time.monotonic()
        self.health.on_rollup_boost(now, status)
        self.watchdog.builder = status == 200
        self._look(now)

    def _on_pushed(self, block: SealedBlock) -> None:
        now = time.monotonic()
        self.health.on_head(now, block.number, now)
        self._look(now)

    # Decisions

    def _look(self, now: float) -> None:
        """Look at all facts and act on what the table says."""
        self.health.on_ledger(now, self.override.ledger.head_number)
        self.override.remind(now)
        self.control.on_health(self._verdict(now))
        self.metrics.looked(self.control.leader, self.control.health.healthy, self.control.active)
        unfit = self.control.readiness.value <= Readiness.BEHIND.value or self.peers.alone() is not None
        self.raft.stand_back(unfit and self.override.alone is None)
        if not self._running or self._action is not None or self.override.changing:
            return
        leads = self.control.leader and not self.override.in_force
        decision = self.control.next(now, self.peers.candidates(now) if leads else [])
        if decision is not None:
            self._action = self._tasks.begin(self._act(decision), decision.action.value)

    def _verdict(self, now: float) -> Health:
        verdict = self.health.health(now)
        if self.watchdog.stuck(now) and not self.control.paused:
            verdict = Health(Sickness.NO_PROGRESS, min(verdict.readiness, Readiness.BEHIND, key=lambda r: r.value))
        elif self.adoption.stuck:
            verdict = Health(Sickness.LAGGING, min(verdict.readiness, Readiness.BEHIND, key=lambda r: r.value))
        if verdict.sickness is not self.control.health.sickness:
            self.log.info("health", sickness=verdict.sickness.name, readiness=verdict.readiness.name)
        return verdict

    async def _act(self, decision: Decision) -> None:
        self.log.info("action", action=decision.action.value, target=decision.target, epoch=self.raft.ledger.epoch)
        try:
            with self.metrics.acting():
                ok = await self._carry_out(decision)
        except asyncio.CancelledError:
            if not self._running:
                raise
            ok = False
        finally:
            self._action = None
        self.control.on_done(time.monotonic(), ok, random.random(), silent=self.sequencer.silent)
        self._look(time.monotonic())

    async def _carry_out(self, decision: Decision) -> bool:
        if decision.action is Action.START:
            self.trace.failover.starting(time.time())
            ok = await self.sequencer.start()
            self.trace.failover.started(time.time())
            self.metrics.started(ok)
            return ok
        if decision.action is Action.STOP:
            return await self.stop_sequencer()
        ok = await self.transfer(decision.target)
        if decision.action is Action.STOP_AND_TRANSFER and (ok or not self.raft.is_leader):
            # Leadership first: our op-node can commit nothing from here on, and its successor need not wait for it.
            self.control.on_active(not await self.stop_sequencer())
        return ok

    async def stop_sequencer(self) -> bool:
        """Stop the own op-node; a dead one is stopped."""
        ok = not self._lifeline.up or await self.sequencer.stop()
        self.metrics.stopped(ok)
        return ok

    async def transfer(self, target: str | None) -> bool:
        """Hand leadership to `target`, or to the fittest voter; True when it is elsewhere."""
        async with self._transferring:
            return not self.raft.is_leader or await self._transfer(target)

    async def _transfer(self, target: str | None) -> bool:
        if target is None:
            if self.nobody_fit:
                self.log.warning("transfer", outcome="no other member is fit to lead")
                return False
            judged = self.peers.candidates(time.monotonic())
            target = judged[0].node if judged else None
        self.trace.failover.handing_over(time.time())
        outcome = await self.raft.transfer_leadership(target, TRANSFER_S_MAX)
        ok = isinstance(outcome, Transferred) or not self.raft.is_leader
        self.metrics.transferred(ok)
        self.log.info("transfer", target=target, outcome=str(outcome))
        if not ok:
            self.stream.on_boost(self.boost.connected)  # its offers were refused meanwhile: we still lead
        return ok

    @property
    def nobody_fit(self) -> bool:
        """Whether every other member within reach is known to be paused or sick: none is handed leadership unasked."""
        judged = self.peers.candidates(time.monotonic())
        return bool(judged) and judged[0].readiness is Readiness.UNABLE

    async def _adopt(self, head_number: int) -> bool:
        """The op-node is beyond the ledger: take its blocks in, if our claim proves the ledger complete."""
        epoch = self.stream.publisher.epoch
        if epoch is None or self.control.active:
            return False
        if self.override.in_force:
            return self.override.adopt(*await self.sequencer.head())
        return await self.adoption.adopt(epoch, head_number)

    def resume(self, active: bool | None) -> None:
        """Let the control loop act again."""
        if active is not None:
            self.control.on_active(active)
        self.control.paused = False
        self._look(time.monotonic())

    # What only time or a question can tell

    async def _keep_ticking(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self._look(time.monotonic())

    async def _keep_polling_op_node(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.settings.healthcheck_interval_s):
                    await self._poll_wanted.wait()
            self._poll_wanted.clear()
            if self._lifeline.up:
                await self._poll_op_node()
            self.metrics.checked(self.control.health)

    async def _poll_op_node(self) -> None:
        asked = self.control.actions
        try:
            answer = await self.sequencer.ask()
        except (RpcRefused, RpcUnknown, WireError) as error:
            self.log.debug("op-node did not answer", error=str(error))
            return
        now = time.monotonic()
        ahead_s = now - time.time()  # block times on our clock: a jump of the wall clock must not look like silence
        head_time, safe_time = answer.head_timestamp + ahead_s, answer.safe_timestamp + ahead_s
        self.health.on_op_node_answer(now, answer.head_number, head_time, answer.peers, safe_time)
        self.watchdog.on_head(head_time)
        if self._action is None and asked == self.control.actions:
            self.control.on_active(answer.active)
        if answer.head_number < self.override.ledger.head_number:
            self.sequencer.want_level()
        self._look(now)

    async def _keep_polling_rollup_boost(self) -> None:
        while True:
            await asyncio.sleep(self.settings.healthcheck_interval_s)
            if not self.boost.connected:
                continue
            with contextlib.suppress(RpcUnknown):
                status, _ = await self.boost_http.get("/healthz")
                if self.boost.connected:
                    self._on_boost_status(status)

    # What others see

    @property
    def overridden(self) -> bool:
        """Whether an operator's override stands."""
        return self.override.wanted

    def begin(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Begin something that ends with this conductor."""
        if self._running:
            self._tasks.begin(work, name)
        else:
            work.close()

    def status(self) -> dict[str, Any]:
        """Role, health, epoch and position."""
        view = self.override.ledger
        open_block = view.open
        return {
            "component": "conductor",
            "name": self.settings.name,
            "group": self.settings.group,
            "pid": os.getpid(),
            "role": "overridden" if self.override.in_force else "leader" if self.raft.is_leader else "follower",
            "leader": self.raft.leader(),
            "health": self.control.health.sickness.name.lower() if not self.control.health.healthy else "healthy",
            "readiness": self.control.readiness.name.lower(),
            "active": self.control.active,
            "paused": self.control.paused,
            "epoch": view.epoch,
            "owner": view.owner,
            "publishing": self.stream.publisher.epoch is not None,
            "number": open_block.number if open_block is not None else view.head_number,
            "index": open_block.last_index if open_block is not None else None,
            "sealed": view.head_number,
            "rollup_boost": self.health.rollup_boost_status,
            "published": self.stream.published,
            "subscribers": len(self.public.peers),
            "raft": self.raft.status(),
        }

    def _probes(self) -> Probes:
        health = (200, "OK") if self.control.health.healthy else (503, self.control.health.sickness.value)
        ready = (200, "OK") if self.raft.leader() is not None else (503, "no raft leader")
        return Probes(health, ready)
