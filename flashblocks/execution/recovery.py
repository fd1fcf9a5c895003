"""The chain and its store together: every inserted block is kept, and opening the store again gives the same chain.

Opening takes the newest whole snapshot that the chosen head descends from, applies the state changes of the blocks
after it, and compares every root on the way with the block's header. Without a usable snapshot it starts at genesis.
"""

from collections.abc import Iterator

import msgspec

from flashblocks.execution.chain import Chain, ChainBlock
from flashblocks.execution.chain_spec import ChainSpec
from flashblocks.execution.errors import ExecutionError
from flashblocks.execution.header import Block
from flashblocks.execution.receipt import Receipt, bloom_bits
from flashblocks.execution.snapshot import Snapshot, SnapshotMark, SnapshotWriter, load_snapshots, remove_temporary
from flashblocks.execution.state import StateDiff, WorldState
from flashblocks.execution.store import (
    ChainStore,
    StoreCorrupt,
    StoredBlock,
    StoredForkchoice,
    StoreError,
)
from flashblocks.execution.transaction import decode_transaction

SNAPSHOT_EVERY_BLOCKS = 512
SNAPSHOT_DEPTH_BLOCKS = 32  # behind the head, where a reorg no longer reaches


class ChainKeeper:
    """Writes a chain to its store (it is the chain's `archive`) and takes snapshots of it, a slice at a time."""

    def __init__(self, store: ChainStore, *, snapshot_every_blocks: int = SNAPSHOT_EVERY_BLOCKS) -> None:
        self.store = store
        self.snapshot_number = 0
        self.snapshot_error: str | None = None
        self._every = snapshot_every_blocks
        self._writer: SnapshotWriter | None = None
        self._to_index = b""

    def keep(self, block: ChainBlock, parent_state: WorldState) -> None:
        """Append the block with what it changed. Raises StoreError."""
        assert block.state is not None
        self.store.append_block(_stored(block, block.state.diff(parent_state)))

    def keep_forkchoice(self, head: bytes, safe: bytes, finalized: bytes) -> None:
        """Append the choice. Raises StoreError."""
        self.store.append_forkchoice(StoredForkchoice(head, safe, finalized))

    def find(self, block_hash: bytes) -> ChainBlock | None:
        """Read a block back; its state is not rebuilt. Raises StoreCorrupt."""
        stored = self.store.read_block(block_hash)
        return None if stored is None else _restored(stored, None)

    def maintain(self, chain: Chain) -> bool:
        """Do a few milliseconds of work that no block waits for; False when there is none left for now."""
        return self._step_snapshot(chain) or self._step_index(chain)

    def close(self) -> None:
        """Give up an unfinished snapshot and close the store."""
        if self._writer is not None:
            self._writer.abandon()
            self._writer = None
        self.store.close()

    def _step_snapshot(self, chain: Chain) -> bool:
        try:
            if self._writer is not None:
                if self._writer.step():
                    self.snapshot_number, self._writer = self._writer.mark.number, None
                return True
            number = chain.head.number - SNAPSHOT_DEPTH_BLOCKS
            if number < self.snapshot_number + self._every:
                return False
            block = chain.by_number(number)
            if block is None or block.state is None:
                return False
            mark = SnapshotMark(number, block.hash, block.header.state_root)
            self._writer = SnapshotWriter(self.store.directory, mark, block.state)
        except StoreError as error:
            # A snapshot only shortens the next start: the chain goes on without it, and it is tried again later.
            self._writer = None
            self.snapshot_number += self._every
            self.snapshot_error = str(error)
            return False
        return True

    def _step_index(self, chain: Chain) -> bool:
        """After opening: make the transactions of one more of the older blocks findable, newest first."""
        if not self._to_index or self._to_index == chain.first.hash:
            return False
        try:
            block = self.find(self._to_index)
        except StoreCorrupt:
            block = None  # whoever asks for the block is told; the index ends here
        self._to_index = b"" if block is None else block.header.parent_hash
        if block is None or block.number == 0 or not chain.index_older(block):
            self._to_index = b""
            return False
        return True

    def open(self, spec: ChainSpec, genesis: Block, genesis_state: WorldState) -> Chain:
        """Build the chain that the store holds; raises StoreError when it is another chain's, or damaged throughout."""
        store = self.store
        remove_temporary(store.directory)
        if len(store) == 0:
            first = ChainBlock(genesis.header, (), (), genesis_state)
            store.append_block(_stored(first, genesis_state.diff(WorldState())))
            return Chain(spec, first, self)
        if genesis.hash not in store:
            raise StoreError(f"{store.directory}: holds another chain (its genesis is not 0x{genesis.hash.hex()})")
        genesis_snapshot = Snapshot(SnapshotMark(0, genesis.hash, genesis_state.root), genesis_state)
        for snapshot in (*load_snapshots(store.directory), genesis_snapshot):
            chain = self._open_from(spec, snapshot)
            if chain is not None:
                self.snapshot_number = snapshot.mark.number
                self._adopt_ancestors(chain)
                return chain
        raise StoreCorrupt(f"{store.directory}: no snapshot and no block leads to the head")

    def _open_from(self, spec: ChainSpec, snapshot: Snapshot) -> Chain | None:
        """The chain from this snapshot on; None when the head does not descend from it."""
        place = self.store.place_of(snapshot.mark.block_hash)
        found = None if place is None else self.store.read_block(snapshot.mark.block_hash)
        if place is None or found is None:
            return None
        first = _restored(found, snapshot.state)
        if first.header.state_root != snapshot.state.root:
            return None
        chain = Chain(spec, first, self)
        forkchoice = None
        for record in self.store.records_from(place):
            if isinstance(record, StoredForkchoice):
                forkchoice = record
            elif not _replay(chain, record):
                return None
        if forkchoice is None:
            return chain
        head = chain.loaded(forkchoice.head)
        if head is None:
            # Nothing after the snapshot is the head: it lies on a branch that the snapshot is not part of.
            return chain if forkchoice.head == first.hash else None
        chain.resume(head, forkchoice.safe, forkchoice.finalized)
        return chain

    def _adopt_ancestors(self, chain: Chain) -> None:
        """Tell the chain the canonical hashes below its first block, and index their transactions by and by."""
        chain.adopt_canonical(self._ancestors(chain.first))
        self._to_index = chain.first.header.parent_hash if chain.first.number else b""

    def _ancestors(self, block: ChainBlock) -> Iterator[tuple[int, bytes]]:
        parent = block.header.parent_hash
        while (link := self.store.link_of(parent)) is not None:
            yield link.number, parent
            parent = link.parent_hash


