"""What the pending machine is told and what it answers: frozen facts in, frozen decisions out."""

from typing import Literal

import msgspec

from flashblocks.wire.flashblock import Flashblock


class BlockRef(msgspec.Struct, frozen=True):
    """A block by number and hash."""

    number: int
    hash: bytes


class Arrival(msgspec.Struct, frozen=True):
    """One flashblock as it came from a proxy, its frame already checked against its body.

    `transactions` are the hashes of this flashblock's own transactions (not cumulative); `block_hash` is the streamed
    hash of the block so far; `epoch` is 0 for a stream that does not carry one.
    """

    epoch: int
    number: int
    index: int
    payload_id: bytes
    parent_hash: bytes
    block_hash: bytes
    digest: bytes
    transactions: tuple[bytes, ...]
    flashblock: Flashblock | None = None
    traceparent: str = ""


class CanonicalBlock(msgspec.Struct, frozen=True):
    """A block that execution clients have, fetched and imported by us, with its transaction hashes in order."""

    number: int
    hash: bytes
    parent_hash: bytes
    transactions: tuple[bytes, ...]


Outcome = Literal["VALID", "DUPLICATE", "INVALID", "GAP", "UNKNOWN_PARENT"]


class Execute(msgspec.Struct, frozen=True):
    """Execute this flashblock; answer with `PendingMachine.executed`. Only one is ever outstanding."""

    arrival: Arrival


class Seal(msgspec.Struct, frozen=True):
    """What was followed up to `index` of `payload_id` is the canonical block `block`: make it the head."""

    block: BlockRef
    payload_id: bytes
    index: int


class Resend(msgspec.Struct, frozen=True):
    """Ask the proxies for everything from (number, index) on: `?from=<number>.<index>`."""

    number: int
    index: int


class Backfill(msgspec.Struct, frozen=True):
    """Fetch the blocks `first`..`last` (inclusive; None: the newest) from any execution client.

    `tip_hash` is the hash that `last` must have, where it is known.
    """

    first: int
    last: int | None
    tip_hash: bytes | None


class Appended(msgspec.Struct, frozen=True):
    """`pending` grew by this flashblock: tell the subscribers."""

    arrival: Arrival


class Dropped(msgspec.Struct, frozen=True):
    """A flashblock was not used; `reason` is a metric label, one of `pending.DROP_REASONS`."""

    reason: str
    number: int
    index: int


class Invalidated(msgspec.Struct, frozen=True):
    """What subscribers were shown at a height is not (or not any more) the block at that height.

    `divergent`: the streamed transactions are not a prefix of the sealed ones – a broken promise, counted by content.
    `reorg`: the shown block was the head. `lost` are the shown transaction hashes absent from the sealed block, in
    their old order; `sealed_hash` is None while the replacement is not sealed yet.
    """

    number: int
    shown_hash: bytes
    sealed_hash: bytes | None
    divergent: bool
    reorg: bool
    lost: tuple[bytes, ...]


Decision = Execute | Seal | Resend | Backfill | Appended | Dropped | Invalidated


class View(msgspec.Struct, frozen=True):
    """What the block tag `pending` means at this moment: the followed block, or `latest` and the reason why."""

    source: Literal["flashblocks", "latest"]
    reason: str
    payload_id: bytes | None = None
    index: int = -1
