"""eth_getProof: what it proves is checked with py-trie, which knows nothing of our tries."""

import random

import pytest
import rlp
from trie import HexaryTrie

from flashblocks.execution.code import NO_CODE, Code
from flashblocks.execution.keccak import hashed_address, hashed_slot, keccak256
from flashblocks.execution.proofs import account_proof
from flashblocks.execution.state import Account, WorldState
from flashblocks.execution.trie import EMPTY_ROOT, update
from tests.execution.rules.test_stock import nodes_of

HOLDER, EMPTY, NOBODY = b"\x01" * 20, b"\x02" * 20, b"\x03" * 20


def world(accounts: int, slots: int) -> WorldState:
    chance = random.Random(accounts * 1_000 + slots)
    storage = update(
        None, {hashed_slot(slot): chance.getrandbits(8 * chance.randrange(1, 33)) for slot in range(slots)}
    )
    entries = {hashed_address(chance.randbytes(20)): Account(n, n, NO_CODE, None) for n in range(1, accounts)}
    entries[hashed_address(HOLDER)] = Account(7, 10**18, Code.of(b"\x60\x01"), storage)
    entries[hashed_address(EMPTY)] = Account(1, 0, NO_CODE, None)
    return WorldState().with_accounts(entries)


def proved(root: bytes, key: bytes, proof: list[str]) -> bytes:
    """What a stranger concludes from the root and the proof; raises BadTrieProof."""
    nodes = [rlp.decode(bytes.fromhex(node[2:])) for node in proof]
    return bytes(HexaryTrie.get_from_proof(root, keccak256(key), nodes)) if nodes else b""


@pytest.mark.parametrize("accounts", [1, 2, 17, 400])
@pytest.mark.parametrize("slots", [0, 1, 2, 40])
def test_a_stranger_believes_it(accounts: int, slots: int) -> None:
    state = world(accounts, slots)
    for state_form in (state, WorldState.from_witness(state.root, nodes_of(state))):
        keys = [(hex(slot), slot) for slot in range(slots + 3)]
        for address in (HOLDER, EMPTY, NOBODY):
            answer = account_proof(state_form, address, keys)
            account = state.account(address)
            encoded = proved(state.root, address, answer["accountProof"])
            assert encoded == (b"" if account is None else account.rlp())
            root = bytes.fromhex(answer["storageHash"][2:])
            for (spelled, slot), found in zip(keys, answer["storageProof"], strict=True):
                value = state.storage(address, slot)
                assert (found["key"], int(found["value"], 16)) == (spelled, value)
                assert proved(root, slot.to_bytes(32, "big"), found["proof"]) == (rlp.encode(value) if value else b"")


def test_fields_of_an_account_and_of_none() -> None:
    state = world(5, 2)
    answer = account_proof(state, HOLDER, [])
    assert (answer["balance"], answer["nonce"]) == (hex(10**18), "0x7")
    assert answer["codeHash"] == "0x" + keccak256(b"\x60\x01").hex()
    assert answer["storageHash"] == "0x" + state.storage_root(HOLDER).hex()
    nobody = account_proof(state, NOBODY, [("0x0", 0)])
    assert (nobody["balance"], nobody["nonce"], nobody["codeHash"]) == ("0x0", "0x0", "0x" + NO_CODE.hash.hex())
    assert nobody["storageHash"] == "0x" + EMPTY_ROOT.hex()
    assert nobody["storageProof"] == [{"key": "0x0", "value": "0x0", "proof": []}]
