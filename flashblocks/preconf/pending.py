"""The pending state machine: arrivals, verdicts and sealed blocks in; execute, seal, ask again, tell subscribers out.

The naive way – one variable "latest flashblock", cleared whenever something unexpected arrives – loses every
preconfirmation at each fail-over, reconnect or doubled message. Here an arrival is a fact that is put aside, and one
step looks at all facts: it executes what comes next, seals a block when its child names it as parent, and asks for
exactly what is missing. Nothing but a proven replacement ever takes a shown flashblock away.
"""

from flashblocks.preconf.facts import (
    Appended,
    Arrival,
    Backfill,
    BlockRef,
    CanonicalBlock,
    Decision,
    Dropped,
    Execute,
    Invalidated,
    Outcome,
    Resend,
    Seal,
    View,
)
from flashblocks.preconf.waiting import Waiting

FLASHBLOCK_TIME_MS = 200
STALE_AFTER_FLASHBLOCKS = 3
GAP_GRACE_S = 0.02  # another proxy usually fills a gap within this time
ASK_AGAIN_S = 0.15
STALE_POLL_S = 0.5
MAX_UNCONFIRMED_BLOCKS = 8  # how far the stream alone may lead us, no execution client agreeing
LEDGER_RESTART_S = 5.0  # silence of the newest epoch, after which an older one is no stale leader any more
REMEMBERED_BLOCKS = 64  # for late comparisons of streamed with sealed
MAX_DISPUTES = 64

DUPLICATE, EQUIVOCATION, STALE_EPOCH, STALE_BLOCK, INVALID, AFTER_INVALID, TOO_FAR, REPLACED = (
    "duplicate",
    "equivocation",
    "stale_epoch",
    "stale_block",
    "invalid",
    "after_invalid",
    "too_far_ahead",
    "replaced",
)
DROP_REASONS = (DUPLICATE, EQUIVOCATION, STALE_EPOCH, STALE_BLOCK, INVALID, AFTER_INVALID, TOO_FAR, REPLACED)


class Shown:
    """A block as far as flashblocks showed it: what was executed, to be compared with what gets sealed."""

    __slots__ = ("block_hash", "digests", "failed", "first", "transactions")

    def __init__(self, first: Arrival) -> None:
        self.first = first
        self.block_hash = b""
        self.digests: list[bytes] = []
        self.transactions: list[bytes] = []
        self.failed = False

    @property
    def number(self) -> int:
        """The height of the block."""
        return self.first.number

    @property
    def next_index(self) -> int:
        """The index that comes next; 0 before anything was executed."""
        return len(self.digests)

    def add(self, arrival: Arrival) -> None:
        """Record an executed flashblock."""
        self.digests.append(arrival.digest)
        self.transactions.extend(arrival.transactions)
        self.block_hash = arrival.block_hash


