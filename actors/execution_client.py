"""An execution client: chain, pool, store and follower behind two ports – the Engine API with its JWT, and eth RPC.

The fallback EL and the builder are this client with different sources of payloads. The rules are in
`flashblocks.execution`; here are the sockets (`engine_api`, `eth_rpc`), the clock, the threads, and the two tasks that
go on between blocks: fetching what was missed, and looking after the store.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import orjson
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from actors.chain_backfill import ChainBackfill
from actors.chain_opening import open_chain
from actors.collector import BlockCollector
from actors.engine_api import EngineApi
from actors.engine_trace import traced_methods
from actors.eth_rpc import EthRpc
from actors.handover_link import HandoverPort
from actors.operator_token import behind_token
from actors.payload_source import PayloadSource
from actors.pool_admin import PoolAdmin
from actors.pool_intake import PoolIntake
from actors.rpc_server import CALLER, Method, Probes, RpcServer
from actors.sidecar import read_jwt_secret
from actors.trace_keeping import TraceKeeper
from flashblocks.execution.chain import Chain, ChainBlock, HeadChange, Imported
from flashblocks.execution.errors import InvalidTransaction
from flashblocks.execution.follow import Patience, PayloadFollower, Verdict
from flashblocks.execution.genesis import load_genesis
from flashblocks.execution.header import Block
from flashblocks.execution.keccak import keccak256
from flashblocks.execution.pool import PoolLimits, TransactionPool
from flashblocks.execution.pool_rules import PoolHead, decode_for_pool
from flashblocks.execution.recovery import ChainKeeper
from flashblocks.execution.state import WorldState
from flashblocks.execution.store import StoreError
from flashblocks.execution.transaction import Transaction, decode_transaction, recover_sender
from flashblocks.ingress import handover
from flashblocks.wire.flashblock import Flashblock
from tracing.building import BuildTrace
from tracing.stages import component_stages

T = TypeVar("T")

RECOVERY_THREADS = 2
SLICE_S = 0.010  # a long import lets the sockets have a turn after this much work
JUDGED_TRANSACTION_S_MAX = 1.0  # a builder stops far below; slower machines need some room
MAINTENANCE_IDLE_S = 1.0
MAINTENANCE_BUSY_S = 0.05
COLLECT_S_MAX = 10.0  # garbage is collected after each block, and this often when there are none
EXECUTION_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)


class ClientOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What an execution client needs to know; `data_dir` empty keeps the chain in memory only."""

    component: str
    name: str
    group: int
    host: str
    engine_host: str = ""
    engine_port: int
    rpc_port: int
    genesis_path: str
    data_dir: str
    jwt_secret_path: str
    peer_urls: list[str]
    sync_every_block: bool = True
    pool: PoolLimits = PoolLimits()
    believes_senders: bool = False  # of transactions that a holder of the JWT hands over


