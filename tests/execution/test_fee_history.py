"""Fee history and suggested tips over real blocks."""

from typing import Any

import msgspec
import pytest

from flashblocks.execution.chain import ChainBlock
from flashblocks.execution.fee_history import TIP_WEI_DEFAULT, fee_history, read_percentiles, suggested_tip
from flashblocks.execution.transaction import decode_transaction
from flashblocks.wire.hexadecimal import WireError


def blocks_of(forge: Any, tips: list[list[int]]) -> list[ChainBlock]:
    header, state, made = forge.block.header, forge.state, []
    nonces = [0] * 10
    for wanted in tips:
        raws = []
        for account, tip in enumerate(wanted):
            raws.append(forge.transfer(account, nonces[account], tip=tip))
            nonces[account] += 1
        sealed = forge.seal(header, state, raws)
        transactions = tuple(decode_transaction(raw) for raw in sealed.transactions)
        made.append(ChainBlock(sealed.header, transactions, sealed.receipts, sealed.state))
        header, state = sealed.header, sealed.state
    return made


def test_history(forge: Any) -> None:
    blocks = blocks_of(forge, [[5, 1, 3, 2, 4], []])
    answer = fee_history(forge.spec, blocks, [0, 20, 50, 100])
    assert answer["oldestBlock"] == "0x1"
    assert answer["reward"] == [["0x1", "0x1", "0x3", "0x5"], ["0x0"] * 4]
    assert len(answer["baseFeePerGas"]) == 3
    fees = [int(fee, 16) for fee in answer["baseFeePerGas"]]
    assert fees[:2] == [block.header.base_fee_per_gas for block in blocks] and fees[2] < fees[1]
    assert answer["gasUsedRatio"] == [block.header.gas_used / block.header.gas_limit for block in blocks]
    assert "reward" not in fee_history(forge.spec, blocks, [])


def test_gas_weighs_the_percentiles(forge: Any) -> None:
    (block,) = blocks_of(forge, [[1, 9]])
    heavy = msgspec.structs.replace(block.receipts[2], gas_used=210_000)
    weighted = ChainBlock(block.header, block.transactions, (*block.receipts[:2], heavy), None)
    assert fee_history(forge.spec, [weighted], [9, 10])["reward"] == [["0x1", "0x9"]]


def test_suggested_tip(forge: Any) -> None:
    blocks = blocks_of(forge, [[5 * 10**6, 3 * 10**6, 4 * 10**6]])
    assert suggested_tip(blocks) == TIP_WEI_DEFAULT, "there is plenty of room"
    full = msgspec.structs.replace(blocks[0].header, gas_limit=blocks[0].header.gas_used)
    crowded = [ChainBlock(full, blocks[0].transactions, blocks[0].receipts, None)]
    assert suggested_tip(crowded) == 4 * 10**6
    assert suggested_tip([]) == TIP_WEI_DEFAULT


@pytest.mark.parametrize("value", [5, [101], [-1], [50, 10], ["1"], [True], [1] * 101])
def test_what_are_no_percentiles(value: Any) -> None:
    with pytest.raises(WireError):
        read_percentiles(value)


def test_percentiles() -> None:
    assert read_percentiles(None) == [] and read_percentiles([0, 12.5, 100]) == [0, 12.5, 100]
