"""The chain on disk: an append-only log of blocks with their state changes, and snapshots that shorten the replay.

A record is written whole or, after a crash, dropped whole: each carries its length and a CRC-32, and reopening cuts the
log at the first record that does not check. Writing a block costs one `write`; nothing is ever rewritten in place.
This is the one module of the rules that touches a disk. It knows nothing of consensus: blocks and receipts are bytes.

    <directory>/LOCK                      held with flock(2) while the store is open
    <directory>/blocks-00000000.log       magic, then records; a new segment begins when one is full
    <directory>/snapshot-000000000512.bin magic, then the accounts of one state in slices, then an end record
"""

import errno
import fcntl
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from flashblocks.execution.compact import HashPlaces
from flashblocks.execution.state import StateDiff

SEGMENT_MAGIC = b"FBCHAIN2"
SEGMENT_SIZE_BYTES_MAX = 64 << 20
RECORD_SIZE_BYTES_MAX = 256 << 20  # far above any block; a larger length on disk is damage
COMPRESSION_LEVEL = 1  # receipts and diffs shrink to a third; higher levels cost more than they save

KIND_BLOCK = 1
KIND_FORKCHOICE = 2

_FRAME = struct.Struct(">IIB")  # payload length in bytes, CRC-32 over kind and payload, kind
_BLOCK_KEY = struct.Struct(">Q32s32s")  # number, hash, parent hash: lets old segments be indexed without decoding
_OFFSET_BITS = 40


class StoreError(Exception):
    """The disk did not do what was asked; the text says what and where."""


class StoreFull(StoreError):
    """No space is left: the record was not written, everything written before is intact."""


class StoreLocked(StoreError):
    """Another process has this directory open."""


class StoreCorrupt(StoreError):
    """A record that was once whole no longer matches its checksum."""


class StoredBlock(msgspec.Struct, frozen=True, array_like=True):
    """One executed block: RLP of the block, consensus encodings of its receipts, and what it changed in the state."""

    number: int
    hash: bytes
    parent_hash: bytes
    block: bytes
    receipts: tuple[bytes, ...]
    diff: StateDiff


class StoredForkchoice(msgspec.Struct, frozen=True, array_like=True):
    """The head, safe and finalized block hashes as last set by forkchoice."""

    head: bytes
    safe: bytes
    finalized: bytes


Record = StoredBlock | StoredForkchoice


class Link(NamedTuple):
    """A stored block's place in the chain."""

    number: int
    parent_hash: bytes