class ExecutionClient:
    """One execution client. `make_source` gets the client, opened, and returns its source of payloads.

    Hooks for the component around it: `on_applied(flashblock, committed)` after a flashblock of others was applied,
    `on_verdict(verdict, seconds)` after one was judged,
    `on_head(change)` after forkchoice moved the head.
    """

    def __init__(
        self,
        options: ClientOptions,
        log: Any,
        make_source: Callable[[ExecutionClient], PayloadSource],
        *,
        engine_methods: Mapping[str, Method] | None = None,
        rpc_methods: Mapping[str, Method] | None = None,
        registry: CollectorRegistry | None = None,
        status: Callable[[], dict[str, Any]] | None = None,
    ) -> None:
        self.options, self.log = options, log
        self.registry = registry or CollectorRegistry()
        self.spec, genesis, state = load_genesis(orjson.loads(Path(options.genesis_path).read_bytes()))
        self.keeper: ChainKeeper | None = None
        self.traces: TraceKeeper | None = None
        if options.data_dir:
            self.traces = TraceKeeper(Path(options.data_dir), log)  # before the chain, which executes blocks at opening
            self.keeper, self.chain = open_chain(Path(options.data_dir), self.spec, genesis, state, log)
        else:
            self.chain = Chain(self.spec, ChainBlock(genesis.header, (), (), state))
        self.follower = PayloadFollower(self.chain)
        self.pool = TransactionPool(self.spec, self._pool_head(), options.pool)
        self.pool.pending_state = self._pending_state
        self.on_applied: Callable[[Flashblock, bool], None] = lambda flashblock, committed: None
        self.on_verdict: Callable[[Verdict, float], None] = lambda verdict, took_s: None
        self.on_head: Callable[[HeadChange], None] = lambda change: None
        self.max_da_size = (0, 0)  # miner_setMaxDASize: per transaction and per block, in bytes; 0 is no limit
        self.gas_limit_override: int | None = None  # miner_setGasLimit
        self.store_error: str | None = None
        self._status = status or (lambda: {})
        self._threads = ThreadPoolExecutor(RECOVERY_THREADS, thread_name_prefix="recover")
        self.applying = asyncio.Lock()  # one flashblock at a time is executed, or made
        self._make_metrics()
        self.stages = component_stages(options.component, options.name, options.data_dir, self.registry)
        self.building = BuildTrace(self.stages, self.spec.chain_id)
        self.source = make_source(self)
        self.backfill = ChainBackfill(self, options.peer_urls, log)
        secret = read_jwt_secret(options.jwt_secret_path)
        intake = PoolIntake(
            self.pool,
            self.recover,
            self._submitted,
            believes=options.believes_senders,
        )
        self.engine = EngineApi(self)
        self.eth = EthRpc(self)
        public = {**self.eth.methods(), **(rpc_methods or {})}
        admin = PoolAdmin(self).methods()
        self.engine_server = RpcServer(
            options.engine_host or options.host,
            options.engine_port,
            {**public, **admin, **traced_methods(self.stages, self.engine.methods()), **(engine_methods or {})},
            name=f"{options.component} engine",
            log=log,
            jwt_secret=secret,
            routes=self.engine.routes(),
            probes=self._probes,
            registry=self.registry,
        )
        self.rpc_server = RpcServer(
            options.host,
            options.rpc_port,
            {**public, **behind_token(secret, admin)},
            name=f"{options.component} rpc",
            log=log,
            links={handover.PATH: HandoverPort(intake.take, secret)},
            probes=self._probes,
            shows=self.registry,
        )

    # -- life

    async def start(self) -> None:
        """Bind both ports."""
        await self.engine_server.start()
        await self.rpc_server.start()
        self.log.info(
            "execution client serves",
            engine=self.engine_server.url,
            rpc=self.rpc_server.url,
            head=self.chain.head.number,
            block_hash=self.chain.head.hash,
            dropped_bytes=self.keeper.store.dropped_bytes if self.keeper else 0,
        )

    async def run(self) -> None:
        """Look after chain and store until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._maintain())
            group.create_task(self.backfill.run())

    async def close(self) -> None:
        """Close ports, tasks, threads and the store; idempotent."""
        await self.source.close()
        await self.engine_server.close()
        await self.rpc_server.close()
        await self.backfill.close()
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self.keeper is not None:
            self.keeper.close()
        if self.traces is not None:
            self.traces.close()
        await asyncio.to_thread(self.stages.close)

    def status(self) -> dict[str, Any]:
        """What `flashblocks_status` answers."""
        head, followed = self.chain.head, self.follower.blocks()
        return {
            "component": self.options.component,
            "name": self.options.name,
            "group": self.options.group,
            "pid": os.getpid(),
            "health": "ok" if self.store_error is None else self.store_error,
            "number": head.number,
            "hash": "0x" + head.hash.hex(),
            "index": followed[-1].last_index if followed else None,
            "following": followed[-1].number if followed else None,
            "pool": len(self.pool),
            "syncing": self.backfill.target_number is not None,
            **self._status(),
        }

    # -- transactions

    async def submit(self, raw: bytes) -> bytes:
        """Check a client's transaction and put it into the pool; raises InvalidTransaction. Returns its hash."""
        tx = decode_for_pool(raw, self.options.pool.transaction_size_bytes_max)
        if tx.hash not in self.pool:
            await self.recover([tx])
        self.pool.add(tx, time.time())
        self._submitted(tx.hash)
        return tx.hash

    def _submitted(self, tx_hash: bytes) -> None:
        if CALLER.get().traceparent:  # from one of ours, who records the root of its trace
            self.building.arrived(tx_hash, time.time())

    async def recover(self, transactions: Sequence[Transaction]) -> None:
        """Recover senders on another thread; raises InvalidTransaction for the first signature that is none."""
        await asyncio.get_running_loop().run_in_executor(self._threads, _recover_all, transactions)

    async def decode(self, raws: Iterable[bytes]) -> tuple[Transaction, ...]:
        """Decode transactions with their senders, using the pool's copy where it has one; raises InvalidTransaction."""
        known = [self.pool.get(keccak256(raw)) or decode_transaction(raw) for raw in raws]
        fresh = [tx for tx in known if tx.sender_unknown]
        if fresh:
            await self.recover(fresh)
        return tuple(known)

    # -- blocks

    async def apply(self, flashblock: Flashblock, *, committed: bool) -> tuple[Verdict, float]:
        """Judge a flashblock of others in turn; the verdict, and the seconds its execution took."""
        async with self.applying:
            try:
                decoded = () if self._is_known(flashblock) else await self.decode(flashblock.diff.transactions)
            except InvalidTransaction as error:
                followed = self.follower.open(flashblock.payload_id)
                expected = followed.last_index + 1 if followed else 0
                return Verdict("INVALID", expected, b"", str(error)), 0.0
            began = time.perf_counter()
            steps = self.follower.apply_steps(
                flashblock,
                committed=committed,
                decoded=decoded,
                patience=Patience(JUDGED_TRANSACTION_S_MAX, time.monotonic),
            )
            verdict = await _in_slices(steps)
            took = time.perf_counter() - began
            if verdict.status in ("VALID", "DUPLICATE"):
                self.on_applied(flashblock, committed)
        self._verdicts.labels(verdict.status).inc()
        self.on_verdict(verdict, took)
        if verdict.status == "VALID":
            self._apply_seconds.observe(took)
        elif verdict.status == "UNKNOWN_PARENT" and flashblock.base is not None:
            self.backfill.want(flashblock.base.parent_hash)
        return verdict, took

    def _is_known(self, flashblock: Flashblock) -> bool:
        """Whether applying it will find it a duplicate: nothing need be decoded for that."""
        followed = self.follower.open(flashblock.payload_id)
        if followed is None or flashblock.index > followed.last_index:
            return False
        return followed.flashblock(flashblock.index) == flashblock

    async def import_block(self, block: Block) -> Imported:
        """Take a whole block; the loop gets a turn every few milliseconds. Raises StoreError: nothing has changed."""
        known = self.chain.judged(block.header)
        if known is not None and (
            known.status != "SYNCING" or self.follower.parent_of(block.header.parent_hash) is None
        ):
            return known
        began = time.perf_counter()
        try:
            decoded = await self.decode(block.transactions)
        except InvalidTransaction as error:
            return self.chain.reject(block.header, str(error))
        try:
            result = await _in_slices(self.follower.take_steps(block, decoded))
        except StoreError as error:
            self._store_failed(error)
            raise
        self.store_error = None
        if result.status == "VALID":
            self._import_seconds.observe(time.perf_counter() - began)
        elif result.status == "INVALID":
            self.log.warning(
                "invalid block",
                number=block.header.number,
                block_hash=block.hash,
                error=result.error,
                traceparent=CALLER.get().traceparent,
            )
        return result

    def set_head(self, head: bytes, safe: bytes, finalized: bytes) -> HeadChange:
        """Move the head and all that depends on it. Raises UnknownBlock, StoreError."""
        try:
            self.follower.settle(head)
            change = self.chain.set_head(head, safe, finalized)
        except StoreError as error:
            self._store_failed(error)
            raise
        if change.added or change.removed:
            now = time.time()
            joined = {tx.hash for block in change.added for tx in block.transactions}
            senders = {tx.sender for block in change.added for tx in block.transactions if not tx.is_deposit}
            self.pool.set_head(self._pool_head(), now, senders)
            for block in reversed(change.removed):
                self.pool.reinject([tx for tx in block.transactions if tx.hash not in joined], now)
            self.follower.forget_below(self.chain.head.number)
            if change.removed:
                self.log.warning("reorganised", removed=len(change.removed), number=self.chain.head.number)
            for tx_hash in joined:
                self.building.landed(tx_hash)
            self.on_head(change)
        return change

    def _pool_head(self) -> PoolHead:
        head = self.chain.head
        assert head.state is not None, "the head always has its state"
        return PoolHead.of(self.spec, head.header, head.state)

    def _pending_state(self) -> WorldState | None:
        """The state after the flashblocks that lie on the head, of the payload begun last."""
        for followed in reversed(self.follower.blocks()):
            if followed.parent_hash == self.chain.head.hash and followed.steps:
                return followed.sealed().state
        return None

    def _store_failed(self, error: StoreError) -> None:
        if self.store_error is None:
            self.log.error("the chain store refuses blocks", error=str(error))
        self.store_error = str(error)

    # -- between blocks

    async def _maintain(self) -> None:
        """Snapshots, index and traces slice by slice, the log's sync, the garbage – while nothing waits for it."""
        seen, collected = self.chain.head.number, time.monotonic()
        with BlockCollector() as collector:
            while True:
                busy = self.keeper is not None and self.keeper.maintain(self.chain)
                busy = (self.traces is not None and self.traces.step()) or busy
                moved = self.chain.head.number != seen
                if moved or time.monotonic() - collected > COLLECT_S_MAX:
                    seen, collected = self.chain.head.number, time.monotonic()
                    collector.between_blocks()
                if moved and self.keeper is not None and self.options.sync_every_block:
                    await asyncio.to_thread(self.keeper.store.sync)
                await asyncio.sleep(MAINTENANCE_BUSY_S if busy else MAINTENANCE_IDLE_S)

    def _probes(self) -> Probes:
        if self.store_error is not None:
            return Probes((503, self.store_error), (503, self.store_error))
        if self.backfill.target_number is not None:
            return Probes((200, "OK"), (503, f"syncing to block {self.backfill.target_number}"))
        return Probes()

    def _make_metrics(self) -> None:
        registry = self.registry
        Gauge("chain_head_block", "Number of the head", registry=registry).set_function(lambda: self.chain.head.number)
        Gauge("txpool_transactions", "Transactions in the pool", registry=registry).set_function(lambda: len(self.pool))
        self._verdicts = Counter("flashblocks_judged", "Flashblocks applied, by verdict", ["status"], registry=registry)
        self._apply_seconds = Histogram(
            "flashblocks_apply_seconds", "Execution of one flashblock", buckets=EXECUTION_BUCKETS_S, registry=registry
        )
        self._import_seconds = Histogram(
            "chain_import_seconds", "Import of one block", buckets=EXECUTION_BUCKETS_S, registry=registry
        )


async def _in_slices(steps: Generator[None, None, T]) -> T:
    """Go through the pauses of a long execution, giving the loop a turn every few milliseconds; the result."""
    paused = time.perf_counter()
    while True:
        try:
            next(steps)
        except StopIteration as finished:
            result: T = finished.value
            return result
        if time.perf_counter() - paused > SLICE_S:
            await asyncio.sleep(0)
            paused = time.perf_counter()


def _recover_all(transactions: Sequence[Transaction]) -> None:
    for tx in transactions:
        recover_sender(tx)
