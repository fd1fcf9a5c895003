"""The compiled traces of one contract code, and the loop that runs a frame through them.

Compiling costs time that nobody pays gas for, so it is budgeted: a block has a number of opcodes it may compile
(`BlockState.compile_budget_ops`), and code met beyond that runs on py-evm's own opcodes, exactly but slower. Traces
cost memory, so there is a bound on all of them together, and the oldest programs are dropped first. The cache is the
process's: a program depends on nothing but the code.
"""

import marshal
from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any

from eth.exceptions import Halt, InvalidInstruction, InvalidJumpDestination, OutOfGas, Revert

from flashblocks.execution.block_state import BlockState
from flashblocks.execution.code import Code
from flashblocks.execution.compiler import runtime
from flashblocks.execution.compiler.stepping import Step, make_steps, step_by_step
from flashblocks.execution.compiler.trace import TRACE_LIMIT_OPS, TraceBuilder

# Compiling a trace takes as long as some twenty visits without one, and half of all traces are visited once.
HOT_VISITS = 16
# Beyond the budget only loops are compiled, and short traces of them: an attacker who makes many then gains little.
HOT_VISITS_BEYOND_BUDGET = 32
TRACE_LIMIT_OPS_BEYOND_BUDGET = 64
# What a program takes before anything is compiled, measured: a creation loop makes a new one for 35,000 gas.
PROGRAM_BYTES = 1_700
VISIT_BYTES = 100
TRACE_BYTES_PER_OP = 150  # measured, CPython 3.11
TRACE_CACHE_LIMIT_BYTES = 160 << 20
CLOCK_EVERY_TRACES = 16
# Linking a trace that an earlier process compiled takes a twentieth of compiling it; so much of the budget it costs.
STORED_BYTES_PER_OP = 45  # measured: marshalled byte code per opcode
LINKED_OPS_PER_BUDGET_OP = 16

TraceFunction = Callable[..., int]
StoredTraces = dict[int, bytes]
"""Position in the code → marshalled byte code of the trace there."""


class Program:
    """The traces of one code."""

    __slots__ = ("code", "compiled", "destinations", "namespace", "opcodes", "ops", "stored", "traces", "visits")

    def __init__(self, code: Code, opcodes: dict[int, Any], call: Callable[..., tuple[int, int]]) -> None:
        self.code = code.raw
        self.destinations = code.jump_destinations
        self.opcodes = opcodes
        self.traces: dict[int, TraceFunction] = {}
        self.compiled: dict[int, CodeType] = {}
        self.stored: StoredTraces = {}  # compiled by an earlier process, not visited yet
        self.visits: dict[int, int] = {}
        self.ops = 0
        self.namespace = {
            **_NAMES,
            "step_by_step": self.step,
            "CODE": self.code,
            "DESTINATIONS": self.destinations,
            "OPCODES": opcodes,
            "call": call,
        }

    @property
    def size_bytes(self) -> int:
        """What the program takes in memory, about."""
        stored = sum(len(marshalled) for marshalled in self.stored.values())
        fixed = PROGRAM_BYTES + len(self.code) + len(self.destinations)
        return fixed + TRACE_BYTES_PER_OP * self.ops + VISIT_BYTES * len(self.visits) + stored

    def step(self, frame: Any, pc: int) -> int:
        """Run from `pc` to the next jump without a trace: where none fits the stack, or none is worth compiling."""
        return step_by_step(frame, pc, steps_for(self.opcodes, self.namespace["call"]), self.destinations)

    def visit(self, start: int, state: BlockState) -> TraceFunction | None:
        """The trace at `start` once it is worth compiling, None while it is not."""
        visits = self.visits.get(start, 0) + 1
        if state.compile_budget_ops > 0:
            cache.drop_provisional()
            if start in self.stored:
                return self.take_over(start, state)
            if visits >= HOT_VISITS:
                return self.compile(start, state, TRACE_LIMIT_OPS)
        elif visits >= HOT_VISITS_BEYOND_BUDGET:
            cache.provisional.append((self, start))
            return self.compile(start, state, TRACE_LIMIT_OPS_BEYOND_BUDGET)
        if visits == 1:
            cache.grew(VISIT_BYTES)
        self.visits[start] = visits
        return None

    def compile(self, start: int, state: BlockState, limit_ops: int) -> TraceFunction:
        """Compile the trace at `start` out of the block's budget."""
        trace = TraceBuilder(self.code, self.destinations, start, self.opcodes, limit_ops).build()
        state.compile_budget_ops -= trace.ops
        compiled = self.compiled[start] = compile(trace.source, f"<evm:{start}>", "exec")
        function = self.traces[start] = link(compiled, self.namespace)
        self.ops += trace.ops
        cache.compiled_ops += trace.ops
        cache.grew(TRACE_BYTES_PER_OP * trace.ops)
        return function

    def take_over(self, start: int, state: BlockState) -> TraceFunction:
        """Link the trace at `start` that an earlier process compiled."""
        marshalled = self.stored.pop(start)
        ops = len(marshalled) // STORED_BYTES_PER_OP + 1
        state.compile_budget_ops -= ops // LINKED_OPS_PER_BUDGET_OP + 1
        compiled = self.compiled[start] = marshal.loads(marshalled)
        function = self.traces[start] = link(compiled, self.namespace)
        self.ops += ops
        cache.grew(TRACE_BYTES_PER_OP * ops - len(marshalled))
        return function


