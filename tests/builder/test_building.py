from collections.abc import Callable
from itertools import count
from types import SimpleNamespace

import pytest

from flashblocks.builder.budget import Budget, Limits, budget
from flashblocks.builder.building import Building, Made, build_opening
from flashblocks.builder.bundles import Bundle, BundlePool
from flashblocks.execution.errors import InvalidAttributes
from flashblocks.execution.follow import PayloadFollower
from flashblocks.execution.open_block import OpenBlock
from flashblocks.execution.pool import TransactionPool
from flashblocks.execution.transaction import Transaction
from flashblocks.wire.assembly import assemble

Sign = Callable[..., Transaction]
REVERTS, SPINS = bytes.fromhex("aa").rjust(20, b"\0"), bytes.fromhex("bb").rjust(20, b"\0")
WHOLE = budget(Limits(gas_limit=140_000_000), 1, 1)
NEVER = float("inf")


class Clock:
    """Time that passes by being looked at."""

    def __init__(self, step_s: float = 0.0) -> None:
        self.ticks, self.step_s = count(), step_s

    def __call__(self) -> float:
        return next(self.ticks) * self.step_s


@pytest.fixture
def opening(opened: OpenBlock, identifier: bytes, deposit: bytes) -> Made:
    return build_opening(opened, identifier, (deposit,))


def build(
    after: Made, pool: TransactionPool, index: int = 1, bundles: BundlePool | None = None, share: Budget = WHOLE
) -> Building:
    assert after.working is not None
    block = after.working.fork()
    return Building(after.flashblock.payload_id, index, block, pool, bundles or BundlePool(), share, Clock())


def finish(building: Building) -> Made:
    building.look()
    assert building.run(NEVER, NEVER)
    building.seal()
    made = building.freeze()
    assert made is not None
    return made


def test_the_opening_holds_the_forced_transactions_and_is_a_valid_block(
    opening: Made, judge: PayloadFollower, deposit: bytes
) -> None:
    assert opening.flashblock.index == 0
    assert opening.flashblock.base is not None
    assert opening.flashblock.diff.transactions == (deposit,)
    assert judge.apply(opening.flashblock).status == "VALID"


def test_a_forced_transaction_that_cannot_be_decoded_is_the_attributes_fault(
    opened: OpenBlock, identifier: bytes
) -> None:
    with pytest.raises(InvalidAttributes, match="forced transaction 0"):
        build_opening(opened, identifier, (b"\x05\x05",))


def test_every_flashblock_is_a_valid_block_of_its_prefix_by_the_judge_s_own_execution(
    opening: Made, pool: TransactionPool, judge: PayloadFollower, sign: Sign
) -> None:
    made = [opening]
    for index in range(1, 5):
        for account in range(index):
            pool.add(sign(account, index - account - 1, tip=10**6 * (account + 1)), now=0)
        made.append(finish(build(made[-1], pool, index)))
    assert [len(each.flashblock.diff.transactions) for each in made] == [1, 1, 2, 3, 4]
    for each in made:
        verdict = judge.apply(each.flashblock)
        assert (verdict.status, verdict.block_hash) == ("VALID", each.sealed.header.hash)
    whole = assemble([each.flashblock for each in made]).payload
    assert whole.block_hash == made[-1].sealed.header.hash
    assert whole.transactions == made[-1].sealed.transactions


def test_an_empty_pool_gives_an_empty_flashblock(opening: Made, pool: TransactionPool, judge: PayloadFollower) -> None:
    made = finish(build(opening, pool))
    assert made.flashblock.diff.transactions == ()
    assert made.flashblock.diff.block_hash == opening.flashblock.diff.block_hash
    assert judge.apply(opening.flashblock).status == judge.apply(made.flashblock).status == "VALID"


