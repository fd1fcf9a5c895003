"""The funded accounts as senders of load: each keeps its own nonce and signs."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence

from flashblocks.execution.signing import sign_transaction

MAX_FEE_WEI = 10**10
TIP_WEI = 10**6
TRANSFER_GAS = 21_000


class Sender:
    """One account; `nonce` is the next one to use, after those that were given back."""

    def __init__(self, chain_id: int, address: str, private_key: str) -> None:
        self.address = address
        self.nonce = 0
        self._free: list[int] = []
        self._chain_id = chain_id
        self._private_key = bytes.fromhex(private_key.removeprefix("0x"))

    def sign(
        self, *, to: bytes | None, value: int = 0, data: bytes = b"", gas_limit: int = TRANSFER_GAS
    ) -> tuple[bytes, int]:
        """An EIP-1559 transaction, and the nonce it uses up."""
        nonce = self._take()
        raw = sign_transaction(
            self._private_key,
            chain_id=self._chain_id,
            nonce=nonce,
            to=to,
            value=value,
            data=data,
            gas_limit=gas_limit,
            max_fee_per_gas=MAX_FEE_WEI,
            max_priority_fee_per_gas=TIP_WEI,
        )
        return raw, nonce

    def give_back(self, nonce: int) -> None:
        """The transaction with this nonce was refused: the next one fills the hole, or all later ones would wait."""
        heapq.heappush(self._free, nonce)

    def _take(self) -> int:
        if self._free:
            return heapq.heappop(self._free)
        self.nonce += 1
        return self.nonce - 1


class Senders:
    """All accounts of ``endpoints.json``, taken in turn."""

    def __init__(self, chain_id: int, accounts: Sequence[Mapping[str, str]]) -> None:
        self.all = [Sender(chain_id, account["address"], account["private_key"]) for account in accounts]

    def pair(self, number: int) -> tuple[Sender, Sender]:
        """Who sends the transaction of this number, and to whom."""
        return self.all[number % len(self.all)], self.all[(number + 1) % len(self.all)]
