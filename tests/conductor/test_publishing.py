import pytest

import flashblocks.conductor.publishing as module
from flashblocks.conductor.publishing import Publisher, frames_from, frames_to_republish, open_frames
from tests.conductor.ledgers import Chain


def keys(frames) -> list[tuple[int, int]]:
    return [frame.key for frame in frames]


def test_only_the_owner_of_the_epoch_publishes() -> None:
    publisher = Publisher("a")
    assert not publisher.publishes(0, "a")
    assert publisher.on_claimed(3, "a", leading=True)
    assert publisher.publishes(3, "a")
    assert not publisher.publishes(2, "a"), "what was appended under an older epoch is its successor's to repeat"
    assert not publisher.publishes(3, "b")


def test_a_successors_claim_ends_it() -> None:
    publisher = Publisher("a")
    publisher.on_claimed(3, "a", leading=True)
    assert not publisher.on_claimed(4, "b", leading=True)
    assert publisher.epoch is None and not publisher.publishes(3, "a")


def test_losing_rafts_leadership_ends_it_before_any_claim() -> None:
    publisher = Publisher("a")
    publisher.on_claimed(3, "a", leading=True)
    publisher.on_leadership_lost()
    assert not publisher.publishes(3, "a")


def test_a_claim_that_is_committed_after_leadership_is_gone_does_not_count() -> None:
    publisher = Publisher("a")
    assert not publisher.on_claimed(3, "a", leading=False)
    assert publisher.epoch is None


def test_a_new_leader_repeats_the_last_sealed_and_the_open_block_under_its_epoch() -> None:
    chain = Chain()
    assert frames_to_republish(chain.ledger.view, 9) == []
    chain.blocks(2)
    chain.flashblocks(2)
    frames = frames_to_republish(chain.ledger.view, 9)
    assert keys(frames) == [(2, 0), (2, 1), (2, 2), (3, 0), (3, 1)]
    assert {frame.epoch for frame in frames} == {9}


def test_a_fallback_block_has_nothing_to_repeat() -> None:
    chain = Chain()
    chain.blocks(1)
    chain.fallback()
    assert frames_to_republish(chain.ledger.view, 9) == []


def test_the_frames_are_what_was_committed() -> None:
    chain = Chain()
    chain.flashblocks(2)
    entries = chain.ledger.open.entries
    for frame, entry in zip(open_frames(chain.ledger.view), entries, strict=True):
        assert (frame.body, frame.digest, frame.block_hash) == (entry.body, entry.digest, entry.block_hash)
        assert frame.traceparent == entry.traceparent == f"00-{1:032x}-{frame.index + 1:016x}-01"
        assert (frame.payload_id, frame.parent_hash) == (chain.ledger.open.payload_id, chain.ledger.open.parent_hash)


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        ((2, 1), [(2, 1), (2, 2), (4, 0), (4, 1)]),
        ((4, 1), [(4, 1)]),
        ((4, 2), []),
        ((0, 0), [(1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2), (4, 0), (4, 1)]),
        ((9, 0), []),
    ],
)
def test_a_listener_gets_what_it_asks_for(start, expected) -> None:
    chain = Chain(epoch=5)
    chain.blocks(2)
    chain.fallback()
    chain.flashblocks(2)
    frames = frames_from(chain.ledger.view, *start)
    assert keys(frames) == expected
    assert all(frame.epoch == 5 for frame in frames)


def test_a_replay_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REPLAY_FRAMES_MAX", 4)
    chain = Chain()
    chain.blocks(3)
    assert keys(frames_from(chain.ledger.view, 1, 0)) == [(1, 0), (1, 1), (1, 2), (2, 0)]
