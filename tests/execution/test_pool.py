"""The transaction pool: its refusals in geth's words, its order, its bounds."""

import random
from functools import lru_cache

import msgspec
import pytest
from eth_account import Account as Wallet
from hypothesis import given, settings
from hypothesis import strategies as st

from flashblocks.execution.chain_spec import ISTHMUS, ChainSpec
from flashblocks.execution.code import NO_CODE, Code
from flashblocks.execution.errors import InvalidTransaction
from flashblocks.execution.fees import L1Parameters
from flashblocks.execution.header import Header
from flashblocks.execution.keccak import hashed_address
from flashblocks.execution.pool import BestTransactions, PoolLimits, TransactionPool, effective_tip
from flashblocks.execution.pool_rules import PoolHead, decode_for_pool
from flashblocks.execution.signing import sign_authorization, sign_transaction
from flashblocks.execution.state import Account, WorldState
from flashblocks.execution.transaction import SET_CODE_TYPE, Transaction, decode_transaction, encode_deposit

GWEI = 10**9
ETHER = 10**18
SPEC = ChainSpec(chain_id=901)
KEYS = [bytes([number]) * 32 for number in range(1, 9)]
FREE_L1 = L1Parameters(0, 0, 0, 0, 0, 0, 0)
HEADER = Header(
    parent_hash=bytes(32),
    fee_recipient=bytes(20),
    state_root=bytes(32),
    number=7,
    gas_limit=30_000_000,
    timestamp=1_000,
    base_fee_per_gas=GWEI,
    extra_data=b"\0" + (250).to_bytes(4, "big") + (6).to_bytes(4, "big"),
)


@lru_cache(maxsize=10_000)
def signed(key: int = 0, nonce: int = 0, tip: int = GWEI, cap: int = 100 * GWEI, **fields: object) -> Transaction:
    wish = {"chainId": 901, "nonce": nonce, "maxPriorityFeePerGas": tip, "maxFeePerGas": cap, "gas": 21_000}
    wish |= {"to": "0x" + "11" * 20, "value": 1, "data": b""} | fields
    return decode_for_pool(bytes(Wallet.sign_transaction(wish, KEYS[key]).raw_transaction))


def deposit_of(sender: bytes) -> bytes:
    return encode_deposit(
        source_hash=bytes(32), sender=sender, to=bytes(20), mint=1, value=1, gas_limit=21_000, data=b""
    )


def address(key: int) -> bytes:
    return signed(key).sender


def state_of(nonce: int = 0, balance: int = ETHER, code: Code = NO_CODE) -> WorldState:
    account = Account(nonce, balance, code, None)
    return WorldState().with_accounts({hashed_address(address(key)): account for key in range(len(KEYS))})


def head_of(state: WorldState, base_fee: int = GWEI, l1: L1Parameters = FREE_L1) -> PoolHead:
    return PoolHead(HEADER, state, ISTHMUS, base_fee, l1)


def pool_of(state: WorldState | None = None, **limits: float) -> TransactionPool:
    return TransactionPool(SPEC, head_of(state or state_of()), msgspec.convert(limits, PoolLimits))


def best(pool: TransactionPool, base_fee: int = GWEI) -> BestTransactions:
    return pool.best(base_fee, pool.head.state.nonce)


REFUSALS = [
    (signed(nonce=4), r"nonce too low: next nonce 5, tx nonce 4"),
    (signed(nonce=5, chainId=1), r"invalid sender: invalid chain id for signer: have 1 want 901"),
    (signed(nonce=5, gas=20_999), r"intrinsic gas too low: gas 20999, minimum needed 21000"),
    (signed(nonce=5, data=b"\1" * 100, gas=23_000), r"insufficient gas for floor data gas cost: gas 23000"),
    (signed(nonce=5, gas=30_000_001), r"exceeds block gas limit"),
    (signed(nonce=5, value=ETHER), r"insufficient funds for gas \* price \+ value: balance 10+, tx cost"),
    (signed(nonce=5, tip=2, cap=1), r"max priority fee per gas higher than max fee per gas"),
    (
        signed(nonce=5, to="", data=b"\0" * 49_153, gas=10**7),
        r"max initcode size exceeded: code size 49153, limit 49152",
    ),
    (signed(nonce=5, tip=0), r"transaction underpriced: gas tip cap 0, minimum needed 1"),
]


@pytest.mark.parametrize(("tx", "text"), REFUSALS, ids=[text[:24] for _, text in REFUSALS])
def test_refusals(tx: Transaction, text: str) -> None:
    pool = pool_of(state_of(nonce=5), tip_wei_min=1)
    with pytest.raises(InvalidTransaction, match=text):
        pool.add(tx, 0.0)
    assert len(pool) == 0
    pool.check()


