"""One flashblock from the open block to the wire: forced transactions at index 0, the best offers afterwards.

A build works on a fork of the block as it was published last.  Only what is published becomes the block: a build that
is given up leaves no trace.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from flashblocks.builder.budget import Budget, Usage
from flashblocks.builder.bundles import BundlePool
from flashblocks.builder.limiter import NO_LIMITS, SenderLimits
from flashblocks.builder.offers import Candidate, CandidateQueue, PoolAndBundles
from flashblocks.builder.packing import Executed, Followers, Packing, Unexecutable
from flashblocks.execution.claims import flashblock_from
from flashblocks.execution.errors import InvalidAttributes, InvalidTransaction, OutOfTime
from flashblocks.execution.open_block import Mark, OpenBlock, Sealed
from flashblocks.execution.pool import TransactionPool
from flashblocks.execution.transaction import Transaction, decode_transaction
from flashblocks.wire.flashblock import Flashblock


@dataclass(frozen=True, slots=True)
class Made:
    """A sealed flashblock; ``working`` is the open block standing after it, to be forked for the next one.

    Without ``working`` the transactions are executed once more when the next one begins.
    """

    flashblock: Flashblock
    sealed: Sealed
    working: OpenBlock | None
    transactions: tuple[Transaction, ...]
    dropped: tuple[tuple[Candidate, str], ...] = ()
    counts: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Ran:
    """One execution: gas used, whether it reverted, how long it took (seconds), and its encoded size."""

    gas_used: int
    reverted: bool
    took_s: float
    size_bytes: int


class Bench:
    """The open block as the packer's workbench; a transaction still running at ``deadline_s`` is stopped."""

    def __init__(self, block: OpenBlock, clock: Callable[[], float]) -> None:
        self.block = block
        self.deadline_s = float("inf")
        self.overran: list[bytes] = []
        self.ran: list[Ran] = []
        self._clock = clock
        self._marks: list[Mark] = []  # before each transaction that was kept

    def execute(self, candidate: Candidate) -> Executed | Unexecutable:
        """Append the transaction, or leave the block as it was and say why not."""
        transaction = candidate.transaction
        mark, began_s = self.block.mark(), self._clock()
        try:
            receipt = self.block.append(transaction, deadline=self.deadline_s, clock=self._clock)
        except OutOfTime as error:
            self.overran.append(transaction.hash)
            return Unexecutable(str(error))
        except InvalidTransaction as error:
            return Unexecutable(str(error), stale=transaction.nonce < self.block.state.get_nonce(transaction.sender))
        self._marks.append(mark)
        reverted, took_s = receipt.status == 0, self._clock() - began_s
        self.ran.append(Ran(receipt.gas_used, reverted, took_s, candidate.size_bytes))
        return Executed(receipt.gas_used, reverted, took_s)

    def undo(self) -> None:
        """Take back the transaction executed last."""
        self.block.rollback(self._marks.pop())

    def back_to(self, count: int) -> None:
        """Take back all but the first ``count`` transactions of this flashblock."""
        self.block.rollback(self._marks[count])
        del self._marks[count:]


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
    """One flashblock (index 1 or later) growing between two triggers; what was sealed last is the candidate.

    ``look`` takes a picture of the pool, ``run`` executes what is in it, ``seal`` makes a candidate, and ``freeze``
    gives it out, without what was executed after it.
    """

    def __init__(
        self,
        payload_id: bytes,
        index: int,
        block: OpenBlock,
        pool: TransactionPool,
        bundles: BundlePool,
        budget: Budget,
        clock: Callable[[], float],
        limits: SenderLimits = NO_LIMITS,
        followers: Followers | None = None,
    ) -> None:
        self.payload_id, self.index, self._block = payload_id, index, block
        self._pool, self._bundles = pool, bundles
        self._first_transaction = block.transaction_count
        self._clock = clock
        self.bench = Bench(block, clock)
        usage = Usage(block.gas_used, block.da_size, sum(len(raw) for raw in block.transactions))
        self.packing = Packing(index, budget, usage, CandidateQueue(()), self.bench, limits, followers)
        self.candidate: Made | None = None
        self._sealed_count = 0
        self._sealed_mark: Mark | None = block.mark()

    @property
    def unsealed(self) -> bool:
        """Whether the block is another than the candidate's, or there is none."""
        sealed = self.candidate is not None and self._sealed_mark is not None
        return not sealed or len(self.packing.included) != self._sealed_count

    def look(self) -> None:
        """Take a picture of the pool and the bundles: ``run`` goes on with what is in it.

        Where something new pays more than what is included already, that is taken back as far as it should come
        before it, and put in again in its order.
        """
        packing = self.packing
        if packing.included:
            newcomer = self._best_newcomer()
            place = len(packing.included) if newcomer is None else _place_of(newcomer, packing.included)
            news = set() if packing.followers is None else packing.followers.news()
            for position, candidate in enumerate(packing.included[:place]):
                if candidate.hash in news or candidate.hash in self._pool.unwanted:
                    place = position  # something wants to land behind it, or the operator wants it gone
                    break
            if place < self._sealed_count:
                self._sealed_mark = None  # the candidate is good, but the block does not lead to it any more
            packing.back_to(place)
        packing.best = self._offers()

    def run(self, until_s: float, deadline_s: float) -> bool:
        """Append transactions until none is left (True), or until ``until_s``, a pause, or the deadline (False).

        A transaction begun before ``until_s`` may run on until ``deadline_s``, when it is stopped and taken back.
        """
        self.bench.deadline_s = deadline_s
        stop_s = min(until_s, deadline_s)
        return self.packing.run(lambda: self._clock() >= stop_s)

    def seal(self) -> Made:
        """Make what is there, be it nothing, the candidate."""
        packing = self.packing
        made = tuple(candidate.transaction for candidate in packing.included)
        self.candidate = _seal(
            self._block,
            self.payload_id,
            self.index,
            self._first_transaction,
            made,
            tuple(packing.dropped),
            Counter(packing.counts),
        )
        self._sealed_count, self._sealed_mark = len(packing.included), self._block.mark()
        return self.candidate

    def freeze(self) -> Made | None:
        """The candidate, with the block taken back to where it stood then; None before the first ``seal``."""
        if self.candidate is None:
            return None
        if self._sealed_mark is None:
            return replace(self.candidate, working=None)
        if len(self.packing.included) > self._sealed_count:
            self._block.rollback(self._sealed_mark)
        return self.candidate

    def _offers(self) -> PoolAndBundles:
        block = self._block
        bundled = self._bundles.candidates(block.number, block.timestamp, block.base_fee)
        waiting = [candidate for candidate in bundled if candidate.nonce >= block.state.get_nonce(candidate.sender)]
        best = self._pool.best(block.base_fee, block.state.get_nonce)
        return PoolAndBundles(best, CandidateQueue(waiting), block.base_fee)

    def _best_newcomer(self) -> Candidate | None:
        """The best offer that was never looked at in this flashblock, of senders whose next one is new."""
        offers = self._offers()
        while (candidate := offers.take()) is not None:
            if candidate.hash not in self.packing.considered:
                return candidate
            offers.put_aside(candidate.sender)
        return None


def _place_of(newcomer: Candidate, included: list[Candidate]) -> int:
    """Before how many of the included it belongs: behind its sender's own, before the first that pays less."""
    place = len(included)
    for position in range(len(included) - 1, -1, -1):
        if included[position].sender == newcomer.sender:
            break
        if included[position].tip < newcomer.tip:
            place = position
    while place < len(included) and included[place].behind:
        place += 1  # a backrun stays with its target
    return place


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
