"""Senders of load: nonces are used once, and a refused one is used next."""

from chaos.senders import Senders
from flashblocks.execution import decode_transaction, recover_sender
from flashblocks.execution.accounts import TEST_ACCOUNTS

ACCOUNTS = [
    {"address": "0x" + account.address.hex(), "private_key": "0x" + account.private_key.hex()}
    for account in TEST_ACCOUNTS
]


def test_accounts_take_turns_and_sign_for_themselves() -> None:
    senders = Senders(901, ACCOUNTS)
    sender, other = senders.pair(13)
    assert sender is senders.all[3]
    assert other is senders.all[4]
    raw, nonce = sender.sign(to=b"\1" * 20, value=5)
    transaction = decode_transaction(raw)
    assert (transaction.nonce, transaction.value, transaction.chain_id) == (nonce, 5, 901)
    assert "0x" + recover_sender(transaction).hex() == sender.address


def test_a_nonce_that_was_given_back_is_used_before_new_ones() -> None:
    sender = Senders(901, ACCOUNTS).all[0]
    sender.nonce = 7
    assert [sender.sign(to=b"\1" * 20)[1] for _ in range(3)] == [7, 8, 9]
    sender.give_back(8)
    sender.give_back(7)
    assert [sender.sign(to=b"\1" * 20)[1] for _ in range(3)] == [7, 8, 10]
