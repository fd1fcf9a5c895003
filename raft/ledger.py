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
from typing import Final

import msgspec

from raft.commands import (
    ENTRY_SIZE_BYTES_MAX,
    HASH_BYTES,
    NODE_NAME_BYTES_MAX,
    NUMBER_MAX,
    PAYLOAD_ID_BYTES,
    TRACE_CONTEXT_CHARACTERS_MAX,
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
from raft.view import (
    SEALED_BLOCKS_MAX,
    SEALED_BYTES_MAX,
    Entry,
    LedgerView,
    OpenBlock,
    SealedBlock,
    SnapshotError,
    check_digests,
    check_view,
    read_snapshot,
    snapshot_parts,
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

FLASHBLOCKS_PER_BLOCK_MAX: Final = 256


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
        view = read_snapshot(snapshot)
        try:
            check_view(view)
        except AssertionError as error:
            raise SnapshotError("snapshot decodes to a state that breaks the ledger's invariants") from error
        self._view = view
        self._sealed_bytes = sum(block.size_bytes for block in view.sealed_blocks)
        return Restored(view.epoch, view.owner, view.head_number, view.head_hash)

    def check(self) -> None:
        """Raise AssertionError if an invariant is broken; used by tests and the simulator after every command."""
        check_view(self._view)
        check_digests(self._view)
        assert self._sealed_bytes == sum(block.size_bytes for block in self._view.sealed_blocks)


_DUPLICATE: Final[Outcome] = (Accepted(duplicate=True), ())


def _refuse(reason: Reason, detail: str) -> Outcome:
    return Refused(reason, detail), ()


def _malformed_append(command: Append) -> Outcome | None:
    sizes = (len(command.payload_id), len(command.parent_hash), len(command.block_hash), len(command.digest))
    if sizes != (PAYLOAD_ID_BYTES, HASH_BYTES, HASH_BYTES, HASH_BYTES):
        return _refuse(Reason.MALFORMED, f"payload id, parent, block hash and digest have {sizes} bytes")
    if command.index < 0 or not 0 <= command.number <= NUMBER_MAX or not command.body:
        return _refuse(Reason.MALFORMED, "number or index out of range, or no body")
    if len(command.body) > ENTRY_SIZE_BYTES_MAX:
        return _refuse(Reason.TOO_LARGE, f"{len(command.body)} bytes, at most {ENTRY_SIZE_BYTES_MAX}")
    if len(command.traceparent) > TRACE_CONTEXT_CHARACTERS_MAX:
        return _refuse(Reason.TOO_LARGE, f"a trace context of {len(command.traceparent)} characters")
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
    return Entry(
        index=command.index,
        block_hash=command.block_hash,
        digest=command.digest,
        body=command.body,
        epoch=command.epoch,
        node=command.node,
        traceparent=command.traceparent,
    )


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
        traceparent=command.traceparent,
    )
