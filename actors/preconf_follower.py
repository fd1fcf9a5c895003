"""Follows the stream and the chain for an rpc-node: sockets and threads around `flashblocks.preconf.pending`.

Every fact – a frame, a verdict, a fetched block, a tick – goes into the machine at once; its decisions go into one
queue and are carried out in order by one task. EVM work runs in one thread, so the loop keeps answering; all changes
of the chain are made there too. Whoever wants to hear of changes (subscriptions, waiting senders) gives a listener.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from prometheus_client import CollectorRegistry

from actors.execution_peers import BatchAnswer, ExecutionPeers, call_batch
from actors.follower_metrics import FollowerMetrics
from actors.frame_link import FrameClient
from actors.own_chain import Genesis, open_chain
from actors.rpc_client import RpcRefused, RpcUnknown
from actors.warm_up import warm_up
from flashblocks.execution.errors import ExecutionError, InvalidTransaction
from flashblocks.execution.follow import PayloadFollower
from flashblocks.execution.header import Block
from flashblocks.execution.keccak import keccak256
from flashblocks.execution.transaction import Transaction, decode_transaction
from flashblocks.preconf.events import Event, FlashblockShown, HeadChanged, Withdrawn
from flashblocks.preconf.facts import (
    Appended,
    Arrival,
    Backfill,
    BlockRef,
    CanonicalBlock,
    Decision,
    Dropped,
    Execute,
    Invalidated,
    Resend,
    Seal,
)
from flashblocks.preconf.intake import ForeignIntake, arrival_of
from flashblocks.preconf.pending import PendingMachine
from flashblocks.preconf.snapshot import PendingSnapshot
from flashblocks.wire.frames import AnnounceGapFrame, FlashblockFrame, Frame, SealedFrame
from flashblocks.wire.hexadecimal import WireError, quantity, to_bytes, to_int
from tracing.pending import PendingTrace

T = TypeVar("T")

TICK_S = 0.02
CONFIRM_S = 1.0
CONFIRMING_CLIENTS = 2
RESEND_LISTEN_S = 0.4
BACKFILL_BATCH_BLOCKS = 8
BACKFILL_ANSWER_S_MAX = 15.0  # full blocks are megabytes, and a busy client is slow
BACKFILL_TRIES_MAX = 4
FORK_DEPTH_BLOCKS_MAX = 64
SHOWN_BLOCKS_MAX = 8
MAINTENANCE_SLICES_PER_BLOCK = 4  # of a few milliseconds each, for snapshots and the index


class _SetHead(msgspec.Struct, frozen=True):
    """An imported block has become the machine's head."""

    hash: bytes


