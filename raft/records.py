"""The journal's bytes: records with checksums in preallocated segments. Pure: no file is opened here.

A record is `header · payload · trailer`. The header has its own checksum, so a length is never trusted blindly; the
trailer ends with a mark that is not zero. Segments are preallocated with zeros. That tells apart what a reader
must tell apart:

- zeros up to the end: the log ends here;
- a record whose end is zeros, with only zeros after it: it was being written when the process or machine died
  (torn). It was never acknowledged, and is dropped;
- anything else that does not fit: bytes were altered. The journal is refused; altered bytes are never applied.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from enum import IntEnum
from typing import Final

import msgspec

MAGIC: Final = b"FBRLOG\x00\x01"
_SEGMENT: Final = struct.Struct(">8sQQI")
_HEADER: Final = struct.Struct(">BIQQI")
_TRAILER: Final = struct.Struct(">I4s")
_END_MARK: Final = b"\xe7\x1e\xc0\xde"
SEGMENT_HEADER_BYTES: Final = _SEGMENT.size
RECORD_OVERHEAD_BYTES: Final = _HEADER.size + _TRAILER.size


class DamagedBytes(ValueError):
    """A segment holds bytes that were never written so."""


class Kind(IntEnum):
    """What a record means for the log read so far."""

    ENTRY = 1
    """Append the entry (index, term, payload)."""
    CUT = 2
    """Remove all entries from `index` on."""
    BASE = 3
    """Remove all entries before `index`."""
    COMMIT = 4
    """Entries up to `index` were known to be committed."""


class Record(msgspec.Struct, frozen=True):
    """One decoded record; `end` is the offset after it."""

    kind: Kind
    index: int
    term: int
    payload: bytes
    end: int


def segment_header(sequence: int, size: int) -> bytes:
    """First bytes of a segment file of `size` bytes; a file that became shorter is damaged."""
    head = _SEGMENT.pack(MAGIC, sequence, size, 0)[:-4]
    return head + zlib.crc32(head).to_bytes(4, "big")


def encode_record(kind: Kind, index: int, term: int, payload: bytes = b"") -> tuple[bytes, bytes, bytes]:
    """(header, payload, trailer), to be written one after the other."""
    head = _HEADER.pack(kind, len(payload), index, term, 0)[:-4]
    head_checksum = zlib.crc32(head)
    header = head + head_checksum.to_bytes(4, "big")
    return header, payload, _TRAILER.pack(zlib.crc32(payload, head_checksum), _END_MARK)


def read_segment(data: bytes, sequence: int, last: bool) -> Iterator[Record]:
    """All records of a segment; only the `last` segment may end in a torn record. Raises DamagedBytes."""
    if data[:SEGMENT_HEADER_BYTES] != segment_header(sequence, len(data)):
        raise DamagedBytes("segment header is damaged, or the file is not as long as it was made")
    offset = SEGMENT_HEADER_BYTES
    while True:
        record = _read_record(data, offset)
        if record is None:
            break
        yield record
        offset = record.end
    if not _zeros(data, offset) and not (last and _is_torn(data, offset)):
        raise DamagedBytes(f"record at offset {offset} is damaged")


def _read_record(data: bytes, offset: int) -> Record | None:
    body = offset + _HEADER.size
    if body > len(data):
        return None
    kind, length, index, term, head_checksum = _HEADER.unpack_from(data, offset)
    if kind == 0 or zlib.crc32(data[offset : body - 4]) != head_checksum:
        return None
    end = body + length + _TRAILER.size
    if end > len(data):
        return None
    payload = data[body : body + length]
    checksum, mark = _TRAILER.unpack_from(data, body + length)
    if mark != _END_MARK or zlib.crc32(payload, head_checksum) != checksum:
        return None
    try:
        return Record(Kind(kind), index, term, payload, end)
    except ValueError as error:
        raise DamagedBytes(f"record at offset {offset} is of unknown kind {kind}") from error


def _is_torn(data: bytes, offset: int) -> bool:
    """Whether the bytes at `offset` are the beginning of one record, followed by zeros only."""
    body = offset + _HEADER.size
    if body > len(data):
        return False
    kind, length, _, _, head_checksum = _HEADER.unpack_from(data, offset)
    expected = zlib.crc32(data[offset : body - 4])
    if expected != head_checksum:
        return _cut_short(data[body - 4 : body], expected.to_bytes(4, "big")) and _zeros(data, body)
    end = body + length + _TRAILER.size
    return kind != 0 and _cut_short(data[end - len(_END_MARK) : end], _END_MARK) and _zeros(data, end)


def _cut_short(found: bytes, whole: bytes) -> bool:
    """Whether `found` is a proper beginning of `whole`, then zeros."""
    return any(found == whole[:length] + bytes(len(whole) - length) for length in range(len(whole)))


def _zeros(data: bytes, offset: int) -> bool:
    return data.count(0, offset) == len(data) - offset
