"""Code that is not (yet) compiled, one instruction at a time.

Words are moved about, and jumps done, in place; most other instructions run as traces of a single opcode, which are the
same for every code and made once; what is left – creation, code copies, block hashes – is py-evm's own. The stack holds
integers only.
"""

from collections.abc import Callable
from typing import Any

from eth.exceptions import FullStack, InsufficientStack, InvalidInstruction, InvalidJumpDestination, OutOfGas

from flashblocks.execution.compiler import opcodes as op
from flashblocks.execution.compiler.trace import STACK_LIMIT_WORDS, TraceBuilder

CLOCK_EVERY_STEPS = 256

# What a single-opcode trace gives: it ran, or the stack does not fit it (py-evm's own opcode then says what is wrong).
RAN, MISFIT = 1, -2

Step = Callable[..., int]

# Opcodes whose trace depends on where they stand in which code, or ends the frame.
_NOT_ALONE = {
    op.CODESIZE,
    op.CODECOPY,
    op.PC,
    op.STOP,
    op.RETURN,
    op.REVERT,
    op.JUMP,
    op.JUMPI,
    op.JUMPDEST,
    *op.FOREIGN,
}


OTHER, PUSH, DUP, SWAP, POP, JUMP, JUMPDEST = range(7)


def _table(value_of: Callable[[int], int]) -> bytes:
    return bytes(value_of(opcode) for opcode in range(256))


def _kind(opcode: int) -> int:
    for kind, first, last in ((PUSH, op.PUSH0, op.PUSH32), (DUP, op.DUP1, op.DUP16), (SWAP, op.SWAP1, op.SWAP16)):
        if first <= opcode <= last:
            return kind
    return {op.POP: POP, op.JUMP: JUMP, op.JUMPI: JUMP, op.JUMPDEST: JUMPDEST}.get(opcode, OTHER)


def _need(opcode: int) -> int:
    by_kind = {DUP: opcode - op.DUP1 + 1, SWAP: opcode - op.SWAP1 + 2, POP: 1, JUMP: 2 if opcode == op.JUMPI else 1}
    return by_kind.get(_kind(opcode), 0)


_KINDS = _table(_kind)
_NEEDS = _table(_need)  # how many words must be on the stack
_PRICES = _table(lambda opcode: {op.PUSH0: 2, op.POP: 2, op.JUMP: 8, op.JUMPI: 10, op.JUMPDEST: 1}.get(opcode, 3))


def make_steps(opcodes: dict[int, Any], namespace: dict[str, Any]) -> list[Step | None]:
    """A function per opcode, None where py-evm's own is to be used or none exists."""
    names = {**namespace, "step_by_step": lambda frame, pc: MISFIT}
    steps: list[Step | None] = [None] * 256
    for opcode in opcodes:
        if opcode in _NOT_ALONE or op.PUSH0 <= opcode <= op.PUSH32:
            continue
        trace = TraceBuilder(bytes((opcode,)), b"", 0, opcodes, 1).build()
        defined: dict[str, Any] = dict(names)
        exec(compile(trace.source, f"<evm opcode 0x{opcode:x}>", "exec"), defined)
        steps[opcode] = defined["trace"]
    return steps


def step_by_step(frame: Any, pc: int, steps: list[Step | None], destinations: bytes) -> int:
    """Run from `pc` to the next jump that is taken; gives where it leads (STOP and RETURN raise Halt).

    What only moves words about is most of all code, and done here in place; `gas` is the meter's in between.
    """
    message, state, meter = frame.msg, frame.state, frame._gas_meter
    stack, memory = frame._stack.values, frame._memory._bytes
    me = message.storage_address
    code = message.code.raw
    size = len(code)
    gas = meter.gas_remaining
    kinds, prices, needs = _KINDS, _PRICES, _NEEDS
    left = CLOCK_EVERY_STEPS
    while True:
        opcode = code[pc] if pc < size else op.STOP
        pc += 1
        kind = kinds[opcode]
        if kind == OTHER:
            meter.gas_remaining = gas
            step = steps[opcode]
            if step is None or step(frame, stack, meter, memory, state, message, me) != RAN:
                borrowed(frame, opcode, pc, stack)
            gas = meter.gas_remaining
        else:
            gas -= prices[opcode]
            need = needs[opcode]
            if len(stack) < need:
                raise InsufficientStack("stack underflow")
            if kind == PUSH:
                end = pc + opcode - op.PUSH0
                word = int.from_bytes(code[pc:end], "big")
                stack.append(word << 8 * (end - size) if end > size else word)
                pc = end
            elif kind == DUP:
                stack.append(stack[-need])
            elif kind == SWAP:
                stack[-1], stack[-need] = stack[-need], stack[-1]
            elif kind == POP:
                stack.pop()
            elif kind == JUMP and (target := jump(stack, need == 2, destinations)) is not None and gas >= 0:
                meter.gas_remaining = gas
                return target
        if gas < 0:
            raise OutOfGas("static")
        if len(stack) > STACK_LIMIT_WORDS:
            raise FullStack("stack limit reached")
        left -= 1
        if not left:
            left = CLOCK_EVERY_STEPS
            frame.check_deadline()


def jump(stack: list[int], conditional: bool, destinations: bytes) -> int | None:
    """JUMP and JUMPI: where to, or None where the condition does not hold."""
    target = stack.pop()
    if conditional and not stack.pop():
        return None
    if target >= len(destinations) or not destinations[target]:
        raise InvalidJumpDestination("bad jump")
    return target


def borrowed(frame: Any, opcode: int, following: int, stack: list[Any]) -> None:
    """One of py-evm's own instructions, which finds the position after it in the code stream."""
    function = frame.opcodes.get(opcode)
    if function is None:
        raise InvalidInstruction(f"invalid opcode 0x{opcode:x}")
    frame.code.program_counter = following
    function(computation=frame)
    if stack and type(stack[-1]) is not int:
        stack[-1] = int.from_bytes(stack[-1], "big")  # it pushes one word at most, perhaps as bytes
