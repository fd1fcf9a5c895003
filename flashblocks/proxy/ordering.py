"""Many upstreams in, one stream out: every (block number, index) once, in order, or an announced gap.

Facts go in (`arrive`, `upstream_up`, `upstream_down`, `tick`), decisions come out (`Deliver`, `Announce`, `Ask`,
`Restart`).
Every conductor's stream may be connected at once: a leader's death then shows as a new epoch whose first frames are
those of the open block again, and nothing but frames never seen before is delivered.
"""

from typing import Any

import msgspec

from flashblocks.proxy.behind import BehindWatch

Key = tuple[int, int]
"""(block number, flashblock index): a flashblock's place in the stream."""


class OrderSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of the ordering; times in seconds, of the caller's clock."""

    gap_wait_s: float = 1.0
    """How long a missing flashblock is waited for before the gap is announced and the stream goes on."""
    ask_interval_s: float = 0.2
    """How long one upstream has to fill a gap before the next one is asked too."""
    window_blocks: int = 16
    """Of how many blocks before the newest one the digests are remembered."""
    restart_wait_s: float = 5.0
    """How long a stream of older epochs or lower blocks must go on, and ours be silent, before it is followed."""
    held_max: int = 1024
    """How many flashblocks beyond a gap are kept; when there are more the gap is announced at once."""


class Arrival(msgspec.Struct, frozen=True):
    """A flashblock as one upstream sent it.

    `epoch` is None for a stream that has none. `block_hash` is that of the block made of this prefix, empty where the
    upstream's hashes mean nothing (no state roots); `parent_hash` empty where it is not known. `item` passes through.
    """

    upstream: int
    epoch: int | None
    number: int
    index: int
    payload_id: bytes
    parent_hash: bytes
    block_hash: bytes
    digest: bytes
    item: Any = None
    replay: bool = False
    """True on a link opened to fill a gap, where frames of an older epoch are expected."""

    @property
    def key(self) -> Key:
        """Its place in the stream."""
        return self.number, self.index


class Deliver(msgspec.Struct, frozen=True):
    """Give this flashblock to every subscriber now, under the epoch said here."""

    arrival: Arrival


class Announce(msgspec.Struct, frozen=True):
    """Tell subscribers that these indices of this block will not come; both ends inclusive.

    Where nobody knows how many are missing (the end of a block, or whole blocks), the first missing one stands alone.
    """

    number: int
    index_from: int
    index_to: int


class Ask(msgspec.Struct, frozen=True):
    """Ask this upstream for the stream from this place on, beside its running stream."""

    upstream: int
    start: Key


class Restart(msgspec.Struct, frozen=True):
    """The upstreams' chain began anew: what was kept of the old one is of no use to anybody."""

    epoch: int
    number: int


Decision = Deliver | Announce | Ask | Restart


class OrderCounters(msgspec.Struct):
    """What became of the arrivals."""

    delivered: int = 0
    duplicates: int = 0
    stale_epochs: int = 0
    equivocations: int = 0
    late: int = 0
    gaps: int = 0
    gaps_filled: int = 0
    gaps_announced: int = 0
    restarts: int = 0


class _Gap(msgspec.Struct):
    """A missing flashblock that others wait behind."""

    beyond: Key
    """The first flashblock that waited when the gap was noticed; once it is delivered this gap is over."""
    since: float
    asked_at: float = 0.0
    asked: list[int] = []
    answered: set[int] = set()
    """Who was asked and sent what comes after the gap instead: their ledger holds nothing in between."""


