"""The ledger's state at one moment: frozen types, their invariants, and their deterministic snapshot bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import pairwise
from typing import Final

import msgspec

SEALED_BLOCKS_MAX: Final = 256
SEALED_BYTES_MAX: Final = 64 * 1024 * 1024
SNAPSHOT_VERSION: Final = 1


class SnapshotError(ValueError):
    """Bytes that are no snapshot of a ledger (damaged, or of another version)."""


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """One committed flashblock; `epoch` and `node` say who committed it, `body` is the complete flashblock.

    `traceparent` is what its frame carried; snapshots of before it was there lack it and are read as well.
    """

    index: int
    block_hash: bytes
    digest: bytes
    body: bytes
    epoch: int
    node: str
    traceparent: str = ""


class OpenBlock(msgspec.Struct, frozen=True, array_like=True):
    """The block being built: its committed flashblocks, index 0 first, without gaps; never empty."""

    number: int
    payload_id: bytes
    parent_hash: bytes
    entries: tuple[Entry, ...]

    @property
    def last_index(self) -> int:
        """Index of the newest committed flashblock."""
        return len(self.entries) - 1

    @property
    def block_hash(self) -> bytes:
        """Hash of the block made of all committed flashblocks."""
        return self.entries[-1].block_hash


class SealedBlock(msgspec.Struct, frozen=True, array_like=True):
    """A block that can no longer change. Either `entries` (its flashblocks) or `payload` (a fallback block) is set."""

    number: int
    block_hash: bytes
    parent_hash: bytes
    payload_id: bytes | None
    entries: tuple[Entry, ...]
    payload: bytes | None
    epoch: int
    node: str

    @property
    def fallback(self) -> bool:
        """Whether the block came whole from the fallback client."""
        return self.payload is not None

    @property
    def size_bytes(self) -> int:
        """Bytes of content kept for this block."""
        return len(self.payload or b"") + sum(len(entry.body) + len(entry.traceparent) for entry in self.entries)


class LedgerView(msgspec.Struct, frozen=True):
    """Everything the ledger knows at one moment; immutable, so it may be read on any thread."""

    epoch: int
    owner: str
    head_number: int
    head_hash: bytes
    open: OpenBlock | None
    sealed_blocks: tuple[SealedBlock, ...]
    """The newest sealed blocks, ascending and without gaps; bounded in count and bytes."""

    @property
    def head(self) -> tuple[int, bytes]:
        """Number and hash of the newest sealed block (the genesis block at first)."""
        return self.head_number, self.head_hash

    def sealed(self, number: int) -> SealedBlock | None:
        """The sealed block of that number, or None if it is outside the kept window."""
        if not self.sealed_blocks:
            return None
        position = number - self.sealed_blocks[0].number
        return self.sealed_blocks[position] if 0 <= position < len(self.sealed_blocks) else None

    def sealed_since(self, number: int) -> tuple[SealedBlock, ...] | None:
        """All sealed blocks above `number`, ascending, or None where the window does not reach back that far."""
        if number >= self.head_number:
            return ()
        if self.sealed(number + 1) is None:
            return None
        return self.sealed_blocks[number + 1 - self.sealed_blocks[0].number :]


def check_view(view: LedgerView) -> None:
    """Raise AssertionError unless epochs, heights and hashes of a state fit together."""
    assert (view.epoch == 0) == (view.owner == "")
    blocks = view.sealed_blocks
    assert len(blocks) <= SEALED_BLOCKS_MAX
    assert len(blocks) <= 1 or sum(block.size_bytes for block in blocks) <= SEALED_BYTES_MAX
    for parent, child in pairwise(blocks):
        assert (child.number, child.parent_hash) == (parent.number + 1, parent.block_hash)
    for block in blocks:
        assert (block.payload is None) != (not block.entries)
        assert (block.payload_id is None) == block.fallback
        assert not block.entries or block.entries[-1].block_hash == block.block_hash
        assert block.epoch <= view.epoch
        _check_entries(block.entries, view.epoch)
    if blocks:
        assert (blocks[-1].number, blocks[-1].block_hash) == view.head
    if view.open is not None:
        assert view.open.entries
        assert (view.open.number, view.open.parent_hash) == (view.head_number + 1, view.head_hash)
        _check_entries(view.open.entries, view.epoch)


def _check_entries(entries: tuple[Entry, ...], epoch_max: int) -> None:
    assert [entry.index for entry in entries] == list(range(len(entries)))
    epochs = [entry.epoch for entry in entries]
    assert epochs == sorted(epochs)
    assert all(epoch <= epoch_max for epoch in epochs)


def check_digests(view: LedgerView) -> None:
    """Raise AssertionError unless every kept body fits its digest (slow: it hashes everything)."""
    entries = [entry for block in view.sealed_blocks for entry in block.entries]
    if view.open is not None:
        entries += view.open.entries
    assert all(entry.digest == hashlib.sha256(entry.body).digest() for entry in entries)


class _SnapshotHead(msgspec.Struct, frozen=True, array_like=True):
    version: int
    epoch: int
    owner: str
    head_number: int
    head_hash: bytes
    open: OpenBlock | None
    sealed_count: int


_PART_LENGTH_BYTES: Final = 4
_encode = msgspec.msgpack.Encoder().encode
_decode_head = msgspec.msgpack.Decoder(_SnapshotHead).decode
_decode_block = msgspec.msgpack.Decoder(SealedBlock).decode


def snapshot_parts(view: LedgerView) -> Iterator[bytes]:
    """A view as length-prefixed parts, one per sealed block, so that a writer never holds a large copy of it."""
    head = _SnapshotHead(
        version=SNAPSHOT_VERSION,
        epoch=view.epoch,
        owner=view.owner,
        head_number=view.head_number,
        head_hash=view.head_hash,
        open=view.open,
        sealed_count=len(view.sealed_blocks),
    )
    for part in (head, *view.sealed_blocks):
        encoded = _encode(part)
        yield len(encoded).to_bytes(_PART_LENGTH_BYTES, "big") + encoded


def read_snapshot(snapshot: bytes) -> LedgerView:
    """Inverse of the joined `snapshot_parts`; raises SnapshotError for anything else."""
    parts = []
    position = 0
    while position < len(snapshot):
        start = position + _PART_LENGTH_BYTES
        end = start + int.from_bytes(snapshot[position:start], "big")
        if end > len(snapshot):
            raise SnapshotError(f"snapshot ends at {len(snapshot)} inside a part that ends at {end}")
        parts.append(snapshot[start:end])
        position = end
    if not parts:
        raise SnapshotError("snapshot is empty")
    try:
        head = _decode_head(parts[0])
        blocks = tuple(_decode_block(part) for part in parts[1:])
    except msgspec.MsgspecError as error:
        raise SnapshotError(f"snapshot cannot be decoded: {error}") from error
    if head.version != SNAPSHOT_VERSION or head.sealed_count != len(blocks):
        raise SnapshotError(f"snapshot version {head.version} with {len(blocks)} of {head.sealed_count} blocks")
    return LedgerView(head.epoch, head.owner, head.head_number, head.head_hash, head.open, blocks)
