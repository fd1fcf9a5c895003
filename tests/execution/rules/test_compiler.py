"""The compiler's bounds: its budget, its memory, its dump, and code that tries to break it."""

from typing import Any

import pytest

from flashblocks.execution import OutOfTime, call
from flashblocks.execution.assembler import assemble
from flashblocks.execution.code import Code
from flashblocks.execution.compiler import program
from flashblocks.execution.compiler.trace import TraceBuilder
from flashblocks.execution.state import Account

TARGET = b"\x61" * 20
COUNTDOWN = "200 again: 1 swap1 sub dup1 @again jumpi 7 push0 mstore 32 push0 return"


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch) -> program.TraceCache:
    cache = program.TraceCache()
    monkeypatch.setattr(program, "cache", cache)
    return cache


def run(new_chain: Any, code: bytes, gas: int = 5_000_000) -> Any:
    chain = new_chain({TARGET: Account(1, 0, Code.of(code), None)})
    Code.of(code).programs = None
    return call(chain.spec, chain.head, chain.state, to=TARGET, gas=gas)


def test_a_loop_is_compiled_and_single_visits_are_not(new_chain: Any, own_cache: program.TraceCache) -> None:
    result = run(new_chain, assemble(COUNTDOWN))
    assert int.from_bytes(result.output, "big") == 7
    (compiled,) = own_cache.programs.values()
    assert len(compiled.traces) == 1  # the loop's head; entry and exit were met once


