"""The op-node: the sequencer's driver while its group leads, the follower of committed payloads while it does not.

The rules are in `flashblocks.sequencing`; here are its sockets. It asks its conductor before a build which block is
open, has every payload committed before it inserts it, and takes the payloads that the conductor hands it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from pathlib import Path
from typing import Any

import msgspec
import orjson
from prometheus_client import CollectorRegistry, Counter, Gauge

from actors import fault_points
from actors.engine_client import EngineClient, EngineRefused, EngineUnknown
from actors.lifeline import Lifeline
from actors.op_node_chain import OpNodeChain
from actors.op_node_deposits import DepositBook
from actors.op_node_rpc import OpNodeRpc
from actors.op_node_trace import OpNodeTrace
from actors.payload_backfill import PayloadBackfill
from actors.rpc_client import RpcClient, RpcRefused, RpcUnknown
from actors.rpc_server import Probes, RpcServer
from actors.sidecar import read_genesis_hash, read_jwt_secret
from flashblocks.sequencing.driver import (
    PREFIX_MISMATCH,
    AskOpenBlock,
    Commit,
    Insert,
    OpenBlock,
    SealBlock,
    SequencerDriver,
    StartBuild,
    Step,
)
from flashblocks.sequencing.l1 import SimulatedL1
from flashblocks.sequencing.payload_queue import Arrival
from flashblocks.sequencing.references import L2BlockRef
from flashblocks.sequencing.rollup import rollup_config
from flashblocks.wire.engine import Envelope, PayloadAttributes
from flashblocks.wire.hexadecimal import WireError, to_bytes, to_int

STOP_S_MAX = 0.5
REFRESH_RETRY_S = 0.25
CONDUCTOR_ASK_S_MAX = 0.5
NOT_FOUND_CODE = -32601


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every option of an op-node; times in the unit their name says."""

    name: str
    group: int = 0
    host: str = "127.0.0.1"
    data_dir: str = ""
    log_level: str = "info"
    jwt_secret_path: str = ""
    genesis_path: str
    genesis_hash: str = ""
    """Hash of the genesis block; read from chain.json beside the genesis file where it is not given."""
    rpc_port: int = 9545
    engine_url: str
    conductor_url: str = ""
    peer_urls: list[str] = []
    """RPC of other groups' execution clients, for blocks that no conductor has any more."""
    peer_op_node_urls: list[str] = []
    """RPC of the other groups' op-nodes: they are the peers of `opp2p_peerStats`, and told of injected deposits."""
    block_time_s: int = 2
    sealing_duration_ms: int = 50
    sequencer_stopped: bool = True
    conductor_enabled: bool = True
    conductor_rpc_timeout_ms: int = 1000
    l1_seed: str = "flashblocks"
    """What the simulated L1 is made of; the same on every op-node of a chain."""


