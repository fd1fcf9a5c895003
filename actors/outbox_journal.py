"""What an ingress has taken in and no sealed block holds yet, on disk: a killed ingress goes on where it was.

One file of checksummed records, written before the sender is answered, with no fsync: it survives the process, not the
power (which the pools' memories would not survive either). When most of it is done with, it is written anew.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from pathlib import Path

from flashblocks.execution.store import frame_record, read_frame

FILE = "outbox.log"
KIND_TRANSACTION = 1
REWRITE_BYTES_MIN = 4 * 1024 * 1024  # of records since the last rewriting

_ARRIVED = struct.Struct(">d")  # seconds since the epoch


class OutboxJournal:
    """The journal in `directory`. OSError of a full or broken disk comes out of `add` and `rewrite`."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._path = directory / FILE
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        self._written_bytes = 0

    def load(self) -> list[tuple[float, bytes]]:
        """When each transaction arrived (seconds since the epoch), and its bytes; a torn end is cut off."""
        size = os.fstat(self._file).st_size
        found, offset = [], 0
        while (record := read_frame(self._file, offset, size)) is not None:
            _, payload, offset = record
            if len(payload) > _ARRIVED.size:
                found.append((_ARRIVED.unpack_from(payload)[0], payload[_ARRIVED.size :]))
        os.ftruncate(self._file, offset)
        os.lseek(self._file, offset, os.SEEK_SET)
        self._written_bytes = offset
        return found

    def add(self, arrived: float, raw: bytes) -> None:
        """Note one transaction; it is there when this returns."""
        self._written_bytes += _write(self._file, _record(arrived, raw))

    def wants_rewriting(self) -> bool:
        """Whether enough has been written for a rewriting to pay."""
        return self._written_bytes >= REWRITE_BYTES_MIN

    def rewrite(self, held: Iterable[tuple[float, bytes]]) -> None:
        """Keep only these; whole or not at all. When it fails, the next one is due as much later."""
        self._written_bytes = 0
        path = self._path.with_suffix(".new")
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            for arrived, raw in held:
                _write(file, _record(arrived, raw))
            os.replace(path, self._path)
        except OSError:
            os.close(file)
            raise
        os.close(self._file)
        self._file = file

    def close(self) -> None:
        """Let go of the file; idempotent."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _record(arrived: float, raw: bytes) -> bytes:
    return frame_record(KIND_TRANSACTION, _ARRIVED.pack(arrived) + raw)


def _write(file: int, record: bytes) -> int:
    written = os.write(file, record)
    if written < len(record):  # a disk that is just full: nothing half may stay in the middle
        end = os.lseek(file, -written, os.SEEK_CUR)
        os.ftruncate(file, end)
        raise OSError(f"only {written} of {len(record)} bytes could be written")
    return written
