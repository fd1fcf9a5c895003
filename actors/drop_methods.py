"""The names of `admin_drop…`, as Base's node and reth have them: whoever holds transactions offers the same three."""

from __future__ import annotations

from abc import ABC, abstractmethod

from actors.rpc_server import Method


class DropMethods(ABC):
    """What takes waiting transactions away because the operator says so."""

    def methods(self) -> dict[str, Method]:
        """Name → coroutine; never for a port that asks nobody for a token."""
        return {
            "admin_dropTransaction": self.drop_transaction,
            "admin_dropSenderTransactions": self.drop_sender_transactions,
            "admin_clearTxpool": self.clear,
        }

    @abstractmethod
    async def drop_transaction(self, tx_hash: str) -> bool:
        """Whether it waited, and does no more."""

    @abstractmethod
    async def drop_sender_transactions(self, account: str) -> list[str]:
        """All of one account's: the hashes of what was dropped."""

    @abstractmethod
    async def clear(self) -> int:
        """Everything: how many were dropped."""
