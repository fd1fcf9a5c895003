"""`admin_drop…` of an rpc-node: one call that reaches every ingress, and through them every pool.

This node has no secret: it hands the caller's token on, and believes whoever the ingresses believe. Afterwards it
forgets what was sent through it, too, so that `pending` counts the dropped nonces no more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

from actors.drop_methods import DropMethods
from actors.rpc_client import RpcClient, RpcRefused, RpcUnknown
from actors.rpc_server import CALLER
from actors.rpc_view import RpcView
from flashblocks.execution.rpc_arguments import address
from flashblocks.preconf.sent import SentTransactions
from flashblocks.wire.hexadecimal import to_bytes
from flashblocks.wire.jsonrpc import SERVER_ERROR, RpcError

ANSWER_S_MAX = 20.0  # an ingress waits for its slowest pool


class RpcAdmin(DropMethods):
    """The methods. `urls` are the ingresses, or the execution clients where there is no ingress."""

    def __init__(self, view: RpcView, sent: SentTransactions, urls: Sequence[str]) -> None:
        self._view, self._sent = view, sent
        self._doors = [RpcClient(url, timeout_s=ANSWER_S_MAX) for url in urls]

    async def close(self) -> None:
        """Close the connections."""
        await asyncio.gather(*(door.close() for door in self._doors))

    async def drop_transaction(self, tx_hash: str) -> bool:
        """Whether it waited anywhere, and does no more."""
        wanted = to_bytes(tx_hash, 32, "transaction hash")
        return any(await self._everywhere((wanted,), "admin_dropTransaction", tx_hash))

    async def drop_sender_transactions(self, account: str) -> list[str]:
        """All of one account's: the hashes of what was dropped anywhere."""
        mine = self._sent.queue(address(account))
        answers = await self._everywhere(mine, "admin_dropSenderTransactions", account)
        return list(dict.fromkeys(tx_hash for answer in answers for tx_hash in answer))

    async def clear(self) -> int:
        """Everything: how many were dropped where most were."""
        return max(await self._everywhere(self._sent.hashes(), "admin_clearTxpool"), default=0)

    async def _everywhere(self, mine: Iterable[bytes], method: str, *params: Any) -> list[Any]:
        """The answers of all doors; raises RpcError with the first that refused or did not answer."""
        headers = {"Authorization": CALLER.get().authorization}
        calls = (door.call(method, *params, headers=headers) for door in self._doors)
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        answers = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
        if answers:
            for tx_hash in mine:
                if self._view.transaction(tx_hash) is None:
                    self._sent.forget(tx_hash)
        for outcome in outcomes:
            if isinstance(outcome, RpcRefused):
                raise RpcError(outcome.code, outcome.message, outcome.data)
            if isinstance(outcome, RpcUnknown):
                raise RpcError(SERVER_ERROR, f"not dropped everywhere: {outcome}")
            if isinstance(outcome, BaseException):
                raise outcome
        return answers