def test_beyond_the_budget_only_loops_are_compiled_and_give_way_later(
    new_chain: Any, own_cache: program.TraceCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flashblocks.execution import block_state

    monkeypatch.setattr(block_state, "COMPILE_BUDGET_OPS", 0)
    code = assemble(COUNTDOWN)
    first = run(new_chain, code)
    assert len(own_cache.provisional) == 1
    monkeypatch.setattr(block_state, "COMPILE_BUDGET_OPS", 1_000)
    chain = new_chain({TARGET: Account(1, 0, Code.of(code), None)})
    second = call(chain.spec, chain.head, chain.state, to=TARGET, gas=5_000_000)
    assert own_cache.provisional == []
    assert first == second


def test_a_seal_refills_the_budget(chain: Any) -> None:
    block = chain.open()
    block.state.compile_budget_ops = 0
    block.seal()
    assert block.state.compile_budget_ops > 0


def test_the_cache_is_bounded_and_drops_the_oldest(new_chain: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = program.TraceCache(limit_bytes=30_000)
    monkeypatch.setattr(program, "cache", cache)
    codes = [assemble(f"{n} pop {COUNTDOWN}") + bytes(2_000) for n in range(40)]
    for code in codes:
        assert run(new_chain, code).error is None
        assert cache.size_bytes <= 40_000
    assert sum(entry.size_bytes for entry in cache.programs.values()) == cache.size_bytes
    assert Code.of(codes[-1]).hash in cache.programs
    assert Code.of(codes[0]).hash not in cache.programs
    assert run(new_chain, codes[0]).error is None


def test_many_tiny_programs_are_counted_by_what_they_take(own_cache: program.TraceCache) -> None:
    from flashblocks.execution.evm import FRAME_CLASSES, call

    own_cache.limit_bytes = 1 << 20
    for number in range(3_000):
        own_cache.program_of(Code.of(number.to_bytes(10, "big")), FRAME_CLASSES["isthmus"].opcodes, call)
    assert len(own_cache.programs) < 700
    assert own_cache.size_bytes <= 1 << 20


def test_traces_pass_to_another_process(
    new_chain: Any, own_cache: program.TraceCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = assemble(COUNTDOWN)
    first = run(new_chain, code)
    kept: dict[bytes, program.StoredTraces] = {}
    for code_hash, start, marshalled in own_cache.traces():
        kept.setdefault(code_hash, {})[start] = marshalled
    assert own_cache.compiled_ops > 0
    fresh = program.TraceCache()
    fresh.find_stored = lambda code_hash: dict(kept.get(code_hash, {}))
    monkeypatch.setattr(program, "cache", fresh)
    monkeypatch.setattr(program, "HOT_VISITS", 10**9)  # nothing is compiled any more
    assert run(new_chain, code) == first
    (restored,) = fresh.programs.values()
    assert list(restored.traces) == list(own_cache.programs[Code.of(code).hash].traces)
    assert restored.stored == {}
    assert fresh.compiled_ops == 0
    assert restored.size_bytes == fresh.size_bytes
    assert {(h, s) for h, s, _ in fresh.traces()} == {(h, s) for h, s, _ in own_cache.traces()}


def test_linking_stored_traces_costs_budget(
    new_chain: Any, own_cache: program.TraceCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flashblocks.execution import block_state

    code = assemble(COUNTDOWN)
    first = run(new_chain, code)
    kept = {start: marshalled for _, start, marshalled in own_cache.traces()}
    fresh = program.TraceCache()
    fresh.find_stored = lambda code_hash: dict(kept)
    monkeypatch.setattr(program, "cache", fresh)
    monkeypatch.setattr(block_state, "COMPILE_BUDGET_OPS", 0)
    assert run(new_chain, code) == first  # nothing is linked without budget
    (program_of_code,) = fresh.programs.values()
    assert program_of_code.stored == kept
    assert program_of_code.size_bytes == fresh.size_bytes


@pytest.mark.parametrize(
    "source",
    [
        "push0 " + "iszero " * 5_000 + "push0 mstore 32 push0 return",
        "push0 " + "iszero " * 301 + "@end jumpi stop end: 7 push0 mstore 32 push0 return",
        "caller " + "not " * 5_000 + "push0 mstore 32 push0 return",
        "push0 " * 1_024 + "push0",  # one too many
        "again: push0 @again jump",  # a stack that overflows in a loop
        "pop",
        "again: @again",
        "0x" + "ff" * 32 + " dup1 mstore",
        "0x" + "ff" * 32 + " push0 return",
        "0x" + "ff" * 32 + " jump",
        "1 0x" + "ff" * 32 + " jumpi",
        "5 jump 0x5b5b",  # into the data of a PUSH
        "0x" + "ff" * 32 + " dup1 exp dup1 mul dup1 0x" + "ff" * 32 + " sdiv push0 sstore",
        "300 1 shl 300 1 shr 256 sar 0x" + "ff" * 32 + " byte",
    ],
)
def test_odd_code_runs_the_same_compiled_and_interpreted(
    new_chain: Any, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = assemble(source)
    results = []
    for visits in (1, 10**9):
        monkeypatch.setattr(program, "cache", program.TraceCache())
        monkeypatch.setattr(program, "HOT_VISITS", visits)
        result = run(new_chain, code, 200_000)
        # py-evm calls a jump into PUSH data an invalid instruction; the words differ, nothing else may.
        results.append((result.error is None, result.output, result.gas_used, result.logs))
    assert results[0] == results[1]


def test_a_push_cut_off_by_the_end_of_the_code(new_chain: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "HOT_VISITS", 1)
    # PUSH32 with two bytes of data at the end; entered by a jump to see the padded value would need code after it.
    assert run(new_chain, bytes.fromhex("7fffff")).error is None


def test_compiled_code_stops_at_the_deadline(new_chain: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "HOT_VISITS", 1)
    chain = new_chain({TARGET: Account(1, 0, Code.of(assemble("again: @again jump")), None)})
    block = chain.open()
    header = block.seal().header
    ticks = iter(range(10**9))
    endless = chain.send(1, TARGET, gas_limit=100_000_000)
    with pytest.raises(OutOfTime):
        block.append(endless, deadline=30.0, clock=lambda: float(next(ticks)))
    assert block.seal().header == header
    assert next(ticks) < 40


def test_trace_source_is_readable() -> None:
    from flashblocks.execution.evm import FRAME_CLASSES

    code = assemble("4 calldataload 2 mul dup1 100 lt @big jumpi stop big: push0 sstore")
    table = FRAME_CLASSES["isthmus"].opcodes
    source = TraceBuilder(code, Code.of(code).jump_destinations, 0, table, 300).build().source
    assert source.splitlines()[:4] == [
        "def trace(frame, stack, meter, memory, state, message, me):",
        " if not 0 <= len(stack) <= 1021: return step_by_step(frame, 0)",
        " gas = meter.gas_remaining",
        " gas -= 36",
    ]
