"""The transaction pool: what clients sent and no block holds yet, ready in the order in which it pays.

One queue by nonce per sender. Nothing is executed here: a transaction that cannot run is found by the builder, which
then passes over its sender. All bounds are in `PoolLimits`; a full pool gives up what pays least.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from heapq import heapify, heappop, heappush
from typing import NamedTuple

import msgspec

from flashblocks.execution.chain_spec import ChainSpec
from flashblocks.execution.errors import InvalidTransaction
from flashblocks.execution.pool_rules import TRANSACTION_SIZE_BYTES_MAX, PoolHead, check_alone, check_sender
from flashblocks.execution.state import WorldState
from flashblocks.execution.transaction import Transaction

EXPIRY_EVERY_HEADS = 64


class PoolLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The bounds of a pool."""

    transactions_max: int = 20_000
    transactions_per_sender_max: int = 1_024
    size_bytes_max: int = 64 << 20
    transaction_size_bytes_max: int = TRANSACTION_SIZE_BYTES_MAX
    replacement_bump_percent: int = 10
    tip_wei_min: int = 0
    waiting_s_max: float = 3 * 3600.0  # for a transaction behind a nonce that never comes


class Pooled(msgspec.Struct, frozen=True):
    """A transaction in the pool. `order` numbers arrivals: who came first goes first at the same price."""

    tx: Transaction
    cost: int  # wei, at most, when it came
    arrived: float  # seconds
    order: int
    authorities: tuple[bytes, ...] = ()  # accounts whose code it sets (EIP-7702)


class PoolCounts(msgspec.Struct, frozen=True):
    """How much is in the pool: executable transactions, and those behind a nonce gap."""

    pending: int
    queued: int
    size_bytes: int


Queue = dict[int, Pooled]  # one sender's, by nonce


