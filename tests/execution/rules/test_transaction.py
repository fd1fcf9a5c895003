"""Decoding: other libraries' transactions come out right, and hostile bytes are refused with nothing but our error."""

from typing import Any

import pytest
from eth_account import Account as Wallet
from hypothesis import given, settings
from hypothesis import strategies as st

from flashblocks.execution import InvalidTransaction, decode_transaction, encode_deposit, recover_sender
from flashblocks.execution.accounts import TEST_ACCOUNTS
from flashblocks.execution.keccak import keccak256
from flashblocks.execution.rlp import decode_list, encode, encode_bytes
from flashblocks.execution.signature import choose_recover
from flashblocks.execution.signing import address_of, sign_digest, sign_transaction

KEY = TEST_ACCOUNTS[3].private_key
TO = b"\x31" * 20
COMMON = {"nonce": 7, "gas": 90_000, "to": "0x" + TO.hex(), "value": 5, "data": "0x0102", "chainId": 901}
SLOT = "0x" + "07".rjust(64, "0")
ACCESS = [{"address": "0x" + "32" * 20, "storageKeys": [SLOT]}]
DYNAMIC = {"maxFeePerGas": 10, "maxPriorityFeePerGas": 2}


def foreign(fields: dict[str, Any]) -> bytes:
    return bytes(Wallet.sign_transaction({**COMMON, **fields}, KEY).raw_transaction)


def foreign_authorization() -> Any:
    return Wallet.sign_authorization({"chainId": 901, "address": "0x" + "33" * 20, "nonce": 3}, KEY)


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"gasPrice": 9}, 0),
        ({"gasPrice": 9, "accessList": ACCESS, "type": 1}, 1),
        ({**DYNAMIC, "accessList": ACCESS, "type": 2}, 2),
        ({**DYNAMIC, "type": 4}, 4),
    ],
)
def test_transactions_of_eth_account(fields: dict[str, Any], kind: int) -> None:
    if kind == 4:
        fields = {**fields, "authorizationList": [foreign_authorization()]}
    raw = foreign(fields)
    tx = decode_transaction(raw)
    assert (tx.type, tx.nonce, tx.gas_limit, tx.to, tx.value, tx.data) == (kind, 7, 90_000, TO, 5, b"\1\2")
    assert tx.chain_id == 901
    assert tx.max_fee_per_gas == fields.get("gasPrice", 10)
    assert tx.max_priority_fee_per_gas == fields.get("gasPrice", 2)
    assert tx.sender == TEST_ACCOUNTS[3].address
    assert tx.hash == keccak256(raw)
    if kind in (1, 2):
        assert tx.access_list == ((b"\x32" * 20, (7,)),)
    if kind == 4:
        (authorization,) = tx.authorization_list
        assert authorization.authority() == TEST_ACCOUNTS[3].address
        assert (authorization.address, authorization.nonce) == (b"\x33" * 20, 3)


@pytest.mark.parametrize("kind", [0, 1, 2])
def test_our_own_signing_is_what_eth_account_recovers(kind: int) -> None:
    raw = sign_transaction(KEY, chain_id=901, nonce=1, to=TO, value=1, kind=kind)
    assert Wallet.recover_transaction(raw).lower() == "0x" + address_of(KEY).hex()


def test_contract_creation_and_unprotected_legacy() -> None:
    assert decode_transaction(sign_transaction(KEY, chain_id=901, nonce=0, to=None, data=b"\1")).to is None
    fields = decode_list(sign_transaction(KEY, chain_id=901, nonce=0, to=TO, kind=0))[:6]
    r, s, parity = sign_digest(keccak256(encode(fields)), KEY)
    numbers = [value.to_bytes(32, "big").lstrip(b"\0") for value in (27 + parity, r, s)]
    tx = decode_transaction(encode([*fields, *numbers]))
    assert tx.chain_id is None
    assert tx.sender == address_of(KEY)


def test_deposits_round_trip() -> None:
    fields: dict[str, Any] = {"source_hash": b"\1" * 32, "sender": b"\2" * 20, "mint": 9, "value": 8, "gas_limit": 7}
    for to in (None, TO):
        for system in (False, True):
            tx = decode_transaction(encode_deposit(to=to, data=b"abc", is_system=system, **fields))
            assert (tx.type, tx.sender, tx.to, tx.mint, tx.value, tx.gas_limit) == (0x7E, b"\2" * 20, to, 9, 8, 7)
            assert (tx.source_hash, tx.data, tx.is_system) == (b"\1" * 32, b"abc", system)
            assert recover_sender(tx) == b"\2" * 20


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"", "too short"),
        (b"\x03" + encode([b""] * 14), "type not supported"),  # blobs
        (b"\x05\xc0", "type not supported"),
        (b"\x02", "rlp"),
        (b"\x02\xc0", "expected 12 fields"),
        (encode([b""] * 9), "v, r, s"),
        (b"\x02" + encode([b"\0", *[b""] * 11]), "leading zero"),
        (b"\x02" + encode([b"", b"\1" * 9, *[b""] * 10]), "too large"),
        (b"\x02" + encode([*[b""] * 5, b"\1" * 19, *[b""] * 6]), "expected 20 bytes"),
        (b"\x02" + encode([*[b""] * 8, b"", *[b""] * 3]), "expected a list"),
        (b"\x7e" + encode([b"\1" * 32, b"\2" * 20, b"", b"", b"", b"", b"\2", b""]), "boolean"),
    ],
)
def test_refused(raw: bytes, text: str) -> None:
    with pytest.raises(InvalidTransaction, match=text):
        decode_transaction(raw)


GOOD = [
    sign_transaction(KEY, chain_id=901, nonce=0, to=TO, kind=kind, access_list=((TO, (1,)),) if kind else ())
    for kind in (0, 1, 2)
]


@settings(max_examples=300)
@given(st.sampled_from(GOOD), st.integers(0, 200), st.integers(0, 255), st.booleans())
def test_a_changed_byte_is_another_transaction_or_none(raw: bytes, at: int, value: int, cut: bool) -> None:
    at %= len(raw)
    changed = raw[:at] if cut else raw[:at] + bytes([value]) + raw[at + 1 :]
    try:
        tx = decode_transaction(changed)
        tx.sender  # noqa: B018 - recovery may refuse too
    except InvalidTransaction:
        return
    assert tx.hash == keccak256(changed)
    assert changed == raw or tx.sender != address_of(KEY)


@given(st.binary(max_size=200))
def test_random_bytes_raise_only_our_error(data: bytes) -> None:
    for prefix in (b"", b"\x01", b"\x02", b"\x04", b"\x7e"):
        for body in (data, encode_bytes(data), encode([data, [data, [data]]])):
            try:
                decode_transaction(prefix + body)
            except InvalidTransaction:
                pass


def test_pure_python_recovery_agrees() -> None:
    digest = b"\x77" * 32
    r, s, parity = sign_digest(digest, KEY)
    assert (
        choose_recover(native=False)(digest, r, s, parity) == choose_recover()(digest, r, s, parity) == address_of(KEY)
    )
