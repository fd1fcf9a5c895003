"""The trace file: what comes back, what is refused, what is left out, and what another user must not do."""

import os
import stat
from pathlib import Path

import pytest

from flashblocks.execution import trace_file
from flashblocks.execution.trace_file import EMPTY, TraceCollection, TraceFile, UnusableTraces

ONE, TWO, THREE = b"\x01" * 32, b"\x02" * 32, b"\x03" * 32


def written(path: Path, contracts: dict[bytes, dict[int, bytes]], earlier: TraceFile = EMPTY) -> TraceFile:
    collection = TraceCollection(earlier)
    for code_hash, traces in contracts.items():
        for start, marshalled in traces.items():
            collection.add(code_hash, start, marshalled)
    return collection.write(path)


def test_what_was_written_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "traces.bin"
    made = written(path, {ONE: {0: b"a" * 900, 7: b"b"}, TWO: {3: b"c"}})
    for file in (made, TraceFile.read(path)):
        assert len(file) == 2
        assert file.find(ONE) == {0: b"a" * 900, 7: b"b"}
        assert file.find(TWO) == {3: b"c"}
        assert file.find(THREE) == {}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["traces.bin"]


def test_contracts_of_the_earlier_file_stay_but_do_not_replace_fresh_ones(tmp_path: Path) -> None:
    earlier = written(tmp_path / "traces.bin", {ONE: {0: b"old"}, TWO: {0: b"old"}})
    written(tmp_path / "traces.bin", {ONE: {0: b"new"}}, earlier)
    file = TraceFile.read(tmp_path / "traces.bin")
    assert (file.find(ONE), file.find(TWO)) == ({0: b"new"}, {0: b"old"})


def test_any_damage_makes_the_file_unusable(tmp_path: Path) -> None:
    path = tmp_path / "traces.bin"
    written(path, {ONE: {0: os.urandom(500)}})
    whole = path.read_bytes()
    for size in (0, 10, len(trace_file.head_line()), len(trace_file.head_line()) + 9, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(UnusableTraces):
            TraceFile.read(path)
    for at in range(0, len(whole), 41):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(UnusableTraces):
            TraceFile.read(path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(UnusableTraces, match="damaged"):
        TraceFile.read(path)
    path.write_bytes(whole)
    assert len(TraceFile.read(path)) == 1


def test_a_file_that_others_can_write_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "traces.bin"
    written(path, {ONE: {0: b"x"}})
    path.chmod(0o620)
    with pytest.raises(UnusableTraces, match="somebody else"):
        TraceFile.read(path)


def test_the_file_is_bounded_and_the_fresh_traces_win(tmp_path: Path) -> None:
    path = tmp_path / "traces.bin"
    earlier = written(path, {TWO: {0: os.urandom(600)}, THREE: {0: os.urandom(100)}})
    limit = 1_000
    collection = TraceCollection(earlier, limit)
    collection.add(ONE, 0, os.urandom(500))
    file = collection.write(path)
    assert path.stat().st_size <= limit
    assert file.find(ONE)
    assert not file.find(TWO)  # does not fit beside it
    assert file.find(THREE)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "traces.bin"
    written(path, {ONE: {0: b"x"}})
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        written(path, {TWO: {0: b"y"}})
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["traces.bin"]


def test_the_head_names_what_the_byte_code_depends_on() -> None:
    line = trace_file.head_line().decode()
    assert "cpython-3" in line
    assert "py-evm " in line
    assert line.endswith("\n")


def test_a_collection_is_bounded_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_file, "COLLECTED_SIZE_BYTES_MAX", 1_000)
    collection = TraceCollection()
    assert collection.add(ONE, 0, bytes(600))
    assert not collection.add(TWO, 0, bytes(600))
    assert len(collection.write(tmp_path / "traces.bin")) == 1
