"""`eth_simulateV1`: blocks of calls that never were, on top of a block that is, each seeing what those before it did.

The base may be the pending block, so a wallet can show what a transaction will do after everything preconfirmed.
Calls need no signature, and no nonce or fee either unless `validation` is asked for. With `traceTransfers` movements of
ETH appear among the logs of a call as those of a token at 0xeeee…, but not in what the block's header commits to.
"""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from flashblocks.execution.block_state import BlockState, Environment
from flashblocks.execution.calls import GAS_CAP_DEFAULT, AccountOverride, apply_overrides
from flashblocks.execution.chain_spec import ChainSpec
from flashblocks.execution.errors import InvalidTransaction
from flashblocks.execution.evm import TRANSFER_ADDRESS, TRANSFER_TOPIC
from flashblocks.execution.fees import MESSAGE_PASSER, next_base_fee
from flashblocks.execution.header import EMPTY_REQUESTS_HASH, Header
from flashblocks.execution.open_block import NO_L1_PARAMETERS
from flashblocks.execution.receipt import Log, Receipt, bloom_bits
from flashblocks.execution.reverts import revert_error
from flashblocks.execution.rlp import RlpItem, encode, minimal_bytes
from flashblocks.execution.rpc_arguments import call_arguments, header_overrides, overrides
from flashblocks.execution.rpc_shapes import block_json, block_receipts_json
from flashblocks.execution.state import WorldState
from flashblocks.execution.system_calls import begin_block
from flashblocks.execution.transact import Outcome, apply_transaction, call_unpaid, precompile_addresses
from flashblocks.execution.transaction import Transaction, unsigned_transaction
from flashblocks.execution.trie import ordered_root
from flashblocks.wire.hexadecimal import WireError, data, to_int
from flashblocks.wire.jsonrpc import EXECUTION_REVERTED, INVALID_PARAMS, RpcError

BLOCKS_MAX = 256
CALLS_MAX = 1_000
BLOCK_TIME_S = 2

INSUFFICIENT_FUNDS, INTRINSIC_GAS, BLOCK_GAS_LIMIT = -38014, -38013, -38015
NUMBERS_NOT_ASCENDING, TIMES_NOT_ASCENDING, TOO_MANY = -38020, -38021, -38026
VM_ERROR = -32015
INVALID_CALLS = {  # the codes of execution-apis for what a call with `validation` may lack, by the texts of the rules
    "nonce too low": -38010,
    "nonce too high": -38011,
    "max fee per gas less than block base fee": -38012,
    "intrinsic gas too low": INTRINSIC_GAS,
    "insufficient gas for floor data": INTRINSIC_GAS,
    "insufficient funds": INSUFFICIENT_FUNDS,
    "gas limit reached": BLOCK_GAS_LIMIT,
    "sender not an eoa": -38024,
    "max initcode size exceeded": -38025,
}


class SimulatedCall(msgspec.Struct, frozen=True):
    """One call: the arguments of `calls.call`, and what only counts with `validation` (wei per gas)."""

    arguments: dict[str, Any]
    nonce: int | None
    max_fee: int
    max_tip: int


class SimulatedBlock(msgspec.Struct, frozen=True):
    """One block to simulate: what differs from the rules of its parent, and its calls."""

    header: dict[str, Any]
    accounts: dict[bytes, AccountOverride]
    calls: tuple[SimulatedCall, ...]


class Simulation(msgspec.Struct, frozen=True):
    """Everything of one request."""

    blocks: tuple[SimulatedBlock, ...]
    full_transactions: bool = False
    validation: bool = False
    trace_transfers: bool = False


def read_simulation(obj: Any) -> Simulation:
    """Read the first parameter; raises WireError or RpcError."""
    if not isinstance(obj, dict) or not isinstance(obj.get("blockStateCalls"), list) or not obj["blockStateCalls"]:
        raise RpcError(INVALID_PARAMS, "empty input")
    blocks = tuple(_read_block(each) for each in obj["blockStateCalls"])
    if len(blocks) > BLOCKS_MAX or sum(len(block.calls) for block in blocks) > CALLS_MAX:
        raise RpcError(TOO_MANY, "too many blocks or calls")
    flags = (bool(obj.get(name)) for name in ("returnFullTransactions", "validation", "traceTransfers"))
    return Simulation(blocks, *flags)


def _read_block(obj: Any) -> SimulatedBlock:
    if not isinstance(obj, dict):
        raise WireError("blockStateCalls: expected objects")
    calls = obj.get("calls") or []
    if not isinstance(calls, list):
        raise WireError("calls: expected an array")
    return SimulatedBlock(
        header_overrides(obj.get("blockOverrides")),
        overrides(obj.get("stateOverrides")) or {},
        tuple(_read_call(call) for call in calls),
    )