class OpNode:
    """One op-node; `start` serves at once, the engine and the conductor may come later."""

    def __init__(self, settings: Settings, log: Any) -> None:
        self.settings, self.log = settings, log
        genesis = orjson.loads(Path(settings.genesis_path).read_bytes())
        self.l1 = SimulatedL1(settings.l1_seed.encode(), to_int(genesis.get("timestamp"), "timestamp"))
        genesis_hash = read_genesis_hash(settings.genesis_hash, settings.genesis_path)
        self.config = rollup_config(genesis, genesis_hash, self.l1.block(0).id, settings.block_time_s)
        self.driver = SequencerDriver(self.config, self.l1, settings.sealing_duration_ms / 1000)
        self.engine = EngineClient(settings.engine_url, read_jwt_secret(settings.jwt_secret_path))
        self.chain = OpNodeChain(self.config, self.l1, self.engine, log, self._on_head)
        self.conductor = RpcClient(settings.conductor_url, timeout_s=settings.conductor_rpc_timeout_ms / 1000)
        self.deposits = DepositBook(self.l1, settings.peer_op_node_urls, settings.data_dir, log)
        self.backfill = PayloadBackfill(settings.peer_urls, log)
        self.overridden = False
        self._engine_lifeline = Lifeline(settings.engine_url, self._on_engine)
        self._peer_lifelines = [Lifeline(url, lambda up: None) for url in settings.peer_op_node_urls]
        self._refresh_wanted = asyncio.Event()
        self._backfill_wanted = asyncio.Event()
        self._changed = asyncio.Event()
        self._stopped = asyncio.Event()
        self._step: asyncio.Task[None] | None = None
        self._started = settings.sequencer_stopped
        registry = CollectorRegistry()
        self.trace = OpNodeTrace(self.config.l2_chain_id, settings.name, settings.data_dir, registry)
        self._steps = Counter(
            "op_node_sequencer_steps", "Steps of the sequencer", ["step", "outcome"], registry=registry
        )
        self._imports = Counter(
            "op_node_payloads", "Payloads handed in, by what became of them", ["as"], registry=registry
        )
        head = Gauge("op_node_unsafe_head", "Number of the unsafe head", registry=registry)
        head.set_function(lambda: -1 if self.chain.head is None else self.chain.head.number)
        self.server = RpcServer(
            settings.host,
            settings.rpc_port,
            OpNodeRpc(self).methods(),
            name="op-node",
            log=log,
            probes=self._probes,
            registry=registry,
        )

    async def start(self) -> None:
        """Bind the RPC port."""
        self.deposits.load()
        await self.server.start()
        self.log.info("op-node serves", url=self.server.url, engine=self.settings.engine_url)

    async def run(self) -> None:
        """Follow and sequence until cancelled."""
        self._engine_lifeline.start()
        for lifeline in self._peer_lifelines:
            lifeline.start()
        self._refresh_wanted.set()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_head_known())
            group.create_task(self._keep_sequencing())
            group.create_task(self._keep_gaps_filled())
            group.create_task(self.deposits.catch_up())

    async def close(self) -> None:
        """Let go of every socket; safe to call twice."""
        self._cancel_step()
        await self._engine_lifeline.close()
        await asyncio.gather(*(lifeline.close() for lifeline in self._peer_lifelines))
        await self.server.close()
        await asyncio.gather(self.engine.close(), self.conductor.close(), self.deposits.close(), self.backfill.close())
        await asyncio.to_thread(self.trace.stages.close)

    def status(self) -> dict[str, Any]:
        """Role, head and what is under way."""
        head = self.chain.head
        return {
            "component": "op-node",
            "name": self.settings.name,
            "group": self.settings.group,
            "pid": os.getpid(),
            "role": "sequencer" if self.driver.active else "follower",
            "engine_up": self._engine_lifeline.up,
            "number": None if head is None else head.number,
            "hash": None if head is None else "0x" + head.hash.hex(),
            "timestamp": None if head is None else head.timestamp,
            "phase": self.driver.phase.value if self.driver.active else None,
            "peers": self.peers_connected,
            "waiting_payloads": len(self.chain.queue),
        }

    @property
    def peers_connected(self) -> int:
        """How many of the other groups' op-nodes are alive."""
        return sum(lifeline.up for lifeline in self._peer_lifelines)

    # What the RPC asks for

    async def start_sequencer(self, block_hash: bytes) -> None:
        """admin_startSequencer; raises StartRefused."""
        self.driver.start(time.time(), block_hash)
        self._started = True
        self._stopped.clear()
        self.log.info("sequencer starts", hash=block_hash)
        self._changed.set()

    async def stop_sequencer(self) -> L2BlockRef | None:
        """admin_stopSequencer: the head after what was under way is through, in at most STOP_S_MAX."""
        if not self.driver.stop():
            self._changed.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_S_MAX):
                    await self._stopped.wait()
            if self.driver.active:
                self.driver.abandon()
        self._cancel_step()
        self._changed.set()
        self.log.info("sequencer stopped", block=None if self.chain.head is None else self.chain.head.number)
        return self.chain.head

    async def import_payload(self, envelope: Envelope) -> None:
        """A committed payload from the conductor; raises EngineRefused or EngineUnknown when it was not taken."""
        began = time.perf_counter()
        try:
            arrival = await self.chain.take(envelope, self.trace.passed_on())
        except (EngineRefused, EngineUnknown) as error:
            self.trace.imported(envelope, time.perf_counter() - began, "failed", str(error))
            self._imports.labels("failed").inc()
            block = envelope.payload.block_number
            self.log.warning("payload not imported", block=block, error=str(error), **(self.trace.passed_on() or {}))
            self._refresh_wanted.set()  # the engine may be behind what we believe
            raise
        self._imports.labels(arrival.value).inc()
        self.trace.imported(envelope, time.perf_counter() - began, arrival.value)
        if arrival in (Arrival.AHEAD, Arrival.DROPPED):
            self._backfill_wanted.set()

    def refresh(self) -> None:
        """Look at the engine's head again."""
        self._refresh_wanted.set()

    # The loops

    async def _keep_head_known(self) -> None:
        while True:
            await self._refresh_wanted.wait()
            self._refresh_wanted.clear()
            try:
                await self.chain.refresh()
            except (EngineRefused, EngineUnknown) as error:
                self.log.debug("engine not ready", error=str(error))
                await asyncio.sleep(REFRESH_RETRY_S)
                self._refresh_wanted.set()

    async def _keep_gaps_filled(self) -> None:
        while True:
            await self._backfill_wanted.wait()
            self._backfill_wanted.clear()
            head = self.chain.head
            if head is None:
                continue
            for number in self.chain.queue.missing(head):
                envelope = await self.backfill.fetch(number)
                if envelope is None:
                    self.log.warning("no peer has the missing block", block=number)
                    break
                try:
                    await self.chain.take(envelope)
                except (EngineRefused, EngineUnknown) as error:
                    self.log.warning("backfilled block not taken", block=number, error=str(error))
                    break

    async def _keep_sequencing(self) -> None:
        while True:
            self._changed.clear()
            if self._step is not None and self._step.done():
                task, self._step = self._step, None
                if not task.cancelled():
                    task.result()
            if not self.driver.active:
                self._stopped.set()
            if self._step is None:
                step = self.driver.next(time.time())
                if step is not None:
                    self._step = asyncio.create_task(self._carry_out(step), name=f"sequencer {type(step).__name__}")
                    self._step.add_done_callback(lambda task: self._changed.set())
            await self._sleep_until(None if self._step is not None else self.driver.wake_at)

    async def _sleep_until(self, wake_at: float | None) -> None:
        if wake_at is None:
            await self._changed.wait()
            return
        delay_s = max(0.0, wake_at - time.time())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay_s):
                await self._changed.wait()

    def _cancel_step(self) -> None:
        if self._step is not None:
            self._step.cancel()

    async def _carry_out(self, step: Step) -> None:
        kind, began = type(step).__name__, time.perf_counter()
        headers = self.trace.begins(step)
        try:
            if isinstance(step, AskOpenBlock):
                self.driver.on_open_block(time.time(), step.job, await self._ask_open_block())
            elif isinstance(step, StartBuild):
                payload_id = await self.chain.start_build(step.head, step.attributes, headers)
                self.driver.on_build_started(time.time(), step.job, payload_id)
            elif isinstance(step, SealBlock):
                envelope = await self.engine.get_payload(step.payload_id, headers)
                self.driver.on_sealed(time.time(), step.job, envelope)
            elif isinstance(step, Commit):
                await self._commit(step, headers)
            elif isinstance(step, Insert):
                fault_points.reach(fault_points.BEFORE_INSERT)
                head = await self.chain.insert(step.envelope, headers)
                self.driver.on_inserted(time.time(), step.job, head)
                self.log.info("block inserted", block=head.number, hash=head.hash, **(headers or {}))
            self._steps.labels(kind, "done").inc()
            self.trace.ended(step, time.perf_counter() - began)
        except (EngineRefused, EngineUnknown, RpcRefused, RpcUnknown, WireError) as error:
            self._steps.labels(kind, "failed").inc()
            self.trace.ended(step, time.perf_counter() - began, str(error))
            self.log.warning("sequencer step failed", step=kind, error=str(error), **(headers or {}))
            if isinstance(error, EngineRefused) and error.syncing:
                self._refresh_wanted.set()
            self.driver.on_failed(time.time(), step.job)

    async def _ask_open_block(self) -> OpenBlock | None:
        if not self.settings.conductor_enabled:
            return None
        try:
            obj = await self.conductor.call("flashblocks_openBlock", timeout_s=CONDUCTOR_ASK_S_MAX)
        except (RpcRefused, RpcUnknown) as error:
            # A conductor of another make knows no open blocks. Overridden, we go on whatever ours says, or does not.
            if self.overridden or (isinstance(error, RpcRefused) and error.code == NOT_FOUND_CODE):
                return None
            raise
        if obj is None:
            return None
        return OpenBlock(
            number=to_int(obj["number"], "number"),
            payload_id=to_bytes(obj["payloadId"], 8, "payloadId"),
            parent_hash=to_bytes(obj["parentHash"], 32, "parentHash"),
            attributes=PayloadAttributes.from_json(obj["attributes"]),
            last_index=to_int(obj["lastIndex"], "lastIndex"),
        )

    async def _commit(self, step: Commit, headers: dict[str, str] | None) -> None:
        if not self.settings.conductor_enabled:
            self.driver.on_committed(time.time(), step.job)
            return
        fault_points.reach(fault_points.BEFORE_SEAL)
        try:
            await self.conductor.call("conductor_commitUnsafePayload", step.envelope.to_json(), headers=headers)
        except (RpcRefused, RpcUnknown) as error:
            if not self.overridden or PREFIX_MISMATCH in str(error):
                self._not_committed(step, error, headers)
                return
            # What was streamed goes first, overridden or not; nothing else that a conductor says or does not counts.
            self.log.error(
                "payload inserted without a commit", block=step.envelope.payload.block_number, error=str(error)
            )
            self.driver.on_committed(time.time(), step.job)
        else:
            self.driver.on_committed(time.time(), step.job)

    def _not_committed(self, step: Commit, error: RpcRefused | RpcUnknown, headers: dict[str, str] | None) -> None:
        if isinstance(error, RpcRefused):
            block = step.envelope.payload.block_number
            self.log.warning("payload refused", block=block, error=error.message, **(headers or {}))
            self.driver.on_commit_refused(time.time(), step.job, error.message)
        else:
            block = step.envelope.payload.block_number
            self.log.warning("commit unknown", block=block, error=str(error), **(headers or {}))
            self.driver.on_commit_unknown(time.time(), step.job)

    # Facts that come by themselves

    def _on_engine(self, up: bool) -> None:
        self.log.info("engine up" if up else "engine down", url=self.settings.engine_url)
        if up:
            self._refresh_wanted.set()

    def _on_head(self, head: L2BlockRef) -> None:
        self.driver.safe_number = self.chain.labels.safe.number
        self.driver.on_head(time.time(), head)
        if not self._started and not self.settings.conductor_enabled:
            self.driver.start(time.time(), head.hash)
            self._started = True
        if len(self.chain.queue):
            self._backfill_wanted.set()
        self._changed.set()

    def _probes(self) -> Probes:
        if self.chain.head is None:
            return Probes(ready=(503, "the engine's head is not known yet"))
        return Probes()
