from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashblocks.builder.schedule import Timing, remaining_ms, trigger_times_s, triggers_ms


@pytest.mark.parametrize(
    ("remaining", "offset", "buffer", "expected"),
    [
        (880, 0, 0, [80, 280, 480, 680, 880]),
        (800, -20, 50, [180, 380, 580, 730]),
        (300, 0, 0, [100, 300]),
        (200, 0, 200, [0]),
        (400, -30, 50, [170, 320]),
        (1000, 0, 0, [200, 400, 600, 800, 1000]),
        (0, 0, 0, [0]),
    ],
)
def test_the_field_s_vectors(remaining: int, offset: int, buffer: int, expected: list[int]) -> None:
    assert list(triggers_ms(Timing(1000, 200, offset, buffer), remaining)) == expected


def test_progressive_lag_costs_flashblocks_one_by_one() -> None:
    timing = Timing(1000, 200, 0, 50)
    counts = [1 + len(triggers_ms(timing, 1000 - lag)) for lag in range(0, 900, 100)]
    assert counts == [6, 6, 5, 5, 4, 4, 3, 3, 2]


@pytest.mark.parametrize(
    ("block", "flashblock", "expected"),
    [
        (2000, 200, list(range(90, 2000, 200))),
        (2000, 250, list(range(140, 2000, 250))),
        (1000, 200, list(range(90, 1000, 200))),
        (1000, 250, list(range(140, 1000, 250))),
    ],
)
def test_defaults_end_before_the_payload_is_asked_for(block: int, flashblock: int, expected: list[int]) -> None:
    timing = Timing(block, flashblock)
    assert list(triggers_ms(timing, block)) == expected
    assert expected[-1] == block - 110


def test_the_cadence_is_uniform_across_blocks_even_when_updates_arrive_a_little_late() -> None:
    timing = Timing()
    times: list[float] = []
    for number, lag in enumerate((0.0, 0.013, 0.04, 0.0)):
        start = 1_700_000_000 + 2 * number
        times += trigger_times_s(timing, start + 2, start + lag)
    assert len(times) == 40
    assert [round((b - a) * 1000) for a, b in pairwise(times)] == [200] * 39


@pytest.mark.parametrize(
    ("now", "expected"), [(98.0, 2000), (90.0, 2000), (99.5, 500), (100.0, 0), (103.0, 0), (99.9994, 1)]
)
def test_remaining_time_is_capped_and_never_negative(now: float, expected: int) -> None:
    assert remaining_ms(Timing(), 100, now) == expected


@pytest.mark.parametrize(
    "bad", [(200, 250, 0, 0), (0, 0, 0, 0), (1000, 200, -1000, 0), (1000, 200, 0, 1000), (1000, 200, 0, -1)]
)
def test_impossible_timings_are_refused(bad: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError):
        Timing(*bad)


@given(
    interval=st.integers(50, 500),
    factor=st.integers(1, 12),
    offset=st.integers(-200, 50),
    buffer=st.integers(0, 200),
    remaining=st.integers(0, 6000),
)
def test_triggers_rise_are_bounded_and_there_is_always_one(
    interval: int, factor: int, offset: int, buffer: int, remaining: int
) -> None:
    block = max(interval * factor, 300)
    timing = Timing(block, interval, offset, buffer)
    remaining = min(remaining, block)
    triggers = triggers_ms(timing, remaining)
    assert 1 <= len(triggers) <= timing.flashblocks_per_block
    assert list(triggers) == sorted(set(triggers))
    assert all(0 <= trigger <= max(0, max(0, remaining - buffer) + offset) for trigger in triggers)
    assert all(later - earlier <= interval for earlier, later in pairwise(triggers))
