import pytest

import flashblocks.sequencing.l1 as l1_module
from flashblocks.sequencing.deposits import UserDeposit
from flashblocks.sequencing.l1 import L1_BLOCK_TIME_S, DepositRefused, SimulatedL1

GENESIS_TIME = 1_700_000_000
DEPOSIT = UserDeposit(sender=b"\1" * 20, to=b"\2" * 20, mint=7)


def test_two_op_nodes_see_the_same_l1() -> None:
    one, other = SimulatedL1(b"seed", GENESIS_TIME), SimulatedL1(b"seed", GENESIS_TIME)
    assert [one.block(n) for n in range(20)] == [other.block(n) for n in range(20)]
    assert SimulatedL1(b"another", GENESIS_TIME).block(3).hash != one.block(3).hash


def test_blocks_are_a_chain_twelve_seconds_apart() -> None:
    l1 = SimulatedL1(b"seed", GENESIS_TIME)
    for number in range(1, 10):
        assert l1.block(number).parent_hash == l1.block(number - 1).hash
        assert l1.block(number).timestamp - l1.block(number - 1).timestamp == 12
        assert 875_000_000 <= l1.block(number).base_fee <= 1_125_000_000


@pytest.mark.parametrize(("after_s", "number"), [(-5, 0), (0, 0), (11.9, 0), (12, 1), (25, 2)])
def test_the_head_follows_the_clock(after_s: float, number: int) -> None:
    assert SimulatedL1(b"", GENESIS_TIME).head(GENESIS_TIME + after_s).number == number


@pytest.mark.parametrize(("after_s", "number"), [(0, 1), (7.9, 1), (8, 2), (11, 2), (12, 2)])
def test_a_deposit_goes_to_a_block_far_enough_ahead(after_s: float, number: int) -> None:
    assert SimulatedL1(b"", GENESIS_TIME).next_deposit_block(GENESIS_TIME + after_s) == number


def test_deposits_are_ordered_by_id_and_may_arrive_twice() -> None:
    l1 = SimulatedL1(b"", GENESIS_TIME)
    other = UserDeposit(sender=b"\3" * 20, to=None)
    assert l1.place(5, b"b", DEPOSIT)
    assert l1.place(5, b"a", other)
    assert not l1.place(5, b"b", DEPOSIT)
    assert l1.deposits(5) == (other, DEPOSIT)
    assert l1.deposits(4) == ()
    assert l1.deposits_from(5) == [(5, b"a", other), (5, b"b", DEPOSIT)]
    assert l1.deposits_from(6) == []


def test_an_id_cannot_name_two_deposits() -> None:
    l1 = SimulatedL1(b"", GENESIS_TIME)
    l1.place(5, b"a", DEPOSIT)
    with pytest.raises(DepositRefused, match="another one"):
        l1.place(5, b"a", UserDeposit(sender=b"\3" * 20, to=None))


def test_a_block_takes_a_bounded_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(l1_module, "DEPOSITS_PER_BLOCK_MAX", 1)
    l1 = SimulatedL1(b"", GENESIS_TIME)
    l1.place(5, b"a", DEPOSIT)
    with pytest.raises(DepositRefused, match="no further"):
        l1.place(5, b"b", DEPOSIT)
    assert l1.place(6, b"b", DEPOSIT)
    assert L1_BLOCK_TIME_S == 12
