from collections.abc import Callable
from typing import Any

import pytest

from flashblocks.builder.backruns import Backrun, BackrunPool, BackrunRules, BackrunsHere, Replacement, read_backrun
from flashblocks.builder.budget import Limits, budget
from flashblocks.builder.building import Building, Made, build_opening
from flashblocks.builder.bundles import BundlePool
from flashblocks.execution.follow import PayloadFollower
from flashblocks.execution.open_block import OpenBlock
from flashblocks.execution.pool import TransactionPool
from flashblocks.execution.transaction import Transaction
from flashblocks.wire.jsonrpc import INVALID_PARAMS, RpcError

Sign = Callable[..., Transaction]
HEAD = 100
NEVER = float("inf")
REVERTS = bytes.fromhex("aa").rjust(20, b"\0")


def hexed(*transactions: Transaction) -> list[str]:
    return ["0x" + tx.raw.hex() for tx in transactions]


def read(sign: Sign, **fields: Any) -> Any:
    return read_backrun({"txs": hexed(sign(0, 0), sign(1, 0)), "blockNumber": "0x65", **fields}, HEAD)


# Reading


def test_defaults(sign: Sign) -> None:
    backrun = read(sign)
    assert (backrun.target, backrun.transaction.hash) == (sign(0, 0).hash, sign(1, 0).hash)
    assert (backrun.block_min, backrun.block_max, backrun.index_min, backrun.index_max) == (101, 101, 0, None)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"txs": []}, "exactly 2"),
        ({"txs": ["0x01"]}, "exactly 2"),
        ({"txs": ["0x05", "0x05"]}, "not supported"),
        ({"blockNumber": None}, "missing"),
        ({"blockNumber": "0x64"}, "in the past"),
        ({"maxBlockNumber": "0x64"}, "must be >="),
        ({"maxBlockNumber": "0x70"}, "too large"),
        ({"blockNumber": "zz"}, "blockNumber"),
        ({"replacementUuid": "a"}, "replacementNonce must be set"),
        ({"replacementUuid": "a", "replacementNonce": True}, "expected a number"),
        ({"replacementUuid": 5}, "expected a string"),
    ],
)
def test_what_is_wrong_is_refused_with_its_reason(sign: Sign, fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(RpcError, match=reason) as refused:
        read(sign, **fields)
    assert refused.value.code == INVALID_PARAMS


def test_no_transactions_cancel_what_has_the_name(sign: Sign) -> None:
    assert read(sign, txs=[], replacementUuid="a", replacementNonce=3) == Replacement("a", 3)


def test_the_first_index_holds_in_the_first_block_and_the_last_in_the_last(sign: Sign) -> None:
    backrun = read(sign, maxBlockNumber="0x67", minFlashblockNumber="0x3", maxFlashblockNumber="0x5")
    cases = [(100, 4), (101, 2), (101, 3), (101, 9), (102, 0), (103, 5), (103, 6), (104, 1)]
    assert [backrun.fits(*case) for case in cases] == [False, False, True, True, True, True, False, False]


# The pool


def backrun(tx: Transaction, target: Transaction, name: Replacement | None = None, until: int = 9) -> Backrun:
    return Backrun(target.hash, tx, 0, until, replacement=name)


def test_the_newest_version_of_a_name_counts(sign: Sign) -> None:
    pool, target = BackrunPool(), sign(0, 0)
    assert pool.add(backrun(sign(1, 0), target, Replacement("a", 1)))
    assert pool.add(backrun(sign(2, 0), target, Replacement("a", 2)))
    assert not pool.add(backrun(sign(3, 0), target, Replacement("a", 2))), "not newer"
    assert [one.sender for one in pool.behind(target.hash, 1, 1, 0)] == [sign(2, 0).sender]
    assert pool.cancel(Replacement("a", 3))
    assert (len(pool), pool.behind(target.hash, 1, 1, 0)) == (0, [])
    assert not pool.add(backrun(sign(1, 0), target, Replacement("a", 3)))


def test_backruns_go_with_their_target_and_with_their_last_block(sign: Sign) -> None:
    pool, first, second = BackrunPool(), sign(0, 0), sign(0, 1)
    pool.add(backrun(sign(1, 0), first))
    pool.add(backrun(sign(2, 0), second, until=5))
    pool.landed(first.hash)
    assert len(pool) == 1
    pool.expire(4)
    assert len(pool) == 1
    pool.expire(5)
    assert len(pool) == 0


# Building


@pytest.fixture
def opening(opened: OpenBlock, identifier: bytes, deposit: bytes) -> Made:
    return build_opening(opened, identifier, (deposit,))


def building(after: Made, pool: TransactionPool, backruns: BackrunPool, **rules: int) -> Building:
    assert after.working is not None
    block = after.working.fork()
    here = BackrunsHere(backruns, BackrunRules(**rules), block.number, 1, block.base_fee, 0, 0)
    share = budget(Limits(gas_limit=140_000_000), 1, 1)
    return Building(after.flashblock.payload_id, 1, block, pool, BundlePool(), share, lambda: 0.0, followers=here)


def finish(one: Building) -> Made:
    one.look()
    assert one.run(NEVER, NEVER)
    return one.seal()


def tips(made: Made) -> list[int]:
    return [tx.max_priority_fee_per_gas for tx in made.transactions]


def test_the_best_backrun_lands_immediately_behind_its_target(
    opening: Made, pool: TransactionPool, sign: Sign, judge: PayloadFollower
) -> None:
    target, other, backruns = sign(0, 0, tip=10), sign(1, 0, tip=9), BackrunPool()
    pool.add(target, now=0)
    pool.add(other, now=0)
    for account, tip in ((2, 20), (3, 30), (4, 5)):
        backruns.add(backrun(sign(account, 0, tip=tip), target))
    made = finish(building(opening, pool, backruns))
    assert tips(made) == [10, 30, 9]
    assert made.counts["payload_num_backruns_successful"] == 1
    assert judge.apply(opening.flashblock).status == judge.apply(made.flashblock).status == "VALID"


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ({"landed_per_target": 2}, [10, 30, 20]),
        ({"landed_per_target": 3}, [10, 30, 20]),
        ({"considered_per_target": 0}, [10]),
        ({"landed_per_block": 0}, [10]),
        ({"considered_per_block": 1, "landed_per_target": 2}, [10, 30]),
    ],
)
def test_what_is_tried_and_what_lands_is_bounded_and_pays_at_least_what_the_target_pays(
    opening: Made, pool: TransactionPool, sign: Sign, rules: dict[str, int], expected: list[int]
) -> None:
    target, backruns = sign(0, 0, tip=10), BackrunPool()
    pool.add(target, now=0)
    for account, tip in ((2, 20), (3, 30), (4, 5)):
        backruns.add(backrun(sign(account, 0, tip=tip), target))
    assert tips(finish(building(opening, pool, backruns, **rules))) == expected


def test_one_that_reverts_leaves_no_trace_and_the_next_best_is_tried(
    opening: Made, pool: TransactionPool, sign: Sign
) -> None:
    target, backruns = sign(0, 0, tip=10), BackrunPool()
    pool.add(target, now=0)
    backruns.add(backrun(sign(2, 0, tip=30, to=REVERTS, gas=60_000), target))
    backruns.add(backrun(sign(3, 0, tip=20), target))
    made = finish(building(opening, pool, backruns))
    assert tips(made) == [10, 20]
    assert made.counts["bundles_reverted"] == 1


def test_one_that_comes_when_its_target_is_in_the_candidate_still_lands_behind_it(
    opening: Made, pool: TransactionPool, sign: Sign
) -> None:
    target, backruns = sign(0, 0, tip=10), BackrunPool()
    pool.add(target, now=0)
    pool.add(sign(1, 0, tip=9), now=0)
    one = building(opening, pool, backruns)
    assert tips(finish(one)) == [10, 9]
    backruns.add(backrun(sign(2, 0, tip=20), target))
    assert tips(finish(one)) == [10, 20, 9]
    pool.add(sign(0, 1, tip=15), now=0)
    assert tips(finish(one)) == [10, 20, 15, 9], "no newcomer parts it from its target"
