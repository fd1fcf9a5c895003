"""Plain payloads: the forced transactions, then what pays best, improved until the payload is asked for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from actors.payload_source import UnknownPayload
from actors.stand_in import stand_in
from flashblocks.execution.claims import flashblock_from
from flashblocks.execution.errors import InvalidAttributes, InvalidTransaction, OutOfTime
from flashblocks.execution.fees import l1_gas_used
from flashblocks.execution.header import Header
from flashblocks.execution.open_block import OpenBlock
from flashblocks.execution.payloads import envelope_of
from flashblocks.execution.transaction import Transaction
from flashblocks.wire.engine import Envelope, PayloadAttributes
from flashblocks.wire.flashblock import Flashblock

if TYPE_CHECKING:
    from actors.execution_client import ExecutionClient

BUILDS_MAX = 4
FILL_SLICE_S = 0.010  # the sockets get a turn after this much work
FILL_PAUSE_S = 0.200  # between looks at the pool
LAST_FILL_S = 0.030
TRANSACTION_S_MAX = 0.200
BUILD_LIFETIME_S = 20.0
L1_GAS_PER_BYTE = 16


class PlainBuild:
    """One block being filled. What is in it stays; better-paying latecomers come after."""

    def __init__(
        self, client: ExecutionClient, payload_id: bytes, parent: Header, attributes: PayloadAttributes
    ) -> None:
        """Execute the forced transactions; raises InvalidAttributes when one of them cannot be executed."""
        state = client.chain.state(parent.hash)
        assert state is not None, "builds begin on the head"
        self.client, self.payload_id, self.attributes = client, payload_id, attributes
        hashes = client.chain.ancestor_hashes(parent.hash)
        self.open = partial(OpenBlock.start, client.spec, parent, state, attributes, block_hashes=hashes)
        self.block = self.open()
        for position, raw in enumerate(attributes.transactions):
            try:
                self.block.append(raw)
            except InvalidTransaction as error:
                raise InvalidAttributes(f"forced transaction {position}: {error}") from error
        self.task: asyncio.Task[None] | None = None
        self._revision_seen = -1

    async def fill(self) -> None:
        """Add from the pool whenever it has changed, until cancelled or too old.

        While flashblocks of the same payload come in, the builder fills the block and this one would go unused.
        """
        deadline = time.monotonic() + BUILD_LIFETIME_S
        while time.monotonic() < deadline:
            await asyncio.sleep(FILL_PAUSE_S)
            if self.client.follower.open(self.payload_id) is None and self._revision_seen != self.client.pool.revision:
                self._revision_seen = self.client.pool.revision
                await self._fill_once()

    async def _fill_once(self) -> None:
        paused = time.perf_counter()
        for _ in self._added(TRANSACTION_S_MAX):
            if time.perf_counter() - paused > FILL_SLICE_S:
                await asyncio.sleep(0)
                paused = time.perf_counter()

    def flashblocks(self) -> list[Flashblock]:
        """The finished block as flashblocks: index 0 with the forced transactions, index 1 with the rest, if any."""
        opening, forced = self.open(), len(self.attributes.transactions)
        for raw in self.attributes.transactions:
            opening.append(raw)
        made = [flashblock_from(self.payload_id, 0, opening.seal(), opening.new_account_balances(), 0)]
        sealed = self.block.seal()
        if len(sealed.transactions) > forced:
            made.append(flashblock_from(self.payload_id, 1, sealed, self.block.new_account_balances(), forced))
        return made

    def fill_rest(self, seconds: float) -> None:
        """Add from the pool for at most `seconds`, without a pause: the payload is about to be taken."""
        deadline = time.perf_counter() + seconds
        for _ in self._added(seconds):
            if time.perf_counter() > deadline:
                return

    def _added(self, transaction_s_max: float) -> Iterator[None]:
        """Try the pool's transactions in the order in which they pay; yields after each.

        One that runs longer than `transaction_s_max` is left out, for a block that has more time.
        """
        best = self.client.pool.best(self.block.base_fee, self.block.state.get_nonce)
        for tx in best:
            try:
                if self._fits(tx):
                    deadline = time.perf_counter() + transaction_s_max
                    self.block.append(tx, deadline=deadline, clock=time.perf_counter)
                else:
                    best.invalidate(tx.sender)
            except (InvalidTransaction, OutOfTime):
                best.invalidate(tx.sender)
            yield

    def _fits(self, tx: Transaction) -> bool:
        limit = self.client.gas_limit_override or self.block.gas_limit
        if self.block.gas_used + tx.gas_limit > min(limit, self.block.gas_limit):
            return False
        per_transaction, per_block = self.client.max_da_size
        if not per_transaction and not per_block:
            return True
        size = l1_gas_used(tx.fee_size) // L1_GAS_PER_BYTE
        return (not per_transaction or size <= per_transaction) and (
            not per_block or self.block.da_size + size <= per_block
        )


class PlainPayloads:
    """The builds of one client, by payload id; the oldest is forgotten when there are too many."""

    def __init__(self, client: ExecutionClient) -> None:
        self.client = client
        self._builds: dict[bytes, PlainBuild] = {}
        self._finished: dict[bytes, PlainBuild] = {}

    def start(self, payload_id: bytes, parent: Header, attributes: PayloadAttributes) -> None:
        """Begin a build; raises InvalidAttributes."""
        if payload_id in self._builds or payload_id in self._finished:
            return
        build = PlainBuild(self.client, payload_id, parent, attributes)
        while len(self._builds) >= BUILDS_MAX:
            self._end(next(iter(self._builds)))
        self._builds[payload_id] = build
        if not attributes.no_tx_pool:
            build.task = asyncio.get_running_loop().create_task(build.fill())

    async def get(self, payload_id: bytes) -> Envelope:
        """The payload as it is now; asked again, the same one. Raises UnknownPayload."""
        sealed = self._finish(payload_id).block.seal()
        return envelope_of(sealed.block, sealed.receipts)

    def flashblocks(self, payload_id: bytes) -> list[Flashblock]:
        """The same payload as one or two flashblocks, for a stream without a builder. Raises UnknownPayload."""
        return self._finish(payload_id).flashblocks()

    async def stand_in(self, payload_id: bytes, index: int) -> Flashblock:
        """The next flashblock, made in a builder's place. Raises UnknownPayload, OutOfStep."""
        return await stand_in(self.client, payload_id, index, partial(self._opening, payload_id))

    def _opening(self, payload_id: bytes) -> tuple[OpenBlock, tuple[bytes, ...]]:
        build = self._builds.get(payload_id)
        if build is None:
            raise UnknownPayload(payload_id.hex())
        return build.open(), build.attributes.transactions

    def _finish(self, payload_id: bytes) -> PlainBuild:
        build = self._finished.get(payload_id)
        if build is None:
            build = self._builds.get(payload_id)
            if build is None:
                raise UnknownPayload(payload_id.hex())
            if not build.attributes.no_tx_pool:
                build.fill_rest(LAST_FILL_S)
            self._end(payload_id)
            while len(self._finished) >= BUILDS_MAX:
                del self._finished[next(iter(self._finished))]
            self._finished[payload_id] = build
        return build

    def _end(self, payload_id: bytes) -> None:
        build = self._builds.pop(payload_id)
        if build.task is not None:
            build.task.cancel()

    async def close(self) -> None:
        """Stop all builds."""
        tasks = [build.task for build in self._builds.values() if build.task is not None]
        for payload_id in list(self._builds):
            self._end(payload_id)
        await asyncio.gather(*tasks, return_exceptions=True)
