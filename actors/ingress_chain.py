"""What the ingress knows of the chain: the next block's terms, senders' accounts, and which transactions are in.

Flashblocks tell it first, where there is a stream; sealed blocks, asked of any execution client, have the last word.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from typing import Any, Protocol

from actors.execution_peers import ExecutionPeers, expect_object
from actors.frame_link import FrameClient
from actors.rpc_client import RpcRefused, RpcUnknown
from flashblocks.execution.transaction import Transaction
from flashblocks.ingress.accounts import Accounts
from flashblocks.ingress.admission import AccountFacts, Terms
from flashblocks.wire.flashblock import Flashblock, decode_body
from flashblocks.wire.flashblock_json import decode_json
from flashblocks.wire.frames import FlashblockFrame, Frame
from flashblocks.wire.hexadecimal import WireError, data, quantity, to_bytes, to_int
from flashblocks.wire.jsonrpc import SERVER_ERROR, RpcError
from flashblocks.wire.keccak import keccak256

FOLLOW_S = 0.5
BLOCKS_PER_STEP_MAX = 32
SEEN_FLASHBLOCKS_MAX = 512


class Watcher(Protocol):
    """Who wants to know, and knows what is on its way."""

    def held(self, tx_hash: bytes) -> Transaction | None:
        """The transaction, while it is on its way."""

    def shown(self, context: str, number: int, index: int, hashes: Sequence[bytes]) -> None:
        """A flashblock holds these; `context` is its frame's trace."""

    def sealed(self, number: int, hashes: Sequence[bytes]) -> None:
        """A sealed block holds these."""


class IngressChain:
    """Follows stream and blocks for one ingress."""

    def __init__(self, stream_urls: Sequence[str], execution_urls: Sequence[str], watcher: Watcher, log: Any) -> None:
        self.terms: Terms | None = None
        self.sealed_number: int | None = None
        self.stream_number = -1
        self._watcher, self._log = watcher, log
        self._accounts = Accounts()
        self._peers = ExecutionPeers(execution_urls)
        self._streams = [FrameClient(url, self._on_frame, on_foreign=self._on_foreign) for url in stream_urls]
        self._new_block = asyncio.Event()
        self._seen: dict[bytes, None] = {}
        self._asking: dict[bytes, asyncio.Task[AccountFacts | None]] = {}

    async def start(self) -> None:
        """Begin to connect."""
        for stream in self._streams:
            await stream.start()

    async def run(self) -> None:
        """Follow until cancelled; ends only with our own bug."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow_blocks())
            for stream in self._streams:
                tasks.create_task(stream.run())

    async def close(self) -> None:
        """Let go of everything."""
        for stream in self._streams:
            await stream.close()
        asking = list(self._asking.values())
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        await self._peers.close()

    # Accounts and terms ---------------------------------------------------------------------------------------------

    async def account(self, sender: bytes) -> AccountFacts | None:
        """What is known of the sender, asked once however many of its transactions come at the same time."""
        known = self._accounts.get(sender, time.monotonic())
        if known is not None:
            return known
        asking = self._asking.get(sender)
        if asking is None:
            asking = self._asking[sender] = asyncio.create_task(self._ask_account(sender))
            asking.add_done_callback(lambda _: self._asking.pop(sender, None))
        return await asyncio.shield(asking)

    async def _ask_account(self, sender: bytes) -> AccountFacts | None:
        address = data(sender)
        try:
            nonce, balance = await self._peers.call_many(
                [("eth_getTransactionCount", (address, "latest")), ("eth_getBalance", (address, "latest"))]
            )
            facts = AccountFacts(to_int(nonce), to_int(balance))
        except (RpcUnknown, RpcRefused, WireError) as error:
            self._log.warning("account unknown, the pools will judge", address=address, error=str(error))
            return None
        return self._accounts.learn(sender, facts, time.monotonic())

    async def learn_terms(self) -> Terms:
        """The next block's terms, asked for where they are not known; raises RpcError when nobody answers."""
        if self.terms is not None:
            return self.terms
        try:
            chain_id, block = await self._peers.call_many(
                [("eth_chainId", ()), ("eth_getBlockByNumber", ("latest", False))]
            )
            self._set_terms(to_int(chain_id), expect_object(block, "block"))
        except (RpcUnknown, RpcRefused, WireError) as error:
            raise RpcError(SERVER_ERROR, f"no execution client answers: {error}; try again") from None
        assert self.terms is not None
        return self.terms

    def _set_terms(self, chain_id: int, block: dict[str, Any]) -> None:
        number = to_int(block.get("number"))
        # The stream's open block knows the fee better than a sealed one.
        if self.terms is None or number >= self.stream_number:
            self.terms = Terms(chain_id, to_int(block.get("gasLimit")), to_int(block.get("baseFeePerGas")))

    # The stream and the blocks --------------------------------------------------------------------------------------

    def _on_frame(self, frame: Frame) -> None:
        if isinstance(frame, FlashblockFrame) and frame.digest not in self._seen:
            try:
                self._on_flashblock(decode_body(frame.body), frame.traceparent)
            except WireError as error:
                self._log.warning("unreadable flashblock", error=str(error))
                return
            self._seen[frame.digest] = None
            if len(self._seen) > SEEN_FLASHBLOCKS_MAX:
                del self._seen[next(iter(self._seen))]

    def _on_foreign(self, message: str | bytes) -> None:
        with contextlib.suppress(WireError):
            self._on_flashblock(decode_json(message))

    def _on_flashblock(self, flashblock: Flashblock, context: str = "") -> None:
        number, base = flashblock.number, flashblock.base
        if number > self.stream_number:
            self.stream_number = number
            self._new_block.set()
        if base is not None and self.terms is not None and number == self.stream_number:
            self.terms = Terms(self.terms.chain_id, base.gas_limit, base.base_fee_per_gas)
        self._accounts.flashblock(number, flashblock.metadata.new_account_balances)
        hashes = tuple(flashblock.metadata.receipts) or tuple(keccak256(raw) for raw in flashblock.diff.transactions)
        for tx_hash in hashes:
            transaction = self._watcher.held(tx_hash)
            if transaction is not None:
                self._accounts.included(transaction.sender, transaction.nonce)
        self._watcher.shown(context, number, flashblock.index, hashes)

    async def _follow_blocks(self) -> None:
        """Which transactions the sealed blocks really hold, in block order, with or without a stream."""
        while True:
            with contextlib.suppress(RpcUnknown, RpcRefused, WireError):
                await self._read_new_blocks()
            self._new_block.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FOLLOW_S):
                    await self._new_block.wait()

    async def _read_new_blocks(self) -> None:
        chain_id, latest = await self._peers.call_many(
            [("eth_chainId", ()), ("eth_getBlockByNumber", ("latest", False))]
        )
        block = expect_object(latest, "block")
        self._set_terms(to_int(chain_id), block)
        newest = to_int(block.get("number"))
        if self.sealed_number is None:
            self.sealed_number = newest - 1
        first = max(self.sealed_number + 1, newest - BLOCKS_PER_STEP_MAX)
        for number in range(first, newest + 1):
            if number != newest:
                block = expect_object(await self._peers.call("eth_getBlockByNumber", quantity(number), False), "block")
            else:
                block = expect_object(latest, "block")
            self._watcher.sealed(number, [to_bytes(tx_hash, 32) for tx_hash in block.get("transactions", [])])
            self.sealed_number = number
