"""`base_meterBundle`, `base_meteredPriorityFeePerGas` and `base_meterBlockBy…` of one rpc-node."""

from __future__ import annotations

import time
from typing import Any

from actors.rpc_calls import PENDING, Beside
from actors.rpc_server import Method
from actors.rpc_view import Resolved, RpcView
from flashblocks.execution.chain import ChainBlock
from flashblocks.execution.fees import da_footprint, read_l1_parameters
from flashblocks.execution.journal import Journal
from flashblocks.execution.transaction import Transaction
from flashblocks.preconf.fee_samples import FlashblockEnds, sampled
from flashblocks.preconf.metering import meter_block, meter_bundle, read_bundle
from flashblocks.preconf.priority_fee import (
    BLOCKS_SAMPLED_MAX,
    DATA_AVAILABILITY,
    GAS,
    DemandTooLarge,
    SampledBlock,
    metered_priority_fee,
)
from flashblocks.preconf.snapshot import PendingSnapshot
from flashblocks.wire.jsonrpc import INVALID_PARAMS, SERVER_ERROR, RpcError

BLOCK_TIME_S_DEFAULT = 2


class RpcMetering:
    """The metering methods. `percentile` of the tips that would stay beside a bundle is what is recommended to it."""

    def __init__(self, view: RpcView, beside: Beside, flashblock_time_ms: int, percentile: int) -> None:
        self._view, self._beside = view, beside
        self._flashblock_time_ms, self._percentile = flashblock_time_ms, percentile
        self._ends = FlashblockEnds()
        view.follower.listeners.append(self._ends.event)

    def methods(self) -> dict[str, Method]:
        """Name → coroutine, as `RpcServer` takes them."""
        return {
            "base_meterBundle": self.bundle,
            "base_meteredPriorityFeePerGas": self.priority_fee,
            "base_meterBlockByHash": self.block,
            "base_meterBlockByNumber": self.block,
        }

    async def bundle(self, bundle: Any) -> dict[str, Any]:
        """What a bundle's transactions would take if they came next."""
        return await self._metered(read_bundle(bundle))

    async def _metered(self, transactions: tuple[Transaction, ...]) -> dict[str, Any]:
        found = self._view.find(PENDING)
        header, state = self._view.state_of(PENDING)
        hashes = self._view.block_hashes(header)
        index = found.index if isinstance(found, PendingSnapshot) else None
        spec = self._view.spec
        return await self._beside.run(
            lambda: meter_bundle(spec, header, state, transactions, hashes, time.perf_counter, index)
        )

    async def priority_fee(self, bundle: Any) -> dict[str, Any]:
        """What `bundle` answers, and the tip in wei that would have got it into recent blocks."""
        transactions = read_bundle(bundle)
        header, state = self._view.state_of(PENDING)
        rules = self._view.spec.rules(header.timestamp)
        blocks = self._sampled_blocks(with_data=rules.jovian)
        if not blocks:
            raise RpcError(SERVER_ERROR, "no block to take fees from yet")
        metered = await self._metered(transactions)
        resources, needs = [GAS], [int(metered["totalGasUsed"])]
        if rules.jovian:
            prices = read_l1_parameters(Journal(state), rules)
            resources.append(DATA_AVAILABILITY)
            needs.append(sum(da_footprint(tx.fee_size, prices) for tx in transactions))
        try:
            fee = metered_priority_fee(blocks, resources, needs, self._shares(), self._percentile)
        except DemandTooLarge as error:
            raise RpcError(INVALID_PARAMS, str(error)) from None
        return {**metered, **fee}

    def _sampled_blocks(self, *, with_data: bool) -> list[SampledBlock]:
        """The open block and the sealed ones before it; the genesis block was not built by anybody."""
        pending = self._view.follower.pending()
        head = self._view.chain.head.number
        count = BLOCKS_SAMPLED_MAX - (pending is not None)
        sealed = [self._view.chain.by_number(number) for number in range(max(1, head - count + 1), head + 1)]
        found: list[Resolved] = [block for block in sealed if block is not None]
        found += [] if pending is None else [pending]
        return [sampled(block, self._ends.of(block.number, block.header.hash), with_data=with_data) for block in found]

    def _shares(self) -> int:
        """How many flashblocks a block has, the opening one not counted; every block of an OP chain takes as long."""
        head = self._view.chain.head
        parent = self._view.chain.block(head.header.parent_hash)
        seconds = BLOCK_TIME_S_DEFAULT
        if parent is not None and parent.number > 0:
            seconds = head.header.timestamp - parent.header.timestamp
        return max(1, seconds * 1000 // self._flashblock_time_ms)

    async def block(self, name: Any) -> dict[str, Any]:
        """What a sealed block took, executed again."""
        found = self._view.block(name)
        if not isinstance(found, ChainBlock):
            raise RpcError(INVALID_PARAMS, f"Block not found: {name}")
        parent = self._view.chain.block(found.header.parent_hash)
        if parent is None or parent.state is None:
            raise RpcError(SERVER_ERROR, f"the state before block {found.number} is not here")
        header, state, raws = found.header, parent.state, [tx.raw for tx in found.transactions]
        hashes, spec = self._view.block_hashes(header), self._view.spec
        return await self._beside.run(lambda: meter_block(spec, header, state, raws, hashes, time.perf_counter))
