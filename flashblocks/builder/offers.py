"""What a flashblock can be filled with: transactions of the pool and bundles, as one row, the best tip first.

Every look at the pool starts a fresh row.  What does not fit is put aside together with its sender's later nonces, for
this row only.
"""

import heapq
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from flashblocks.execution.fees import MILLION, estimated_l1_size
from flashblocks.execution.pool import effective_tip
from flashblocks.execution.transaction import Transaction


@dataclass(frozen=True, slots=True)
class Candidate:
    """A transaction of the pool as the packer sees it; tip in wei per gas, sizes in bytes, ``arrival`` breaks ties."""

    hash: bytes
    sender: bytes
    nonce: int
    tip: int
    arrival: int
    gas_limit: int
    da_bytes: int
    size_bytes: int
    transaction: Transaction
    revert_protected: bool = False
    index_min: int = 0
    index_max: int | None = None
    behind: bytes = b""
    """The transaction immediately behind which it belongs, if it is a backrun."""


class Offers(Protocol):
    """Candidates, the best first; the one taken last counts as included unless its sender is put aside."""

    def take(self) -> Candidate | None:
        """The best candidate left, or None."""

    def put_aside(self, sender: bytes) -> None:
        """Leave out the rest of this sender's transactions in this iteration."""


class CandidateQueue:
    """A few candidates in the order of the effective tip, highest first, each sender's in nonce order."""

    def __init__(self, candidates: Iterable[Candidate]) -> None:
        queues: defaultdict[bytes, list[Candidate]] = defaultdict(list)
        for candidate in candidates:
            queues[candidate.sender].append(candidate)
        self._queues: dict[bytes, list[Candidate]] = {}
        self._heads: list[tuple[int, int, bytes]] = []
        for sender, queue in queues.items():
            queue.sort(key=lambda candidate: candidate.nonce, reverse=True)
            self._queues[sender] = queue
            self._push(sender)
        heapq.heapify(self._heads)

    def _push(self, sender: bytes) -> None:
        queue = self._queues[sender]
        if queue:
            heapq.heappush(self._heads, (-queue[-1].tip, queue[-1].arrival, sender))

    def take(self) -> Candidate | None:
        """The best transaction left, or None; the sender's next nonce becomes a candidate in its turn."""
        while self._heads:
            _, _, sender = heapq.heappop(self._heads)
            queue = self._queues[sender]
            if queue:
                best = queue.pop()
                self._push(sender)
                return best
        return None

    def put_aside(self, sender: bytes) -> None:
        """Leave out the rest of this sender's transactions in this iteration."""
        if sender in self._queues:
            self._queues[sender] = []


class PoolIterator(Protocol):
    """The pool's own iterator (``TransactionPool.best``)."""

    def __next__(self) -> Transaction:
        """The best transaction left; raises StopIteration."""

    def invalidate(self, sender: bytes) -> None:
        """The last one was not included: leave out its sender."""


class PoolAndBundles:
    """The pool and the bundles as one row of offers, the better tip first and the pool first at the same tip."""

    def __init__(self, pool: PoolIterator, bundles: CandidateQueue, base_fee: int) -> None:
        self._pool = pool
        self._bundles = bundles
        self._base_fee = base_fee
        self._from_pool = self._next_of_pool()
        self._from_bundles = bundles.take()
        self._pool_is_owed = self._bundle_was_last = False

    def take(self) -> Candidate | None:
        """The best candidate left, or None."""
        if self._pool_is_owed:
            # Asked for only now: whether the one before it was included decides what the pool offers next.
            self._from_pool, self._pool_is_owed = self._next_of_pool(), False
        pooled, bundled = self._from_pool, self._from_bundles
        if bundled is not None and (pooled is None or bundled.tip > pooled.tip):
            self._from_bundles, self._bundle_was_last = self._bundles.take(), True
            return bundled
        self._pool_is_owed, self._bundle_was_last = pooled is not None, False
        return pooled

    def put_aside(self, sender: bytes) -> None:
        """Leave out the rest of this sender's transactions: of the bundles, and of the pool if the last was from it.

        A bundle that has to wait says nothing about what the sender has in the pool under the same nonce.
        """
        if not self._bundle_was_last:
            self._pool.invalidate(sender)
        self._bundles.put_aside(sender)
        if self._from_bundles is not None and self._from_bundles.sender == sender:
            self._from_bundles = self._bundles.take()

    def _next_of_pool(self) -> Candidate | None:
        try:
            tx = next(self._pool)  # type: ignore[call-overload]
        except StopIteration:
            return None
        return candidate_of(tx, self._base_fee)


def candidate_of(
    tx: Transaction,
    base_fee: int,
    *,
    arrival: int = 0,
    bundle: tuple[int, int | None, bool] | None = None,
    behind: bytes = b"",
) -> Candidate:
    """Describe a transaction; ``bundle`` is (first index, last index, revert protection) of one sent as a bundle."""
    index_min, index_max, revert_protected = bundle or (0, None, False)
    return Candidate(
        hash=tx.hash,
        sender=tx.sender,
        nonce=tx.nonce,
        tip=effective_tip(tx, base_fee),
        arrival=arrival,
        gas_limit=tx.gas_limit,
        da_bytes=estimated_da_bytes(tx),
        size_bytes=len(tx.raw),
        transaction=tx,
        revert_protected=revert_protected,
        index_min=index_min,
        index_max=index_max,
        behind=behind,
    )


def estimated_da_bytes(tx: Transaction) -> int:
    """The transaction's share of an L1 batch in bytes, by Fjord's estimate; deposits are not in the batch."""
    return 0 if tx.is_deposit else estimated_l1_size(tx.fee_size) // MILLION
