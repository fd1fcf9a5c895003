"""The fallback EL in the builder's place: single flashblocks on whatever it has followed, from its own pool."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from actors.payload_source import OutOfStep
from flashblocks.builder.budget import Limits, budget
from flashblocks.builder.building import Building, Made, build_opening
from flashblocks.builder.bundles import BundlePool
from flashblocks.execution.open_block import OpenBlock
from flashblocks.wire.flashblock import Flashblock

if TYPE_CHECKING:
    from actors.execution_client import ExecutionClient

EXECUTION_S_MAX = 0.060
SLICE_S = 0.004  # then the sockets get a turn


async def stand_in(
    client: ExecutionClient, payload_id: bytes, index: int, opening: Callable[[], tuple[OpenBlock, tuple[bytes, ...]]]
) -> Flashblock:
    """Make flashblock `index` of a payload, adopt it and return it; `opening` gives the block before index 0.

    Filled for at most EXECUTION_S_MAX, the whole gas limit being allowed: nobody else fills this block. Raises
    OutOfStep when another index is next, and what `opening` raises.
    """
    async with client.applying:
        followed = client.follower.open(payload_id)
        expected = 0 if followed is None else followed.last_index + 1
        if index != expected:
            raise OutOfStep(f"index {index} is not next, {expected} is")
        if followed is None:
            block, forced = opening()
            made = build_opening(block, payload_id, forced)
        else:
            made = await _fill(client, payload_id, index, followed.working())
        client.follower.adopt(payload_id, made.flashblock, made.sealed, made.working, transactions=made.transactions)
        return made.flashblock


async def _fill(client: ExecutionClient, payload_id: bytes, index: int, block: OpenBlock) -> Made:
    limits = Limits(gas_limit=block.gas_limit)
    limits = limits.with_da_size(*client.max_da_size).with_gas_limit(client.gas_limit_override)
    building = Building(payload_id, index, block, client.pool, BundlePool(), budget(limits, 1, 1), time.monotonic)
    building.look()
    deadline_s = time.monotonic() + EXECUTION_S_MAX
    exhausted = False
    while not exhausted and time.monotonic() < deadline_s:
        exhausted = building.run(time.monotonic() + SLICE_S, deadline_s)
        await asyncio.sleep(0)
    return building.seal()
