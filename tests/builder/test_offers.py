from collections.abc import Callable

from flashblocks.builder.offers import Candidate, CandidateQueue, Offers, PoolAndBundles, candidate_of
from flashblocks.execution.pool import TransactionPool
from flashblocks.execution.transaction import Transaction

Sign = Callable[..., Transaction]
BASE_FEE = 0


def drain(offers: Offers) -> list[int]:
    found = []
    while (candidate := offers.take()) is not None:
        found.append(candidate.tip)
    return found


def row(pool: TransactionPool, *bundles: Candidate) -> PoolAndBundles:
    return PoolAndBundles(pool.best(BASE_FEE, pool.head.state.nonce), CandidateQueue(bundles), BASE_FEE)


def test_the_better_tip_first_and_the_pool_first_at_the_same_tip(pool: TransactionPool, sign: Sign) -> None:
    for account, tip in ((0, 30), (1, 10)):
        pool.add(sign(account, 0, tip=tip), now=0)
    same, between = (candidate_of(sign(account, 0, tip=tip), BASE_FEE) for account, tip in ((2, 30), (3, 20)))
    offers = row(pool, same, between)
    first = offers.take()
    assert first is not None
    assert first.sender == sign(0, 0).sender
    assert drain(offers) == [30, 20, 10]


def test_each_sender_s_transactions_come_in_nonce_order(pool: TransactionPool, sign: Sign) -> None:
    for nonce, tip in ((0, 5), (1, 50)):
        pool.add(sign(0, nonce, tip=tip), now=0)
    later, sooner = candidate_of(sign(1, 1, tip=40), BASE_FEE), candidate_of(sign(1, 0, tip=20), BASE_FEE)
    assert drain(row(pool, later, sooner)) == [20, 40, 5, 50]


def test_a_sender_of_the_pool_is_put_aside_everywhere(pool: TransactionPool, sign: Sign) -> None:
    pool.add(sign(0, 0, tip=30), now=0)
    pool.add(sign(0, 1, tip=30), now=0)
    offers = row(pool, candidate_of(sign(0, 2, tip=10), BASE_FEE), candidate_of(sign(1, 0, tip=5), BASE_FEE))
    first = offers.take()
    assert first is not None
    offers.put_aside(first.sender)
    assert drain(offers) == [5]


def test_a_bundle_s_sender_is_put_aside_among_the_bundles_only(pool: TransactionPool, sign: Sign) -> None:
    pool.add(sign(0, 0, tip=10), now=0)
    offers = row(pool, candidate_of(sign(0, 0, tip=30), BASE_FEE), candidate_of(sign(0, 1, tip=20), BASE_FEE))
    first = offers.take()
    assert first is not None
    offers.put_aside(first.sender)
    assert drain(offers) == [10]


def test_a_candidate_is_described_as_the_packer_needs_it(sign: Sign) -> None:
    tx = sign(0, 0, tip=7)
    candidate = candidate_of(tx, BASE_FEE, arrival=3, bundle=(1, 4, True), behind=b"t")
    assert (candidate.hash, candidate.sender, candidate.nonce, candidate.tip) == (tx.hash, tx.sender, 0, 7)
    assert (candidate.index_min, candidate.index_max, candidate.revert_protected) == (1, 4, True)
    assert (candidate.arrival, candidate.behind, candidate.size_bytes) == (3, b"t", len(tx.raw))
    assert candidate.da_bytes > 0
