"""Sending on: to an ingress, or straight to the execution clients when no ingress answers; and waiting."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Container, Sequence
from typing import Any

from actors.execution_peers import ExecutionPeers
from actors.handover_link import HandoverClient
from actors.preconf_follower import PreconfFollower
from actors.rpc_client import RpcClient, RpcRefused, RpcUnknown
from actors.rpc_reads import receipt_json
from actors.rpc_server import CALLER, Method
from actors.rpc_view import RpcView
from flashblocks.execution.errors import InvalidTransaction
from flashblocks.execution.pool_rules import decode_for_pool
from flashblocks.execution.transaction import Transaction
from flashblocks.ingress.handover import TAKEN
from flashblocks.preconf.events import Event, FlashblockShown, HeadChanged, TransactionSent
from flashblocks.preconf.sent import SentTransactions
from flashblocks.wire.hexadecimal import WireError, data, quantity, to_bytes, to_int
from flashblocks.wire.jsonrpc import INVALID_PARAMS, SERVER_ERROR, RpcError
from tracing.context import transaction_root
from tracing.sending import SendTrace

INGRESS_ANSWER_S_MAX = 3.0
LINK_ANSWER_S_MAX = 6.0  # with a link it is alive: asking ten clients instead would make a slow machine slower
ASK_S_MAX = 0.3  # for what an ingress has in its memory
SYNC_TIMEOUT_MS_DEFAULT = 6_000
SYNC_TIMEOUT_MS_MAX = 6_000
SYNC_WAITING_MAX = 10_000
GAP_GRACE_S = 0.25  # for transactions sent side by side
SYNC_TIMED_OUT = 4  # EIP-7966
SYNC_NOT_READY = 5  # EIP-7966


class RpcSender:
    """The sending methods of one rpc-node."""

    def __init__(
        self,
        view: RpcView,
        follower: PreconfFollower,
        sent: SentTransactions,
        ingress_urls: Sequence[str],
        peers: ExecutionPeers,
        publish: Callable[[Event], None],
        log: Any,
        *,
        trusted_proxies: Container[str] = (),
    ) -> None:
        self._trusted_proxies = trusted_proxies
        self._view, self._sent, self._peers, self._publish, self._log = view, sent, peers, publish, log
        self.trace: SendTrace | None = None
        self._ingresses = [RpcClient(url, timeout_s=INGRESS_ANSWER_S_MAX) for url in ingress_urls]
        self._links = {url: HandoverClient(url, lambda up: None) for url in ingress_urls}
        self._waiting: dict[bytes, list[asyncio.Future[None]]] = {}
        follower.listeners.append(self._on_event)

    def methods(self) -> dict[str, Method]:
        """Name → coroutine, as `RpcServer` takes them."""
        return {
            "eth_sendRawTransaction": self.send,
            "eth_sendRawTransactionSync": self.send_and_wait,
            "base_transactionStatus": self.transaction_status,
        }

    def start(self) -> None:
        """Begin to connect."""
        for link in self._links.values():
            link.start()

    async def close(self) -> None:
        """Close the connections."""
        await asyncio.gather(*(link.close() for link in self._links.values()))
        await asyncio.gather(*(client.close() for client in self._ingresses))

    # Methods --------------------------------------------------------------------------------------------------------

    async def send(self, raw: str) -> str:
        """eth_sendRawTransaction."""
        return data((await self._send(_read(raw), raw)).hash)

    async def send_and_wait(self, raw: str, timeout_ms: Any = None) -> dict[str, Any]:
        """eth_sendRawTransactionSync (EIP-7966): the receipt, as soon as a flashblock or a block has one."""
        timeout_s = _timeout_s(timeout_ms)
        transaction = _read(raw)
        if len(self._waiting) >= SYNC_WAITING_MAX:
            raise RpcError(SERVER_ERROR, "the node is busy: too many transactions are waited for")
        # Listening begins before the transaction leaves: its flashblock may be back before the ingress has answered.
        included: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(transaction.hash, []).append(included)
        try:
            await self._send(transaction, raw)
            place = self._view.transaction(transaction.hash)
            if place is None:
                await asyncio.wait((included,), timeout=min(timeout_s, GAP_GRACE_S))
                if not included.done():
                    await self._refuse_gap(transaction)
                    await asyncio.wait((included,), timeout=max(0.0, timeout_s - GAP_GRACE_S))
                place = self._view.transaction(transaction.hash)
            if place is None:
                text = f"The transaction was added to the mempool but wasn't processed in {timeout_s:g}s."
                raise RpcError(SYNC_TIMED_OUT, text, data(transaction.hash))
            return receipt_json(*place)
        finally:
            waiting = self._waiting[transaction.hash]
            waiting.remove(included)
            if not waiting:
                del self._waiting[transaction.hash]

    async def transaction_status(self, tx_hash: str) -> dict[str, str]:
        """base_transactionStatus: whether the pool, a flashblock or the chain knows it."""
        wanted = to_bytes(tx_hash, 32)
        known = self._view.transaction(wanted) is not None or await self.waiting_transaction(wanted) is not None
        return {"status": "Known" if known else "Unknown"}

    async def waiting_transaction(self, tx_hash: bytes) -> Transaction | None:
        """A transaction that waits: sent through this node, or through another one to the same ingresses."""
        sent = self._sent.get(tx_hash)
        if sent is not None:
            return sent
        for ingress in self._ingresses:
            try:
                raw = await ingress.call("ingress_getTransaction", data(tx_hash), timeout_s=ASK_S_MAX)
                if raw is not None and (transaction := _read(raw)).hash == tx_hash:
                    return transaction
            except (RpcUnknown, RpcRefused, RpcError, WireError):
                continue
        return None

    async def pool_nonce(self, sender: bytes, nonce: int) -> int:
        """The first nonce at or after `nonce` that no transaction waiting at an ingress has.

        Each ingress holds what came while it was the first that answered, so each goes on where the one before ended.
        """
        for ingress in self._ingresses:
            try:
                answer = await ingress.call("ingress_nextNonce", data(sender), quantity(nonce), timeout_s=ASK_S_MAX)
                nonce = max(nonce, to_int(answer))
            except (RpcUnknown, RpcRefused, WireError):
                continue
        return nonce

    # Sending --------------------------------------------------------------------------------------------------------

    async def _send(self, transaction: Transaction, raw: str) -> Transaction:
        if self._view.transaction(transaction.hash) is None:
            began, caller = time.time(), CALLER.get().traceparent
            # Its flashblock may be shown before the ingress has answered: the trace begins first.
            if self.trace is not None:
                self.trace.took(transaction.hash, began, began, caller)
            try:
                await self._hand_on(transaction, raw)
            except RpcError as error:
                if self.trace is not None:
                    self.trace.refused(transaction.hash, began, time.time(), caller, error.message)
                raise
        self._sent.add(transaction, time.monotonic())
        self._publish(TransactionSent(transaction))
        return transaction

    async def _hand_on(self, transaction: Transaction, raw: str) -> None:
        """One ingress after another; then every execution client at once. A refusal is final, no answer is not."""
        traceparent = transaction_root(transaction.hash).traceparent
        maybe_sent = False
        for ingress in self._ingresses:
            try:
                await self._hand_to_ingress(ingress, transaction, raw, traceparent)
                return
            except RpcRefused as refused:
                if maybe_sent and "already known" in refused.message:
                    return
                raise RpcError(refused.code, refused.message, refused.data) from None
            except RpcUnknown as unknown:
                maybe_sent = True
                self._log.warning("ingress does not answer", error=str(unknown))
        await self._hand_to_clients(raw, maybe_sent, traceparent)

    async def _hand_to_ingress(self, ingress: RpcClient, transaction: Transaction, raw: str, traceparent: str) -> None:
        """Over the link, else with a request; raises RpcRefused or RpcUnknown."""
        caller, link = CALLER.get(), self._links[ingress.url]
        origin = caller.origin(self._trusted_proxies)
        if not link.connected:
            headers = {"traceparent": traceparent} | ({"X-Forwarded-For": origin} if origin else {})
            await ingress.call("eth_sendRawTransaction", raw, headers=headers)
            return
        try:
            async with asyncio.timeout(LINK_ANSWER_S_MAX):
                (outcome,) = await link.hand_over([(transaction.raw, b"", origin, True)])
        except TimeoutError:
            raise RpcUnknown(f"{ingress.url}: no answer") from None
        if outcome.code != TAKEN:
            raise RpcRefused(outcome.code, outcome.message)

    async def _hand_to_clients(self, raw: str, maybe_sent: bool, traceparent: str) -> None:
        # All of them get it – any of them may lead next –, and the first that takes it decides the answer.
        tasks = [asyncio.create_task(self._hand_to_client(url, raw, traceparent)) for url in self._peers.urls]
        refusal: RpcRefused | None = None
        for done in asyncio.as_completed(tasks):
            outcome = await done
            if outcome is None:
                return
            if isinstance(outcome, RpcRefused):
                refusal = refusal or outcome
        if refusal is not None:
            raise RpcError(refusal.code, refusal.message, refusal.data)
        text = "no ingress and no execution client answers"
        raise RpcError(SERVER_ERROR, f"{text}; the transaction may have been sent" if maybe_sent else text)

    async def _hand_to_client(self, url: str, raw: str, traceparent: str) -> RpcRefused | RpcUnknown | None:
        """What one client says; None is yes."""
        try:
            headers = {"traceparent": traceparent}
            await self._peers.client(url).call("eth_sendRawTransaction", raw, headers=headers)
        except RpcRefused as refused:
            return None if "already known" in refused.message else refused
        except RpcUnknown as unknown:
            return unknown
        return None

    # Waiting --------------------------------------------------------------------------------------------------------

    def _on_event(self, event: Event) -> None:
        if isinstance(event, HeadChanged):
            for block in event.added:
                self._sent.sealed(block.transactions)
                self._wake(block.transactions)
        elif isinstance(event, FlashblockShown):
            self._wake(event.snapshot.transactions[event.snapshot.first_new :])

    def _wake(self, transactions: Sequence[Transaction]) -> None:
        if not self._waiting:
            return
        for transaction in transactions:
            for included in self._waiting.get(transaction.hash, ()):
                if not included.done():
                    included.set_result(None)

    async def _refuse_gap(self, transaction: Transaction) -> None:
        """Raise RpcError for a transaction that waits for a nonce nobody has sent."""
        sender = transaction.sender
        _, state = self._view.state("pending")
        reached = await self.pool_nonce(sender, self._sent.next_nonce(sender, state.nonce(sender)))
        if transaction.nonce >= reached and transaction.nonce > state.nonce(sender):
            text = f"The transaction was added to the mempool but wasn't processed: nonce {reached} is missing."
            raise RpcError(SYNC_NOT_READY, text, data(transaction.hash))


def _read(raw: str) -> Transaction:
    try:
        transaction = decode_for_pool(to_bytes(raw))
        _ = transaction.sender
    except InvalidTransaction as refused:
        raise RpcError(SERVER_ERROR, str(refused)) from None
    return transaction


def _timeout_s(value: Any) -> float:
    """The time-out in seconds; raises RpcError above the maximum, as the deployed node does."""
    if value is None:
        return SYNC_TIMEOUT_MS_DEFAULT / 1000
    wanted = value if isinstance(value, int) and not isinstance(value, bool) else to_int(value)
    if wanted > SYNC_TIMEOUT_MS_MAX:
        text = f"time out too long, timeout: {wanted} ms, max: {SYNC_TIMEOUT_MS_MAX} ms"
        raise RpcError(INVALID_PARAMS, text)
    return (wanted if wanted > 0 else SYNC_TIMEOUT_MS_DEFAULT) / 1000
