"""The EVM: py-evm's opcodes, precompiles and fork tables, run in light frames over our own journal.

Importing this module imports py-evm (0.4 s); everything else of the room does without it, so processes that never
execute a block do not pay for it.
"""

import sys
from collections.abc import Callable
from typing import Any

import eth_hash.auto
from eth.exceptions import (
    Halt,
    InsufficientFunds,
    OutOfGas,
    ReservedBytesInCode,
    VMError,
    WriteProtection,
)
from eth.vm.code_stream import CodeStream
from eth.vm.forks.byzantium.opcodes import ensure_no_static
from eth.vm.forks.cancun.logic import selfdestruct_eip6780
from eth.vm.forks.cancun.opcodes import CANCUN_OPCODES
from eth.vm.forks.prague.computation import PragueComputation
from eth.vm.gas_meter import GasMeter
from eth.vm.memory import Memory
from eth.vm.opcode import as_opcode
from eth.vm.stack import Stack

from flashblocks.execution import precompiles
from flashblocks.execution.block_state import BlockState
from flashblocks.execution.chain_spec import ALL_RULES, Rules
from flashblocks.execution.code import NO_CODE, Code
from flashblocks.execution.compiler import program
from flashblocks.execution.compiler.runtime import COPIED_INPUT_BYTES, grow, input_of
from flashblocks.execution.errors import OutOfTime
from flashblocks.execution.keccak import keccak256

# One EVM frame is up to a dozen Python frames, and 1024 EVM frames may be nested.
RECURSION_LIMIT_FRAMES = 40_000
CALL_DEPTH_LIMIT = 1024

GAS_WARM_ACCESS = 100
GAS_COLD_ACCOUNT = 2_600
GAS_CALL_VALUE = 9_000
GAS_CALL_STIPEND = 2_300
GAS_NEW_ACCOUNT = 25_000
GAS_CODE_DEPOSIT_BYTE = 200
CODE_SIZE_LIMIT_BYTES = 24_576  # EIP-170
INITCODE_SIZE_LIMIT_BYTES = 49_152  # EIP-3860

GAS_SELFDESTRUCT = 5_000

CALL, CALLCODE, DELEGATECALL, STATICCALL = 0xF1, 0xF2, 0xF4, 0xFA
SELFDESTRUCT = 0xFF
TRANSFER_ADDRESS = b"\xee" * 20
TRANSFER_TOPIC = int.from_bytes(keccak256(b"Transfer(address,address,uint256)"), "big")

sys.setrecursionlimit(max(sys.getrecursionlimit(), RECURSION_LIMIT_FRAMES))
# py-evm hashes through eth_hash, whose default back end takes ten times as long.
eth_hash.auto.keccak.hasher = keccak256


class Message:
    """One call or creation: py-evm's Message without its checks. `code` is a `Code`; `data` is bytes or lent memory."""

    __slots__ = (
        "code",
        "code_address",
        "data",
        "depth",
        "gas",
        "is_create",
        "is_delegation",
        "is_static",
        "sender",
        "should_transfer_value",
        "storage_address",
        "to",
        "value",
    )

    def __init__(
        self,
        gas: int,
        to: bytes,
        sender: bytes,
        value: int,
        data: Any,
        code: Code,
        *,
        depth: int = 0,
        code_address: bytes | None = None,
        create_address: bytes | None = None,
        should_transfer_value: bool = True,
        is_static: bool = False,
        is_delegation: bool = False,
    ) -> None:
        self.gas = gas
        self.to = to
        self.sender = sender
        self.value = value
        self.data = data
        self.code = code
        self.depth = depth
        self.code_address = to if code_address is None else code_address
        self.storage_address = to if create_address is None else create_address
        self.is_create = create_address is not None
        self.should_transfer_value = should_transfer_value
        self.is_static = is_static
        self.is_delegation = is_delegation

    @property
    def data_as_bytes(self) -> bytes:
        """py-evm's name for the input as bytes."""
        return bytes(self.data)


class TransactionContext:
    """What is the same in every frame of a transaction."""

    __slots__ = ("gas_price", "origin")

    blob_versioned_hashes: tuple[bytes, ...] = ()

    def __init__(self, gas_price: int, origin: bytes) -> None:
        self.gas_price = gas_price
        self.origin = origin


