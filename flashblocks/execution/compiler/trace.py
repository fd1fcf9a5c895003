"""One trace: EVM code from one position on, followed as far as it is straight, as the source of a Python function.

A trace follows fall-through, jumps to constant places and the not-taken side of conditional jumps. The words it pushes
are Python expressions and locals, so PUSH, DUP, SWAP and POP disappear; words below its own are read from the frame's
stack once. It ends where the next position is not known, at a position it has passed, or at its limit, and gives the
position to go on from (or −1: the frame is done).

Gas: what the opcodes of a segment cost for certain is charged once at the segment's start. A segment ends wherever the
exact rest can be seen: GAS, calls, SSTORE, every way out. Inside a segment an early "out of gas" cannot be told from a
late one, as a frame that fails is undone as a whole.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from flashblocks.execution.compiler import opcodes as op
from flashblocks.execution.compiler.runtime import WORD_MAX
from flashblocks.execution.compiler.runtime import signextend as runtime_signextend
from flashblocks.execution.compiler.words import Branch, Condition, Expression, Leave, Trace, Word, depth_of, is_literal

TRACE_LIMIT_OPS = 150  # longer ones are no faster once they are warm, and slower to make
NESTING_LIMIT = 12  # of expressions; Python's own parser gives up at a hundred parentheses
STACK_LIMIT_WORDS = 1024
FOREIGN_STACK_MARGIN_WORDS = 8  # an opcode of py-evm finds its arguments on the real stack
GAS_LOG_TOPIC = 375

_FOLDING = {"WORD_MAX": WORD_MAX, "signextend": runtime_signextend}
_SLOT = re.compile(r"\bi(\d+)\b")


class TraceBuilder:
    """Follows the code from `start` and writes the function."""

    def __init__(self, code: bytes, destinations: bytes, start: int, known: Mapping[int, Any], limit: int) -> None:
        self.code = code
        self.destinations = destinations
        self.start = start
        self.known = known  # py-evm's opcode table: which opcodes exist, and their fixed price
        self.limit = limit
        self.lines: list[str | Leave | Branch] = []
        self.stack: list[Word] = []
        self.window = 0  # how many words of the frame's own stack the trace reads
        self.highest = 0  # how far the stack grows above what it was
        self.locals = 0
        self.uses_foreign = False
        self.pc = start
        self.done = False
        self._segment_at = 0
        self._segment_gas = 0

    # -- the frame's gas

    def open_segment(self) -> None:
        """From here on fixed prices are added up."""
        self.lines.append("")
        self._segment_at = len(self.lines) - 1
        self._segment_gas = 0

    def close_segment(self) -> None:
        """Charge the segment at its start; from here on `gas` is exact."""
        if self._segment_gas:
            self.lines[self._segment_at] = f"gas -= {self._segment_gas}\n if gas < 0: raise OutOfGas('static')"

    def store_gas(self) -> None:
        """Give the exact rest back to the frame."""
        self.close_segment()
        self.lines.append("meter.gas_remaining = gas")

    # -- the stack

    def pop_any(self) -> Word:
        """The top of the stack, perhaps a condition."""
        if self.stack:
            return self.stack.pop()
        self.window += 1
        return f"i{self.window - 1}"

    def pop(self) -> str:
        """The top of the stack as a word."""
        return self.word(self.pop_any())

    def word(self, value: Word) -> str:
        """The value as a name or literal that may be used many times."""
        if isinstance(value, str):
            return value
        return self.assign(f"1 if {value.render()} else 0" if isinstance(value, Condition) else value.text)

    def operand(self, value: Word) -> str:
        """The value for use in one place, computed there."""
        if isinstance(value, str):
            return value
        if value.depth >= NESTING_LIMIT:
            return self.word(value)
        return f"(1 if {value.render()} else 0)" if isinstance(value, Condition) else f"({value.text})"

    def take(self) -> str:
        """The top of the stack for use in one place."""
        return self.operand(self.pop_any())

    def push(self, value: Word) -> None:
        """A new top of the stack."""
        self.stack.append(value)
        self.highest = max(self.highest, len(self.stack) - self.window)

    def assign(self, expression: str) -> str:
        """A new local."""
        self.locals += 1
        name = f"t{self.locals}"
        self.lines.append(f"{name} = {expression}")
        return name

    def reach(self, depth: int) -> None:
        """Make the top `depth` words addressable."""
        while len(self.stack) < depth:
            self.stack.insert(0, f"i{self.window}")
            self.window += 1

    def leave(self, target: str) -> Leave:
        """What is needed to go on elsewhere with the stack as it is."""
        return Leave(tuple(self.operand(value) for value in self.stack), self.window, target)

    # -- following the code

    def build(self) -> Trace:
        """Follow the code and write the function."""
        self.open_segment()
        passed: set[int] = set()
        count = 0
        code, known = self.code, self.known
        while not self.done:
            pc = self.pc
            if pc >= len(code) and count < self.limit:
                self.stop()
                break
            if count >= self.limit or pc in passed:
                self.store_gas()
                self.lines.append(self.leave(str(pc)))
                break
            opcode = code[pc]
            if opcode == op.JUMPDEST:
                passed.add(pc)
            count += 1
            function = known.get(opcode)
            if function is None:
                self.close_segment()
                self.lines.append(f"raise InvalidInstruction('invalid opcode 0x{opcode:x}')")
                break
            if opcode not in op.PRICED_WHEN_RUN:
                self._segment_gas += function.gas_cost
            self.step(opcode)
        return Trace(self.source(), count)

    def step(self, opcode: int) -> None:
        """One instruction; moves `pc`."""
        if op.PUSH0 <= opcode <= op.PUSH32:
            size = opcode - op.PUSH0
            at = self.pc + 1
            self.push(str(int.from_bytes(self.code[at : at + size].ljust(size, b"\0"), "big")))
            self.pc = at + size
            return
        handler = _HANDLERS.get(opcode)
        if handler is not None:
            handler(self)  # control flow sets `pc` itself
            if opcode in _CONTROL:
                return
        elif op.DUP1 <= opcode <= op.DUP16:
            depth = opcode - op.DUP1 + 1
            self.reach(depth)
            self.stack[-depth] = self.word(self.stack[-depth])
            self.push(self.stack[-depth])
        elif op.SWAP1 <= opcode <= op.SWAP16:
            depth = opcode - op.SWAP1 + 2
            self.reach(depth)
            self.stack[-1], self.stack[-depth] = self.stack[-depth], self.stack[-1]
        elif opcode in op.ARITHMETIC:
            self.arithmetic(opcode)
        elif opcode in op.COMPARISONS:
            a, b = self.pop_any(), self.pop_any()
            depth = 1 + max(depth_of(a), depth_of(b))
            text = op.COMPARISONS[opcode].format(a=self.operand(a), b=self.operand(b))
            self.push(Condition(text, depth=min(depth, NESTING_LIMIT)))
        elif opcode in op.CONSTANT_ENVIRONMENT:
            self.push(Expression(op.CONSTANT_ENVIRONMENT[opcode], 1))
        elif opcode in op.CHANGING_ENVIRONMENT:
            self.push(self.assign(op.CHANGING_ENVIRONMENT[opcode]))
        elif opcode in op.LOOKUPS:
            self.lookup(op.LOOKUPS[opcode].format(a=self.take()))
        elif op.LOG0 <= opcode <= op.LOG4:
            self.log(opcode - op.LOG0)
        elif opcode in op.CALL_ARGUMENTS:
            self.call(opcode)
        else:
            self.foreign(opcode)
        self.pc += 1

    def lookup(self, expression: str) -> None:
        """A function that gives (word, gas left)."""
        name = self.assign("0")
        self.lines[-1] = f"{name}, gas = {expression}"
        self.push(name)

    def arithmetic(self, opcode: int) -> None:
        """Words from words; constants are folded."""
        names = "abc"[: op.ARITHMETIC_ARGUMENTS.get(opcode, 2)]
        values = {name: self.pop_any() for name in names}
        template = op.ARITHMETIC[opcode]
        literal = {name: is_literal(value) for name, value in values.items()}
        if all(literal.values()) and opcode not in (op.SDIV, op.SMOD, op.SAR):
            folded = eval(template.format(**values), {"__builtins__": {}}, _FOLDING)  # our own template
            self.push(str(folded))
            return
        if opcode in op.SHIFT_BY_CONSTANT and literal["a"]:
            template = op.SHIFT_BY_CONSTANT[opcode] if int(str(values["a"])) < 256 else "0"
        elif opcode in op.DIVIDE_BY_CONSTANT and literal["b"]:
            template = op.DIVIDE_BY_CONSTANT[opcode] if int(str(values["b"])) else "0"
        depth = 1 + max(depth_of(value) for value in values.values())
        words = {
            # A word that the template names twice must be computed before it.
            name: self.word(value) if template.count("{" + name + "}") > 1 else self.operand(value)
            for name, value in values.items()
        }
        self.push(Expression(template.format(**words), min(depth, NESTING_LIMIT)))

    def log(self, topics: int) -> None:
        """LOG0 to LOG4."""
        at, size = self.take(), self.take()
        words = [self.take() for _ in range(topics)]
        self._segment_gas += GAS_LOG_TOPIC * topics
        listed = "".join(f"{word}, " for word in words)
        self.lines.append(f"gas = log(frame, gas, {at}, {size}, ({listed}))")

    def call(self, opcode: int) -> None:
        """The CALL family: a child frame, which may look at its gas."""
        arguments = [self.take() for _ in range(op.CALL_ARGUMENTS[opcode])]
        if len(arguments) == 6:
            arguments.insert(2, "0")
        self.store_gas()
        name = self.assign("0")
        self.lines[-1] = f"{name}, gas = call(frame, gas, {opcode}, {', '.join(arguments)})"
        self.push(name)
        self.open_segment()

    def foreign(self, opcode: int) -> None:
        """An opcode of py-evm's own: its arguments go onto the real stack, its result comes from there."""
        takes, gives = op.FOREIGN[opcode]
        arguments = [self.take() for _ in range(takes)]
        self.uses_foreign = True
        self.store_gas()
        if arguments:
            self.lines.append(f"stack += ({', '.join(reversed(arguments))},)")
        self.lines.append(f"OPCODES[{opcode}](computation=frame)")
        self.lines.append("gas = meter.gas_remaining")
        if gives:
            self.push(self.assign("to_int(stack.pop())"))
        self.open_segment()

    def may_jump_to(self, target: int) -> bool:
        """Whether there is a JUMPDEST."""
        return target < len(self.destinations) and self.destinations[target] == 1

    def check_jump(self, target: str) -> str:
        """The statement that refuses a jump to anything else."""
        return f"if {target} >= {len(self.destinations)} or not DESTINATIONS[{target}]: {_BAD_JUMP}"

    def stop(self) -> None:
        """The frame ends without output."""
        self.store_gas()
        self.lines.append("return -1")
        self.done = True

    # -- writing the function

    def source(self) -> str:
        """The Python source of the trace."""
        body = []
        for line in self.lines:
            if isinstance(line, Leave):
                body += [" " + text for text in self.write_back(line)]
            elif isinstance(line, Branch):
                body += [f" if {line.condition}:", "  meter.gas_remaining = gas"]
                body += [f"  {line.check}"] if line.check else []
                body += ["  " + text for text in self.write_back(line.leave)]
            elif line:
                body.append(" " + line)
        text = "\n".join(body)
        head = ["def trace(frame, stack, meter, memory, state, message, me):"]
        room = STACK_LIMIT_WORDS - max(self.highest, 0) - (FOREIGN_STACK_MARGIN_WORDS if self.uses_foreign else 0)
        head.append(f" if not {self.window} <= len(stack) <= {room}: return step_by_step(frame, {self.start})")
        head.append(" gas = meter.gas_remaining")
        used = sorted({int(number) for number in _SLOT.findall(text)})
        head += [f" i{number} = stack[-{number + 1}]" for number in used]
        return "\n".join(head) + "\n" + text + "\n"

    def write_back(self, leave: Leave) -> list[str]:
        """Statements that bring the frame's stack up to date and go on."""
        # The window may have deepened after this point: those words are still on the frame's stack, untouched.
        deeper = [f"i{number}" for number in range(self.window - 1, leave.window - 1, -1)]
        words = [*deeper, *leave.words]
        same = 0
        while same < min(len(words), self.window) and words[same] == f"i{self.window - 1 - same}":
            same += 1
        replaced, fresh = self.window - same, words[same:]
        if replaced and fresh:
            text = [f"stack[-{replaced}:] = ({', '.join(fresh)},)"]
        elif replaced:
            text = [f"del stack[-{replaced}:]"]
        elif len(fresh) == 1:
            text = [f"stack.append({fresh[0]})"]
        elif fresh:
            text = [f"stack += ({', '.join(fresh)},)"]
        else:
            text = []
        return [*text, f"return {leave.target}"]


