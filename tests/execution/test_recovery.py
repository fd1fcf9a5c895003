"""Opening a store again gives the same chain: head, states, lookups – whatever was torn off or was being written."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from flashblocks.execution import chain as chain_module
from flashblocks.execution.accounts import TEST_ACCOUNTS
from flashblocks.execution.assembler import assemble
from flashblocks.execution.chain import Chain, ChainBlock
from flashblocks.execution.genesis import default_genesis, load_genesis
from flashblocks.execution.header import Block
from flashblocks.execution.recovery import SNAPSHOT_DEPTH_BLOCKS, ChainKeeper
from flashblocks.execution.signing import sign_transaction
from flashblocks.execution.snapshot import load_snapshots
from flashblocks.execution.store import ChainStore, StoreCorrupt, StoreError
from flashblocks.execution.transaction import decode_transaction


class Opened:
    """A keeper with the chain it opened."""

    def __init__(self, forge: Any, directory: Path, every: int = 1_000_000) -> None:
        self.keeper = ChainKeeper(ChainStore(directory), snapshot_every_blocks=every)
        self.chain = self.keeper.open(forge.spec, forge.block, forge.state)

    def extend(self, blocks: list[Block]) -> None:
        for block in blocks:
            assert self.chain.import_block(block).status == "VALID"
            self.chain.set_head(block.hash, blocks[0].hash, blocks[0].hash)

    def work(self) -> None:
        while self.keeper.maintain(self.chain):
            pass

    def close(self) -> None:
        self.keeper.close()


def same(ours: Chain, theirs: Chain) -> None:
    assert ours.head.hash == theirs.head.hash
    assert (ours.safe_hash, ours.finalized_hash) == (theirs.safe_hash, theirs.finalized_hash)
    assert ours.head.state is not None and ours.head.state.root == ours.head.header.state_root
    for number in range(ours.head.number + 1):
        mine, other = ours.by_number(number), theirs.by_number(number)
        assert mine is not None and other is not None
        assert (mine.block(), mine.receipts) == (other.block(), other.receipts)


def test_reopening_gives_the_same_chain_and_it_goes_on(forge: Any, tmp_path: Path) -> None:
    blocks = forge.blocks(5)
    before = Opened(forge, tmp_path)
    before.extend(blocks[:4])
    before.close()
    after = Opened(forge, tmp_path)
    same(after.chain, before.chain)
    found = after.chain.find_transaction(decode_transaction(blocks[2].transactions[1]).hash)
    assert found is not None and found[0].receipts[1].l1_fee == 0
    after.extend(blocks[4:])
    assert after.chain.head.hash == blocks[4].hash
    after.close()


def test_receipts_come_back_whole(forge: Any, tmp_path: Path) -> None:
    """Logs, blooms, contract addresses, and amounts beyond 64 bits."""
    emit = assemble("7 9 32 push0 log2 stop")
    code = assemble(f"0x{emit.hex()} push0 mstore {len(emit)} {32 - len(emit)} return")
    raw = sign_transaction(
        TEST_ACCOUNTS[0].private_key, chain_id=901, nonce=0, data=code, gas_limit=200_000, max_fee_per_gas=10**10
    )
    created = forge.seal(forge.block.header, forge.state, [raw])
    contract = created.receipts[1].contract_address
    assert contract is not None
    call = sign_transaction(
        TEST_ACCOUNTS[0].private_key, chain_id=901, nonce=1, to=contract, gas_limit=90_000, max_fee_per_gas=10**17,
        max_priority_fee_per_gas=2 * 10**16,
    )  # fmt: skip
    called = forge.seal(created.header, created.state, [call])
    assert called.receipts[1].logs and any(called.receipts[1].bloom)
    assert called.receipts[1].effective_gas_price > 10**16
    opened = Opened(forge, tmp_path)
    opened.extend([created.block, called.block])
    opened.close()
    again = Opened(forge, tmp_path)
    assert again.chain.head.receipts == called.receipts
    dear = tuple(msgspec.structs.replace(receipt, l1_fee=2**80) for receipt in called.receipts)
    side = forge.seal(created.header, created.state, [call], randao=5)
    again.keeper.keep(ChainBlock(side.header, again.chain.head.transactions, dear, side.state), created.state)
    found = again.keeper.find(side.header.hash)
    assert found is not None and found.receipts == dear
    first = again.chain.by_number(1)
    assert first is not None and first.receipts == created.receipts
    again.close()


def test_an_empty_store_starts_at_genesis(forge: Any, tmp_path: Path) -> None:
    Opened(forge, tmp_path).close()
    again = Opened(forge, tmp_path)
    assert again.chain.head.hash == forge.block.hash and again.chain.head.state is not None
    again.close()


def test_a_torn_end_loses_only_what_was_torn(forge: Any, tmp_path: Path) -> None:
    blocks = forge.blocks(4)
    opened = Opened(forge, tmp_path)
    opened.extend(blocks)
    opened.close()
    log = tmp_path / "blocks-00000000.log"
    whole = log.read_bytes()
    heads = set()
    for cut in range(len(whole), len(whole) - 1_500, -37):
        log.write_bytes(whole[:cut])
        again = Opened(forge, tmp_path)
        heads.add(again.chain.head.number)
        assert again.chain.head.hash in [forge.block.hash, *(block.hash for block in blocks)]
        again.extend(blocks)
        assert again.chain.head.hash == blocks[3].hash
        again.close()
    assert {3, 4} <= heads


def test_side_chains_and_reorgs_survive(forge: Any, tmp_path: Path) -> None:
    ours, theirs = forge.blocks(3), forge.blocks(2, randao=8)
    opened = Opened(forge, tmp_path)
    opened.extend(ours)
    opened.extend(theirs)
    opened.close()
    again = Opened(forge, tmp_path)
    assert again.chain.head.hash == theirs[1].hash and again.chain.by_number(3) is None
    again.chain.set_head(ours[2].hash)
    assert again.chain.head.hash == ours[2].hash
    again.close()


def test_a_snapshot_shortens_the_replay_and_nothing_else(
    forge: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = forge.blocks(SNAPSHOT_DEPTH_BLOCKS + 8)
    opened = Opened(forge, tmp_path, every=5)
    for block in blocks:
        opened.extend([block])
        opened.work()
    assert opened.keeper.snapshot_number >= 5
    opened.close()
    again = Opened(forge, tmp_path)
    assert again.chain.first.number == opened.keeper.snapshot_number
    same(again.chain, opened.chain)
    old = decode_transaction(blocks[1].transactions[1]).hash
    assert again.chain.find_transaction(old) is None
    again.work()  # the index of older transactions is made between blocks
    found = again.chain.find_transaction(old)
    assert found is not None and found[0].hash == blocks[1].hash
    again.close()

    for path in tmp_path.glob("snapshot-*.bin"):
        path.write_bytes(path.read_bytes()[:-1])
    from_genesis = Opened(forge, tmp_path)
    assert from_genesis.chain.first.number == 0
    same(from_genesis.chain, opened.chain)
    from_genesis.close()


def test_a_damaged_old_block_ends_the_index_and_is_named_to_whoever_asks(forge: Any, tmp_path: Path) -> None:
    opened = Opened(forge, tmp_path, every=5)
    for block in forge.blocks(SNAPSHOT_DEPTH_BLOCKS + 8):
        opened.extend([block])
        opened.work()
    old = opened.chain.canonical_hash(2)
    assert old is not None
    opened.close()
    again = Opened(forge, tmp_path)
    place = again.keeper.store.place_of(old)
    assert place is not None
    with (tmp_path / "blocks-00000000.log").open("r+b") as file:
        file.seek(place + 200)
        file.write(b"\xff" * 8)
    again.work()
    with pytest.raises(StoreCorrupt, match="damaged at byte"):
        again.chain.by_number(2)
    assert again.chain.by_number(1) is not None
    again.close()


def test_a_snapshot_of_an_abandoned_branch_is_not_used(forge: Any, tmp_path: Path) -> None:
    ours, theirs = forge.blocks(SNAPSHOT_DEPTH_BLOCKS + 2), forge.blocks(2, randao=8)
    opened = Opened(forge, tmp_path, every=1)
    opened.extend(ours)
    opened.work()
    assert [snapshot.mark.number for snapshot in load_snapshots(tmp_path)] == [2]
    opened.extend(theirs)
    opened.close()
    again = Opened(forge, tmp_path)
    assert again.chain.head.hash == theirs[1].hash and again.chain.first.number == 0
    again.close()


def test_a_crash_while_a_snapshot_is_written_leaves_no_trace(forge: Any, tmp_path: Path) -> None:
    opened = Opened(forge, tmp_path, every=1)
    opened.extend(forge.blocks(SNAPSHOT_DEPTH_BLOCKS + 2))
    opened.keeper.maintain(opened.chain)
    opened.keeper.store.close()  # as a kill would: the writer is never told
    assert list(tmp_path.glob("*.tmp"))
    again = Opened(forge, tmp_path)
    assert again.chain.head.number == SNAPSHOT_DEPTH_BLOCKS + 2 and not list(tmp_path.glob("*.tmp"))
    again.close()
    opened.close()


def test_another_chain_s_directory_is_refused(forge: Any, tmp_path: Path) -> None:
    Opened(forge, tmp_path).close()
    spec, block, state = load_genesis(default_genesis(chain_id=902, timestamp=5))
    keeper = ChainKeeper(ChainStore(tmp_path))
    with pytest.raises(StoreError, match="holds another chain"):
        keeper.open(spec, block, state)
    keeper.close()


def test_blocks_that_left_memory_come_from_the_store(
    forge: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chain_module, "STATES_IN_MEMORY_MAX", 2)
    monkeypatch.setattr(chain_module, "BLOCKS_IN_MEMORY_MAX", 3)
    blocks = forge.blocks(8)
    opened = Opened(forge, tmp_path)
    opened.extend(blocks)
    assert opened.chain.loaded(blocks[1].hash) is None
    old = opened.chain.by_number(2)
    assert old is not None and old.block() == blocks[1] and old.state is None
    assert opened.chain.ancestor_hashes(blocks[7].hash)(1) == blocks[0].hash
    assert opened.chain.import_block(blocks[1]).status == "VALID", "known, though long forgotten"
    opened.close()


def test_a_block_that_cannot_be_written_is_not_part_of_the_chain(
    forge: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Opened(forge, tmp_path)
    (block,) = forge.blocks(1)

    def full(*_: Any) -> None:
        raise StoreError("no space left on the disk")

    with monkeypatch.context() as patched:
        patched.setattr(opened.keeper.store, "append_block", full)
        with pytest.raises(StoreError):
            opened.chain.import_block(block)
    assert block.hash not in opened.chain
    opened.extend([block])
    opened.close()
