"""Which L1 block the next L2 block belongs to (OP specs, protocol/derivation; op-node's origin selector)."""

from __future__ import annotations

from typing import Final

import msgspec

from flashblocks.sequencing.l1 import L1Block, SimulatedL1
from flashblocks.sequencing.references import L2BlockRef
from flashblocks.sequencing.rollup import RollupConfig

L1_CONFIRMATIONS: Final = 0
"""The simulated L1 has no reorgs, so its newest block is taken at once (op-node's default is 4)."""


class NextOriginRequired(Exception):
    """The drift is used up and the next L1 block is not there yet: nothing can be built, ask again later."""


class Origin(msgspec.Struct, frozen=True):
    """The origin of the next block; `no_tx_pool` when its time is beyond the drift, so only deposits may be in it."""

    block: L1Block
    sequence_number: int
    no_tx_pool: bool


def select_origin(config: RollupConfig, l1: SimulatedL1, head: L2BlockRef, now: float) -> Origin:
    """Origin of the block after `head`: the next L1 block as soon as the L2 time has reached it, else the same one.

    Raises NextOriginRequired when the L2 time is past the drift and the next L1 block does not exist at `now`.
    """
    timestamp = head.timestamp + config.block_time_s
    current = l1.block(head.l1_origin.number)
    following = l1.block(current.number + 1)
    is_there = following.number <= l1.head(now).number - L1_CONFIRMATIONS
    if is_there and timestamp >= following.timestamp:
        return _origin(config, following, 0, timestamp)
    if timestamp > current.timestamp + config.max_sequencer_drift_s:
        raise NextOriginRequired(f"block at {timestamp} needs L1 block {following.number}")
    return _origin(config, current, head.sequence_number + 1, timestamp)


def _origin(config: RollupConfig, block: L1Block, sequence_number: int, timestamp: int) -> Origin:
    return Origin(block, sequence_number, timestamp > block.timestamp + config.max_sequencer_drift_s)
