"""The transactions accepted through this node and not yet in a sealed block: for nonces, and for asking by hash."""

from collections import OrderedDict
from collections.abc import Iterable

from flashblocks.execution.transaction import Transaction

SENT_TRANSACTIONS_MAX = 20_000
SENT_S_MAX = 600.0


class SentTransactions:
    """A bounded table by hash and by sender; the oldest give way, and none stays longer than ten minutes."""

    def __init__(self, transactions_max: int = SENT_TRANSACTIONS_MAX, seconds_max: float = SENT_S_MAX) -> None:
        self._transactions_max, self._seconds_max = transactions_max, seconds_max
        self._sent: OrderedDict[bytes, tuple[Transaction, float]] = OrderedDict()
        self._nonces: dict[bytes, dict[int, bytes]] = {}

    def add(self, transaction: Transaction, now: float) -> None:
        """A pool has accepted it; it takes the place of one with the same nonce."""
        replaced = self._nonces.get(transaction.sender, {}).get(transaction.nonce)
        if replaced is not None:
            self._remove(replaced)
        self._sent[transaction.hash] = (transaction, now)
        self._nonces.setdefault(transaction.sender, {})[transaction.nonce] = transaction.hash
        while self._sent:
            oldest, (_, arrived) = next(iter(self._sent.items()))
            if len(self._sent) <= self._transactions_max and arrived > now - self._seconds_max:
                break
            self._remove(oldest)

    def sealed(self, transactions: Iterable[Transaction]) -> None:
        """These are in a sealed block; whatever else has one of their nonces can never be."""
        for transaction in transactions:
            if transaction.is_deposit:
                continue
            same_nonce = self._nonces.get(transaction.sender, {}).get(transaction.nonce)
            if same_nonce is not None:
                self._remove(same_nonce)

    def forget(self, tx_hash: bytes) -> None:
        """It was dropped: whatever asks for it finds nothing, and its nonce is free."""
        if tx_hash in self._sent:
            self._remove(tx_hash)

    def queue(self, sender: bytes) -> list[bytes]:
        """The hashes of one sender's transactions, by nonce."""
        queue = self._nonces.get(sender, {})
        return [queue[nonce] for nonce in sorted(queue)]

    def hashes(self) -> list[bytes]:
        """Of everything, oldest first."""
        return list(self._sent)

    def get(self, tx_hash: bytes) -> Transaction | None:
        """The transaction, or None."""
        found = self._sent.get(tx_hash)
        return None if found is None else found[0]

    def next_nonce(self, sender: bytes, from_nonce: int) -> int:
        """The first nonce at or after `from_nonce` that was not sent from here."""
        queue = self._nonces.get(sender, {})
        while from_nonce in queue:
            from_nonce += 1
        return from_nonce

    def __len__(self) -> int:
        return len(self._sent)

    def _remove(self, tx_hash: bytes) -> None:
        transaction, _ = self._sent.pop(tx_hash)
        queue = self._nonces[transaction.sender]
        del queue[transaction.nonce]
        if not queue:
            del self._nonces[transaction.sender]