class LightGasMeter(GasMeter):  # type: ignore[misc]
    """py-evm's gas meter without checks and log messages."""

    def __init__(self, gas: int) -> None:
        self.start_gas = gas
        self.gas_remaining = gas
        self.gas_refunded = 0

    def consume_gas(self, amount: int, reason: str) -> None:
        """Charge gas or run out of it."""
        if amount > self.gas_remaining:
            raise OutOfGas(reason)
        self.gas_remaining -= amount

    def return_gas(self, amount: int) -> None:
        """Give back what a child did not use."""
        self.gas_remaining += amount

    def refund_gas(self, amount: int) -> None:
        """Add to the refund counter (may be negative, EIP-2200)."""
        self.gas_refunded += amount


class LightStack(Stack):  # type: ignore[misc]
    """py-evm's stack without the methods it binds for every frame; most frames only use the list."""

    def __init__(self) -> None:
        self.values: list[int | bytes] = []

    def __len__(self) -> int:
        return len(self.values)

    @property
    def _append(self) -> Callable[[int | bytes], None]:
        return self.values.append

    @property
    def _pop(self) -> Callable[[], int | bytes]:
        return self.values.pop


class AnalysedCodeStream(CodeStream):  # type: ignore[misc]
    """py-evm's code stream, with the jump destinations of the shared `Code` instead of a search per frame."""

    def __init__(self, code: Code) -> None:
        self.program_counter = 0
        self._raw_code_bytes = code.raw
        self._length_cache = len(code.raw)
        self._code = code

    def is_valid_opcode(self, position: int) -> bool:
        """Only asked of jump targets."""
        valid = self._code.jump_destinations
        return position < len(valid) and valid[position] == 1


