"""Fetching the blocks that a client missed from its peers (`debug_getRawBlock`), until it can follow again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from actors.execution_peers import ExecutionPeers
from actors.rpc_client import RpcRefused, RpcUnknown
from flashblocks.execution.chain import UnknownBlock
from flashblocks.execution.errors import ExecutionError
from flashblocks.execution.header import Block, Header
from flashblocks.execution.store import StoreError
from flashblocks.wire.engine import ForkchoiceState
from flashblocks.wire.hexadecimal import WireError, data, quantity, to_bytes

if TYPE_CHECKING:
    from actors.execution_client import ExecutionClient

WALK_BACK_BLOCKS_MAX = 64  # by parent hash from the target; a deeper gap is filled by number from our head
BATCH_BLOCKS = 32
OFFERED_BLOCKS_MAX = 64
RETRY_S = 0.5
RETRIES_MAX = 20


class ChainBackfill:
    """One target at a time, the newest wanted wins; gives up after a bound and waits to be asked again."""

    def __init__(self, client: ExecutionClient, peer_urls: Sequence[str], log: Any) -> None:
        self.client, self.log = client, log
        self.peers = ExecutionPeers(peer_urls)
        self.target_number: int | None = None
        self._target: bytes | None = None
        self._forkchoice: ForkchoiceState | None = None
        self._offered: dict[bytes, Block] = {}
        self._wake = asyncio.Event()

    def want(self, block_hash: bytes, forkchoice: ForkchoiceState | None = None) -> None:
        """Get this block and its ancestors; with `forkchoice`, make it the head when it is there."""
        if forkchoice is not None:
            self._forkchoice = forkchoice
        if self._target != block_hash:
            self._target = block_hash
            self._wake.set()

    def offer(self, block: Block) -> None:
        """A block whose parent is missing: keep it, so that it need not be fetched, and get the parent."""
        while len(self._offered) >= OFFERED_BLOCKS_MAX:
            del self._offered[next(iter(self._offered))]
        self._offered[block.hash] = block
        self.want(block.hash)

    def reached(self, block_hash: bytes) -> None:
        """Forkchoice chose a head that is here: an older wish is void."""
        self._forkchoice = None
        if self._target == block_hash:
            self._target = None

    async def run(self) -> None:
        """Fetch whenever something is wanted, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            for _ in range(RETRIES_MAX):
                if self._target is None or await self._reach(self._target):
                    break
                try:
                    async with asyncio.timeout(RETRY_S):
                        await self._wake.wait()  # a newer target is tried at once
                    self._wake.clear()
                except TimeoutError:
                    pass
            else:
                self._target = None  # given up: the next wish begins anew
            self.target_number = None

    async def close(self) -> None:
        """Close the connections to the peers."""
        await self.peers.close()

    async def _reach(self, target: bytes) -> bool:
        """Import everything up to `target`; False when it could not be had now."""
        try:
            done = await self._import_up_to(target)
        except (RpcRefused, RpcUnknown, WireError, ExecutionError, StoreError) as error:
            self.log.warning("backfill failed", target=target, error=str(error))
            return False
        if done and self._target == target:
            self._target = None
            self._offered.clear()
            self._choose_head()
        return done

    def _choose_head(self) -> None:
        """What the op-node chose while the block was missing holds now."""
        forkchoice, self._forkchoice = self._forkchoice, None
        if forkchoice is None or self.client.chain.loaded(forkchoice.head) is None:
            return
        known = [each if each in self.client.chain else bytes(32) for each in (forkchoice.safe, forkchoice.finalized)]
        try:
            self.client.set_head(forkchoice.head, known[0], known[1])
        except UnknownBlock as error:
            self.log.warning("backfilled head cannot be chosen", error=str(error))

    async def _import_up_to(self, target: bytes) -> bool:
        missing = [await self._fetch(target)]
        self.target_number = missing[0].header.number
        while not self._can_import(missing[-1]) and len(missing) < WALK_BACK_BLOCKS_MAX:
            missing.append(await self._fetch(missing[-1].header.parent_hash))
        if not self._can_import(missing[-1]):
            await self._import_by_number(missing[-1].header.number)
        for block in reversed(missing):
            if not await self._import(block):
                return False
        self.log.info("backfilled", number=missing[0].header.number, blocks=len(missing))
        return True

    def _can_import(self, block: Block) -> bool:
        return self.client.follower.parent_of(block.header.parent_hash) is not None

    async def _import_by_number(self, end: int) -> None:
        """Import the peers' canonical blocks from where our chains part, up to but not including `end`."""
        number = await self._first_to_import(end)
        while number < end:
            count = min(BATCH_BLOCKS, end - number)
            calls = [("debug_getRawBlock", [quantity(number + offset)]) for offset in range(count)]
            for answer in await self.peers.call_many(calls):
                block = Block.from_rlp(to_bytes(answer, None, "raw block"))
                if not await self._import(block):
                    raise WireError(f"block {block.header.number} does not continue our chain")
                number = block.header.number + 1

    async def _first_to_import(self, end: int) -> int:
        """The height above the newest block that the peers' chain and ours share, looking back ever further."""
        chain = self.client.chain
        number, stride = min(chain.head.number, end - 1), 1
        while number > chain.first.number:
            answer = await self.peers.call("debug_getRawHeader", quantity(number))
            theirs = Header.from_rlp(to_bytes(answer, None, "raw header"))
            if chain.canonical_hash(number) == theirs.hash:
                break
            number, stride = max(number - stride, chain.first.number), stride * 2
        return number + 1

    async def _fetch(self, block_hash: bytes) -> Block:
        offered = self._offered.get(block_hash)
        if offered is not None:
            return offered
        raw = to_bytes(await self.peers.call("debug_getRawBlock", data(block_hash)), None, "raw block")
        block = Block.from_rlp(raw)
        if block.hash != block_hash:
            raise WireError(f"asked for block 0x{block_hash.hex()}, got 0x{block.hash.hex()}")
        return block

    async def _import(self, block: Block) -> bool:
        imported = await self.client.import_block(block)
        return imported.status == "VALID"
