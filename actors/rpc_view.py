"""Which block and which state a caller means: names and hashes resolved against the chain and the pending block."""

from __future__ import annotations

from typing import Any

from actors.preconf_follower import PreconfFollower
from flashblocks.execution.block_state import BlockHashes
from flashblocks.execution.chain import ChainBlock
from flashblocks.execution.header import ZERO_HASH, Header
from flashblocks.execution.receipt import Receipt
from flashblocks.execution.rpc_arguments import LATEST, BlockName, block_name
from flashblocks.execution.state import WorldState
from flashblocks.execution.transaction import Transaction
from flashblocks.preconf.snapshot import PendingSnapshot
from flashblocks.wire.hexadecimal import quantity
from flashblocks.wire.jsonrpc import SERVER_ERROR, RpcError

UNKNOWN_BLOCK = -39001  # geth's code for a tag that names no block yet

Resolved = ChainBlock | PendingSnapshot


class RpcView:
    """Reads of one rpc-node. `pending` is never nothing: without a fresh flashblock it is `latest`."""

    def __init__(self, follower: PreconfFollower) -> None:
        self.follower = follower
        self.chain = follower.chain
        self.spec = follower.chain.spec

    def find(self, name: BlockName) -> Resolved | None:
        """The block of this name; None when there is none. Raises RpcError for a tag that names nothing yet."""
        if name.hash is not None:
            return self.by_hash(name.hash)
        if name.number is not None:
            return self.chain.by_number(name.number)
        match name.tag:
            case "pending":
                return self.follower.pending() or self.chain.head
            case "earliest":
                return self.chain.by_number(0)
            case "safe" | "finalized":
                block_hash = self.chain.safe_hash if name.tag == "safe" else self.chain.finalized_hash
                block = None if block_hash == ZERO_HASH else self.chain.block(block_hash)
                if block is None:
                    raise RpcError(UNKNOWN_BLOCK, f"{name.tag} block not found")
                return block
        return self.chain.head

    def by_hash(self, block_hash: bytes) -> Resolved | None:
        """A block of the chain, or the pending one under the hash it has at this moment."""
        pending = self.follower.shown()
        if pending is not None and pending.header.hash == block_hash:
            return pending
        return self.chain.block(block_hash)

    def block(self, value: Any, default: BlockName = LATEST) -> Resolved | None:
        """As `find`, from the JSON parameter."""
        return self.find(block_name(value, default))

    def state(self, value: Any, default: BlockName = LATEST) -> tuple[Header, WorldState]:
        """As `state_of`, from the JSON parameter."""
        return self.state_of(block_name(value, default))

    def state_of(self, name: BlockName) -> tuple[Header, WorldState]:
        """Header and state to read at; raises RpcError when the block or its state is not here."""
        found = self.find(name)
        if found is None:
            raise RpcError(SERVER_ERROR, "header not found")
        if found.state is None:
            raise RpcError(
                SERVER_ERROR, f"historical state {found.header.state_root.hex()} of block {found.number} is not here"
            )
        return found.header, found.state

    def block_hashes(self, header: Header) -> BlockHashes:
        """The function behind BLOCKHASH for code that runs in the block of `header`."""
        return self.chain.ancestor_hashes(header.parent_hash)

    def transaction(self, tx_hash: bytes) -> tuple[Resolved, int] | None:
        """Where a transaction is: the sealed block first, then the pending one."""
        sealed = self.chain.find_transaction(tx_hash)
        if sealed is not None:
            return sealed
        pending = self.follower.shown()
        position = None if pending is None else pending.find(tx_hash)
        if pending is not None and position is not None:
            return pending, position
        # The thread that seals may have done so between the two looks; what was shown must not seem gone.
        return self.chain.find_transaction(tx_hash)


def parts(found: Resolved) -> tuple[tuple[Transaction, ...], tuple[Receipt, ...]]:
    """Transactions and receipts of a sealed or pending block."""
    return found.transactions, found.receipts


def number_json(found: Resolved) -> str:
    """The height as JSON."""
    return quantity(found.number)
