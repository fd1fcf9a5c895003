"""The judge: decides from a history alone which promises were kept. Nothing here talks to the system.

Rules, each a promise of docs/architecture.md (`PROMISES`): one body per (block, index); what was seen is in the sealed
block, in order; one sealed block per height on every node; no older epoch after a newer one; indices 0, 1, 2 … once
each at every subscriber; `pending` is never null, never behind `latest`, never old without saying so.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import msgspec

from chaos.history import Event, GapAnnounced, Invalidated, PendingRead, Preconfirmed, SealedBlock, Seen

EQUIVOCATION = "equivocation"
LOST_FLASHBLOCK = "lost flashblock"
LOST_TRANSACTION = "lost transaction"
REORDERED = "reordered"
FORK = "fork"
DUPLICATE = "duplicate"
GAP = "gap"
STALE_EPOCH = "stale epoch"
NULL_PENDING = "null pending"
STALE_PENDING = "stale pending"
PENDING_DIVERGES = "pending diverges"
WITHDRAWN = "withdrawn"
UNANSWERED = "nothing seen"

PROMISES = {
    1: (EQUIVOCATION,),
    2: (LOST_FLASHBLOCK, LOST_TRANSACTION, REORDERED, WITHDRAWN),
    3: (FORK,),
    4: (STALE_EPOCH,),
    5: (GAP, DUPLICATE),
    6: (NULL_PENDING, STALE_PENDING, PENDING_DIVERGES),
}
"""Which rules decide on which promise; UNANSWERED decides on none, it says that nothing was tested."""

PENDING_AGE_S_MAX = 5.0
"""How long `pending` may stay behind the public stream before it has to fall through to `latest`."""


class Violation(msgspec.Struct, frozen=True):
    """One broken promise: the rule's name and what broke it."""

    rule: str
    text: str


class Report(msgspec.Struct, frozen=True):
    """The checker's verdict over one history."""

    violations: tuple[Violation, ...]
    flashblocks: int
    blocks: int
    transactions: int

    @property
    def passed(self) -> bool:
        """True when no promise was broken."""
        return not self.violations

    def broken(self) -> tuple[int, ...]:
        """The numbers of the promises that were broken."""
        return tuple(number for number, rules in PROMISES.items() if self.count(*rules))

    def count(self, *rules: str) -> int:
        """How many violations of these rules there are."""
        return sum(violation.rule in rules for violation in self.violations)


def check(history: Iterable[Event]) -> Report:
    """Judge a history by every rule."""
    events = list(history)
    seen = [event for event in events if isinstance(event, Seen)]
    sealed = [event for event in events if isinstance(event, SealedBlock)]
    chain, forks = _one_chain(sealed)
    violations = [*forks, *_no_equivocation(seen), *_no_stale_publisher(seen)]
    for source in sorted({event.source for event in seen if event.edge}):
        own = [event for event in seen if event.source == source]
        announced = {
            (event.number, index)
            for event in events
            if isinstance(event, GapAnnounced) and event.source == source
            for index in range(event.index_from, event.index_to + 1)
        }
        violations += _in_order(source, own, announced, chain)
        violations += _epochs_grow(source, own)
    # what a conductor said and no proxy passed on, nobody outside was promised
    violations += _nothing_lost([event for event in seen if event.edge], chain)
    violations += _receipts_kept([event for event in events if isinstance(event, Preconfirmed)], chain)
    violations += _nothing_withdrawn([event for event in events if isinstance(event, Invalidated)])
    violations += _pending_answers(events, chain)
    if not seen:
        violations.append(Violation(UNANSWERED, "no subscriber saw a single flashblock: nothing was tested"))
    places = {(event.number, event.index) for event in seen}
    transactions = {transaction for event in seen for transaction in event.transactions}
    return Report(tuple(violations), len(places), len(chain), len(transactions))


def _one_chain(sealed: Sequence[SealedBlock]) -> tuple[dict[int, SealedBlock], list[Violation]]:
    chain: dict[int, SealedBlock] = {}
    violations = []
    for block in sealed:
        known = chain.setdefault(block.number, block)
        if (known.block_hash, known.transactions) != (block.block_hash, block.transactions):
            text = f"block {block.number}: {known.source} has {known.block_hash}, {block.source} has {block.block_hash}"
            violations.append(Violation(FORK, text))
    for number, block in chain.items():
        parent = chain.get(number - 1)
        if parent is not None and parent.block_hash != block.parent_hash:
            violations.append(Violation(FORK, f"block {number} does not stand on block {number - 1}"))
    return chain, violations


