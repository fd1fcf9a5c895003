"""One transaction applied to the state: validation, fees, execution, refunds – the whole transaction layer of OP.

py-evm's own layer has gaps (gas bought before the intrinsic check, EIP-7623 floor accepted above the gas limit, chain
id, EIP-3607 and tip-above-cap unchecked, refund against floor); this one follows op-geth's order and texts.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flashblocks.execution.block_state import BlockState
from flashblocks.execution.chain_spec import Rules
from flashblocks.execution.code import DELEGATION_PREFIX, NO_CODE, Code
from flashblocks.execution.errors import InvalidTransaction
from flashblocks.execution.fees import (
    BASE_FEE_VAULT,
    L1_FEE_VAULT,
    OPERATOR_FEE_VAULT,
    L1Parameters,
    ecotone_l1_fee,
    l1_fee,
    operator_fee,
)
from flashblocks.execution.journal import EMPTY_RECORD
from flashblocks.execution.keccak import keccak256
from flashblocks.execution.receipt import Log
from flashblocks.execution.rlp import encode, minimal_bytes
from flashblocks.execution.transaction import SET_CODE_TYPE, UINT64_END, Authorization, Transaction

if TYPE_CHECKING:
    from flashblocks.execution.evm import Frame

REFUND_DIVISOR = 5  # EIP-3529
AUTHORIZATION_REFUND_GAS = 25_000 - 12_500  # EIP-7702: PER_EMPTY_ACCOUNT_COST − PER_AUTH_BASE_COST
INITCODE_SIZE_LIMIT_BYTES = 49_152  # EIP-3860
UINT256_END = 1 << 256
ZERO_ADDRESS = bytes(20)


@dataclass(slots=True)
class Outcome:
    """What a transaction did. Gas and wei."""

    success: bool
    gas_used: int
    logs: tuple[Log, ...]
    output: bytes
    error: str | None
    contract_address: bytes | None
    effective_gas_price: int
    l1_fee: int
    deposit_nonce: int | None


def apply_transaction(
    state: BlockState, warm: frozenset[bytes], tx: Transaction, l1: L1Parameters, gas_available: int
) -> Outcome:
    """Apply `tx`; raises InvalidTransaction, possibly with the state half written: the caller reverts to before it.

    `warm` are the addresses warm from the start, `gas_available` is what the block has left.
    """
    if tx.is_deposit:
        if tx.gas_limit > gas_available:
            raise InvalidTransaction("gas limit reached")
        state.begin_transaction(warm)
        return _apply_deposit(state, tx)
    sender = tx.sender
    _validate(state, tx, sender, gas_available)
    state.begin_transaction(warm)
    return _apply_paid(state, tx, sender, l1)


def _validate(state: BlockState, tx: Transaction, sender: bytes, gas_available: int) -> None:
    """All checks of a paid transaction but the balance (op-geth: preCheck, IntrinsicGas, FloorDataGas)."""
    environment = state.environment
    rules = environment.rules
    if tx.type == SET_CODE_TYPE and not rules.isthmus:
        raise InvalidTransaction("transaction type not supported")
    if tx.chain_id is not None and tx.chain_id != environment.chain_id:
        raise InvalidTransaction(f"invalid chain id for signer: have {tx.chain_id} want {environment.chain_id}")
    nonce = state.get_nonce(sender)
    if tx.nonce < nonce:
        raise InvalidTransaction(f"nonce too low: address 0x{sender.hex()}, tx: {tx.nonce} state: {nonce}")
    if tx.nonce > nonce:
        raise InvalidTransaction(f"nonce too high: address 0x{sender.hex()}, tx: {tx.nonce} state: {nonce}")
    if tx.nonce + 1 >= UINT64_END:
        raise InvalidTransaction(f"nonce has max value: address 0x{sender.hex()}, nonce: {tx.nonce}")
    code = state.code_of(sender)
    if code is not NO_CODE and not (rules.isthmus and code.delegate is not None):  # EIP-3607
        raise InvalidTransaction(f"sender not an eoa: address 0x{sender.hex()}, codehash: 0x{code.hash.hex()}")
    if tx.max_fee_per_gas < tx.max_priority_fee_per_gas:
        raise InvalidTransaction(
            f"max priority fee per gas higher than max fee per gas: address 0x{sender.hex()}, "
            f"maxPriorityFeePerGas: {tx.max_priority_fee_per_gas}, maxFeePerGas: {tx.max_fee_per_gas}"
        )
    if tx.max_fee_per_gas < environment.base_fee:
        raise InvalidTransaction(
            f"max fee per gas less than block base fee: address 0x{sender.hex()}, "
            f"maxFeePerGas: {tx.max_fee_per_gas}, baseFee: {environment.base_fee}"
        )
    if tx.gas_limit > gas_available:
        raise InvalidTransaction("gas limit reached")
    if tx.gas_limit < tx.intrinsic_gas:
        raise InvalidTransaction(f"intrinsic gas too low: have {tx.gas_limit}, want {tx.intrinsic_gas}")
    if rules.isthmus and tx.gas_limit < tx.floor_gas:
        raise InvalidTransaction(f"insufficient gas for floor data gas cost: have {tx.gas_limit}, want {tx.floor_gas}")
    if tx.to is None and len(tx.data) > INITCODE_SIZE_LIMIT_BYTES:
        raise InvalidTransaction(
            f"max initcode size exceeded: code size {len(tx.data)} limit {INITCODE_SIZE_LIMIT_BYTES}"
        )


def _apply_paid(state: BlockState, tx: Transaction, sender: bytes, l1: L1Parameters) -> Outcome:
    environment = state.environment
    rules = environment.rules
    data_fee = 0
    if l1.base_fee or l1.blob_base_fee:
        data_fee = l1_fee(tx.fee_size, l1) if rules.fjord else ecotone_l1_fee(tx.raw, l1)
    operator_limit = operator_fee(tx.gas_limit, l1, rules)
    nonce, balance, code = state.record(sender) or EMPTY_RECORD
    most = tx.gas_limit * tx.max_fee_per_gas + tx.value + data_fee + operator_limit
    if balance < most or most >= UINT256_END:
        raise InvalidTransaction(
            f"insufficient funds for gas * price + value: address 0x{sender.hex()} have {balance} want {most}"
        )
    base_fee = environment.base_fee
    price = tx.effective_gas_price(base_fee)
    state.write(sender, (nonce + 1, balance - tx.gas_limit * price - data_fee - operator_limit, code))
    refund = 0
    if tx.authorization_list:
        for authorization in tx.authorization_list:
            refund += _authorize(state, authorization)
    result = _execute(state, tx, sender, nonce, price)
    gas_used = _charged_gas(tx, result, refund, rules.isthmus)
    operator = operator_fee(gas_used, l1, rules)
    back = (tx.gas_limit - gas_used) * price + operator_limit - operator
    if back:
        state.delta_balance(sender, back)
    state.credit(environment.fee_recipient, gas_used * (price - base_fee))
    state.credit(BASE_FEE_VAULT, gas_used * base_fee)
    state.credit(L1_FEE_VAULT, data_fee)
    if rules.isthmus:
        state.credit(OPERATOR_FEE_VAULT, operator)
    _sweep(state, result)
    return _outcome(result, gas_used, price, data_fee, None)


def _apply_deposit(state: BlockState, tx: Transaction) -> Outcome:
    """A deposit: its mint is never taken back, it pays nothing, and it is included even when it cannot run."""
    from eth.exceptions import VMError

    sender = tx.sender
    if tx.mint:
        state.delta_balance(sender, tx.mint)
    nonce = state.get_nonce(sender)
    isthmus = state.environment.rules.isthmus
    checkpoint = state.snapshot()
    try:
        if tx.gas_limit < tx.intrinsic_gas or (isthmus and tx.gas_limit < tx.floor_gas):
            raise VMError("deposit below its intrinsic gas")
        if tx.to is None and len(tx.data) > INITCODE_SIZE_LIMIT_BYTES:
            raise VMError("deposit with too much initcode")
        state.increment_nonce(sender)
        result = _execute(state, tx, sender, nonce, 0)
    except VMError as error:
        state.revert(checkpoint)
        state.increment_nonce(sender)
        return Outcome(False, tx.gas_limit, (), b"", str(error), _created(tx, nonce), 0, 0, nonce)
    gas_used = _charged_gas(tx, result, 0, isthmus)
    _sweep(state, result)
    return _outcome(result, gas_used, 0, 0, nonce)


def call_unpaid(state: BlockState, warm: frozenset[bytes], tx: Transaction, gas_price: int) -> Outcome:
    """Run `tx` without fees, nonce check or signature (eth_call); raises InvalidTransaction when it cannot start."""
    sender = tx.sender
    isthmus = state.environment.rules.isthmus
    least = max(tx.intrinsic_gas, tx.floor_gas) if isthmus else tx.intrinsic_gas
    if tx.gas_limit < least:
        raise InvalidTransaction(f"intrinsic gas too low: have {tx.gas_limit}, want {least}")
    if tx.to is None and len(tx.data) > INITCODE_SIZE_LIMIT_BYTES:
        raise InvalidTransaction(f"max initcode size exceeded: code size {len(tx.data)}")
    state.begin_transaction(warm)
    nonce = state.get_nonce(sender)
    state.increment_nonce(sender)
    refund = sum(_authorize(state, authorization) for authorization in tx.authorization_list)
    result = _execute(state, tx, sender, nonce, gas_price)
    return _outcome(result, _charged_gas(tx, result, refund, isthmus), gas_price, 0, None)


@dataclass(slots=True)
class _Result:
    """What the EVM left behind; `frame` is None for a plain transfer."""

    gas_left: int
    refund: int
    contract_address: bytes | None
    frame: "Frame | None"


def _created(tx: Transaction, nonce: int) -> bytes | None:
    if tx.to is not None:
        return None
    return keccak256(encode([tx.sender, minimal_bytes(nonce)]))[12:]


def _execute(state: BlockState, tx: Transaction, sender: bytes, nonce: int, price: int) -> _Result:
    """Run the call or creation of a transaction whose gas is bought and whose nonce is used."""
    warm = state.warm
    warm.add(sender)
    for address, slots in tx.access_list:
        warm.add(address)
        for slot in slots:
            warm.add((address, slot))
    gas = tx.gas_limit - tx.intrinsic_gas
    to = tx.to
    if to is None:
        return _create(state, tx, nonce, price, gas)
    warm.add(to)
    code = state.code_of(to)
    delegate = code.delegate if code is not NO_CODE and state.environment.rules.isthmus else None
    if delegate is not None:
        warm.add(delegate)
        code = state.code_of(delegate)
    if code is NO_CODE and (delegate is not None or to not in PRECOMPILE_ADDRESSES):
        _transfer(state, sender, to, tx.value)
        return _Result(gas, 0, None, None)
    from flashblocks.execution.evm import Message, TransactionContext, frame_class

    message = Message(
        gas, to, sender, tx.value, tx.data, code, code_address=delegate or to, is_delegation=delegate is not None
    )
    frame = frame_class(state.environment.rules).apply_message(state, message, TransactionContext(price, sender))
    return _Result(frame._gas_meter.gas_remaining, frame.refund if frame._error is None else 0, None, frame)


# Precompiles lie at 0x01 to 0x11 and 0x100; a call to any other address without code is a plain transfer.
PRECOMPILE_ADDRESSES = frozenset(number.to_bytes(20, "big") for number in (*range(1, 0x12), 0x100))
_SINCE_ISTHMUS = frozenset(number.to_bytes(20, "big") for number in range(0x0B, 0x12))
_SINCE_FJORD = frozenset([(0x100).to_bytes(20, "big")])


def precompile_addresses(rules: Rules) -> frozenset[bytes]:
    """The precompiles of a fork, which are warm from the start of every transaction (EIP-2929)."""
    if rules.isthmus:
        return PRECOMPILE_ADDRESSES
    return PRECOMPILE_ADDRESSES - _SINCE_ISTHMUS - (frozenset() if rules.fjord else _SINCE_FJORD)


def _transfer(state: BlockState, sender: bytes, to: bytes, value: int) -> None:
    if not value:
        state.touch_account(to)
        return
    available = state.get_balance(sender)
    if available < value:  # only a deposit gets here: a paid transaction's balance was checked
        from eth.exceptions import InsufficientFunds

        raise InsufficientFunds(f"{available} < {value}")
    state.set_balance(sender, available - value)
    state.delta_balance(to, value)


def _create(state: BlockState, tx: Transaction, nonce: int, price: int, gas: int) -> _Result:
    sender = tx.sender
    from flashblocks.execution.evm import Message, TransactionContext, frame_class

    address = _created(tx, nonce)
    assert address is not None
    state.warm.add(address)
    if state.has_code_or_nonce(address):  # EIP-684: all gas is used, nothing is created
        return _Result(0, 0, address, _failed_frame(state, tx, sender, price))
    message = Message(gas, b"", sender, tx.value, b"", Code.of(tx.data), create_address=address)
    frame = frame_class(state.environment.rules).apply_create_message(state, message, TransactionContext(price, sender))
    return _Result(frame._gas_meter.gas_remaining, frame.refund if frame._error is None else 0, address, frame)


def _failed_frame(state: BlockState, tx: Transaction, sender: bytes, price: int) -> "Frame":
    from eth.exceptions import ContractCreationCollision

    from flashblocks.execution.evm import Message, TransactionContext, frame_class

    message = Message(0, b"", sender, 0, b"", NO_CODE, create_address=sender)
    frame = frame_class(state.environment.rules)(state, message, TransactionContext(price, sender))
    frame.fail(ContractCreationCollision("contract address collision"))
    return frame


def _authorize(state: BlockState, authorization: Authorization) -> int:
    """EIP-7702: install one delegation, or skip it where anything is wrong; gives the refund in gas."""
    if authorization.chain_id not in (0, state.environment.chain_id) or authorization.nonce >= UINT64_END - 1:
        return 0
    try:
        authority = authorization.authority()
    except InvalidTransaction:
        return 0
    state.mark_address_warm(authority)
    record = state.record(authority)
    nonce, balance, code = record or EMPTY_RECORD
    if (code is not NO_CODE and code.delegate is None) or nonce != authorization.nonce:
        return 0
    cleared = authorization.address == ZERO_ADDRESS
    delegation = NO_CODE if cleared else Code.of(DELEGATION_PREFIX + authorization.address)
    state.write(authority, (nonce + 1, balance, delegation))
    return AUTHORIZATION_REFUND_GAS if record is not None else 0


def _charged_gas(tx: Transaction, result: _Result, refund: int, isthmus: bool) -> int:
    """Gas used after refunds (EIP-3529), never below the floor of EIP-7623."""
    used = tx.gas_limit - result.gas_left
    used -= min(refund + result.refund, used // REFUND_DIVISOR)
    return max(used, tx.floor_gas) if isthmus else used


def _sweep(state: BlockState, result: _Result) -> None:
    """Remove self-destructed accounts (EIP-6780) and touched empty ones (EIP-161)."""
    frame = result.frame
    if frame is not None and frame._error is None:
        for address in set(frame.accounts_to_delete):
            state.delete_account(address)
    for address in state.written_accounts():
        if state.accounts[address] == EMPTY_RECORD:
            state.delete_account(address)


def _outcome(result: _Result, gas_used: int, price: int, data_fee: int, deposit_nonce: int | None) -> Outcome:
    frame = result.frame
    if frame is None:
        return Outcome(True, gas_used, (), b"", None, None, price, data_fee, deposit_nonce)
    error = frame._error
    logs = () if error is not None else _logs(frame)
    return Outcome(
        error is None,
        gas_used,
        logs,
        frame._output,
        None if error is None else error_text(error),
        result.contract_address,
        price,
        data_fee,
        deposit_nonce,
    )


def _logs(frame: "Frame") -> tuple[Log, ...]:
    return tuple(
        [
            Log(address, tuple([topic.to_bytes(32, "big") for topic in topics]), data)
            for address, topics, data in frame._log_entries
        ]
    )


_ERROR_TEXTS = {
    "Revert": "execution reverted",
    "OutOfGas": "out of gas",
    "InvalidInstruction": "invalid opcode",
    "InvalidJumpDestination": "invalid jump destination",
    "InsufficientStack": "stack underflow",
    "FullStack": "stack limit reached 1024 (1023)",
    "WriteProtection": "write protection",
    "OutOfBoundsRead": "return data out of bounds",
    "ContractCreationCollision": "contract address collision",
    "ReservedBytesInCode": "invalid code: must not begin with 0xef",
    "InsufficientFunds": "insufficient balance for transfer",
}


def error_text(error: Exception) -> str:
    """geth's words for why an execution failed."""
    return _ERROR_TEXTS.get(type(error).__name__, str(error))
