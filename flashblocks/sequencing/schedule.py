"""When to start and when to seal a block (op-node, rollup/sequencing/sequencer.go); times in Unix seconds."""

from __future__ import annotations

from typing import Final

SEALING_DURATION_S: Final = 0.050
"""How long before its timestamp a block is sealed, to leave time for commit and insertion."""


def build_start(now: float, timestamp: int, block_time_s: float) -> float:
    """When to start building the block of `timestamp`: at once, but never more than one block time ahead of it."""
    return max(now, timestamp - block_time_s)


def seal_start(now: float, timestamp: int, sealing_duration_s: float = SEALING_DURATION_S) -> float:
    """When to seal it: shortly before its time; at once where that has passed, so that a late chain catches up."""
    return max(now, timestamp - sealing_duration_s)