class TransactionPool:
    """The pool of one execution client. `revision` grows with every change that can matter to a builder."""

    def __init__(self, spec: ChainSpec, head: PoolHead, limits: PoolLimits | None = None) -> None:
        self.head = head
        self.limits = limits or PoolLimits()
        self.revision = 0
        self.pending_state: Callable[[], WorldState | None] = lambda: None
        """The state after the flashblocks on top of the head, where somebody follows them."""
        self.unwanted: set[bytes] = set()
        """What was dropped for the operator since the head moved: a block that grows leaves it out again."""
        self._spec = spec
        self._by_hash: dict[bytes, Pooled] = {}
        self._queues: dict[bytes, Queue] = {}
        self._costs: dict[bytes, int] = {}
        self._authorities: Counter[bytes] = Counter()  # how many transactions here set an account's code
        self._size_bytes = 0
        self._order = 0
        self._heads_seen = 0
        self._cheapest: list[tuple[int, int, int, bytes]] | None = None  # made when first full; see `_note_tail`

    def __len__(self) -> int:
        return len(self._by_hash)

    def __contains__(self, tx_hash: bytes) -> bool:
        return tx_hash in self._by_hash

    def get(self, tx_hash: bytes) -> Transaction | None:
        """The transaction, or None."""
        pooled = self._by_hash.get(tx_hash)
        return pooled.tx if pooled else None

    def transactions(self) -> Iterator[Transaction]:
        """Everything, in no particular order."""
        return (pooled.tx for pooled in self._by_hash.values())

    def queue(self, sender: bytes) -> list[Transaction]:
        """One sender's transactions by nonce."""
        queue = self._queues.get(sender, {})
        return [queue[nonce].tx for nonce in sorted(queue)]

    def next_nonce(self, sender: bytes, from_nonce: int) -> int:
        """The first nonce at or after `from_nonce` that the pool does not hold: the account's pending nonce."""
        queue = self._queues.get(sender, {})
        while from_nonce in queue:
            from_nonce += 1
        return from_nonce

    def counts(self) -> PoolCounts:
        """Count what is executable at the head, and what waits for a missing nonce."""
        pending = 0
        for sender, queue in self._queues.items():
            nonce = self.head.state.nonce(sender)
            pending += self.next_nonce(sender, nonce) - nonce if nonce in queue else 0
        return PoolCounts(pending, len(self._by_hash) - pending, self._size_bytes)

    def add(self, tx: Transaction, now: float) -> None:
        """Take a transaction in; raises InvalidTransaction with geth's words and changes nothing.

        Recovers the sender if nobody has: do that elsewhere first where time matters.
        """
        limits = self.limits
        if tx.hash in self._by_hash:
            raise InvalidTransaction("already known")
        if len(tx.raw) > limits.transaction_size_bytes_max:
            raise InvalidTransaction(
                f"oversized data: transaction size {len(tx.raw)}, limit {limits.transaction_size_bytes_max}"
            )
        check_alone(tx, self._spec.chain_id, self.head, limits.tip_wei_min)
        sender = tx.sender
        queue = self._queues.get(sender, {})
        replaced = queue.get(tx.nonce)
        queued_cost = self._costs.get(sender, 0) - (replaced.cost if replaced else 0)
        check_sender(tx, self.head, self.pending_state(), queued_cost)
        if replaced is not None and not self._outbids(tx, replaced.tx):
            raise InvalidTransaction("replacement transaction underpriced")
        if replaced is None:
            self._check_room_of_sender(tx, queue)
        authorities = authorities_of(tx)
        if any(len(self._queues.get(authority, {})) > 1 for authority in authorities):
            raise InvalidTransaction("authority already reserved")
        self._make_room(tx, replaced)
        if replaced is not None:
            self._remove(replaced)
        self._place(Pooled(tx, self.head.cost(tx), now, self._order, authorities))
        self._order += 1
        self.unwanted.discard(tx.hash)

    def best(self, base_fee: int, nonce_of: Callable[[bytes], int]) -> "BestTransactions":
        """What pays most first, at `base_fee` (wei), each sender's by nonce from `nonce_of(sender)` on.

        A picture of this moment: what arrives while it is read is in the next one. Nonces are asked for only of
        senders that come up, so a sender whose first transaction is already in the block comes up at that one's tip.
        """
        return BestTransactions(self._queues, base_fee, nonce_of)

    def set_head(self, head: PoolHead, now: float, senders: Iterable[bytes] = ()) -> list[Transaction]:
        """Move to a new head; drops and returns what can never be included there any more.

        `senders` are those whose transactions the new blocks hold; others go stale rarely (a call took their money,
        a reorg), the builder passes over them, and a sweep over all finds them now and then.
        """
        self.head = head
        self._heads_seen += 1
        self._cheapest = None
        self.unwanted.clear()
        self.revision += 1
        sweep = self._heads_seen % EXPIRY_EVERY_HEADS == 0
        dropped: list[Transaction] = []
        for sender in list(self._queues) if sweep else set(senders):
            dropped += self._drop_stale(sender, now, expire=sweep)
        return dropped

    def reinject(self, transactions: Iterable[Transaction], now: float) -> list[Transaction]:
        """Take back what a reorg removed from the chain; returns those that were taken."""
        taken = []
        for tx in transactions:
            if tx.is_deposit:
                continue
            try:
                self.add(tx, now)
            except InvalidTransaction:
                continue  # the new branch holds it, or made it impossible
            taken.append(tx)
        return taken

    def remove(self, tx_hash: bytes) -> Transaction | None:
        """Drop one transaction, whatever it pays; None when it was not there."""
        pooled = self._by_hash.get(tx_hash)
        if pooled is None:
            return None
        self._remove(pooled)
        return pooled.tx

    def drop(self, hashes: Iterable[bytes]) -> list[Transaction]:
        """Drop these because the operator wants them gone; returns those that were there."""
        dropped = [tx for tx_hash in hashes if (tx := self.remove(tx_hash)) is not None]
        self.unwanted.update(tx.hash for tx in dropped)
        return dropped

    def check(self) -> None:
        """Assert what must hold after every step (for tests and simulators)."""
        queued = {pooled.tx.hash: pooled for queue in self._queues.values() for pooled in queue.values()}
        assert queued == self._by_hash
        assert self._size_bytes == sum(len(pooled.tx.raw) for pooled in queued.values())
        for sender, queue in self._queues.items():
            assert queue, "an empty queue is dropped"
            assert len(queue) <= self.limits.transactions_per_sender_max
            assert self._costs[sender] == sum(pooled.cost for pooled in queue.values())
            assert all(pooled.tx.nonce == nonce and pooled.tx.sender == sender for nonce, pooled in queue.items())
        assert self._costs.keys() == self._queues.keys()
        assert not self.unwanted & self._by_hash.keys()
        assert self._authorities == Counter(each for pooled in queued.values() for each in pooled.authorities)
        assert len(queued) <= self.limits.transactions_max
        assert self._size_bytes <= self.limits.size_bytes_max

    def _outbids(self, tx: Transaction, old: Transaction) -> bool:
        """Whether both caps are higher by the bump (geth: PriceBump)."""
        factor = 100 + self.limits.replacement_bump_percent
        return (
            tx.max_fee_per_gas > old.max_fee_per_gas
            and tx.max_priority_fee_per_gas > old.max_priority_fee_per_gas
            and tx.max_fee_per_gas >= old.max_fee_per_gas * factor // 100
            and tx.max_priority_fee_per_gas >= old.max_priority_fee_per_gas * factor // 100
        )

    def _check_room_of_sender(self, tx: Transaction, queue: Queue) -> None:
        account = self.head.state.account(tx.sender)
        if (account is not None and account.code.delegate is not None) or tx.sender in self._authorities:
            # A delegated account's balance can be swept by anyone's call, so only one transaction may count on it.
            if queue:
                raise InvalidTransaction("in-flight transaction limit reached for delegated accounts")
            if tx.nonce != (account.nonce if account else 0):
                raise InvalidTransaction("gapped-nonce tx from delegated accounts")
        if len(queue) >= self.limits.transactions_per_sender_max:
            raise InvalidTransaction(f"account limit exceeded: {len(queue)} transactions of one sender in the pool")

    def _place(self, pooled: Pooled) -> None:
        tx = pooled.tx
        sender = tx.sender
        self._by_hash[tx.hash] = pooled
        self._queues.setdefault(sender, {})[tx.nonce] = pooled
        self._costs[sender] = self._costs.get(sender, 0) + pooled.cost
        self._size_bytes += len(tx.raw)
        self._authorities.update(pooled.authorities)
        self.revision += 1
        self._note_tail(sender)

    def _remove(self, pooled: Pooled) -> None:
        tx = pooled.tx
        sender = tx.sender
        queue = self._queues[sender]
        del queue[tx.nonce]
        del self._by_hash[tx.hash]
        self._costs[sender] -= pooled.cost
        self._size_bytes -= len(tx.raw)
        self._authorities -= Counter(pooled.authorities)
        self.revision += 1
        if not queue:
            del self._queues[sender]
            del self._costs[sender]
        else:
            self._note_tail(sender)

    def _drop_stale(self, sender: bytes, now: float, *, expire: bool) -> list[Transaction]:
        queue = self._queues.get(sender)
        if queue is None:
            return []
        account = self.head.state.account(sender)
        nonce, balance = (account.nonce, account.balance) if account else (0, 0)
        gas_limit = self.head.header.gas_limit
        stale = [
            pooled
            for each, pooled in queue.items()
            if each < nonce or pooled.cost > balance or pooled.tx.gas_limit > gas_limit
        ]
        if expire:
            reachable = self.next_nonce(sender, nonce)
            latest = now - self.limits.waiting_s_max
            gone = {pooled.tx.hash for pooled in stale}
            stale += [
                pooled
                for each, pooled in queue.items()
                if each >= reachable and pooled.arrived < latest and pooled.tx.hash not in gone
            ]
        for pooled in stale:
            self._remove(pooled)
        return [pooled.tx for pooled in stale]

    def _make_room(self, tx: Transaction, replaced: Pooled | None) -> None:
        """Evict what pays least until `tx` fits; raises InvalidTransaction, with nothing evicted, if `tx` is that."""
        limits = self.limits
        count = len(self._by_hash) + (0 if replaced else 1) - limits.transactions_max
        size = self._size_bytes + len(tx.raw) - (len(replaced.tx.raw) if replaced else 0) - limits.size_bytes_max
        if count <= 0 and size <= 0:
            return
        worth = self._worth_of_newcomer(tx)
        victims: list[Pooled] = []
        while count > 0 or size > 0:
            victim = self._pop_cheapest()
            if victim is not None and (victim.worth >= worth or victim.pooled.tx.sender == tx.sender):
                self._note_tail(victim.pooled.tx.sender)
                victim = None
            if victim is None:
                for pooled in victims:
                    self._place(pooled)
                raise InvalidTransaction("transaction underpriced")
            victims.append(victim.pooled)
            self._remove(victim.pooled)
            count -= 1
            size -= len(victim.pooled.tx.raw)

    def _worth_of_newcomer(self, tx: Transaction) -> tuple[int, int]:
        nonce = self.head.state.nonce(tx.sender)
        reachable = self.next_nonce(tx.sender, nonce)
        queue = self._queues.get(tx.sender, {})
        tips = [effective_tip(queue[each].tx, self.head.base_fee) for each in range(nonce, min(reachable, tx.nonce))]
        return int(tx.nonce <= reachable), min([effective_tip(tx, self.head.base_fee), *tips])

    def _note_tail(self, sender: bytes) -> None:
        """Offer a sender's last transaction for eviction: the last, so that no eviction opens a nonce gap.

        It is worth what can be earned on the way to it: nothing behind a gap, else the least tip of the queue.
        """
        if self._cheapest is None:
            return
        queue = self._queues[sender]
        last, first = max(queue), min(queue)
        reachable = last - first + 1 == len(queue) and first <= self.head.state.nonce(sender)
        tip = min(effective_tip(pooled.tx, self.head.base_fee) for pooled in queue.values())
        heappush(self._cheapest, (int(reachable), tip, -queue[last].order, queue[last].tx.hash))

    def _pop_cheapest(self) -> "_Victim | None":
        if self._cheapest is None:
            self._cheapest = []
            for sender in self._queues:
                self._note_tail(sender)
        while self._cheapest:
            reachable, tip, _, tx_hash = heappop(self._cheapest)
            pooled = self._by_hash.get(tx_hash)
            if pooled is not None and max(self._queues[pooled.tx.sender]) == pooled.tx.nonce:
                return _Victim((reachable, tip), pooled)
        return None


