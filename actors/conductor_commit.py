"""Into the ledger: flashblocks, the op-node's payloads, and – after a disaster – what went on without a majority."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from actors.payload_backfill import PayloadBackfill
from flashblocks.conductor.catch_up import envelope_of
from flashblocks.wire.assembly import assemble
from flashblocks.wire.engine import Envelope, envelope_to_bytes
from flashblocks.wire.flashblock import decode_body
from flashblocks.wire.frames import FlashblockFrame
from raft.alone import AloneLedger, appends, seal
from raft.commands import (
    TRACE_CONTEXT_CHARACTERS_MAX,
    Accepted,
    Append,
    Appended,
    Command,
    Reason,
    Refused,
    Seal,
    SealBlock,
)
from raft.ledger import LedgerView, OpenBlock
from raft.node import Outcome, RaftNode

COMMIT_S_MAX = 1.0
ADOPTED_BLOCKS_MAX = 4096
READMITTED_WITH_FLASHBLOCKS_MAX = 16
"""How many of the newest blocks made alone are committed flashblock by flashblock, for listeners that come back; the
older ones whole, but for the first one, whose beginning is committed already."""


def append_command(epoch: int, node: str, frame: FlashblockFrame) -> Append:
    """A judged flashblock as a command of an epoch and its owner."""
    return Append(
        epoch=epoch,
        node=node,
        payload_id=frame.payload_id,
        number=frame.number,
        index=frame.index,
        parent_hash=frame.parent_hash,
        block_hash=frame.block_hash,
        digest=frame.digest,
        body=frame.body,
        traceparent=frame.traceparent if len(frame.traceparent) <= TRACE_CONTEXT_CHARACTERS_MAX else "",
    )


def appended_frame(event: Appended) -> FlashblockFrame:
    """What was committed, as it is published."""
    return FlashblockFrame(
        event.epoch,
        event.number,
        event.index,
        event.payload_id,
        event.parent_hash,
        event.block_hash,
        event.digest,
        event.traceparent,
        event.body,
    )


def seal_command(view: LedgerView, epoch: int, node: str, envelope: Envelope) -> Seal | SealBlock | None:
    """By reference when the payload is exactly the open block's flashblocks, whole where there are none.

    None when the block is open and the payload is something else: it has to be sealed again.
    """
    payload, open_block = envelope.payload, view.open
    if open_block is None or open_block.number != payload.block_number:
        return _whole(envelope, epoch, node)
    if not _is_block_of(open_block, envelope):
        return None
    return Seal(
        epoch=epoch,
        node=node,
        number=open_block.number,
        payload_id=open_block.payload_id,
        last_index=open_block.last_index,
        block_hash=open_block.block_hash,
    )


def _is_block_of(open_block: OpenBlock, envelope: Envelope) -> bool:
    """Whether the payload is what the committed flashblocks make, field by field: a hash alone could be claimed."""
    if envelope.payload.block_hash != open_block.block_hash:
        return False
    return assemble([decode_body(entry.body) for entry in open_block.entries]) == envelope


PASSING = (
    Reason.NOT_LEADER,
    Reason.TRANSFERRING,
    Reason.QUEUE_FULL,
    Reason.STALE_EPOCH,
    Reason.UNCLAIMED_EPOCH,
    Reason.WRONG_OWNER,
)
"""Refusals of the proposer; they say nothing about what was proposed."""


def is_final(outcome: Outcome | None) -> bool:
    """Whether the ledger refused the content itself, so that asking again is of no use."""
    return isinstance(outcome, Refused) and outcome.reason not in PASSING


async def readmission(
    alone: AloneLedger, first: int, epoch: int, node: str, fetch: Callable[[int], Awaitable[Envelope | None]]
) -> AsyncIterator[tuple[int, Command | None]]:
    """What a majority has to commit to have the chain of a ledger that went on alone, from block `first` on.

    Block number and command, in order; None where a block is kept nowhere. `fetch` has the blocks of the execution
    client, for those that the ledger's window has lost.
    """
    last = alone.view.head_number
    for number in range(first, last + 1):
        block = alone.block(number)
        in_full = number == alone.began_at + 1 or number > last - READMITTED_WITH_FLASHBLOCKS_MAX
        if block is not None and not block.fallback and in_full:
            for command in appends(block, epoch, node):
                yield number, command
            yield number, seal(block, epoch, node)
            continue
        envelope = await fetch(number) if block is None else envelope_of(block)
        yield number, None if envelope is None else _whole(envelope, epoch, node)
    if alone.view.open is not None:
        for command in appends(alone.view.open, epoch, node):
            yield command.number, command


def _whole(envelope: Envelope, epoch: int, node: str) -> SealBlock:
    payload = envelope.payload
    return SealBlock(
        epoch=epoch,
        node=node,
        number=payload.block_number,
        parent_hash=payload.parent_hash,
        block_hash=payload.block_hash,
        payload=envelope_to_bytes(envelope),
    )


class Adoption:
    """Takes blocks into the ledger that the own execution client has beyond it.

    They can only be there because an operator overrode the leader while there was no majority. Once this node leads
    again they become the chain, in order, each under the ledger's own rules. A block that contradicts a committed
    flashblock is refused: then somebody else has to lead, until the ledger is beyond it and it can be replaced.
    """

    def __init__(self, raft: RaftNode, node: str, execution_url: str, log: Any) -> None:
        self._raft, self._node, self._log = raft, node, log
        self._blocks = PayloadBackfill([execution_url] if execution_url else [], log)
        self._stuck_to = 0

    async def adopt(self, epoch: int, head_number: int) -> bool:
        """Seal everything up to `head_number` under our epoch; True when it is all in."""
        first = self._raft.ledger.head_number + 1
        for number in range(first, min(head_number, first + ADOPTED_BLOCKS_MAX - 1) + 1):
            envelope = await self._blocks.fetch(number)
            command = None if envelope is None else seal_command(self._raft.ledger, epoch, self._node, envelope)
            outcome = None if command is None else await self._raft.propose(command, COMMIT_S_MAX)
            if not isinstance(outcome, Accepted):
                if outcome is None or is_final(outcome):
                    self._stuck_to = head_number
                self._log.error("a block beyond the ledger is not adopted", block=number, outcome=str(outcome))
                return False
        self._stuck_to = 0
        self._log.error("blocks made without a majority are adopted", first=first, last=head_number, epoch=epoch)
        return True

    @property
    def stuck(self) -> bool:
        """Whether the execution client is on blocks that a majority did not take, and the ledger is not beyond them."""
        return self._raft.ledger.head_number < self._stuck_to

    async def fetch(self, number: int) -> Envelope | None:
        """A block of the own execution client."""
        return await self._blocks.fetch(number)

    async def close(self) -> None:
        """Close the connections."""
        await self._blocks.close()
