"""The op-node's chain on its engine: the head, imports in order, the labels – one engine call sequence at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from actors.engine_client import EngineClient, EngineRefused, EngineUnknown
from flashblocks.sequencing.l1 import SimulatedL1
from flashblocks.sequencing.labels import Labels
from flashblocks.sequencing.payload_queue import Arrival, PayloadQueue
from flashblocks.sequencing.references import L2BlockRef, reference_of_block, reference_of_payload
from flashblocks.sequencing.rollup import RollupConfig
from flashblocks.wire.engine import Envelope, ForkchoiceState, PayloadAttributes
from flashblocks.wire.hexadecimal import WireError, quantity, to_bytes

IMPORTS_PER_TURN_MAX = 64


class OpNodeChain:
    """What the engine holds and how it is moved on. `on_head(head)` is called after every change, on the loop."""

    def __init__(
        self,
        config: RollupConfig,
        l1: SimulatedL1,
        engine: EngineClient,
        log: Any,
        on_head: Callable[[L2BlockRef], None],
    ) -> None:
        self.head: L2BlockRef | None = None
        self.labels = Labels(
            L2BlockRef(
                hash=config.genesis_hash,
                number=0,
                parent_hash=b"\0" * 32,
                timestamp=config.genesis_time,
                l1_origin=config.genesis_l1,
                sequence_number=0,
            )
        )
        self.queue = PayloadQueue()
        self._config = config
        self._l1 = l1
        self._engine = engine
        self._log = log
        self._on_head = on_head
        self._turn = asyncio.Lock()

    async def refresh(self) -> None:
        """Read head and labels from the engine; raises EngineRefused or EngineUnknown."""
        async with self._turn:
            head = await self._reference("latest")
            if head is None:
                raise EngineRefused("the engine has no latest block")
            self.labels.resume(await self._reference("safe"), await self._reference("finalized"))
            if self.head is None or head.hash != self.head.hash:
                self._log.info("head of the engine", block=head.number, hash=head.hash)
                self._set_head(head)

    async def _reference(self, tag: str) -> L2BlockRef | None:
        try:
            block = await self._engine.block(tag)
            return None if block is None else reference_of_block(block, self._config.genesis_l1)
        except (EngineRefused, WireError) as error:
            if tag == "latest":
                raise EngineRefused(f"{tag}: {error}") from error
            return None  # a client that knows no such label yet

    async def start_build(
        self, head: L2BlockRef, attributes: PayloadAttributes, headers: dict[str, str] | None = None
    ) -> bytes:
        """Have the engine build on `head`; the payload id."""
        async with self._turn:
            return await self._engine.start_build(self._state(head), attributes, headers)

    async def insert(self, envelope: Envelope, headers: dict[str, str] | None = None) -> L2BlockRef:
        """Make a committed payload the head: newPayload, forkchoiceUpdated; raises EngineRefused or EngineUnknown."""
        async with self._turn:
            if self.head is not None and self.head.hash == envelope.payload.block_hash:
                return self.head
            return await self._insert(envelope, headers)

    async def take(self, envelope: Envelope, headers: dict[str, str] | None = None) -> Arrival:
        """A committed payload arrived: import it, and those that waited for it, or keep it until its turn."""
        async with self._turn:
            if self.head is None:
                raise EngineUnknown("the head of the engine is not known yet")
            await self._look_up(envelope.payload.block_number, self.head.number)
            arrival = self.queue.add(envelope, self.head)
            if arrival in (Arrival.NEXT, Arrival.REPLACES):
                head = await self._insert(envelope, headers)
                for _ in range(IMPORTS_PER_TURN_MAX):
                    waiting = self.queue.next(head)
                    if waiting is None:
                        break
                    head = await self._insert(waiting)
            return arrival

    async def _look_up(self, number: int, head_number: int) -> None:
        """Learn which block the engine has at a height below the head, where we were not there when it came."""
        if number >= head_number or self.queue.knows(number):
            return
        block = await self._engine.block(quantity(number))
        if block is not None:
            self.queue.learn(number, to_bytes(block.get("hash"), 32, "hash"))

    async def _insert(self, envelope: Envelope, headers: dict[str, str] | None = None) -> L2BlockRef:
        try:
            head = reference_of_payload(envelope.payload)
        except WireError as error:
            raise EngineRefused(f"payload: {error}") from error
        await self._engine.new_payload(envelope, headers)
        await self._engine.set_head(self._state(head), headers)
        self._set_head(head)
        return head

    def _set_head(self, head: L2BlockRef) -> None:
        self.head = head
        self.queue.on_head(head)
        self.labels.on_head(head, self._l1.head(time.time()).number)
        self._on_head(head)

    def _state(self, head: L2BlockRef) -> ForkchoiceState:
        return ForkchoiceState(head.hash, self.labels.safe.hash, self.labels.finalized.hash)