def _end_of(at: str, size: int) -> str:
    return str(int(at) + size) if is_literal(at) else f"{at} + {size}"


def _pop(t: TraceBuilder) -> None:
    t.pop_any()


def _iszero(t: TraceBuilder) -> None:
    value = t.pop_any()
    if isinstance(value, Condition):
        t.push(Condition(value.text, not value.negated, value.depth))
    else:
        t.push(Condition(f"{t.operand(value)} == 0", depth=min(1 + depth_of(value), NESTING_LIMIT)))


def _exp(t: TraceBuilder) -> None:
    base, exponent = t.pop(), t.pop()
    t.lines.append(f"gas = exponent_gas(gas, {exponent})")
    t.push(t.assign(f"pow({base}, {exponent}, WORD_MAX + 1)"))


def _keccak(t: TraceBuilder) -> None:
    at, size = t.take(), t.take()
    t.lookup(f"keccak(frame, gas, memory, {at}, {size})")


def _calldataload(t: TraceBuilder) -> None:
    value = t.pop_any()
    t.push(Expression(f"word_at(message.data, {t.operand(value)})", min(1 + depth_of(value), NESTING_LIMIT)))


def _copy(source: str, function: str = "copy_in") -> Callable[[TraceBuilder], None]:
    def copy(t: TraceBuilder) -> None:
        to, at, size = t.take(), t.take(), t.take()
        t.lines.append(f"gas = {function}(gas, memory, {to}, {at}, {size}, {source})")

    return copy


