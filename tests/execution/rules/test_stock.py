"""Our engine and OP's rules on unchanged py-evm build the same blocks, in every fork, seal by seal."""

import random
from pathlib import Path
from typing import Any

import msgspec
import pytest
from eth_utils import ValidationError
from trie import HexaryTrie

from flashblocks.execution import ChainSpec, InvalidTransaction, OpenBlock, WorldState, trie
from flashblocks.execution.accounts import TEST_ACCOUNTS
from flashblocks.execution.assembler import assemble
from flashblocks.execution.code import Code
from flashblocks.execution.replay import replay_file
from flashblocks.execution.rlp import encode_uint
from flashblocks.execution.signing import sign_authorization
from flashblocks.execution.state import Account
from flashblocks.execution.stock import StockBlock

STRANGER = b"\x77" * 20
COUNTER = b"\x78" * 20
NO_HOLOCENE = {"holocene_time": None, "isthmus_time": None}
FORKS: dict[str, dict[str, Any]] = {
    "ecotone": {"fjord_time": None, "granite_time": None, **NO_HOLOCENE},
    "fjord": {"granite_time": None, **NO_HOLOCENE},
    "granite": NO_HOLOCENE,
    "holocene": {"isthmus_time": None},
    "isthmus": {"isthmus_time": 0},
    "jovian": {"isthmus_time": 0, "jovian_time": 0},
}


def nodes_of(state: WorldState) -> dict[bytes, bytes]:
    """The state as a database of trie nodes and codes, built by py-trie."""
    nodes: dict[bytes, bytes] = {}
    accounts = HexaryTrie(nodes)
    for key, account in trie.items(state.node):
        assert isinstance(account, Account)
        storage = HexaryTrie(nodes)
        for slot, value in trie.items(account.storage):
            storage[bytes.fromhex(slot)] = encode_uint(value)  # type: ignore[arg-type]
        accounts[bytes.fromhex(key)] = account.rlp()
        nodes[account.code.hash] = account.code.raw
    assert accounts.root_hash == state.root
    return nodes


def random_transaction(chain: Any, chance: random.Random, index: int, set_code: bool) -> bytes:
    sender = chance.randrange(1, 9)
    wallet = TEST_ACCOUNTS[chance.randrange(10)]
    kind = chance.randrange(10)
    gas = chance.choice([21_000, 30_000, 60_000, 250_000])
    fields: dict[str, Any] = {"gas_limit": gas, "value": chance.choice([0, 0, 1, 10**15])}
    if kind == 0:
        data = assemble(chance.choice(["push0 push0 revert", "7 3 sstore stop", "x: @x jump", "32 push0 return"]))
        return chain.send(sender, None, data=data, **fields)  # type: ignore[no-any-return]
    if kind == 1 and set_code:
        authorizations = [
            sign_authorization(
                TEST_ACCOUNTS[chance.randrange(10)].private_key,
                chance.choice([0, 901, 902]),
                chance.choice([COUNTER, STRANGER, bytes(20), bytes(19) + b"\4"]),
                chance.randrange(4),
            )
            for _ in range(chance.randrange(1, 4))
        ]
        fields["gas_limit"] = 200_000
        return chain.send(sender, wallet.address, kind=4, authorization_list=authorizations, **fields)  # type: ignore
    if kind in (2, 3):
        deposit = {"mint": chance.randrange(10**16), "value": chance.randrange(2 * 10**16), "gas": gas}
        to = chance.choice([None, STRANGER, COUNTER, wallet.address])
        return chain.deposit(chance.randbytes(20), to, index, data=chance.randbytes(chance.randrange(40)), **deposit)  # type: ignore
    if kind == 4:
        data = b"\1" * chance.randrange(900)
        return chain.send(sender, chance.choice([COUNTER, STRANGER]), data=data, **fields)  # type: ignore[no-any-return]
    if kind == 5:
        entries = ((COUNTER, (0, 5)), (STRANGER, ()))
        return chain.send(sender, COUNTER, access_list=entries, kind=chance.choice([1, 2]), **fields)  # type: ignore
    if kind == 6:  # often invalid
        nonce = chain.nonces.get(sender, 0) + chance.choice([-1, 1])
        return chain.send(sender, STRANGER, nonce=max(nonce, 0), **fields)  # type: ignore[no-any-return]
    to = chance.choice([wallet.address, COUNTER, chance.randbytes(20), bytes(19) + bytes([chance.randrange(1, 11)])])
    return chain.send(sender, to, kind=chance.choice([0, 1, 2]), **fields)  # type: ignore[no-any-return]


def to_fork(chain: Any, fork: str) -> None:
    """Make the next block of `chain` one of `fork`."""
    extra = {"jovian": b"\1" + chain.head.extra_data[1:] + bytes(8)}.get(fork, chain.head.extra_data)
    if "holocene_time" in FORKS[fork]:
        extra = b""
    chain.head = msgspec.structs.replace(chain.head, extra_data=extra)
    chain.spec = ChainSpec(chain_id=901, **FORKS[fork])


def compare(new_chain: Any, fork: str, seed: int, count: int) -> None:
    counter = assemble("push0 sload 1 add dup1 push0 sstore dup1 push0 mstore 0xabcd 32 push0 log1 callvalue pop stop")
    chain = new_chain({COUNTER: Account(1, 0, Code.of(counter), None)})
    to_fork(chain, fork)
    chance = random.Random(seed)
    attributes = chain.attributes()
    fast = OpenBlock.start(chain.spec, chain.head, chain.state, attributes)
    stock = StockBlock(chain.spec, chain.head, nodes_of(chain.state), attributes)
    accepted = 0
    for index in range(count):
        set_code = chain.spec.isthmus_time is not None
        raw = chain.l1_deposit() if index == 0 else random_transaction(chain, chance, index, set_code)
        try:
            receipt = fast.append(raw)
        except InvalidTransaction:
            with pytest.raises(ValidationError):
                stock.append(raw)
            if raw[0] != 0x7E:
                chain.nonces.update({n: fast.state.get_nonce(TEST_ACCOUNTS[n].address) for n in range(10)})
            continue
        accepted += 1
        assert receipt.consensus_rlp() == stock.append(raw).encode()
        if index % 10 == 0:
            assert fast.seal().header == stock.seal()
    assert accepted > count // 3
    assert fast.seal().header == stock.seal()


@pytest.mark.parametrize("fork", list(FORKS))
@pytest.mark.parametrize("seed", range(1))
def test_same_blocks(new_chain: Any, fork: str, seed: int) -> None:
    compare(new_chain, fork, seed, 60)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("fork", list(FORKS))
def test_same_blocks_long(new_chain: Any, fork: str) -> None:
    for seed in range(100, 130):
        compare(new_chain, fork, seed, 150)


def test_a_real_block_on_the_stock_engine(vectors: list[Path]) -> None:
    assert replay_file(vectors[0], 10, "stock").hash_match
