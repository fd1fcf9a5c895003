"""The block tree: what is known, what is canonical, what a reorg moves, and what is forgotten."""

from typing import Any

import msgspec
import pytest

from flashblocks.execution import chain as chain_module
from flashblocks.execution.chain import Chain, Imported, UnknownBlock
from flashblocks.execution.header import Block
from flashblocks.execution.transaction import decode_transaction


def imported(chain: Chain, blocks: list[Block]) -> list[Block]:
    for block in blocks:
        assert chain.import_block(block) == Imported("VALID", block.hash)
    return blocks


def test_importing_does_not_move_the_head(forge: Any) -> None:
    chain = forge.chain()
    blocks = imported(chain, forge.blocks(3))
    assert chain.head.number == 0 and chain.by_number(1) is None
    change = chain.set_head(blocks[2].hash, blocks[1].hash, blocks[0].hash)
    assert [block.hash for block in change.added] == [block.hash for block in blocks]
    assert change.removed == ()
    assert chain.head.hash == blocks[2].hash
    assert (chain.safe_hash, chain.finalized_hash) == (blocks[1].hash, blocks[0].hash)
    assert [chain.canonical_hash(number) for number in range(4)] == [forge.block.hash, *(b.hash for b in blocks)]


def test_lookups(forge: Any) -> None:
    chain = forge.chain()
    blocks = imported(chain, forge.blocks(2))
    chain.set_head(blocks[1].hash)
    block = chain.block(blocks[0].hash)
    assert block is not None and block.block() == blocks[0] and blocks[0].hash in chain
    transfer = decode_transaction(blocks[0].transactions[1])
    found = chain.find_transaction(transfer.hash)
    assert found is not None and (found[0].hash, found[1]) == (blocks[0].hash, 1)
    assert found[0].receipts[1].gas_used == 21_000
    assert chain.find_transaction(bytes(32)) is None and chain.block(bytes(32)) is None
    state = chain.state(blocks[1].hash)
    assert state is not None and state.root == blocks[1].header.state_root


def test_an_unknown_parent_is_syncing_and_a_known_block_is_valid(forge: Any) -> None:
    chain = forge.chain()
    first, second = forge.blocks(2)
    assert chain.import_block(second) == Imported("SYNCING")
    imported(chain, [first, second, first])
    with pytest.raises(UnknownBlock, match="unknown head"):
        chain.set_head(bytes(32))


def test_a_bad_block_and_its_children_are_invalid(forge: Any) -> None:
    chain = forge.chain()
    first, second = forge.blocks(2)
    imported(chain, [first])
    bad = Block(msgspec.structs.replace(second.header, gas_used=1), second.transactions)
    verdict = chain.import_block(bad)
    assert (verdict.status, verdict.latest_valid_hash) == ("INVALID", first.hash)
    assert verdict.error is not None and "gas_used" in verdict.error
    assert chain.import_block(bad) == verdict and bad.hash not in chain
    child = Block(msgspec.structs.replace(second.header, parent_hash=bad.hash, number=3), ())
    orphan = chain.import_block(child)
    assert orphan == Imported("INVALID", first.hash, "links to previously rejected block")
    garbage = Block(second.header, (*second.transactions, b"\x02\xc0"))
    assert chain.import_block(garbage).status == "INVALID"


def test_what_is_bad_is_remembered_within_a_bound(forge: Any) -> None:
    chain = forge.chain()
    (first,) = forge.blocks(1)
    for gas in range(chain_module.INVALID_REMEMBERED_MAX + 5):
        chain.import_block(Block(msgspec.structs.replace(first.header, gas_used=gas), first.transactions))
    assert len(chain._invalid) == chain_module.INVALID_REMEMBERED_MAX


