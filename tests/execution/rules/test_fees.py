"""Fees and their forks: base fee, extra data, operator fee, DA footprint, at and around the activation of Jovian."""

import random
from typing import Any

import msgspec
import pytest

from flashblocks.execution import (
    InvalidAttributes,
    InvalidBlock,
    InvalidTransaction,
    decode_transaction,
    execute_block,
    fees,
)
from flashblocks.execution.chain_spec import HOLOCENE, ISTHMUS, JOVIAN, ChainSpec
from flashblocks.execution.fees import L1Parameters
from flashblocks.execution.header import Header
from flashblocks.execution.transaction import MINIMUM_FEE_UP_TO_BYTES

STRANGER = b"\x77" * 20
SPEC = ChainSpec(chain_id=901)
JOVIAN_SPEC = ChainSpec(chain_id=901, jovian_time=0)
L1 = L1Parameters(10**9, 3, 5_227, 1_014_213, 2_000_000, 77, 400)


def parent(**fields: Any) -> Header:
    values: dict[str, Any] = {
        "parent_hash": bytes(32),
        "fee_recipient": bytes(20),
        "state_root": bytes(32),
        "number": 1,
        "gas_limit": 60_000_000,
        "timestamp": 10,
        "base_fee_per_gas": 1_000_000,
        "extra_data": b"\0" + (250).to_bytes(4, "big") + (6).to_bytes(4, "big"),
    }
    return Header(**{**values, **fields})


@pytest.mark.parametrize(
    ("gas_used", "base_fee", "expected"),
    [
        (10_000_000, 1_000_000, 1_000_000),
        (20_000_000, 1_000_000, 1_004_000),
        (60_000_000, 1_000_000, 1_020_000),
        (0, 1_000_000, 996_000),
        (10_000_001, 1_000_000, 1_000_001),  # at least one wei more
        (0, 1, 1),
        (5_000_000, 270, 270),  # less than one wei of change rounds to none
    ],
)
def test_base_fee_update(gas_used: int, base_fee: int, expected: int) -> None:
    assert fees.next_base_fee(SPEC, parent(gas_used=gas_used, base_fee_per_gas=base_fee)) == expected


def test_jovian_base_fee_counts_data_and_has_a_minimum() -> None:
    extra = b"\1" + (250).to_bytes(4, "big") + (6).to_bytes(4, "big")
    header = parent(extra_data=extra + bytes(8), gas_used=1, blob_gas_used=20_000_000)
    assert fees.next_base_fee(JOVIAN_SPEC, header) == 1_004_000
    header = parent(extra_data=extra + (10**9).to_bytes(8, "big"))
    assert fees.next_base_fee(JOVIAN_SPEC, header) == 10**9


@pytest.mark.parametrize(
    ("spec", "extra"),
    [
        (SPEC, b""),
        (SPEC, b"\1" + bytes(8)),
        (SPEC, b"\0" + bytes(7) + b"\1"),
        (SPEC, b"\0" + b"\1" * 16),
        (JOVIAN_SPEC, b"\0" + b"\1" * 8),
        (JOVIAN_SPEC, b"\0" + b"\1" * 16),
    ],
)
def test_bad_extra_data_is_refused(spec: ChainSpec, extra: bytes) -> None:
    with pytest.raises(InvalidBlock, match="extra data"):
        fees.decode_extra_data(spec, parent(extra_data=extra))


def test_extra_data_of_attributes() -> None:
    constants = (250).to_bytes(4, "big") + (6).to_bytes(4, "big")
    own = (8).to_bytes(4, "big") + (2).to_bytes(4, "big")
    assert fees.encode_extra_data(SPEC, 1, bytes(8), None) == b"\0" + constants
    assert fees.encode_extra_data(SPEC, 1, own, None) == b"\0" + own
    assert fees.encode_extra_data(JOVIAN_SPEC, 1, own, 5) == b"\1" + own + (5).to_bytes(8, "big")
    for spec, params, minimum in (
        (SPEC, b"", None),
        (SPEC, bytes(7) + b"\1", None),
        (SPEC, b"\0\0\0\1" + bytes(4), None),
        (SPEC, bytes(8), 1),
        (JOVIAN_SPEC, bytes(8), None),
    ):
        with pytest.raises(InvalidAttributes):
            fees.encode_extra_data(spec, 1, params, minimum)