class Ordering:
    """The state of the one stream. Pure: `now` is an argument, and the same facts give the same decisions."""

    def __init__(self, settings: OrderSettings | None = None, start: Key | None = None) -> None:
        """`start` is the first place wanted; without one the stream begins with the first index 0."""
        self.settings = settings or OrderSettings()
        self._start = start
        self.counters = OrderCounters()
        self.epoch = 0
        self.last: Arrival | None = None
        self._seen: dict[Key, bytes] = {}
        self._held: dict[Key, Arrival] = {}
        self._live: set[int] = set()
        self._resumable: dict[int, bool] = {}
        self._gap: _Gap | None = None
        self._behind = BehindWatch(self.settings.restart_wait_s)

    @property
    def wanted(self) -> Key | None:
        """The place a reconnecting upstream should resume from; before anything was delivered the wanted start."""
        return (self.last.number, self.last.index + 1) if self.last is not None else self._start

    @property
    def gap_open(self) -> bool:
        """True while flashblocks wait behind a missing one."""
        return self._gap is not None

    @property
    def wakes_at(self) -> float | None:
        """When `tick` is due; None when nothing waits."""
        if self._gap is None:
            return None
        deadline = self._gap.since + self.settings.gap_wait_s
        if self._next_to_ask() is None:
            return deadline
        return min(deadline, self._gap.asked_at + self.settings.ask_interval_s)

    def upstream_up(self, upstream: int, resumable: bool) -> None:
        """Note that a link is up, and whether it understands `?from=`."""
        self._live.add(upstream)
        self._resumable[upstream] = resumable

    def upstream_down(self, upstream: int, now: float) -> list[Decision]:
        """Note that a link is lost. One that understands `?from=` may come back and fill a gap, another one cannot."""
        self._live.discard(upstream)
        return self._advance(now)

    def arrive(self, arrival: Arrival, now: float) -> list[Decision]:
        """Take one flashblock of one upstream."""
        answered = self._note_answer(arrival)
        if self._admit(arrival):
            self._behind.clear()
            self._held[arrival.key] = arrival
        elif self._began_anew(arrival, now):
            return self._restart(arrival, now)
        elif not answered:
            return []
        return self._advance(now)

    def tick(self, now: float) -> list[Decision]:
        """Do what time demands: ask the next upstream, or give the gap up."""
        return self._advance(now)

    def check(self) -> None:
        """Assert what must always hold."""
        assert (self._gap is None) == (not self._held)
        assert len(self._held) <= self.settings.held_max
        if self.last is not None:
            assert all(key > self.last.key for key in self._held)
            assert max(self._seen) == self.last.key
            assert min(self._seen)[0] >= self.last.number - self.settings.window_blocks

    def _note_answer(self, arrival: Arrival) -> bool:
        """Note an upstream that was asked for the gap and has come to what is after it."""
        gap = self._gap
        if gap is None or not arrival.replay or arrival.upstream not in gap.asked or arrival.key < min(self._held):
            return False
        gap.answered.add(arrival.upstream)
        return True

    def _admit(self, arrival: Arrival) -> bool:
        """Decide whether an arrival is news; count it when it is not."""
        if arrival.epoch is not None and arrival.epoch < self.epoch and not self._fills_gap(arrival):
            self.counters.stale_epochs += 1
            return False
        if arrival.epoch is not None and arrival.epoch > self.epoch:
            self._enter_epoch(arrival.epoch)
        held = self._held.get(arrival.key)
        known = self._seen.get(arrival.key) or (held.digest if held is not None else None)
        if known is not None:
            if known == arrival.digest:
                self.counters.duplicates += 1
            else:
                self.counters.equivocations += 1
            return False
        if self.last is not None and self._is_other_payload(arrival, self.last):
            self.counters.equivocations += 1
            return False
        earliest = self.last.key if self.last is not None else self._start
        if earliest is not None and arrival.key < earliest:
            self.counters.late += 1
            return False
        return True

    def _began_anew(self, arrival: Arrival, now: float) -> bool:
        """Whether what was not admitted is part of a stream that takes the place of ours (see `behind`)."""
        last = self.last
        if last is None or arrival.replay or self._seen.get(arrival.key) == arrival.digest:
            return False
        lives_on = self._behind.sighted(arrival.epoch or 0, arrival.key, now)
        return lives_on and (arrival.key > last.key or arrival.index == 0)

    def _restart(self, arrival: Arrival, now: float) -> list[Decision]:
        """Follow the stream of this arrival: with our blocks going on where it has them, else from its index 0."""
        self._behind.clear()
        self.counters.restarts += 1
        self.epoch, self._held, self._gap = arrival.epoch or 0, {arrival.key: arrival}, None
        if self.last is not None and arrival.key > self.last.key:
            return self._advance(now)  # the ledger began anew, the chain did not; `_not_before` keeps our epoch
        self.last, self._start, self._seen = None, None, {}
        return [Restart(self.epoch, arrival.number), *self._advance(now)]

    def _fills_gap(self, arrival: Arrival) -> bool:
        # What a majority once committed stays valid: an upstream asked for the past may answer in the past's epoch.
        return arrival.replay and self._gap is not None and arrival.key < min(self._held)

    def _enter_epoch(self, epoch: int) -> None:
        # The new leader publishes the open block anew; what an older one sent ahead of a gap is not waited for.
        self.epoch = epoch
        self._held = {key: held for key, held in self._held.items() if held.epoch is None}
        if not self._held:
            self._gap = None

    @staticmethod
    def _is_other_payload(arrival: Arrival, last: Arrival) -> bool:
        return arrival.number == last.number and arrival.payload_id != last.payload_id

    def _advance(self, now: float) -> list[Decision]:
        """Deliver what is next in order; open, pursue or give up a gap when something else waits."""
        decisions: list[Decision] = self._drain()
        while self._held and self._hopeless(now):
            decisions += self._give_up()
            decisions += self._drain(skip=True)
        if not self._held:
            self._gap = None
        elif self._gap is None:
            self.counters.gaps += 1
            self._gap = _Gap(min(self._held), now)
            decisions += self._ask(self._gap, now)
        elif self._gap.asked_at + self.settings.ask_interval_s <= now or self._gap.answered.issuperset(self._gap.asked):
            decisions += self._ask(self._gap, now)
        return decisions

    def _drain(self, skip: bool = False) -> list[Decision]:
        """Deliver held flashblocks while they follow one another; `skip` takes the first one wherever it is."""
        delivered: list[Decision] = []
        while self._held:
            first = self._held[min(self._held)]
            if self.last is not None and self._is_other_payload(first, self.last):
                self.counters.equivocations += 1
                del self._held[first.key]
                continue
            if not skip and (not self.follows(first) or self._tail_may_come(first)):
                break
            skip = False
            delivered.append(Deliver(self._take(first)))
        if self._gap is not None and self.last is not None and self.last.key >= self._gap.beyond:
            self.counters.gaps_filled += 1  # what is left waits behind another gap, whose time begins now
            self._gap = None
        return delivered

    def _tail_may_come(self, first: Arrival) -> bool:
        """Tell whether a replay under way may still bring empty flashblocks of the block before `first`.

        They leave the block's hash as it is, so the next block seems to follow. The replay is in order: it says by what
        comes next in it. Nobody waits longer than for any gap.
        """
        last, gap = self.last, self._gap
        if last is None or gap is None or first.number == last.number:
            return False
        return last.replay and not first.replay and not gap.answered

    def _take(self, arrival: Arrival) -> Arrival:
        del self._held[arrival.key]
        if self.last is not None and arrival.number != self.last.number:
            oldest = arrival.number - self.settings.window_blocks
            self._seen = {key: digest for key, digest in self._seen.items() if key[0] >= oldest}
        arrival = _not_before(arrival, self.last)
        self.last = arrival
        self._seen[arrival.key] = arrival.digest
        self.counters.delivered += 1
        return arrival

    def follows(self, arrival: Arrival) -> bool:
        """Tell whether an arrival is the next of the stream.

        There is no end-of-block mark on the wire: a block ended where the next one's parent hash is the hash of the
        block so far.
        """
        last = self.last
        if last is None:
            return arrival.index == 0 or arrival.key == self._start
        if arrival.number == last.number:
            return arrival.index == last.index + 1
        return arrival.index == 0 and self._may_be_next_block(arrival, last)

    @staticmethod
    def _may_be_next_block(arrival: Arrival, last: Arrival) -> bool:
        hashes_tell = last.block_hash and arrival.parent_hash
        return arrival.number == last.number + 1 and (not hashes_tell or arrival.parent_hash == last.block_hash)

    def _hopeless(self, now: float) -> bool:
        """Tell whether waiting for what is missing has no more sense."""
        # the very sum that `wakes_at` names: rounded otherwise, a tick at that time would find nothing to do
        waited = self._gap is not None and now >= self._gap.since + self.settings.gap_wait_s
        return waited or not self._can_be_filled() or len(self._held) > self.settings.held_max

    def _can_be_filled(self) -> bool:
        """Tell whether somebody may still send what is missing.

        A lost upstream may come back and have it – but not after another one was asked and had nothing: what lies
        between two committed flashblocks is the same in every ledger.
        """
        senders = {held.upstream for held in self._held.values()}
        answered = self._gap.answered if self._gap is not None else set()
        for upstream, resumable in self._resumable.items():
            live = upstream in self._live
            if resumable and upstream not in answered and (live or not answered):
                return True
            if not resumable and live and upstream not in senders:
                return True
        return False

    def _give_up(self) -> list[Decision]:
        """Say what is missing before the first held flashblock."""
        if self._gap is None:
            self.counters.gaps += 1
        self._gap = None
        self.counters.gaps_announced += 1
        first, last = self._held[min(self._held)], self.last
        if last is not None and first.number == last.number:
            return [Announce(first.number, last.index + 1, first.index - 1)]
        missing: list[Decision] = []
        if last is not None and first.number > last.number + 1:
            missing.append(Announce(last.number + 1, 0, 0))
        elif last is not None and not self._may_be_next_block(first, last):
            missing.append(Announce(last.number, last.index + 1, last.index + 1))
        if first.index > 0:
            missing.append(Announce(first.number, 0, first.index - 1))
        return missing

    def _next_to_ask(self) -> int | None:
        """Choose whom to ask: first whoever sent what comes after the gap, then the others."""
        asked = self._gap.asked if self._gap is not None else []
        senders = [held.upstream for _, held in sorted(self._held.items())]
        candidates = [*dict.fromkeys(senders), *sorted(self._live)]
        able = (upstream for upstream in candidates if upstream in self._live and self._resumable[upstream])
        return next((upstream for upstream in able if upstream not in asked), None)

    def _ask(self, gap: _Gap, now: float) -> list[Decision]:
        upstream = self._next_to_ask()
        if upstream is None:
            return []
        gap.asked_at = now
        gap.asked = [*gap.asked, upstream]
        return [Ask(upstream, self.wanted or (min(self._held)[0], 0))]


def _not_before(arrival: Arrival, last: Arrival | None) -> Arrival:
    """Let epochs never fall along the delivered stream, or the next reader would take the rest of it for stale.

    What was committed in an older epoch is true in every later one.
    """
    if last is None or last.epoch is None or arrival.epoch is None or arrival.epoch >= last.epoch:
        return arrival
    return msgspec.structs.replace(arrival, epoch=last.epoch)
