"""The replicated state machine: which flashblocks and blocks the majority committed, and under whose epoch.

Pure and deterministic: every node applies the same commands in the same order and gets the same answers and
the same snapshot bytes. Every rule is checked here, so no timing, partition or stale leader can get around it:

- an epoch is claimed once and only grows; every later command carries it (the fence);
- a flashblock is accepted only as the next index of the open block, or as index 0 on the sealed head;
- what is committed at (number, index) never changes (no equivocation);
- a block is sealed only with exactly the flashblocks committed for it.

The visible state is one frozen `LedgerView`, replaced as a whole by each command: another thread may keep and
read it without a lock, and a snapshot can be written while commands go on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Final

import msgspec

from raft.commands import (
    ENTRY_SIZE_BYTES_MAX,
    HASH_BYTES,
    NODE_NAME_BYTES_MAX,
    NUMBER_MAX,
    PAYLOAD_ID_BYTES,
    Accepted,
    Answer,
    Append,
    Appended,
    Claim,
    Claimed,
    Command,
    CommandError,
    Event,
    Reason,
    Refused,
    Restored,
    Seal,
    SealBlock,
    Sealed,
    decode_command,
    encode_command,
)

__all__ = [
    "ENTRY_SIZE_BYTES_MAX",
    "Accepted",
    "Answer",
    "Append",
    "Appended",
    "Claim",
    "Claimed",
    "Command",
    "CommandError",
    "Entry",
    "Event",
    "Ledger",
    "LedgerView",
    "OpenBlock",
    "Reason",
    "Refused",
    "Restored",
    "Seal",
    "SealBlock",
    "Sealed",
    "SealedBlock",
    "SnapshotError",
    "decode_command",
    "encode_command",
]

SEALED_BLOCKS_MAX: Final = 256
SEALED_BYTES_MAX: Final = 64 * 1024 * 1024
FLASHBLOCKS_PER_BLOCK_MAX: Final = 256
SNAPSHOT_VERSION: Final = 1


class SnapshotError(ValueError):
    """Bytes that are no snapshot of a ledger (damaged, or of another version)."""


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """One committed flashblock; `epoch` and `node` say who committed it, `body` is the complete flashblock."""

    index: int
    block_hash: bytes
    digest: bytes
    body: bytes
    epoch: int
    node: str


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
        return len(self.payload or b"") + sum(len(entry.body) for entry in self.entries)


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


Outcome = tuple[Answer, tuple[Event, ...]]


class Ledger:
    """The state machine. `apply` is its only door; `genesis` is the head before the first block."""

    def __init__(self, genesis_number: int, genesis_hash: bytes) -> None:
        self._view = LedgerView(0, "", genesis_number, genesis_hash, None, ())
        self._sealed_bytes = 0

    @property
    def view(self) -> LedgerView:
        """The current state, frozen."""
        return self._view

    @property
    def epoch(self) -> int:
        """The newest claimed epoch; 0 before the first claim."""
        return self._view.epoch

    @property
    def owner(self) -> str:
        """The node that claimed the epoch; empty before the first claim."""
        return self._view.owner

    @property
    def head(self) -> tuple[int, bytes]:
        """Number and hash of the newest sealed block."""
        return self._view.head

    @property
    def open(self) -> OpenBlock | None:
        """The block being built, or None between a seal and the next index 0."""
        return self._view.open

    def sealed(self, number: int) -> SealedBlock | None:
        """See `LedgerView.sealed`."""
        return self._view.sealed(number)

    def sealed_since(self, number: int) -> tuple[SealedBlock, ...] | None:
        """See `LedgerView.sealed_since`."""
        return self._view.sealed_since(number)

    def apply(self, command: Command) -> Outcome:
        """Carry out one committed command: the proposer's answer, and what every node's shell is told."""
        if isinstance(command, Claim):
            return self._claim(command)
        fence = self._fence(command)
        if fence is not None:
            return fence
        if isinstance(command, Append):
            return self._append(command)
        if isinstance(command, Seal):
            return self._seal(command)
        return self._seal_block(command)

    def _claim(self, claim: Claim) -> Outcome:
        view = self._view
        if not 0 < claim.epoch <= NUMBER_MAX or not 0 < len(claim.node.encode()) <= NODE_NAME_BYTES_MAX:
            return _refuse(Reason.MALFORMED, "epoch or node name out of range")
        if (claim.epoch, claim.node) == (view.epoch, view.owner):
            return _DUPLICATE
        if claim.epoch <= view.epoch:
            return _refuse(Reason.STALE_EPOCH, f"epoch {claim.epoch} is not above {view.epoch} of {view.owner}")
        self._view = msgspec.structs.replace(view, epoch=claim.epoch, owner=claim.node)
        return Accepted(), (Claimed(claim.epoch, claim.node),)

    def _fence(self, command: Append | Seal | SealBlock) -> Outcome | None:
        view = self._view
        if command.epoch < view.epoch:
            return _refuse(Reason.STALE_EPOCH, f"epoch {command.epoch} ended, {view.owner} claimed {view.epoch}")
        if command.epoch > view.epoch:
            return _refuse(Reason.UNCLAIMED_EPOCH, f"epoch {command.epoch} was never claimed, current is {view.epoch}")
        if command.node != view.owner:
            return _refuse(Reason.WRONG_OWNER, f"epoch {view.epoch} belongs to {view.owner}, not {command.node}")
        return None

    def _append(self, command: Append) -> Outcome:
        malformed = _malformed_append(command)
        if malformed is not None:
            return malformed
        view = self._view
        if command.number <= view.head_number:
            return self._append_below_head(command)
        if view.open is None:
            return self._open_block(command)
        return self._extend(view.open, command)

    def _append_below_head(self, command: Append) -> Outcome:
        """The height is sealed: only a repetition of what was committed there is fine."""
        block = self._view.sealed(command.number)
        if block is None:
            return _refuse(Reason.WRONG_NUMBER, f"block {command.number} is sealed and no longer kept")
        if block.payload_id != command.payload_id:
            return _refuse(Reason.ALREADY_SEALED, f"block {command.number} is sealed with another payload")
        if command.index >= len(block.entries):
            return _refuse(
                Reason.ALREADY_SEALED, f"block {command.number} is sealed with {len(block.entries)} flashblocks"
            )
        return _repetition(block.entries[command.index], command)

    def _open_block(self, command: Append) -> Outcome:
        view = self._view
        if command.number != view.head_number + 1:
            return _refuse(Reason.WRONG_NUMBER, f"block {command.number} does not follow head {view.head_number}")
        if command.parent_hash != view.head_hash:
            return _refuse(
                Reason.WRONG_PARENT, f"parent {command.parent_hash.hex()} is not head {view.head_hash.hex()}"
            )
        if command.index != 0:
            return _refuse(Reason.INDEX_GAP, f"index {command.index} where block {command.number} has none yet")
        opened = OpenBlock(command.number, command.payload_id, command.parent_hash, (_entry(command),))
        self._view = msgspec.structs.replace(view, open=opened)
        return Accepted(), (_appended(command),)

    def _extend(self, block: OpenBlock, command: Append) -> Outcome:
        if command.number == block.number + 1:
            return _refuse(Reason.NOT_SEALED, f"block {block.number} is still open")
        if command.number != block.number:
            return _refuse(Reason.WRONG_NUMBER, f"block {block.number} is open, not {command.number}")
        if command.payload_id != block.payload_id:
            return _refuse(Reason.OTHER_PAYLOAD, f"block {block.number} is open with payload {block.payload_id.hex()}")
        if command.parent_hash != block.parent_hash:
            return _refuse(Reason.WRONG_PARENT, f"block {block.number} was opened on {block.parent_hash.hex()}")
        if command.index < len(block.entries):
            return _repetition(block.entries[command.index], command)
        if command.index > len(block.entries):
            return _refuse(Reason.INDEX_GAP, f"index {command.index} after {block.last_index} in block {block.number}")
        if command.index >= FLASHBLOCKS_PER_BLOCK_MAX:
            return _refuse(Reason.TOO_MANY_FLASHBLOCKS, f"at most {FLASHBLOCKS_PER_BLOCK_MAX} per block")
        longer = msgspec.structs.replace(block, entries=(*block.entries, _entry(command)))
        self._view = msgspec.structs.replace(self._view, open=longer)
        return Accepted(), (_appended(command),)

    def _seal(self, command: Seal) -> Outcome:
        view = self._view
        if self._is_sealed_as(command.number, command.block_hash):
            return _DUPLICATE
        if command.number <= view.head_number:
            return _refuse(Reason.ALREADY_SEALED, f"block {command.number} is sealed, head is {view.head_number}")
        block = view.open
        if block is None or command.number != block.number:
            return _refuse(Reason.NOT_OPEN, f"block {command.number} has no committed flashblock")
        if command.payload_id != block.payload_id:
            return _refuse(Reason.OTHER_PAYLOAD, f"block {block.number} is open with payload {block.payload_id.hex()}")
        if (command.last_index, command.block_hash) != (block.last_index, block.block_hash):
            committed = f"{block.last_index} with hash {block.block_hash.hex()}"
            return _refuse(Reason.PREFIX_MISMATCH, f"seal names index {command.last_index}, committed is {committed}")
        sealed = SealedBlock(
            number=block.number,
            block_hash=block.block_hash,
            parent_hash=block.parent_hash,
            payload_id=block.payload_id,
            entries=block.entries,
            payload=None,
            epoch=command.epoch,
            node=command.node,
        )
        return self._advance(sealed)

    def _seal_block(self, command: SealBlock) -> Outcome:
        malformed = _malformed_block(command)
        if malformed is not None:
            return malformed
        view = self._view
        if self._is_sealed_as(command.number, command.block_hash):
            return _DUPLICATE
        if command.number <= view.head_number:
            return _refuse(Reason.ALREADY_SEALED, f"block {command.number} is sealed, head is {view.head_number}")
        if view.open is not None:
            committed = f"block {view.open.number} has flashblocks 0..{view.open.last_index}"
            return _refuse(Reason.FLASHBLOCKS_COMMITTED, f"{committed}; seal exactly these")
        if command.number != view.head_number + 1:
            return _refuse(Reason.WRONG_NUMBER, f"block {command.number} does not follow head {view.head_number}")
        if command.parent_hash != view.head_hash:
            return _refuse(
                Reason.WRONG_PARENT, f"parent {command.parent_hash.hex()} is not head {view.head_hash.hex()}"
            )
        sealed = SealedBlock(
            number=command.number,
            block_hash=command.block_hash,
            parent_hash=command.parent_hash,
            payload_id=None,
            entries=(),
            payload=command.payload,
            epoch=command.epoch,
            node=command.node,
        )
        return self._advance(sealed)

    def _is_sealed_as(self, number: int, block_hash: bytes) -> bool:
        if (number, block_hash) == self._view.head:
            return True
        block = self._view.sealed(number)
        return block is not None and block.block_hash == block_hash

    def _advance(self, block: SealedBlock) -> Outcome:
        kept = [*self._view.sealed_blocks, block]
        self._sealed_bytes += block.size_bytes
        drop = 0
        while len(kept) - drop > 1 and (len(kept) - drop > SEALED_BLOCKS_MAX or self._sealed_bytes > SEALED_BYTES_MAX):
            self._sealed_bytes -= kept[drop].size_bytes
            drop += 1
        self._view = msgspec.structs.replace(
            self._view,
            head_number=block.number,
            head_hash=block.block_hash,
            open=None,
            sealed_blocks=tuple(kept[drop:]),
        )
        return Accepted(), (Sealed(block.epoch, block.node, block.number, block.block_hash, block.fallback),)

    def snapshot(self) -> bytes:
        """The whole state as deterministic bytes: equal states have equal snapshots on every node."""
        return b"".join(snapshot_parts(self._view))

    def restore(self, snapshot: bytes) -> Restored:
        """Replace the state by a snapshot's; raises SnapshotError and changes nothing if it is none."""
        view = _read_snapshot(snapshot)
        check_view(view)
        self._view = view
        self._sealed_bytes = sum(block.size_bytes for block in view.sealed_blocks)
        return Restored(view.epoch, view.owner, view.head_number, view.head_hash)

    def check(self) -> None:
        """Raise AssertionError if an invariant is broken; used by tests and the simulator after every command."""
        check_view(self._view)
        assert self._sealed_bytes == sum(block.size_bytes for block in self._view.sealed_blocks)