def _no_equivocation(seen: Sequence[Seen]) -> list[Violation]:
    bodies: dict[tuple[int, int], Seen] = {}
    violations = []
    for event in seen:
        known = bodies.setdefault((event.number, event.index), event)
        told = (event.payload_id, event.block_hash, event.transactions)
        if told != (known.payload_id, known.block_hash, known.transactions):
            text = f"{event.number}/{event.index}: {known.source} and {event.source} were told different contents"
            violations.append(Violation(EQUIVOCATION, text))
    return violations


def _in_order(
    source: str, own: Sequence[Seen], announced: set[tuple[int, int]], chain: dict[int, SealedBlock]
) -> list[Violation]:
    violations = []
    places: set[tuple[int, int]] = set()
    last: Seen | None = None
    for event in own:
        place = (event.number, event.index)
        if place in places:
            violations.append(Violation(DUPLICATE, f"{source} saw {event.number}/{event.index} twice"))
            continue
        places.add(place)
        if last is not None:
            violations += [Violation(GAP, f"{source}: {text}") for text in _missing(last, event, announced, chain)]
        last = event
    return violations


def _missing(last: Seen, event: Seen, announced: set[tuple[int, int]], chain: dict[int, SealedBlock]) -> list[str]:
    """Say what lies between two consecutive flashblocks of one subscriber and was neither seen nor announced."""
    if event.number == last.number:
        if event.index < last.index:
            return [f"{event.number}/{event.index} came after {last.number}/{last.index}"]
        skipped = [index for index in range(last.index + 1, event.index) if (event.number, index) not in announced]
        return [f"{event.number}/{index} is missing" for index in skipped]
    if event.number < last.number:
        return [f"{event.number}/{event.index} came after {last.number}/{last.index}"]
    missing = [
        f"{event.number}/{index} is missing" for index in range(event.index) if (event.number, index) not in announced
    ]
    # Where nobody knows how many are missing – whole blocks, the end of one – the first of them is announced alone.
    if event.number > last.number + 1 and (last.number + 1, 0) not in announced:
        missing.append(f"nothing of blocks {last.number + 1} to {event.number - 1} was streamed")
    follows = event.number == last.number + 1 and event.parent_hash in (None, last.block_hash)
    if event.number == last.number + 1 and not follows and (last.number, last.index + 1) not in announced:
        tail = chain.get(last.number)
        if tail is None or tail.block_hash != last.block_hash:
            missing.append(f"block {last.number} went on after {last.number}/{last.index}, unseen")
    return missing


def _no_stale_publisher(seen: Sequence[Seen]) -> list[Violation]:
    """What nobody had seen before must not come from an epoch older than one already seen: a deposed leader spoke.

    Unless a majority had it before the claim, and it was on its way when the leader was deposed: a new leader repeats
    the last sealed and the open block at its own door, so it is there, or before all that is there.
    """
    repeated = {(event.number, event.index, event.block_hash, event.epoch) for event in seen if not event.edge}
    repeated_from: dict[int, tuple[int, int]] = {}
    for number, index, _, epoch in repeated:
        repeated_from[epoch] = min((number, index), repeated_from.get(epoch, (number, index)))
    violations = []
    places: set[tuple[int, int]] = set()
    newest = 0
    for event in seen:
        if not event.epoch:
            continue
        place = (event.number, event.index)
        before_claim = place < repeated_from.get(newest, place)
        on_its_way = before_claim or (*place, event.block_hash, newest) in repeated
        if place not in places and event.epoch < newest and not on_its_way:
            text = f"{event.source} published {event.number}/{event.index} in epoch {event.epoch} after epoch {newest}"
            violations.append(Violation(STALE_EPOCH, text))
        places.add(place)
        newest = max(newest, event.epoch)
    return violations


