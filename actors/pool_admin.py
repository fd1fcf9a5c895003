"""`admin_drop…` of an execution client: a transaction that is stuck leaves the pool because the operator says so."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from actors.drop_methods import DropMethods
from flashblocks.execution.rpc_arguments import address
from flashblocks.execution.transaction import Transaction
from flashblocks.wire.hexadecimal import data, to_bytes

if TYPE_CHECKING:
    from actors.execution_client import ExecutionClient


class PoolAdmin(DropMethods):
    """The methods. What a flashblock on top of the head holds was promised: it stays in the pool until it is sealed."""

    def __init__(self, client: ExecutionClient) -> None:
        self._client = client

    async def drop_transaction(self, tx_hash: str) -> bool:
        """Whether the pool had it and has it no more."""
        return bool(self._drop((to_bytes(tx_hash, 32, "transaction hash"),)))

    async def drop_sender_transactions(self, account: str) -> list[str]:
        """All of one account's: the hashes of what was dropped, by nonce."""
        queue = self._client.pool.queue(address(account))
        return [data(tx.hash) for tx in self._drop(tx.hash for tx in queue)]

    async def clear(self) -> int:
        """Everything: how many were dropped."""
        return len(self._drop([tx.hash for tx in self._client.pool.transactions()]))

    def _drop(self, hashes: Iterable[bytes]) -> list[Transaction]:
        client = self._client
        shown = {
            tx.hash
            for followed in client.follower.blocks()
            if followed.number > client.chain.head.number
            for tx in followed.transactions()
        }
        dropped = client.pool.drop(tx_hash for tx_hash in hashes if tx_hash not in shown)
        if dropped:
            client.log.warning("dropped for the operator", count=len(dropped), first=data(dropped[0].hash))
        return dropped
