"""The builder's source of payloads: drives the job's rules with real time, builds in slices, publishes at the trigger.

A flashblock is built shortly before its trigger, as late as measured build times allow, so that it holds what arrived
last and is ready *at* the trigger.  Building yields to the loop every few milliseconds; it stops at its deadline with
whatever fits.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable

import msgspec

from actors.execution_client import ExecutionClient
from actors.frame_link import FrameServer, Peer
from actors.payload_source import UnknownPayload
from actors.upstream_metrics import UpstreamMetrics
from flashblocks.builder.budget import Limits, budget
from flashblocks.builder.building import Building, Made, build_opening
from flashblocks.builder.bundles import BundlePool
from flashblocks.builder.job import (
    Attributes,
    Build,
    BuildOpening,
    Built,
    Cancel,
    Committed,
    Decision,
    Fact,
    Failed,
    Job,
    PayloadAsked,
    Publish,
    Tick,
    WakeAt,
)
from flashblocks.builder.schedule import Timing
from flashblocks.execution.errors import ExecutionError, InvalidAttributes
from flashblocks.execution.fees import read_l1_parameters
from flashblocks.execution.header import Header
from flashblocks.execution.open_block import OpenBlock
from flashblocks.execution.payloads import envelope_of
from flashblocks.wire.engine import Envelope, PayloadAttributes
from flashblocks.wire.flashblock import Flashblock, encode_body
from flashblocks.wire.frames import FlashblockFrame, frame_of
from tracing.building import BuildTrace
from tracing.stages import Stages
from tracing.tracer import no_tracer

BUILD_SLICE_S = 0.004
SEAL_RESERVE_S_FIRST = 0.004
SEAL_RESERVE_DECAY = 0.9
READY_MARGIN_S = 0.002
BUILD_S_MIN = 0.001
FULL_POOL_GROWTH = 2.0  # a build ended by its deadline asks for this much more time next
OVERRUNS_MAX = 3
OVERRUNS_REMEMBERED_MAX = 1_024


class _Ready(msgspec.Struct, frozen=True):
    made: Made
    frame: FlashblockFrame


class FlashblockSource:
    """Payloads made of flashblocks; published ones go to ``stream`` and are adopted by the client's follower."""

    def __init__(
        self,
        client: ExecutionClient,
        timing: Timing,
        stream: FrameServer,
        bundles: BundlePool,
        metrics: UpstreamMetrics,
        *,
        gas_per_transaction: int | None = None,
        uncompressed_bytes_per_block: int | None = None,
    ) -> None:
        self.job = Job(timing)
        self.published: list[FlashblockFrame] = []
        self._client, self._timing, self._stream = client, timing, stream
        self._bundles, self._metrics, self._log = bundles, metrics, client.log
        self._gas_per_transaction = gas_per_transaction
        self._uncompressed_bytes_per_block = uncompressed_bytes_per_block
        self._parent: Header | None = None
        self._attributes: PayloadAttributes | None = None
        self._ready: _Ready | None = None
        self._build: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._seal_reserve_s = SEAL_RESERVE_S_FIRST
        self._began_s = 0.0
        self._ground: dict[int, bytes] = {}  # block hash after each index of the job's payload
        self._overran: Counter[bytes] = Counter()
        self.trace = BuildTrace(Stages(no_tracer()), client.spec.chain_id)
        self.on_bug: Callable[[BaseException], None] = lambda bug: None

    def start(self, payload_id: bytes, parent: Header, attributes: PayloadAttributes) -> None:
        """Begin a build, or go on behind what was followed of it; raises InvalidAttributes."""
        followed = self._client.follower.open(payload_id)
        last = None if followed is None or followed.last_index < 0 else followed.last_index
        if self.job.payload_id != payload_id:
            self._parent, self._attributes, self.published = parent, attributes, []
            steps = [] if followed is None else followed.flashblocks()
            self._ground = {step.index: step.diff.block_hash for step in steps}
            self._began_s = time.time()
            if last is not None:
                self.trace.took_over()
            slot_began_s = attributes.timestamp - self._timing.block_time_ms / 1000
            self._metrics.observe("fcu_arrival_delay", (time.time() - slot_began_s) * 1000)
        self._tell(Attributes(payload_id, attributes.timestamp, attributes.no_tx_pool, last))

    async def get(self, payload_id: bytes) -> Envelope:
        """The block of what was published, after which nothing more is; raises UnknownPayload."""
        ending = self.job.payload_id == payload_id
        scheduled, began_s = len(self.job.triggers), self._began_s
        self._tell(PayloadAsked(payload_id))
        followed = self._client.follower.open(payload_id)
        if followed is None or followed.last_index < 0:
            raise UnknownPayload(payload_id.hex())
        envelope = envelope_of(followed.sealed().block)
        if ending:
            self._note_block(envelope, scheduled, time.time() - began_s)
        return envelope

    async def close(self) -> None:
        """Stop building."""
        if self._timer is not None:
            self._timer.cancel()
        if self._build is not None:
            self._build.cancel()
            await asyncio.wait([self._build])

    def applied(self, flashblock: Flashblock, committed: bool) -> None:
        """A flashblock came back from the ledger and was executed: if it is new here, go on behind it."""
        index, block_hash = flashblock.index, flashblock.diff.block_hash
        if flashblock.payload_id != self.job.payload_id or self._ground.get(index) == block_hash:
            return
        self._ground = {each: ground for each, ground in self._ground.items() if each < index}
        self._ground[index] = block_hash
        self.published = [frame for frame in self.published if frame.index < index]
        self._tell(Committed(flashblock.payload_id, index, foreign=True))

    def head_moved(self, number: int) -> None:
        """The head reached the height of the job's block: whoever made it, building on is pointless."""
        if self.job.payload_id and self._parent is not None and number > self._parent.number:
            self._tell(PayloadAsked(self.job.payload_id))

    def greet(self, peer: Peer, joined: bool) -> None:
        """Give a new subscriber of ours the flashblocks of the open block that it has missed."""
        if joined and peer.frames:
            for frame in self.published:
                self._stream.send(peer, frame)

    # The job's door

    def _tell(self, fact: Fact) -> None:
        try:
            for decision in self.job.step(fact, time.time()):
                self._carry_out(decision)
        except ExecutionError:
            raise  # what the attributes ask for cannot be built
        except Exception as bug:
            self.on_bug(bug)
            raise

    def _carry_out(self, decision: Decision) -> None:
        match decision:
            case BuildOpening():
                self._build_opening(decision)
            case Build():
                self._cancel_build()
                self._build = asyncio.create_task(self._build_one(decision), name=f"flashblock {decision.index}")
                self._build.add_done_callback(self._build_done)
            case Publish():
                self._publish(decision)
            case WakeAt(at_s):
                self._wake_at(at_s)
            case Cancel():
                self._cancel(decision)

    def _wake_at(self, at_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(max(0.0, at_s - time.time()), self._tell, Tick())

    def _cancel_build(self) -> None:
        if self._build is not None and self._build is not asyncio.current_task():
            self._build.cancel()
        self._build = None

    def _build_done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.on_bug(error)

    def _cancel(self, cancel: Cancel) -> None:
        self._cancel_build()
        self._ready = None
        self._metrics.count(f"payload_job_cancellation_{cancel.reason.value}")
        if cancel.unpublished:
            self._metrics.count("flashblock_publish_suppressed_total")

    # Building

    def _build_opening(self, opening: BuildOpening) -> None:
        began = time.perf_counter()
        assert self._parent is not None and self._attributes is not None
        found = self._client.follower.parent_of(self._parent.hash)
        if found is None:
            self._tell(Failed(opening.payload_id, 0))
            raise InvalidAttributes("the parent's state is not here")
        header, state = found
        hashes = self._client.follower.ancestor_hashes(header.hash)
        try:
            block = OpenBlock.start(self._client.spec, header, state, self._attributes, block_hashes=hashes)
            made = build_opening(block, opening.payload_id, self._attributes.transactions)
        except ExecutionError:
            self._metrics.count("invalid_built_blocks_count")
            self._tell(Failed(opening.payload_id, 0))
            raise
        took_s = time.perf_counter() - began
        self._metrics.observe("sequencer_tx_duration", took_s)
        self._ready = self._framed(made, took_s)
        if self._attributes.no_tx_pool:
            self._adopt(self._ready)
        self._tell(Built(opening.payload_id, 0, took_s))

    async def _build_one(self, build: Build) -> None:
        began = time.perf_counter()
        followed = self._client.follower.open(build.payload_id)
        if followed is None or followed.last_index != build.index - 1:
            self._log.error("the block is not where the job is", index=build.index)
            self._tell(Failed(build.payload_id, build.index))
            return
        block = followed.working()
        share = budget(self._limits(block), build.share, build.shares)
        building = Building(
            build.payload_id, build.index, block, self._client.pool, self._bundles, share, clock=time.time
        )
        deadline_s = max(time.time() + BUILD_S_MIN, build.due_s - self._seal_reserve_s - READY_MARGIN_S)
        exhausted = False
        while not exhausted and time.time() < deadline_s:
            exhausted = building.run(time.time() + BUILD_SLICE_S, deadline_s)
            await asyncio.sleep(0)
        sealing = time.perf_counter()
        made = building.finish()
        self._ready = self._framed(made, time.perf_counter() - began)
        ended = time.perf_counter()
        self._metrics.observe("state_root_calculation_duration", ended - sealing)
        self._seal_reserve_s = max(ended - sealing, SEAL_RESERVE_DECAY * self._seal_reserve_s)
        self._note_build(made, building, ended - began)
        took_s = ended - began if exhausted else FULL_POOL_GROWTH * (ended - began)
        self._tell(Built(build.payload_id, build.index, took_s))

    def _limits(self, block: OpenBlock) -> Limits:
        rules = block.state.environment.rules
        scalar = read_l1_parameters(block.state, rules).da_footprint_gas_scalar if rules.jovian else 0
        limits = Limits(
            gas_limit=block.gas_limit,
            da_footprint_gas_scalar=scalar or None,
            uncompressed_bytes_per_block=self._uncompressed_bytes_per_block,
            gas_per_transaction=self._gas_per_transaction,
        )
        return limits.with_da_size(*self._client.max_da_size).with_gas_limit(self._client.gas_limit_override)

    def _framed(self, made: Made, took_s: float) -> _Ready:
        assert self._parent is not None
        flashblock, now = made.flashblock, time.time()
        hashes = [transaction.hash for transaction in made.transactions]
        trace = self.trace.built(flashblock.payload_id, flashblock.number, flashblock.index, now - took_s, now, hashes)
        return _Ready(made, frame_of(flashblock, encode_body(flashblock), self._parent.hash, traceparent=trace))

    def _note_build(self, made: Made, building: Building, took_s: float) -> None:
        metrics = self._metrics
        metrics.observe("flashblock_build_duration", took_s)
        for name, amount in made.counts.items():
            metrics.count(name, amount)
        for candidate, reason in made.dropped:
            self._log.info("transaction dropped", tx="0x" + candidate.hash.hex(), reason=reason)
            if candidate.revert_protected:
                self._bundles.drop(candidate.hash)
            else:
                self._client.pool.remove(candidate.hash)
        for tx_hash in building.bench.overran:
            self._overran[tx_hash] += 1
            if self._overran[tx_hash] >= OVERRUNS_MAX:
                # It never ends within a flashblock: left in the pool it would cost every block its time.
                self._log.warning("transaction runs too long", tx="0x" + tx_hash.hex())
                self._client.pool.remove(tx_hash)
                del self._overran[tx_hash]
        while len(self._overran) > OVERRUNS_REMEMBERED_MAX:
            del self._overran[next(iter(self._overran))]

    def _note_block(self, envelope: Envelope, scheduled: int, took_s: float) -> None:
        metrics, payload = self._metrics, envelope.payload
        flashblocks = sum(1 for frame in self.published if frame.index)
        size = sum(len(raw) for raw in payload.transactions)
        metrics.count("block_built_success")
        metrics.observe("total_block_built_duration", took_s)
        metrics.observe("flashblock_count", flashblocks)
        metrics.gauge("reduced_flashblocks_number", self._timing.flashblocks_per_block - scheduled)
        metrics.count("missing_flashblocks_count", max(0, scheduled - flashblocks))
        for name, value in (("payload_num_tx", len(payload.transactions)), ("payload_byte_size", size)):
            metrics.observe(name, value)
            metrics.gauge(f"{name}_gauge", value)
        metrics.observe("block_uncompressed_size", size)

    # Publishing

    def _publish(self, publish: Publish) -> None:
        ready, self._ready = self._ready, None
        assert ready is not None and ready.made.flashblock.index == publish.index
        if not self._adopt(ready):
            return
        self._stream.publish(ready.frame)
        self.published.append(ready.frame)
        made, metrics = ready.made, self._metrics
        self._trace_published(made)
        metrics.count("messages_sent_count")
        metrics.observe("flashblock_byte_size_histogram", len(ready.frame.body))
        metrics.observe("flashblock_num_tx_histogram", len(made.transactions))
        if publish.index:
            metrics.count(
                "continuous_trigger_ready_total" if publish.late_s < 0.005 else "continuous_trigger_miss_total"
            )
            metrics.observe(
                "flashblock_publish_timing_milliseconds", publish.late_s * 1000, flashblock_index=str(publish.index)
            )
        for transaction in made.transactions:
            self._bundles.landed(transaction.hash)
        self._log.debug(
            "flashblock",
            number=made.flashblock.number,
            index=publish.index,
            transactions=len(made.transactions),
            late_ms=round(publish.late_s * 1000, 1),
        )

    def _trace_published(self, made: Made) -> None:
        flashblock, hashes = made.flashblock, [transaction.hash for transaction in made.transactions]
        self.trace.published(flashblock.payload_id, flashblock.number, flashblock.index, hashes, time.time())

    def _adopt(self, ready: _Ready) -> bool:
        made = ready.made
        flashblock = made.flashblock
        known = self._client.follower.open(flashblock.payload_id)
        if known is not None and known.last_index >= flashblock.index:
            return False  # no_tx_pool adopts at once
        self._client.follower.adopt(
            flashblock.payload_id, flashblock, made.sealed, made.working, transactions=made.transactions
        )
        self._ground[flashblock.index] = flashblock.diff.block_hash
        return True
