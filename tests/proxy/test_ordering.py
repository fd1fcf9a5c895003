from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec.structs import replace

from flashblocks.proxy.ordering import Announce, Arrival, Ask, Deliver, Ordering, OrderSettings


def block_hash(number, index):
    return f"hash {number}.{index}".encode()


def arrival(number, index, *, upstream=0, epoch=1, digest=None, payload=None, parent=None, replay=False):
    """A flashblock of a chain whose blocks end at index 2 (unless `parent` says otherwise)."""
    return Arrival(
        upstream=upstream,
        epoch=epoch,
        number=number,
        index=index,
        payload_id=payload or b"payload %d" % number,
        parent_hash=block_hash(number - 1, 2) if parent is None else parent,
        block_hash=block_hash(number, index),
        digest=digest or b"digest %d.%d" % (number, index),
        replay=replay,
    )


def ordering(upstreams=1, resumable=True, **bounds):
    made = Ordering(OrderSettings(**bounds))
    for upstream in range(upstreams):
        made.upstream_up(upstream, resumable)
    return made


def feed(made, *arrivals, now=0.0):
    """Feed arrivals; return what subscribers and upstreams get, in short."""
    seen = []
    for each in arrivals:
        seen += shorten(made.arrive(each, now))
        made.check()
    return seen


def shorten(decisions):
    short = []
    for decision in decisions:
        match decision:
            case Deliver(arrival=a):
                short.append(a.key)
            case Announce(number=n, index_from=i, index_to=j):
                short.append(("gap", n, i, j))
            case Ask(upstream=u, start=start):
                short.append(("ask", u, start))
    return short


def test_a_stream_in_order_passes_through_and_blocks_follow_by_hash():
    made = ordering()
    assert feed(made, *(arrival(n, i) for n in (7, 8) for i in range(3))) == [(n, i) for n in (7, 8) for i in range(3)]
    assert made.wanted == (8, 3)


def test_duplicates_of_several_upstreams_are_dropped():
    made = ordering(3)
    assert feed(made, *(arrival(7, i, upstream=u) for i in range(3) for u in range(3))) == [(7, 0), (7, 1), (7, 2)]
    assert made.counters.duplicates == 6


def test_the_order_of_upstreams_does_not_matter():
    made = ordering(2)
    assert feed(made, arrival(7, 0), arrival(7, 2, upstream=1)) == [(7, 0), ("ask", 1, (7, 1))]
    assert feed(made, arrival(7, 1)) == [(7, 1), (7, 2)]
    assert made.counters.gaps == made.counters.gaps_filled == 1


def test_a_new_epoch_republishes_and_only_news_is_delivered():
    made = ordering(2)
    feed(made, arrival(7, 0), arrival(7, 1))
    again = [arrival(7, i, upstream=1, epoch=2) for i in range(3)]
    assert feed(made, *again) == [(7, 2)]
    assert (made.epoch, made.counters.duplicates) == (2, 2)


def test_an_older_epoch_is_dropped_even_where_it_would_fit():
    made = ordering(2)
    feed(made, arrival(7, 0, epoch=2))
    assert feed(made, arrival(7, 1, epoch=1)) == []
    assert made.counters.stale_epochs == 1
    assert feed(made, arrival(7, 1, epoch=2)) == [(7, 1)]


def test_a_new_epoch_forgets_what_the_old_one_sent_ahead():
    made = ordering(2)
    feed(made, arrival(7, 0), arrival(7, 2))
    assert made.gap_open
    assert feed(made, arrival(7, 0, upstream=1, epoch=2)) == []
    assert not made.gap_open
    assert feed(made, arrival(7, 1, upstream=1, epoch=2), arrival(7, 2, upstream=1, epoch=2)) == [(7, 1), (7, 2)]


