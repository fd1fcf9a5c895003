"""The pending block at one index, frozen: what every read of `pending` in that moment is answered from."""

from flashblocks.execution.follow import FollowedBlock
from flashblocks.execution.header import Header
from flashblocks.execution.receipt import Receipt
from flashblocks.execution.state import WorldState
from flashblocks.execution.transaction import Transaction


class PendingSnapshot:
    """Header, state, transactions and receipts of a followed block after flashblock `index`; never changes.

    `header` is that of the valid block of this prefix. `first_new` is the position of this flashblock's first
    transaction. `before` is the snapshot taken last, of any block: those of one payload share the table of positions,
    which only grows.
    """

    __slots__ = ("_positions", "first_new", "header", "index", "payload_id", "receipts", "state", "transactions")

    def __init__(self, followed: FollowedBlock, index: int, before: "PendingSnapshot | None" = None) -> None:
        sealed = followed.sealed(index)
        self.payload_id: bytes = followed.payload_id
        self.index: int = index
        self.header: Header = sealed.header
        self.state: WorldState = sealed.state
        self.receipts: tuple[Receipt, ...] = sealed.receipts
        self.transactions: tuple[Transaction, ...] = followed.transactions(index)
        self.first_new: int = len(self.transactions) - len(followed.flashblock(index).diff.transactions)
        shared = before is not None and (before.payload_id, before.index + 1) == (self.payload_id, index)
        self._positions: dict[bytes, int] = before._positions if shared and before is not None else {}
        for position in range(len(self._positions), len(self.transactions)):
            self._positions[self.transactions[position].hash] = position

    @property
    def number(self) -> int:
        """The height of the pending block."""
        return self.header.number

    def find(self, tx_hash: bytes) -> int | None:
        """The position of a transaction in the block, or None."""
        position = self._positions.get(tx_hash)
        return position if position is not None and position < len(self.transactions) else None
