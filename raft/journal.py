"""The Raft log on disk, behind the interface that PySyncObj expects of a journal (hence the camel case).

The log is kept in memory as well, as the library needs it. On disk it is a row of preallocated segment files of
checksummed records (`records.py`) that are only ever appended to; cutting and compacting the log are records too,
and whole segments are removed once compaction passed them. Term and vote are a small file of their own, replaced
atomically before any message that rests on them leaves the node. Everything survives the process's sudden end; with
`fsync` it survives a power cut as well, at the price of a disk's latency per commit and per vote.

What may fail fails clearly: `JournalDamaged` at opening (then `move_aside` and rejoin from the peers), `JournalFull`
when a record finds no room. Nothing is written through a memory map, so a full disk is an error and not a signal.
"""

from __future__ import annotations

import errno
import fcntl
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Final, overload

import msgspec

from raft.records import (
    RECORD_OVERHEAD_BYTES,
    SEGMENT_HEADER_BYTES,
    DamagedBytes,
    Kind,
    Record,
    encode_record,
    read_segment,
    segment_header,
)

LogEntry = tuple[bytes, int, int]
"""(command, index, term)."""

VOTE_FILE: Final = "vote"
REJOINING_FILE: Final = "rejoining"
LOCK_FILE: Final = "lock"
SNAPSHOT_FILE: Final = "snapshot"
_DISK_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class StorageError(RuntimeError):
    """The node cannot go on with what is, or is not, on its disk."""


class JournalDamaged(StorageError):
    """Journal, vote or snapshot hold bytes that were never written so; the node must rejoin from its peers."""


class JournalFull(StorageError):
    """There is no room for the next record."""


def is_disk_full(error: BaseException) -> bool:
    """Whether somebody has to make room before it can go on."""
    return isinstance(error, JournalFull) or (isinstance(error, OSError) and error.errno in _DISK_FULL)


class _Vote(msgspec.Struct, array_like=True):
    term: int
    voted_for: str | None


class _Segment:
    """One open or finished segment file."""

    def __init__(self, path: Path, sequence: int, size: int, end: int, last_index: int) -> None:
        self.path = path
        self.sequence = sequence
        self.size = size
        self.end = end
        self.last_index = last_index
        """Highest index of an entry ever written here; the file is needed while the log begins at or below it."""