def check_view(view: LedgerView) -> None:
    """The invariants of a state: epochs, heights and hashes fit together, bodies fit their digests."""
    assert (view.epoch == 0) == (view.owner == "")
    blocks = view.sealed_blocks
    assert len(blocks) <= SEALED_BLOCKS_MAX
    assert len(blocks) <= 1 or sum(block.size_bytes for block in blocks) <= SEALED_BYTES_MAX
    for parent, child in zip(blocks, blocks[1:], strict=False):
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


def _read_snapshot(snapshot: bytes) -> LedgerView:
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


_DUPLICATE: Final[Outcome] = (Accepted(duplicate=True), ())


def _refuse(reason: Reason, detail: str) -> Outcome:
    return Refused(reason, detail), ()


def _malformed_append(command: Append) -> Outcome | None:
    sizes = (len(command.payload_id), len(command.parent_hash), len(command.block_hash), len(command.digest))
    if sizes != (PAYLOAD_ID_BYTES, HASH_BYTES, HASH_BYTES, HASH_BYTES):
        return _refuse(Reason.MALFORMED, f"payload id, parent, block hash and digest have {sizes} bytes")
    if not 0 <= command.index or not 0 <= command.number <= NUMBER_MAX or not command.body:
        return _refuse(Reason.MALFORMED, "number or index out of range, or no body")
    if len(command.body) > ENTRY_SIZE_BYTES_MAX:
        return _refuse(Reason.TOO_LARGE, f"{len(command.body)} bytes, at most {ENTRY_SIZE_BYTES_MAX}")
    if hashlib.sha256(command.body).digest() != command.digest:
        return _refuse(Reason.WRONG_DIGEST, f"digest {command.digest.hex()} is not the body's")
    return None