class Frame(PragueComputation):  # type: ignore[misc]
    """One EVM frame. Finished children are merged into their parent, so a transaction's memory is that of its depth."""

    rules: Rules

    def __init__(self, state: BlockState, message: Message, context: TransactionContext) -> None:
        self.state = state
        self.msg = message
        self.transaction_context = context
        self._gas_meter = LightGasMeter(message.gas)
        self._stack = LightStack()
        self._memory = Memory()
        self._log_entries: list[tuple[bytes, tuple[int, ...], bytes]] = []
        self.accounts_to_delete: list[bytes] = []
        self.beneficiaries: list[bytes] = []
        self.contracts_created: list[bytes] = []

    @property
    def code(self) -> AnalysedCodeStream:
        """The instruction stream; made only when an opcode of py-evm needs it."""
        stream = self.__dict__.get("_code_stream")
        if stream is None:
            stream = self.__dict__["_code_stream"] = AnalysedCodeStream(self.msg.code)
        return stream  # type: ignore[no-any-return]

    @property
    def refund(self) -> int:
        """The refund counter of this frame and its successful children."""
        return self._gas_meter.gas_refunded  # type: ignore[no-any-return]

    def add_log_entry(self, account: bytes, topics: tuple[int, ...], data: bytes) -> None:
        """LOG0 to LOG4."""
        self._log_entries.append((account, topics, data))

    def show_transfer(self, sender: bytes, to: bytes, value: int) -> None:
        """A movement of wei as if it were a token's, where the state shows them."""
        topics = TRANSFER_TOPIC, int.from_bytes(sender, "big"), int.from_bytes(to, "big")
        self._log_entries.append((TRANSFER_ADDRESS, topics, value.to_bytes(32, "big")))

    def fail(self, error: VMError) -> None:
        """End the frame with `error`."""
        # The traceback holds the Python frames, and those hold this one: a cycle that only the collector could free.
        error.__traceback__ = error.__context__ = None
        self._error = error
        if error.burns_gas:
            self._gas_meter.gas_remaining = 0
        if error.erases_return_data:
            self._output = b""
            self.return_data = b""

    def merge(self, child: "Frame") -> None:
        """Take over what a successful child did."""
        if child._error is None:
            if child._log_entries:
                self._log_entries += child._log_entries
            if child.accounts_to_delete:
                self.accounts_to_delete += child.accounts_to_delete
            self._gas_meter.gas_refunded += child._gas_meter.gas_refunded

    def add_child_computation(self, child: "Frame") -> None:
        """py-evm's CREATE and CREATE2 end here."""
        self.merge(child)
        failed = child._error is not None
        # A creation leaves return data only when it reverted (EIP-211).
        self.return_data = child._output if failed and not child._error.erases_return_data else b""

    def prepare_child_message(
        self, gas: int, to: bytes, value: int, data: bytes, code: bytes, create_address: bytes
    ) -> Message:
        """Called by py-evm's CREATE and CREATE2; the CALL family goes through `call`."""
        sender = self.msg.storage_address
        depth = self.msg.depth + 1
        return Message(gas, to, sender, value, data, Code.of(code), depth=depth, create_address=create_address)

    @classmethod
    def apply_message(
        cls, state: BlockState, message: Message, context: TransactionContext, parent_computation: "Frame | None" = None
    ) -> "Frame":
        """Move the value, run the code, take everything back when it fails."""
        checkpoint = len(state.undo)
        value = message.value
        if value and message.should_transfer_value:
            available = state.get_balance(message.sender)
            if available < value:
                raise InsufficientFunds(f"{available} < {value}")
            state.set_balance(message.sender, available - value)
            state.delta_balance(message.storage_address, value)
        else:
            state.touch_account(message.storage_address)
        frame = cls(state, message, context)
        if state.shows_transfers and value and message.should_transfer_value:
            frame.show_transfer(message.sender, message.storage_address, value)
        if parent_computation is not None:
            frame.contracts_created = parent_computation.contracts_created
        if message.is_create:
            frame.contracts_created.append(message.storage_address)
        try:
            precompile = cls._precompiles.get(message.code_address)
            if precompile is not None:
                if not message.is_delegation:  # EIP-7702: a delegation to a precompile runs nothing
                    frame.check_deadline()
                    if state.deadline is not None:
                        frame.consume_gas = frame.consume_gas_in_time
                    precompile(frame)
            elif message.code is not NO_CODE:
                frame.check_deadline()
                frame.run()
        except VMError as error:
            frame.fail(error)
            state.revert(checkpoint)
        return frame

    @classmethod
    def apply_create_message(
        cls, state: BlockState, message: Message, context: TransactionContext, parent_computation: "Frame | None" = None
    ) -> "Frame":
        """Run initcode and install what it returns (EIP-161, 170, 3541, 3860)."""
        if len(message.code.raw) > INITCODE_SIZE_LIMIT_BYTES:
            raise OutOfGas("initcode above the EIP-3860 limit")
        checkpoint = len(state.undo)
        state.increment_nonce(message.storage_address)
        frame = cls.apply_message(state, message, context, parent_computation)
        if frame._error is not None:
            state.revert(checkpoint)
            return frame
        deployed = frame._output
        try:
            if len(deployed) > CODE_SIZE_LIMIT_BYTES:
                raise OutOfGas("contract code above the EIP-170 limit")
            if deployed[:1] == b"\xef":
                raise ReservedBytesInCode("contract code begins with 0xEF (EIP-3541)")
            frame._gas_meter.consume_gas(GAS_CODE_DEPOSIT_BYTE * len(deployed), "code deposit")
        except VMError as error:
            frame.fail(error)
            state.revert(checkpoint)
            return frame
        if deployed:
            state.set_code(message.storage_address, deployed)
        return frame

    def check_deadline(self) -> None:
        """Stop the whole transaction when the caller's time is up."""
        state = self.state
        if state.deadline is not None and state.clock is not None and state.clock() >= state.deadline:
            raise OutOfTime("execution deadline passed")

    def consume_gas_in_time(self, amount: int, reason: str = "") -> None:
        """What a precompile charges before it works: only where the work will be done before the caller's deadline."""
        self._gas_meter.consume_gas(amount, reason)
        state = self.state
        if amount > precompiles.LONG_CALL_GAS and state.deadline is not None and state.clock is not None:
            speed = precompiles.speeds().get(self.msg.code_address, precompiles.GAS_PER_S_OF_OTHERS)
            if state.clock() + amount / speed >= state.deadline:
                raise OutOfTime("no time for a long precompile call")

    def run(self) -> None:
        """Run the code: compiled where the budget allows, with py-evm's opcodes elsewhere."""
        program.run(self, call)


