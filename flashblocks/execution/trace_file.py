"""Compiled traces on disk, so that a process that starts again does not compile what the one before it compiled.

One file: a line that names everything the byte code depends on, a checksum, and per contract its traces, compressed. It
is replaced as a whole (rename), so a reader sees the old file or the new one; whatever does not check is not used, and
costs nothing but compiling again. A trace is Python byte code: only a file that this user alone can write is read.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import sys
import zlib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from flashblocks.execution.compiler.program import StoredTraces

FILE_NAME = "evm-traces.bin"
FILE_SIZE_BYTES_MAX = 16 << 20  # compressed six to one: some 700 contracts
COLLECTED_SIZE_BYTES_MAX = 64 << 20  # not yet compressed, in memory for the seconds until the file is written
COMPRESSION_LEVEL = 1
CHECKSUM_BYTES = 16
WRITABLE_BY_OTHERS = 0o022
MAP_HEAD_BYTES, ENTRY_HEADS_BYTES = 5, 7  # of MessagePack, at most

_decoder = msgspec.msgpack.Decoder(dict[bytes, bytes])
_traces_decoder = msgspec.msgpack.Decoder(dict[int, bytes])


class UnusableTraces(Exception):
    """A trace file that must not be read: damaged, of another version, or not ours alone."""


@cache
def head_line() -> bytes:
    """What the byte code depends on: this interpreter, py-evm, and the source that writes the traces."""
    digest = hashlib.blake2b(digest_size=CHECKSUM_BYTES)
    room = Path(__file__).parent
    for path in (*sorted((room / "compiler").glob("*.py")), room / "evm.py"):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    py_evm = importlib.metadata.version("py-evm")
    tag = f"{sys.implementation.cache_tag} {sys.hexversion:x} py-evm {py_evm} {digest.hexdigest()}"
    return f"evm traces 1 {tag}\n".encode()


class TraceFile:
    """The contracts of one file, in memory as compressed as on disk."""

    def __init__(self, contracts: dict[bytes, bytes]) -> None:
        self._contracts = contracts

    @staticmethod
    def read(path: Path) -> TraceFile:
        """Read and check a file; raises UnusableTraces, FileNotFoundError or another OSError."""
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if status.st_uid != os.geteuid() or status.st_mode & WRITABLE_BY_OTHERS:
                raise UnusableTraces("somebody else can write it")
            raw = file.read(FILE_SIZE_BYTES_MAX + 1)
        head = head_line()
        if not raw.startswith(head):
            raise UnusableTraces("of another version")
        checksum, body = raw[len(head) : len(head) + CHECKSUM_BYTES], raw[len(head) + CHECKSUM_BYTES :]
        if len(raw) > FILE_SIZE_BYTES_MAX or _checksum(body) != checksum:
            raise UnusableTraces("damaged")
        return TraceFile(_decoder.decode(body))

    def __len__(self) -> int:
        return len(self._contracts)

    def find(self, code_hash: bytes) -> StoredTraces:
        """The traces of one contract; empty for one that is not there."""
        packed = self._contracts.get(code_hash)
        return {} if packed is None else _traces_decoder.decode(zlib.decompress(packed))

    def packed(self) -> Iterable[tuple[bytes, bytes]]:
        """All contracts with their compressed traces."""
        return self._contracts.items()


EMPTY = TraceFile({})


class TraceCollection:
    """What the next file will hold: fresh traces, then contracts of an earlier file as far as there is room."""

    def __init__(self, earlier: TraceFile = EMPTY, limit_bytes: int = FILE_SIZE_BYTES_MAX) -> None:
        self._fresh: dict[bytes, StoredTraces] = {}
        self._earlier = earlier
        self._limit_bytes = limit_bytes
        self._room_bytes = COLLECTED_SIZE_BYTES_MAX

    def add(self, code_hash: bytes, start: int, marshalled: bytes) -> bool:
        """Take a trace of this process, False when there is no more room; contracts added last are left out first."""
        self._room_bytes -= len(marshalled)
        if self._room_bytes < 0:
            return False
        self._fresh.setdefault(code_hash, {})[start] = marshalled
        return True

    def write(self, path: Path) -> TraceFile:
        """Replace the file at `path`; raises OSError. Nobody but this user can read or write it."""
        contracts = self._within_limit()
        body = msgspec.msgpack.encode(contracts)
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f"{path.name}.{os.getpid()}.new")
        try:
            with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                os.fchmod(file.fileno(), 0o600)
                file.write(head_line() + _checksum(body))
                file.write(body)
                file.flush()
                os.fsync(file.fileno())
            new.replace(path)
        finally:
            new.unlink(missing_ok=True)
        return TraceFile(contracts)

    def _within_limit(self) -> dict[bytes, bytes]:
        chosen: dict[bytes, bytes] = {}
        left = self._limit_bytes - len(head_line()) - CHECKSUM_BYTES - MAP_HEAD_BYTES
        for code_hash, packed in (*self._packed_fresh(), *self._earlier.packed()):
            size = len(code_hash) + len(packed) + ENTRY_HEADS_BYTES
            if code_hash not in chosen and size <= left:
                chosen[code_hash] = packed
                left -= size
        return chosen

    def _packed_fresh(self) -> Iterator[tuple[bytes, bytes]]:
        for code_hash, traces in self._fresh.items():
            yield code_hash, zlib.compress(msgspec.msgpack.encode(traces), COMPRESSION_LEVEL)


def _checksum(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=CHECKSUM_BYTES).digest()
