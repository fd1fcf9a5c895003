"""The builder's source of payloads: drives the job's rules with real time, builds in slices, publishes at the trigger.

Between two triggers a candidate grows, at the pace of `flashblocks.builder.pace`; at the trigger the one sealed last is
published, whatever is going on.  Building yields to the loop every few milliseconds.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable

import msgspec

from actors import fault_points
from actors.builder_metrics import note, note_block, note_flashblock
from actors.execution_client import ExecutionClient
from actors.frame_link import FrameServer, Peer
from actors.payload_source import UnknownPayload
from actors.upstream_metrics import UpstreamMetrics
from flashblocks.builder.backruns import BackrunPool, BackrunRules, BackrunsHere
from flashblocks.builder.budget import Limits, budget
from flashblocks.builder.building import Building, Made, build_opening
from flashblocks.builder.bundles import BundlePool
from flashblocks.builder.job import (
    EXTRA_DEADLINE_S_DEFAULT,
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
from flashblocks.builder.limiter import NO_LIMITS, SenderLimits
from flashblocks.builder.pace import Allowance, Costs, Done, Fill, Pace, Rest, Seal
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

OVERRUNS_MAX = 3
OVERRUNS_REMEMBERED_MAX = 1_024


class _Ready(msgspec.Struct, frozen=True):
    """A candidate, encoded; when it was sealed (Unix seconds), and how much work it took."""

    made: Made
    body: bytes
    sealed_s: float
    took_s: float
    execution_s: float = 0.0
    last: bool = False


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
        sender_limits: SenderLimits = NO_LIMITS,
        extra_deadline_s: float = EXTRA_DEADLINE_S_DEFAULT,
        backruns: tuple[BackrunPool, BackrunRules] | None = None,
    ) -> None:
        self.job = Job(timing, extra_deadline_s)
        self.published: list[FlashblockFrame] = []
        self._client, self._timing, self._stream = client, timing, stream
        self._bundles, self._metrics, self._log = bundles, metrics, client.log
        self._gas_per_transaction = gas_per_transaction
        self._uncompressed_bytes_per_block = uncompressed_bytes_per_block
        self._sender_limits = sender_limits
        self._backruns = backruns
        self._backruns_tried = self._backruns_landed = 0  # in this block
        self._parent: Header | None = None
        self._attributes: PayloadAttributes | None = None
        self._ready: _Ready | None = None
        self._building: Building | None = None
        self._build: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._costs, self._allowance = Costs(), Allowance(timing)
        self._began_s = 0.0
        self._fees = 0  # of the candidate, in wei
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
            self._backruns_tried = self._backruns_landed = 0
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
        sealed = followed.sealed()
        envelope = envelope_of(sealed.block, sealed.receipts)
        if ending:
            flashblocks = sum(1 for frame in self.published if frame.index)
            usual, took_s = self._timing.flashblocks_per_block, time.time() - began_s
            note_block(self._metrics, envelope.payload.transactions, flashblocks, scheduled, usual, took_s)
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

    def head_moved(self, number: int, block_hash: bytes) -> None:
        """The head reached the height of the job's block: whoever made it, building on is pointless."""
        self._sender_limits.new_block()
        if self._parent is None or number != self._parent.number + 1:
            return
        if block_hash in self._ground.values():
            self._allowance.block_came_back(whole=self._ground[max(self._ground)] == block_hash)
        if self.job.payload_id:
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
                self._ready = None
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
        self._build = self._building = None

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
        note(self._metrics, "sequencer_tx_duration", took_s)
        self._ready = _Ready(made, encode_body(made.flashblock), time.time(), took_s)
        if self._attributes.no_tx_pool:
            self._adopt(self._ready.made)
        self._tell(Built(opening.payload_id, 0))

    async def _build_one(self, build: Build) -> None:
        """Grow a candidate until its trigger; ends early when another flashblock is begun instead."""
        building = self._begin_building(build)
        if building is None:
            self._tell(Failed(build.payload_id, build.index))
            return
        pool, bundles = self._client.pool, self._bundles
        backruns = BackrunPool() if self._backruns is None else self._backruns[0]
        pace = Pace(time.time(), build.due_s, self._allowance.of(last=build.last), self._costs, last=build.last)
        while self._building is building:
            began_s, revision = time.time(), pool.revision + bundles.revision + backruns.revision
            match pace.next(began_s, revision):
                case Fill(until_s, deadline_s, renew):
                    if renew:
                        building.look()
                        looked_s = time.time()
                        pace.looked(began_s, looked_s, revision)
                        note(self._metrics, "transaction_pool_fetch_duration", looked_s - began_s)
                    filling = time.perf_counter()
                    exhausted = building.run(until_s, deadline_s)
                    took_s = time.perf_counter() - filling
                    pace.filled(took_s, exhausted=exhausted, unsealed=building.unsealed)
                    await asyncio.sleep(0)
                case Seal():
                    self._seal(building, build, pace)
                case Rest(until_s):
                    await asyncio.sleep(max(0.0, until_s - began_s))
                case Done():
                    return

    def _begin_building(self, build: Build) -> Building | None:
        followed = self._client.follower.open(build.payload_id)
        if followed is None or followed.last_index != build.index - 1:
            self._log.error("the block is not where the job is", index=build.index)
            return None
        block = followed.working()
        fault_points.diverge(block.state.delta_balance)
        share = budget(self._limits(block), build.share, build.shares)
        self._building = Building(
            build.payload_id,
            build.index,
            block,
            self._client.pool,
            self._bundles,
            share,
            clock=time.time,
            limits=self._sender_limits,
            followers=self._followers(build.index, block),
        )
        return self._building

    def _followers(self, index: int, block: OpenBlock) -> BackrunsHere | None:
        if self._backruns is None:
            return None
        pool, rules = self._backruns
        tried, landed = self._backruns_tried, self._backruns_landed
        return BackrunsHere(pool, rules, block.number, index, block.base_fee, tried, landed)

    def _seal(self, building: Building, build: Build, pace: Pace) -> None:
        began_s = time.time()
        made = building.seal()
        note(self._metrics, "state_root_calculation_duration", time.time() - began_s)
        body = encode_body(made.flashblock)
        ended_s = time.time()
        pace.sealed(began_s, ended_s)
        self._note_candidate(building, pace.executed_s + pace.sealing_s)
        self._ready = _Ready(made, body, ended_s, pace.executed_s + pace.sealing_s, pace.executed_s, build.last)
        self._tell(Built(build.payload_id, build.index))

    def _note_candidate(self, building: Building, worked_s: float) -> None:
        metrics, fees = self._metrics, building.packing.fees
        metrics.observe("continuous_build_duration", worked_s)
        metrics.count("continuous_candidates_evaluated")
        if self._ready is not None:
            metrics.count("continuous_candidates_improved")
            metrics.observe("continuous_fee_improvement", fees - self._fees)
        self._fees = fees

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

    def _framed(self, ready: _Ready) -> FlashblockFrame:
        assert self._parent is not None
        made = ready.made
        flashblock, began_s = made.flashblock, ready.sealed_s - ready.took_s
        hashes = [transaction.hash for transaction in made.transactions]
        trace = self.trace.built(
            flashblock.payload_id, flashblock.number, flashblock.index, began_s, ready.sealed_s, hashes
        )
        return frame_of(flashblock, ready.body, self._parent.hash, traceparent=trace)

    def _note_build(self, ready: _Ready, building: Building) -> None:
        """Count what was done for a published flashblock, and give up what cannot be had."""
        made = ready.made
        note_flashblock(self._metrics, made, building.bench.ran, ready.took_s, ready.execution_s)
        self._backruns_tried += made.counts["payload_num_backruns_considered"]
        self._backruns_landed += made.counts["payload_num_backruns_successful"]
        if building.packing.followed_s:
            note(self._metrics, "backrun_transaction_processing_duration", building.packing.followed_s)
        for candidate, reason in made.dropped:
            self._log.info("transaction dropped", tx="0x" + candidate.hash.hex(), reason=reason)
            if candidate.revert_protected:
                self._bundles.drop(candidate.hash)
            else:
                self._client.pool.remove(candidate.hash)
        for tx_hash in () if ready.last else building.bench.overran:  # the last has less time than the others
            self._overran[tx_hash] += 1
            if self._overran[tx_hash] >= OVERRUNS_MAX:
                # It never ends within a flashblock: left in the pool it would cost every block its time.
                self._log.warning("transaction runs too long", tx="0x" + tx_hash.hex())
                self._client.pool.remove(tx_hash)
                del self._overran[tx_hash]
        while len(self._overran) > OVERRUNS_REMEMBERED_MAX:
            del self._overran[next(iter(self._overran))]

    # Publishing

    def _publish(self, publish: Publish) -> None:
        ready, self._ready = self._ready, None
        building, self._building = self._building, None
        assert ready is not None and ready.made.flashblock.index == publish.index
        began = time.perf_counter()
        made = ready.made if building is None else building.freeze()
        if made is None or not self._adopt(made):
            return
        frame, metrics = self._framed(ready), self._metrics
        note(metrics, "state_transition_merge_duration", time.perf_counter() - began)
        self._stream.publish(frame)
        self.published.append(frame)
        self._trace_published(made)
        metrics.count("messages_sent_count")
        metrics.count("fanout_no_subscribers", 0 if self._stream.peers else 1)
        metrics.observe("flashblock_byte_size_histogram", len(frame.body))
        metrics.observe("flashblock_num_tx_histogram", len(made.transactions))
        if building is not None:
            self._note_build(ready, building)
        if publish.index:
            metrics.count("continuous_trigger_miss_total" if publish.waited else "continuous_trigger_ready_total")
            if publish.waited:
                metrics.observe("continuous_trigger_fallback_wait_duration", publish.late_s)
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

    def _adopt(self, made: Made) -> bool:
        flashblock = made.flashblock
        known = self._client.follower.open(flashblock.payload_id)
        if known is not None and known.last_index >= flashblock.index:
            return False  # no_tx_pool adopts at once
        self._client.follower.adopt(
            flashblock.payload_id, flashblock, made.sealed, made.working, transactions=made.transactions
        )
        self._ground[flashblock.index] = flashblock.diff.block_hash
        return True