def call(
    frame: Frame,
    gas: int,
    kind: int,
    requested: int,
    target: int,
    value: int,
    input_at: int,
    input_size: int,
    output_at: int,
    output_size: int,
) -> tuple[int, int]:
    """CALL, CALLCODE, DELEGATECALL and STATICCALL: (success, gas left). `gas` is what the frame has left."""
    message = frame.msg
    state = frame.state
    moves_value = value != 0 and kind in (CALL, CALLCODE)
    if moves_value and kind == CALL and message.is_static:
        raise WriteProtection("CALL with value in a static context")
    memory = frame._memory._bytes
    if input_size and input_at + input_size > len(memory):
        gas = grow(gas, memory, input_at + input_size)
    if output_size and output_at + output_size > len(memory):
        gas = grow(gas, memory, output_at + output_size)

    address = (target & ((1 << 160) - 1)).to_bytes(20, "big")
    gas = charge_account_access(gas, state, address)
    code = state.code_of(address)
    delegate = code.delegate if frame.rules.isthmus else None
    if delegate is not None:
        gas = charge_account_access(gas, state, delegate)
        code = state.code_of(delegate)
    if moves_value:
        gas -= GAS_CALL_VALUE
        if kind == CALL and state.account_is_empty(address):
            gas -= GAS_NEW_ACCOUNT
        if gas < 0:
            raise OutOfGas("call value")
    given = min(requested, gas - (gas >> 6))  # EIP-150
    gas -= given
    if moves_value:
        given += GAS_CALL_STIPEND
    own = message.storage_address
    if message.depth >= CALL_DEPTH_LIMIT or (moves_value and state.get_balance(own) < value):
        frame.return_data = b""
        return 0, gas + given
    if code is NO_CODE and (delegate is not None or address not in frame._precompiles):
        # Nothing runs there, so there is no frame: the value moves, and all gas comes back.
        if kind == CALL and value:
            state.set_balance(own, state.get_balance(own) - value)
            state.delta_balance(address, value)
            if state.shows_transfers:
                frame.show_transfer(own, address, value)
        elif kind in (CALL, STATICCALL):
            state.touch_account(address)
        frame.return_data = b""
        return 1, gas + given
    data = input_of(memory, input_at, input_size)
    child_message = Message(
        given,
        address if kind in (CALL, STATICCALL) else own,
        message.sender if kind == DELEGATECALL else own,
        message.value if kind == DELEGATECALL else value,
        data,
        code,
        depth=message.depth + 1,
        code_address=delegate or address,
        should_transfer_value=moves_value,
        is_static=message.is_static or kind == STATICCALL,
        is_delegation=delegate is not None,
    )
    child = frame.apply_message(state, child_message, frame.transaction_context, frame)
    if input_size > COPIED_INPUT_BYTES:
        data.release()
    frame.merge(child)
    frame.return_data = output = child._output
    if output_size and output:
        written = min(output_size, len(output))
        memory[output_at : output_at + written] = output[:written]
    return (1 if child._error is None else 0), gas + child._gas_meter.gas_remaining


def charge_account_access(gas: int, state: BlockState, address: bytes) -> int:
    """EIP-2929: the gas left after touching an account."""
    if address in state.warm:
        gas -= GAS_WARM_ACCESS
    else:
        gas -= GAS_COLD_ACCOUNT
        state.mark_address_warm(address)
    if gas < 0:
        raise OutOfGas("account access")
    return gas


class CallOpcode:
    """The opcode that pops its arguments and calls; DELEGATECALL and STATICCALL have no value argument."""

    gas_cost = 0

    def __init__(self, kind: int) -> None:
        self.kind = kind

    def __call__(self, computation: Frame) -> None:
        """Run the call."""
        if self.kind in (CALL, CALLCODE):
            requested, target, value, *memory = computation.stack_pop_ints(7)
        else:
            requested, target, *memory = computation.stack_pop_ints(6)
            value = 0
        meter = computation._gas_meter
        success, gas = call(computation, meter.gas_remaining, self.kind, requested, target, value, *memory)
        meter.gas_remaining = gas
        computation.stack_push_int(success)


def _selfdestruct(frame: Frame) -> None:
    """EIP-6780's; the balance that it moves is shown where transfers are."""
    own = frame.msg.storage_address
    balance = frame.state.get_balance(own) if frame.state.shows_transfers else 0
    try:
        selfdestruct_eip6780(frame)
    except Halt:
        if balance:
            frame.show_transfer(own, frame.beneficiaries[-1], balance)
        raise


def _opcodes() -> dict[int, Any]:
    """Cancun's table is Prague's too: Prague changed only the CALL family, which is ours."""
    table = dict(CANCUN_OPCODES)
    # py-evm's entry warns of SELFDESTRUCT's deprecation each time it runs; this is the same opcode without the warning.
    table[SELFDESTRUCT] = as_opcode(ensure_no_static(_selfdestruct), "SELFDESTRUCT", GAS_SELFDESTRUCT)
    for kind in (CALL, CALLCODE, DELEGATECALL, STATICCALL):
        table[kind] = CallOpcode(kind)
    return table


def _frame_class(rules: Rules) -> type[Frame]:
    members = {"rules": rules, "opcodes": _opcodes(), "_precompiles": precompiles.table(rules)}
    return type(f"{rules.name.capitalize()}Frame", (Frame,), members)


FRAME_CLASSES = {rules.name: _frame_class(rules) for rules in ALL_RULES}


def frame_class(rules: Rules) -> type[Frame]:
    """The frame class that runs under `rules`."""
    return FRAME_CLASSES[rules.name]