class ChainStore:
    """The log of one execution client. Not thread-safe but for `sync`, which may run beside everything else."""

    def __init__(self, directory: Path, *, segment_size_bytes_max: int = SEGMENT_SIZE_BYTES_MAX) -> None:
        """Open or create; raises StoreLocked, StoreCorrupt, StoreFull or StoreError."""
        self.directory = directory
        self.dropped_bytes = 0  # torn or damaged bytes cut off at the end of the log when it was opened
        self._segment_size_bytes_max = segment_size_bytes_max
        self._places = HashPlaces(lambda place: self._key_of(place)[1])
        self._files: list[int] = []
        self._end = 0
        directory.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(directory / "LOCK")
        try:
            self._open_segments()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Release the files and the lock; idempotent."""
        for file in self._files:
            os.close(file)
        self._files = []
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __contains__(self, block_hash: bytes) -> bool:
        return block_hash in self._places

    def __len__(self) -> int:
        """The number of distinct blocks in the log."""
        return len(self._places)

    def append_block(self, block: StoredBlock) -> None:
        """Write one block; a block that is already there is left alone. Raises StoreFull or StoreError."""
        if block.hash in self._places:
            return
        self._places.add(block.hash, self._append(KIND_BLOCK, _encode_block(block)))

    def append_forkchoice(self, forkchoice: StoredForkchoice) -> None:
        """Write where the chain stands now. Raises StoreFull or StoreError."""
        self._append(KIND_FORKCHOICE, msgspec.msgpack.encode(forkchoice))

    def read_block(self, block_hash: bytes) -> StoredBlock | None:
        """The block, or None when it was never written. Raises StoreCorrupt when its bytes have changed since."""
        place = self._places.get(block_hash)
        if place is None:
            return None
        record, _ = self._read(place)
        if not isinstance(record, StoredBlock) or record.hash != block_hash:
            raise StoreCorrupt(f"{self.directory}: another record where block {block_hash.hex()} was")
        return record

    def link_of(self, block_hash: bytes) -> Link | None:
        """The height and the parent of a stored block, without reading the block."""
        place = self._places.get(block_hash)
        if place is None:
            return None
        number, _, parent_hash = self._key_of(place)
        return Link(number, parent_hash)

    def _key_of(self, place: int) -> tuple[int, bytes, bytes]:
        """Number, hash and parent hash of the block whose record lies at `place`."""
        segment, offset = place >> _OFFSET_BITS, place & ((1 << _OFFSET_BITS) - 1)
        key = os.pread(self._files[segment], _BLOCK_KEY.size, offset + _FRAME.size)
        found: tuple[int, bytes, bytes] = _BLOCK_KEY.unpack(key)
        return found

    def place_of(self, block_hash: bytes) -> int | None:
        """Where the block lies in the log, for `records_from`."""
        return self._places.get(block_hash)

    def records_from(self, place: int = 0) -> Iterator[Record]:
        """Every record from `place` (0: the beginning) to the end, in the order of writing. Raises StoreCorrupt."""
        segment, offset = place >> _OFFSET_BITS, place & ((1 << _OFFSET_BITS) - 1)
        offset = max(offset, len(SEGMENT_MAGIC))
        while segment < len(self._files):
            size = os.fstat(self._files[segment]).st_size
            while offset < size:
                record, offset = self._read(segment << _OFFSET_BITS | offset)
                yield record
            segment, offset = segment + 1, len(SEGMENT_MAGIC)

    def sync(self) -> None:
        """Force the log to the medium, for power loss; a killed process needs none of it. May run in another thread."""
        if self._files:
            os.fdatasync(self._files[-1])

    def _open_segments(self) -> None:
        paths = sorted(self.directory.glob("blocks-*.log"))
        for position, path in enumerate(paths):
            if path.name != _segment_name(position):
                raise StoreCorrupt(f"{self.directory}: segment {_segment_name(position)} is missing")
            self._files.append(os.open(path, os.O_RDWR | os.O_CLOEXEC))
            last = position == len(paths) - 1
            self._end = self._index_segment(position, last)
        if not paths:
            self._begin_segment()

    def _index_segment(self, segment: int, last: bool) -> int:
        """Learn where each block lies; the last segment is checked byte by byte and cut at the first bad record."""
        file = self._files[segment]
        size = os.fstat(file).st_size
        if os.pread(file, len(SEGMENT_MAGIC), 0) != SEGMENT_MAGIC:
            if not last or size > len(SEGMENT_MAGIC):
                raise StoreCorrupt(f"{self.directory / _segment_name(segment)}: not a chain log")
            _write_at(file, SEGMENT_MAGIC, 0)  # the process died between creating the file and writing its first bytes
            return len(SEGMENT_MAGIC)
        offset = len(SEGMENT_MAGIC)
        while offset < size:
            key = _key_at(file, offset, size, checked=last)
            if key is None:
                if not last:
                    raise StoreCorrupt(f"{self.directory / _segment_name(segment)}: damaged at byte {offset}")
                self.dropped_bytes = size - offset
                os.ftruncate(file, offset)
                break
            following, block = key
            if block is not None and block not in self._places:
                self._places.add(block, segment << _OFFSET_BITS | offset)
            offset = following
        return offset

    def _begin_segment(self) -> None:
        path = self.directory / _segment_name(len(self._files))
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise _store_error(path, error) from error
        try:
            _write_at(file, SEGMENT_MAGIC, 0)
        except OSError as error:
            os.close(file)
            path.unlink(missing_ok=True)
            raise _store_error(path, error) from error
        if self._files:
            os.fdatasync(self._files[-1])
        self._files.append(file)
        self._end = len(SEGMENT_MAGIC)

    def _append(self, kind: int, payload: bytes) -> int:
        if not self._files:
            raise StoreError(f"{self.directory}: the store is closed")
        if self._end >= self._segment_size_bytes_max:
            self._begin_segment()
        file, offset = self._files[-1], self._end
        try:
            self._end = _write_at(file, frame_record(kind, payload), offset)
        except OSError as error:
            try:
                os.ftruncate(file, offset)
            except OSError:
                pass  # the next opening cuts the torn record by its checksum
            raise _store_error(self.directory, error) from error
        return (len(self._files) - 1) << _OFFSET_BITS | offset

    def _read(self, place: int) -> tuple[Record, int]:
        segment, offset = place >> _OFFSET_BITS, place & ((1 << _OFFSET_BITS) - 1)
        file = self._files[segment]
        found = read_frame(file, offset, os.fstat(file).st_size)
        if found is None:
            raise StoreCorrupt(f"{self.directory / _segment_name(segment)}: damaged at byte {offset}")
        kind, payload, following = found
        return _decode(kind, payload), following


def frame_record(kind: int, payload: bytes) -> bytes:
    """A record as it lies on disk."""
    return _FRAME.pack(len(payload), zlib.crc32(payload, kind), kind) + payload


def read_frame(file: int, offset: int, size: int) -> tuple[int, bytes, int] | None:
    """Kind, payload and the offset behind the record at `offset`; None when it is torn or damaged."""
    head = os.pread(file, _FRAME.size, offset)
    if len(head) < _FRAME.size:
        return None
    length, checksum, kind = _FRAME.unpack(head)
    following = offset + _FRAME.size + length
    if length > RECORD_SIZE_BYTES_MAX or following > size:
        return None
    payload = os.pread(file, length, offset + _FRAME.size)
    if len(payload) < length or zlib.crc32(payload, kind) != checksum:
        return None
    return kind, payload, following


def _key_at(file: int, offset: int, size: int, *, checked: bool) -> tuple[int, bytes | None] | None:
    """The offset behind the record and, for a block, its hash; reads the payload only when `checked`."""
    head = os.pread(file, _FRAME.size + _BLOCK_KEY.size, offset)
    if len(head) < _FRAME.size:
        return None
    length, _, kind = _FRAME.unpack_from(head)
    following = offset + _FRAME.size + length
    if following > size or (checked and read_frame(file, offset, size) is None):
        return None
    if kind != KIND_BLOCK:
        return following, None
    if len(head) < _FRAME.size + _BLOCK_KEY.size:
        return None
    return following, _BLOCK_KEY.unpack_from(head, _FRAME.size)[1]


def _encode_block(block: StoredBlock) -> bytes:
    rest = msgspec.msgpack.encode((block.block, block.receipts, block.diff))
    return _BLOCK_KEY.pack(block.number, block.hash, block.parent_hash) + zlib.compress(rest, COMPRESSION_LEVEL)


def _decode(kind: int, payload: bytes) -> Record:
    try:
        if kind == KIND_FORKCHOICE:
            return msgspec.msgpack.decode(payload, type=StoredForkchoice)
        number, block_hash, parent_hash = _BLOCK_KEY.unpack_from(payload)
        rest = zlib.decompress(memoryview(payload)[_BLOCK_KEY.size :])
        block, receipts, diff = msgspec.msgpack.decode(rest, type=tuple[bytes, tuple[bytes, ...], StateDiff])
    except (msgspec.DecodeError, zlib.error, struct.error) as error:
        raise StoreCorrupt(f"chain log: a whole record of kind {kind} does not decode: {error}") from error
    return StoredBlock(number, block_hash, parent_hash, block, receipts, diff)


def _write_at(file: int, data: bytes, offset: int) -> int:
    """Write all of `data`; returns the offset behind it. Raises OSError (a short write at a full disk included)."""
    view = memoryview(data)
    while view:
        written = os.pwrite(file, view, offset)
        if written == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        offset += written
        view = view[written:]
    return offset


def _store_error(path: Path, error: OSError) -> StoreError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreFull(f"{path}: no space left on the disk; the chain is intact up to the last block written")
    return StoreError(f"{path}: {error.strerror}")


def _segment_name(position: int) -> str:
    return f"blocks-{position:08d}.log"


def _lock(path: Path) -> int | None:
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise _store_error(path, error) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(file)
        raise StoreLocked(f"{path}: another process has this chain open") from error
    return file
