"""rollup-boost: the Engine API proxy between op-node and its two execution clients, and the gate of the stream.

Its rules are in `flashblocks.rollup_boost`; here are the sockets around them.  In: Engine API (JWT), the builder's
flashblocks, the conductor's answers.  Out: verdicts asked of the execution client, flashblocks offered for commit,
committed flashblocks applied to both clients, the promised prefix as the payload.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Coroutine
from typing import Any

from actors.frame_link import FrameServer, Peer
from actors.lifeline import Lifeline
from actors.rollup_boost_calls import ClientCalls
from actors.rollup_boost_clients import EngineClientOfBoost
from actors.rollup_boost_engine import EngineProxy
from actors.rollup_boost_metrics import METRICS_PREFIX, MissingFlashblocks, boost_metrics
from actors.rollup_boost_settings import Settings, rules_of, secrets_of
from actors.rollup_boost_stream import BuilderStream, LinkTimes
from actors.rpc_server import Probes, RpcServer
from actors.version_info import version_info
from flashblocks.rollup_boost.core import Core
from flashblocks.rollup_boost.facts import (
    AnswerEnvelope,
    AnswerFrom,
    Apply,
    AskForBlocks,
    Committed,
    ConductorLost,
    Count,
    Decision,
    EndBuilderJob,
    Fact,
    Forward,
    Leadership,
    Linked,
    ModeSet,
    Offering,
    Refused,
    RequestResend,
    ResumeBuilder,
    Sealed,
    SetHealth,
    StandIn,
    Stream,
    Target,
    Tick,
    WakeAt,
)
from flashblocks.rollup_boost.health import TEXTS
from flashblocks.rollup_boost.selection import ExecutionMode
from flashblocks.wire.frames import (
    CommittedFrame,
    FlashblockFrame,
    Frame,
    HealthFrame,
    LeadershipFrame,
    RefusedFrame,
    SealedFrame,
)
from flashblocks.wire.jsonrpc import INVALID_PARAMS, RpcError
from tracing.stages import component_stages

CLOSE_S_MAX = 1.0
HARMLESS = ("tail", "late", "duplicate", "superseded", "distrusted")  # what follows from something said before


class RollupBoost:
    """One rollup-boost; see the module's docstring."""

    def __init__(self, settings: Settings, log: Any) -> None:
        self.settings, self._log = settings, log
        secrets = secrets_of(settings)
        self.core = Core(rules_of(settings))
        self.metrics = boost_metrics()
        self._clients = {
            Target.EXECUTION: EngineClientOfBoost(
                Target.EXECUTION, settings.l2_url, secrets.l2, settings.l2_timeout_ms / 1000
            ),
            Target.BUILDER: EngineClientOfBoost(
                Target.BUILDER, settings.builder_url, secrets.builder, settings.builder_timeout_ms / 1000
            ),
        }
        self.engine = EngineProxy(
            self._clients[Target.EXECUTION], self._clients[Target.BUILDER], self.tell, self._spawn, log, self.metrics
        )
        self.engine_server = RpcServer(
            settings.host,
            settings.engine_port,
            {**self.engine.methods, "flashblocks_status": self._status_method},
            name="rollup-boost engine",
            log=log,
            jwt_secret=secrets.inbound,
            probes=self._probes,
            fallback=self.engine.proxy,
        )
        registry = self.engine_server.registry
        registry.register(self.metrics)
        registry.register(version_info(METRICS_PREFIX))
        self.stages = component_stages("rollup-boost", settings.name, settings.data_dir, registry)
        self.engine.on_call = self.stages.call
        self.calls = ClientCalls(self._clients, self.core, self.tell, self.stages, self.metrics, log)
        self.debug_server = RpcServer(
            settings.debug_host or settings.host,
            settings.debug_port,
            {
                "debug_setExecutionMode": self._set_mode,
                "debug_getExecutionMode": self._get_mode,
                "flashblocks_status": self._status_method,  # the engine port asks for a JWT
            },
            name="rollup-boost debug",
            log=log,
        )
        self.metrics_server = RpcServer(
            settings.metrics_host,
            settings.metrics_port,
            {"flashblocks_status": self._status_method},
            name="rollup-boost metrics",
            log=log,
            probes=self._probes,
            shows=registry,
        )
        self.stream = FrameServer(
            settings.ws_host or settings.host,
            settings.ws_port,
            None,
            greet=lambda query: [self._health_frame()],
            on_frame=self._from_conductor,
            on_peer=self._conductor_changed,
        )
        self._builder_stream = BuilderStream(
            settings.builder_ws_url,
            self.tell,
            lambda up: self._linked(Target.BUILDER, up),
            self.metrics,
            LinkTimes(
                settings.builder_ws_initial_reconnect_ms / 1000,
                settings.builder_ws_max_reconnect_ms / 1000,
                settings.builder_ws_connect_timeout_ms / 1000,
                settings.builder_ws_ping_interval_ms / 1000,
                settings.builder_ws_pong_timeout_ms / 1000,
            ),
        )
        self._l2_lifeline = Lifeline(settings.l2_url, lambda up: self._linked(Target.EXECUTION, up))
        self._tasks: set[asyncio.Task[Any]] = set()
        self._bug: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._missing = MissingFlashblocks(self.metrics)
        self.metrics.gauge("execution_mode", self.core.mode.gauge)

    async def start(self) -> None:
        """Bind the ports and begin to look for the peers."""
        self._bug = asyncio.get_running_loop().create_future()
        await self.engine_server.start()
        await self.debug_server.start()
        if self.settings.metrics_port:
            await self.metrics_server.start()
        await self.stream.start()
        await self._builder_stream.start()
        self._l2_lifeline.start()

    async def run(self) -> None:
        """Look at the clients' heads now and then; ends only with our own bug."""
        assert self._bug is not None
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch_heads())
            tasks.create_task(self.stream.run())
            tasks.create_task(_raise_bug(self._bug))

    async def close(self) -> None:
        """Let go of everything."""
        if self._timer is not None:
            self._timer.cancel()
        await self._l2_lifeline.close()
        await self._builder_stream.close()
        await self.stream.close()
        await self.engine_server.close()
        await self.debug_server.close()
        await self.metrics_server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=CLOSE_S_MAX)
        for client in self._clients.values():
            await client.close()
        await asyncio.to_thread(self.stages.close)

    def status(self) -> dict[str, Any]:
        """What ``flashblocks status`` shows."""
        number, index = self.core.streamed
        return {
            "component": "rollup-boost",
            "name": self.settings.name,
            "group": self.settings.group,
            "pid": os.getpid(),
            "role": "leader" if self.core.leading else "follower",
            "health": self.core.health.status,
            "health_detail": self.core.health.detail,
            "epoch": self.core.epoch,
            "number": number,
            "index": index,
            "execution_mode": self.core.mode.value,
            "builder_connected": self._builder_stream.connected,
        }

    # The core's door

    def tell(self, fact: Fact) -> list[Decision]:
        """Give the core a fact and carry out what it decides."""
        try:
            decisions = self.core.step(fact, time.time())
            for decision in decisions:
                self._carry_out(decision)
        except Exception as bug:
            self._report(bug)  # whoever called may only log it, and the core may be half-way
            raise
        return decisions

    def _carry_out(self, decision: Decision) -> None:
        match decision:
            case Apply():
                self._spawn(self.calls.apply(decision))
            case StandIn(payload_id, index):
                self._spawn(self.calls.stand_in(payload_id, index))
            case Offering(frame):
                self._to_conductor(frame)
            case Stream(frame):
                self._to_public(frame)
            case AnswerEnvelope() | AnswerFrom() | AskForBlocks():
                if isinstance(decision, AnswerEnvelope):
                    self._missing.note(decision.flashblocks)
                self.engine.carry_out(decision)
            case EndBuilderJob(builder_id):
                self._spawn(self.calls.end_builder_job(builder_id))
            case ResumeBuilder(payload_id):
                self.engine.resume_builder(payload_id)
            case RequestResend():
                self._spawn(self._builder_stream.ask_again())
            case SetHealth(health):
                self._log.info("health", status=health.status, detail=health.detail)
                self._to_conductor(self._health_frame())
            case Count(metric, reason, detail, amount):
                self._count(metric, reason, detail, amount)
            case WakeAt(at_s):
                self._wake_at(at_s)
            case Forward():
                pass  # read by the engine proxy out of the list

    def _count(self, metric: str, reason: str, detail: str, amount: int) -> None:
        self.metrics.count(f"flashblocks_service_{metric}", amount)
        if reason:
            self.metrics.count("flashblocks_not_streamed", amount, reason=reason)
            say = self._log.debug if reason in HARMLESS else self._log.warning
            say("flashblock not streamed", metric=metric, reason=reason, detail=detail)

    def _wake_at(self, at_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        delay_s = max(0.0, at_s - time.time())
        self._timer = asyncio.get_running_loop().call_later(delay_s, self.tell, Tick())

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._report(error)

    def _report(self, bug: BaseException) -> None:
        self._log.error("our own bug", exc_info=bug)
        if self._bug is not None and not self._bug.done():
            self._bug.set_exception(bug)

    # The execution clients

    async def _watch_heads(self) -> None:
        while True:
            await asyncio.sleep(self.settings.health_check_interval_s)
            await asyncio.gather(*(self.calls.look_at(target) for target in Target))
            self._builder_stream.notice_malformed()

    def _linked(self, target: Target, up: bool) -> None:
        self._log.info("link", peer=target.value, up=up)
        self.tell(Linked(target, up))

    # The conductor and the public

    def _from_conductor(self, peer: Peer, frame: Frame) -> None:
        match frame:
            case CommittedFrame(committed):
                self.tell(Committed(committed))
            case RefusedFrame():
                self.tell(Refused(frame.payload_id, frame.index, frame.reason))
            case SealedFrame():
                self.tell(Sealed(frame.number))
            case LeadershipFrame():
                self.tell(Leadership(frame.epoch, frame.leading))
            case _:
                self._log.warning("unexpected frame", peer=peer.remote, kind=type(frame).__name__)

    def _conductor_changed(self, peer: Peer, joined: bool) -> None:
        if not peer.frames:
            return
        self._log.info("link", peer="conductor", up=joined)
        if not joined and not any(other.frames for other in self.stream.peers):
            self.tell(ConductorLost())

    def _to_conductor(self, frame: Frame) -> None:
        for peer in self.stream.peers:
            if peer.frames:
                self.stream.send(peer, frame)

    def _to_public(self, frame: FlashblockFrame) -> None:
        self.metrics.count("flashblocks_service_flashblocks_counter")
        self.metrics.gauge("flashblocks_service_flashblocks_gauge", frame.index + 1)
        for peer in self.stream.peers:
            if not peer.frames:
                self.stream.send(peer, frame)

    def _health_frame(self) -> HealthFrame:
        return HealthFrame(self.core.health.status, self.core.health.detail)

    def _probes(self) -> Probes:
        status = self.core.health.status
        return Probes(health=(status, TEXTS[status]))

    # Methods

    async def _status_method(self) -> dict[str, Any]:
        return self.status()

    async def _get_mode(self) -> dict[str, str]:
        return {"execution_mode": self.core.mode.value}

    async def _set_mode(self, wanted: Any) -> dict[str, str]:
        """Take the code's object form and the documentation's bare string."""
        text = wanted.get("execution_mode") if isinstance(wanted, dict) else wanted
        try:
            mode = ExecutionMode.parse(str(text))
        except ValueError:
            raise RpcError(INVALID_PARAMS, f"unknown execution mode {text!r}: enabled, dry_run or disabled") from None
        self._log.info("execution mode", mode=mode.value)
        self.metrics.gauge("execution_mode", mode.gauge)
        self.tell(ModeSet(mode))
        return {"execution_mode": mode.value}


async def _raise_bug(bug: asyncio.Future[None]) -> None:
    await bug
