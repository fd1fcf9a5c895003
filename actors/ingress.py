"""The ingress: checks a raw transaction once, hands it to every builder and execution client until it is included.

`eth_sendRawTransaction` answers as soon as the first pool has it; rpc-nodes of ours hand over on a kept link instead.
The rules are in `flashblocks.ingress`; here are the sockets: one batch at a time to every target, over a link that also
tells of its restarts, and the stream that tells what is included.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry, Counter, Gauge

from actors.execution_peers import ExecutionPeers, expect_object
from actors.frame_link import FrameClient
from actors.handover_link import HandoverPort
from actors.ingress_targets import PoolTarget
from actors.rpc_client import RpcRefused, RpcUnknown
from actors.rpc_server import CALLER, Caller, Probes, RpcServer
from actors.sidecar import read_jwt_secret
from flashblocks.execution.errors import InvalidTransaction
from flashblocks.execution.transaction import Transaction
from flashblocks.ingress import admission, handover
from flashblocks.ingress.accounts import Accounts
from flashblocks.ingress.admission import AccountFacts, Terms
from flashblocks.ingress.handover import Handed, Outcome
from flashblocks.ingress.limits import RateLimit
from flashblocks.ingress.outbox import Decision, Forgotten, Outbox, Refusal, Send, Settled
from flashblocks.wire.flashblock import Flashblock, decode_body
from flashblocks.wire.flashblock_json import decode_json
from flashblocks.wire.frames import FlashblockFrame, Frame
from flashblocks.wire.hexadecimal import WireError, data, quantity, to_bytes, to_int
from flashblocks.wire.jsonrpc import LIMIT_EXCEEDED, SERVER_ERROR, RpcError
from flashblocks.wire.keccak import keccak256
from tracing import names
from tracing.context import transaction_root
from tracing.sending import SendTrace
from tracing.stages import component_stages

FIRST_ANSWER_S_MAX = 2.0
TICK_S = 0.1
FOLLOW_S = 0.5
BLOCKS_PER_STEP_MAX = 32
SEEN_FLASHBLOCKS_MAX = 512


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every option of an ingress. Rates are per second; 0 means no limit."""

    name: str
    group: int = 0
    host: str = "127.0.0.1"
    port: int = 8080
    data_dir: str = ""
    log_level: str = "info"
    target_urls: list[str]  # every builder's and execution client's RPC
    jwt_secret_path: str = ""  # with it, builders of ours believe the senders recovered here
    stream_urls: list[str] = []
    execution_urls: list[str] = []
    admissions_max: int = 4_096  # being taken in at the same time
    transactions_max: int = 20_000
    per_sender_max: int = 1_024
    resend_after_ms: int = 4_000
    lifetime_s: float = 600.0
    per_ip_rate: float = 2_000.0
    per_ip_burst: int = 4_000
    per_sender_rate: float = 1_000.0
    per_sender_burst: int = 2_000
    trusted_proxy_addresses: tuple[str, ...] = ("127.0.0.1", "::1")  # whose X-Forwarded-For counts


