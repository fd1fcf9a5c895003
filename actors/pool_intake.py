"""How handed-over transactions get into a pool: decoded, their senders known or recovered, a message at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

from actors.rpc_server import CALLER
from flashblocks.execution.errors import InvalidTransaction
from flashblocks.execution.keccak import keccak256
from flashblocks.execution.pool import TransactionPool
from flashblocks.execution.pool_rules import decode_for_pool
from flashblocks.execution.transaction import Transaction, claim_sender
from flashblocks.ingress.handover import Handed, Outcome
from flashblocks.wire.jsonrpc import SERVER_ERROR
from tracing.context import transaction_root

SLICE_S = 0.005
BESIDE_TRANSACTIONS_MIN = 4  # recovering fewer costs less than the way to another thread and back


class PoolIntake:
    """The `Take` of a pool's handover port.

    `recover` finds the senders of several transactions beside the loop; `on_submitted(tx_hash)` hears of each that the
    pool took, with the caller's trace in CALLER. A client that `believes` takes a trusted giver's word for the
    senders. Builders do: they only propose. A client that judges what builders propose recovers every sender itself.
    """

    def __init__(
        self,
        pool: TransactionPool,
        recover: Callable[[Sequence[Transaction]], Awaitable[None]],
        on_submitted: Callable[[bytes], None],
        *,
        believes: bool,
    ) -> None:
        self._pool, self._recover, self._on_submitted, self._believes = pool, recover, on_submitted, believes

    async def take(
        self, handed: tuple[Handed, ...], trusted: bool, answer: Callable[[Sequence[Outcome]], None]
    ) -> None:
        """Decode, recover, add – in the order in which they were handed over."""
        decoded = [self._decode(each, trusted and self._believes) for each in handed]
        strangers = [tx for tx in decoded if isinstance(tx, Transaction) and tx.sender_unknown]
        if len(strangers) >= BESIDE_TRANSACTIONS_MIN:
            try:
                await self._recover(strangers)
            except InvalidTransaction:
                pass  # each is asked again below, and the bad one answers for itself
        # Says to the hooks that these have a trace: each has its own, derived from its hash.
        traced = next((transaction_root(tx.hash) for tx in decoded if isinstance(tx, Transaction)), None)
        CALLER.set(CALLER.get()._replace(traceparent=traced.traceparent if traced and handed[0].traced else ""))
        outcomes, paused = [], time.perf_counter()
        for each, tx in zip(handed, decoded, strict=True):
            refusal = tx if isinstance(tx, str) else self._add(tx)
            outcomes.append(Outcome(each.number) if refusal is None else Outcome(each.number, SERVER_ERROR, refusal))
            if time.perf_counter() - paused > SLICE_S:
                await asyncio.sleep(0)
                paused = time.perf_counter()
        answer(outcomes)

    def _decode(self, handed: Handed, believe: bool) -> Transaction | str:
        """The transaction, or why it is none."""
        known = self._pool.get(keccak256(handed.raw))
        if known is not None:
            return known  # sent again because no block has taken it yet: that must cost next to nothing
        try:
            tx = decode_for_pool(handed.raw, self._pool.limits.transaction_size_bytes_max)
        except InvalidTransaction as error:
            return str(error)
        if believe and handed.sender:
            claim_sender(tx, handed.sender)
        return tx

    def _add(self, tx: Transaction) -> str | None:
        """Why the pool refuses it, or None."""
        try:
            self._pool.add(tx, time.time())
        except InvalidTransaction as error:
            return str(error)
        self._on_submitted(tx.hash)
        return None