def _epochs_grow(source: str, own: Sequence[Seen]) -> list[Violation]:
    violations = []
    newest = 0
    for event in own:
        if event.epoch and event.epoch < newest:
            text = f"{source} got {event.number}/{event.index} of epoch {event.epoch} after epoch {newest}"
            violations.append(Violation(STALE_EPOCH, text))
        newest = max(newest, event.epoch)
    return violations


def _nothing_lost(seen: Sequence[Seen], chain: dict[int, SealedBlock]) -> list[Violation]:
    by_block: dict[int, dict[int, Seen]] = defaultdict(dict)
    for event in seen:
        by_block[event.number].setdefault(event.index, event)
    violations = []
    head = max(chain, default=-1)
    for number, flashblocks in sorted(by_block.items()):
        if number > head:
            continue  # still open when the drill looked
        block = chain.get(number)
        if block is None:
            text = f"block {number} is not in the chain, {len(flashblocks)} of its flashblocks were seen"
            violations.append(Violation(LOST_FLASHBLOCK, text))
            continue
        violations += _block_keeps(block, flashblocks)
    return violations


def _block_keeps(block: SealedBlock, flashblocks: dict[int, Seen]) -> list[Violation]:
    violations = []
    places = {transaction: place for place, transaction in enumerate(block.transactions)}
    last_place = -1
    for index, event in sorted(flashblocks.items()):
        lost = [transaction for transaction in event.transactions if transaction not in places]
        violations += [
            Violation(LOST_TRANSACTION, f"{block.number}/{index}: {transaction} is not in the sealed block")
            for transaction in lost
        ]
        if lost:
            violations.append(Violation(LOST_FLASHBLOCK, f"{block.number}/{index} was seen and is not in the block"))
        for transaction in event.transactions:
            place = places.get(transaction, last_place + 1)
            if place <= last_place:
                violations.append(Violation(REORDERED, f"{block.number}/{index}: {transaction} changed its place"))
            last_place = max(last_place, place)
    return violations


def _receipts_kept(preconfirmed: Sequence[Preconfirmed], chain: dict[int, SealedBlock]) -> list[Violation]:
    head = max(chain, default=-1)
    violations = []
    for event in preconfirmed:
        block = chain.get(event.number)
        if event.number > head or (block is not None and event.transaction in block.transactions):
            continue
        if block is None and chain and event.number < min(chain):
            continue  # older than what was read back
        text = f"{event.transaction} had a receipt in block {event.number} and is not there"
        violations.append(Violation(LOST_TRANSACTION, text))
    return violations


def _nothing_withdrawn(invalidated: Sequence[Invalidated]) -> list[Violation]:
    return [
        Violation(WITHDRAWN, f"{event.source} took {transaction} of block {event.number} back")
        for event in invalidated
        for transaction in event.transactions
    ]


def _pending_answers(events: Sequence[Event], chain: dict[int, SealedBlock]) -> list[Violation]:
    violations = []
    streamed: list[tuple[float, int]] = []  # when each new block was first seen at a proxy, ascending
    for event in events:
        if isinstance(event, Seen) and event.edge and (not streamed or event.number > streamed[-1][1]):
            streamed.append((event.at, event.number))
        if isinstance(event, PendingRead):
            violations += _pending_answer(event, streamed, chain)
    return violations


def _pending_answer(
    read: PendingRead, streamed: Sequence[tuple[float, int]], chain: dict[int, SealedBlock]
) -> list[Violation]:
    if read.number is None:
        return [Violation(NULL_PENDING, f"{read.source} answered null after latest was {read.latest}")]
    if read.number < read.latest:
        return [Violation(STALE_PENDING, f"{read.source}: pending {read.number} is behind latest {read.latest}")]
    known = next((number for at, number in reversed(streamed) if read.at - at > PENDING_AGE_S_MAX), -1)
    if read.latest < read.number < known:
        text = f"{read.source}: pending {read.number} while block {known} was streamed {PENDING_AGE_S_MAX:.0f} s before"
        return [Violation(STALE_PENDING, text)]
    block = chain.get(read.number)
    if block is not None and block.transactions[: len(read.transactions)] != read.transactions:
        text = f"{read.source}: what pending showed of block {read.number} is not how that block begins"
        return [Violation(PENDING_DIVERGES, text)]
    return []
