"""A client's compiled traces, kept beside its chain: taken over at start, written again between blocks.

Every client keeps its own file: clients of one machine would compile nearly the same traces, but a shared file would
need a lock between processes and would let one of them make byte code that another runs. Collecting goes in slices of
a few milliseconds on the event loop, the write and its fsync happen on another thread.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flashblocks.execution.trace_file import EMPTY, FILE_NAME, TraceCollection, TraceFile, UnusableTraces

if TYPE_CHECKING:
    from flashblocks.execution.compiler.program import StoredTraces, TraceCache

SAVE_EVERY_S_MIN = 300.0  # a full cache takes two seconds of processor time
SAVE_NEW_OPS_MIN = 2_000  # a few dozen traces; less is not worth a write
SLICE_S = 0.005


class TraceKeeper:
    """The trace file of one process; `step` is called while nothing else waits."""

    def __init__(self, directory: Path, log: Any) -> None:
        from flashblocks.execution.compiler import program  # imports py-evm, which `--help` can do without

        self.path = directory / FILE_NAME
        self._log = log
        self._file = self._read()
        self._cache = program.cache
        self._cache.find_stored = self._find
        self._saved_ops = self._cache.compiled_ops
        self._saved_at = time.monotonic()
        self._collecting: Generator[None, None, TraceCollection] | None = None
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="traces")
        self._writing: Future[TraceFile] | None = None

    def step(self) -> bool:
        """A few milliseconds of work towards the next file; whether there is more."""
        if self._writing is not None:
            self._finish(self._writing)
            return False
        if self._collecting is None:
            new_ops = self._cache.compiled_ops - self._saved_ops
            if new_ops < SAVE_NEW_OPS_MIN or time.monotonic() - self._saved_at < SAVE_EVERY_S_MIN:
                return False
            self._begin()
        assert self._collecting is not None
        until = time.perf_counter() + SLICE_S
        try:
            while time.perf_counter() < until:
                next(self._collecting)
        except StopIteration as finished:
            self._collecting = None
            self._writing = self._threads.submit(finished.value.write, self.path)
        return True

    def close(self) -> None:
        """Write what is new, and let go; idempotent."""
        if self._cache.find_stored != self._find:
            return  # closed, or another client of this process has taken over
        self._cache.find_stored = lambda code_hash: {}
        if self._writing is not None:
            self._writing.exception()
            self._finish(self._writing)
        if self._collecting is not None or self._cache.compiled_ops != self._saved_ops:
            collected = drain(self._begin())
            self._writing = self._threads.submit(collected.write, self.path)
            self._writing.exception()
            self._finish(self._writing)
        self._threads.shutdown()

    def _find(self, code_hash: bytes) -> StoredTraces:
        return self._file.find(code_hash)

    def _begin(self) -> Generator[None, None, TraceCollection]:
        self._saved_ops, self._saved_at = self._cache.compiled_ops, time.monotonic()
        self._collecting = collect(self._cache, self._file)
        return self._collecting

    def _finish(self, writing: Future[TraceFile]) -> None:
        """Take note of a write that is over, if it is."""
        if not writing.done():
            return
        self._writing = None
        error = writing.exception()
        if error is None:
            self._file = writing.result()
        elif isinstance(error, OSError):
            self._log.warning("compiled traces were not kept", path=str(self.path), error=str(error))
        else:
            raise error

    def _read(self) -> TraceFile:
        try:
            return TraceFile.read(self.path)
        except FileNotFoundError:
            return EMPTY
        except (UnusableTraces, OSError) as error:
            self._log.warning("compiled traces are not used", path=str(self.path), error=str(error))
            return EMPTY


def collect(cache: TraceCache, earlier: TraceFile) -> Generator[None, None, TraceCollection]:
    """What is worth keeping: the process's own traces, and those of the earlier file that it has not met."""
    collection = TraceCollection(earlier)
    for code_hash, start, marshalled in cache.traces():
        if not collection.add(code_hash, start, marshalled):
            break
        yield
    return collection


def drain(collecting: Generator[None, None, TraceCollection]) -> TraceCollection:
    """The whole collection at once."""
    while True:
        try:
            next(collecting)
        except StopIteration as finished:
            collection: TraceCollection = finished.value
            return collection
