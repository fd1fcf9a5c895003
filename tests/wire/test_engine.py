"""Engine API types, hex, JSON-RPC and tokens at their edges."""

import jwt as pyjwt
import pytest

from flashblocks.wire.engine import ForkchoiceState, PayloadAttributes, PayloadStatus, envelope_from_bytes
from flashblocks.wire.hexadecimal import WireError, data, quantity, to_bytes, to_int
from flashblocks.wire.jsonrpc import RpcError, read_request
from flashblocks.wire.jwt import TokenError, check_token, make_token, read_secret

SECRET = bytes(range(32))
NOW = 1_700_000_000.0

ATTRIBUTES = {
    "timestamp": "0x670d6d89",
    "prevRandao": "0x" + "91" * 32,
    "suggestedFeeRecipient": "0x4200000000000000000000000000000000000011",
    "withdrawals": [],
    "parentBeaconBlockRoot": "0x" + "8f" * 32,
    "transactions": ["0x7e01"],
    "noTxPool": False,
    "gasLimit": "0x1c9c380",
    "eip1559Params": "0x000000fa00000006",
}


def test_attributes_survive_and_min_base_fee_is_read_in_both_spellings():
    attributes = PayloadAttributes.from_json(ATTRIBUTES)
    assert attributes.to_json() == ATTRIBUTES
    assert attributes.min_base_fee is None
    for spelling in (100, "0x64"):
        read = PayloadAttributes.from_json({**ATTRIBUTES, "minBaseFee": spelling})
        assert read.min_base_fee == 100
        assert read.to_json()["minBaseFee"] == 100, "a plain number, as op-node writes it and op-reth reads it"


@pytest.mark.parametrize(
    "change",
    [
        {"timestamp": None},
        {"prevRandao": "0x00"},
        {"withdrawals": [{"index": "0x0"}]},
        {"transactions": "0x"},
        {"noTxPool": "yes"},
        {"eip1559Params": "0x00"},
        {"gasLimit": -1},
    ],
)
def test_bad_attributes_are_refused(change):
    with pytest.raises(WireError):
        PayloadAttributes.from_json({**ATTRIBUTES, **change})


def test_a_missing_field_is_named():
    with pytest.raises(WireError, match="gasLimit"):
        PayloadAttributes.from_json({k: v for k, v in ATTRIBUTES.items() if k != "gasLimit"})


def test_states_and_statuses_survive():
    state = ForkchoiceState(b"\1" * 32, b"\2" * 32, b"\3" * 32)
    assert ForkchoiceState.from_json(state.to_json()) == state
    for status in (PayloadStatus("VALID", b"\1" * 32), PayloadStatus("INVALID", None, "bad root")):
        assert PayloadStatus.from_json(status.to_json()) == status
    with pytest.raises(WireError):
        PayloadStatus.from_json({"status": "FINE"})


@pytest.mark.parametrize("raw", [b"", b"\x93\x01\xc4\x00\x90", b"\x93\x02\xc4\x00\x90", b"\x01"])
def test_damaged_envelopes_are_refused(raw):
    with pytest.raises(WireError):
        envelope_from_bytes(raw)


@pytest.mark.parametrize("value", ["", "0x", "12", "0xg", "0x1_0", None, True, -1, 1.5])
def test_what_is_no_quantity_is_refused(value):
    with pytest.raises(WireError):
        to_int(value)


@pytest.mark.parametrize("value", ["", "12", "0x1", "0xzz", "0x 1 2", None, 5])
def test_what_is_no_data_is_refused(value):
    with pytest.raises(WireError):
        to_bytes(value)


def test_hex_is_spelled_as_the_specification_wants():
    assert (quantity(0), quantity(1024), data(b""), data(b"\0\1")) == ("0x0", "0x400", "0x", "0x0001")
    with pytest.raises(WireError, match="expected 32 bytes, got 1"):
        to_bytes("0x00", 32)


@pytest.mark.parametrize("obj", [None, 1, {}, {"method": 1}, {"method": "a", "id": []}, {"method": "a", "params": {}}])
def test_what_is_no_request_is_refused(obj):
    with pytest.raises(RpcError):
        read_request(obj)


def test_a_call_without_id_is_a_notification():
    assert read_request({"method": "a"}).notification
    assert not read_request({"method": "a", "id": None}).notification


def test_a_fresh_token_passes():
    check_token(SECRET, f"Bearer {make_token(SECRET, NOW)}", NOW + 60)
    check_token(SECRET, f"Bearer {make_token(SECRET, NOW)}", NOW - 60)


@pytest.mark.parametrize(
    ("header", "text"),
    [
        (None, "missing token"),
        ("Basic abc", "missing token"),
        (f"Bearer {make_token(SECRET, NOW - 61)}", "stale token"),
        (f"Bearer {make_token(SECRET, NOW + 61)}", "future token"),
        (f"Bearer {make_token(SECRET[::-1], NOW)}", "invalid token"),
        (f"Bearer {pyjwt.encode({}, SECRET, algorithm='HS256')}", "missing issued-at"),
        (f"Bearer {pyjwt.encode({'iat': NOW}, None, algorithm='none')}", "invalid token"),
        (f"Bearer {pyjwt.encode({'iat': NOW, 'exp': NOW - 1}, SECRET, algorithm='HS256')}", "token is expired"),
    ],
)
def test_other_tokens_are_refused_with_the_reason(header, text):
    with pytest.raises(TokenError, match=text):
        check_token(SECRET, header, NOW)


def test_secrets_are_32_bytes_of_hex():
    assert read_secret("0x" + SECRET.hex() + "\n") == SECRET
    assert read_secret(SECRET.hex()) == SECRET
    for text in ("", "0x12", "zz" * 32):
        with pytest.raises(TokenError):
            read_secret(text)
