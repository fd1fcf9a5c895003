"""Where every accepted transaction still has to go: to each target's pool, again after a restart, until it is included.

One queue per target, so that a slow or dead target holds up nobody; one batch per target on its way at a time, and a
pause between two, so that under load batches grow and without load nothing waits. A target's answer is one of three: it
has the transaction, it refuses it, or nobody knows – then it is sent again.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Literal

import msgspec

from flashblocks.execution.transaction import Transaction
from flashblocks.ingress.admission import most_it_takes, outbids

TRANSACTIONS_MAX = 20_000
PER_SENDER_MAX = 1_024
BATCH_TRANSACTIONS_MAX = 256
RESEND_AFTER_S = 4.0
UNKNOWN_RETRY_S = 0.2
PACE_S = 0.02  # between two batches to one target: nothing when it is quiet, fewer and larger requests under load
LIFETIME_S = 600.0
FORGET_AFTER_BLOCKS = 32  # what a flashblock showed is forgotten this much later even if no sealed block was seen

KNOWN_TEXTS = ("already known", "alreadyknown", "already imported", "known transaction")


class Refusal(msgspec.Struct, frozen=True):
    """A target's error about a transaction."""

    code: int
    message: str

    @property
    def means_known(self) -> bool:
        """The pool has it already: as good as accepted."""
        return any(text in self.message.lower() for text in KNOWN_TEXTS)


Answer = Refusal | None  # None: accepted


class Send(msgspec.Struct, frozen=True):
    """Send these transactions, in this order, to the target; answer with `Outbox.answered` or `Outbox.unanswered`."""

    target: str
    hashes: tuple[bytes, ...]


class Settled(msgspec.Struct, frozen=True):
    """The sender can be answered: accepted by a first target, or refused by all that answered (`refusal`)."""

    hash: bytes
    refusal: Refusal | None


Reason = Literal["included", "expired", "refused", "replaced", "dropped"]


class Forgotten(msgspec.Struct, frozen=True):
    """The outbox is done with a transaction."""

    hash: bytes
    reason: Reason


Decision = Send | Settled | Forgotten


class Entry:
    """One transaction on its way."""

    __slots__ = ("arrived", "included_in", "outcomes", "sent_at", "settled", "transaction")

    def __init__(self, transaction: Transaction, arrived: float) -> None:
        self.transaction = transaction
        self.arrived = arrived
        self.settled = False
        self.included_in: int | None = None
        self.outcomes: dict[str, Refusal | None] = {}
        self.sent_at = arrived


