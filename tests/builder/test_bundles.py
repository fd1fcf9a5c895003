from collections.abc import Callable
from typing import Any

import pytest

from flashblocks.builder.bundles import BLOCK_RANGE_BLOCKS_MAX, Bundle, BundlePool, read_bundle
from flashblocks.execution.transaction import Transaction
from flashblocks.wire.jsonrpc import INVALID_PARAMS, RpcError

Sign = Callable[..., Transaction]
HEAD = 100


@pytest.fixture
def tx(sign: Sign) -> Transaction:
    return sign(0, 0)


def read(tx: Transaction, **fields: Any) -> Bundle:
    return read_bundle({"txs": ["0x" + tx.raw.hex()], **fields}, HEAD)


def test_defaults(tx: Transaction) -> None:
    bundle = read(tx)
    assert bundle.transaction.hash == tx.hash
    assert bundle.revert_protected
    assert (bundle.block_min, bundle.block_max) == (0, HEAD + BLOCK_RANGE_BLOCKS_MAX)
    assert (bundle.index_min, bundle.index_max) == (0, None)


def test_a_named_hash_may_revert(tx: Transaction) -> None:
    assert not read(tx, revertingTxHashes=["0x" + tx.hash.hex()]).revert_protected
    assert read(tx, revertingTxHashes=["0x" + "11" * 32]).revert_protected


def test_ranges_are_read_from_their_spellings(tx: Transaction) -> None:
    bundle = read(
        tx,
        minBlockNumber="0x65",
        maxBlockNumber="0x66",
        minFlashblockNumber="0x2",
        maxFlashblockNumber="0x3",
        minTimestamp=10,
        maxTimestamp=20,
    )
    assert (bundle.block_min, bundle.block_max, bundle.index_min, bundle.index_max) == (101, 102, 2, 3)
    cases = [(100, 15), (101, 9), (101, 10), (102, 20), (102, 21), (103, 15)]
    assert [bundle.fits(*case) for case in cases] == [False, False, True, True, False, False]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"txs": []}, "exactly one"),
        ({"txs": ["0x01", "0x02"]}, "exactly one"),
        ({"txs": ["zz"]}, "txs"),
        ({"txs": ["0x05"]}, "not supported"),
        ({"maxBlockNumber": "0x64"}, "past block"),
        ({"maxBlockNumber": "0x6f"}, "too high"),
        ({"minBlockNumber": "0x67", "maxBlockNumber": "0x66"}, "block_number_min"),
        ({"minFlashblockNumber": "0x3", "maxFlashblockNumber": "0x2"}, "flashblock_number_min"),
        ({"minTimestamp": 9, "maxTimestamp": 8}, "timestamp_min"),
        ({"minTimestamp": "0x9"}, "minTimestamp"),
        ({"maxBlockNumber": "many"}, "maxBlockNumber"),
        ({"revertingTxHashes": "0x"}, "revertingTxHashes"),
        ({"revertingTxHashes": ["0x11"]}, "revertingTxHashes"),
        ({"replacementUuid": "x"}, "unknown field"),
    ],
)
def test_what_is_wrong_is_refused_with_its_reason(tx: Transaction, fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(RpcError, match=reason) as refused:
        read_bundle({"txs": ["0x" + tx.raw.hex()], **fields}, HEAD)
    assert refused.value.code == INVALID_PARAMS


def test_a_bundle_that_is_no_object_is_refused() -> None:
    with pytest.raises(RpcError, match="object"):
        read_bundle(["0x"], HEAD)


def test_candidates_are_those_of_the_block_that_can_pay(sign: Sign) -> None:
    pool = BundlePool()
    pool.add(Bundle(sign(0, 0, tip=5), True, block_max=101))
    pool.add(Bundle(sign(1, 0, tip=6), True, block_max=105, block_min=103))
    assert [candidate.tip for candidate in pool.candidates(101, 0, base_fee=7)] == [5]
    assert [candidate.tip for candidate in pool.candidates(103, 0, base_fee=7)] == [6]
    assert pool.candidates(101, 0, base_fee=10**11) == []


def test_expired_bundles_are_dropped_and_remembered_landed_ones_forgotten(sign: Sign) -> None:
    pool = BundlePool()
    old, new, landed = sign(0, 0), sign(1, 0), sign(2, 0)
    pool.add(Bundle(old, True, block_max=101))
    pool.add(Bundle(new, True, block_max=102))
    pool.add(Bundle(landed, True, block_max=101))
    pool.landed(landed.hash)
    assert pool.expire(100) == []
    assert pool.expire(101) == [old.hash]
    assert [pool.was_dropped(tx.hash) for tx in (old, new, landed)] == [True, False, False]
    pool.add(Bundle(old, True, block_max=103))
    assert not pool.was_dropped(old.hash)
    assert len(pool) == 2
