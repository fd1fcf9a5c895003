"""State handles: old ones stay, differences rebuild the next, snapshots rebuild everything, dropped ones are freed."""

import gc
import itertools
import weakref
from typing import Any

import pytest

from flashblocks.execution import ExecutionError, StateDiff, WorldState
from flashblocks.execution.assembler import assemble
from flashblocks.execution.code import NO_CODE, Code
from flashblocks.execution.keccak import hashed_address
from flashblocks.execution.state import Account

CONTRACT = b"\x61" * 20


def next_state(chain: Any, seed: int) -> WorldState:
    block = chain.open()
    data = assemble(f"{seed} sload pop {seed + 1} {seed} sstore 0x60006000 push0 mstore 4 28 return")
    block.append(chain.send(1, None, data=data, gas_limit=300_000))
    block.append(chain.send(2, bytes([seed + 1]) * 20, value=seed + 1))
    sealed = block.seal()
    chain.advance(sealed)
    state: WorldState = sealed.state
    return state


def test_a_chain_of_differences_rebuilds_every_state(chain: Any) -> None:
    states = [chain.state]
    for seed in range(5):
        states.append(next_state(chain, seed))
    rebuilt = WorldState().apply_diff(StateDiff.from_bytes(states[0].diff(WorldState()).to_bytes()))
    for before, after in itertools.pairwise(states):
        diff = StateDiff.from_bytes(after.diff(before).to_bytes())
        assert len(diff.accounts) < 16
        rebuilt = rebuilt.apply_diff(diff)
        assert rebuilt.root == after.root
        assert before.apply_diff(after.diff(before)).root == after.root
    whole = WorldState().apply_diff(states[-1].diff(WorldState()))
    assert whole.root == states[-1].root
    back = states[-1].apply_diff(states[0].diff(states[-1]))
    assert back.root == states[0].root


def test_a_difference_that_does_not_fit_is_refused(chain: Any) -> None:
    first = chain.state
    second = next_state(chain, 1)
    diff = second.diff(first)
    with pytest.raises(ExecutionError, match="starts at"):
        second.apply_diff(diff)
    wrong = StateDiff(diff.parent_root, b"\1" * 32, diff.accounts, diff.codes)
    with pytest.raises(ExecutionError, match="leads to"):
        first.apply_diff(wrong)
    with pytest.raises(ExecutionError, match="lacks the code"):
        first.apply_diff(StateDiff(diff.parent_root, diff.root, diff.accounts, {}))
    with pytest.raises(ExecutionError, match="state diff"):
        StateDiff.from_bytes(b"\x93\x01\x02")


def test_reading_a_state(chain: Any, wallets: list[bytes]) -> None:
    state = chain.state
    assert state.balance(wallets[0]) == 10_000 * 10**18
    assert (state.nonce(wallets[0]), state.code(wallets[0])) == (0, b"")
    nobody = b"\xee" * 20
    assert (state.balance(nobody), state.nonce(nobody), state.code(nobody), state.storage(nobody, 1)) == (0, 0, b"", 0)
    assert state.storage_root(nobody) == WorldState().root


def test_changed_accounts(chain: Any, wallets: list[bytes]) -> None:
    before = chain.state
    after = next_state(chain, 3)
    assert after.changed_accounts_since(before, wallets) == [wallets[1], wallets[2]]


def test_equal_code_is_one_object_and_is_freed_with_its_last_user() -> None:
    raw = bytes(range(200)) * 3
    code = Code.of(raw)
    assert Code.of(bytes(raw)) is code
    assert Code.deferred(code.hash, lambda _: raw) is code
    state = WorldState().with_accounts({hashed_address(CONTRACT): Account(1, 0, code, None)})
    gone = weakref.ref(code)
    del code
    gc.collect()
    assert gone() is not None
    state = WorldState()
    gc.collect()
    assert gone() is None
    assert state.account(CONTRACT) is None
    assert Code.of(b"") is NO_CODE


def test_dropped_states_are_freed(chain: Any) -> None:
    from flashblocks.execution.trie import Branch

    def branches() -> int:
        gc.collect()
        return sum(isinstance(thing, Branch) for thing in gc.get_objects())

    parent = chain.head, chain.state, dict(chain.nonces)
    before = branches()
    for seed in range(10):
        next_state(chain, seed)
        chain.head, chain.state, chain.nonces = parent[0], parent[1], dict(parent[2])
    assert branches() == before
