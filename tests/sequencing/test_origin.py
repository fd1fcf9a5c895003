import msgspec
import pytest

from flashblocks.sequencing.origin import NextOriginRequired, select_origin
from tests.sequencing.chain import CONFIG, GENESIS, GENESIS_TIME, L1


def head_at(timestamp: int, origin: int, sequence_number: int = 0):
    return msgspec.structs.replace(
        GENESIS, timestamp=timestamp, l1_origin=L1.block(origin).id, sequence_number=sequence_number
    )


@pytest.mark.parametrize(
    ("l2_time", "now", "origin", "sequence_number"),
    [
        (8, 10, 0, 6),  # L2 has not reached the next L1 block
        (10, 10.1, 0, 6),  # it has, but the L1 block is not there yet
        (10, 12.0, 1, 0),  # it has, and the block is there
        (40, 50, 1, 0),  # late: one origin at a time
    ],
)
def test_the_next_origin_is_taken_when_l2_reaches_it(l2_time, now, origin, sequence_number) -> None:
    chosen = select_origin(CONFIG, L1, head_at(GENESIS_TIME + l2_time, 0, 5), GENESIS_TIME + now)
    assert (chosen.block.number, chosen.sequence_number, chosen.no_tx_pool) == (origin, sequence_number, False)


def test_within_the_drift_the_origin_may_lag() -> None:
    head = head_at(GENESIS_TIME + CONFIG.max_sequencer_drift_s - 2, 0, 5)
    assert select_origin(CONFIG, L1, head, GENESIS_TIME).block.number == 0


def test_beyond_the_drift_the_next_origin_is_required() -> None:
    head = head_at(GENESIS_TIME + CONFIG.max_sequencer_drift_s, 0, 5)
    with pytest.raises(NextOriginRequired):
        select_origin(CONFIG, L1, head, GENESIS_TIME)


def test_beyond_the_drift_only_deposits_are_taken() -> None:
    head = head_at(GENESIS_TIME + CONFIG.max_sequencer_drift_s + 100, 0, 5)
    chosen = select_origin(CONFIG, L1, head, GENESIS_TIME + 4000)
    assert (chosen.block.number, chosen.no_tx_pool) == (1, True)
