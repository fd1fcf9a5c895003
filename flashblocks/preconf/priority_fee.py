"""What tip gets a bundle into the next blocks, from what recent ones paid: the deployed node's metered priority fee.

A bundle competes for each scarce resource by itself. In a block that was built, the transactions with the highest tips
came first; those that would have had to make room for the bundle are the ones it must outbid.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from flashblocks.wire.hexadecimal import quantity

BLOCKS_SAMPLED_MAX = 12
TIP_WEI_UNCONTESTED = 1  # everything fits: any tip will do
PERCENTILE_DEFAULT = 50

GAS, DATA_AVAILABILITY = "gasUsed", "dataAvailability"


class Use(msgspec.Struct, frozen=True, gc=False):
    """What one transaction paid and took: its tip in wei per gas, and units of each resource in their order."""

    tip: int
    amounts: tuple[int, ...]
    deposit: bool = False


class SampledBlock(msgspec.Struct, frozen=True):
    """One block: its transactions in order, and where each flashblock ended, if that is known (else nothing).

    `ends[i]` is the position behind the last transaction of flashblock i. `capacities` are the units of each resource.
    """

    uses: tuple[Use, ...]
    capacities: tuple[int, ...]
    ends: tuple[int, ...] = ()


class Estimate(msgspec.Struct, frozen=True):
    """One resource: the tips in wei, and the transactions that could have stayed beside the bundle."""

    threshold: int
    recommended: int
    usage: int
    count: int
    total: int


class DemandTooLarge(Exception):
    """The bundle needs more of a resource than a block has."""


def estimate(
    uses: Iterable[tuple[int, int]], capacity: int, need: int, percentile: int = PERCENTILE_DEFAULT
) -> Estimate:
    """The estimate from (tip, amount) of transactions that shared `capacity`, which is not less than `need`.

    From the highest tip down they stay as long as the bundle's need is left over. The last that stays sets the
    threshold; where not even the first could, the bundle has to come before it. What is recommended is the percentile
    of the tips of those that stay, and never below the threshold.
    """
    assert need <= capacity
    ordered = sorted(uses, key=lambda use: -use[0])
    usage, stay = 0, list[int]()
    for tip, amount in ordered:
        if usage + amount > capacity - need:
            break
        usage += amount
        stay.append(tip)
    if len(stay) == len(ordered):
        return Estimate(TIP_WEI_UNCONTESTED, TIP_WEI_UNCONTESTED, usage, len(stay), len(ordered))
    threshold = stay[-1] if stay else ordered[0][0]
    ascending = stay[::-1] or [threshold]
    recommended = ascending[(len(ascending) - 1) * percentile // 100]
    return Estimate(threshold, max(threshold, recommended, TIP_WEI_UNCONTESTED), usage, len(stay), len(ordered))


def estimate_in_block(
    block: SampledBlock, resource: int, need: int, shares: int, percentile: int = PERCENTILE_DEFAULT
) -> Estimate:
    """The dearest flashblock of a block that could have taken the bundle; without one, the block as a whole.

    Flashblock j of `shares` may fill the block up to j shares of it, as builders do, so what earlier ones left is its
    room too. What it really took was certainly there: a block that began late has fewer and larger flashblocks.
    """
    uses = [(use.tip, use.amounts[resource]) for use in block.uses]
    capacity = block.capacities[resource]
    found: list[Estimate] = []
    start = block.ends[0] if block.ends else 0
    used = sum(amount for _, amount in uses[:start])
    for index, end in enumerate(block.ends[1:], 1):
        own = [(use.tip, use.amounts[resource]) for use in block.uses[start:end] if not use.deposit]
        taken = sum(amount for _, amount in uses[start:end])
        room = max(capacity * min(index, shares) // shares - used, taken)
        if room >= need:
            found.append(estimate(own, room, need, percentile))
        start, used = end, used + taken
    if found:
        return max(found, key=lambda each: (each.recommended, each.threshold))
    deposits = sum(use.amounts[resource] for use in block.uses if use.deposit)
    paying = [(use.tip, use.amounts[resource]) for use in block.uses if not use.deposit]
    return estimate(paying, max(capacity - deposits, need), need, percentile)


def metered_priority_fee(
    blocks: Sequence[SampledBlock],
    resources: Sequence[str],
    needs: Sequence[int],
    shares: int,
    percentile: int = PERCENTILE_DEFAULT,
) -> dict[str, Any]:
    """The answer over at least one block, as JSON: per resource the upper median of its blocks, of these the highest.

    Raises DemandTooLarge for a bundle that no block of this size takes.
    """
    rows = []
    for number, (name, need) in enumerate(zip(resources, needs, strict=True)):
        capacity = min(block.capacities[number] for block in blocks)
        if need > capacity:
            raise DemandTooLarge(f"the bundle needs {need} of {name}, a block has {capacity}")
        made = [estimate_in_block(block, number, need, shares, percentile) for block in blocks]
        rows.append((name, sorted(made, key=lambda each: (each.recommended, each.threshold))[len(made) // 2]))
    return {
        "priorityFee": quantity(max(each.recommended for _, each in rows)),
        "blocksSampled": len(blocks),
        "resourceEstimates": [
            {
                "resource": name,
                "thresholdPriorityFee": quantity(each.threshold),
                "recommendedPriorityFee": quantity(each.recommended),
                "cumulativeUsage": quantity(each.usage),
                "thresholdTxCount": each.count,
                "totalTransactions": each.total,
            }
            for name, each in rows
        ],
    }
