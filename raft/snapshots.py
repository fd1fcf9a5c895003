"""Snapshots of the ledger on disk and over the wire, behind the interface that PySyncObj expects of a serializer.

The ledger's view is immutable, so a snapshot is written by a short-lived thread while commands go on: a leader never
pauses for it, and nothing is forked. A file is a header (the last two log entries it covers), the ledger's parts,
and a SHA-256 of all that; it is put in place atomically, and read back only if the checksum fits.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec

from raft.journal import Journal, JournalDamaged, LogEntry, sync_directory
from raft.membership import Overlay
from raft.view import LedgerView, snapshot_parts

MAGIC: Final = b"FBRSNAP\x01"
CHUNK_BYTES: Final = 256 * 1024
LINK_BACKLOG_BYTES_MAX: Final = 4 * 1024 * 1024
"""A snapshot is sent on only while less than this waits on the link, so that it does not hold up live entries."""
RETRY_S: Final = 5.0
"""How long to wait after a snapshot could not be written."""
_LENGTH_BYTES: Final = 8
_DIGEST_BYTES: Final = 32

# The library's SERIALIZER_STATE codes.
IDLE: Final = 0
WRITING: Final = 1
WRITTEN: Final = 2
FAILED: Final = 3

_log = logging.getLogger(__name__)


class SnapshotHeader(msgspec.Struct, frozen=True, array_like=True):
    """Where in the log a snapshot stands: the entry before the last applied one, and that one; and who the members
    are by then, as changes to every node's settings."""

    previous: LogEntry
    last: LogEntry
    members: Overlay = Overlay()


class Snapshot(msgspec.Struct, frozen=True):
    """A snapshot read back: header, and the ledger's bytes for `Ledger.restore`."""

    header: SnapshotHeader
    ledger: bytes


class _Sending:
    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.first = True