class Ingress:
    """One ingress; the pool of record for what it accepted until the chain holds it."""

    def __init__(self, settings: Settings, log: Any) -> None:
        self.settings, self._log = settings, log
        self._outbox = Outbox(
            settings.target_urls,
            transactions_max=settings.transactions_max,
            per_sender_max=settings.per_sender_max,
            resend_after_s=settings.resend_after_ms / 1000,
            lifetime_s=settings.lifetime_s,
        )
        self._accounts = Accounts()
        self._per_ip = RateLimit(settings.per_ip_rate, settings.per_ip_burst)
        self._per_sender = RateLimit(settings.per_sender_rate, settings.per_sender_burst)
        self._peers = ExecutionPeers(settings.execution_urls or settings.target_urls)
        secret = read_jwt_secret(settings.jwt_secret_path)
        self._targets = {url: PoolTarget(url, self._on_link(url), secret) for url in settings.target_urls}
        self._streams = [FrameClient(url, self._on_frame, on_foreign=self._on_foreign) for url in settings.stream_urls]
        self._terms: Terms | None = None
        self._sealed_number: int | None = None
        self._stream_number = -1
        self._new_block = asyncio.Event()
        self._seen: dict[bytes, None] = {}
        self._waiting: dict[bytes, asyncio.Future[Refusal | None]] = {}
        self._asking: dict[bytes, asyncio.Task[AccountFacts | None]] = {}
        self._sending: set[asyncio.Task[None]] = set()
        self._flush: asyncio.TimerHandle | None = None
        self._admitting = 0
        self._bug: asyncio.Future[None] | None = None
        registry = CollectorRegistry()
        self._stages = component_stages("ingress", settings.name, settings.data_dir, registry)
        self._trace = SendTrace(self._stages, names.ADMIT)
        self._accepted = Counter("ingress_transactions_accepted", "Transactions taken in", registry=registry)
        self._refused = Counter(
            "ingress_transactions_refused", "Transactions refused, by whom", ["by"], registry=registry
        )
        self._done = Counter(
            "ingress_transactions_done", "Transactions the ingress is done with", ["reason"], registry=registry
        )
        self._sent = Counter("ingress_sends", "Transactions sent to a target", ["target"], registry=registry)
        held = Gauge("ingress_transactions_held", "Transactions not yet sealed", registry=registry)
        held.set_function(lambda: len(self._outbox))
        self.server = RpcServer(
            settings.host,
            settings.port,
            {
                "eth_sendRawTransaction": self.send_raw_transaction,
                "eth_chainId": self._chain_id,
                "net_version": self._net_version,
                "web3_clientVersion": self._client_version,
                "ingress_nextNonce": self._next_nonce,
                "ingress_getTransaction": self._get_transaction,
                "flashblocks_status": self._status,
            },
            name="ingress",
            log=log,
            links={handover.PATH: HandoverPort(self._take)},
            probes=self._probes,
            registry=registry,
            cors_origins="*",
        )

    async def start(self) -> None:
        """Bind and serve; targets and streams may come later."""
        self._bug = asyncio.get_running_loop().create_future()
        await self.server.start()
        for target in self._targets.values():
            target.start()
        for stream in self._streams:
            await stream.start()

    async def run(self) -> None:
        """Tick, follow the chain, carry out decisions; ends only with our own bug."""
        assert self._bug is not None
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._tick())
            tasks.create_task(self._follow_blocks())
            tasks.create_task(self._wait_for_bug(self._bug))
            for stream in self._streams:
                tasks.create_task(stream.run())

    async def close(self) -> None:
        """Let go of everything; what waits for an answer gets none."""
        for stream in self._streams:
            await stream.close()
        await self.server.close()
        if self._flush is not None:
            self._flush.cancel()
        tasks = [*self._sending, *self._asking.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(target.close() for target in self._targets.values()), self._peers.close())
        await asyncio.to_thread(self._stages.close)

    def status(self) -> dict[str, Any]:
        """What `flashblocks status` shows."""
        return {
            "component": "ingress",
            "name": self.settings.name,
            "group": self.settings.group,
            "pid": os.getpid(),
            "health": "ready" if self._probes().ready[0] == 200 else "not ready",
            "number": self._stream_number if self._stream_number >= 0 else self._sealed_number,
            "held": len(self._outbox),
            "targets": {
                url: {"up": target.up, "waiting": self._outbox.waiting(url)} for url, target in self._targets.items()
            },
        }

    # Methods --------------------------------------------------------------------------------------------------------

    async def send_raw_transaction(self, raw: str) -> str:
        """eth_sendRawTransaction: the hash once a first pool has it; else a client's error text."""
        return data(await self._take_in(to_bytes(raw), CALLER.get(), traced=False))

    async def _take(
        self, transactions: tuple[Handed, ...], _trusted: bool, answer: Callable[[Sequence[Outcome]], None]
    ) -> None:
        """What an rpc-node hands over on its link. Each is taken in, and answered, for itself."""
        link = CALLER.get()
        for each in transactions:
            self._begin(self._take_one(each, link._replace(forwarded_for=each.caller), answer))

    async def _take_one(self, each: Handed, caller: Caller, answer: Callable[[Sequence[Outcome]], None]) -> None:
        try:
            await self._take_in(each.raw, caller, traced=each.traced)
        except RpcError as error:
            answer((Outcome(each.number, error.code, str(error)),))
        else:
            answer((Outcome(each.number),))

    async def _take_in(self, raw: bytes, caller: Caller, *, traced: bool) -> bytes:
        """Admit one transaction and wait until a first pool has it: its hash; raises RpcError."""
        if self._admitting >= self.settings.admissions_max:
            self._refused.labels("busy").inc()
            text = f"the ingress is busy: {self._admitting} transactions are being taken in; try again"
            raise RpcError(LIMIT_EXCEEDED, text)
        self._admitting += 1
        try:
            return await self._admit(raw, caller, traced)
        finally:
            self._admitting -= 1

    async def _admit(self, raw: bytes, caller: Caller, traced: bool) -> bytes:
        began, context = time.time(), caller.traceparent
        if not self._per_ip.take(self._address_of(caller), time.monotonic()):
            self._refused.labels("rate").inc()
            raise RpcError(LIMIT_EXCEEDED, "rate limit exceeded: too many transactions from this address")
        try:
            transaction = admission.read(raw)
            if traced:
                context = transaction_root(transaction.hash).traceparent
            terms = self._terms or await self._learn_terms()
            account = await self._account(transaction.sender)
            queued = self._outbox.queued_cost(transaction.sender, transaction.nonce)
            admission.check(transaction, terms, account, queued)
        except InvalidTransaction as refused:
            self._refused.labels("ingress").inc()
            self._trace.refused(b"", began, time.time(), context, str(refused))
            raise RpcError(SERVER_ERROR, str(refused)) from None
        refusal = self._outbox.room_for(transaction)
        if refusal is None and not self._per_sender.take(transaction.sender, time.monotonic()):
            refusal = Refusal(LIMIT_EXCEEDED, "rate limit exceeded: too many transactions of this sender")
        if refusal is None:
            self._trace.took(transaction.hash, began, time.time(), context)
            refusal = await self._hand_out(transaction)
            self._trace.answered(transaction.hash, time.time())
        if refusal is not None:
            self._trace.refused(transaction.hash, began, time.time(), context, refusal.message)
            self._refused.labels("target").inc()
            raise RpcError(refusal.code, refusal.message)
        self._accepted.inc()
        return transaction.hash

    async def _hand_out(self, transaction: Transaction) -> Refusal | None:
        answer: asyncio.Future[Refusal | None] = asyncio.get_running_loop().create_future()
        self._waiting[transaction.hash] = answer
        try:
            self._carry_out(self._outbox.accept(time.monotonic(), transaction))
            done, _ = await asyncio.wait((answer,), timeout=FIRST_ANSWER_S_MAX)
            if not done:
                self._carry_out(self._outbox.waited_enough(transaction.hash))
            return answer.result() if answer.done() else None
        finally:
            self._waiting.pop(transaction.hash, None)

    async def _chain_id(self) -> str:
        return quantity((self._terms or await self._learn_terms()).chain_id)

    async def _net_version(self) -> str:
        return str((self._terms or await self._learn_terms()).chain_id)

    async def _client_version(self) -> str:
        return "flashblocks/ingress"

    async def _next_nonce(self, address: str, from_nonce: str) -> str:
        """The first nonce at or after `from_nonce` for which nothing is on its way from this account."""
        return quantity(self._outbox.next_nonce(to_bytes(address, 20), to_int(from_nonce)))

    async def _get_transaction(self, tx_hash: str) -> str | None:
        """The raw bytes of a transaction on its way, or null."""
        transaction = self._outbox.get(to_bytes(tx_hash, 32))
        return None if transaction is None else data(transaction.raw)

    async def _status(self) -> dict[str, Any]:
        return self.status()

    def _address_of(self, caller: Caller) -> str:
        if caller.forwarded_for and caller.address in self.settings.trusted_proxy_addresses:
            return caller.forwarded_for.rpartition(",")[2].strip() or caller.address
        return caller.address

    def _probes(self) -> Probes:
        if self._terms is None:
            return Probes(ready=(503, "no execution client has answered yet"))
        up = sum(target.up for target in self._targets.values())
        if not up:
            return Probes(ready=(503, "no builder or execution client is up"))
        return Probes(ready=(200, f"{up} of {len(self._targets)} targets up"))

    # Accounts and terms ---------------------------------------------------------------------------------------------

    async def _account(self, sender: bytes) -> AccountFacts | None:
        """What is known of the sender, asked once however many of its transactions come at the same time."""
        known = self._accounts.get(sender, time.monotonic())
        if known is not None:
            return known
        asking = self._asking.get(sender)
        if asking is None:
            asking = self._asking[sender] = asyncio.create_task(self._ask_account(sender))
            asking.add_done_callback(lambda _: self._asking.pop(sender, None))
        return await asyncio.shield(asking)

    async def _ask_account(self, sender: bytes) -> AccountFacts | None:
        address = data(sender)
        try:
            nonce, balance = await self._peers.call_many(
                [("eth_getTransactionCount", (address, "latest")), ("eth_getBalance", (address, "latest"))]
            )
            facts = AccountFacts(to_int(nonce), to_int(balance))
        except (RpcUnknown, RpcRefused, WireError) as error:
            self._log.warning("account unknown, the pools will judge", address=address, error=str(error))
            return None
        return self._accounts.learn(sender, facts, time.monotonic())

    async def _learn_terms(self) -> Terms:
        try:
            chain_id, block = await self._peers.call_many(
                [("eth_chainId", ()), ("eth_getBlockByNumber", ("latest", False))]
            )
            self._set_terms(to_int(chain_id), expect_object(block, "block"))
        except (RpcUnknown, RpcRefused, WireError) as error:
            raise RpcError(SERVER_ERROR, f"no execution client answers: {error}; try again") from None
        assert self._terms is not None
        return self._terms

    def _set_terms(self, chain_id: int, block: dict[str, Any]) -> None:
        number = to_int(block.get("number"))
        # The stream's open block knows the fee better than a sealed one.
        if self._terms is None or number >= self._stream_number:
            self._terms = Terms(chain_id, to_int(block.get("gasLimit")), to_int(block.get("baseFeePerGas")))

    # The stream and the blocks --------------------------------------------------------------------------------------

    def _on_frame(self, frame: Frame) -> None:
        if isinstance(frame, FlashblockFrame) and frame.digest not in self._seen:
            try:
                self._on_flashblock(decode_body(frame.body), frame.traceparent)
            except WireError as error:
                self._log.warning("unreadable flashblock", error=str(error))
                return
            self._seen[frame.digest] = None
            if len(self._seen) > SEEN_FLASHBLOCKS_MAX:
                del self._seen[next(iter(self._seen))]

    def _on_foreign(self, message: str | bytes) -> None:
        with contextlib.suppress(WireError):
            self._on_flashblock(decode_json(message))

    def _on_flashblock(self, flashblock: Flashblock, context: str = "") -> None:
        number, base = flashblock.number, flashblock.base
        if number > self._stream_number:
            self._stream_number = number
            self._new_block.set()
        if base is not None and self._terms is not None and number == self._stream_number:
            self._terms = Terms(self._terms.chain_id, base.gas_limit, base.base_fee_per_gas)
        self._accounts.flashblock(number, flashblock.metadata.new_account_balances)
        hashes = tuple(flashblock.metadata.receipts) or tuple(keccak256(raw) for raw in flashblock.diff.transactions)
        for tx_hash in hashes:
            transaction = self._outbox.get(tx_hash)
            if transaction is not None:
                self._accounts.included(transaction.sender, transaction.nonce)
        self._carry_out(self._outbox.included(number, hashes))
        now = time.time()
        self._trace.seen(context, number, flashblock.index, hashes, now, now)

    async def _follow_blocks(self) -> None:
        """Which transactions the sealed blocks really hold, in block order, with or without a stream."""
        while True:
            with contextlib.suppress(RpcUnknown, RpcRefused, WireError):
                await self._read_new_blocks()
            self._new_block.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FOLLOW_S):
                    await self._new_block.wait()

    async def _read_new_blocks(self) -> None:
        chain_id, latest = await self._peers.call_many(
            [("eth_chainId", ()), ("eth_getBlockByNumber", ("latest", False))]
        )
        block = expect_object(latest, "block")
        self._set_terms(to_int(chain_id), block)
        newest = to_int(block.get("number"))
        if self._sealed_number is None:
            self._sealed_number = newest - 1
        first = max(self._sealed_number + 1, newest - BLOCKS_PER_STEP_MAX)
        for number in range(first, newest + 1):
            if number != newest:
                block = expect_object(await self._peers.call("eth_getBlockByNumber", quantity(number), False), "block")
            else:
                block = expect_object(latest, "block")
            hashes = [to_bytes(tx_hash, 32) for tx_hash in block.get("transactions", [])]
            self._carry_out(self._outbox.sealed(time.monotonic(), number, hashes))
            self._trace.seen("", number, None, hashes, time.time(), time.time())
            self._sealed_number = number

    # Carrying out ---------------------------------------------------------------------------------------------------

    def _on_link(self, url: str) -> Callable[[bool], None]:
        def change(up: bool) -> None:
            if up:
                self._carry_out(self._outbox.target_up(time.monotonic(), url))

        return change

    def _carry_out(self, decisions: list[Decision]) -> None:
        self._plan_flush()
        for decision in decisions:
            match decision:
                case Send():
                    self._begin(self._send(decision))
                case Settled(tx_hash, refusal):
                    answer = self._waiting.get(tx_hash)
                    if answer is not None and not answer.done():
                        answer.set_result(refusal)
                case Forgotten(tx_hash, reason):
                    self._done.labels(reason).inc()
                    if reason != "included":
                        self._log.info("transaction given up", tx=data(tx_hash), reason=reason)

    def _plan_flush(self) -> None:
        due = self._outbox.next_flush()
        if due is not None and self._flush is None:
            loop = asyncio.get_running_loop()
            self._flush = loop.call_later(max(0.0, due - time.monotonic()), self._flush_now)

    def _flush_now(self) -> None:
        self._flush = None
        self._carry_out(self._outbox.flush(time.monotonic()))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._sending.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._sending.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and self._bug is not None and not self._bug.done():
            self._bug.set_exception(error)

    async def _send(self, send: Send) -> None:
        """One batch to one target, in order."""
        held = (self._outbox.get(tx_hash) for tx_hash in send.hashes)
        transactions = [transaction for transaction in held if transaction is not None]
        if not transactions:
            self._carry_out(self._outbox.answered(time.monotonic(), send.target, {}))
            return
        try:
            outcomes = await self._targets[send.target].send(transactions)
        except (RpcUnknown, RpcRefused):
            self._carry_out(self._outbox.unanswered(time.monotonic(), send.target))
            return
        self._sent.labels(send.target).inc(len(transactions))
        self._carry_out(self._outbox.answered(time.monotonic(), send.target, outcomes))

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self._carry_out(self._outbox.tick(time.monotonic()))

    async def _wait_for_bug(self, bug: asyncio.Future[None]) -> None:
        await bug
