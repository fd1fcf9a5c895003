"""How long a candidate waits before it asks for pre-votes again."""

import pytest

from raft.elections import prevote_retry_s


@pytest.mark.parametrize(
    ("rounds", "expected"),
    [(1, (0.04, 0.08)), (3, (0.04, 0.08)), (4, (0.08, 0.16)), (5, (0.16, 0.32)), (6, (0.32, 0.64)), (99, (0.32, 0.64))],
)
def test_the_first_rounds_are_hasty_and_the_later_ones_outlast_a_long_round_trip(
    rounds: int, expected: tuple[float, float]
) -> None:
    assert prevote_retry_s(rounds) == pytest.approx(expected)
