"""What compiled traces call: arithmetic, memory, storage and logs that are too long to write out in every trace.

Functions that charge gas take what is left and give what is left after them. Their charges are those of py-evm's
opcodes; inside one opcode the order of charges may differ, which nothing can observe because a frame that runs out of
gas is undone as a whole.
"""

from typing import Any

from eth.exceptions import OutOfBoundsRead, OutOfGas, WriteProtection

from flashblocks.execution.block_state import BlockState
from flashblocks.execution.keccak import keccak256

WORD_END = 1 << 256
WORD_MAX = WORD_END - 1
SIGN_BIT = 1 << 255

GAS_KECCAK_WORD = 6
GAS_COPY_WORD = 3
GAS_EXP_BYTE = 50
GAS_LOG_BYTE = 8
GAS_WARM = 100
GAS_COLD_SLOT = 2_100
GAS_COLD_ACCOUNT = 2_600
GAS_SSTORE_SET = 20_000
GAS_SSTORE_RESET = 2_900
GAS_SSTORE_SENTRY = 2_300  # EIP-2200
REFUND_CLEAR = 4_800  # EIP-3529
MEMORY_LIMIT_WORDS = 1 << 26
COPIED_INPUT_BYTES = 4_096
LONG_KECCAK_BYTES = 100_000  # 0.2 ms, and a trace may hold dozens of them

Bytes = bytes | memoryview


def grow(gas: int, memory: bytearray, end: int) -> int:
    """Extend memory to `end` bytes (yellow paper, C_mem)."""
    before = (len(memory) + 31) >> 5
    after = (end + 31) >> 5
    if after > MEMORY_LIMIT_WORDS:
        raise OutOfGas("memory")
    gas -= 3 * (after - before) + (after * after >> 9) - (before * before >> 9)
    if gas < 0:
        raise OutOfGas("memory")
    memory.extend(bytes((after << 5) - len(memory)))
    return gas


def sdiv(a: int, b: int) -> int:
    """SDIV: signed division that rounds towards zero."""
    if b == 0:
        return 0
    a = a - WORD_END if a >= SIGN_BIT else a
    b = b - WORD_END if b >= SIGN_BIT else b
    quotient = abs(a) // abs(b)
    return (-quotient if (a < 0) != (b < 0) else quotient) & WORD_MAX


def smod(a: int, b: int) -> int:
    """SMOD: the remainder takes the dividend's sign."""
    if b == 0:
        return 0
    a = a - WORD_END if a >= SIGN_BIT else a
    b = b - WORD_END if b >= SIGN_BIT else b
    remainder = abs(a) % abs(b)
    return (-remainder if a < 0 else remainder) & WORD_MAX


def signextend(width: int, value: int) -> int:
    """SIGNEXTEND: the sign bit of byte `width` fills what is above it."""
    if width > 30:
        return value
    sign = 1 << (width * 8 + 7)
    return value | (WORD_END - sign) if value & sign else value & (sign - 1)


def sar(shift: int, value: int) -> int:
    """SAR: arithmetic shift right."""
    if value < SIGN_BIT:
        return 0 if shift >= 256 else value >> shift
    return WORD_MAX if shift >= 256 else ((value - WORD_END) >> shift) & WORD_MAX


def keccak(frame: Any, gas: int, memory: bytearray, at: int, size: int) -> tuple[int, int]:
    """KECCAK256: (hash, gas left)."""
    if size:
        if size > LONG_KECCAK_BYTES:
            frame.check_deadline()
        if at + size > len(memory):
            gas = grow(gas, memory, at + size)
        gas -= GAS_KECCAK_WORD * ((size + 31) >> 5)
        if gas < 0:
            raise OutOfGas("keccak256")
    return int.from_bytes(keccak256(bytes(memory[at : at + size])), "big"), gas


def copy_in(gas: int, memory: bytearray, to: int, source_at: int, size: int, source: Bytes) -> int:
    """CALLDATACOPY and CODECOPY: what lies beyond the source is zeros."""
    if size:
        if to + size > len(memory):
            gas = grow(gas, memory, to + size)
        gas -= GAS_COPY_WORD * ((size + 31) >> 5)
        if gas < 0:
            raise OutOfGas("copy")
        piece = source[source_at : source_at + size]
        memory[to : to + size] = piece if len(piece) == size else bytes(piece).ljust(size, b"\0")
    return gas


def return_data_copy(gas: int, memory: bytearray, to: int, source_at: int, size: int, source: bytes) -> int:
    """RETURNDATACOPY: reading beyond the data fails."""
    if source_at + size > len(source):
        raise OutOfBoundsRead("return data")
    return copy_in(gas, memory, to, source_at, size, source)


def memory_copy(gas: int, memory: bytearray, to: int, source_at: int, size: int) -> int:
    """MCOPY."""
    if size:
        end = max(to, source_at) + size
        if end > len(memory):
            gas = grow(gas, memory, end)
        gas -= GAS_COPY_WORD * ((size + 31) >> 5)
        if gas < 0:
            raise OutOfGas("mcopy")
        memory[to : to + size] = bytes(memory[source_at : source_at + size])
    return gas


def exponent_gas(gas: int, exponent: int) -> int:
    """The part of EXP's price that grows with the exponent."""
    gas -= GAS_EXP_BYTE * ((exponent.bit_length() + 7) >> 3)
    if gas < 0:
        raise OutOfGas("exp")
    return gas


def read_memory(gas: int, memory: bytearray, at: int, size: int) -> tuple[bytes, int]:
    """What RETURN and REVERT hand out: (bytes, gas left)."""
    if not size:
        return b"", gas
    if at + size > len(memory):
        gas = grow(gas, memory, at + size)
    return bytes(memory[at : at + size]), gas