class TraceCache:
    """All programs of the process by code hash, the oldest dropped when they take too much memory."""

    def __init__(self, limit_bytes: int = TRACE_CACHE_LIMIT_BYTES) -> None:
        self.limit_bytes = limit_bytes
        self.programs: dict[bytes, Program] = {}
        self.provisional: list[tuple[Program, int]] = []  # short traces, made beyond a budget
        self.find_stored: Callable[[bytes], StoredTraces] = lambda code_hash: {}
        self.compiled_ops = 0  # since the process began: whether there is anything new to keep
        self._size_bytes = 0

    def program_of(self, code: Code, opcodes: dict[int, Any], call: Callable[..., tuple[int, int]]) -> Program:
        """The one program of a code (every supported fork has the same opcodes and prices)."""
        program: Program | None = code.programs
        if program is None:
            program = self.programs.get(code.hash)
            if program is None:
                program = self.programs[code.hash] = Program(code, opcodes, call)
                program.stored = self.find_stored(code.hash)
                self.grew(program.size_bytes)
            code.programs = program
        return program

    def drop_provisional(self) -> None:
        """There is budget again: short traces make room for whole ones when they are next run."""
        for program, start in self.provisional:
            program.traces.pop(start, None)
            program.compiled.pop(start, None)
        self.provisional.clear()

    def grew(self, size_bytes: int) -> None:
        """Count what was added; above the limit, drop the oldest programs until half of it is free again.

        A dropped program loses its traces, so that codes which still point to it hold no memory; a frame that is
        running on it goes on and compiles what it meets again.
        """
        self._size_bytes += size_bytes
        if self._size_bytes <= self.limit_bytes:
            return
        for code_hash in list(self.programs):
            if self._size_bytes <= self.limit_bytes // 2:
                break
            program = self.programs.pop(code_hash)
            self._size_bytes -= program.size_bytes
            program.traces.clear()
            program.compiled.clear()
            program.stored = {}
            program.visits.clear()
            program.ops = 0

    @property
    def size_bytes(self) -> int:
        """What all programs take, about."""
        return self._size_bytes

    def traces(self) -> Iterator[tuple[bytes, int, bytes]]:
        """(code hash, position, marshalled byte code) of all traces, the program met last first: for `find_stored`.

        Programs may come and go while this is consumed slowly. Provisional traces are not worth keeping.
        """
        for code_hash in reversed(list(self.programs)):
            program = self.programs.get(code_hash)
            if program is None:
                continue
            for start, marshalled in list(program.stored.items()):
                yield code_hash, start, marshalled
            for start, compiled in list(program.compiled.items()):
                if (program, start) not in self.provisional:
                    yield code_hash, start, marshal.dumps(compiled)


cache = TraceCache()


_steps: dict[Callable[..., tuple[int, int]], list[Step | None]] = {}


def steps_for(opcodes: dict[int, Any], call: Callable[..., tuple[int, int]]) -> list[Step | None]:
    """The single-opcode traces, made when the first code runs."""
    found = _steps.get(call)
    if found is None:
        found = _steps[call] = make_steps(opcodes, {**_NAMES, "call": call, "OPCODES": opcodes})
    return found


def link(compiled: Any, namespace: dict[str, Any]) -> TraceFunction:
    """The function that a trace's module defines."""
    names = dict(namespace)
    exec(compiled, names)
    trace: TraceFunction = names["trace"]
    return trace


def run(frame: Any, call: Callable[..., tuple[int, int]]) -> None:
    """Run a frame to its end; its errors are raised."""
    message = frame.msg
    state = frame.state
    program = cache.program_of(message.code, frame.opcodes, call)
    traces = program.traces
    stack, meter, memory = frame._stack.values, frame._gas_meter, frame._memory._bytes
    me = message.storage_address
    left = CLOCK_EVERY_TRACES
    pc = 0
    try:
        while pc >= 0:
            trace = traces.get(pc)
            if trace is None:
                trace = program.visit(pc, state)
                if trace is not None:  # compiling took time
                    frame.check_deadline()
            pc = program.step(frame, pc) if trace is None else trace(frame, stack, meter, memory, state, message, me)
            left -= 1
            if not left:
                left = CLOCK_EVERY_TRACES
                frame.check_deadline()
    except Halt:
        pass


_NAMES: dict[str, Any] = {
    "InvalidInstruction": InvalidInstruction,
    "InvalidJumpDestination": InvalidJumpDestination,
    "OutOfGas": OutOfGas,
    "Revert": Revert,
    "WORD_MAX": runtime.WORD_MAX,
    "SIGN_BIT": runtime.SIGN_BIT,
    **{
        function.__name__: function
        for function in (
            runtime.grow,
            runtime.sdiv,
            runtime.smod,
            runtime.signextend,
            runtime.sar,
            runtime.keccak,
            runtime.copy_in,
            runtime.return_data_copy,
            runtime.memory_copy,
            runtime.exponent_gas,
            runtime.read_memory,
            runtime.sload,
            runtime.sstore,
            runtime.tload,
            runtime.tstore,
            runtime.log,
            runtime.balance,
            runtime.code_size,
            runtime.code_hash,
            runtime.word_at,
            runtime.to_int,
        )
    },
}
