"""What each kind of `eth_subscribe` emits for an event: pure functions from events to JSON values.

Standard kinds speak of sealed blocks, Flashblocks' kinds of every flashblock as it comes. A preconfirmation that is
taken back is never silent: `pendingLogs` and full transactions come again with `removed: true`, and
`flashblockInvalidations` names the block and the lost hashes.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

from flashblocks.execution.rpc_arguments import LogFilter, log_filter
from flashblocks.execution.transaction import Transaction
from flashblocks.preconf import shapes
from flashblocks.preconf.events import (
    Event,
    FlashblockShown,
    HeadChanged,
    TransactionSent,
    TransactionsFirstSeen,
    Withdrawn,
)
from flashblocks.preconf.snapshot import PendingSnapshot
from flashblocks.wire.hexadecimal import data, quantity
from flashblocks.wire.jsonrpc import INVALID_PARAMS, METHOD_NOT_FOUND, RpcError

Emit = Callable[[Event], list[Any]]

ANNOUNCED_TRANSACTIONS_MAX = 20_000


def subscription(kind: Any, parameter: Any = None) -> Emit:
    """The function that turns events into notifications of this kind; raises RpcError for an unknown one.

    `parameter` is the second argument of `eth_subscribe`: a log filter, or whether transactions come in full.
    """
    match kind:
        case "newHeads":
            return new_heads
        case "logs":
            return _logs(log_filter(parameter))
        case "newPendingTransactions":
            return _new_pending_transactions(_flag(parameter))
        case "newFlashblocks":
            return new_flashblocks
        case "pendingLogs":
            return _pending_logs(log_filter(parameter))
        case "newFlashblockTransactions":
            return _new_flashblock_transactions(_flag(parameter))
        case "flashblockInvalidations":
            return invalidations
        case "syncing":
            return lambda event: []  # a node that answers is following; /readyz tells how closely
    raise RpcError(METHOD_NOT_FOUND, f'no "{kind}" subscription in eth namespace')


def new_heads(event: Event) -> list[Any]:
    """The header of every block that becomes `latest`, oldest first."""
    if not isinstance(event, HeadChanged):
        return []
    return [shapes.header_json(block.header) for block in event.added]


def new_flashblocks(event: Event) -> list[Any]:
    """The whole pending block with full transactions, after every flashblock."""
    return [shapes.pending_block_json(event.snapshot, full=True)] if isinstance(event, FlashblockShown) else []


def invalidations(event: Event) -> list[Any]:
    """Every time something that was shown is not so any more."""
    if not isinstance(event, Withdrawn):
        return []
    gone = event.gone
    return [
        {
            "blockNumber": quantity(gone.number),
            "shownHash": data(gone.shown_hash),
            "sealedHash": None if gone.sealed_hash is None else data(gone.sealed_hash),
            "divergent": gone.divergent,
            "reorg": gone.reorg,
            "transactions": [data(tx_hash) for tx_hash in gone.lost],
        }
    ]


class FirstSeen:
    """Tells every transaction once, when it is accepted here or first seen in a flashblock; one table for everybody."""

    def __init__(self) -> None:
        self._seen: OrderedDict[bytes, None] = OrderedDict()

    def of(self, event: Event) -> TransactionsFirstSeen | None:
        """The new ones among those of the event, or None."""
        if isinstance(event, TransactionSent):
            candidates: Sequence[Transaction] = (event.transaction,)
        elif isinstance(event, FlashblockShown):
            candidates = event.snapshot.transactions[event.snapshot.first_new :]
        else:
            return None
        fresh = [tx for tx in candidates if not tx.is_deposit and tx.hash not in self._seen]
        for transaction in fresh:
            self._seen[transaction.hash] = None
        while len(self._seen) > ANNOUNCED_TRANSACTIONS_MAX:
            self._seen.popitem(last=False)
        return TransactionsFirstSeen(tuple(fresh)) if fresh else None


def _new_pending_transactions(full: bool) -> Emit:
    """Every transaction once: its hash, or all of it."""

    def emit(event: Event) -> list[Any]:
        if not isinstance(event, TransactionsFirstSeen):
            return []
        return [shapes.pool_transaction_json(tx) if full else data(tx.hash) for tx in event.transactions]

    return emit


def _logs(wanted: LogFilter) -> Emit:
    """Logs of sealed blocks; those of a block that is not canonical any more come again, `removed`."""

    def emit(event: Event) -> list[Any]:
        if not isinstance(event, HeadChanged):
            return []
        gone = [log | {"removed": True} for block in event.removed for log in shapes.block_logs(block, wanted)]
        return gone + [log for block in event.added for log in shapes.block_logs(block, wanted)]

    return emit


def _pending_logs(wanted: LogFilter) -> Emit:
    """Logs of the newest flashblock only; those of lost transactions come again, `removed`."""

    def emit(event: Event) -> list[Any]:
        if isinstance(event, FlashblockShown):
            snapshot = event.snapshot
            return shapes.pending_logs(snapshot, wanted, snapshot.first_new)
        if isinstance(event, Withdrawn) and event.shown is not None:
            lost = {data(tx_hash) for tx_hash in event.gone.lost}
            every = shapes.pending_logs(event.shown, wanted, 0)
            return [log | {"removed": True} for log in every if log["transactionHash"] in lost]
        return []

    return emit


def _new_flashblock_transactions(full: bool) -> Emit:
    """Every transaction of the newest flashblock: its hash, or the whole of it with its `logs`.

    A hash cannot say that it is gone; a lost transaction in full comes again with `removed: true`.
    """

    def emit(event: Event) -> list[Any]:
        if isinstance(event, FlashblockShown):
            snapshot = event.snapshot
            positions = range(snapshot.first_new, len(snapshot.transactions))
            if not full:
                return [data(snapshot.transactions[position].hash) for position in positions]
            return [_with_logs(snapshot, position) for position in positions]
        if isinstance(event, Withdrawn) and full and event.shown is not None:
            found = [event.shown.find(tx_hash) for tx_hash in event.gone.lost]
            return [_with_logs(event.shown, place) | {"removed": True} for place in found if place is not None]
        return []

    return emit


def _with_logs(snapshot: PendingSnapshot, position: int) -> dict[str, Any]:
    transaction = shapes.pending_transaction_json(snapshot, position)
    return transaction | {"logs": shapes.pending_logs(snapshot, LogFilter(), position, position + 1)}


def _flag(parameter: Any) -> bool:
    if parameter is None or isinstance(parameter, bool):
        return bool(parameter)
    raise RpcError(INVALID_PARAMS, "expected true or false")