def _mcopy(t: TraceBuilder) -> None:
    to, at, size = t.take(), t.take(), t.take()
    t.lines.append(f"gas = memory_copy(gas, memory, {to}, {at}, {size})")


def _mload(t: TraceBuilder) -> None:
    at = t.pop()
    end = _end_of(at, 32)
    t.lines.append(f"if {end} > len(memory): gas = grow(gas, memory, {end})")
    t.push(t.assign(f"int.from_bytes(memory[{at}:{end}], 'big')"))


def _mstore(t: TraceBuilder) -> None:
    at, value = t.pop(), t.take()
    end = _end_of(at, 32)
    t.lines.append(f"if {end} > len(memory): gas = grow(gas, memory, {end})")
    data = repr(int(value).to_bytes(32, "big")) if is_literal(value) else f"{value}.to_bytes(32, 'big')"
    t.lines.append(f"memory[{at}:{end}] = {data}")


def _mstore8(t: TraceBuilder) -> None:
    at, value = t.pop(), t.take()
    end = _end_of(at, 1)
    t.lines.append(f"if {end} > len(memory): gas = grow(gas, memory, {end})")
    t.lines.append(f"memory[{at}] = {value} & 255")


def _sstore(t: TraceBuilder) -> None:
    slot, value = t.take(), t.take()
    t.close_segment()
    t.lines.append(f"gas = sstore(frame, state, me, gas, {slot}, {value})")
    t.open_segment()


