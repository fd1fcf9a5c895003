"""The tree of blocks of one execution client: which are known, which are canonical, and the state after each.

Blocks come in already executed (`insert`) or to be executed (`import_block`); forkchoice alone says what is canonical.
Recent blocks and their states are in memory, older blocks come back from the store, older states are gone.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import msgspec

from flashblocks.execution.chain_spec import ChainSpec
from flashblocks.execution.compact import CanonicalHashes
from flashblocks.execution.errors import ExecutionError, InvalidBlock, InvalidTransaction
from flashblocks.execution.header import Block, Header
from flashblocks.execution.import_block import execute_block
from flashblocks.execution.receipt import Receipt
from flashblocks.execution.state import WorldState
from flashblocks.execution.transaction import Transaction, decode_transaction

BLOCKS_IN_MEMORY_MAX = 300  # per branch, counted from the head; more than the 256 that BLOCKHASH sees
STATES_IN_MEMORY_MAX = 128  # per branch, counted from the head: how deep a reorg or an eth_call can reach
INVALID_REMEMBERED_MAX = 64
TRANSACTIONS_INDEXED_MAX = 200_000
NUMBERS_REMEMBERED_MAX = 8

ZERO_HASH = bytes(32)


@dataclass(slots=True, eq=False)
class ChainBlock:
    """An executed block. `state` is None once the block is too old."""

    header: Header
    transactions: tuple[Transaction, ...]
    receipts: tuple[Receipt, ...]
    state: WorldState | None

    @property
    def hash(self) -> bytes:
        """The block hash."""
        return self.header.hash

    @property
    def number(self) -> int:
        """The height."""
        return self.header.number

    def block(self) -> Block:
        """Header and encoded transactions."""
        return Block(self.header, tuple(tx.raw for tx in self.transactions))


class Archive(Protocol):
    """Where blocks go when they are inserted, and come from when memory no longer has them."""

    def keep(self, block: ChainBlock, parent_state: WorldState) -> None:
        """Make the block durable; raises StoreError, and then the block is not part of the chain."""

    def keep_forkchoice(self, head: bytes, safe: bytes, finalized: bytes) -> None:
        """Make the chosen head durable; raises StoreError."""

    def find(self, block_hash: bytes) -> ChainBlock | None:
        """A block without its state."""


class Imported(msgspec.Struct, frozen=True):
    """What became of a block: the status and latestValidHash of the Engine API."""

    status: str  # VALID | INVALID | SYNCING
    latest_valid_hash: bytes | None = None
    error: str | None = None


class HeadChange(msgspec.Struct, frozen=True):
    """The way from the old head to the new one: blocks that left the canonical chain and those that joined it."""

    removed: tuple[ChainBlock, ...]  # newest first
    added: tuple[ChainBlock, ...]  # oldest first


class UnknownBlock(ExecutionError):
    """A hash that the chain does not know, or a block whose state is gone."""


class Chain:
    """The chain of one client, from a trusted first block on (genesis, or where it was opened)."""

    def __init__(self, spec: ChainSpec, first: ChainBlock, archive: Archive | None = None) -> None:
        self.spec = spec
        self.archive = archive
        self.first = first
        self.head = first
        self.safe_hash = ZERO_HASH
        self.finalized_hash = ZERO_HASH
        self._blocks: dict[bytes, ChainBlock] = {first.hash: first}
        self._by_number: dict[int, list[bytes]] = {first.number: [first.hash]}
        self._canonical = CanonicalHashes(first.number, first.hash)
        self._transactions: dict[bytes, bytes] = {}  # transaction hash → hash of its canonical block, oldest first
        self._older_transactions: dict[bytes, bytes] = {}  # the same below the first block, newest first
        self._invalid: dict[bytes, Imported] = {}
        self._numbers: dict[bytes, int] = {}  # of old blocks that are asked for again and again: the finalized one

    # -- lookups

    def __contains__(self, block_hash: bytes) -> bool:
        return self.block(block_hash) is not None

    def block(self, block_hash: bytes) -> ChainBlock | None:
        """The block of this hash on whatever branch, or None."""
        known = self._blocks.get(block_hash)
        if known is None and self.archive is not None:
            return self.archive.find(block_hash)
        return known

    def number_of(self, block_hash: bytes) -> int | None:
        """The height of a block on whatever branch, or None; what was asked for lately is not read from disk again."""
        known = self._blocks.get(block_hash)
        if known is not None:
            return known.number
        if block_hash not in self._numbers:
            block = self.block(block_hash)
            if block is None:
                return None
            if len(self._numbers) >= NUMBERS_REMEMBERED_MAX:
                del self._numbers[next(iter(self._numbers))]
            self._numbers[block_hash] = block.number
        return self._numbers[block_hash]

    def state(self, block_hash: bytes) -> WorldState | None:
        """The state after the block, while it is recent; else None."""
        known = self._blocks.get(block_hash)
        return known.state if known else None

    def canonical_hash(self, number: int) -> bytes | None:
        """The hash of the canonical block at this height."""
        return self._canonical.get(number)

    def by_number(self, number: int) -> ChainBlock | None:
        """The canonical block at this height."""
        block_hash = self._canonical.get(number)
        return None if block_hash is None else self.block(block_hash)

    def is_canonical(self, block: ChainBlock) -> bool:
        """Whether the block is on the chosen branch."""
        return self._canonical.get(block.number) == block.hash

    def find_transaction(self, tx_hash: bytes) -> tuple[ChainBlock, int] | None:
        """The canonical block that holds the transaction, and its place in it."""
        block_hash = self._transactions.get(tx_hash) or self._older_transactions.get(tx_hash)
        block = None if block_hash is None else self.block(block_hash)
        if block is None:
            return None
        for position, tx in enumerate(block.transactions):
            if tx.hash == tx_hash:
                return block, position
        return None

    def ancestor_hashes(self, block_hash: bytes) -> Callable[[int], bytes | None]:
        """The function behind BLOCKHASH for a child of this block: number → hash along its own branch.

        It walks only as far as the canonical chain, whose hashes are in memory at any depth.
        """
        known: dict[int, bytes] = {}
        walked = self.block(block_hash)

        def lookup(number: int) -> bytes | None:
            nonlocal walked
            while walked is not None and number not in known and walked.number >= number:
                if self.is_canonical(walked):
                    return self._canonical.get(number)
                known[walked.number] = walked.hash
                walked = self.block(walked.header.parent_hash)
            return known.get(number)

        return lookup

    # -- blocks

    def import_block(self, block: Block, decoded: tuple[Transaction, ...] | None = None) -> Imported:
        """Check and execute a block on its parent, wherever that is; does not move the head. Raises StoreError.

        `decoded` may hold the block's transactions already decoded, their senders recovered.
        """
        header = block.header
        known = self.judged(header)
        if known is not None:
            return known
        parent = self._blocks[header.parent_hash]
        assert parent.state is not None
        try:
            if decoded is None:
                decoded = tuple(decode_transaction(raw) for raw in block.transactions)
            lookup = self.ancestor_hashes(parent.hash)
            state, receipts = execute_block(
                self.spec, parent.header, parent.state, block, block_hashes=lookup, decoded=decoded
            )
        except (InvalidBlock, InvalidTransaction) as error:
            return self.reject(header, str(error))
        self.insert(header, decoded, receipts, state)
        return Imported("VALID", header.hash)

    def judged(self, header: Header) -> Imported | None:
        """What is known about a block before executing it: VALID, INVALID, or SYNCING for a parent without state.

        None: the parent is there and the block must be executed.
        """
        if header.hash in self:
            return Imported("VALID", header.hash)
        bad = self._invalid.get(header.hash)
        if bad is not None:
            return bad
        bad_parent = self._invalid.get(header.parent_hash)
        if bad_parent is not None:
            return self._remember_invalid(
                header.hash, bad_parent.latest_valid_hash, "links to previously rejected block"
            )
        return Imported("SYNCING") if self.state(header.parent_hash) is None else None

    def reject(self, header: Header, error: str) -> Imported:
        """Remember that this block is bad; its parent is the latest valid one."""
        return self._remember_invalid(header.hash, header.parent_hash, error)

    def insert(
        self, header: Header, transactions: Iterable[Transaction], receipts: Iterable[Receipt], state: WorldState
    ) -> ChainBlock:
        """Add a block that was executed here. Raises StoreError (and adds nothing) when the archive cannot keep it."""
        known = self._blocks.get(header.hash)
        if known is not None:
            return known
        parent_state = self.state(header.parent_hash)
        if parent_state is None:
            raise UnknownBlock(f"no state of the parent block 0x{header.parent_hash.hex()}")
        block = ChainBlock(header, tuple(transactions), tuple(receipts), state)
        if self.archive is not None:
            self.archive.keep(block, parent_state)
        self._place(block)
        return block

    def loaded(self, block_hash: bytes) -> ChainBlock | None:
        """The block if it is in memory; never asks the archive."""
        return self._blocks.get(block_hash)

    def restore(self, block: ChainBlock) -> None:
        """Put back a block that the archive already holds, when the chain is opened."""
        self._place(block)

    def _place(self, block: ChainBlock) -> None:
        self._blocks[block.hash] = block
        self._by_number.setdefault(block.number, []).append(block.hash)

    def _remember_invalid(self, block_hash: bytes, latest_valid: bytes | None, error: str) -> Imported:
        if len(self._invalid) >= INVALID_REMEMBERED_MAX:
            del self._invalid[next(iter(self._invalid))]
        verdict = self._invalid[block_hash] = Imported("INVALID", latest_valid, error)
        return verdict

    def invalid(self, block_hash: bytes) -> Imported | None:
        """The verdict on a block that was refused lately."""
        return self._invalid.get(block_hash)

    # -- forkchoice

    def set_head(self, head: bytes, safe: bytes = ZERO_HASH, finalized: bytes = ZERO_HASH) -> HeadChange:
        """Make `head` canonical; raises UnknownBlock when it, or its state, is not here, and StoreError."""
        block = self._blocks.get(head)
        if block is None or block.state is None:
            raise UnknownBlock(f"unknown head block 0x{head.hex()}, or one too old to build on")
        change = self._way_to(block)
        if change.removed or change.added or (safe, finalized) != (self.safe_hash, self.finalized_hash):
            if self.archive is not None:
                self.archive.keep_forkchoice(head, safe, finalized)
            self._apply(change, block)
            self.safe_hash, self.finalized_hash = safe, finalized
        return change

    def _way_to(self, new: ChainBlock) -> HeadChange:
        added: list[ChainBlock] = []
        step: ChainBlock | None = new
        while step is not None and not self.is_canonical(step):
            added.append(step)
            step = self.block(step.header.parent_hash)
        if step is None:
            raise UnknownBlock(f"block 0x{new.hash.hex()} does not descend from a block of this chain")
        removed = []
        for number in range(self.head.number, step.number, -1):
            gone = self.by_number(number)
            if gone is not None:
                removed.append(gone)
        return HeadChange(tuple(removed), tuple(reversed(added)))

    def _apply(self, change: HeadChange, head: ChainBlock) -> None:
        if change.removed:
            self._canonical.cut_to(change.removed[-1].number - 1)
        for block in change.removed:
            for tx in block.transactions:
                self._transactions.pop(tx.hash, None)
        for block in change.added:
            self._canonical.append(block.number, block.hash)
            self._index(block)
        self.head = head
        self._forget_old()

    def resume(self, head: ChainBlock, safe: bytes, finalized: bytes) -> None:
        """Stand where the archive says the chain stood, when it is opened. Raises UnknownBlock."""
        self._apply(self._way_to(head), head)
        self.safe_hash, self.finalized_hash = safe, finalized

    def adopt_canonical(self, ancestors: Iterable[tuple[int, bytes]]) -> None:
        """Take over canonical hashes (number, hash) below the first block, newest first, when the chain is opened."""
        self._canonical.prepend(ancestors)

    def index_older(self, block: ChainBlock) -> bool:
        """Make the transactions of a block below the first one findable, newest first; False when there is no room."""
        for tx in block.transactions:
            if len(self._transactions) + len(self._older_transactions) >= TRANSACTIONS_INDEXED_MAX:
                return False
            self._older_transactions[tx.hash] = block.hash
        return True

    def _index(self, block: ChainBlock) -> None:
        index, older = self._transactions, self._older_transactions
        for tx in block.transactions:
            index[tx.hash] = block.hash
        while older and len(index) + len(older) > TRANSACTIONS_INDEXED_MAX:
            older.popitem()
        while len(index) > TRANSACTIONS_INDEXED_MAX:
            del index[next(iter(index))]

    def _forget_old(self) -> None:
        """Drop blocks and states that are too far behind the head to be built on."""
        for number in [n for n in self._by_number if n < self.head.number - STATES_IN_MEMORY_MAX]:
            if number < self.head.number - BLOCKS_IN_MEMORY_MAX:
                for block_hash in self._by_number.pop(number):
                    del self._blocks[block_hash]
                continue
            for block_hash in self._by_number[number]:
                self._blocks[block_hash].state = None
