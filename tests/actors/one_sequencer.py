"""A sequencer of one, for tests of what stands behind the stream: a real fallback EL, its pool, and a frame server.

The test says when a flashblock comes and when a block is sealed; `run` does it by the clock.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import structlog

from actors.fallback_el import FallbackEl
from actors.fallback_el import Settings as FallbackElSettings
from actors.fanout import Query
from actors.frame_link import FrameServer
from actors.rpc_node import RpcNode
from actors.rpc_node import Settings as RpcNodeSettings
from flashblocks.execution.errors import InvalidTransaction
from flashblocks.execution.follow import flashblock_from
from flashblocks.execution.header import Header
from flashblocks.execution.open_block import OpenBlock, Sealed
from flashblocks.execution.state import WorldState
from flashblocks.wire.flashblock import encode_body
from flashblocks.wire.frames import FlashblockFrame, frame_of
from flashblocks.wire.payload_id import payload_id
from tests.execution.forge import Forge

LOG = structlog.get_logger()
WAIT_S_MAX = 20.0


async def until(condition: Callable[[], Any], what: str) -> Any:
    """Wait for a fact of another task or process; fails loudly when it does not come."""
    deadline = time.monotonic() + WAIT_S_MAX
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not true after {WAIT_S_MAX} s")
        await asyncio.sleep(0.005)
    return value


class OneSequencer:
    """Builds one block after the other out of the EL's pool and shows it flashblock by flashblock."""

    def __init__(self, directory: Path, *, genesis_time: int | None = None) -> None:
        self.forge = Forge()
        genesis = self.forge.genesis
        if genesis_time is not None:
            genesis = genesis | {"timestamp": hex(genesis_time)}
        self.genesis_path = directory / "genesis.json"
        self.genesis_path.write_text(json.dumps(genesis))
        self.el = FallbackEl(
            FallbackElSettings(name="el-0", engine_port=0, rpc_port=0, genesis_path=str(self.genesis_path)), LOG
        )
        self.proxy = FrameServer("127.0.0.1", 0, "/ws", greet=self._greet)
        self.epoch = 1
        self.frames: list[FlashblockFrame] = []
        self.withheld: set[tuple[int, int]] = set()  # (block, index) that are not published, only resent
        self.resendable = True
        self._working: OpenBlock | None = None
        self._index = -1
        self._payload_id = b""
        self.sealed_blocks: list[Sealed] = []
        self._running: asyncio.Task[None] | None = None

    @property
    def rpc_url(self) -> str:
        return self.el.client.rpc_server.url

    @property
    def stream_url(self) -> str:
        return f"ws://127.0.0.1:{self.proxy.port}/ws"

    async def start(self) -> None:
        await self.el.start()
        await self.proxy.start()

    async def close(self) -> None:
        await self.proxy.close()
        await self.el.close()

    def _greet(self, query: Query) -> list[FlashblockFrame]:
        if query.start is None or not self.resendable:
            return []
        return [frame for frame in self.frames if frame.key >= tuple(query.start)]

    # Building -------------------------------------------------------------------------------------------------------

    def parent(self) -> tuple[Header, WorldState]:
        if self.sealed_blocks:
            return self.sealed_blocks[-1].header, self.sealed_blocks[-1].state
        head = self.el.client.chain.head
        assert head.state is not None
        return head.header, head.state

    def begin(self, *, randao: int = 7) -> FlashblockFrame:
        """Open the next block and show its index 0."""
        header, state = self.parent()
        attributes = self.forge.attributes(header, randao=randao)
        self._payload_id = payload_id(header.hash, attributes)
        self._working = OpenBlock.start(self.el.client.spec, header, state, attributes)
        self._index = -1
        return self.flashblock(*attributes.transactions, from_pool=False)

    def flashblock(self, *raws: bytes, from_pool: bool = True) -> FlashblockFrame:
        """Show the next flashblock with these transactions and, if wanted, all that the pool has ready."""
        working = self._working
        assert working is not None
        before = working.transaction_count
        for raw in raws:
            working.append(raw)
        if from_pool:
            self._take_from_pool(working)
        self._index += 1
        sealed = working.seal()
        made = flashblock_from(self._payload_id, self._index, sealed, working.new_account_balances(), before)
        frame = frame_of(made, encode_body(made), working.parent_hash, epoch=self.epoch)
        self.frames.append(frame)
        del self.frames[:-200]
        if frame.key not in self.withheld:
            self.proxy.publish(frame)
        return frame

    def _take_from_pool(self, working: OpenBlock) -> None:
        best = self.el.client.pool.best(working.base_fee, working.state.get_nonce)
        for transaction in best:
            try:
                working.append(transaction)
            except InvalidTransaction:
                best.invalidate()

    async def seal(self) -> Sealed:
        """The open block is the chain's next one; the EL has it."""
        assert self._working is not None
        sealed = self._working.seal()
        self._working = None
        await self.seal_instead(sealed)
        return sealed

    async def seal_instead(self, sealed: Sealed) -> None:
        """This block is the chain's next one, whatever was shown."""
        self._working = None
        imported = await self.el.client.import_block(sealed.block)
        assert imported.status == "VALID", imported
        self.el.client.set_head(sealed.header.hash, bytes(32), bytes(32))
        self.sealed_blocks.append(sealed)
        del self.sealed_blocks[:-8]

    # By the clock ---------------------------------------------------------------------------------------------------

    async def run(self, *, flashblock_s: float = 0.2, per_block: int = 10) -> None:
        """Index 0, `per_block` flashblocks, sealed; for ever."""
        while True:
            began = time.monotonic()
            self.begin()
            for turn in range(per_block):
                await asyncio.sleep(max(0.0, began + flashblock_s * (turn + 1) - time.monotonic()))
                self.flashblock()
            await self.seal()


@asynccontextmanager
async def node_behind(
    sequencer: OneSequencer, *, ingress_urls: list[str] | None = None, **changes: Any
) -> AsyncIterator[RpcNode]:
    """An rpc-node that follows this sequencer, and is on its stream."""
    settings = {
        "name": "rpc-0",
        "port": 0,
        "genesis_path": str(sequencer.genesis_path),
        "stream_urls": [sequencer.stream_url],
        "execution_urls": [sequencer.rpc_url],
        "ingress_urls": ingress_urls or [],
    }
    node = RpcNode(RpcNodeSettings(**(settings | changes)), LOG)
    await node.start()
    running = asyncio.create_task(node.run())
    try:
        await until(lambda: node.follower.streams_up() or running.done(), "the node is on the stream")
        yield node
        assert not running.done(), running.exception()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await node.close()
