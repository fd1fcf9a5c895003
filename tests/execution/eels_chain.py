"""The specification's own execution (EELS, Prague) of whole blocks of our chain, from genesis on.

What OP adds and EELS does not know is done by hand here: the deposit at the head of each block, which in these tests
only bumps a nonce, and the base fee, which goes to a vault instead of being burnt.
"""

import sys
from typing import Any

from flashblocks.execution.fees import BASE_FEE_VAULT
from flashblocks.execution.header import Block, Header
from flashblocks.execution.transaction import decode_transaction

_recursion_limit = sys.getrecursionlimit()
from ethereum.forks.prague import state as eels_state  # noqa: E402
from ethereum.forks.prague.fork import process_transaction, process_unchecked_system_transaction  # noqa: E402
from ethereum.forks.prague.fork_types import Account, Address  # noqa: E402
from ethereum.forks.prague.transactions import LegacyTransaction  # noqa: E402
from ethereum.forks.prague.transactions import decode_transaction as decode_typed  # noqa: E402
from ethereum.forks.prague.trie import trie_get  # noqa: E402
from ethereum.forks.prague.vm import BlockEnvironment, BlockOutput  # noqa: E402
from ethereum_rlp import rlp  # noqa: E402
from ethereum_types.bytes import Bytes, Bytes32  # noqa: E402
from ethereum_types.numeric import U64, U256, Uint  # noqa: E402

sys.setrecursionlimit(max(_recursion_limit, 40_000))  # EELS sets its own on import

BEACON_ROOTS = Address(bytes.fromhex("000f3df6d732807ef1319fb7b8bb8522d0beac02"))
HISTORY = Address(bytes.fromhex("0000f90827f1c53a10cb7a02335b175320002935"))


class EelsChain:
    """A state that follows blocks whose deposits do nothing."""

    def __init__(self, genesis: dict[str, Any], header: Header) -> None:
        self.chain_id = genesis["config"]["chainId"]
        self.state = eels_state.State()
        self.hashes = [Bytes32(header.hash)]
        for address, entry in genesis["alloc"].items():
            account = Account(
                Uint(int(entry.get("nonce", "0x0"), 16)),
                U256(int(entry["balance"], 16)),
                Bytes(bytes.fromhex(entry.get("code", "0x")[2:])),
            )
            eels_state.set_account(self.state, Address(bytes.fromhex(address[2:])), account)

    def apply(self, block: Block) -> tuple[list[tuple[bool, int, list[Any]]], bytes]:
        """(succeeded, gas used, logs) of each paid transaction, and the state root after the block."""
        header = block.header
        environment = BlockEnvironment(
            chain_id=U64(self.chain_id),
            state=self.state,
            block_gas_limit=Uint(header.gas_limit),
            block_hashes=self.hashes[-256:],
            coinbase=Address(header.fee_recipient),
            number=Uint(header.number),
            base_fee_per_gas=Uint(header.base_fee_per_gas),
            time=U256(header.timestamp),
            prev_randao=Bytes32(header.prev_randao),
            excess_blob_gas=U64(0),
            parent_beacon_block_root=Bytes32(header.parent_beacon_root),
        )
        process_unchecked_system_transaction(environment, BEACON_ROOTS, Bytes(header.parent_beacon_root))
        process_unchecked_system_transaction(environment, HISTORY, Bytes(self.hashes[-1]))
        output = BlockOutput()
        found = []
        for index, raw in enumerate(block.transactions):
            tx = decode_transaction(raw)
            if tx.is_deposit:
                eels_state.increment_nonce(self.state, Address(tx.sender))
                continue
            before = output.block_gas_used
            typed = rlp.decode_to(LegacyTransaction, raw) if raw[0] >= 0xC0 else decode_typed(Bytes(raw))
            process_transaction(environment, output, typed, Uint(index))
            used = int(output.block_gas_used - before)
            receipt: Any = trie_get(output.receipts_trie, rlp.encode(Uint(index)))
            body = rlp.decode(receipt[1:] if isinstance(receipt, bytes) else rlp.encode(receipt))
            found.append((body[0] == b"\1", used, body[3]))
            vault = Address(BASE_FEE_VAULT)
            balance = eels_state.get_account(self.state, vault).balance
            eels_state.set_account_balance(self.state, vault, balance + U256(used * header.base_fee_per_gas))
        self.hashes.append(Bytes32(header.hash))
        return found, bytes(eels_state.state_root(self.state))