class _Victim(NamedTuple):
    worth: tuple[int, int]  # whether it is executable, and the tip on the way to it
    pooled: Pooled


class BestTransactions:
    """An iterator over a pool in the order of effective tips; tell it what did not work and it passes over the rest."""

    def __init__(self, queues: dict[bytes, Queue], base_fee: int, nonce_of: Callable[[bytes], int]) -> None:
        self._queues = queues
        self._base_fee = base_fee
        self._heap: list[tuple[int, int, Pooled]] = []
        self._nonce_of = nonce_of
        self._checked: set[bytes] = set()  # senders whose entry in the heap is known to have the right nonce
        for queue in queues.values():
            pooled = queue[min(queue)]
            if (tip := effective_tip(pooled.tx, base_fee)) >= 0:
                self._heap.append((-tip, pooled.order, pooled))
        heapify(self._heap)
        self._last: Pooled | None = None
        self._invalid: set[bytes] = set()

    def __iter__(self) -> Iterator[Transaction]:
        return self

    def __next__(self) -> Transaction:
        """The next transaction; the one before it counts as included unless its sender was invalidated."""
        last, self._last = self._last, None
        if last is not None:
            self._push(last.tx.sender, last.tx.nonce + 1)
        while self._heap:
            pooled = heappop(self._heap)[2]
            sender = pooled.tx.sender
            if sender not in self._checked:
                self._checked.add(sender)
                nonce = self._nonce_of(sender)
                if nonce != pooled.tx.nonce:
                    self._push(sender, nonce)
                    continue
            if sender not in self._invalid:
                self._last = pooled
                return pooled.tx
        raise StopIteration

    def _push(self, sender: bytes, nonce: int) -> None:
        pooled = self._queues.get(sender, {}).get(nonce)
        if pooled is None or sender in self._invalid:
            return
        if (tip := effective_tip(pooled.tx, self._base_fee)) >= 0:
            heappush(self._heap, (-tip, pooled.order, pooled))

    def invalidate(self, sender: bytes) -> None:
        """A transaction of this sender was not included: leave out everything of the sender that comes after it."""
        self._invalid.add(sender)


def authorities_of(tx: Transaction) -> tuple[bytes, ...]:
    """The accounts whose code the transaction sets; an authorization whose signature is none sets nothing."""
    found = []
    for authorization in tx.authorization_list:
        try:
            found.append(authorization.authority())
        except InvalidTransaction:
            continue
    return tuple(found)


def effective_tip(tx: Transaction, base_fee: int) -> int:
    """What the fee recipient earns per unit of gas, in wei; negative when the transaction cannot pay the base fee."""
    return min(tx.max_priority_fee_per_gas, tx.max_fee_per_gas - base_fee)
