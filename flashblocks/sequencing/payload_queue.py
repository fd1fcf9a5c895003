"""The follower's queue of committed payloads: in any order and any number of times in, in chain order out."""

from __future__ import annotations

from enum import Enum
from typing import Final

from flashblocks.sequencing.references import L2BlockRef
from flashblocks.wire.engine import Envelope

QUEUE_PAYLOADS_MAX: Final = 64
QUEUE_BYTES_MAX: Final = 64 * 1024 * 1024
KNOWN_HEADS_MAX: Final = 512


class Arrival(Enum):
    """What became of a payload that arrived."""

    KNOWN = "known"
    """It is the head or an ancestor of it, or already queued: success, nothing to do (#12448 of op-conductor)."""
    NEXT = "next"
    """It follows the head: import it now."""
    REPLACES = "replaces"
    """The head has another block at that height: what is committed wins, import it now."""
    AHEAD = "ahead"
    """Blocks below it are missing; it is kept."""
    DROPPED = "dropped"
    """It is too far ahead to be kept; it will be fetched again when its turn comes."""


class PayloadQueue:
    """Payloads above the head, bounded in count and bytes; the ones nearest to the head are kept."""

    def __init__(self) -> None:
        self._waiting: dict[int, Envelope] = {}
        self._bytes = 0
        self._heads: dict[int, bytes] = {}

    def on_head(self, head: L2BlockRef) -> None:
        """The head moved: remember its hash, forget what is no longer above it."""
        self._heads[head.number] = head.hash
        for number in [number for number in self._heads if not head.number - KNOWN_HEADS_MAX < number <= head.number]:
            del self._heads[number]
        for number in [number for number in self._waiting if number <= head.number]:
            self._remove(number)

    def knows(self, number: int) -> bool:
        """Whether the hash of that block of the chain is known here: not after a restart."""
        return number in self._heads

    def learn(self, number: int, block_hash: bytes) -> None:
        """The execution client has that block in its chain."""
        self._heads.setdefault(number, block_hash)

    def add(self, envelope: Envelope, head: L2BlockRef) -> Arrival:
        """Take a payload in; NEXT and REPLACES are not kept, the caller imports them."""
        payload = envelope.payload
        if payload.block_number <= head.number:
            known = self._heads.get(payload.block_number, payload.block_hash)
            return Arrival.KNOWN if known == payload.block_hash else Arrival.REPLACES
        if payload.block_number == head.number + 1:
            return Arrival.NEXT if payload.parent_hash == head.hash else Arrival.REPLACES
        waiting = self._waiting.get(payload.block_number)
        if waiting is not None and waiting.payload.block_hash == payload.block_hash:
            return Arrival.KNOWN
        return self._keep(envelope)

    def next(self, head: L2BlockRef) -> Envelope | None:
        """Take out the payload that follows `head`, or None."""
        envelope = self._waiting.get(head.number + 1)
        if envelope is None:
            return None
        self._remove(head.number + 1)
        return envelope if envelope.payload.parent_hash == head.hash else None

    def missing(self, head: L2BlockRef) -> range:
        """The numbers between the head and the lowest payload that waits: what has to be fetched."""
        return range(head.number + 1, min(self._waiting, default=head.number + 1))

    def __len__(self) -> int:
        return len(self._waiting)

    def _keep(self, envelope: Envelope) -> Arrival:
        number = envelope.payload.block_number
        self._remove(number)
        self._waiting[number] = envelope
        self._bytes += _size_bytes(envelope)
        while len(self._waiting) > QUEUE_PAYLOADS_MAX or (self._bytes > QUEUE_BYTES_MAX and len(self._waiting) > 1):
            self._remove(max(self._waiting))
        return Arrival.AHEAD if number in self._waiting else Arrival.DROPPED

    def _remove(self, number: int) -> None:
        envelope = self._waiting.pop(number, None)
        if envelope is not None:
            self._bytes -= _size_bytes(envelope)


def _size_bytes(envelope: Envelope) -> int:
    return sum(len(transaction) for transaction in envelope.payload.transactions)
