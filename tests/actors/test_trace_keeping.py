"""The trace keeper: one process's traces are the next one's, nothing damaged is used, nothing is lost by failing."""

import time
from pathlib import Path
from typing import Any

import pytest

from actors import trace_keeping
from actors.trace_keeping import TraceKeeper
from flashblocks.execution import call, default_genesis, load_genesis
from flashblocks.execution.assembler import assemble
from flashblocks.execution.code import Code
from flashblocks.execution.compiler import program
from flashblocks.execution.keccak import hashed_address
from flashblocks.execution.state import Account
from flashblocks.execution.trace_file import TraceFile

TARGET = b"\x61" * 20
CODE = Code.of(assemble("200 again: 1 swap1 sub dup1 @again jumpi 7 push0 mstore 32 push0 return"))


class Log:
    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def warning(self, event: str, **fields: Any) -> None:
        self.lines.append((event, fields))


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    new_process(monkeypatch)
    monkeypatch.setattr(trace_keeping, "SAVE_EVERY_S_MIN", 0.0)
    monkeypatch.setattr(trace_keeping, "SAVE_NEW_OPS_MIN", 1)


def new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as traces are concerned."""
    monkeypatch.setattr(program, "cache", program.TraceCache())
    CODE.programs = None


def run() -> None:
    spec, block, state = load_genesis(default_genesis())
    state = state.with_accounts({hashed_address(TARGET): Account(1, 0, CODE, None)})
    assert call(spec, block.header, state, to=TARGET, gas=5_000_000).error is None


def steps(keeper: TraceKeeper) -> None:
    """Until a file is written."""
    deadline = time.monotonic() + 30
    while keeper.step() or keeper._writing is not None:
        assert time.monotonic() < deadline


def test_the_next_process_compiles_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log()
    first = TraceKeeper(tmp_path, log)
    run()
    steps(first)
    assert first.path.exists()
    assert not first.step()  # nothing new
    new_process(monkeypatch)
    second = TraceKeeper(tmp_path, log)
    run()
    assert program.cache.compiled_ops == 0
    assert program.cache.programs[CODE.hash].traces
    second.close()
    second.close()
    first.close()
    assert log.lines == []


def test_closing_keeps_what_is_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_keeping, "SAVE_EVERY_S_MIN", 1e9)
    keeper = TraceKeeper(tmp_path, Log())
    run()
    assert not keeper.step()
    keeper.close()
    new_process(monkeypatch)
    TraceKeeper(tmp_path, Log())
    run()
    assert program.cache.compiled_ops == 0


def test_a_torn_file_is_not_used_and_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keeper = TraceKeeper(tmp_path, Log())
    run()
    keeper.close()
    whole = keeper.path.read_bytes()
    keeper.path.write_bytes(whole[: len(whole) // 2])
    new_process(monkeypatch)
    log = Log()
    second = TraceKeeper(tmp_path, log)
    assert [event for event, _ in log.lines] == ["compiled traces are not used"]
    run()
    assert program.cache.compiled_ops > 0
    second.close()
    assert TraceFile.read(keeper.path).find(CODE.hash)


def test_a_disk_that_refuses_is_told_and_survived(tmp_path: Path) -> None:
    log = Log()
    keeper = TraceKeeper(tmp_path, log)
    run()
    keeper.path.mkdir()  # the rename onto it fails
    steps(keeper)
    keeper.close()
    assert {event for event, _ in log.lines} == {"compiled traces were not kept"}
    run()