def test_an_equivocation_is_counted_and_never_forwarded():
    made = ordering(2)
    feed(made, arrival(7, 0), arrival(7, 1))
    assert feed(made, arrival(7, 1, upstream=1, epoch=2, digest=b"other")) == []
    assert made.counters.equivocations == 1


def test_another_payload_for_the_open_block_is_an_equivocation_not_a_continuation():
    made = ordering(2, resumable=False)
    feed(made, arrival(7, 0, epoch=None))
    rival = [arrival(7, i, upstream=1, epoch=None, payload=b"rival", digest=b"rival %d" % i) for i in range(3)]
    assert feed(made, *rival) == []
    assert made.counters.equivocations == 3
    assert feed(made, arrival(7, 1, epoch=None)) == [(7, 1)]


def test_a_block_that_lost_its_tail_shows_in_the_parent_hash():
    made = ordering(2)
    assert feed(made, arrival(7, 0), arrival(7, 1), arrival(8, 0)) == [(7, 0), (7, 1), ("ask", 0, (7, 2))]
    assert feed(made, arrival(7, 2, replay=True), arrival(8, 0, replay=True)) == [(7, 2), (8, 0)]


def test_a_stream_without_meaningful_hashes_is_taken_at_its_word():
    made = ordering(resumable=False)
    blind = [Arrival(0, None, 7, i, b"p", b"", b"", b"%d" % i) for i in range(2)]
    assert feed(made, *blind, Arrival(0, None, 8, 0, b"q", b"parent", b"", b"x")) == [(7, 0), (7, 1), (8, 0)]


def test_joining_in_the_middle_of_a_block_asks_for_its_beginning():
    made = ordering()
    assert feed(made, arrival(7, 2)) == [("ask", 0, (7, 0))]
    assert feed(made, *(arrival(7, i, replay=True) for i in range(3))) == [(7, 0), (7, 1), (7, 2)]


def test_upstreams_are_asked_in_turn_and_then_the_gap_is_announced():
    made = ordering(3, gap_wait_s=1.0, ask_interval_s=0.25)
    assert feed(made, arrival(7, 0), arrival(7, 2, upstream=1), now=10.0) == [(7, 0), ("ask", 1, (7, 1))]
    assert made.wakes_at == 10.25
    assert shorten(made.tick(10.0)) == []
    assert shorten(made.tick(10.25)) == [("ask", 0, (7, 1))]
    assert shorten(made.tick(10.5)) == [("ask", 2, (7, 1))]
    assert made.wakes_at == 11.0
    assert shorten(made.tick(11.0)) == [("gap", 7, 1, 1), (7, 2)]
    assert made.wakes_at is None
    assert feed(made, arrival(7, 1), now=11.0) == []
    assert made.counters.late == made.counters.gaps_announced == 1


def test_an_upstream_that_answers_with_what_is_after_the_gap_has_nothing_in_between():
    made = ordering(2)
    feed(made, arrival(7, 2))
    feed(made, *(arrival(7, i, replay=True) for i in range(3)))
    fallback_between = arrival(9, 0, parent=b"a block without flashblocks")
    assert feed(made, fallback_between) == [("ask", 0, (7, 3))]
    assert feed(made, arrival(9, 0, replay=True)) == [("ask", 1, (7, 3))]
    assert feed(made, arrival(9, 0, upstream=1, replay=True)) == [("gap", 8, 0, 0), (9, 0)]


def test_an_asked_upstream_may_answer_in_the_epoch_of_the_past():
    made = ordering(2)
    feed(made, arrival(7, 0, epoch=1), arrival(8, 0, epoch=2, upstream=1))
    assert feed(made, arrival(7, 1, epoch=1)) == []
    answer = [arrival(7, i, epoch=1, upstream=1, replay=True) for i in (1, 2)]
    assert feed(made, *answer) == [(7, 1), (7, 2)]
    assert feed(made, arrival(8, 0, epoch=1, upstream=1, replay=True)) == [(8, 0)]


