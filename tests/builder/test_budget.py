import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashblocks.builder.budget import Limits, Refusal, Usage, budget


def test_targets_grow_by_equal_parts_and_the_last_one_is_the_whole_limit() -> None:
    limits = Limits(gas_limit=140_000_003, da_bytes_per_block=101, da_footprint_gas_scalar=400)
    assert [budget(limits, share, 10).gas for share in (1, 2, 9, 10)] == [
        14_000_000,
        28_000_000,
        126_000_000,
        140_000_003,
    ]
    assert [budget(limits, share, 10).da_bytes for share in (1, 10)] == [10, 101]
    assert budget(limits, 5, 10).da_footprint_gas == 70_000_000


def test_unused_gas_carries_over() -> None:
    limits = Limits(gas_limit=1000)
    first, second = budget(limits, 1, 10), budget(limits, 2, 10)
    used = Usage(gas=40)
    assert first.refuses(used, 61, 0, 0) is Refusal.GAS
    assert first.refuses(used, 60, 0, 0) is None
    assert second.refuses(used, 160, 0, 0) is None


@pytest.mark.parametrize(
    ("usage", "gas_limit", "da", "size", "expected"),
    [
        (Usage(), 21_000, 51, 100, Refusal.TRANSACTION_DA),
        (Usage(da_bytes=60), 21_000, 41, 100, Refusal.BLOCK_DA),
        (Usage(da_bytes=40), 21_000, 50, 100, Refusal.DA_FOOTPRINT),
        (Usage(gas=90_000), 21_000, 1, 100, Refusal.GAS),
        (Usage(uncompressed_bytes=950), 21_000, 1, 51, Refusal.UNCOMPRESSED),
        (Usage(uncompressed_bytes=950), 21_000, 1, 50, None),
        # The order of the checks decides which reason is counted.
        (Usage(gas=100_000, da_bytes=100, uncompressed_bytes=1000), 21_000, 51, 100, Refusal.TRANSACTION_DA),
        (Usage(gas=100_000, da_bytes=100, uncompressed_bytes=1000), 21_000, 1, 100, Refusal.BLOCK_DA),
        (Usage(gas=100_000, uncompressed_bytes=1000), 21_000, 1, 100, Refusal.GAS),
    ],
)
def test_each_limit_and_the_order_they_are_checked_in(
    usage: Usage, gas_limit: int, da: int, size: int, expected: Refusal | None
) -> None:
    limits = Limits(
        gas_limit=100_000,
        da_bytes_per_transaction=50,
        da_bytes_per_block=100,
        da_footprint_gas_scalar=1200,
        uncompressed_bytes_per_block=1000,
    )
    assert budget(limits, 1, 1).refuses(usage, gas_limit, da, size) is expected


def test_operator_calls_replace_limits() -> None:
    limits = Limits(gas_limit=100)
    assert limits.with_da_size(7, 0) == Limits(gas_limit=100, da_bytes_per_transaction=7)
    assert limits.with_gas_limit(30).gas_limit == 30
    assert limits.with_gas_limit(300).gas_limit == 100
    assert limits.with_gas_limit(None) is limits


@pytest.mark.parametrize(("share", "shares"), [(0, 10), (11, 10), (1, 0)])
def test_a_share_outside_the_block_is_our_bug(share: int, shares: int) -> None:
    with pytest.raises(ValueError):
        budget(Limits(gas_limit=1), share, shares)


@given(gas=st.integers(0, 10**9), shares=st.integers(1, 20))
def test_targets_never_shrink_and_never_exceed_the_block(gas: int, shares: int) -> None:
    targets = [budget(Limits(gas_limit=gas), share, shares).gas for share in range(1, shares + 1)]
    assert targets == sorted(targets)
    assert targets[-1] == gas
