"""Transactions sent from here: by hash, by nonce, bounded, gone when sealed."""

from flashblocks.execution.accounts import TEST_ACCOUNTS
from flashblocks.execution.signing import sign_transaction
from flashblocks.execution.transaction import Transaction, decode_transaction
from flashblocks.preconf.sent import SentTransactions

ALICE = TEST_ACCOUNTS[0]


def transaction(nonce: int, value: int = 1) -> Transaction:
    return decode_transaction(
        sign_transaction(
            ALICE.private_key,
            chain_id=901,
            nonce=nonce,
            to=TEST_ACCOUNTS[9].address,
            value=value,
            max_fee_per_gas=10**9,
            max_priority_fee_per_gas=1,
        )
    )


def test_nonces_count_without_a_gap() -> None:
    sent = SentTransactions()
    for nonce in (5, 6, 8):
        sent.add(transaction(nonce), 0.0)
    assert sent.next_nonce(ALICE.address, 5) == 7
    assert sent.next_nonce(ALICE.address, 7) == 7
    assert sent.next_nonce(ALICE.address, 8) == 9
    assert sent.next_nonce(b"\x11" * 20, 3) == 3


def test_a_replacement_takes_the_place_and_a_seal_clears_the_nonce() -> None:
    sent = SentTransactions()
    old, new = transaction(0), transaction(0, value=2)
    sent.add(old, 0.0)
    sent.add(new, 0.0)
    assert sent.get(old.hash) is None
    assert sent.get(new.hash) is new
    sent.sealed([old])  # the other one with this nonce made it after all
    assert len(sent) == 0
    assert sent.next_nonce(ALICE.address, 0) == 0


def test_bounds_in_number_and_time() -> None:
    sent = SentTransactions(transactions_max=3, seconds_max=10.0)
    for nonce in range(5):
        sent.add(transaction(nonce), float(nonce))
    assert len(sent) == 3
    assert sent.get(transaction(1).hash) is None
    sent.add(transaction(9), 13.5)
    assert len(sent) == 2
    assert sent.get(transaction(4).hash) is not None


def test_what_was_dropped_is_forgotten_and_its_nonce_is_free() -> None:
    sent = SentTransactions()
    first, second, third = (transaction(nonce) for nonce in (4, 5, 3))
    for each in (first, second, third):
        sent.add(each, 0.0)
    assert sent.queue(ALICE.address) == [third.hash, first.hash, second.hash]
    assert sent.hashes() == [first.hash, second.hash, third.hash]
    sent.forget(first.hash)
    sent.forget(first.hash)
    assert sent.get(first.hash) is None
    assert sent.next_nonce(ALICE.address, 3) == 4
    assert sent.queue(b"\x11" * 20) == []