def sload(state: BlockState, address: bytes, gas: int, slot: int) -> tuple[int, int]:
    """SLOAD (EIP-2929): (value, gas left)."""
    place = (address, slot)
    warm = state.warm
    if place in warm:
        gas -= GAS_WARM
    else:
        warm.add(place)
        state.undo.append((warm, place, None))
        gas -= GAS_COLD_SLOT
    if gas < 0:
        raise OutOfGas("sload")
    slots = state.storage.get(address)
    if slots is not None:
        value = slots.get(slot)
        if value is not None:
            return value, gas
    return state.get_storage(address, slot), gas


def sstore(frame: Any, state: BlockState, address: bytes, gas: int, slot: int, new: int) -> int:
    """SSTORE with net metering (EIP-2200, 2929, 3529)."""
    if frame.msg.is_static:
        raise WriteProtection("SSTORE in a static context")
    if gas <= GAS_SSTORE_SENTRY:
        raise OutOfGas("SSTORE below the stipend")
    place = (address, slot)
    current = state.get_storage(address, slot)
    refund = 0
    if current == new:
        cost = GAS_WARM
    else:
        original = state.original.get(place)
        if original is None or original == current:
            if current == 0:
                cost = GAS_SSTORE_SET
            else:
                cost = GAS_SSTORE_RESET
                if new == 0:
                    refund = REFUND_CLEAR
        else:
            cost = GAS_WARM
            refund = _refund_of_rewrite(original, current, new)
    if place not in state.warm:
        state.mark_storage_warm(address, slot)
        cost += GAS_COLD_SLOT
    gas -= cost
    if gas < 0:
        raise OutOfGas("sstore")
    if refund:
        frame._gas_meter.gas_refunded += refund
    if current != new:
        state.set_storage(address, slot, new)
    return gas


def _refund_of_rewrite(original: int, current: int, new: int) -> int:
    """EIP-2200's refund for a slot that this transaction has already changed."""
    refund = 0
    if original:
        if current == 0:
            refund -= REFUND_CLEAR
        if new == 0:
            refund += REFUND_CLEAR
    if original == new:
        refund += GAS_SSTORE_SET - GAS_WARM if original == 0 else GAS_SSTORE_RESET - GAS_WARM
    return refund


def tload(state: BlockState, address: bytes, slot: int) -> int:
    """TLOAD (EIP-1153)."""
    value = state.transient.get((address, slot))
    return int.from_bytes(value, "big") if value else 0


def tstore(frame: Any, state: BlockState, address: bytes, slot: int, value: int) -> None:
    """TSTORE (EIP-1153)."""
    if frame.msg.is_static:
        raise WriteProtection("TSTORE in a static context")
    state.set_transient_storage(address, slot, value.to_bytes(32, "big"))


def log(frame: Any, gas: int, at: int, size: int, topics: tuple[int, ...]) -> int:
    """LOG0 to LOG4; the price per topic is charged by the trace."""
    if frame.msg.is_static:
        raise WriteProtection("LOG in a static context")
    gas -= GAS_LOG_BYTE * size
    if gas < 0:
        raise OutOfGas("log")
    data, gas = read_memory(gas, frame._memory._bytes, at, size)
    frame._log_entries.append((frame.msg.storage_address, topics, data))
    return gas


def touch(state: BlockState, gas: int, target: int) -> tuple[bytes, int]:
    """An account that BALANCE, EXTCODESIZE or EXTCODEHASH looks at (EIP-2929): (address, gas left)."""
    address = (target & ((1 << 160) - 1)).to_bytes(20, "big")
    if address in state.warm:
        gas -= GAS_WARM
    else:
        state.mark_address_warm(address)
        gas -= GAS_COLD_ACCOUNT
    if gas < 0:
        raise OutOfGas("account access")
    return address, gas


def balance(state: BlockState, gas: int, target: int) -> tuple[int, int]:
    """BALANCE: (wei, gas left)."""
    address, gas = touch(state, gas, target)
    return state.get_balance(address), gas


def code_size(state: BlockState, gas: int, target: int) -> tuple[int, int]:
    """EXTCODESIZE: (bytes, gas left)."""
    address, gas = touch(state, gas, target)
    return len(state.code_of(address).raw), gas


def code_hash(state: BlockState, gas: int, target: int) -> tuple[int, int]:
    """EXTCODEHASH (EIP-1052): (hash, or 0 for an empty account; gas left)."""
    address, gas = touch(state, gas, target)
    if state.account_is_empty(address):
        return 0, gas
    return int.from_bytes(state.code_of(address).hash, "big"), gas


def input_of(memory: bytearray, at: int, size: int) -> Any:
    """The input of a call. A long one is lent and not copied, as nobody pays gas for it: to be released afterwards."""
    if size > COPIED_INPUT_BYTES:
        return memoryview(memory)[at : at + size]  # the caller's memory cannot change while the call runs
    return bytes(memory[at : at + size]) if size else b""


def word_at(data: Bytes, at: int) -> int:
    """CALLDATALOAD: 32 bytes, zeros beyond the end."""
    piece = data[at : at + 32]
    if len(piece) == 32:
        return int.from_bytes(piece, "big")
    return int.from_bytes(bytes(piece).ljust(32, b"\0"), "big")


def to_int(value: int | bytes) -> int:
    """py-evm's stack holds words as integers or as bytes."""
    return value if type(value) is int else int.from_bytes(value, "big")  # type: ignore[arg-type]