def _gas(t: TraceBuilder) -> None:
    t.close_segment()
    t.push(t.assign("gas"))
    t.open_segment()


def _blockhash(t: TraceBuilder) -> None:
    t.push(t.assign(f"int.from_bytes(state.get_ancestor_hash({t.take()}), 'big')"))


def _tload(t: TraceBuilder) -> None:
    t.push(t.assign(f"tload(state, me, {t.take()})"))


def _tstore(t: TraceBuilder) -> None:
    slot, value = t.take(), t.take()
    t.lines.append(f"tstore(frame, state, me, {slot}, {value})")


def _jump(t: TraceBuilder) -> None:
    target = t.pop()
    if is_literal(target) and t.may_jump_to(int(target)):
        t.pc = int(target)
        return
    t.store_gas()
    if is_literal(target):
        t.lines.append(_BAD_JUMP)
    else:
        t.lines.append(t.check_jump(target))
        t.lines.append(t.leave(target))
    t.done = True


def _jumpi(t: TraceBuilder) -> None:
    target, condition = t.pop(), t.pop_any()
    valid = is_literal(target) and t.may_jump_to(int(target))
    if is_literal(condition):
        if not int(str(condition)):
            t.pc += 1
            return
        if valid:
            t.pc = int(target)
            return
    t.close_segment()
    t.stack = [t.word(value) for value in t.stack]  # both sides see the same words
    check = None if valid else _BAD_JUMP if is_literal(target) else t.check_jump(target)
    text = condition.render() if isinstance(condition, Condition) else t.operand(condition)
    t.lines.append(Branch(text, t.leave(target), check))
    t.open_segment()
    t.pc += 1


