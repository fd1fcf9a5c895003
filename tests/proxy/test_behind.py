"""A ledger that was wiped behind a running proxy is followed after a while; nothing else looks like one."""

import pytest

from flashblocks.proxy.behind import BehindWatch
from flashblocks.proxy.ordering import Arrival, Deliver, Ordering, OrderSettings, Restart

PATIENCE_S = 5.0


def arrival(
    number: int, index: int, *, epoch: int, chain: str = "old", upstream: int = 0, replay: bool = False
) -> Arrival:
    """A flashblock of a chain whose blocks have indices 0 and 1."""
    return Arrival(
        upstream=upstream,
        epoch=epoch,
        number=number,
        index=index,
        payload_id=f"{chain} {number}".encode(),
        parent_hash=f"{chain} {number - 1}.1".encode(),
        block_hash=f"{chain} {number}.{index}".encode(),
        digest=f"{chain} {number}.{index}".encode(),
        replay=replay,
    )


@pytest.fixture
def ordering() -> Ordering:
    """A stream that has come to block 101 in epoch 57."""
    made = Ordering(OrderSettings(restart_wait_s=PATIENCE_S))
    for upstream in (0, 1):
        made.upstream_up(upstream, True)
    for number in (100, 101):
        for index in (0, 1):
            made.arrive(arrival(number, index, epoch=57), 0.0)
    assert made.last is not None and made.last.key == (101, 1)
    return made


def feed(made: Ordering, *timed: tuple[float, Arrival]) -> list[tuple[str, int, int, int | None]]:
    """What comes out: (what, number, index, epoch)."""
    out = []
    for now, each in timed:
        for decision in made.arrive(each, now):
            if isinstance(decision, Deliver):
                out.append(("deliver", *decision.arrival.key, decision.arrival.epoch))
            elif isinstance(decision, Restart):
                out.append(("restart", decision.number, 0, decision.epoch))
        made.check()
    return out


def test_epochs_from_the_start_again_on_the_same_chain_are_followed_without_falling(ordering: Ordering) -> None:
    stream = [(float(n), arrival(100 + n, index, epoch=1)) for n in range(2, 10) for index in (0, 1)]
    out = feed(ordering, *stream)
    assert ordering.counters.restarts == 1
    assert ordering.counters.stale_epochs > 0
    assert [each[0] for each in out if each[0] == "restart"] == []
    feed(ordering, (20.0, arrival(110, 0, epoch=1)), (20.0, arrival(110, 1, epoch=1)))
    ordering.tick(60.0)
    assert ordering.last is not None and ordering.last.key == (110, 1)
    assert ordering.epoch == 1
    assert ordering.last.epoch == 57, "downstream epochs never fall"


@pytest.mark.parametrize("epoch", [1, 57, 58])
def test_a_chain_from_the_start_again_is_followed_from_an_index_0(ordering: Ordering, epoch: int) -> None:
    stream = [(2.0 * n + index, arrival(n, index, epoch=epoch, chain="new")) for n in range(1, 6) for index in (0, 1)]
    out = feed(ordering, *stream)
    assert out[0] == ("restart", 4, 0, epoch)
    assert out[1:] == [("deliver", n, i, epoch) for n in (4, 5) for i in (0, 1)]


def test_the_same_heights_anew_are_followed_too(ordering: Ordering) -> None:
    stream = [(2.0 * n + i, arrival(98 + n, i, epoch=1, chain="new")) for n in range(5) for i in (0, 1)]
    assert ("restart", 101, 0, 1) in feed(ordering, *stream)


def test_a_replay_of_the_past_is_no_beginning(ordering: Ordering) -> None:
    burst = [(9.0, arrival(number, index, epoch=56)) for number in range(80, 99) for index in (0, 1)]
    later = [(14.5, arrival(number, index, epoch=56)) for number in range(80, 98) for index in (0, 1)]
    slow = [(20.0 + n, arrival(80 + n, 0, epoch=56, replay=True)) for n in range(12)]
    assert feed(ordering, *burst, *later, *slow) == []
    assert ordering.counters.restarts == 0


def test_while_our_stream_goes_on_nothing_began_anew(ordering: Ordering) -> None:
    mixed = []
    for n in range(10):
        mixed += [(2.0 * n, arrival(102 + n, 0, epoch=57)), (2.0 * n, arrival(102 + n, 1, epoch=57))]
        mixed += [(2.0 * n + 1, arrival(50 + n, i, epoch=56, chain="stale", upstream=1)) for i in (0, 1)]
    out = feed(ordering, *mixed)
    assert [each[1:3] for each in out] == [(102 + n, i) for n in range(10) for i in (0, 1)]
    assert ordering.counters.restarts == 0


def test_duplicates_say_nothing(ordering: Ordering) -> None:
    again = [(float(n), arrival(101, n % 2, epoch=57, upstream=1)) for n in range(20)]
    assert feed(ordering, *again) == []
    assert ordering.counters.restarts == 0


def test_evidence_needs_progress_without_a_pause() -> None:
    watch = BehindWatch(5.0)
    assert not watch.sighted(1, (1, 0), 0.0)
    assert not watch.sighted(1, (1, 0), 6.0), "a pause: counted from here"
    assert not watch.sighted(1, (1, 1), 10.0)
    assert not watch.sighted(1, (1, 1), 11.5), "no progress"
    assert watch.sighted(2, (2, 0), 12.0), "a later epoch of the same stream"
    assert not watch.sighted(1, (3, 0), 12.5), "an older one is another stream"
    watch.clear()
    assert not watch.sighted(1, (9, 0), 13.0)