class Journal:
    """The log of one node in one directory, locked against a second process while open."""

    def __init__(self, directory: Path, segment_bytes: int, free_space_bytes_min: int, fsync: bool) -> None:
        """Open or create. Raises JournalDamaged, JournalFull, or OSError (the directory is in use, no permission)."""
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._free_space_bytes_min = free_space_bytes_min
        self._fsync = fsync
        self._entries: list[LogEntry] = []
        self._bytes = 0
        self._commit_index = 1
        self._commit_saved = 1
        self._segments: list[_Segment] = []
        self._file = -1
        self._dirty = False
        self._added: Callable[[bytes, int], None] = lambda command, index: None
        self._cut: Callable[[int], None] = lambda index: None
        self.keep_suffix = False
        """While True, `deleteEntriesFrom` does nothing (see `replication.repair_append`)."""
        self.fresh = False
        """Whether there was no log in the directory when it was opened."""
        directory.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(directory)
        try:
            self._vote = _read_vote(directory / VOTE_FILE)
            self._load()
        except BaseException:
            self._destroy()
            raise

    @property
    def entry_bytes(self) -> int:
        """Bytes of all commands in the log."""
        return self._bytes

    @property
    def last_index(self) -> int:
        """Index of the last entry, 0 if there is none (any thread)."""
        last = self._entries[-1:]
        return last[0][1] if last else 0

    @property
    def knows_vote(self) -> bool:
        """Whether a term was ever stored here; otherwise it is not known in which terms this node voted."""
        return self._vote is not None

    def watch(self, added: Callable[[bytes, int], None], cut: Callable[[int], None]) -> None:
        """Call `added` with command and index of every further entry, `cut` with the index from which some vanish."""
        self._added, self._cut = added, cut

    def sync(self) -> None:
        """If asked to (`fsync`), force what was added to the disk; called before anything that rests on it is sent."""
        if self._dirty and self._fsync:
            os.fdatasync(self._file)
        self._dirty = False

    # The rest is the interface PySyncObj calls; positions count from the log's first entry, indices are Raft's.

    def add(self, command: bytes, idx: int, term: int) -> None:
        """Append one entry; raises JournalFull and changes nothing if there is no room."""
        self._write(Kind.ENTRY, idx, term, command)
        segment = self._segments[-1]
        segment.last_index = max(segment.last_index, idx)
        self._entries.append((command, idx, term))
        self._bytes += len(command)
        self._added(command, idx)

    def clear(self) -> None:
        """Remove all entries."""
        self._write(Kind.CUT, 0, 0)
        self._entries = []
        self._bytes = 0

    def deleteEntriesFrom(self, entryFrom: int) -> None:
        """Remove the entries from a position on."""
        if self.keep_suffix or entryFrom >= len(self._entries):
            return
        index = self._entries[entryFrom][1]
        self._write(Kind.CUT, index, 0)
        self._bytes -= sum(len(command) for command, _, _ in self._entries[entryFrom:])
        del self._entries[entryFrom:]
        self._cut(index)

    def deleteEntriesTo(self, entryTo: int) -> None:
        """Remove the entries before a position, and the segments that only held such."""
        if entryTo <= 0:
            return
        first = self._entries[entryTo][1]
        self._write(Kind.BASE, first, 0)
        self._write(Kind.COMMIT, self._commit_index, 0)
        self._bytes -= sum(len(command) for command, _, _ in self._entries[:entryTo])
        self._entries = self._entries[entryTo:]
        while len(self._segments) > 1 and self._segments[0].last_index < first:
            self._segments.pop(0).path.unlink()

    @overload
    def __getitem__(self, item: int) -> LogEntry: ...
    @overload
    def __getitem__(self, item: slice) -> list[LogEntry]: ...
    def __getitem__(self, item: int | slice) -> LogEntry | list[LogEntry]:
        """Entry or entries by position."""
        return self._entries[item]

    def __len__(self) -> int:
        """Number of entries."""
        return len(self._entries)

    def setRaftCommitIndex(self, raftCommitIndex: int) -> None:
        """Remember how far the log is committed; written once a second."""
        self._commit_index = raftCommitIndex

    def getRaftCommitIndex(self) -> int:
        """How far the log was known to be committed, never beyond its end."""
        return self._commit_index

    def setCurrentTerm(self, term: int, votedForNodeId: str | None) -> None:
        """Replace term and vote, before the library answers or asks for a vote."""
        self._vote = _Vote(term, votedForNodeId)
        encoded = msgspec.msgpack.encode(self._vote)
        try:
            checksum = zlib.crc32(encoded).to_bytes(4, "big")
            replace_file(self._directory / VOTE_FILE, [encoded, checksum], durably=self._fsync)
        except OSError as error:
            raise _full_or_same(error, self._directory) from error

    def getCurrentTerm(self) -> int:
        """The last term stored."""
        return self._vote.term if self._vote is not None else 0

    def getVotedForNodeId(self) -> str | None:
        """Whom this node voted for in that term."""
        return self._vote.voted_for if self._vote is not None else None

    def onOneSecondTimer(self) -> None:
        """Write the commit index, so that a restart need not wait for the leader to apply what it has."""
        if self._commit_saved != self._commit_index:
            self._write(Kind.COMMIT, self._commit_index, 0)
            self._commit_saved = self._commit_index

    def _destroy(self) -> None:
        """Close files and release the directory; idempotent."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _write(self, kind: Kind, index: int, term: int, payload: bytes = b"") -> None:
        needed = RECORD_OVERHEAD_BYTES + len(payload)
        segment = self._segments[-1]
        if segment.end + needed > segment.size:
            segment = self._add_segment(needed)
        record = encode_record(kind, index, term, payload)
        try:
            written = os.pwritev(self._file, record, segment.end)
        except OSError as error:
            raise _full_or_same(error, self._directory) from error
        if written != needed:
            raise JournalFull(f"{segment.path} took {written} of {needed} bytes")
        segment.end += needed
        self._dirty = True

    def _add_segment(self, needed: int) -> _Segment:
        sequence = self._segments[-1].sequence + 1 if self._segments else 1
        size = max(self._segment_bytes, SEGMENT_HEADER_BYTES + needed)
        self._check_free_space(size)
        path = self._directory / f"log-{sequence:08d}.segment"
        temporary = path.with_suffix(".new")
        try:
            with temporary.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, size)
                file.write(segment_header(sequence, size))
                if self._fsync:
                    file.flush()
                    os.fsync(file.fileno())
            temporary.rename(path)
            if self._fsync:
                sync_directory(self._directory)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise _full_or_same(error, self._directory) from error
        self.sync()
        self._segments.append(_Segment(path, sequence, size, SEGMENT_HEADER_BYTES, 0))
        self._open_last()
        return self._segments[-1]

    def _check_free_space(self, size: int) -> None:
        space = os.statvfs(self._directory)
        free = space.f_bavail * space.f_frsize
        if free < size + self._free_space_bytes_min:
            raise JournalFull(
                f"{self._directory} has {free} bytes free; a journal segment needs {size}, "
                f"and {self._free_space_bytes_min} must remain"
            )

    def _open_last(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._file = os.open(self._segments[-1].path, os.O_WRONLY)

    def _load(self) -> None:
        for leftover in self._directory.glob("log-*.new"):
            leftover.unlink()
        paths = sorted(self._directory.glob("log-*.segment"))
        try:
            sequences = [int(path.stem.removeprefix("log-")) for path in paths]
        except ValueError as error:
            raise JournalDamaged(f"{self._directory} holds a segment that is not ours: {error}") from error
        if sequences and sequences != list(range(sequences[0], sequences[0] + len(sequences))):
            raise JournalDamaged(f"{self._directory} misses a journal segment: found {sequences}")
        for path, sequence in zip(paths, sequences, strict=True):
            self._load_segment(path, sequence, last=path == paths[-1])
        if not self._segments:
            self.fresh = True
            self._add_segment(0)
        self._open_last()
        last_index = self._entries[-1][1] if self._entries else 1
        self._commit_index = self._commit_saved = min(self._commit_index, last_index)
        self._bytes = sum(len(command) for command, _, _ in self._entries)

    def _load_segment(self, path: Path, sequence: int, last: bool) -> None:
        data = path.read_bytes()
        segment = _Segment(path, sequence, len(data), SEGMENT_HEADER_BYTES, 0)
        try:
            for record in read_segment(data, sequence, last):
                self._replay(record)
                segment.end = record.end
                if record.kind is Kind.ENTRY:
                    segment.last_index = max(segment.last_index, record.index)
        except DamagedBytes as error:
            raise JournalDamaged(f"{path}: {error}") from error
        if last and data.count(0, segment.end) != len(data) - segment.end:
            _wipe(path, segment.end, len(data))
        self._segments.append(segment)

    def _replay(self, record: Record) -> None:
        entries = self._entries
        if record.kind is Kind.ENTRY:
            if entries and record.index != entries[-1][1] + 1:
                raise DamagedBytes(f"entry {record.index} follows {entries[-1][1]}")
            entries.append((record.payload, record.index, record.term))
        elif record.kind is Kind.COMMIT:
            self._commit_index = record.index
        elif record.kind is Kind.CUT:
            while entries and entries[-1][1] >= record.index:
                entries.pop()
        else:
            self._entries = [entry for entry in entries if entry[1] >= record.index]


def move_aside(directory: Path) -> Path:
    """Put a damaged journal and snapshot out of the way, and mark the node as rejoining; returns where they went.

    The vote stays unless it is what is damaged. A rejoining node neither votes nor stands for election until it has
    caught up with a leader, because it no longer knows what it acknowledged (`rejoining.py`).
    """
    number = 1
    while (target := directory / f"damaged-{number}").exists():
        number += 1
    target.mkdir()
    replace_file(directory / REJOINING_FILE, [b"rejoining\n"])
    moved = [*directory.glob("log-*"), directory / SNAPSHOT_FILE]
    try:
        _read_vote(directory / VOTE_FILE)
    except JournalDamaged:
        moved.append(directory / VOTE_FILE)
    for path in moved:
        if path.exists():
            path.rename(target / path.name)
    sync_directory(directory)
    return target


def replace_file(path: Path, parts: list[bytes], durably: bool = True) -> None:
    """Write a file and put it in place atomically; raises OSError and leaves the old one in place.

    It survives the process in any case, and a power cut if `durably`.
    """
    temporary = path.with_suffix(".tmp")
    try:
        with temporary.open("wb") as file:
            file.writelines(parts)
            file.flush()
            if durably:
                os.fsync(file.fileno())
        temporary.rename(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    if durably:
        sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Make renames and new files in a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _lock(directory: Path) -> int:
    descriptor = os.open(directory / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise OSError(error.errno, "raft directory is in use by another process", str(directory)) from error
    return descriptor


def _read_vote(path: Path) -> _Vote | None:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    if len(data) < 4 or zlib.crc32(data[:-4]).to_bytes(4, "big") != data[-4:]:
        raise JournalDamaged(f"{path}: checksum does not fit")
    try:
        return msgspec.msgpack.decode(data[:-4], type=_Vote)
    except msgspec.MsgspecError as error:
        raise JournalDamaged(f"{path}: {error}") from error


def _wipe(path: Path, start: int, end: int) -> None:
    """Overwrite a torn record with zeros, so that what is appended next is read up to its own end."""
    with path.open("r+b") as file:
        file.seek(start)
        file.write(bytes(end - start))
        file.flush()
        os.fsync(file.fileno())


def _full_or_same(error: OSError, directory: Path) -> Exception:
    if error.errno in _DISK_FULL:
        return JournalFull(f"{directory}: {error.strerror}")
    return StorageError(f"{directory}: {error.strerror}")
