"""Python's cyclic collector, kept off the hot path: it runs between blocks, mostly over what the last block left.

The state is made of acyclic nodes that reference counting frees; what the collector finds are exceptions and frames.
Left to itself it walks hundreds of thousands of trie nodes in the middle of a flashblock. After each block the young
generations are collected, which costs little however large the state is; the old one follows once in many blocks.
"""

from __future__ import annotations

import gc

FULL_EVERY_BLOCKS = 900
YOUNG_GENERATION = 1
OLD_GENERATION = 2


class BlockCollector:
    """Switches the automatic collector off while it is entered; `between_blocks` does its work."""

    def __init__(self) -> None:
        self._was_enabled = False
        self._blocks = 0

    def __enter__(self) -> BlockCollector:
        self._was_enabled = gc.isenabled()
        gc.collect()
        gc.freeze()  # modules and the opened chain: nothing of them becomes garbage
        gc.disable()
        return self

    def between_blocks(self) -> int:
        """Free what is left in cycles; returns how many objects that were."""
        self._blocks += 1
        return gc.collect(OLD_GENERATION if self._blocks % FULL_EVERY_BLOCKS == 0 else YOUNG_GENERATION)

    def __exit__(self, *_: object) -> None:
        gc.unfreeze()
        if self._was_enabled:
            gc.enable()