_BAD_JUMP = "raise InvalidJumpDestination('bad jump')"


def _end(reverts: bool) -> Callable[[TraceBuilder], None]:
    def end(t: TraceBuilder) -> None:
        at, size = t.take(), t.take()
        t.close_segment()
        name = t.assign("b''")
        t.lines[-1] = f"{name}, gas = read_memory(gas, memory, {at}, {size})"
        t.lines += ["meter.gas_remaining = gas", f"frame._output = {name}"]
        t.lines.append(f"raise Revert({name})" if reverts else "return -1")
        t.done = True

    return end


_CONTROL = {op.JUMP, op.JUMPI, op.STOP, op.RETURN, op.REVERT}

_HANDLERS: dict[int, Callable[[TraceBuilder], None]] = {
    op.STOP: TraceBuilder.stop,
    op.ISZERO: _iszero,
    op.EXP: _exp,
    op.KECCAK256: _keccak,
    op.CALLDATALOAD: _calldataload,
    op.CALLDATACOPY: _copy("message.data"),
    op.CODESIZE: lambda t: t.push(str(len(t.code))),
    op.CODECOPY: _copy("CODE"),
    op.RETURNDATACOPY: _copy("frame.return_data", "return_data_copy"),
    op.BLOCKHASH: _blockhash,
    op.POP: _pop,
    op.MLOAD: _mload,
    op.MSTORE: _mstore,
    op.MSTORE8: _mstore8,
    op.SSTORE: _sstore,
    op.JUMP: _jump,
    op.JUMPI: _jumpi,
    op.PC: lambda t: t.push(str(t.pc)),
    op.MSIZE: lambda t: t.push(t.assign("len(memory)")),
    op.GAS: _gas,
    op.JUMPDEST: lambda t: None,
    op.TLOAD: _tload,
    op.TSTORE: _tstore,
    op.MCOPY: _mcopy,
    op.RETURN: _end(False),
    op.REVERT: _end(True),
}