class Outbox:
    """Transactions not yet sealed. `now` is a monotonic clock in seconds; every method answers decisions in order."""

    def __init__(
        self,
        targets: Iterable[str],
        *,
        transactions_max: int = TRANSACTIONS_MAX,
        per_sender_max: int = PER_SENDER_MAX,
        resend_after_s: float = RESEND_AFTER_S,
        lifetime_s: float = LIFETIME_S,
        pace_s: float = PACE_S,
    ) -> None:
        self._transactions_max, self._per_sender_max = transactions_max, per_sender_max
        self._resend_after_s, self._lifetime_s, self._pace_s = resend_after_s, lifetime_s, pace_s
        self._entries: OrderedDict[bytes, Entry] = OrderedDict()  # in order of arrival
        self._by_sender: dict[bytes, dict[int, bytes]] = {}
        self._waiting: dict[str, OrderedDict[bytes, None]] = {target: OrderedDict() for target in targets}
        self._on_the_way: dict[str, tuple[bytes, ...]] = {}
        self._not_before: dict[str, float] = dict.fromkeys(self._waiting, float("-inf"))
        self._included: dict[int, set[bytes]] = {}
        self._costs: dict[bytes, int] = {}  # by sender, of what is not in a flashblock

    # Facts ----------------------------------------------------------------------------------------------------------

    def room_for(self, transaction: Transaction) -> Refusal | None:
        """Why a checked transaction cannot be taken in now, in a pool's words, or None."""
        if transaction.hash in self._entries:
            return Refusal(-32000, "already known")
        queue = self._by_sender.get(transaction.sender, {})
        replaced = queue.get(transaction.nonce)
        if replaced is not None:
            old = self._entries[replaced]
            if old.included_in is not None or not outbids(transaction, old.transaction):
                return Refusal(-32000, "replacement transaction underpriced")
            return None
        if len(queue) >= self._per_sender_max:
            return Refusal(
                -32000, f"account limit exceeded: {len(queue)} transactions of one sender wait, at most this many"
            )
        if len(self._entries) >= self._transactions_max:
            return Refusal(-32000, "txpool is full")
        return None

    def accept(self, now: float, transaction: Transaction) -> list[Decision]:
        """Take in a transaction for which there is room: it goes to every target."""
        decisions: list[Decision] = []
        queue = self._by_sender.setdefault(transaction.sender, {})
        replaced = queue.get(transaction.nonce)
        if replaced is not None:
            decisions += self._forget(replaced, "replaced")
            queue = self._by_sender.setdefault(transaction.sender, {})
        self._entries[transaction.hash] = Entry(transaction, now)
        queue[transaction.nonce] = transaction.hash
        self._count_cost(transaction, 1)
        self._want_everywhere(transaction.hash)
        return decisions + self._sends(now)

    def answered(self, now: float, target: str, answers: dict[bytes, Answer]) -> list[Decision]:
        """The target answered the batch on its way; what it did not mention goes again."""
        sent = self._on_the_way.pop(target, ())
        decisions: list[Decision] = []
        for tx_hash in sent:
            entry = self._entries.get(tx_hash)
            if entry is None:
                continue
            if tx_hash not in answers:
                self._want(target, tx_hash)
                continue
            answer = answers[tx_hash]
            entry.outcomes[target] = None if answer is None or answer.means_known else answer
            decisions += self._settle(tx_hash, entry)
        return decisions + self._sends(now)

    def unanswered(self, now: float, target: str) -> list[Decision]:
        """No answer to the batch on its way – unknown, so all of it is sent again, a little later, in its place."""
        sent = self._on_the_way.pop(target, ())
        waiting = self._waiting[target]
        for tx_hash in reversed(sent):
            if self._want(target, tx_hash):
                waiting.move_to_end(tx_hash, last=False)
        self._not_before[target] = now + UNKNOWN_RETRY_S
        return self._sends(now)

    def target_up(self, now: float, target: str) -> list[Decision]:
        """A target has (re)started, its pool may be empty: everything not included goes to it again, at once."""
        self._not_before[target] = float("-inf")
        self._waiting[target] = OrderedDict()
        for tx_hash in self._entries:
            self._want(target, tx_hash)
        return self._sends(now)

    def included(self, number: int, hashes: Iterable[bytes]) -> list[Decision]:
        """The stream shows these transactions in block `number`: send them no more; older blocks' are forgotten."""
        for tx_hash in hashes:
            entry = self._entries.get(tx_hash)
            if entry is None:
                continue
            if entry.included_in is None:
                self._count_cost(entry.transaction, -1)
            else:
                self._included[entry.included_in].discard(tx_hash)
            entry.included_in = number
            self._included.setdefault(number, set()).add(tx_hash)
            for waiting in self._waiting.values():
                waiting.pop(tx_hash, None)
        decisions: list[Decision] = []
        for old in [n for n in self._included if n <= number - FORGET_AFTER_BLOCKS]:
            for tx_hash in sorted(self._included.pop(old)):
                decisions += self._forget(tx_hash, "included")
        return decisions

    def sealed(self, now: float, number: int, hashes: Iterable[bytes]) -> list[Decision]:
        """Block `number` is sealed with these: done with them; what was shown and is not there goes out again."""
        decisions: list[Decision] = []
        shown = self._included.pop(number, set())
        for tx_hash in hashes:
            shown.discard(tx_hash)
            decisions += self._forget(tx_hash, "included")
        for tx_hash in sorted(shown):
            self._entries[tx_hash].included_in = None
            self._count_cost(self._entries[tx_hash].transaction, 1)
            self._want_everywhere(tx_hash)
        return decisions + self._sends(now)

    def waited_enough(self, tx_hash: bytes) -> list[Decision]:
        """Not every target answered in time: the answers there are must do. Without any, the transaction is kept.

        It was checked here, and it goes out again until it is included or expires: that is what "accepted" means.
        """
        entry = self._entries.get(tx_hash)
        if entry is None or entry.settled:
            return []
        entry.settled = True
        refusals = [outcome for outcome in entry.outcomes.values() if outcome is not None]
        if not refusals:
            return [Settled(tx_hash, None)]
        return [Settled(tx_hash, refusals[0]), *self._forget(tx_hash, "refused")]

    def drop(self, hashes: Iterable[bytes]) -> list[Decision]:
        """The operator wants these gone: they are sent no more. What a flashblock shows was promised, and stays."""
        decisions: list[Decision] = []
        for tx_hash in hashes:
            entry = self._entries.get(tx_hash)
            if entry is None or entry.included_in is not None:
                continue
            if not entry.settled:
                decisions.append(Settled(tx_hash, Refusal(-32000, "dropped by the operator")))
            decisions += self._forget(tx_hash, "dropped")
        return decisions

    def tick(self, now: float) -> list[Decision]:
        """Time passed: expire, send again what no block took, retry targets that did not answer."""
        decisions: list[Decision] = []
        for tx_hash, entry in list(self._entries.items()):
            if entry.arrived > now - min(self._resend_after_s, self._lifetime_s):
                break  # ordered by arrival: all later ones are younger
            if entry.arrived <= now - self._lifetime_s:
                decisions += self._forget(tx_hash, "expired")
            elif entry.included_in is None and entry.sent_at <= now - self._resend_after_s:
                entry.sent_at = now
                self._want_everywhere(tx_hash)
        return decisions + self._sends(now)

    def flush(self, now: float) -> list[Decision]:
        """Send what was held back for its pace; to be called when `next_flush` says."""
        return self._sends(now)

    # What others read -----------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, tx_hash: bytes) -> Transaction | None:
        """The transaction, while it is on its way."""
        entry = self._entries.get(tx_hash)
        return None if entry is None else entry.transaction

    def queue(self, sender: bytes) -> list[bytes]:
        """The hashes of one sender's transactions by nonce."""
        queue = self._by_sender.get(sender, {})
        return [queue[nonce] for nonce in sorted(queue)]

    def held(self) -> Iterator[tuple[float, Transaction]]:
        """Everything on its way, with the time of its arrival, in that order."""
        return ((entry.arrived, entry.transaction) for entry in self._entries.values())

    def queued_cost(self, sender: bytes, nonce: int) -> int:
        """Wei the sender's waiting transactions may take, those in a flashblock and the one with `nonce` left out."""
        same_nonce = self._by_sender.get(sender, {}).get(nonce)
        replaced = None if same_nonce is None else self._entries[same_nonce]
        left_out = 0 if replaced is None or replaced.included_in is not None else most_it_takes(replaced.transaction)
        return self._costs.get(sender, 0) - left_out

    def next_nonce(self, sender: bytes, from_nonce: int) -> int:
        """The first nonce at or after `from_nonce` that no transaction on its way has."""
        queue = self._by_sender.get(sender, {})
        while from_nonce in queue:
            from_nonce += 1
        return from_nonce

    def next_flush(self) -> float | None:
        """When something that waits only for its pace may go; None when nothing does."""
        ready = [
            self._not_before[target]
            for target, waiting in self._waiting.items()
            if waiting and target not in self._on_the_way
        ]
        return min(ready, default=None)

    def waiting(self, target: str) -> int:
        """How many transactions wait for a target (a gauge)."""
        return len(self._waiting[target]) + len(self._on_the_way.get(target, ()))

    def check(self) -> None:
        """Invariants; an AssertionError is our bug."""
        assert len(self._entries) <= self._transactions_max
        assert sum(len(queue) for queue in self._by_sender.values()) == len(self._entries)
        for sender, queue in self._by_sender.items():
            assert queue
            for nonce, tx_hash in queue.items():
                transaction = self._entries[tx_hash].transaction
                assert (transaction.sender, transaction.nonce) == (sender, nonce)
            unshown = [self._entries[tx_hash] for tx_hash in queue.values()]
            cost = sum(most_it_takes(entry.transaction) for entry in unshown if entry.included_in is None)
            assert self._costs.get(sender, 0) == cost
        assert self._costs.keys() <= self._by_sender.keys()
        for waiting in self._waiting.values():
            assert all(self._entries[tx_hash].included_in is None for tx_hash in waiting)
        for number, hashes in self._included.items():
            assert all(self._entries[tx_hash].included_in == number for tx_hash in hashes)
        for target in self._on_the_way:
            assert not set(self._on_the_way[target]) & self._waiting[target].keys()

    # Smaller rules --------------------------------------------------------------------------------------------------

    def _want(self, target: str, tx_hash: bytes) -> bool:
        """Queue a transaction for a target, unless it is on its way there, shown in a flashblock, or done with."""
        entry = self._entries.get(tx_hash)
        if entry is None or entry.included_in is not None or tx_hash in self._on_the_way.get(target, ()):
            return False
        self._waiting[target][tx_hash] = None
        return True

    def _want_everywhere(self, tx_hash: bytes) -> None:
        for target in self._waiting:
            self._want(target, tx_hash)

    def _sends(self, now: float) -> list[Decision]:
        decisions: list[Decision] = []
        for target, waiting in self._waiting.items():
            if not waiting or target in self._on_the_way or now < self._not_before[target]:
                continue
            batch = tuple(islice(waiting, BATCH_TRANSACTIONS_MAX))
            for tx_hash in batch:
                del waiting[tx_hash]
            self._on_the_way[target] = batch
            self._not_before[target] = now + self._pace_s
            decisions.append(Send(target, batch))
        return decisions

    def _settle(self, tx_hash: bytes, entry: Entry) -> list[Decision]:
        refusals = [outcome for outcome in entry.outcomes.values() if outcome is not None]
        settled, entry.settled = entry.settled, True
        if len(refusals) == len(self._waiting):
            first = [] if settled else [Settled(tx_hash, refusals[0])]
            return [*first, *self._forget(tx_hash, "refused")]
        if settled:
            return []
        if len(refusals) < len(entry.outcomes):
            return [Settled(tx_hash, None)]
        entry.settled = False
        return []

    def _forget(self, tx_hash: bytes, reason: Reason) -> list[Decision]:
        entry = self._entries.pop(tx_hash, None)
        if entry is None:
            return []
        sender, nonce = entry.transaction.sender, entry.transaction.nonce
        del self._by_sender[sender][nonce]
        if not self._by_sender[sender]:
            del self._by_sender[sender]
        for waiting in self._waiting.values():
            waiting.pop(tx_hash, None)
        if entry.included_in is None:
            self._count_cost(entry.transaction, -1)
        elif entry.included_in in self._included:
            self._included[entry.included_in].discard(tx_hash)
        return [Forgotten(tx_hash, reason)]

    def _count_cost(self, transaction: Transaction, sign: int) -> None:
        cost = self._costs.get(transaction.sender, 0) + sign * most_it_takes(transaction)
        if cost:
            self._costs[transaction.sender] = cost
        else:
            self._costs.pop(transaction.sender, None)
