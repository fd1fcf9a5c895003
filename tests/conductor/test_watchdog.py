import pytest

from flashblocks.conductor.watchdog import DISTRUST_S, FRUITLESS_DOUBLINGS_MAX, START_GRACE_S, ProgressWatchdog


def leading(fruitless: int = 0) -> ProgressWatchdog:
    watchdog = ProgressWatchdog(slot_s=0.2, block_time_s=2.0)
    watchdog.on_leading(100.0, fruitless)
    return watchdog


def test_a_follower_is_never_stuck() -> None:
    watchdog = ProgressWatchdog(0.2, 2.0)
    assert watchdog.deadline is None and not watchdog.stuck(1e9)
    watchdog = leading()
    watchdog.on_follower()
    assert not watchdog.stuck(1e9)


def test_three_silent_slots_are_too_many() -> None:
    watchdog = leading()
    watchdog.on_commit(101.0)
    assert not watchdog.stuck(101.59)
    assert watchdog.stuck(101.61)


def test_a_fresh_leader_has_time_to_start() -> None:
    watchdog = leading()
    assert watchdog.deadline == pytest.approx(100.6 + START_GRACE_S)


def test_without_a_builder_a_block_is_progress() -> None:
    watchdog = leading()
    watchdog.builder = False
    watchdog.on_commit(101.0)
    assert not watchdog.stuck(103.5)
    assert watchdog.stuck(103.7)


@pytest.mark.parametrize("fruitless", [0, 1, 2, FRUITLESS_DOUBLINGS_MAX, 50])
def test_patience_doubles_with_every_leader_that_got_nowhere(fruitless: int) -> None:
    deadline = leading(fruitless).deadline
    doublings = min(fruitless, FRUITLESS_DOUBLINGS_MAX)
    assert deadline == pytest.approx(100.0 + (0.6 + START_GRACE_S) * 2**doublings)


def test_a_commit_ends_the_extra_patience() -> None:
    watchdog = leading(4)
    watchdog.on_commit(101.0)
    assert watchdog.deadline == pytest.approx(101.6)


def test_nothing_is_expected_before_the_next_blocks_slot() -> None:
    watchdog = leading()
    watchdog.on_commit(101.0)
    watchdog.on_head(120.0)
    assert not watchdog.stuck(120.5)
    assert watchdog.stuck(120.7)


def test_who_was_given_up_on_stays_unfit_for_a_while() -> None:
    watchdog = leading()
    assert watchdog.stuck(102.0)
    watchdog.on_follower()
    assert watchdog.stuck(102.0 + DISTRUST_S - 0.1)
    assert not watchdog.stuck(102.0 + DISTRUST_S)


def test_a_commit_restores_trust() -> None:
    watchdog = leading()
    assert watchdog.stuck(102.0)
    watchdog.on_commit(102.1)
    assert not watchdog.stuck(102.2)