def _read_call(obj: Any) -> SimulatedCall:
    arguments = call_arguments(obj)
    max_fee = arguments.pop("gas_price", 0)
    tip = obj.get("maxPriorityFeePerGas", obj.get("gasPrice"))
    nonce = obj.get("nonce")
    return SimulatedCall(
        arguments,
        None if nonce is None else to_int(nonce, "nonce"),
        max_fee,
        0 if tip is None else to_int(tip, "maxPriorityFeePerGas"),
    )


def simulate(
    spec: ChainSpec,
    base: Header,
    state: WorldState,
    simulation: Simulation,
    block_hashes: Callable[[int], bytes | None],
) -> list[dict[str, Any]]:
    """The blocks that would follow `base`, as JSON; raises RpcError when one of them cannot be."""
    known: dict[int, bytes] = {base.number: base.hash}
    answers: list[dict[str, Any]] = []
    parent, gas_left = base, GAS_CAP_DEFAULT
    for block in _without_holes(base.number, simulation.blocks):
        header = _header_after(parent, block.header, spec, simulation.validation)
        working = BlockState(state, Environment.of(spec, header, lambda n: known.get(n) or block_hashes(n)))
        begin_block(working, header.parent_hash, header.parent_beacon_root)
        apply_overrides(working, block.accounts)
        working.shows_transfers = simulation.trace_transfers
        ran = _run_calls(spec, working, header, block.calls, gas_left, simulation.validation)
        state = working.world()
        transactions, receipts = [tx for tx, _, _ in ran], [receipt for _, receipt, _ in ran]
        header = _sealed(header, state, transactions, receipts)
        gas_left -= header.gas_used
        known[header.number] = header.hash
        answers.append(_answer(header, ran, simulation.full_transactions))
        parent = header
    return answers


def _without_holes(number: int, blocks: Sequence[SimulatedBlock]) -> list[SimulatedBlock]:
    """The blocks after `number`, with empty ones before each whose own number leaves some out."""
    whole: list[SimulatedBlock] = []
    for block in blocks:
        wanted = block.header.get("number", number + 1)
        if wanted <= number:
            raise RpcError(NUMBERS_NOT_ASCENDING, f"block numbers must be in order: {wanted} <= {number}")
        if len(whole) + wanted - number > BLOCKS_MAX:
            raise RpcError(TOO_MANY, "too many blocks")
        whole += [SimulatedBlock({}, {}, ())] * (wanted - number - 1) + [block]
        number = wanted
    return whole


def _header_after(parent: Header, changed: dict[str, Any], spec: ChainSpec, validation: bool) -> Header:
    fields: dict[str, Any] = {
        "number": parent.number + 1,
        "timestamp": parent.timestamp + BLOCK_TIME_S,
        "base_fee_per_gas": next_base_fee(spec, parent) if validation else 0,
        "gas_limit": parent.gas_limit,
        "fee_recipient": parent.fee_recipient,
        **changed,
    }
    if fields["timestamp"] <= parent.timestamp:
        text = f"block timestamps must be in order: {fields['timestamp']} <= {parent.timestamp}"
        raise RpcError(TIMES_NOT_ASCENDING, text)
    return Header(
        parent_hash=parent.hash,
        state_root=parent.state_root,
        extra_data=parent.extra_data,
        requests_hash=EMPTY_REQUESTS_HASH if spec.is_isthmus(fields["timestamp"]) else None,
        **fields,
    )


Ran = list[tuple[Transaction, Receipt, Outcome]]


def _run_calls(
    spec: ChainSpec,
    working: BlockState,
    header: Header,
    calls: Sequence[SimulatedCall],
    gas_left: int,
    validation: bool,
) -> Ran:
    ran: Ran = []
    used = 0
    warm = precompile_addresses(working.environment.rules) | {header.fee_recipient}
    for call in calls:
        room = min(header.gas_limit, gas_left) - used
        gas = call.arguments.get("gas", room)
        if gas > header.gas_limit - used:
            raise RpcError(BLOCK_GAS_LIMIT, f"block gas limit reached: {gas} > {header.gas_limit - used}")
        tx = _transaction(spec, working, call, min(gas, room), validation)
        outcome = _run_valid(working, warm, tx, room) if validation else _run_unpaid(working, warm, tx)
        working.end_transaction()
        if working.shows_transfers and outcome.success and tx.value and not outcome.logs and tx.to is not None:
            # A plain transfer runs no code, so there was no frame to note it.
            outcome.logs = (_transfer_log(tx.sender, tx.to, tx.value),)
        used += outcome.gas_used
        ran.append((tx, _receipt(tx, outcome, used), outcome))
    return ran


