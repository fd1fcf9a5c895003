"""One pool as the ingress sees it: over its kept link, or with batches of `eth_sendRawTransaction` if it has none."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from actors.execution_peers import call_batch
from actors.handover_link import HandoverClient
from actors.rpc_client import RpcClient, RpcRefused, RpcUnknown
from flashblocks.execution.transaction import Transaction
from flashblocks.ingress.handover import TAKEN
from flashblocks.ingress.outbox import Answer, Refusal
from flashblocks.wire.hexadecimal import data
from flashblocks.wire.jsonrpc import SERVER_ERROR
from tracing.context import transaction_root

ANSWER_S_MAX = 3.0
LINK_ANSWER_S_MAX = 15.0  # the link tells of a death; who is only slow gets no work twice, and holds up nobody else


class PoolTarget:
    """A builder's or an execution client's pool. `on_change(up)` tells of its restarts and deaths, where it has a link.

    `secret` is the JWT's: with it the pool of a builder of ours believes the senders recovered here.
    """

    def __init__(self, url: str, on_change: Callable[[bool], None], secret: bytes | None) -> None:
        self.url = url
        self.answers = False  # whether the last batch was answered
        self._on_change = on_change
        self._link = HandoverClient(url, self._changed, secret=secret)
        self._rpc = RpcClient(url, timeout_s=ANSWER_S_MAX)
        self._admin = RpcClient(url, timeout_s=ANSWER_S_MAX, jwt_secret=secret)
        self._sending = asyncio.Lock()

    @property
    def up(self) -> bool:
        """Whether it is there, as far as one can know."""
        return self._link.connected or self.answers

    def start(self) -> None:
        """Begin to connect."""
        self._link.start()

    async def close(self) -> None:
        """Let go of the connections."""
        await self._link.close()
        await self._rpc.close()
        await self._admin.close()

    async def send(self, transactions: Sequence[Transaction]) -> dict[bytes, Answer]:
        """Hand over in this order: the pool's answer per hash, without those it did not answer.

        Raises RpcUnknown or RpcRefused when it answered none.
        """
        async with self._sending:
            try:
                answers = await (self._over_link if self._link.connected else self._over_rpc)(transactions)
            except (RpcUnknown, RpcRefused):
                self.answers = False
                raise
        self.answers = True
        return answers

    async def administer(self, method: str, *params: Any) -> Any:
        """An operator's call, with the token, once the batch on its way has arrived; RpcUnknown or RpcRefused.

        Overtaking the batch would drop what is in it before it comes.
        """
        try:
            async with asyncio.timeout(LINK_ANSWER_S_MAX), self._sending:
                return await self._admin.call(method, *params)
        except TimeoutError:
            raise RpcUnknown("no answer") from None

    def _changed(self, up: bool) -> None:
        self.answers = self.answers and up
        self._on_change(up)

    async def _over_link(self, transactions: Sequence[Transaction]) -> dict[bytes, Answer]:
        try:
            async with asyncio.timeout(LINK_ANSWER_S_MAX):
                outcomes = await self._link.hand_over([(tx.raw, tx.sender, "", True) for tx in transactions])
        except TimeoutError:
            await self._link.cut()
            raise RpcUnknown(f"{self.url}: no answer") from None
        return {
            tx.hash: None if outcome.code == TAKEN else Refusal(outcome.code, outcome.message)
            for tx, outcome in zip(transactions, outcomes, strict=True)
        }

    async def _over_rpc(self, transactions: Sequence[Transaction]) -> dict[bytes, Answer]:
        # Says to the pool that these have a trace. A batch has many: each has its own, derived from its hash.
        headers = {"traceparent": transaction_root(transactions[0].hash).traceparent}
        calls = [("eth_sendRawTransaction", (data(tx.raw),)) for tx in transactions]
        answered = await call_batch(self._rpc, calls, headers=headers)
        return {
            tx.hash: None if answer[1] is None else _refusal(answer[1])
            for tx, answer in zip(transactions, answered, strict=True)
            if answer is not None
        }


def _refusal(error: dict[str, Any]) -> Refusal:
    code = error.get("code")
    return Refusal(code if isinstance(code, int) else SERVER_ERROR, str(error.get("message", "refused")))