def _replay(chain: Chain, record: StoredBlock) -> bool:
    """Apply one block of the log; False when its changes do not fit the state before it."""
    parent_state = chain.state(record.parent_hash)
    if parent_state is None or chain.loaded(record.hash) is not None:
        return True  # a branch from below the snapshot, or one that was already too deep
    try:
        block = _restored(record, parent_state.apply_diff(record.diff))
    except ExecutionError:
        return False
    if block.state is None or block.header.state_root != block.state.root:
        return False
    chain.restore(block)
    return True


def _stored(block: ChainBlock, diff: StateDiff) -> StoredBlock:
    # JSON, because amounts of wei exceed MessagePack's 64 bits; the bloom is made of the logs again.
    receipts = tuple(msgspec.json.encode(msgspec.structs.replace(receipt, bloom=b"")) for receipt in block.receipts)
    return StoredBlock(block.number, block.hash, block.header.parent_hash, block.block().rlp(), receipts, diff)


def _restored(stored: StoredBlock, state: WorldState | None) -> ChainBlock:
    """The block out of its record. Raises StoreCorrupt when it does not hash to its name or does not decode."""
    try:
        block = Block.from_rlp(stored.block)
        transactions = tuple(decode_transaction(raw) for raw in block.transactions)
        receipts = tuple(_with_bloom(msgspec.json.decode(receipt, type=Receipt)) for receipt in stored.receipts)
    except (ExecutionError, msgspec.DecodeError) as error:
        raise StoreCorrupt(f"stored block {stored.number} does not decode: {error}") from error
    if block.hash != stored.hash:
        raise StoreCorrupt(f"stored block {stored.number} does not hash to its name")
    return ChainBlock(block.header, transactions, receipts, state)


def _with_bloom(receipt: Receipt) -> Receipt:
    return msgspec.structs.replace(receipt, bloom=bloom_bits(receipt.logs).to_bytes(256, "big"))