class PendingMachine:
    """One open block on one head, and the facts that wait for their turn.

    `now` is any monotonic clock in seconds. Every method returns the decisions to carry out, in order; after an
    `Execute` nothing more is executed until `executed` reports its outcome.
    """

    def __init__(
        self,
        head: BlockRef,
        *,
        stale_after_s: float = STALE_AFTER_FLASHBLOCKS * FLASHBLOCK_TIME_MS / 1000,
        max_unconfirmed_blocks: int = MAX_UNCONFIRMED_BLOCKS,
        agreeing_clients: int = 2,
    ) -> None:
        self.head = head
        self.epoch = 0
        self.open: Shown | None = None
        self.last_appended_at: float | None = None
        self.confirmed = head
        self._stale_after_s = stale_after_s
        self._max_unconfirmed_blocks = max_unconfirmed_blocks
        self._agreeing_clients = agreeing_clients
        self._epoch_first_number = 0
        self._executing: Arrival | None = None
        self._waiting = Waiting()
        self._shown: dict[int, Shown] = {}
        self._canonical: dict[int, bytes] = {head.number: head.hash}
        self._unfillable: tuple[int, int] | None = None
        self._missing: object = None
        self._missing_since = 0.0
        self._asked_at = float("-inf")
        self._polled_at = float("-inf")
        self._disputes: dict[tuple[int, bytes], set[str]] = {}

    # Facts ----------------------------------------------------------------------------------------------------------

    def streamed(self, now: float, arrival: Arrival) -> list[Decision]:
        """A flashblock arrived from a proxy (any proxy, any order, any number of times)."""
        reason = self._refusal(arrival, now)
        if reason is None:
            reason = self._waiting.put(arrival)
        if reason is not None:
            return [Dropped(reason, arrival.number, arrival.index)]
        return self._step(now)

    def executed(self, now: float, arrival: Arrival, outcome: Outcome) -> list[Decision]:
        """The outcome of the outstanding `Execute`; one that a replacement has overtaken changes nothing."""
        self._executing = None
        block = self.open
        if block is None or block.first.payload_id != arrival.payload_id or block.next_index != arrival.index:
            return self._step(now)
        decisions: list[Decision] = []
        if outcome in ("VALID", "DUPLICATE"):
            block.add(arrival)
            self._remember(block)
            self.last_appended_at = now
            decisions.append(Appended(arrival))
        elif outcome == "INVALID":
            # Keep what was shown: one bad flashblock must not take the good ones before it away.
            block.failed = True
            decisions.append(Dropped(INVALID, arrival.number, arrival.index))
            self._waiting.forget(arrival.number)
        else:
            # The executor lost its place (a restart, say): show what was executed no longer, ask for all of it.
            decisions += self._withdraw(block, sealed_hash=None, sealed_transactions=())
            self.open = None
        return decisions + self._step(now)

    def canonical(self, now: float, block: CanonicalBlock) -> list[Decision]:
        """A block from an execution client, imported by us; feed a range in ascending order."""
        if self._canonical.get(block.number) == block.hash:
            self._confirm(BlockRef(block.number, block.hash))
            return self._step(now)
        decisions: list[Decision] = []
        known_parent = self._canonical.get(block.number - 1)
        if known_parent is not None and known_parent != block.parent_hash:
            return [Backfill(block.number - 1, block.number - 1, block.parent_hash)]
        if self.open is not None and block.number > self.open.number:
            # whether what is shown of the open block holds, only the sealed block of that height can tell
            return [Backfill(self.open.number, block.number, block.hash)]
        for number in range(self.head.number, block.number - 1, -1):
            decisions += self._unseal(number, block)
        if self.open is not None and self.open.number >= block.number:
            if self.open.number == block.number:
                decisions += self._compare(self.open, block, reorg=False)
            else:
                decisions += self._withdraw(self.open, sealed_hash=None, sealed_transactions=())
            self.open = None
        self._set_head(BlockRef(block.number, block.hash))
        self._confirm(self.head)
        return decisions + self._step(now)

    def observed(self, now: float, source: str, block: BlockRef) -> list[Decision]:
        """An execution client (`source`) says that `block` is its head, or its block of that height."""
        ours = self._canonical.get(block.number)
        if ours == block.hash:
            self._confirm(block)
            self._disputes.clear()
            return self._step(now)
        if block.number > self.head.number:
            if self.is_stale(now) or block.number > self.head.number + 1:
                return [Backfill(self.head.number + 1, block.number, block.hash)]
            return []
        if ours is None:
            return []  # older than what we remember: that client is behind, which says nothing against our block
        if len(self._disputes) >= MAX_DISPUTES:
            self._disputes.clear()
        voices = self._disputes.setdefault((block.number, block.hash), set())
        voices.add(source)
        if len(voices) >= self._agreeing_clients:
            return [Backfill(block.number, block.number, block.hash)]
        return []

    def sealed(self, now: float, block: BlockRef) -> list[Decision]:
        """The stream itself says that `block` is sealed, before the next index 0 does."""
        if self.open is not None and (self.open.number, self.open.block_hash) == (block.number, block.hash):
            return [*self._seal(self.open), *self._step(now)]
        return self._step(now)

    def gap_announced(self, now: float, number: int, index_from: int) -> list[Decision]:
        """A proxy says that it cannot get (number, index_from): do not ask for it again, wait for the sealed block."""
        self._unfillable = (number, index_from)
        return self._step(now)

    def tick(self, now: float) -> list[Decision]:
        """Time passed: ask for what has been missing for a while; poll the clients while the stream is silent."""
        decisions = self._step(now)
        if self.is_stale(now) and now - self._polled_at >= STALE_POLL_S:
            self._polled_at = now
            decisions.append(Backfill(self.head.number + 1, None, None))
        return decisions

    # What others read -----------------------------------------------------------------------------------------------

    def view(self, now: float) -> View:
        """What `pending` means now. It is never nothing: without a fresh flashblock it is `latest`, with the reason."""
        if self.last_appended_at is None:
            return View("latest", "no flashblock yet")
        if self.is_stale(now):
            return View("latest", "stream is stale")
        if self.open is None or self.open.next_index == 0:
            return View("latest", "no flashblock on the newest block yet")
        return View("flashblocks", "", self.open.first.payload_id, self.open.next_index - 1)

    def is_stale(self, now: float) -> bool:
        """Whether no flashblock came for so long that `pending` must not be trusted to be new."""
        return self.last_appended_at is None or now - self.last_appended_at > self._stale_after_s

    def stream_age_s(self, now: float) -> float | None:
        """Seconds since `pending` last grew; None before the first time."""
        return None if self.last_appended_at is None else max(0.0, now - self.last_appended_at)

    def has(self, number: int, index: int, digest: bytes) -> bool:
        """Whether exactly this flashblock is shown, waits, or is being executed: a copy of it need not be opened."""
        shown = self._shown.get(number)
        if shown is not None and index < shown.next_index:
            return shown.digests[index] == digest
        waiting = self._waiting.get(number, index)
        if waiting is None and self._executing is not None:
            waiting = self._executing
        return waiting is not None and (waiting.number, waiting.index, waiting.digest) == (number, index, digest)

    def wanted(self) -> tuple[int, int]:
        """The (block, index) that comes next: where a stream should resume."""
        if self.open is None or self.open.failed:
            return self.head.number + 1, 0
        return self.open.number, self.open.next_index

    def canonical_hash(self, number: int) -> bytes | None:
        """The hash of our block at that height, where it is still remembered."""
        return self._canonical.get(number)

    @property
    def unconfirmed_blocks(self) -> int:
        """How many blocks the stream is ahead of what execution clients confirmed."""
        return max(0, self.head.number - self.confirmed.number)

    def check(self) -> None:
        """Invariants; an AssertionError is our bug."""
        assert self._canonical[self.head.number] == self.head.hash
        assert max(self._canonical) == self.head.number
        if self.open is not None:
            assert self.open.number == self.head.number + 1, "the open block lies on the head"
            assert self.open.first.parent_hash == self.head.hash
        if self._executing is not None and self.open is not None and not self.open.failed:
            overtaken = self._executing.payload_id != self.open.first.payload_id
            assert overtaken or self._executing.index <= self.open.next_index
        assert all(number > self.head.number for number in self._waiting.numbers())
        self._waiting.check()

    # The step -------------------------------------------------------------------------------------------------------

    def _step(self, now: float) -> list[Decision]:
        """Look at all facts: execute or seal as far as they reach, then ask for what is missing."""
        decisions: list[Decision] = []
        while self._executing is None:
            done = self._advance()
            if not done:
                break
            decisions += done
        if self._executing is None:
            decisions += self._ask(now)
        else:
            self._missing = None
        return decisions

    def _advance(self) -> list[Decision]:
        """One move, or nothing when none is possible."""
        block = self.open
        if block is None:
            first = self._waiting.get(self.head.number + 1, 0)
            if first is None or first.parent_hash != self.head.hash or self._too_deep():
                return []
            self.open = Shown(first)
            return self._execute(first)
        other = self._waiting.get(block.number, 0)
        if other is not None and other.payload_id != block.first.payload_id and other.parent_hash == self.head.hash:
            self.open = Shown(other)
            return [*self._withdraw(block, sealed_hash=None, sealed_transactions=()), *self._execute(other)]
        following = self._waiting.get(block.number, block.next_index)
        if following is not None and following.payload_id == block.first.payload_id and not block.failed:
            return self._execute(following)
        child = self._waiting.get(block.number + 1, 0)
        if child is not None and block.next_index > 0 and child.parent_hash == block.block_hash:
            return self._seal(block)
        return []

    def _execute(self, arrival: Arrival) -> list[Decision]:
        self._waiting.take(arrival)
        self._executing = arrival
        return [Execute(arrival)]

    def _seal(self, block: Shown) -> list[Decision]:
        sealed = BlockRef(block.number, block.block_hash)
        self.open = None
        self._set_head(sealed)
        return [Seal(sealed, block.first.payload_id, block.next_index - 1)]

    def _ask(self, now: float) -> list[Decision]:
        missing = self._missing_now()
        if missing is None:
            self._missing = None
            return []
        if missing != self._missing:
            self._missing, self._missing_since, self._asked_at = missing, now, float("-inf")
        if now - self._missing_since < GAP_GRACE_S or now - self._asked_at < ASK_AGAIN_S:
            return []
        self._asked_at = now
        return list(missing)

    def _missing_now(self) -> tuple[Resend | Backfill, ...] | None:
        """What the lowest waiting flashblock waits for."""
        numbers = self._waiting.numbers()
        if not numbers:
            return None
        lowest, highest = numbers[0], numbers[-1]
        wanted: list[Resend | Backfill] = []
        if self.open is not None and self.open.next_index > 0 and not self.open.failed:
            start = (self.open.number, self.open.next_index)
        else:
            start = (self.head.number + 1, 0)
        reachable = lowest <= start[0] + 1
        if reachable and self._waiting.get(*start) is None and start != self._unfillable:
            wanted.append(Resend(*start))
        elif not reachable and self._waiting.get(lowest, 0) is None and (lowest, 0) != self._unfillable:
            wanted.append(Resend(lowest, 0))
        if highest > self.head.number + 1:
            wanted.append(Backfill(self.head.number + 1, highest - 1, self._waiting.parent_hash(highest)))
        elif self._waiting.parent_hash(lowest) != self.head.hash:
            wanted.append(Backfill(self.head.number, self.head.number, self._waiting.parent_hash(lowest)))
        return tuple(wanted) or None

    # Smaller rules --------------------------------------------------------------------------------------------------

    def _refusal(self, arrival: Arrival, now: float) -> str | None:
        """Why this arrival is of no use, or None; also follows the epoch."""
        if arrival.epoch > self.epoch:
            self.epoch, self._epoch_first_number = arrival.epoch, arrival.number
        elif arrival.epoch == self.epoch:
            self._epoch_first_number = min(self._epoch_first_number, arrival.number)
        elif arrival.number >= self._epoch_first_number and not self._waiting.continues(arrival):
            age = self.stream_age_s(now)
            if age is not None and age < LEDGER_RESTART_S:
                return STALE_EPOCH
            # The epochs count from the start again: somebody wiped the ledger. What we show we execute ourselves.
            self.epoch, self._epoch_first_number = arrival.epoch, arrival.number
        executing = self._executing
        if executing is not None and (executing.digest, executing.index) == (arrival.digest, arrival.index):
            return DUPLICATE
        shown = self._shown.get(arrival.number)
        same_payload = shown is not None and shown.first.payload_id == arrival.payload_id
        if shown is not None and same_payload and arrival.index < shown.next_index:
            return DUPLICATE if shown.digests[arrival.index] == arrival.digest else EQUIVOCATION
        if arrival.number <= self.head.number:
            return STALE_BLOCK
        if self.open is not None and self.open.failed and self.open.first.payload_id == arrival.payload_id:
            return AFTER_INVALID
        return None

    def _too_deep(self) -> bool:
        return self.unconfirmed_blocks >= self._max_unconfirmed_blocks

    def _confirm(self, block: BlockRef) -> None:
        if block.number >= self.confirmed.number or self.confirmed.number > self.head.number:
            self.confirmed = block

    def _set_head(self, block: BlockRef) -> None:
        self.head = block
        self._canonical[block.number] = block.hash
        for number in [n for n in self._canonical if n > block.number or n <= block.number - REMEMBERED_BLOCKS]:
            del self._canonical[number]
        self._waiting.forget_up_to(block.number)

    def _remember(self, block: Shown) -> None:
        self._shown[block.number] = block
        for number in [n for n in self._shown if n <= block.number - REMEMBERED_BLOCKS]:
            del self._shown[number]

    def _unseal(self, number: int, replacement: CanonicalBlock) -> list[Decision]:
        """A block that was ours at this height is not any more."""
        old_hash = self._canonical.get(number)
        shown = self._shown.pop(number, None)
        if shown is not None and number == replacement.number:
            return self._compare(shown, replacement, reorg=True)
        if shown is not None:
            return self._withdraw(shown, sealed_hash=None, sealed_transactions=(), reorg=True)
        if old_hash is None:
            return []
        sealed_hash = replacement.hash if number == replacement.number else None
        return [Invalidated(number, old_hash, sealed_hash, divergent=False, reorg=True, lost=())]

    def _compare(self, shown: Shown, sealed: CanonicalBlock, *, reorg: bool) -> list[Decision]:
        """Streamed against sealed, by content: every shown transaction must be there, in the shown order."""
        kept = tuple(shown.transactions) == sealed.transactions[: len(shown.transactions)]
        if kept and not reorg:
            return []
        return self._withdraw(shown, sealed_hash=sealed.hash, sealed_transactions=sealed.transactions, reorg=reorg)

    def _withdraw(
        self,
        shown: Shown,
        *,
        sealed_hash: bytes | None,
        sealed_transactions: tuple[bytes, ...],
        reorg: bool = False,
    ) -> list[Decision]:
        self._shown.pop(shown.number, None)
        if shown.next_index == 0:
            return []
        transactions = tuple(shown.transactions)
        there = set(sealed_transactions)
        return [
            Invalidated(
                shown.number,
                shown.block_hash,
                sealed_hash,
                divergent=transactions != sealed_transactions[: len(transactions)],
                reorg=reorg,
                lost=tuple(transaction for transaction in transactions if transaction not in there),
            )
        ]