def test_best_tip_first_and_included_once(opening: Made, pool: TransactionPool, sign: Sign) -> None:
    for account, tip in ((0, 1), (1, 3), (2, 2)):
        pool.add(sign(account, 0, tip=tip * 10**6), now=0)
    first = finish(build(opening, pool))
    assert [tx.max_priority_fee_per_gas // 10**6 for tx in first.transactions] == [3, 2, 1]
    assert finish(build(first, pool, 2)).transactions == ()


def test_gas_of_the_deposits_counts_against_the_first_share(opening: Made, pool: TransactionPool, sign: Sign) -> None:
    for nonce in range(3):
        pool.add(sign(0, nonce), now=0)
    assert opening.working is not None
    used = opening.working.gas_used
    assert used > 0
    first = finish(build(opening, pool, share=budget(Limits(gas_limit=10 * (used + 30_000)), 1, 10)))
    assert len(first.transactions) == 1
    assert first.counts["block_gas_limit_exceeded_total"] == 1
    second = finish(build(first, pool, 2, share=budget(Limits(gas_limit=10 * (used + 30_000)), 2, 10)))
    assert len(second.transactions) == 2, "what did not fit was considered again"


def test_reverting_transactions_are_included_and_reverting_bundles_dropped(
    opening: Made, pool: TransactionPool, sign: Sign, judge: PayloadFollower
) -> None:
    pool.add(sign(0, 0, to=REVERTS, gas=60_000), now=0)
    bundles = BundlePool()
    protected, allowed = sign(1, 0, to=REVERTS, gas=60_000, tip=5), sign(2, 0, to=REVERTS, gas=60_000, tip=6)
    bundles.add(Bundle(protected, revert_protected=True, block_max=9))
    bundles.add(Bundle(allowed, revert_protected=False, block_max=9))
    made = finish(build(opening, pool, bundles=bundles))
    assert len(made.transactions) == 2
    assert [(candidate.hash, reason) for candidate, reason in made.dropped] == [(protected.hash, "bundle reverted")]
    assert judge.apply(opening.flashblock).status == judge.apply(made.flashblock).status == "VALID"


def test_a_transaction_that_runs_past_the_deadline_is_taken_back(
    opening: Made, pool: TransactionPool, sign: Sign
) -> None:
    pool.add(sign(0, 0, to=SPINS, gas=30_000_000, tip=9), now=0)
    pool.add(sign(1, 0), now=0)
    building = build(opening, pool)
    building._clock = building.bench._clock = Clock(step_s=0.001)
    building.look()
    building.run(NEVER, deadline_s=0.02)
    made = building.seal()
    assert len(building.bench.overran) == 1
    assert all(tx.to != SPINS for tx in made.transactions)


def test_bundles_and_pool_are_one_row_by_tip(opening: Made, pool: TransactionPool, sign: Sign) -> None:
    bundles = BundlePool()
    for account, tip in ((0, 10), (1, 30)):
        pool.add(sign(account, 0, tip=tip), now=0)
    for account, tip in ((2, 20), (3, 40)):
        bundles.add(Bundle(sign(account, 0, tip=tip), revert_protected=True, block_max=9))
    made = finish(build(opening, pool, bundles=bundles))
    assert [tx.max_priority_fee_per_gas for tx in made.transactions] == [40, 30, 20, 10]


def test_a_bundle_of_a_later_flashblock_waits(
    opening: Made, pool: TransactionPool, sign: Sign, genesis: SimpleNamespace
) -> None:
    bundles = BundlePool()
    bundles.add(Bundle(sign(0, 0), revert_protected=True, block_max=9, index_min=2))
    first = finish(build(opening, pool, bundles=bundles))
    assert first.transactions == ()
    assert len(finish(build(first, pool, 2, bundles=bundles)).transactions) == 1


def test_a_bundle_that_waits_does_not_hold_up_its_sender_s_transaction_in_the_pool(
    opening: Made, pool: TransactionPool, sign: Sign
) -> None:
    bundles = BundlePool()
    bundles.add(Bundle(sign(0, 0, tip=50), revert_protected=True, block_max=9, index_min=3))
    pool.add(sign(0, 0, tip=10), now=0)
    pool.add(sign(0, 1, tip=10), now=0)
    made = finish(build(opening, pool, bundles=bundles))
    assert [tx.max_priority_fee_per_gas for tx in made.transactions] == [10, 10]


def grow(building: Building) -> None:
    building.look()
    assert building.run(NEVER, NEVER)


def tips(made: Made) -> list[int]:
    return [tx.max_priority_fee_per_gas for tx in made.transactions]


def test_a_candidate_grows_and_a_better_payer_that_comes_later_takes_its_place(
    opening: Made, pool: TransactionPool, sign: Sign, judge: PayloadFollower
) -> None:
    building = build(opening, pool)
    for account, tip in ((0, 10), (1, 30)):
        pool.add(sign(account, 0, tip=tip), now=0)
    grow(building)
    assert tips(building.seal()) == [30, 10]
    pool.add(sign(2, 0, tip=5), now=0)
    grow(building)
    pool.add(sign(3, 0, tip=20), now=0)
    pool.add(sign(1, 1, tip=40), now=0)
    grow(building)
    made = building.seal()
    assert tips(made) == [30, 40, 20, 10, 5], "by tip, each sender's by nonce"
    assert made.flashblock == finish(build(opening, pool)).flashblock, "as if everything had been there from the start"
    assert judge.apply(opening.flashblock).status == judge.apply(made.flashblock).status == "VALID"


def test_what_the_operator_drops_leaves_the_candidate(opening: Made, pool: TransactionPool, sign: Sign) -> None:
    first, stuck, last = sign(0, 0, tip=3 * 10**6), sign(1, 0, tip=2 * 10**6), sign(2, 0, tip=10**6)
    for each in (first, stuck, last):
        pool.add(each, now=0)
    building = build(opening, pool)
    grow(building)
    assert building.seal().transactions == (first, stuck, last)
    pool.drop((stuck.hash,))
    grow(building)
    assert building.seal().transactions == (first, last)
    made = building.freeze()
    assert made is not None and made.flashblock == finish(build(opening, pool)).flashblock


def test_what_was_executed_after_the_last_sealing_is_not_in_what_is_published(
    opening: Made, pool: TransactionPool, sign: Sign, judge: PayloadFollower
) -> None:
    building = build(opening, pool)
    pool.add(sign(0, 0), now=0)
    grow(building)
    building.seal()
    assert not building.unsealed
    pool.add(sign(1, 0), now=0)
    grow(building)
    assert building.unsealed
    made = building.freeze()
    assert made is not None
    assert made.working is not None
    assert len(made.transactions) == 1
    assert made.working.transaction_count == len(made.sealed.transactions) == 2, "the deposit and the first"
    second = finish(build(made, pool, 2))
    assert len(second.transactions) == 1
    verdicts = [judge.apply(each.flashblock).status for each in (opening, made, second)]
    assert verdicts == ["VALID"] * 3


def test_a_candidate_overtaken_by_a_new_order_is_still_good_but_the_block_is_built_anew_behind_it(
    opening: Made, pool: TransactionPool, sign: Sign
) -> None:
    building = build(opening, pool)
    pool.add(sign(0, 0, tip=1), now=0)
    grow(building)
    building.seal()
    pool.add(sign(1, 0, tip=2), now=0)
    grow(building)
    made = building.freeze()
    assert made is not None
    assert (tips(made), made.working) == ([1], None)


def test_a_transaction_that_does_not_fit_does_not_turn_the_candidate_over_at_every_look(
    opening: Made, pool: TransactionPool, sign: Sign
) -> None:
    building = build(opening, pool, share=budget(Limits(gas_limit=500_000), 1, 1))
    pool.add(sign(0, 0, tip=1), now=0)
    pool.add(sign(1, 0, tip=9, gas=490_000), now=0)
    grow(building)
    simulated = building.packing.counts["payload_num_tx_simulated"]
    pool.add(sign(2, 0, tip=1), now=0)
    grow(building)
    assert building.packing.counts["payload_num_tx_simulated"] == simulated + 1
    assert len(building.seal().transactions) == 2
