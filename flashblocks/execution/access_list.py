"""Which accounts and slots a message touches: what eth_createAccessList answers (EIP-2930)."""

from collections.abc import Callable
from typing import Any

import msgspec

from flashblocks.execution.block_state import BlockHashes, BlockState, Environment
from flashblocks.execution.calls import Overrides, call
from flashblocks.execution.chain_spec import ChainSpec
from flashblocks.execution.header import Header
from flashblocks.execution.keccak import keccak256
from flashblocks.execution.rlp import encode, minimal_bytes
from flashblocks.execution.state import WorldState
from flashblocks.execution.transact import precompile_addresses
from flashblocks.execution.transaction import AccessList

ROUNDS_MAX = 16  # a list changes what the message costs, so a message that looks at its gas may touch other things


class CreatedAccessList(msgspec.Struct, frozen=True):
    """The list, the gas the message uses with it, and why the message failed, if it did."""

    access_list: AccessList
    gas_used: int
    error: str | None


class _Warm(set[Any]):
    """A warm set that remembers in order what was ever added, also by frames that were undone."""

    def __init__(self, initial: frozenset[bytes]) -> None:
        super().__init__(initial)
        self.touched: dict[Any, None] = {}

    def add(self, place: Any) -> None:
        super().add(place)
        self.touched[place] = None

    def __setitem__(self, place: Any, _: None) -> None:
        """How the journal undoes a write to what is not a plain set."""
        self.discard(place)


class _Recorder(BlockState):
    """A block state that keeps such a set."""

    def begin_transaction(self, warm: frozenset[bytes]) -> None:
        super().begin_transaction(warm)
        self.warm = self.recorded = _Warm(warm)


def create_access_list(
    spec: ChainSpec,
    header: Header,
    state: WorldState,
    *,
    sender: bytes = bytes(20),
    to: bytes | None = None,
    access_list: AccessList = (),
    overrides: Overrides | None = None,
    block_hashes: BlockHashes | None = None,
    deadline: float | None = None,
    clock: Callable[[], float] | None = None,
    **message: Any,
) -> CreatedAccessList:
    """Run a message (arguments as for `calls.call`) until the list of what it touches does not change any more.

    As in geth, sender, callee and precompiles are named only with slots, as they are warm anyway. Raises what `call`
    raises.
    """
    made = to if to is not None else _creation_address(sender, state)
    left_out = precompile_addresses(spec.rules(header.timestamp)) | {sender, made}
    for _ in range(ROUNDS_MAX):
        recorders: list[_Recorder] = []

        def journal(base: WorldState, environment: Environment, made: list[_Recorder] = recorders) -> BlockState:
            made.append(_Recorder(base, environment))
            return made[0]

        result = call(
            spec,
            header,
            state,
            sender=sender,
            to=to,
            access_list=access_list,
            overrides=overrides,
            block_hashes=block_hashes,
            deadline=deadline,
            clock=clock,
            journal=journal,
            **message,
        )
        found = _list_of(recorders[0].recorded.touched, left_out)
        if found == access_list:
            break
        access_list = found
    return CreatedAccessList(access_list, result.gas_used, result.error)


def _list_of(touched: dict[Any, None], left_out: frozenset[bytes]) -> AccessList:
    """Addresses in the order of their bytes, each with its slots in order."""
    slots: dict[bytes, list[int]] = {}
    for place in touched:
        if isinstance(place, tuple):
            slots.setdefault(place[0], []).append(place[1])
        elif place not in left_out:
            slots.setdefault(place, [])
    return tuple((address, tuple(sorted(slots[address]))) for address in sorted(slots))


def _creation_address(sender: bytes, state: WorldState) -> bytes:
    return keccak256(encode([sender, minimal_bytes(state.nonce(sender))]))[12:]
