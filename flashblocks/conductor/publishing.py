"""What goes to the public stream, and when: only what is committed, only by the owner of the epoch, in order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from flashblocks.conductor.ledger_shape import CommittedBlock, CommittedFlashblock, LedgerState
from flashblocks.wire.frames import FlashblockFrame

REPLAY_FRAMES_MAX: Final = 4096


def frame_of(block: CommittedBlock, entry: CommittedFlashblock, epoch: int) -> FlashblockFrame:
    """A committed flashblock as a frame of `epoch`."""
    assert block.payload_id is not None, "a fallback block has no flashblocks"
    return FlashblockFrame(
        epoch,
        block.number,
        entry.index,
        block.payload_id,
        block.parent_hash,
        entry.block_hash,
        entry.digest,
        entry.traceparent,
        entry.body,
    )


def open_frames(ledger: LedgerState) -> list[FlashblockFrame]:
    """The open block's frames: what a rollup-boost that just connected has to know."""
    return list(_frames(ledger.open, ledger.epoch)) if ledger.open is not None else []


def frames_to_republish(ledger: LedgerState, epoch: int) -> list[FlashblockFrame]:
    """What a new leader repeats under its epoch: the last sealed block and the open one.

    The old leader may have died between a commit and its publication; listeners drop what they have seen.
    """
    frames = list(_frames(ledger.sealed_blocks[-1], epoch)) if ledger.sealed_blocks else []
    return frames + (list(_frames(ledger.open, epoch)) if ledger.open is not None else [])


def frames_from(ledger: LedgerState, number: int, index: int) -> list[FlashblockFrame]:
    """The committed frames from (number, index) on, as far as the ledger's window reaches, at most REPLAY_FRAMES_MAX.

    They carry the current epoch: what is committed is true in every later one.
    """
    frames: list[FlashblockFrame] = []
    blocks: list[CommittedBlock] = [block for block in ledger.sealed_blocks if block.number >= number]
    if ledger.open is not None and ledger.open.number >= number:
        blocks.append(ledger.open)
    for block in blocks:
        frames += [frame for frame in _frames(block, ledger.epoch) if frame.key >= (number, index)]
        if len(frames) >= REPLAY_FRAMES_MAX:
            return frames[:REPLAY_FRAMES_MAX]
    return frames


def _frames(block: CommittedBlock, epoch: int) -> Iterator[FlashblockFrame]:
    return (frame_of(block, entry, epoch) for entry in block.entries)


class Publisher:
    """Decides for every event of the ledger whether this node publishes it.

    It does from its own accepted claim on, until it loses Raft's leadership or sees another claim – whichever is
    first. What it committed but did not publish is repeated by its successor.
    """

    def __init__(self, node: str) -> None:
        self._node = node
        self._epoch: int | None = None

    @property
    def epoch(self) -> int | None:
        """The epoch this node publishes in, or None."""
        return self._epoch

    def on_claimed(self, epoch: int, node: str, leading: bool) -> bool:
        """A claim was committed; True if it is ours and we still lead: republish now."""
        self._epoch = epoch if node == self._node and leading else None
        return self._epoch is not None

    def on_leadership_lost(self) -> None:
        """Raft says that somebody else may lead."""
        self._epoch = None

    def publishes(self, epoch: int, node: str) -> bool:
        """Whether an append of that epoch and node, committed just now, is ours to publish."""
        return self._epoch is not None and epoch == self._epoch and node == self._node