def test_a_reorg_moves_transactions_and_comes_back(forge: Any) -> None:
    chain = forge.chain()
    ours = imported(chain, forge.blocks(3))
    theirs = imported(chain, forge.blocks(2, randao=8))
    chain.set_head(ours[2].hash)
    shared = decode_transaction(ours[0].transactions[1]).hash
    only_ours = decode_transaction(ours[2].transactions[1]).hash

    change = chain.set_head(theirs[1].hash)
    assert [block.hash for block in change.removed] == [block.hash for block in reversed(ours)]
    assert [block.hash for block in change.added] == [block.hash for block in theirs]
    found = chain.find_transaction(shared)
    assert found is not None and found[0].hash == theirs[0].hash
    assert chain.find_transaction(only_ours) is None
    assert chain.by_number(3) is None and not chain.is_canonical(change.removed[0])

    back = chain.set_head(ours[1].hash)
    assert len(back.removed) == 2 and len(back.added) == 2
    shorter = chain.set_head(ours[0].hash)
    assert [block.hash for block in shorter.removed] == [ours[1].hash] and shorter.added == ()
    assert chain.canonical_hash(2) is None


def test_the_same_head_again_changes_nothing(forge: Any) -> None:
    chain = forge.chain()
    blocks = imported(chain, forge.blocks(1))
    chain.set_head(blocks[0].hash)
    assert chain.set_head(blocks[0].hash) == chain_module.HeadChange((), ())


def test_block_hashes_follow_the_branch_that_is_built_on(forge: Any) -> None:
    chain = forge.chain()
    ours = imported(chain, forge.blocks(3))
    theirs = imported(chain, forge.blocks(3, randao=8))
    chain.set_head(ours[2].hash)
    lookup = chain.ancestor_hashes(theirs[2].hash)
    assert [lookup(number) for number in (3, 1, 0, 2)] == [
        theirs[2].hash, theirs[0].hash, forge.block.hash, theirs[1].hash,
    ]  # fmt: skip
    assert lookup(4) is None and lookup(-1) is None


def test_block_hashes_below_the_blocks_in_memory_are_still_known(forge: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain_module, "STATES_IN_MEMORY_MAX", 2)
    monkeypatch.setattr(chain_module, "BLOCKS_IN_MEMORY_MAX", 3)
    chain = forge.chain()  # without an archive: nothing can be read back
    blocks = imported(chain, forge.blocks(7))
    side = imported(chain, forge.blocks(7, randao=8))
    for block in blocks:
        chain.set_head(block.hash)
    assert chain.block(blocks[0].hash) is None
    assert chain.ancestor_hashes(blocks[6].hash)(1) == blocks[0].hash
    lookup = chain.ancestor_hashes(side[6].hash)
    assert lookup(6) == side[5].hash and lookup(1) is None, "of its own branch, or nothing"


def test_old_states_and_then_old_blocks_are_forgotten(forge: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain_module, "STATES_IN_MEMORY_MAX", 2)
    monkeypatch.setattr(chain_module, "BLOCKS_IN_MEMORY_MAX", 4)
    chain = forge.chain()
    blocks = imported(chain, forge.blocks(7))
    side = imported(chain, forge.blocks(1, randao=8))
    for block in blocks:
        chain.set_head(block.hash)
    assert chain.block(side[0].hash) is None and chain.block(blocks[0].hash) is None  # no archive here
    assert chain.loaded(blocks[3].hash) is not None and chain.state(blocks[3].hash) is None
    assert chain.state(blocks[4].hash) is not None
    with pytest.raises(UnknownBlock, match="too old"):
        chain.set_head(blocks[3].hash)


def test_the_transaction_index_has_a_bound(forge: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain_module, "TRANSACTIONS_INDEXED_MAX", 4)
    chain = forge.chain()
    blocks = imported(chain, forge.blocks(3))
    chain.set_head(blocks[2].hash)
    known = [[chain.find_transaction(decode_transaction(raw).hash) for raw in block.transactions] for block in blocks]
    assert known[0] == [None, None] and None not in known[1] + known[2]
