"""The importer refuses a block with any field changed."""

from typing import Any

import msgspec
import pytest

from flashblocks.execution import Block, InvalidBlock, execute_block

CHANGES = {
    "parent_hash": b"\1" * 32,
    "uncles_hash": b"\1" * 32,
    "fee_recipient": b"\1" * 20,
    "state_root": b"\1" * 32,
    "transactions_root": b"\1" * 32,
    "receipts_root": b"\1" * 32,
    "logs_bloom": b"\1" * 256,
    "difficulty": 1,
    "number": 5,
    "gas_limit": 20_000,
    "gas_used": 1,
    "timestamp": 1,
    "extra_data": b"",
    "prev_randao": None,  # free: any value is a valid block with another hash
    "nonce": b"\1" * 8,
    "base_fee_per_gas": 1,
    "withdrawals_root": b"\1" * 32,
    "blob_gas_used": 1,
    "excess_blob_gas": 1,
    "parent_beacon_root": b"\1" * 32,
    "requests_hash": None,
}


@pytest.mark.parametrize("field", list(CHANGES))
def test_every_field_is_checked(chain: Any, wallets: list[bytes], field: str) -> None:
    block = chain.open()
    block.append(chain.send(1, wallets[2], value=5))
    good = block.seal().block
    execute_block(chain.spec, chain.head, chain.state, good)
    if field == "prev_randao":
        return
    bad = Block(msgspec.structs.replace(good.header, **{field: CHANGES[field]}), good.transactions)
    with pytest.raises(InvalidBlock):
        execute_block(chain.spec, chain.head, chain.state, bad)


def test_transactions_must_be_the_blocks_own(chain: Any, wallets: list[bytes]) -> None:
    block = chain.open()
    block.append(chain.send(1, wallets[2], value=5))
    good = block.seal().block
    for transactions in ((), good.transactions[:1], (*good.transactions, good.transactions[1])):
        with pytest.raises(InvalidBlock):
            execute_block(chain.spec, chain.head, chain.state, Block(good.header, transactions))


def test_blocks_survive_their_encoding(chain: Any, wallets: list[bytes]) -> None:
    block = chain.open()
    for kind in (0, 1, 2):
        block.append(chain.send(1, wallets[2], value=5, kind=kind))
    good = block.seal().block
    again = Block.from_rlp(good.rlp())
    assert again == good
    assert again.hash == good.hash
    execute_block(chain.spec, chain.head, chain.state, again)
    for encoded in (b"", b"\xc0", good.rlp()[:-1], good.rlp() + b"\0", good.header.rlp()):
        with pytest.raises(InvalidBlock):
            Block.from_rlp(encoded)
