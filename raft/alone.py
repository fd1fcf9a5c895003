"""A copy of the ledger that goes on without a majority, because an operator said so.

It begins with everything in this node's log, committed or not: what a leader streamed just before it died with the
majority may be here without anybody being left to say that it was committed. It goes on under the ledger's own rules
and in the newest epoch of that log, so every later leader's claim fences it. Pure, like the ledger.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from raft.commands import Accepted, Append, Claim, Claimed, Command, Event, Restored, Seal, Sealed
from raft.ledger import Ledger, Outcome
from raft.view import LedgerView, OpenBlock, SealedBlock, snapshot_parts

EPOCH_FIRST: Final = 1
"""The epoch of a cluster in which nobody ever led."""


class AloneLedger:
    """`view` is what this node knows to be committed, `log` the commands that its log has after that."""

    def __init__(self, view: LedgerView, log: Iterable[Command], node: str) -> None:
        log = list(log)
        self.epoch = max([view.epoch, EPOCH_FIRST, *(one.epoch for one in log if isinstance(one, Claim))])
        self.node = node
        self.began_at = view.head_number
        """The newest block that a majority is known to have sealed."""
        self._first: SealedBlock | None = None
        self._ledger = Ledger(view.head_number, view.head_hash)
        owned = msgspec.structs.replace(view, epoch=self.epoch, owner=node)
        self._ledger.restore(b"".join(snapshot_parts(owned)))
        for command in log:
            self.apply(command)

    @property
    def view(self) -> LedgerView:
        """The state; it continues the committed one."""
        return self._ledger.view

    def apply(self, command: Command) -> Outcome:
        """Carry out a command in this ledger's epoch, whatever the command's own was; a claim changes nothing."""
        if isinstance(command, Claim):
            return Accepted(duplicate=True), ()
        outcome = self._ledger.apply(msgspec.structs.replace(command, epoch=self.epoch, node=self.node))
        if self._first is None and self.view.head_number > self.began_at:
            self._first = self.view.sealed(self.began_at + 1)
        return outcome

    def begin_at(self, number: int, block_hash: bytes) -> None:
        """Go on upon a block that this ledger does not have: the execution client alone has it."""
        self._ledger = Ledger(number, block_hash)
        self._ledger.apply(Claim(self.epoch, self.node))

    def block(self, number: int) -> SealedBlock | None:
        """A block sealed here, if it is still kept. The first one is: it continues what a majority began."""
        return self._first if self._first is not None and number == self._first.number else self.view.sealed(number)

    def agrees(self, event: Event) -> bool:
        """Whether what a majority did is part of what is here, so that nothing here is contradicted by it."""
        if event.epoch > self.epoch:
            return False
        if isinstance(event, Claimed):
            return True  # an older leadership, whose claim was in this log
        if event.number <= self.began_at:
            return True
        block = self.block(event.number)
        if isinstance(event, Sealed | Restored):
            return block is not None and block.block_hash == event.block_hash
        entries = block.entries if block is not None else ()
        if self.view.open is not None and self.view.open.number == event.number:
            entries = self.view.open.entries
        return event.index < len(entries) and entries[event.index].digest == event.digest


def appends(block: SealedBlock | OpenBlock, epoch: int, node: str) -> list[Append]:
    """The flashblocks of a block as commands of another epoch and owner."""
    assert block.payload_id is not None, "a block without flashblocks has no payload id"
    payload_id = block.payload_id
    return [
        Append(
            epoch=epoch,
            node=node,
            payload_id=payload_id,
            number=block.number,
            index=entry.index,
            parent_hash=block.parent_hash,
            block_hash=entry.block_hash,
            digest=entry.digest,
            body=entry.body,
            traceparent=entry.traceparent,
        )
        for entry in block.entries
    ]


def seal(block: SealedBlock, epoch: int, node: str) -> Seal:
    """The seal of a block of flashblocks as a command of another epoch and owner."""
    assert block.payload_id is not None, "a block without flashblocks has no payload id"
    return Seal(
        epoch=epoch,
        node=node,
        number=block.number,
        payload_id=block.payload_id,
        last_index=len(block.entries) - 1,
        block_hash=block.block_hash,
    )
