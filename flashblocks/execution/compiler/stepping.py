"""Code that is not (yet) compiled, one instruction at a time.

Most instructions run as traces of a single opcode, which are the same for every code and made once; pushes and jumps
are done in place; what is left – creation, code copies, block hashes – is py-evm's own. The stack holds integers only.
"""

from collections.abc import Callable
from typing import Any

from eth.exceptions import FullStack, InsufficientStack, InvalidInstruction, InvalidJumpDestination, OutOfGas

from flashblocks.execution.compiler import opcodes as op
from flashblocks.execution.compiler.trace import STACK_LIMIT_WORDS, TraceBuilder

GAS_PUSH0, GAS_PUSH, GAS_JUMP, GAS_JUMPI, GAS_JUMPDEST = 2, 3, 8, 10, 1
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
    """Run from `pc` to the next jump that is taken; gives where it leads (STOP and RETURN raise Halt)."""
    message, state, meter = frame.msg, frame.state, frame._gas_meter
    stack, memory = frame._stack.values, frame._memory._bytes
    me = message.storage_address
    code = message.code.raw
    opcodes = frame.opcodes
    left = CLOCK_EVERY_STEPS
    while True:
        opcode = code[pc] if pc < len(code) else op.STOP
        step = steps[opcode]
        if step is not None and step(frame, stack, meter, memory, state, message, me) == RAN:
            pc += 1
        elif op.PUSH0 <= opcode <= op.PUSH32:
            size = opcode - op.PUSH0
            charge(meter, GAS_PUSH if size else GAS_PUSH0)
            if len(stack) >= STACK_LIMIT_WORDS:
                raise FullStack("stack limit reached")
            stack.append(int.from_bytes(code[pc + 1 : pc + 1 + size].ljust(size, b"\0"), "big"))
            pc += 1 + size
        elif opcode == op.JUMPDEST:
            charge(meter, GAS_JUMPDEST)
            pc += 1
        elif opcode in (op.JUMP, op.JUMPI):
            taken = jump(stack, meter, opcode, destinations)
            if taken is not None:
                return taken
            pc += 1
        else:
            pc = borrowed(frame, opcodes, opcode, pc, stack)
        left -= 1
        if not left:
            left = CLOCK_EVERY_STEPS
            frame.check_deadline()


def charge(meter: Any, gas: int) -> None:
    """Take gas from the frame."""
    if meter.gas_remaining < gas:
        raise OutOfGas("static")
    meter.gas_remaining -= gas


def jump(stack: list[int], meter: Any, opcode: int, destinations: bytes) -> int | None:
    """JUMP and JUMPI: where to, or None where the condition does not hold."""
    conditional = opcode == op.JUMPI
    charge(meter, GAS_JUMPI if conditional else GAS_JUMP)
    if len(stack) < 1 + conditional:
        raise InsufficientStack("jump")
    target = stack.pop()
    if conditional and not stack.pop():
        return None
    if target >= len(destinations) or not destinations[target]:
        raise InvalidJumpDestination("bad jump")
    return target


def borrowed(frame: Any, opcodes: dict[int, Any], opcode: int, pc: int, stack: list[Any]) -> int:
    """One of py-evm's own instructions; gives the next position."""
    function = opcodes.get(opcode)
    if function is None:
        raise InvalidInstruction(f"invalid opcode 0x{opcode:x}")
    frame.code.program_counter = pc + 1
    function(computation=frame)
    if stack and type(stack[-1]) is not int:
        stack[-1] = int.from_bytes(stack[-1], "big")  # it pushes one word at most, perhaps as bytes
    return pc + 1