class PreconfFollower:
    """The rpc-node's own chain, its pending block, and the machine that decides about both."""

    def __init__(
        self,
        genesis: Genesis,
        *,
        directory: Path | None,
        stream_urls: Sequence[str],
        execution_urls: Sequence[str],
        stale_after_s: float,
        max_unconfirmed_blocks: int,
        registry: CollectorRegistry,
        log: Any,
        trace: PendingTrace,
    ) -> None:
        self._log, self.trace = log, trace
        self._keeper, self.chain = open_chain(genesis, directory, log)
        self._follower = PayloadFollower(self.chain)
        head = self.chain.head
        self.machine = PendingMachine(
            BlockRef(head.number, head.hash),
            stale_after_s=stale_after_s,
            max_unconfirmed_blocks=max_unconfirmed_blocks,
            agreeing_clients=min(2, max(1, len(execution_urls))),
        )
        self.listeners: list[Callable[[Event], None]] = []
        self.known_transaction: Callable[[bytes], Transaction | None] = lambda tx_hash: None
        """Where there may be decoded transactions, senders and all: what was sent through this node."""
        self.peers = ExecutionPeers(execution_urls)
        self._labels = (BlockRef(-1, self.chain.safe_hash), BlockRef(-1, self.chain.finalized_hash))
        self._snapshot: PendingSnapshot | None = None
        self._shown: dict[int, PendingSnapshot] = {}
        self._foreign = ForeignIntake()
        self._streams = [
            FrameClient(url, self._on_frame, on_foreign=self._on_foreign, start=self.machine.wanted)
            for url in stream_urls
        ]
        self._evm = ThreadPoolExecutor(1, thread_name_prefix="evm")
        self._todo: deque[Decision | _SetHead] = deque()
        self._work = asyncio.Event()
        self._backfilling: asyncio.Task[None] | None = None
        self._resending: asyncio.Task[None] | None = None
        self._resend_turn = 0
        self._bug: asyncio.Future[None] | None = None
        self.metrics = FollowerMetrics(registry, self)

    # Life -----------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to connect; nobody needs to be there yet."""
        self._bug = asyncio.get_running_loop().create_future()
        for stream in self._streams:
            await stream.start()

    async def run(self) -> None:
        """Work until cancelled; an exception is our own bug."""
        assert self._bug is not None
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.in_evm(lambda: warm_up(self.chain)))
            tasks.create_task(self._carry_out())
            tasks.create_task(self._tick())
            tasks.create_task(self._confirm())
            tasks.create_task(_raise(self._bug))
            for stream in self._streams:
                tasks.create_task(stream.run())

    async def close(self) -> None:
        """Let go of sockets, thread and files."""
        for stream in self._streams:
            await stream.close()
        tasks = [task for task in (self._backfilling, self._resending) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.peers.close()
        self._evm.shutdown(wait=True, cancel_futures=True)
        if self._keeper is not None:
            self._keeper.close()
            self._keeper = None

    # What others read -----------------------------------------------------------------------------------------------

    def pending(self) -> PendingSnapshot | None:
        """The pending block, or None when `pending` means `latest` at this moment.

        The machine is ahead of what is carried out: a block it has sealed stays pending until it is the head here, so
        that `pending` never goes back to before what it showed.
        """
        return None if self.machine.is_stale(time.monotonic()) else self.shown()

    def shown(self) -> PendingSnapshot | None:
        """The newest preconfirmed block even while the stream is silent: what was shown there stays shown."""
        snapshot = self._snapshot
        return snapshot if snapshot is not None and snapshot.header.parent_hash == self.chain.head.hash else None

    def stream_age_s(self) -> float | None:
        """Seconds since the last flashblock; None before the first."""
        return self.machine.stream_age_s(time.monotonic())

    def streams_up(self) -> int:
        """How many proxies we are connected to."""
        return sum(stream.connected for stream in self._streams)

    def reconnects(self) -> int:
        """How often a proxy was tried again."""
        return sum(max(0, stream.counters.attempts - 1) for stream in self._streams)

    # Facts ----------------------------------------------------------------------------------------------------------

    def _on_frame(self, frame: Frame) -> None:
        now = time.monotonic()
        if isinstance(frame, FlashblockFrame):
            self.metrics.upstream.count("upstream_messages")
            known = self.machine.has(frame.number, frame.index, frame.digest)
            if known and frame.epoch <= self.machine.epoch:
                self.metrics.upstream.count("unexpected_block_order", reason="duplicate")
                return
            try:
                arrival = arrival_of(frame)
            except WireError as error:
                self._unreadable(error)
                return
            self.trace.arrived(frame.digest, time.time())
            self._decide(self.machine.streamed(now, arrival))
        elif isinstance(frame, SealedFrame):
            self._decide(self.machine.sealed(now, BlockRef(frame.number, frame.block_hash)))
        elif isinstance(frame, AnnounceGapFrame):
            self._log.warning("gap announced", block=frame.number, first=frame.index_from, last=frame.index_to)
            self._decide(self.machine.gap_announced(now, frame.number, frame.index_from))

    def _on_foreign(self, message: str | bytes) -> None:
        self.metrics.upstream.count("upstream_messages")
        try:
            arrival = self._foreign.arrival_of(message)
        except WireError as error:
            self._unreadable(error)
            return
        self._decide(self.machine.streamed(time.monotonic(), arrival))

    def _unreadable(self, error: WireError) -> None:
        self.metrics.upstream.count("upstream_errors")
        self._log.warning("flashblock refused", error=str(error))

    async def _tick(self) -> None:
        while True:
            self._decide(self.machine.tick(time.monotonic()))
            await asyncio.sleep(TICK_S)

    async def _confirm(self) -> None:
        """Hear from several execution clients, by turns, which block is their head: nobody is trusted alone."""
        while True:
            await asyncio.sleep(CONFIRM_S)
            urls = self.peers.in_turn()[:CONFIRMING_CLIENTS]
            await asyncio.gather(*(self._observe(url) for url in urls))

    async def _observe(self, url: str) -> None:
        calls = [("eth_getBlockByNumber", (tag, False)) for tag in ("latest", "safe", "finalized")]
        try:
            latest, safe, finalized = await call_batch(self.peers.client(url), calls)
            seen = _reference(latest)
        except (RpcUnknown, RpcRefused):
            seen = None
        if seen is None:
            self.peers.avoid(url)
            return
        self._decide(self.machine.observed(time.monotonic(), url, seen))
        self._label(_reference(safe), _reference(finalized))

    def _label(self, safe: BlockRef | None, finalized: BlockRef | None) -> None:
        """Take over which of our blocks are safe and finalized; neither goes back, no other chain's block counts."""
        ours = [
            old if new is None or new.number < old.number or self.chain.canonical_hash(new.number) != new.hash else new
            for old, new in zip(self._labels, (safe, finalized), strict=True)
        ]
        if tuple(ours) != self._labels:
            self._labels = (ours[0], ours[1])
            self._todo.append(_SetHead(self.machine.head.hash))
            self._work.set()

    # Decisions ------------------------------------------------------------------------------------------------------

    def _decide(self, decisions: Sequence[Decision]) -> None:
        if decisions:
            self._todo.extend(decisions)
            self._work.set()

    async def _carry_out(self) -> None:
        while True:
            while self._todo:
                await self._carry_out_one(self._todo.popleft())
            self._work.clear()
            if not self._todo:
                await self._work.wait()

    async def _carry_out_one(self, decision: Decision | _SetHead) -> None:
        match decision:
            case Execute(arrival):
                await self._execute(arrival)
            case Seal(block, _, index):
                self.metrics.upstream.observe("flashblocks_in_block", index + 1)
                await self._set_head(block.hash)
            case _SetHead(block_hash):
                await self._set_head(block_hash)
            case Appended(arrival):
                self._show(arrival)
            case Invalidated():
                self._withdraw(decision)
            case Dropped(reason, number, index):
                self.metrics.upstream.count("unexpected_block_order", reason=reason)
                if reason not in ("duplicate", "stale_block"):
                    self._log.warning("flashblock dropped", reason=reason, block=number, index=index)
            case Resend(number, index):
                if self._resending is None or self._resending.done():
                    self._resending = self._spawn(self._resend(number, index))
            case Backfill():
                if self._backfilling is None or self._backfilling.done():
                    self._backfilling = self._spawn(self._backfill(decision))

    async def _execute(self, arrival: Arrival) -> None:
        assert arrival.flashblock is not None
        flashblock, before = arrival.flashblock, self._snapshot
        began = time.perf_counter()
        raws = flashblock.diff.transactions
        ours = [self.known_transaction(keccak256(raw)) for raw in raws]

        def work() -> tuple[str, str | None, PendingSnapshot | None]:
            verdict = self._follower.apply(flashblock, committed=arrival.epoch > 0, decoded=_decoded(raws, ours))
            followed = self._follower.open(flashblock.payload_id)
            if verdict.status not in ("VALID", "DUPLICATE") or followed is None:
                return verdict.status, verdict.error, None
            return verdict.status, None, PendingSnapshot(followed, flashblock.index, before)

        status, error, snapshot = await self.in_evm(work)
        self.metrics.processing.observe(time.perf_counter() - began)
        if error is not None:
            self.metrics.upstream.count("block_processing_error")
            self._log.warning(
                "flashblock invalid",
                block=arrival.number,
                index=arrival.index,
                error=error,
                traceparent=arrival.traceparent,
            )
        if snapshot is not None:
            self._snapshot = snapshot
        self._decide(self.machine.executed(time.monotonic(), arrival, status))  # type: ignore[arg-type]

    async def _set_head(self, block_hash: bytes) -> None:
        def work() -> Any:
            self._follower.settle(block_hash)
            change = self.chain.set_head(block_hash, *(label.hash for label in self._labels))
            self._follower.forget_below(self.chain.head.number)
            for _ in range(MAINTENANCE_SLICES_PER_BLOCK):
                if self._keeper is None or not self._keeper.maintain(self.chain):
                    break
            return change

        change = await self.in_evm(work)
        if change.added or change.removed:
            self._publish(HeadChanged(change.removed, change.added))
            for block in change.added:
                self.trace.sealed(block.number, [transaction.hash for transaction in block.transactions], time.time())

    def _show(self, arrival: Arrival) -> None:
        snapshot = self._snapshot
        if snapshot is None or (snapshot.payload_id, snapshot.index) != (arrival.payload_id, arrival.index):
            return
        self._shown.pop(snapshot.number, None)
        self._shown[snapshot.number] = snapshot
        while len(self._shown) > SHOWN_BLOCKS_MAX:
            del self._shown[next(iter(self._shown))]
        self._publish(FlashblockShown(snapshot))
        number, index, hashes = arrival.number, arrival.index, arrival.transactions
        payload_id, now = arrival.payload_id, time.time()
        self.trace.shown(arrival.traceparent, arrival.digest, number, index, payload_id, hashes, now)

    def _withdraw(self, gone: Invalidated) -> None:
        shown = self._shown.pop(gone.number, None)
        if self._snapshot is not None and self._snapshot.number >= gone.number:
            self._snapshot = None
        if gone.divergent:
            self.metrics.divergences.inc()
        self.metrics.lost.inc(len(gone.lost))
        if gone.reorg:
            self.metrics.upstream.count("pending_clear_reorg")
        self._log.warning(
            "preconfirmed block replaced",
            block=gone.number,
            shown=gone.shown_hash,
            sealed=gone.sealed_hash,
            divergent=gone.divergent,
            reorg=gone.reorg,
            lost=len(gone.lost),
        )
        self._publish(Withdrawn(gone, shown))

    def _publish(self, event: Event) -> None:
        for listener in list(self.listeners):
            listener(event)

    async def in_evm(self, work: Callable[[], T]) -> T:
        """Run something in the one thread that executes and changes the chain."""
        return await asyncio.get_running_loop().run_in_executor(self._evm, work)

    def _spawn(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.create_task(work)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None and self._bug is not None and not self._bug.done():
            self._bug.set_exception(error)

    # Asking again ---------------------------------------------------------------------------------------------------

    async def _resend(self, number: int, index: int) -> None:
        """Listen to one proxy for a moment on a second connection that begins at what is missing."""
        if not self._streams:
            return
        self._resend_turn += 1
        url = self._streams[self._resend_turn % len(self._streams)].url
        again = FrameClient(url, self._on_frame, on_foreign=self._on_foreign, start=lambda: (number, index))
        self.metrics.resends.inc()
        try:
            await again.start()
            await asyncio.sleep(RESEND_LISTEN_S)
        finally:
            await again.close()

    async def _backfill(self, wanted: Backfill) -> None:
        """Fetch a range from one client after another until one has it, and import it, oldest first."""
        for url in self.peers.in_turn()[:BACKFILL_TRIES_MAX]:
            try:
                if await self._backfill_from(url, wanted):
                    return
            except (RpcUnknown, RpcRefused):
                self.peers.avoid(url)
            except (WireError, ExecutionError) as error:
                self._log.warning("backfill refused", url=url, error=str(error))
                self.peers.avoid(url)

    async def _backfill_from(self, url: str, wanted: Backfill) -> bool:
        """Whether this client had what was wanted."""
        client, last = self.peers.client(url), wanted.last
        if last is None:
            last = to_int(await client.call("eth_blockNumber"))
            if last < wanted.first:
                return False
        for start in range(wanted.first, last + 1, BACKFILL_BATCH_BLOCKS):
            numbers = range(start, min(start + BACKFILL_BATCH_BLOCKS, last + 1))
            calls = [("debug_getRawBlock", (quantity(number),)) for number in numbers]
            answers = await call_batch(client, calls, BACKFILL_ANSWER_S_MAX)
            for number, answer in zip(numbers, answers, strict=True):
                if answer is None or answer[1] is not None or not isinstance(answer[0], str):
                    return False
                block = Block.from_rlp(to_bytes(answer[0]))
                if number == wanted.last and wanted.tip_hash not in (None, block.hash):
                    return False
                if not await self._import(url, block):
                    return False
        return True

    async def _import(self, url: str, block: Block) -> bool:
        """Import a block and, where it lies on another branch, the ancestors that are missing; oldest first."""
        branch = [block]
        while await self.in_evm(lambda: self.chain.state(branch[-1].header.parent_hash)) is None:
            if await self.in_evm(lambda: self._follower.settle(branch[-1].header.parent_hash)):
                break
            if len(branch) >= FORK_DEPTH_BLOCKS_MAX:
                return False
            parent_hash = branch[-1].header.parent_hash
            raw = await self.peers.client(url).call("debug_getRawBlock", "0x" + parent_hash.hex())
            parent = Block.from_rlp(to_bytes(raw))
            if parent.hash != parent_hash:
                return False
            branch.append(parent)
        for each in reversed(branch):
            imported = await self.in_evm(lambda each=each: self._follower.take(each))  # type: ignore[misc]
            if imported.status != "VALID":
                self._log.warning("block refused", block=each.header.number, error=imported.error, url=url)
                return False
            self._settled(each)
        return True

    def _settled(self, block: Block) -> None:
        known = self.chain.block(block.hash)
        assert known is not None
        hashes = tuple(transaction.hash for transaction in known.transactions)
        fact = CanonicalBlock(block.header.number, block.hash, block.header.parent_hash, hashes)
        opened = self.machine.open
        decisions = self.machine.canonical(time.monotonic(), fact)
        if opened is not None and opened is not self.machine.open and opened.number <= fact.number:
            self.metrics.upstream.count("pending_clear_catchup")
        if self.machine.head.hash == block.hash:
            self._todo.append(_SetHead(block.hash))
            self._work.set()
        self._decide(decisions)


def _reference(answer: BatchAnswer | None) -> BlockRef | None:
    """The block in an answer of eth_getBlockByNumber; None where there is none."""
    block: Any = answer[0] if answer is not None else None
    try:
        return BlockRef(to_int(block["number"]), to_bytes(block["hash"], 32))
    except (WireError, TypeError, KeyError):
        return None


def _decoded(raws: Sequence[bytes], known: Sequence[Transaction | None]) -> list[Transaction] | None:
    """The transactions, decoded where they are not known; None when one is none: whoever applies them will say so."""
    try:
        return [tx or decode_transaction(raw) for raw, tx in zip(raws, known, strict=True)]
    except InvalidTransaction:
        return None


async def _raise(bug: asyncio.Future[None]) -> None:
    await bug