def test_epochs_never_fall_along_the_delivered_stream():
    made = ordering(2)
    feed(made, arrival(7, 0, epoch=2), arrival(7, 2, epoch=2))
    decisions = made.arrive(arrival(7, 1, epoch=1, replay=True), 0.0)
    assert [(d.arrival.key, d.arrival.epoch) for d in decisions] == [((7, 1), 2), ((7, 2), 2)]


def test_a_gap_that_nobody_can_ever_fill_is_announced_at_once():
    made = ordering(1, resumable=False)
    assert feed(made, arrival(7, 0), arrival(7, 2)) == [(7, 0), ("gap", 7, 1, 1), (7, 2)]
    made = ordering(2, resumable=False)
    assert feed(made, arrival(7, 0), arrival(8, 1)) == [(7, 0)]
    assert shorten(made.upstream_down(1, 0.0)) == [("gap", 7, 1, 1), ("gap", 8, 0, 0), (8, 1)]


def test_an_upstream_that_went_away_may_come_back_and_fill_the_gap():
    made = ordering(2)
    feed(made, arrival(7, 0), arrival(7, 2))
    for upstream in range(2):
        assert shorten(made.upstream_down(upstream, 0.0)) == []
    assert shorten(made.tick(0.9)) == []
    made.upstream_up(1, True)
    assert shorten(made.tick(0.95)) == [("ask", 1, (7, 1))]
    assert feed(made, arrival(7, 1, upstream=1, replay=True), now=0.97) == [(7, 1), (7, 2)]


def test_a_lost_upstream_is_not_waited_for_when_another_one_had_nothing():
    made = ordering(3)
    feed(made, *(arrival(7, i) for i in range(3)))
    assert feed(made, arrival(9, 0, parent=b"a block without flashblocks")) == [("ask", 0, (7, 3))]
    assert shorten(made.upstream_down(1, 0.0)) == []
    assert feed(made, arrival(9, 0, replay=True)) == [("ask", 2, (7, 3))]
    assert feed(made, arrival(9, 0, upstream=2, replay=True)) == [("gap", 8, 0, 0), (9, 0)]


def test_a_jump_over_whole_blocks_announces_the_first_missing_one():
    made = ordering(1, resumable=False)
    feed(made, *(arrival(7, i) for i in range(3)))
    assert feed(made, arrival(10, 0)) == [("gap", 8, 0, 0), (10, 0)]
    assert feed(made, arrival(14, 2)) == [("gap", 11, 0, 0), ("gap", 14, 0, 1), (14, 2)]


def test_what_waits_behind_a_gap_is_bounded():
    made = ordering(2, held_max=3)
    feed(made, arrival(7, 0))
    assert feed(made, arrival(7, 2), arrival(7, 3), arrival(7, 4)) == [("ask", 0, (7, 1))]
    assert feed(made, arrival(7, 5)) == [("gap", 7, 1, 1), (7, 2), (7, 3), (7, 4), (7, 5)]


def test_digests_are_remembered_for_a_bounded_number_of_blocks():
    made = ordering(window_blocks=2)
    for number in range(7, 20):
        feed(made, *(arrival(number, i) for i in range(3)))
    feed(made, arrival(17, 0, digest=b"other"))
    feed(made, arrival(16, 0, digest=b"other"))
    assert (made.counters.equivocations, made.counters.late) == (1, 1)


def test_a_stream_may_begin_where_it_is_told_to():
    made = Ordering(start=(7, 1))
    made.upstream_up(0, False)
    assert made.wanted == (7, 1)
    assert feed(made, *(arrival(7, i) for i in range(3))) == [(7, 1), (7, 2)]
    assert made.counters.late == 1
    made = Ordering(start=(7, 1))
    made.upstream_up(0, False)
    assert feed(made, arrival(9, 0)) == [(9, 0)]


UPSTREAMS = 3


