"""Bringing the own op-node level with the ledger, over a gap of any size (#22094: upstream keeps one block only)."""

from __future__ import annotations

from typing import Final

import msgspec

from flashblocks.conductor.ledger_shape import LedgerState, SealedBlock
from flashblocks.wire.assembly import assemble
from flashblocks.wire.engine import Envelope, envelope_from_bytes
from flashblocks.wire.flashblock import decode_body
from flashblocks.wire.hexadecimal import WireError

CATCH_UP_BATCH_BLOCKS: Final = 16


class Level(msgspec.Struct, frozen=True):
    """The op-node stands on the ledger's head: it may sequence."""


class Push(msgspec.Struct, frozen=True):
    """Hand these sealed blocks to the op-node, in order. `backfill`: it must fetch what lies below the first itself."""

    blocks: tuple[SealedBlock, ...]
    backfill: bool
    replaces: bool = False
    """The op-node's head is not the committed block: perhaps blocks below it are not either."""


class Ahead(msgspec.Struct, frozen=True):
    """The op-node's head is not in the ledger yet: this node's ledger is behind, or the head was never committed."""


Plan = Level | Push | Ahead


def plan(head_number: int, head_hash: bytes, ledger: LedgerState, back: int = 0) -> Plan:
    """What to do with an op-node whose head is that block.

    `back`: how many blocks below a head that is not the committed one to begin with. The op-node knows what it has in
    common with the ledger; where that ends below the first block, it cannot take it and more blocks are wanted.
    """
    if (head_number, head_hash) == (ledger.head_number, ledger.head_hash):
        return Level()
    if head_number > ledger.head_number:
        return Ahead()
    window = ledger.sealed_blocks
    if not window:
        return Ahead()  # another genesis, or a ledger that was just restored: nothing to hand out
    first, replaces = head_number + 1, False
    if head_number >= window[0].number:
        own = window[head_number - window[0].number]
        if own.block_hash != head_hash:
            first, replaces = max(head_number - back, window[0].number), True
    if first < window[0].number:
        return Push((window[0],), backfill=True)  # one is enough to tell it how much it lacks
    start = first - window[0].number
    return Push(tuple(window[start : start + CATCH_UP_BATCH_BLOCKS]), backfill=False, replaces=replaces)


def envelope_of(block: SealedBlock) -> Envelope:
    """The payload of a sealed block, put together from its flashblocks where it has some; raises WireError."""
    if block.payload is not None:
        envelope = envelope_from_bytes(block.payload)
    else:
        envelope = assemble([decode_body(entry.body) for entry in block.entries])
    if envelope.payload.block_hash != block.block_hash:
        raise WireError(f"sealed block {block.number} is not the block of its flashblocks")
    return envelope