def test_what_is_refused_before_it_is_decoded() -> None:
    deposit = deposit_of(bytes(20))
    for raw in (deposit, b"\x03\xc0", b"\x7f"):
        with pytest.raises(InvalidTransaction, match="transaction type not supported"):
            decode_for_pool(raw)
    with pytest.raises(InvalidTransaction, match="oversized data: transaction size 131073, limit 131072"):
        decode_for_pool(b"\x02" + bytes(131_072))
    with pytest.raises(InvalidTransaction, match="type not supported"):
        pool_of().add(decode_transaction(deposit), 0.0)


def test_legacy_without_a_chain_id_is_refused() -> None:
    raw = Wallet.sign_transaction(
        {"nonce": 0, "gasPrice": GWEI, "gas": 21_000, "to": "0x" + "11" * 20, "value": 1}, KEYS[0]
    ).raw_transaction
    with pytest.raises(InvalidTransaction, match="only replay-protected"):
        pool_of().add(decode_for_pool(bytes(raw)), 0.0)


def test_a_contract_does_not_send_but_a_delegated_account_does_once() -> None:
    with pytest.raises(InvalidTransaction, match="sender not an eoa"):
        pool_of(state_of(code=Code.of(b"\x60\x00"))).add(signed(), 0.0)
    delegated = pool_of(state_of(code=Code.of(b"\xef\x01\x00" + bytes(20))))
    with pytest.raises(InvalidTransaction, match="gapped-nonce tx from delegated accounts"):
        delegated.add(signed(nonce=1), 0.0)
    delegated.add(signed(), 0.0)
    with pytest.raises(InvalidTransaction, match="in-flight transaction limit reached for delegated accounts"):
        delegated.add(signed(nonce=1), 0.0)


def test_a_pending_authorization_counts_as_a_delegation() -> None:
    wish = sign_authorization(KEYS[1], 901, b"\x55" * 20, 0)
    set_code = decode_for_pool(
        sign_transaction(
            KEYS[0], chain_id=901, nonce=0, to=bytes(20), gas_limit=100_000, max_fee_per_gas=100 * GWEI,
            authorization_list=[wish, wish._replace(r=0)], kind=SET_CODE_TYPE,
        )
    )  # fmt: skip
    pool = pool_of()
    pool.add(signed(1, 0), 0.0)
    pool.add(signed(1, 1), 0.0)
    with pytest.raises(InvalidTransaction, match="authority already reserved"):
        pool.add(set_code, 0.0)
    pool.remove(signed(1, 1).hash)
    pool.add(set_code, 0.0)
    pool.check()
    with pytest.raises(InvalidTransaction, match="in-flight transaction limit reached"):
        pool.add(signed(1, 1), 0.0)
    pool.remove(set_code.hash)
    pool.check()
    pool.add(signed(1, 1), 0.0)


def test_the_l1_fee_counts_as_a_cost() -> None:
    dear = L1Parameters(10**12, 10**12, 10**6, 10**6, 0, 0, 0)
    pool = TransactionPool(SPEC, head_of(state_of(balance=3 * 10**15), l1=dear))
    with pytest.raises(InvalidTransaction, match="insufficient funds"):
        pool.add(signed(), 0.0)


def test_known_and_replaced() -> None:
    pool = pool_of()
    pool.add(signed(tip=1000, cap=100 * GWEI), 0.0)
    with pytest.raises(InvalidTransaction, match="already known"):
        pool.add(signed(tip=1000, cap=100 * GWEI), 0.0)
    for tip, cap in [(1099, 200 * GWEI), (2000, 109 * GWEI), (1000, 110 * GWEI)]:
        with pytest.raises(InvalidTransaction, match="replacement transaction underpriced"):
            pool.add(signed(tip=tip, cap=cap), 0.0)
    better = signed(tip=1100, cap=110 * GWEI)
    pool.add(better, 0.0)
    assert list(pool.transactions()) == [better]
    pool.check()