def test_empty_flashblocks_at_the_end_of_a_block_are_not_skipped_by_a_replay():
    """They leave the hash as it is: after the replayed 7.1 the waiting 8.0 seems to follow at once."""
    made = ordering()
    full = [arrival(7, 0), arrival(7, 1, replay=True)]
    empty = [replace(arrival(7, i, replay=True), block_hash=block_hash(7, 1)) for i in (2, 3)]
    first = arrival(8, 0, parent=block_hash(7, 1))
    assert feed(made, full[0], first) == [(7, 0), ("ask", 0, (7, 1))]
    assert feed(made, full[1], *empty) == [(7, 1), (7, 2), (7, 3)]
    assert feed(made, replace(first, replay=True)) == [(8, 0)]


def test_a_replay_that_breaks_off_holds_the_next_block_up_no_longer_than_a_gap():
    made = ordering(gap_wait_s=1.0)
    first = arrival(8, 0, parent=block_hash(7, 1))
    feed(made, arrival(7, 0), first)
    assert feed(made, arrival(7, 1, replay=True), now=0.1) == [(7, 1)]
    assert shorten(made.tick(0.5)) == []
    assert shorten(made.tick(1.0)) == [(8, 0)]


def test_a_tick_at_the_time_asked_for_never_asks_for_the_same_time_again():
    for thousandth in range(1000):
        made = ordering()
        since = 3.0 + thousandth / 997
        feed(made, arrival(7, 0), arrival(7, 2), now=since)
        for _ in range(3):  # ask, ask the next one, give up
            if made.wakes_at is None:
                break
            now = made.wakes_at
            made.tick(now)
            assert made.wakes_at is None or made.wakes_at > now
        assert made.wakes_at is None


