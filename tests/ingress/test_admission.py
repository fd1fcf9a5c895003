"""What is refused at the door, and in which words."""

from typing import Any

import pytest
from eth_account import Account

from flashblocks.execution.errors import InvalidTransaction
from flashblocks.execution.transaction import encode_deposit
from flashblocks.ingress.admission import NONCES_AHEAD_MAX, AccountFacts, Terms, check, outbids, read

TERMS = Terms(chain_id=901, gas_limit=140_000_000, base_fee=1_000_000)
RICH = AccountFacts(nonce=5, balance=10**20)
DEPOSIT = encode_deposit(
    source_hash=bytes(32), sender=bytes(20), to=bytes(20), mint=1, value=1, gas_limit=21_000, data=b""
)
SENDER = Account.from_key(b"\x01" * 32)


def raw(**changes: Any) -> bytes:
    fields: dict[str, Any] = {
        "chainId": 901,
        "nonce": 5,
        "gas": 21_000,
        "maxFeePerGas": 10**9,
        "maxPriorityFeePerGas": 1,
        "to": "0x" + "22" * 20,
        "value": 5,
        "type": 2,
    }
    fields |= changes
    fields = {name: value for name, value in fields.items() if value is not None}
    return bytes(SENDER.sign_transaction(fields).raw_transaction)


def refusal(encoded: bytes, account: AccountFacts | None = RICH, queued_cost: int = 0) -> str:
    with pytest.raises(InvalidTransaction) as caught:
        check(read(encoded), TERMS, account, queued_cost)
    return str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"nonce": 5 + NONCES_AHEAD_MAX - 1},
        {"type": 1, "accessList": [], "gasPrice": 10**9, "maxFeePerGas": None, "maxPriorityFeePerGas": None},
        {"type": None, "gasPrice": 10**9, "maxFeePerGas": None, "maxPriorityFeePerGas": None},
        {"to": None, "data": "0x00", "gas": 60_000},
    ],
    ids=["1559", "far nonce", "2930", "legacy", "creation"],
)
def test_let_in(changes: dict[str, Any]) -> None:
    transaction = read(raw(**changes))
    check(transaction, TERMS, RICH)
    assert transaction.sender == bytes.fromhex(SENDER.address[2:])


@pytest.mark.parametrize(
    ("encoded", "text"),
    [
        (b"", "typed transaction too short"),
        (b"\x05\x01", "transaction type not supported"),
        (b"\x03\xc0", "transaction type not supported"),
        (DEPOSIT, "transaction type not supported"),
        (b"\x02" + b"\xc0", "rlp: expected 12 fields, found 0"),
        (raw()[:-1], "rlp"),
        (raw(data="0x" + "ff" * 140_000, gas=10**7), "oversized data: transaction size"),
        (raw(chainId=902), "invalid chain id for signer: have 902 want 901"),
        (raw(gas=20_999), "intrinsic gas too low: gas 20999, minimum needed 21000"),
        (raw(gas=140_000_001), "exceeds block gas limit"),
        (raw(maxPriorityFeePerGas=2 * 10**9), "max priority fee per gas higher than max fee per gas"),
        (raw(maxFeePerGas=999_999), "max fee per gas less than block base fee: address 0x"),
        (raw(nonce=4), "nonce too low: next nonce 5, tx nonce 4"),
        (raw(nonce=5 + NONCES_AHEAD_MAX), "nonce too high: address 0x"),
        (raw(value=10**21), "insufficient funds for gas * price + value: balance 100000000000000000000, tx cost"),
    ],
)
def test_refused(encoded: bytes, text: str) -> None:
    assert text in refusal(encoded)


def test_a_flipped_signature_has_another_sender_or_none() -> None:
    encoded = bytearray(raw())
    encoded[-40] ^= 0xFF
    try:
        assert read(bytes(encoded)).sender != bytes.fromhex(SENDER.address[2:])
    except InvalidTransaction as refused:
        assert "sig" in str(refused) or "sender" in str(refused)


def test_the_cost_of_what_already_waits_counts() -> None:
    assert "queued cost 100000000000000000000" in refusal(raw(), queued_cost=10**20)


def test_nothing_known_of_the_account_is_left_to_the_pools() -> None:
    check(read(raw(nonce=0, value=10**30)), TERMS, None)


def test_a_replacement_needs_a_tenth_more_of_both_fees() -> None:
    old = read(raw(maxFeePerGas=10**9, maxPriorityFeePerGas=10))
    assert outbids(read(raw(maxFeePerGas=11 * 10**8, maxPriorityFeePerGas=11)), old)
    assert not outbids(read(raw(maxFeePerGas=11 * 10**8, maxPriorityFeePerGas=10)), old)
    assert not outbids(read(raw(maxFeePerGas=11 * 10**8 - 1, maxPriorityFeePerGas=20)), old)
