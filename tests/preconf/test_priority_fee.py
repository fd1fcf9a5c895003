"""The metered priority fee: a table per rule. Tips are small numbers, amounts are in units of a block of 100."""

import pytest

from flashblocks.preconf.priority_fee import (
    DATA_AVAILABILITY,
    GAS,
    DemandTooLarge,
    Estimate,
    SampledBlock,
    Use,
    estimate,
    estimate_in_block,
    metered_priority_fee,
)

FULL = [(50, 20), (10, 20), (40, 20), (20, 20), (30, 20)]  # (tip, amount), 100 in all


@pytest.mark.parametrize(
    ("uses", "need", "percentile", "expected"),
    [
        pytest.param([], 100, 50, Estimate(1, 1, 0, 0, 0), id="an empty block takes anything"),
        pytest.param(FULL[:3], 40, 50, Estimate(1, 1, 60, 3, 3), id="all fit beside it, to the last unit"),
        pytest.param(FULL[:3], 41, 50, Estimate(40, 40, 40, 2, 3), id="one unit more and the cheapest must go"),
        pytest.param(FULL, 1, 50, Estimate(20, 30, 80, 4, 5), id="of 50, 40, 30, 20 that stay the lower median"),
        pytest.param(FULL, 1, 0, Estimate(20, 20, 80, 4, 5), id="never below the threshold"),
        pytest.param(FULL, 1, 100, Estimate(20, 50, 80, 4, 5), id="the highest of them"),
        pytest.param(FULL, 60, 50, Estimate(40, 40, 40, 2, 5), id="more need, higher threshold"),
        pytest.param(FULL, 80, 50, Estimate(50, 50, 20, 1, 5), id="only the dearest stays"),
        pytest.param(FULL, 100, 50, Estimate(50, 50, 0, 0, 5), id="nothing stays: it comes before the dearest"),
        pytest.param([(0, 60), (0, 60)], 10, 50, Estimate(0, 1, 60, 1, 2), id="nobody paid: one wei will do"),
        pytest.param([(9, 90), (8, 20), (7, 1)], 10, 50, Estimate(9, 9, 90, 1, 3), id="it stops, it does not skip"),
    ],
)
def test_estimate(uses: list[tuple[int, int]], need: int, percentile: int, expected: Estimate) -> None:
    assert estimate(uses, 100, need, percentile) == expected


def block(*flashblocks: list[tuple[int, int]], known: bool = True, capacity: int = 100) -> SampledBlock:
    """A block of flashblocks of (tip, amount); a tip below zero marks a deposit."""
    uses = tuple(Use(max(tip, 0), (amount,), tip < 0) for flashblock in flashblocks for tip, amount in flashblock)
    ends = tuple(sum(len(each) for each in flashblocks[: index + 1]) for index in range(len(flashblocks)))
    return SampledBlock(uses, (capacity,), ends if known else ())


OPENING = [(-1, 10)]  # the deposits of index 0


@pytest.mark.parametrize(
    ("sampled", "need", "expected"),
    [
        pytest.param(block(OPENING, [(5, 15)], []), 45, Estimate(1, 1, 0, 0, 0), id="room in the second half alone"),
        pytest.param(block(OPENING, [(5, 15)]), 25, Estimate(1, 1, 15, 1, 1), id="and in the first, beside all"),
        pytest.param(block(OPENING, [(5, 15)]), 26, Estimate(5, 5, 0, 0, 1), id="half of 100 less deposits is 40"),
        pytest.param(
            block(OPENING, [(7, 20), (6, 20)], [(3, 25), (2, 25)]), 10, Estimate(7, 7, 20, 1, 2), id="the dearest one"
        ),
        pytest.param(
            block(OPENING, [(7, 40)], [(3, 25), (2, 25)]), 50, Estimate(3, 3, 0, 0, 2), id="who had no room is left out"
        ),
        pytest.param(
            block(OPENING, [(7, 40)], [(3, 25), (2, 25)]), 60, Estimate(7, 7, 0, 0, 3), id="nobody had: the whole block"
        ),
        pytest.param(
            block(OPENING, [(9, 80), (1, 5)]), 5, Estimate(9, 9, 80, 1, 2), id="what was taken was there: a late block"
        ),
        pytest.param(
            block(OPENING, [(7, 40)], [(3, 25), (2, 25)], known=False),
            10,
            Estimate(3, 3, 65, 2, 3),
            id="ends not known: the whole block",
        ),
        pytest.param(
            block([(-1, 10), (8, 60)], [], []), 25, Estimate(1, 1, 0, 0, 0), id="index 0 may hold paying ones"
        ),
    ],
)
def test_estimate_in_block(sampled: SampledBlock, need: int, expected: Estimate) -> None:
    assert estimate_in_block(sampled, 0, need, shares=2) == expected


def test_the_answer_has_the_upper_median_per_resource_and_the_highest_of_all() -> None:
    """Gas is contested in two of four blocks, data in one; the upper median of [1, 1, 30, 40] is 30."""

    def of(*uses: tuple[int, int, int]) -> SampledBlock:
        return SampledBlock(tuple(Use(tip, (gas, size)) for tip, gas, size in uses), (100, 50))

    blocks = [of((30, 90, 1), (5, 10, 1)), of(), of((40, 90, 45), (35, 10, 1)), of((9, 10, 1))]
    assert metered_priority_fee(blocks, [GAS, DATA_AVAILABILITY], [10, 5], shares=10) == {
        "priorityFee": "0x1e",
        "blocksSampled": 4,
        "resourceEstimates": [
            {
                "resource": "gasUsed",
                "thresholdPriorityFee": "0x1e",
                "recommendedPriorityFee": "0x1e",
                "cumulativeUsage": "0x5a",
                "thresholdTxCount": 1,
                "totalTransactions": 2,
            },
            {
                "resource": "dataAvailability",
                "thresholdPriorityFee": "0x1",
                "recommendedPriorityFee": "0x1",
                "cumulativeUsage": "0x1",
                "thresholdTxCount": 1,
                "totalTransactions": 1,
            },
        ],
    }


def test_more_than_a_block_is_refused_by_name() -> None:
    blocks = [block(), block(capacity=90)]
    assert metered_priority_fee(blocks, [GAS], [90], shares=10)["priorityFee"] == "0x1"
    with pytest.raises(DemandTooLarge, match="the bundle needs 91 of gasUsed, a block has 90"):
        metered_priority_fee(blocks, [GAS], [91], shares=10)