class SnapshotStore:
    """The newest snapshot of one node. The camel-case methods are the ones the library calls, on the Raft thread."""

    def __init__(
        self,
        path: Path,
        view: Callable[[], LedgerView],
        keep_from: Callable[[], int],
        overlay: Callable[[int], Overlay],
        backlog_bytes: Callable[[str], int],
        clock: Callable[[], float],
    ) -> None:
        self._path = path
        self._view = view
        self._keep_from = keep_from
        self._overlay = overlay
        self._backlog_bytes = backlog_bytes
        self._clock = clock
        self._writer: threading.Thread | None = None
        self._outcome = IDLE
        self._failed_at = 0.0
        self._covered = 0
        self._sending: dict[str, _Sending] = {}
        self._receiving: BinaryIO | None = None
        self.failure: str | None = None
        """Why the last snapshot could not be written, or None."""

    def load(self) -> Snapshot | None:
        """The stored snapshot, None if there is none; raises JournalDamaged if its checksum does not fit."""
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return None
        return _decode(data, self._path)

    def close(self) -> None:
        """Wait for a snapshot being written, and close all files."""
        if self._writer is not None:
            self._writer.join()
        self._stop_sending_all()
        if self._receiving is not None:
            self._receiving.close()
            self._receiving = None

    def serialize(self, data: tuple[Any, LogEntry, LogEntry, Any], id_: int) -> None:
        """Begin to write a snapshot of the ledger as it is now."""
        if self._writer is not None:
            return
        _, last, previous, _ = data
        members = self._overlay(last[1])
        header = SnapshotHeader((previous[0], previous[1], previous[2]), (last[0], last[1], last[2]), members)
        self._covered = self._keep_from()
        self._outcome = WRITING
        self._writer = threading.Thread(target=self._write, args=(header, self._view()), name="raft-snapshot")
        self._writer.start()

    def checkSerializing(self) -> tuple[int, int | None]:
        """(state, index up to which the log may be dropped)."""
        if self._outcome == IDLE:
            return IDLE, None
        writing = self._outcome == WRITING
        waiting = self._outcome == FAILED and self._clock() - self._failed_at < RETRY_S
        if writing or waiting:
            return WRITING, self._covered
        outcome, self._outcome = self._outcome, IDLE
        if self._writer is not None:
            self._writer.join()
            self._writer = None
        self._stop_sending_all()
        return outcome, self._covered

    def _write(self, header: SnapshotHeader, view: LedgerView) -> None:
        temporary = self._path.with_suffix(".new")
        try:
            with temporary.open("wb") as file:
                digest = hashlib.sha256()
                for part in _parts(header, view):
                    digest.update(part)
                    file.write(part)
                file.write(digest.digest())
                file.flush()
                os.fsync(file.fileno())
            temporary.rename(self._path)
            sync_directory(self._path.parent)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            self.failure = f"snapshot cannot be written: {error.strerror}"
            _log.warning("%s: %s", self._path, self.failure)
            self._failed_at = self._clock()
            self._outcome = FAILED
        else:
            self.failure = None
            self._outcome = WRITTEN

    def getTransmissionData(self, node: Any) -> tuple[bytes, bool, bool] | None:
        """Next (chunk, is first, is last) for a member, or None while its link is busy or a snapshot is written."""
        if self._outcome == WRITING or self._backlog_bytes(node.id) > LINK_BACKLOG_BYTES_MAX:
            return None
        sending = self._sending.get(node.id)
        if sending is None:
            try:
                sending = self._sending[node.id] = _Sending(self._path.open("rb"))
            except OSError as error:
                _log.warning("snapshot cannot be sent: %s", error)
                return None
        chunk = sending.file.read(CHUNK_BYTES)
        first, sending.first = sending.first, False
        if not chunk:
            self.cancelTransmisstion(node)
        return chunk, first, not chunk

    def setTransmissionData(self, data: tuple[bytes, bool, bool] | None) -> bool:
        """Take a chunk; True once a whole, undamaged snapshot is in place."""
        if data is None:
            return False
        chunk, first, last = data
        incoming = self._path.with_suffix(".incoming")
        if first:
            if self._receiving is not None:
                self._receiving.close()
            self._receiving = incoming.open("wb")
        if self._receiving is None:
            return False
        self._receiving.write(chunk)
        if not last:
            return False
        self._receiving.flush()
        os.fsync(self._receiving.fileno())
        self._receiving.close()
        self._receiving = None
        try:
            _decode(incoming.read_bytes(), incoming)
        except JournalDamaged as error:
            _log.warning("a peer's snapshot is refused: %s", error)
            return False
        incoming.rename(self._path)
        sync_directory(self._path.parent)
        return True

    def cancelTransmisstion(self, node: Any) -> None:
        """Stop sending to a member; it will begin anew."""
        sending = self._sending.pop(node.id, None)
        if sending is not None:
            sending.file.close()

    def _stop_sending_all(self) -> None:
        for sending in self._sending.values():
            sending.file.close()
        self._sending.clear()


def keep_from(log: Journal, applied_index: int, entries_max: int, bytes_max: int) -> int:
    """First index to keep when everything up to `applied_index` is in a snapshot: a bounded tail stays in the log."""
    position = applied_index - log[0][1]
    kept_bytes = 0
    oldest = max(0, position - entries_max)
    while position > oldest:
        kept_bytes += len(log[position - 1][0])
        if kept_bytes > bytes_max:
            break
        position -= 1
    return log[0][1] + position


def _parts(header: SnapshotHeader, view: LedgerView) -> Any:
    encoded = msgspec.msgpack.encode(header)
    yield MAGIC + len(encoded).to_bytes(_LENGTH_BYTES, "big") + encoded
    yield from snapshot_parts(view)


def _decode(data: bytes, path: Path) -> Snapshot:
    if hashlib.sha256(data[:-_DIGEST_BYTES]).digest() != data[-_DIGEST_BYTES:] or data[: len(MAGIC)] != MAGIC:
        raise JournalDamaged(f"{path}: snapshot checksum does not fit")
    start = len(MAGIC) + _LENGTH_BYTES
    end = start + int.from_bytes(data[len(MAGIC) : start], "big")
    header = msgspec.msgpack.decode(data[start:end], type=SnapshotHeader)
    return Snapshot(header, data[end:-_DIGEST_BYTES])
