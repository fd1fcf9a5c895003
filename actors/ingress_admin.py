"""`admin_drop…` of an ingress: what is stuck leaves its outbox and every pool behind it, and is sent no more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from actors.drop_methods import DropMethods
from actors.ingress_targets import PoolTarget
from actors.rpc_client import RpcRefused, RpcUnknown
from flashblocks.execution.rpc_arguments import address
from flashblocks.ingress.outbox import Decision, Forgotten, Outbox
from flashblocks.wire.hexadecimal import data, to_bytes
from flashblocks.wire.jsonrpc import SERVER_ERROR, RpcError


class IngressAdmin(DropMethods):
    """The methods. `carry_out` takes the outbox's decisions; `forget` makes a restart forget too, and says if it can.

    First the outbox, so that nothing is sent again, then the pools. A pool that does not answer may still have it: that
    is an error, which names it, after everything else was done; the call may be made again.
    """

    def __init__(
        self,
        outbox: Outbox,
        targets: Sequence[PoolTarget],
        carry_out: Callable[[list[Decision]], None],
        forget: Callable[[], bool],
    ) -> None:
        self._outbox, self._targets, self._carry_out, self._forget = outbox, targets, carry_out, forget

    async def drop_transaction(self, tx_hash: str) -> bool:
        """Whether it waited anywhere, and does no more."""
        here = self._drop((to_bytes(tx_hash, 32, "transaction hash"),))
        return any([bool(here), *await self._everywhere("admin_dropTransaction", tx_hash)])

    async def drop_sender_transactions(self, account: str) -> list[str]:
        """All of one account's: the hashes of what was dropped anywhere, here by nonce, then those of pools alone."""
        here = self._drop(self._outbox.queue(address(account)))
        answers = await self._everywhere("admin_dropSenderTransactions", account)
        there = (tx_hash for answer in answers if isinstance(answer, list) for tx_hash in answer)
        return list(dict.fromkeys([*here, *there]))

    async def clear(self) -> int:
        """Everything: how many were dropped where most were."""
        here = self._drop([transaction.hash for _, transaction in self._outbox.held()])
        answers = await self._everywhere("admin_clearTxpool")
        return max([len(here), *(answer for answer in answers if isinstance(answer, int))])

    def _drop(self, hashes: Iterable[bytes]) -> list[str]:
        decisions = self._outbox.drop(hashes)
        self._carry_out(decisions)
        dropped = [data(decision.hash) for decision in decisions if isinstance(decision, Forgotten)]
        if dropped and not self._forget():
            text = "dropped, but the journal cannot be written: an ingress that starts again would send it again"
            raise RpcError(SERVER_ERROR, text)
        return dropped

    async def _everywhere(self, method: str, *params: Any) -> list[Any]:
        """The answers of all pools; raises RpcError with those that gave none."""
        answers = await asyncio.gather(*(self._ask(target, method, params) for target in self._targets))
        failed = [answer for answer in answers if isinstance(answer, _NoAnswer)]
        if failed:
            text = f"dropped here and in {len(answers) - len(failed)} of {len(answers)} pools; not in "
            raise RpcError(SERVER_ERROR, text + ", ".join(str(each) for each in failed))
        return answers

    async def _ask(self, target: PoolTarget, method: str, params: Sequence[Any]) -> Any:
        try:
            return await target.administer(method, *params)
        except (RpcUnknown, RpcRefused) as error:
            return _NoAnswer(f"{target.url} ({error})")


class _NoAnswer(str):
    """Why a pool did not do it."""
