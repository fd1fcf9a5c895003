"""The ingress' picture of accounts: a client's answer, corrected by the stream."""

from flashblocks.ingress.accounts import Accounts
from flashblocks.ingress.admission import AccountFacts

A, B = b"\xaa" * 20, b"\xbb" * 20


def test_a_clients_answer_holds_for_a_while() -> None:
    accounts = Accounts(fresh_s_max=10.0)
    assert accounts.get(A, 0.0) is None
    accounts.learn(A, AccountFacts(3, 100), 0.0)
    assert accounts.get(A, 10.0) == AccountFacts(3, 100)
    assert accounts.get(A, 10.1) is None


def test_the_stream_knows_better_than_a_client_that_has_only_sealed_blocks() -> None:
    """An account funded in the open block may spend in it."""
    accounts = Accounts()
    accounts.flashblock(7, {A: 500})
    assert accounts.learn(A, AccountFacts(0, 0), 0.0) == AccountFacts(0, 500)
    accounts.flashblock(7, {A: 400, B: 1})
    assert accounts.get(A, 0.0) == AccountFacts(0, 400)
    accounts.flashblock(8, {})
    assert accounts.get(A, 0.0) == AccountFacts(0, 400)
    assert accounts.learn(B, AccountFacts(2, 9), 0.0) == AccountFacts(2, 9)


def test_a_replayed_older_block_changes_nothing() -> None:
    accounts = Accounts()
    accounts.flashblock(8, {A: 500})
    accounts.flashblock(7, {A: 1})
    assert accounts.learn(A, AccountFacts(0, 0), 0.0).balance == 500


def test_included_transactions_advance_the_nonce() -> None:
    accounts = Accounts()
    accounts.learn(A, AccountFacts(3, 100), 0.0)
    accounts.included(A, 3)
    accounts.included(A, 2)
    accounts.included(B, 9)
    assert accounts.get(A, 0.0) == AccountFacts(4, 100)
    assert accounts.learn(A, AccountFacts(3, 90), 1.0) == AccountFacts(4, 90)


def test_the_table_has_a_bound() -> None:
    accounts = Accounts(accounts_max=2)
    for byte in range(5):
        accounts.learn(bytes([byte]) * 20, AccountFacts(0, 0), 0.0)
    assert len(accounts) == 2
    assert accounts.get(b"\x04" * 20, 0.0) is not None
