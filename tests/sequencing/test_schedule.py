import pytest

from flashblocks.sequencing.schedule import build_start, seal_start


@pytest.mark.parametrize(("now", "expected"), [(95.0, 98.0), (98.0, 98.0), (99.5, 99.5), (120.0, 120.0)])
def test_a_build_starts_at_most_one_block_time_ahead(now: float, expected: float) -> None:
    assert build_start(now, 100, 2) == expected


@pytest.mark.parametrize(("now", "expected"), [(98.0, 99.95), (99.97, 99.97), (120.0, 120.0)])
def test_a_seal_comes_just_before_the_blocks_time_or_at_once(now: float, expected: float) -> None:
    assert seal_start(now, 100) == pytest.approx(expected)