def test_fee_formulas() -> None:
    # The smallest transaction counts as 100 bytes: 16 · 5227 · 1e9 + 1014213 · 3 per million, times 100.
    price = 16 * 5_227 * 10**9 + 1_014_213 * 3
    assert fees.l1_fee(50, L1) == 100_000_000 * price // 10**12
    assert fees.l1_fee(1_000, L1) == (836_500_000 - 42_585_600) * price // 10**12
    assert fees.l1_gas_used(50) == 1_600
    assert fees.operator_fee(21_000, L1, HOLOCENE) == 0
    assert fees.operator_fee(21_000, L1, ISTHMUS) == 42_000 + 77
    assert fees.operator_fee(21_000, L1, JOVIAN) == 21_000 * 2_000_000 * 100 + 77
    assert fees.da_footprint(50, L1) == 100 * 400
    assert fees.da_footprint(1_000, L1) == 793 * 400


def test_short_transactions_need_no_compression(chain: Any) -> None:
    chance = random.Random(3)
    for size in range(0, 120, 3):
        tx = decode_transaction(chain.send(1, STRANGER, data=chance.randbytes(size), gas_limit=60_000))
        assert fees.estimated_l1_size(tx.fee_size) == fees.estimated_l1_size(tx.fastlz_size)
    assert fees.estimated_l1_size(170) == fees.L1_SIZE_MINIMUM < fees.estimated_l1_size(171)
    assert MINIMUM_FEE_UP_TO_BYTES + (MINIMUM_FEE_UP_TO_BYTES + 31) // 32 == 170


def test_jovian_blocks_carry_their_footprint_and_refuse_too_much(new_chain: Any) -> None:
    chain = new_chain(jovian_time=0, min_base_fee=1_000)
    chain.l1 = {"da_footprint_gas_scalar": 65_535, "operator_fee_scalar": 1}
    block = chain.open(gas_limit=60_000_000, min_base_fee=7)
    assert block.base_fee >= 1_000
    receipt = block.append(chain.send(1, STRANGER, value=1))
    assert receipt.blob_gas_used == 100 * 65_535 == block.da_footprint
    assert receipt.da_footprint_gas_scalar == 65_535
    for _ in range(8):
        block.append(chain.send(1, STRANGER, value=1))
    with pytest.raises(InvalidTransaction, match="DA footprint"):
        block.append(chain.send(1, STRANGER, value=1))
    sealed = block.seal()
    assert sealed.header.blob_gas_used == 9 * 6_553_500
    assert sealed.header.extra_data[9:] == (7).to_bytes(8, "big")
    execute_block(chain.spec, chain.head, chain.state, sealed.block)
    with pytest.raises(InvalidBlock, match="blob_gas_used"):
        wrong = msgspec.structs.replace(sealed.header, blob_gas_used=1)
        execute_block(chain.spec, chain.head, chain.state, msgspec.structs.replace(sealed.block, header=wrong))
    chain.advance(sealed)
    assert fees.next_base_fee(chain.spec, chain.head) > chain.head.base_fee_per_gas  # the footprint is above the target


def test_jovian_activates_by_time(new_chain: Any) -> None:
    chain = new_chain()
    chain.spec = msgspec.structs.replace(chain.spec, jovian_time=chain.head.timestamp + 4)
    costs = []
    for _ in range(3):
        block = chain.open()
        costs.append(block.append(chain.send(1, STRANGER, value=1)))
        sealed = block.seal()
        execute_block(chain.spec, chain.head, chain.state, sealed.block)
        chain.advance(sealed)
        assert len(sealed.header.extra_data) == (17 if chain.spec.is_jovian(sealed.header.timestamp) else 9)
    assert [receipt.da_footprint_gas_scalar for receipt in costs] == [None, 400, 400]


def test_a_zero_footprint_scalar_means_the_default(new_chain: Any) -> None:
    chain = new_chain(jovian_time=0)
    chain.l1 = {"da_footprint_gas_scalar": 0}
    assert chain.open().append(chain.send(1, STRANGER, value=1)).blob_gas_used == 40_000