def _run_valid(working: BlockState, warm: frozenset[bytes], tx: Transaction, room: int) -> Outcome:
    try:
        return apply_transaction(working, warm, tx, NO_L1_PARAMETERS, room)
    except InvalidTransaction as error:
        codes = (code for text, code in INVALID_CALLS.items() if str(error).startswith(text))
        raise RpcError(next(codes, INVALID_PARAMS), str(error)) from None


def _run_unpaid(working: BlockState, warm: frozenset[bytes], tx: Transaction) -> Outcome:
    need, have = tx.value, working.get_balance(tx.sender)
    if have < need:
        text = f"insufficient funds for gas * price + value: address {data(tx.sender)} have {have} want {need}"
        raise RpcError(INSUFFICIENT_FUNDS, text)
    try:
        return call_unpaid(working, warm, tx, 0)
    except InvalidTransaction as error:
        raise RpcError(INTRINSIC_GAS, str(error)) from None


def _transfer_log(sender: bytes, to: bytes, value: int) -> Log:
    topics = TRANSFER_TOPIC.to_bytes(32, "big"), sender.rjust(32, b"\0"), to.rjust(32, b"\0")
    return Log(TRANSFER_ADDRESS, topics, value.to_bytes(32, "big"))


def _receipt(tx: Transaction, outcome: Outcome, used: int) -> Receipt:
    logs = tuple(log for log in outcome.logs if log.address != TRANSFER_ADDRESS)
    return Receipt(
        type=tx.type,
        status=int(outcome.success),
        cumulative_gas_used=used,
        gas_used=outcome.gas_used,
        logs=logs,
        bloom=bloom_bits(logs).to_bytes(256, "big"),
        tx_hash=tx.hash,
        contract_address=outcome.contract_address,
    )


def _transaction(spec: ChainSpec, working: BlockState, call: SimulatedCall, gas: int, validation: bool) -> Transaction:
    """The call as a type-2 transaction with an empty signature, so that it has a hash and a place in the block."""
    arguments = call.arguments
    tx = unsigned_transaction(
        sender=arguments.get("sender", bytes(20)),
        to=arguments.get("to"),
        data=arguments.get("data", b""),
        value=arguments.get("value", 0),
        gas_limit=gas,
        access_list=arguments.get("access_list", ()),
        authorizations=arguments.get("authorization_list", ()),
    )
    tx.nonce = working.get_nonce(tx.sender) if call.nonce is None else call.nonce
    if validation:
        tx.max_fee_per_gas, tx.max_priority_fee_per_gas = call.max_fee, call.max_tip
    access: list[RlpItem] = [[who, [slot.to_bytes(32, "big") for slot in slots]] for who, slots in tx.access_list]
    numbers: list[RlpItem] = [
        minimal_bytes(each) for each in (spec.chain_id, tx.nonce, tx.max_priority_fee_per_gas, tx.max_fee_per_gas, gas)
    ]
    tail: list[RlpItem] = [tx.to or b"", minimal_bytes(tx.value), tx.data, access, b"", b"", b""]
    tx.raw = bytes((tx.type,)) + encode([*numbers, *tail])
    return tx


def _sealed(header: Header, state: WorldState, transactions: list[Transaction], receipts: list[Receipt]) -> Header:
    bloom = 0
    for receipt in receipts:
        bloom |= int.from_bytes(receipt.bloom, "big")
    return msgspec.structs.replace(
        header,
        state_root=state.root,
        transactions_root=ordered_root([tx.raw for tx in transactions]),
        receipts_root=ordered_root([receipt.consensus_rlp() for receipt in receipts]),
        logs_bloom=bloom.to_bytes(256, "big"),
        gas_used=receipts[-1].cumulative_gas_used if receipts else 0,
        withdrawals_root=state.storage_root(MESSAGE_PASSER),
    )


def _answer(header: Header, ran: Ran, full: bool) -> dict[str, Any]:
    transactions, receipts = [tx for tx, _, _ in ran], [receipt for _, receipt, _ in ran]
    # Shown are all logs of a call, those of transfers too; they are numbered through.
    shown = [msgspec.structs.replace(receipt, logs=outcome.logs) for _, receipt, outcome in ran]
    calls = []
    for (_, _, outcome), receipt in zip(ran, block_receipts_json(header, transactions, shown), strict=True):
        call = {
            "returnData": data(outcome.output if outcome.success else b""),
            "logs": receipt["logs"],
            "gasUsed": receipt["gasUsed"],
            "status": receipt["status"],
        }
        if outcome.error is not None:
            error = revert_error(outcome.error, outcome.output)
            code = error.code if error.code == EXECUTION_REVERTED else VM_ERROR
            call["error"] = RpcError(code, error.message, error.data).to_json()
        calls.append(call)
    return block_json(header, transactions, receipts, full=full) | {"calls": calls}
