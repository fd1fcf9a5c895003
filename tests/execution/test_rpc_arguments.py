"""Arguments of JSON-RPC: every spelling that callers use, and a clear refusal of everything else."""

from typing import Any

import pytest

from flashblocks.execution.accounts import TEST_ACCOUNTS
from flashblocks.execution.receipt import Log, bloom_bits
from flashblocks.execution.rpc_arguments import (
    BlockName,
    LogFilter,
    block_name,
    call_arguments,
    header_overrides,
    log_filter,
    overrides,
    slot,
)
from flashblocks.execution.signing import sign_authorization
from flashblocks.wire.hexadecimal import WireError

A, B = b"\xaa" * 20, b"\xbb" * 20
T1, T2, T3 = (bytes([n]) * 32 for n in (1, 2, 3))
HASH = "0x" + "12" * 32


def hexed(value: bytes) -> str:
    return "0x" + value.hex()


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (None, BlockName("latest")),
        ("pending", BlockName("pending")),
        ("0x10", BlockName(number=16)),
        (16, BlockName(number=16)),
        (HASH, BlockName(hash=b"\x12" * 32)),
        ({"blockHash": HASH, "requireCanonical": True}, BlockName(hash=b"\x12" * 32)),
        ({"blockNumber": "0x2"}, BlockName(number=2)),
    ],
)
def test_block_names(value: Any, name: BlockName) -> None:
    assert block_name(value) == name


@pytest.mark.parametrize("value", ["newest", "0x", "-1", True, -1, [], 1.5])
def test_what_is_no_block_name(value: Any) -> None:
    with pytest.raises(WireError):
        block_name(value)


@pytest.mark.parametrize(("value", "position"), [("0x0", 0), ("0x", 0), ("0x01", 1), ("0x" + "0" * 62 + "ff", 255)])
def test_storage_slots(value: str, position: int) -> None:
    assert slot(value) == position


@pytest.mark.parametrize("value", ["0xzz", 5, None, "0x" + "1" * 65, "0x_1"])
def test_what_is_no_storage_slot(value: Any) -> None:
    with pytest.raises(WireError):
        slot(value)


def test_call_objects() -> None:
    assert call_arguments({}) == {}
    read = call_arguments(
        {
            "from": hexed(A),
            "to": hexed(B),
            "data": "0x01",
            "input": "0x01",
            "value": "0x2",
            "gas": "0x5208",
            "maxFeePerGas": "0x7",
            "accessList": [{"address": hexed(A), "storageKeys": [hexed(T1)]}],
            "nonce": "0x0",
        }
    )
    assert read == {
        "sender": A,
        "to": B,
        "data": b"\x01",
        "value": 2,
        "gas": 21_000,
        "gas_price": 7,
        "access_list": ((A, (int.from_bytes(T1, "big"),)),),
    }
    assert call_arguments({"to": None, "gasPrice": "0x1"}) == {"gas_price": 1}


@pytest.mark.parametrize(
    "value",
    [
        None,
        {"data": "0x01", "input": "0x02"},
        {"to": "0x12"},
        {"gasPrice": "0x1", "maxFeePerGas": "0x1"},
        {"value": "1"},
        {"accessList": {}},
        {"accessList": [1]},
        {"data": "0x0"},
    ],
)
def test_what_is_no_call_object(value: Any) -> None:
    with pytest.raises(WireError):
        call_arguments(value)


def test_state_overrides() -> None:
    assert overrides(None) is None
    read = overrides({hexed(A): {"balance": "0x1", "nonce": "0x2", "code": "0x60", "stateDiff": {"0x1": hexed(T1)}}})
    assert read is not None
    entry = read[A]
    assert (entry.balance, entry.nonce, entry.code) == (1, 2, b"\x60")
    assert entry.state_diff == {1: int.from_bytes(T1, "big")} and entry.state is None


@pytest.mark.parametrize(
    "value",
    [[], {"0x12": {}}, {hexed(A): 1}, {hexed(A): {"state": {}, "stateDiff": {}}}, {hexed(A): {"blance": "0x1"}}],
)
def test_what_is_no_state_override(value: Any) -> None:
    with pytest.raises(WireError):
        overrides(value)


LOG = Log(A, (T1, T2), b"")


@pytest.mark.parametrize(
    ("wanted", "passes"),
    [
        ({}, True),
        ({"address": hexed(A)}, True),
        ({"address": [hexed(B), hexed(A)]}, True),
        ({"address": hexed(B)}, False),
        ({"topics": [hexed(T1)]}, True),
        ({"topics": [None, hexed(T2)]}, True),
        ({"topics": [hexed(T2)]}, False),
        ({"topics": [[hexed(T3), hexed(T1)], [hexed(T2)]]}, True),
        ({"topics": [None, None, None]}, False),
        ({"topics": []}, True),
        ({"topics": [[]]}, True),
        ({"address": hexed(A), "topics": [hexed(T1), hexed(T3)]}, False),
    ],
)
def test_log_filters(wanted: Any, passes: bool) -> None:
    chosen = log_filter(wanted)
    assert chosen.matches(LOG) == passes
    bloom = bloom_bits((LOG,)).to_bytes(256, "big")
    assert chosen.may_match(bloom) or not passes, "a bloom never hides a match"
    assert not passes or chosen.may_match(b"\xff" * 256)


def test_a_bloom_without_the_entry_rules_a_block_out() -> None:
    assert not log_filter({"address": hexed(A)}).may_match(bytes(256))
    assert not log_filter({"topics": [None, hexed(T1)]}).may_match(bytes(256))
    assert log_filter(None) == LogFilter() and LogFilter().may_match(bytes(256))


@pytest.mark.parametrize(
    "value",
    [
        7,
        {"blockHash": HASH, "fromBlock": "0x1"},
        {"topics": [None] * 5},
        {"topics": "0x"},
        {"topics": [1]},
        {"address": "0x12"},
        {"address": [hexed(A)] * 1001},
        {"topics": [[hexed(T1)] * 1001]},
    ],
)
def test_what_is_no_filter(value: Any) -> None:
    with pytest.raises(WireError):
        log_filter(value)


def test_authorizations_of_a_call() -> None:
    key = TEST_ACCOUNTS[3]
    signed = sign_authorization(key.private_key, 901, b"\x11" * 20, 4)
    entry = {
        "chainId": hex(signed.chain_id),
        "address": "0x" + signed.address.hex(),
        "nonce": hex(signed.nonce),
        "yParity": hex(signed.y_parity),
        "r": hex(signed.r),
        "s": hex(signed.s),
    }
    (read,) = call_arguments({"authorizationList": [entry]})["authorization_list"]
    assert read == signed and read.authority() == key.address
    for bad in ({}, [1], [{**entry, "address": "0x1"}], [{**entry, "r": None}], [entry] * 257):
        with pytest.raises(WireError):
            call_arguments({"authorizationList": bad})


def test_block_overrides() -> None:
    given = {"number": "0x7", "time": 9, "gasLimit": "0x10", "feeRecipient": hexed(A), "prevRandao": HASH}
    assert header_overrides(given) == {
        "number": 7,
        "timestamp": 9,
        "gas_limit": 16,
        "fee_recipient": A,
        "prev_randao": bytes.fromhex(HASH[2:]),
    }
    assert header_overrides(None) == {}
    for bad in ([], {"beaconRoot": HASH}, {"number": "seven"}, {"prevRandao": "0x12"}):
        with pytest.raises(WireError):
            header_overrides(bad)
