"""Snapshots of a state beside the chain log, written in slices between blocks so that no block waits for one.

A state is immutable, so a snapshot taken over many seconds is still the state of one block. It is written to a
temporary file and renamed when complete; a half-written one is never seen. Loading checks every record and the root.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from flashblocks.execution import trie
from flashblocks.execution.errors import ExecutionError
from flashblocks.execution.state import Account, AccountDiff, StateDiff, WorldState, slot_value
from flashblocks.execution.store import StoreCorrupt, StoreError, frame_record, read_frame

SNAPSHOT_MAGIC = b"FBSTATE1"
SLICE_LEAVES_MAX = 2_000  # accounts and slots per step: a few milliseconds of work
SNAPSHOTS_KEPT = 2

_KIND_SLICE = 1
_KIND_END = 2
_NAME = re.compile(r"snapshot-(\d{12})\.bin")


class SnapshotMark(msgspec.Struct, frozen=True, array_like=True):
    """The last record of a snapshot: the block after which the state is as told."""

    number: int
    block_hash: bytes
    state_root: bytes


class Snapshot(NamedTuple):
    """A loaded snapshot."""

    mark: SnapshotMark
    state: WorldState


class SnapshotWriter:
    """Writes one state; call `step` until it returns True. A failure raises StoreError and leaves nothing."""

    def __init__(self, directory: Path, mark: SnapshotMark, state: WorldState) -> None:
        self.mark = mark
        self._directory = directory
        self._temporary = directory / f"snapshot-{mark.number:012d}.tmp"
        self._slices = _slices(state)
        try:
            self._file = self._temporary.open("wb")
            self._file.write(SNAPSHOT_MAGIC)
        except OSError as error:
            raise StoreError(f"{self._temporary}: {error.strerror}") from error

    def step(self) -> bool:
        """Write the next slice; True when the snapshot is complete and in place."""
        try:
            piece = next(self._slices, None)
            if piece is not None:
                self._file.write(frame_record(_KIND_SLICE, msgspec.msgpack.encode(piece)))
                return False
            self._file.write(frame_record(_KIND_END, msgspec.msgpack.encode(self.mark)))
            self._file.flush()
            os.fdatasync(self._file.fileno())
            self._file.close()
            self._temporary.rename(self._directory / f"snapshot-{self.mark.number:012d}.bin")
        except OSError as error:
            self.abandon()
            raise StoreError(f"{self._temporary}: {error.strerror}") from error
        _remove_old(self._directory)
        return True

    def abandon(self) -> None:
        """Give up and remove the temporary file."""
        try:
            self._file.close()
        except OSError:
            pass  # buffered bytes that a full disk does not take are of no use any more
        self._temporary.unlink(missing_ok=True)


def load_snapshots(directory: Path) -> Iterator[Snapshot]:
    """Every whole snapshot, newest first, each read when it is asked for; damaged ones are passed over."""
    for path in sorted(directory.glob("snapshot-*.bin"), reverse=True):
        if _NAME.fullmatch(path.name):
            try:
                yield _load(path)
            except (StoreError, ExecutionError):
                continue  # an older one, or a replay from the genesis block, gives the same state


def remove_temporary(directory: Path) -> None:
    """Remove what a killed process left half written."""
    for path in directory.glob("snapshot-*.tmp"):
        path.unlink(missing_ok=True)


def _slices(state: WorldState) -> Iterator[tuple[list[AccountDiff], dict[bytes, bytes]]]:
    """The whole state as account diffs against nothing; an account with many slots is spread over several."""
    written_codes: set[bytes] = set()
    accounts: list[AccountDiff] = []
    codes: dict[bytes, bytes] = {}
    leaves = 0
    for path, account in trie.items(state.node, state.load):
        if not isinstance(account, Account):
            raise ExecutionError("only a state that is wholly in memory can be written as a snapshot")
        key = bytes.fromhex(path)
        if account.code.raw and account.code.hash not in written_codes:
            written_codes.add(account.code.hash)
            codes[account.code.hash] = account.code.raw
        slots: dict[bytes, bytes] = {}
        for slot, value in trie.items(account.storage, state.load):
            slots[bytes.fromhex(slot)] = slot_value(value).to_bytes(32, "big").lstrip(b"\0")
            leaves += 1
            if leaves >= SLICE_LEAVES_MAX:
                accounts.append(_account(key, account.nonce, account.balance, account.code.hash, slots))
                yield accounts, codes
                accounts, codes, slots, leaves = [], {}, {}, 0
        accounts.append(_account(key, account.nonce, account.balance, account.code.hash, slots))
        leaves += 1
        if leaves >= SLICE_LEAVES_MAX:
            yield accounts, codes
            accounts, codes, leaves = [], {}, 0
    if accounts:
        yield accounts, codes


def _account(key: bytes, nonce: int, balance: int, code_hash: bytes, slots: dict[bytes, bytes]) -> AccountDiff:
    return AccountDiff(key, True, nonce, balance.to_bytes(32, "big").lstrip(b"\0"), code_hash, slots)


def _load(path: Path) -> Snapshot:
    accounts: dict[bytes, AccountDiff] = {}
    codes: dict[bytes, bytes] = {}
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(file).st_size
        if os.pread(file, len(SNAPSHOT_MAGIC), 0) != SNAPSHOT_MAGIC:
            raise StoreCorrupt(f"{path}: not a snapshot")
        offset = len(SNAPSHOT_MAGIC)
        while True:
            found = read_frame(file, offset, size)
            if found is None:
                raise StoreCorrupt(f"{path}: damaged at byte {offset}")
            kind, payload, offset = found
            if kind == _KIND_END:
                break
            _collect(payload, accounts, codes)
    finally:
        os.close(file)
    mark = msgspec.msgpack.decode(payload, type=SnapshotMark)
    whole = StateDiff(trie.EMPTY_ROOT, mark.state_root, tuple(accounts.values()), codes)
    return Snapshot(mark, WorldState().apply_diff(whole))


def _collect(payload: bytes, accounts: dict[bytes, AccountDiff], codes: dict[bytes, bytes]) -> None:
    pieces, more_codes = msgspec.msgpack.decode(payload, type=tuple[list[AccountDiff], dict[bytes, bytes]])
    codes.update(more_codes)
    for piece in pieces:
        known = accounts.get(piece.key)
        if known is None:
            accounts[piece.key] = piece
        else:
            known.storage.update(piece.storage)


def _remove_old(directory: Path) -> None:
    whole = sorted(path for path in directory.glob("snapshot-*.bin") if _NAME.fullmatch(path.name))
    for path in whole[:-SNAPSHOTS_KEPT]:
        path.unlink(missing_ok=True)