def _malformed_block(command: SealBlock) -> Outcome | None:
    sizes = (len(command.parent_hash), len(command.block_hash))
    if sizes != (HASH_BYTES, HASH_BYTES) or not 0 <= command.number <= NUMBER_MAX or not command.payload:
        return _refuse(Reason.MALFORMED, f"parent and block hash have {sizes} bytes, or no payload")
    if len(command.payload) > ENTRY_SIZE_BYTES_MAX:
        return _refuse(Reason.TOO_LARGE, f"{len(command.payload)} bytes, at most {ENTRY_SIZE_BYTES_MAX}")
    return None


def _repetition(entry: Entry, command: Append) -> Outcome:
    if (entry.digest, entry.block_hash) == (command.digest, command.block_hash):
        return _DUPLICATE
    committed = f"{entry.digest.hex()} was committed in epoch {entry.epoch}"
    return _refuse(Reason.CONFLICTING_DIGEST, f"block {command.number} index {command.index}: {committed}")


def _entry(command: Append) -> Entry:
    return Entry(command.index, command.block_hash, command.digest, command.body, command.epoch, command.node)


def _appended(command: Append) -> Appended:
    return Appended(
        epoch=command.epoch,
        node=command.node,
        payload_id=command.payload_id,
        number=command.number,
        index=command.index,
        parent_hash=command.parent_hash,
        block_hash=command.block_hash,
        digest=command.digest,
        body=command.body,
    )
