import gzip
import json
import os
from pathlib import Path

import pytest

from flashblocks.sequencing.deposits import (
    L1_INFO_DOMAIN,
    USER_DEPOSIT_DOMAIN,
    L1Info,
    UserDeposit,
    decode_l1_info,
    encode_deposit,
    encode_l1_info,
    encode_user_deposit,
    source_hash,
)
from flashblocks.wire.hexadecimal import WireError
from flashblocks.wire.keccak import keccak256

VECTORS = Path(os.environ.get("FLASHBLOCKS_VECTORS", Path(__file__).parents[3] / "shared" / "vectors"))

# Transaction 0 of OP-Sepolia block 26207960 (Ecotone format).
OP_SEPOLIA_26207960 = bytes.fromhex(
    "7ef8f8a077efb5d9d697e7e37fffcb8b904e28df49667b73d9fc17515eb0e4a0c377d3db94deaddeaddeaddeaddeaddeaddeaddeaddead0001"
    "9442000000000000000000000000000000000000158080830f424080b8a4440a5e2000001db0000d273000000000000000000000000067f6a9"
    "1000000000007b5f410000000000000000000000000000000000000000000000000000000001d276cd0000000000000000000000000000000"
    "0000000000000000000000000000000019244875342f5e0c1624d00f249b1a7996137b1eb44bdf16396f98f76a1bec6fa0000000000000000"
    "000000008f23bb38f531600e5d8fddaaec41f13fab46e98c"
)
INFO = L1Info(
    number=7,
    timestamp=1_700_000_000,
    base_fee=10**9,
    blob_base_fee=1,
    hash=b"\x11" * 32,
    sequence_number=3,
    batcher_hash=b"\0" * 12 + b"\x22" * 20,
    base_fee_scalar=1368,
    blob_base_fee_scalar=810_949,
    operator_fee_scalar=5,
    operator_fee_constant=6,
)


def test_a_real_deposit_is_read() -> None:
    info = decode_l1_info(OP_SEPOLIA_26207960)
    assert (info.number, info.sequence_number, info.timestamp) == (8_085_313, 0, 1_744_218_384)
    assert (info.base_fee, info.blob_base_fee, info.base_fee_scalar) == (30_570_189, 1, 7600)
    assert info.operator_fee_scalar == 0 and info.da_footprint_gas_scalar is None


def test_the_source_hash_of_a_real_deposit_is_reproduced() -> None:
    info = decode_l1_info(OP_SEPOLIA_26207960)
    assert source_hash(L1_INFO_DOMAIN, info.hash, info.sequence_number) == OP_SEPOLIA_26207960[4:36]


def test_a_real_deposit_is_encoded_byte_for_byte() -> None:
    calldata = OP_SEPOLIA_26207960[-164:]
    deposit = UserDeposit(
        sender=bytes.fromhex("deaddeaddeaddeaddeaddeaddeaddeaddead0001"),
        to=bytes.fromhex("4200000000000000000000000000000000000015"),
        gas=1_000_000,
        data=calldata,
    )
    assert encode_deposit(OP_SEPOLIA_26207960[4:36], deposit) == OP_SEPOLIA_26207960


@pytest.mark.parametrize("path", sorted(VECTORS.glob("op-sepolia/*.gz")), ids=lambda path: path.name)
def test_every_vector_agrees(path: Path) -> None:
    first = json.loads(gzip.decompress(path.read_bytes()))["payload_attributes"]["transactions"][0]
    raw = bytes.fromhex(first[2:])
    info = decode_l1_info(raw)
    assert source_hash(L1_INFO_DOMAIN, info.hash, info.sequence_number) == raw[4:36]


def test_isthmus_calldata_has_its_layout() -> None:
    calldata = INFO.to_calldata()
    assert len(calldata) == 176
    assert calldata[:4] == keccak256(b"setL1BlockValuesIsthmus()")[:4]
    assert calldata[12:20] == (3).to_bytes(8, "big")
    assert calldata[100:132] == b"\x11" * 32
    assert calldata[164:168] == (5).to_bytes(4, "big")
    assert calldata[168:176] == (6).to_bytes(8, "big")


def test_jovian_calldata_appends_the_da_scalar() -> None:
    import msgspec

    info = msgspec.structs.replace(INFO, da_footprint_gas_scalar=400)
    calldata = info.to_calldata()
    assert calldata[:4] == keccak256(b"setL1BlockValuesJovian()")[:4]
    assert calldata[4:176] == INFO.to_calldata()[4:]
    assert calldata[176:] == (400).to_bytes(2, "big")
    assert L1Info.from_calldata(calldata) == info


def test_l1_info_survives_the_round_trip() -> None:
    assert decode_l1_info(encode_l1_info(INFO)) == INFO


def test_user_deposits_differ_by_log_index_even_when_equal() -> None:
    deposit = UserDeposit(sender=b"\1" * 20, to=b"\2" * 20, mint=5, value=5)
    first, second = (encode_user_deposit(deposit, b"\x11" * 32, index) for index in (0, 1))
    assert first != second
    assert first[:1] == b"\x7e"
    assert source_hash(USER_DEPOSIT_DOMAIN, b"\x11" * 32, 0) in first


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x02" + OP_SEPOLIA_26207960[1:],
        OP_SEPOLIA_26207960[:-1],
        OP_SEPOLIA_26207960 + b"\0",
        encode_deposit(b"\0" * 32, UserDeposit(sender=b"\1" * 20, to=b"\2" * 20)),
        encode_l1_info(INFO).replace(bytes.fromhex("098999be"), bytes.fromhex("098999bf")),
    ],
)
def test_anything_else_is_refused(raw: bytes) -> None:
    with pytest.raises(WireError):
        decode_l1_info(raw)
