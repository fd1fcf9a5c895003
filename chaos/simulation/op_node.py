"""The op-node: the real driver, payload queue, L1 and attributes; wired as `actors.op_node` and its chain do it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from actors.engine_client import FORKCHOICE_S_MAX, GET_PAYLOAD_S_MAX, NEW_PAYLOAD_S_MAX, READ_S_MAX
from actors.op_node import CONDUCTOR_ASK_S_MAX, REFRESH_RETRY_S, STOP_S_MAX
from actors.op_node_chain import IMPORTS_PER_TURN_MAX
from chaos.simulation.blocks import Block
from chaos.simulation.kernel import Event, Lock, Process, Task
from chaos.simulation.network import CallRefused, CallUnknown, Network
from chaos.simulation.schedule import BEFORE_INSERT, BEFORE_SEAL
from flashblocks.sequencing.driver import (
    AskOpenBlock,
    Commit,
    Insert,
    SealBlock,
    SequencerDriver,
    StartBuild,
    StartRefused,
    Step,
)
from flashblocks.sequencing.l1 import SimulatedL1
from flashblocks.sequencing.payload_queue import Arrival, PayloadQueue
from flashblocks.sequencing.references import L2BlockRef, reference_of_payload
from flashblocks.sequencing.rollup import RollupConfig
from flashblocks.wire.engine import Envelope

CONDUCTOR_RPC_S_MAX = 1.0
ENGINE_S_MAX = {
    "forkchoice": FORKCHOICE_S_MAX,
    "new_payload": NEW_PAYLOAD_S_MAX,
    "get_payload": GET_PAYLOAD_S_MAX,
    "latest": READ_S_MAX,
}
PEER_CALL_S_MAX = 0.5


class OpNode:
    """One op-node of one group."""

    resumes = True
    """A mutant does not ask which block is open."""

    def __init__(
        self,
        network: Network,
        process: Process,
        group: str,
        config: RollupConfig,
        l1: SimulatedL1,
        peers: list[str],
        clock_skew: list[float],
    ) -> None:
        self.driver = SequencerDriver(config, l1)
        self.queue = PayloadQueue()
        self.head: L2BlockRef | None = None
        self.network, self.process = network, process
        self._engine, self._conductor = f"{group}/rollup-boost", f"{group}/conductor"
        self._config, self._l1, self._peers, self._skew = config, l1, peers, clock_skew
        self._turn = Lock(process)
        self._refresh_wanted, self._backfill_wanted = Event(process), Event(process)
        self._stopped = Event(process)
        self._step: Task | None = None
        self._wakes = 0
        self.on_stage: Callable[[str], None] = lambda stage: None

    def start(self) -> None:
        """Follow, and sequence when told to."""
        self.network.watch(self.process, self._engine, self._on_engine)
        self._refresh_wanted.set()
        self.process.spawn(self._keep_head_known())
        self.process.spawn(self._keep_gaps_filled())

    def _now(self) -> float:
        return self.process.clock.now + self._skew[0]

    # What the conductor asks for

    async def start_sequencer(self, block_hash: bytes) -> None:
        """admin_startSequencer."""
        try:
            leads = await self.network.call(self.process, self._conductor, "leads", timeout_s=CONDUCTOR_RPC_S_MAX)
        except (CallRefused, CallUnknown) as error:
            raise CallRefused(f"sequencer leader check failed: {error}") from None
        if not leads:
            raise CallRefused("sequencer is not the leader, aborting")
        try:
            self.driver.start(self._now(), block_hash)
        except StartRefused as error:
            raise CallRefused(str(error)) from None
        self._stopped.clear()
        self._pump()

    async def stop_sequencer(self) -> None:
        """admin_stopSequencer."""
        if not self.driver.active:
            raise CallRefused("sequencer not running")
        if not self.driver.stop():
            await self._stopped.wait(STOP_S_MAX)
            if self.driver.active:
                self.driver.abandon()
        if self._step is not None:
            self._step.cancel()
            self._step = None
        self._pump()

    def status(self) -> tuple[int, bytes, int, int, int, bool]:
        """Head number, hash and time, safe head's time, peers, whether it sequences."""
        if self.head is None:
            raise CallRefused("the engine's head is not known yet")
        alive = sum(self.network.slots[peer].process is not None for peer in self._peers)
        return self.head.number, self.head.hash, self.head.timestamp, 0, alive, self.driver.active

    async def post_unsafe_payload(self, envelope: Envelope) -> None:
        """admin_postUnsafePayload."""
        try:
            arrival = await self._take(envelope)
        except (CallRefused, CallUnknown):
            self._refresh_wanted.set()
            raise
        if arrival in (Arrival.AHEAD, Arrival.DROPPED):
            self._backfill_wanted.set()

    # The loops

    async def _keep_head_known(self) -> None:
        while True:
            await self._refresh_wanted.wait()
            self._refresh_wanted.clear()
            try:
                async with self._turn:
                    block: Block = await self._call_engine("latest")
                    if self.head is None or block.hash != self.head.hash:
                        self._set_head(self._reference(block))
            except (CallRefused, CallUnknown):
                await self.process.sleep(REFRESH_RETRY_S)
                self._refresh_wanted.set()

    def _reference(self, block: Block) -> L2BlockRef:
        if block.envelope is not None:
            return reference_of_payload(block.envelope.payload)
        return L2BlockRef(
            hash=block.hash,
            number=0,
            parent_hash=block.parent_hash,
            timestamp=block.timestamp,
            l1_origin=self._config.genesis_l1,
            sequence_number=0,
        )

    async def _keep_gaps_filled(self) -> None:
        while True:
            await self._backfill_wanted.wait()
            self._backfill_wanted.clear()
            if self.head is None:
                continue
            for number in self.queue.missing(self.head):
                envelope = await self._fetch(number)
                if envelope is None:
                    break
                try:
                    await self._take(envelope)
                except (CallRefused, CallUnknown):
                    break

    async def _fetch(self, number: int) -> Envelope | None:
        for peer in self._peers:
            client = peer.replace("/op-node", "/fallback-el")
            try:
                block: Block = await self.network.call(self.process, client, "block", number, timeout_s=PEER_CALL_S_MAX)
            except (CallRefused, CallUnknown):
                continue
            return block.envelope
        return None

    def _pump(self) -> None:
        """Hand out the next step when one is due, or see to it that we look again."""
        if self._step is not None and self._step.done:
            self._step = None
        if not self.driver.active:
            self._stopped.set()
        if self._step is not None:
            return
        step = self.driver.next(self._now())
        if step is not None:
            task = self.process.spawn(self._carry_out(step))
            self._step = None if task.done else task
            task.waiters.append(self._pump)
            if task.done:
                self.process.after(0.0, self._pump)
            return
        if self.driver.wake_at is not None:
            self._wakes += 1
            self.process.after(max(0.0, self.driver.wake_at - self._now()), self._wake, self._wakes)

    def _wake(self, wake: int) -> None:
        if wake == self._wakes:
            self._pump()

    async def _carry_out(self, step: Step) -> None:
        driver = self.driver
        try:
            if isinstance(step, AskOpenBlock):
                open_block = None
                if self.resumes:
                    open_block = await self.network.call(
                        self.process, self._conductor, "open_block", timeout_s=CONDUCTOR_ASK_S_MAX
                    )
                driver.on_open_block(self._now(), step.job, open_block)
            elif isinstance(step, StartBuild):
                async with self._turn:
                    status, identifier = await self._call_engine("forkchoice", step.head.hash, step.attributes)
                if status != "VALID" or identifier is None:
                    if status == "SYNCING":
                        self._refresh_wanted.set()
                    raise CallRefused(status)
                driver.on_build_started(self._now(), step.job, identifier)
            elif isinstance(step, SealBlock):
                driver.on_sealed(self._now(), step.job, await self._call_engine("get_payload", step.payload_id))
            elif isinstance(step, Commit):
                self.on_stage(BEFORE_SEAL)
                await self._commit(step)
            elif isinstance(step, Insert):
                self.on_stage(BEFORE_INSERT)
                driver.on_inserted(self._now(), step.job, await self._insert_own(step.envelope))
        except (CallRefused, CallUnknown):
            driver.on_failed(self._now(), step.job)
        driver.check()

    async def _commit(self, step: Commit) -> None:
        try:
            await self.network.call(
                self.process, self._conductor, "commit_unsafe_payload", step.envelope, timeout_s=CONDUCTOR_RPC_S_MAX
            )
        except CallRefused as error:
            self.driver.on_commit_refused(self._now(), step.job, error.message)
        except CallUnknown:
            self.driver.on_commit_unknown(self._now(), step.job)
        else:
            self.driver.on_committed(self._now(), step.job)

    # The chain: `actors.op_node_chain`

    async def _call_engine(self, method: str, *arguments: object) -> Any:
        limit = ENGINE_S_MAX[method]
        return await self.network.call(self.process, self._engine, method, *arguments, timeout_s=limit)

    async def _insert_own(self, envelope: Envelope) -> L2BlockRef:
        async with self._turn:
            if self.head is not None and self.head.hash == envelope.payload.block_hash:
                return self.head
            return await self._insert(envelope)

    async def _take(self, envelope: Envelope) -> Arrival:
        async with self._turn:
            if self.head is None:
                raise CallUnknown("the head of the engine is not known yet")
            arrival = self.queue.add(envelope, self.head)
            if arrival in (Arrival.NEXT, Arrival.REPLACES):
                head = await self._insert(envelope)
                for _ in range(IMPORTS_PER_TURN_MAX):
                    waiting = self.queue.next(head)
                    if waiting is None:
                        break
                    head = await self._insert(waiting)
            return arrival

    async def _insert(self, envelope: Envelope) -> L2BlockRef:
        head = reference_of_payload(envelope.payload)
        status = await self._call_engine("new_payload", envelope)
        if status != "VALID":
            raise CallRefused(f"newPayload: {status}")
        chosen, _ = await self._call_engine("forkchoice", head.hash, None)
        if chosen != "VALID":
            raise CallRefused(f"forkchoiceUpdated: {chosen}")
        self._set_head(head)
        return head

    def _set_head(self, head: L2BlockRef) -> None:
        self.head = head
        self.queue.on_head(head)
        self.driver.on_head(self._now(), head)
        if len(self.queue):
            self._backfill_wanted.set()
        self.process.after(0.0, self._pump)

    def _on_engine(self, up: bool) -> None:
        if up:
            self._refresh_wanted.set()

    def check(self) -> None:
        """The driver's invariants."""
        self.driver.check()
