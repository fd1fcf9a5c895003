"""Safe and finalized heads of a chain without a batcher: blocks whose L1 origin is deep enough under the L1's head.

On a real chain a block is safe when its batch is on L1, and finalized when that L1 block is. The simulated L1 takes
the batches for granted, so both labels only follow the depth of the origin; blocks here are final with their commit.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from flashblocks.sequencing.references import L2BlockRef

SAFE_DEPTH_L1_BLOCKS: Final = 2
FINALIZED_DEPTH_L1_BLOCKS: Final = 64
REMEMBERED_BLOCKS_MAX: Final = 1024


class Labels:
    """Follows the heads as they come and says which block is safe and which is finalized; neither ever goes back."""

    def __init__(self, genesis: L2BlockRef) -> None:
        self.safe = genesis
        self.finalized = genesis
        self._recent: deque[L2BlockRef] = deque(maxlen=REMEMBERED_BLOCKS_MAX)

    def resume(self, safe: L2BlockRef | None, finalized: L2BlockRef | None) -> None:
        """Take over what the execution client remembers from before a restart."""
        if safe is not None and safe.number > self.safe.number:
            self.safe = safe
        if finalized is not None and finalized.number > self.finalized.number:
            self.finalized = finalized

    def on_head(self, head: L2BlockRef, l1_head_number: int) -> None:
        """A new head; an earlier one of the same height was replaced."""
        while self._recent and self._recent[-1].number >= head.number:
            self._recent.pop()
        self._recent.append(head)
        self.safe = self._newest(self.safe, l1_head_number - SAFE_DEPTH_L1_BLOCKS)
        self.finalized = self._newest(self.finalized, l1_head_number - FINALIZED_DEPTH_L1_BLOCKS)

    def _newest(self, current: L2BlockRef, origin_max: int) -> L2BlockRef:
        for block in reversed(self._recent):
            if block.number <= current.number:
                break
            if block.l1_origin.number <= origin_max:
                return block
        return current