class ManyUpstreams(RuleBasedStateMachine):
    """Conductors that die, lag, elect and resume; links that lose what is in flight; a subscriber who must not notice.

    The truth is the ledger: flashblocks in the order of their commits. A subscriber's log must be a run through it in
    which every jump was announced.
    """

    def __init__(self):
        super().__init__()
        self.now = 0.0
        self.ordering = Ordering(OrderSettings(gap_wait_s=1.0, ask_interval_s=0.2, window_blocks=4, held_max=12))
        self.truth = []
        self.epoch = 1
        self.leader = 0
        self.links = {}
        self.replays = []
        self.log = []
        for upstream in range(UPSTREAMS):
            self.connect(upstream)

    def do(self, decisions):
        for decision in decisions:
            if isinstance(decision, Ask):
                assert decision.upstream in self.links, "only a live upstream is asked"
                self.replays.append((decision.upstream, self.since(decision.start)))
            else:
                self.log.append(decision)
        self.ordering.check()

    def since(self, start):
        return [fact for fact in self.truth if start is not None and fact[:2] >= start]

    def to_arrival(self, fact, upstream, epoch, replay=False):
        number, index, last_of_parent = fact
        return arrival(
            number, index, upstream=upstream, epoch=epoch, parent=block_hash(number - 1, last_of_parent), replay=replay
        )

    def connect(self, upstream):
        self.ordering.upstream_up(upstream, True)
        self.links[upstream] = [(fact, self.epoch) for fact in self.since(self.ordering.wanted)]

    def open_block(self):
        return [fact for fact in self.truth if fact[0] == self.truth[-1][0]] if self.truth else []

    def publish(self, fact):
        if self.leader in self.links:
            self.links[self.leader].append((fact, self.epoch))

    @rule(new_block=st.integers(0, 3), fallback_before=st.integers(0, 9))
    def commit(self, new_block, fallback_before):
        if not self.truth:
            fact = (100, 0, 0)
        else:
            number, index, parent = self.truth[-1]
            if new_block == 0 and index > 0:
                fact = (number + 1, 0, index) if fallback_before else (number + 2, 0, -1)
            else:
                fact = (number, index + 1, parent)
        self.truth.append(fact)
        self.publish(fact)

    @rule(upstream=st.integers(0, UPSTREAMS - 1), count=st.integers(1, 4))
    def travel(self, upstream, count):
        link = self.links.get(upstream, [])
        for _ in range(min(count, len(link))):
            fact, epoch = link.pop(0)
            self.do(self.ordering.arrive(self.to_arrival(fact, upstream, epoch), self.now))

    @rule(count=st.integers(1, 4))
    @precondition(lambda self: self.replays)
    def answer(self, count):
        upstream, facts = self.replays.pop(0)
        for fact in facts[:count]:
            arrived = self.to_arrival(fact, upstream, self.epoch - (self.epoch > 1), replay=True)
            self.do(self.ordering.arrive(arrived, self.now))
        if facts[count:]:
            self.replays.insert(0, (upstream, facts[count:]))

    @rule(upstream=st.integers(0, UPSTREAMS - 1))
    def lose(self, upstream):
        if self.links.pop(upstream, None) is not None:
            self.replays = [(u, facts) for u, facts in self.replays if u != upstream]
            self.do(self.ordering.upstream_down(upstream, self.now))

    @rule(upstream=st.integers(0, UPSTREAMS - 1))
    def come_back(self, upstream):
        if upstream not in self.links:
            self.connect(upstream)

    @rule(upstream=st.integers(0, UPSTREAMS - 1))
    def elect(self, upstream):
        self.epoch += 1
        self.leader = upstream
        for fact in self.open_block():
            self.publish(fact)

    @rule(upstream=st.integers(0, UPSTREAMS - 1), place=st.integers(0, 20))
    def lie_about_what_was_seen(self, upstream, place):
        delivered = [d.arrival for d in self.log if isinstance(d, Deliver)]
        if delivered and upstream in self.links:
            victim = delivered[-1 - place % len(delivered)]
            lie = arrival(victim.number, victim.index, upstream=upstream, epoch=self.epoch, digest=b"lie")
            self.do(self.ordering.arrive(lie, self.now))

    @rule(ms=st.integers(1, 1500))
    def wait(self, ms):
        self.now += ms / 1000
        wakes_at = self.ordering.wakes_at
        if wakes_at is not None and wakes_at <= self.now:
            self.do(self.ordering.tick(self.now))

    @invariant()
    def the_subscriber_sees_every_index_once_in_order_or_an_announced_gap(self):
        place = {fact[:2]: i for i, fact in enumerate(self.truth)}
        previous, announced, epoch = None, [], 0
        for decision in self.log:
            if isinstance(decision, Announce):
                announced.append((decision.number, decision.index_from))
                continue
            key = decision.arrival.key
            assert decision.arrival.epoch >= epoch
            epoch = decision.arrival.epoch
            assert decision.arrival.digest == b"digest %d.%d" % key
            if previous is not None:
                assert key > previous
                if place[key] != place[previous] + 1:
                    assert announced, f"silent gap {previous} -> {key}"
                assert all(previous < gap < key for gap in announced)
            previous, announced = key, []
        assert not announced, "an announcement is followed by what comes after the gap"

    def teardown(self):
        for upstream in list(self.links):
            self.lose(upstream)
        self.now += 10
        self.do(self.ordering.tick(self.now))
        for upstream in range(UPSTREAMS):
            self.connect(upstream)
        self.elect(0)
        for upstream in range(UPSTREAMS):
            self.travel(upstream, len(self.links[upstream]))
        while self.replays:
            self.answer(1000)
        self.now += 10
        self.do(self.ordering.tick(self.now))
        self.the_subscriber_sees_every_index_once_in_order_or_an_announced_gap()
        if self.truth:
            assert self.ordering.last is not None
            assert self.ordering.last.key == self.truth[-1][:2], "nothing committed is kept back for ever"


TestManyUpstreams = ManyUpstreams.TestCase
TestManyUpstreams.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