def test_all_of_a_sender_together_must_be_covered() -> None:
    pool = pool_of(state_of(balance=ETHER))
    pool.add(signed(value=ETHER // 2), 0.0)
    with pytest.raises(InvalidTransaction, match="queued cost"):
        pool.add(signed(nonce=1, value=ETHER // 2), 0.0)
    pool.add(signed(value=1, tip=2 * GWEI, cap=200 * GWEI), 0.0)  # the replacement frees the money
    pool.add(signed(nonce=1, value=ETHER // 2), 0.0)
    pool.check()


def test_what_flashblocks_brought_can_be_spent_and_what_they_sent_is_sent() -> None:
    pool = pool_of(state_of(balance=10**15))
    rich = signed(1, 0, value=ETHER // 2)
    with pytest.raises(InvalidTransaction, match="insufficient funds"):
        pool.add(rich, 0.0)
    pool.pending_state = lambda: state_of(nonce=1, balance=ETHER)
    with pytest.raises(InvalidTransaction, match="nonce too low: next nonce 1, tx nonce 0"):
        pool.add(rich, 0.0)
    pool.add(signed(1, 1, value=ETHER // 2), 0.0)
    pool.check()


def test_order_by_tip_then_arrival_and_nonces_in_turn() -> None:
    pool = pool_of()
    cheap_first = [signed(0, 0, tip=1), signed(0, 1, tip=9 * GWEI)]
    middle = [signed(1, 0, tip=5 * GWEI), signed(2, 0, tip=5 * GWEI)]
    capped = signed(3, 0, tip=4 * GWEI, cap=4 * GWEI)  # pays 3 gwei at a base fee of one
    for tx in (*cheap_first, *middle, capped):
        pool.add(tx, 0.0)
    assert list(best(pool)) == [*middle, capped, *cheap_first]


def test_a_gap_waits_and_an_unaffordable_base_fee_stops_the_sender() -> None:
    pool = pool_of()
    pool.add(signed(0, 1), 0.0)
    pool.add(signed(1, 0, cap=3 * GWEI), 0.0)
    pool.add(signed(1, 1), 0.0)
    assert list(best(pool)) == [signed(1, 0, cap=3 * GWEI), signed(1, 1)]
    assert list(best(pool, base_fee=4 * GWEI)) == []
    pool.add(signed(0, 0), 0.0)
    assert [tx.nonce for tx in best(pool) if tx.sender == address(0)] == [0, 1]
    counts = pool.counts()
    assert (counts.pending, counts.queued) == (4, 0)
    assert pool.next_nonce(address(0), 0) == 2


def test_an_invalid_sender_is_passed_over() -> None:
    pool = pool_of()
    for nonce in range(3):
        pool.add(signed(0, nonce, tip=3 * GWEI), 0.0)
        pool.add(signed(1, nonce, tip=2 * GWEI), 0.0)
    given_out = []
    iterator = best(pool)
    for tx in iterator:
        given_out.append((tx.sender, tx.nonce))
        if (tx.sender, tx.nonce) == (address(0), 1):
            iterator.invalidate(tx.sender)
    assert given_out == [(address(0), 0), (address(0), 1), *((address(1), nonce) for nonce in range(3))]


def test_best_starts_where_the_block_under_construction_stands() -> None:
    pool = pool_of()
    for nonce in range(4):
        pool.add(signed(0, nonce), 0.0)
    assert [tx.nonce for tx in pool.best(GWEI, lambda _sender: 2)] == [2, 3]


def test_a_full_pool_gives_up_what_pays_least() -> None:
    pool = pool_of(transactions_max=3)
    pool.add(signed(0, 0, tip=5), 0.0)
    pool.add(signed(0, 1, tip=100), 0.0)  # worth 5: the way to it leads over the first
    pool.add(signed(1, 0, tip=7), 0.0)
    with pytest.raises(InvalidTransaction, match="transaction underpriced"):
        pool.add(signed(2, 0, tip=5), 0.0)
    pool.add(signed(2, 0, tip=6), 0.0)
    assert signed(0, 1, tip=100).hash not in pool and signed(0, 0, tip=5).hash in pool
    with pytest.raises(InvalidTransaction, match="transaction underpriced"):
        pool.add(signed(3, 5, tip=90), 0.0)  # behind a gap: worth nothing yet
    pool.check()


def test_what_waits_behind_a_gap_goes_first() -> None:
    pool = pool_of(transactions_max=2)
    pool.add(signed(0, 3, tip=50 * GWEI), 0.0)
    pool.add(signed(1, 0, tip=2), 0.0)
    pool.add(signed(2, 0, tip=1), 0.0)
    assert signed(0, 3, tip=50 * GWEI).hash not in pool
    pool.check()


def test_a_refused_newcomer_evicts_nobody() -> None:
    pool = pool_of(size_bytes_max=500, transaction_size_bytes_max=100_000)
    for key, tip in [(0, 1), (1, 2), (2, 9), (3, 9)]:
        pool.add(signed(key, tip=tip), 0.0)
    before = sorted(tx.hash for tx in pool.transactions())
    wide = signed(4, tip=5, data=b"\0" * 300, gas=100_000)  # the two cheap ones do not make enough room
    with pytest.raises(InvalidTransaction, match="transaction underpriced"):
        pool.add(wide, 0.0)
    assert sorted(tx.hash for tx in pool.transactions()) == before
    pool.check()
    pool.add(signed(5, tip=3), 0.0)
    assert signed(0, tip=1).hash not in pool


def test_one_sender_has_a_bound() -> None:
    pool = pool_of(transactions_per_sender_max=2)
    pool.add(signed(0, 0), 0.0)
    pool.add(signed(0, 1), 0.0)
    with pytest.raises(InvalidTransaction, match="account limit exceeded"):
        pool.add(signed(0, 2), 0.0)
    pool.add(signed(0, 1, tip=2 * GWEI, cap=200 * GWEI), 0.0)


def test_a_new_head_drops_what_it_holds_and_a_reorg_brings_it_back() -> None:
    pool = pool_of()
    mine = [signed(0, nonce) for nonce in range(3)]
    for tx in (*mine, signed(1, 0)):
        pool.add(tx, 0.0)
    revision = pool.revision
    dropped = pool.set_head(head_of(state_of(nonce=2)), 1.0, [address(0)])
    assert dropped == mine[:2] and pool.revision > revision
    assert list(best(pool)) == mine[2:]
    assert pool.set_head(head_of(state_of()), 2.0) == []
    deposit = decode_transaction(deposit_of(address(0)))
    assert pool.reinject([deposit, *mine], 2.0) == mine[:2]
    assert [tx for tx in best(pool) if tx.sender == address(0)] == mine
    pool.check()


def test_what_can_no_longer_be_paid_or_fitted_is_dropped() -> None:
    pool = pool_of()
    dear, wide, fine = signed(0, 0, value=ETHER // 2), signed(1, 0, gas=25_000_000, cap=10**9), signed(2, 0)
    for tx in (dear, wide, fine):
        pool.add(tx, 0.0)
    poorer = head_of(state_of(balance=ETHER // 4))
    assert pool.set_head(poorer, 1.0, [address(0), address(2)]) == [dear]
    small = msgspec.structs.replace(poorer, header=msgspec.structs.replace(HEADER, gas_limit=20_000_000))
    assert pool.set_head(small, 2.0, [address(1)]) == [wide]
    assert list(pool.transactions()) == [fine]
    pool.check()


def test_what_waits_too_long_is_dropped() -> None:
    pool = pool_of(waiting_s_max=10)
    pool.add(signed(0, 5), 0.0)
    pool.add(signed(0, 0), 0.0)
    pool.add(signed(1, 5), 95.0)
    dropped = [tx for step in range(200) for tx in pool.set_head(pool.head, 100.0 + step / 1000)]
    assert dropped == [signed(0, 5)]
    pool.check()


def test_remove() -> None:
    pool = pool_of()
    pool.add(signed(), 0.0)
    assert pool.remove(signed().hash) is signed() and pool.remove(signed().hash) is None
    assert pool.get(signed().hash) is None and pool.queue(address(0)) == []
    pool.check()


def test_what_the_operator_drops_is_unwanted_until_the_head_moves_or_it_is_sent_again() -> None:
    pool = pool_of()
    pool.add(signed(), 0.0)
    pool.add(signed(1), 0.0)
    assert pool.drop((signed().hash, b"unknown", signed(1).hash)) == [signed(), signed(1)]
    assert len(pool) == 0 and pool.unwanted == {signed().hash, signed(1).hash}
    pool.add(signed(), 1.0)
    assert pool.unwanted == {signed(1).hash}
    pool.check()
    pool.set_head(pool.head, 2.0)
    assert pool.unwanted == set()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(3, 12))
def test_any_history_keeps_the_invariants_and_the_order(seed: int, room: int) -> None:
    rng = random.Random(seed)
    pool = pool_of(transactions_max=room, transactions_per_sender_max=4)
    nonces = 0
    for step in range(60):
        action = rng.random()
        if action < 0.85:
            tip = rng.choice((1, 2, 3, 50)) * GWEI
            tx = signed(rng.randrange(len(KEYS)), rng.randrange(6), tip=tip, cap=rng.choice((2, 60, 99)) * GWEI + tip)
            try:
                pool.add(tx, float(step))
                assert tx.hash in pool
            except InvalidTransaction:
                pass
        elif action < 0.95:
            nonces = rng.randrange(4)
            pool.set_head(
                head_of(state_of(nonce=nonces), rng.choice((1, 3, 70)) * GWEI), float(step), map(address, range(8))
            )
        else:
            pool.remove(next((tx.hash for tx in pool.transactions()), b""))
        pool.check()
    expected = {key: nonces for key in map(address, range(len(KEYS)))}
    tips: list[int] = []
    for tx in best(pool, GWEI):
        assert tx.nonce == expected[tx.sender]
        expected[tx.sender] += 1
        tip = effective_tip(tx, GWEI)
        head_of_another = [
            effective_tip(other.tx, GWEI)
            for key, queue in pool._queues.items()
            if key != tx.sender and (other := queue.get(expected[key])) is not None
        ]
        assert all(tip >= other for other in head_of_another)
        tips.append(tip)
