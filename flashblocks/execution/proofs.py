"""Merkle proofs of an account and of its storage, as eth_getProof answers them (EIP-1186)."""

from typing import Any

from flashblocks.execution import trie
from flashblocks.execution.code import NO_CODE
from flashblocks.execution.keccak import hashed_address, hashed_slot
from flashblocks.execution.state import WorldState
from flashblocks.wire.hexadecimal import data, quantity

STORAGE_KEYS_MAX = 1_024  # geth's


def account_proof(state: WorldState, address: bytes, keys: list[tuple[str, int]]) -> dict[str, Any]:
    """The account at `address` and the slots of `keys` (how the caller spelled them, position) with their proofs."""
    account = state.account(address)
    storage = account.storage if account else None
    return {
        "address": data(address),
        "accountProof": [data(node) for node in trie.proof(state.node, hashed_address(address), state.load)],
        "balance": quantity(account.balance if account else 0),
        "codeHash": data((account.code if account else NO_CODE).hash),
        "nonce": quantity(account.nonce if account else 0),
        "storageHash": data(trie.root_hash(storage)),
        "storageProof": [
            {
                "key": spelled,
                "value": quantity(state.slot_of(account, position) if account else 0),
                "proof": [data(node) for node in trie.proof(storage, hashed_slot(position), state.load)],
            }
            for spelled, position in keys
        ],
    }
