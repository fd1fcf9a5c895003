"""The ingress: checks a raw transaction once, hands it to every builder and execution client until it is included.

`eth_sendRawTransaction` answers as soon as the first pool has it; rpc-nodes of ours hand over on a kept link instead.
The rules are in `flashblocks.ingress`; here are the sockets: one batch at a time to every target, over a link that also
tells of its restarts, and the stream that tells what is included.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry, Counter, Gauge

from actors.handover_link import HandoverPort
from actors.ingress_admin import IngressAdmin
from actors.ingress_chain import IngressChain
from actors.ingress_targets import PoolTarget
from actors.operator_token import behind_token
from actors.outbox_journal import OutboxJournal
from actors.rpc_client import RpcRefused, RpcUnknown
from actors.rpc_server import CALLER, Caller, Probes, RpcServer
from actors.sidecar import read_jwt_secret
from actors.tasks import Tasks
from flashblocks.execution.errors import InvalidTransaction
from flashblocks.execution.transaction import Transaction
from flashblocks.ingress import admission, handover
from flashblocks.ingress.handover import Handed, Outcome
from flashblocks.ingress.limits import RateLimit
from flashblocks.ingress.outbox import Decision, Forgotten, Outbox, Refusal, Send, Settled
from flashblocks.wire.hexadecimal import data, quantity, to_bytes, to_int
from flashblocks.wire.jsonrpc import LIMIT_EXCEEDED, SERVER_ERROR, RpcError
from tracing import names
from tracing.context import transaction_root
from tracing.sending import SendTrace
from tracing.stages import component_stages

FIRST_ANSWER_S_MAX = 2.0
TICK_S = 0.1


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
        self._journal = OutboxJournal(Path(settings.data_dir) / "outbox") if settings.data_dir else None
        self._chain = IngressChain(settings.stream_urls, settings.execution_urls or settings.target_urls, self, log)
        self._per_ip = RateLimit(settings.per_ip_rate, settings.per_ip_burst)
        self._per_sender = RateLimit(settings.per_sender_rate, settings.per_sender_burst)
        secret = read_jwt_secret(settings.jwt_secret_path)
        self._targets = {url: PoolTarget(url, self._on_link(url), secret) for url in settings.target_urls}
        admin = IngressAdmin(self._outbox, tuple(self._targets.values()), self._carry_out, self._rewrite)
        self._waiting: dict[bytes, asyncio.Future[Refusal | None]] = {}
        self._tasks = Tasks()
        self._flush: asyncio.TimerHandle | None = None
        self.admitting = 0  # transactions being taken in
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
        self._journal_errors = Counter("ingress_journal_errors", "Transactions not written down", registry=registry)
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
                **behind_token(secret, admin.methods()),
            },
            name="ingress",
            log=log,
            links={handover.PATH: HandoverPort(self._take)},
            side_by_side=frozenset({"eth_sendRawTransaction"}),
            probes=self._probes,
            registry=registry,
            cors_origins="*",
        )

    async def start(self) -> None:
        """Bind and serve; targets and streams may come later."""
        await self.server.start()
        for target in self._targets.values():
            target.start()
        self._restore()
        await self._chain.start()

    async def run(self) -> None:
        """Tick, follow the chain, carry out decisions; ends only with our own bug."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._tick())
            tasks.create_task(self._chain.run())
            tasks.create_task(self._tasks.wait())

    async def close(self) -> None:
        """Let go of everything; what waits for an answer gets none."""
        await self._tasks.close()
        await self._chain.close()
        await self.server.close()
        if self._flush is not None:
            self._flush.cancel()
        await asyncio.gather(*(target.close() for target in self._targets.values()))
        if self._journal is not None:
            self._journal.close()
        await asyncio.to_thread(self._stages.close)

    def status(self) -> dict[str, Any]:
        """What `flashblocks status` shows."""
        chain = self._chain
        return {
            "component": "ingress",
            "name": self.settings.name,
            "group": self.settings.group,
            "pid": os.getpid(),
            "health": "ready" if self._probes().ready[0] == 200 else "not ready",
            "number": chain.stream_number if chain.stream_number >= 0 else chain.sealed_number,
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
            self._tasks.begin(self._take_one(each, link._replace(forwarded_for=each.caller), answer), "take")

    async def _take_one(self, each: Handed, caller: Caller, answer: Callable[[Sequence[Outcome]], None]) -> None:
        try:
            await self._take_in(each.raw, caller, traced=each.traced)
        except RpcError as error:
            answer((Outcome(each.number, error.code, str(error)),))
        else:
            answer((Outcome(each.number),))

    async def _take_in(self, raw: bytes, caller: Caller, *, traced: bool) -> bytes:
        """Admit one transaction and wait until a first pool has it: its hash; raises RpcError."""
        if self.admitting >= self.settings.admissions_max:
            self._refused.labels("busy").inc()
            text = f"the ingress is busy: {self.admitting} transactions are being taken in; try again"
            raise RpcError(LIMIT_EXCEEDED, text)
        self.admitting += 1
        try:
            return await self._admit(raw, caller, traced)
        finally:
            self.admitting -= 1

    async def _admit(self, raw: bytes, caller: Caller, traced: bool) -> bytes:
        began, context = time.time(), caller.traceparent
        if not self._per_ip.take(caller.origin(self.settings.trusted_proxy_addresses), time.monotonic()):
            self._refused.labels("rate").inc()
            raise RpcError(LIMIT_EXCEEDED, "rate limit exceeded: too many transactions from this address")
        try:
            transaction = admission.read(raw)
            if traced:
                context = transaction_root(transaction.hash).traceparent
            terms = await self._chain.learn_terms()
            account = await self._chain.account(transaction.sender)
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
            self._note(began, raw)
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
        return quantity((await self._chain.learn_terms()).chain_id)

    async def _net_version(self) -> str:
        return str((await self._chain.learn_terms()).chain_id)

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

    def _probes(self) -> Probes:
        if self._chain.terms is None:
            return Probes(ready=(503, "no execution client has answered yet"))
        up = sum(target.up for target in self._targets.values())
        if not up:
            return Probes(ready=(503, "no builder or execution client is up"))
        return Probes(ready=(200, f"{up} of {len(self._targets)} targets up"))

    # What the chain tells -------------------------------------------------------------------------------------------

    def held(self, tx_hash: bytes) -> Transaction | None:
        """The transaction, while it is on its way."""
        return self._outbox.get(tx_hash)

    def shown(self, context: str, number: int, index: int, hashes: Sequence[bytes]) -> None:
        """A flashblock holds these."""
        self._carry_out(self._outbox.included(number, hashes))
        now = time.time()
        self._trace.seen(context, number, index, hashes, now, now)

    def sealed(self, number: int, hashes: Sequence[bytes]) -> None:
        """A sealed block holds these."""
        self._carry_out(self._outbox.sealed(time.monotonic(), number, hashes))
        self._trace.seen("", number, None, hashes, time.time(), time.time())

    # The journal ----------------------------------------------------------------------------------------------------

    def _restore(self) -> None:
        """Go on with what an ingress that was killed had taken in."""
        if self._journal is None:
            return
        late_s = time.time() - time.monotonic()
        for arrived, raw in self._journal.load():
            try:
                transaction = admission.read(raw)
            except InvalidTransaction as error:  # written by another version, then: nothing that was answered is lost
                self._log.warning("journal: not a transaction", error=str(error))
                continue
            if self._outbox.room_for(transaction) is None:
                self._carry_out(self._outbox.accept(arrived - late_s, transaction))
        if len(self._outbox):
            self._log.info("transactions restored", count=len(self._outbox))

    def _note(self, arrived: float, raw: bytes) -> None:
        """Write it down before anybody is told that it was taken. A full disk stops nobody: the pools have it too."""
        if self._journal is None:
            return
        try:
            self._journal.add(arrived, raw)
        except OSError as error:
            self._journal_errors.inc()
            self._log.error("journal: not written", error=str(error))

    def _rewrite(self) -> bool:
        """Keep only what is held; whether that is written now."""
        late_s = time.time() - time.monotonic()
        try:
            if self._journal is not None:
                self._journal.rewrite((arrived + late_s, held.raw) for arrived, held in self._outbox.held())
        except OSError as error:
            self._log.error("journal: not rewritten", error=str(error))
            return False
        return True

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
                    self._tasks.begin(self._send(decision), "send")
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
            if self._journal is not None and self._journal.wants_rewriting():
                self._rewrite()
