"""What happens to the chain an rpc-node shows, as its subscribers and waiting senders are told of it."""

import msgspec

from flashblocks.execution.chain import ChainBlock
from flashblocks.execution.transaction import Transaction
from flashblocks.preconf.facts import Invalidated
from flashblocks.preconf.snapshot import PendingSnapshot


class FlashblockShown(msgspec.Struct, frozen=True):
    """`pending` grew by one flashblock."""

    snapshot: PendingSnapshot


class HeadChanged(msgspec.Struct, frozen=True):
    """`latest` moved: `removed` newest first, `added` oldest first."""

    removed: tuple[ChainBlock, ...]
    added: tuple[ChainBlock, ...]


class Withdrawn(msgspec.Struct, frozen=True):
    """What was shown at a height is not the block there; `shown` is its last snapshot, where it is still kept."""

    gone: Invalidated
    shown: PendingSnapshot | None


class TransactionSent(msgspec.Struct, frozen=True):
    """A transaction was accepted through this node."""

    transaction: Transaction


class TransactionsFirstSeen(msgspec.Struct, frozen=True):
    """These were neither sent through this node nor shown before; L1's deposits were never pending."""

    transactions: tuple[Transaction, ...]


Event = FlashblockShown | HeadChanged | Withdrawn | TransactionSent | TransactionsFirstSeen
