"""One flashblock from the open block to the wire: forced transactions at index 0, the best offers afterwards.

A build works on a fork of the block as it was published last.  Only what is published becomes the block: a build that
is given up leaves no trace.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from flashblocks.builder.budget import Budget, Usage
from flashblocks.builder.bundles import BundlePool
from flashblocks.builder.packing import Candidate, CandidateQueue, Executed, Packing, PoolAndBundles, Unexecutable
from flashblocks.execution.claims import flashblock_from
from flashblocks.execution.errors import InvalidAttributes, InvalidTransaction, OutOfTime
from flashblocks.execution.open_block import Mark, OpenBlock, Sealed
from flashblocks.execution.pool import TransactionPool
from flashblocks.execution.transaction import Transaction, decode_transaction
from flashblocks.wire.flashblock import Flashblock


@dataclass(frozen=True, slots=True)
class Made:
    """A sealed flashblock; ``working`` is the open block standing after it, to be forked for the next one."""

    flashblock: Flashblock
    sealed: Sealed
    working: OpenBlock
    transactions: tuple[Transaction, ...]
    dropped: tuple[tuple[Candidate, str], ...] = ()
    counts: Counter[str] = field(default_factory=Counter)


class Bench:
    """The open block as the packer's workbench; a transaction still running at ``deadline_s`` is stopped."""

    def __init__(self, block: OpenBlock, clock: Callable[[], float]) -> None:
        self.block = block
        self.deadline_s = float("inf")
        self.overran: list[bytes] = []
        self._clock = clock
        self._mark: Mark | None = None

    def execute(self, candidate: Candidate) -> Executed | Unexecutable:
        """Append the transaction, or leave the block as it was and say why not."""
        transaction = candidate.transaction
        mark = self.block.mark()
        try:
            receipt = self.block.append(transaction, deadline=self.deadline_s, clock=self._clock)
        except OutOfTime as error:
            self.overran.append(transaction.hash)
            return Unexecutable(str(error))
        except InvalidTransaction as error:
            return Unexecutable(str(error), stale=transaction.nonce < self.block.state.get_nonce(transaction.sender))
        self._mark = mark
        return Executed(receipt.gas_used, reverted=receipt.status == 0)

    def undo(self) -> None:
        """Take back the transaction executed last."""
        assert self._mark is not None
        self.block.rollback(self._mark)
        self._mark = None


def build_opening(block: OpenBlock, payload_id: bytes, forced: tuple[bytes, ...]) -> Made:
    """Build index 0: the forced transactions of the attributes, and nothing else; raises InvalidAttributes."""
    transactions = []
    for position, raw in enumerate(forced):
        try:
            transaction = decode_transaction(raw)
            block.append(transaction)
        except InvalidTransaction as error:
            raise InvalidAttributes(f"forced transaction {position}: {error}") from error
        transactions.append(transaction)
    return _seal(block, payload_id, 0, 0, tuple(transactions))


class Building:
    """One flashblock (index 1 or later) being filled; ``run`` works on it, ``finish`` seals it."""

    def __init__(
        self,
        payload_id: bytes,
        index: int,
        block: OpenBlock,
        pool: TransactionPool,
        bundles: BundlePool,
        budget: Budget,
        clock: Callable[[], float],
    ) -> None:
        self.payload_id, self.index, self._block = payload_id, index, block
        self._first_transaction = block.transaction_count
        self._clock = clock
        self.bench = Bench(block, clock)
        offered = CandidateQueue(bundles.candidates(block.number, block.timestamp, block.base_fee))
        best = pool.best(block.base_fee, block.state.get_nonce)
        usage = Usage(block.gas_used, block.da_size, sum(len(raw) for raw in block.transactions))
        offers = PoolAndBundles(best, offered, block.base_fee)
        self.packing = Packing(index, budget, usage, offers, self.bench)

    def run(self, until_s: float, deadline_s: float) -> bool:
        """Append transactions until none is left (True), or until ``until_s``, a pause, or the deadline (False).

        A transaction begun before ``until_s`` may run on until ``deadline_s``, when it is stopped and taken back.
        """
        self.bench.deadline_s = deadline_s
        stop_s = min(until_s, deadline_s)
        return self.packing.run(lambda: self._clock() >= stop_s)

    def finish(self) -> Made:
        """Seal what is there, be it nothing."""
        packing = self.packing
        made = tuple(candidate.transaction for candidate in packing.included)
        return _seal(
            self._block,
            self.payload_id,
            self.index,
            self._first_transaction,
            made,
            tuple(packing.dropped),
            packing.counts,
        )


def _seal(
    block: OpenBlock,
    payload_id: bytes,
    index: int,
    first: int,
    transactions: tuple[Transaction, ...],
    dropped: tuple[tuple[Candidate, str], ...] = (),
    counts: Counter[str] | None = None,
) -> Made:
    sealed = block.seal()
    flashblock = flashblock_from(payload_id, index, sealed, block.new_account_balances(), first)
    return Made(flashblock, sealed, block, transactions, dropped, counts or Counter())
