"""Execution without a block: what eth_call and eth_estimateGas run on the environment of a header."""

from collections.abc import Callable, Mapping, Sequence

import msgspec

from flashblocks.execution.block_state import BlockHashes, BlockState, Environment
from flashblocks.execution.chain_spec import ChainSpec
from flashblocks.execution.code import Code
from flashblocks.execution.errors import CallReverted, InvalidTransaction
from flashblocks.execution.header import Header
from flashblocks.execution.journal import EMPTY_RECORD
from flashblocks.execution.receipt import Log
from flashblocks.execution.state import WorldState
from flashblocks.execution.transact import call_unpaid, precompile_addresses
from flashblocks.execution.transaction import AccessList, Authorization, gas_bounds, unsigned_transaction

GAS_CAP_DEFAULT = 50_000_000  # geth's --rpc.gascap
ESTIMATE_ERROR_RATIO = 0.015  # geth's: stop when the bounds are this close
CALL_STIPEND_GAS = 2_300


class AccountOverride(msgspec.Struct, frozen=True):
    """What a call pretends about one account. `state` replaces the whole storage, `state_diff` single slots."""

    balance: int | None = None
    nonce: int | None = None
    code: bytes | None = None
    state: Mapping[int, int] | None = None
    state_diff: Mapping[int, int] | None = None


Overrides = Mapping[bytes, AccountOverride]


class CallResult(msgspec.Struct, frozen=True):
    """The result of a call. `gas_used` includes the intrinsic gas and is after refunds."""

    output: bytes
    gas_used: int
    error: str | None  # geth's words, None for success
    revert_data: bytes
    logs: tuple[Log, ...]


def call(
    spec: ChainSpec,
    header: Header,
    state: WorldState,
    *,
    sender: bytes = bytes(20),
    to: bytes | None = None,
    data: bytes = b"",
    value: int = 0,
    gas: int | None = None,
    gas_price: int = 0,
    access_list: AccessList = (),
    authorization_list: Sequence[Authorization] = (),
    overrides: Overrides | None = None,
    block_hashes: BlockHashes | None = None,
    deadline: float | None = None,
    clock: Callable[[], float] | None = None,
    journal: Callable[[WorldState, Environment], BlockState] = BlockState,
) -> CallResult:
    """Run a message on `state` as if in the block of `header`; nothing is kept. `to` None runs `data` as initcode.

    The sender needs no nonce, no key and no fee; with a `gas_price` it must be able to pay for `gas`. As in geth, the
    base fee reads as 0 while the gas price is 0. Raises InvalidTransaction when the message cannot start at all, and
    OutOfTime when it still runs at `deadline` (in the time of `clock`). `journal` makes what the message runs on.
    """
    environment = Environment.of(spec, header, block_hashes)
    if gas_price == 0:
        environment = msgspec.structs.replace(environment, base_fee=0)
    working = journal(state, environment)
    working.deadline, working.clock = deadline, clock
    apply_overrides(working, overrides or {})
    if gas is None:
        gas = min(header.gas_limit, GAS_CAP_DEFAULT)
    need = gas * gas_price + value
    have = working.get_balance(sender)
    if have < need:
        raise InvalidTransaction(
            f"insufficient funds for gas * price + value: address 0x{sender.hex()} have {have} want {need}"
        )
    tx = unsigned_transaction(
        sender=sender,
        to=to,
        data=data,
        value=value,
        gas_limit=gas,
        access_list=access_list,
        authorizations=tuple(authorization_list),
    )
    warm = precompile_addresses(environment.rules) | {header.fee_recipient}
    outcome = call_unpaid(working, warm, tx, gas_price)
    return CallResult(
        outcome.output if outcome.success else b"",
        outcome.gas_used,
        outcome.error,
        b"" if outcome.success else outcome.output,
        outcome.logs,
    )


def estimate_gas(
    spec: ChainSpec,
    header: Header,
    state: WorldState,
    *,
    sender: bytes = bytes(20),
    to: bytes | None = None,
    data: bytes = b"",
    value: int = 0,
    gas: int | None = None,
    gas_price: int = 0,
    access_list: AccessList = (),
    authorization_list: Sequence[Authorization] = (),
    overrides: Overrides | None = None,
    block_hashes: BlockHashes | None = None,
    deadline: float | None = None,
    clock: Callable[[], float] | None = None,
) -> int:
    """The gas limit with which the message succeeds, found by bisection as geth finds it (within 1.5 %).

    Raises CallReverted when it fails at any limit (with the revert data), InvalidTransaction when it cannot start,
    OutOfTime when all attempts together take longer than until `deadline`.
    """
    highest = min(header.gas_limit, GAS_CAP_DEFAULT) if gas is None else min(gas, header.gas_limit)
    if gas_price:
        affordable = (_balance(state, sender, overrides) - value) // gas_price
        if affordable < 0:
            raise InvalidTransaction("insufficient funds for transfer")
        highest = min(highest, affordable)

    def attempt(limit: int) -> CallResult:
        return call(
            spec,
            header,
            state,
            sender=sender,
            to=to,
            data=data,
            value=value,
            gas=limit,
            access_list=access_list,
            authorization_list=authorization_list,
            overrides=overrides,
            block_hashes=block_hashes,
            deadline=deadline,
            clock=clock,
        )

    first = attempt(highest)
    if first.error is not None:
        if first.error == "out of gas":
            raise CallReverted(f"gas required exceeds allowance ({highest})")
        raise CallReverted(first.error, first.revert_data)
    intrinsic, floor = gas_bounds(data, to is None, access_list, len(authorization_list))
    lowest = max(intrinsic, floor if spec.is_isthmus(header.timestamp) else 0, first.gas_used) - 1
    # Most calls need just what they use, or little more: a sixty-fourth held back by EIP-150, a stipend.
    if lowest + 1 < highest and attempt(lowest + 1).error is None:
        return lowest + 1
    guess = (first.gas_used + CALL_STIPEND_GAS) * 64 // 63
    if lowest < guess < highest:
        if attempt(guess).error is None:
            highest = guess
        else:
            lowest = guess
    while lowest + 1 < highest:
        if (highest - lowest) / highest < ESTIMATE_ERROR_RATIO:
            break
        middle = min((highest + lowest) // 2, lowest * 2)
        if attempt(middle).error is None:
            highest = middle
        else:
            lowest = middle
    return highest


def apply_overrides(state: BlockState, overrides: Overrides) -> None:
    """Write `overrides` over the state (the argument of the same name of eth_call)."""
    for address, override in overrides.items():
        nonce, balance, code = state.record(address) or EMPTY_RECORD
        state.write(
            address,
            (
                nonce if override.nonce is None else override.nonce,
                balance if override.balance is None else override.balance,
                code if override.code is None else Code.of(override.code),
            ),
        )
        if override.state is not None:
            state.replace_storage(address, dict(override.state))
        for slot, value in (override.state_diff or {}).items():
            state.set_storage(address, slot, value)


def _balance(state: WorldState, address: bytes, overrides: Overrides | None) -> int:
    override = (overrides or {}).get(address)
    return state.balance(address) if override is None or override.balance is None else override.balance
