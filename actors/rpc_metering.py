"""`base_meterBundle`, `base_meterBlockByHash`, `base_meterBlockByNumber` of one rpc-node."""

from __future__ import annotations

import time
from typing import Any

from actors.rpc_calls import PENDING, Beside
from actors.rpc_server import Method
from actors.rpc_view import RpcView
from flashblocks.execution.chain import ChainBlock
from flashblocks.preconf.metering import meter_block, meter_bundle, read_bundle
from flashblocks.preconf.snapshot import PendingSnapshot
from flashblocks.wire.jsonrpc import INVALID_PARAMS, SERVER_ERROR, RpcError


class RpcMetering:
    """The metering methods."""

    def __init__(self, view: RpcView, beside: Beside) -> None:
        self._view, self._beside = view, beside

    def methods(self) -> dict[str, Method]:
        """Name → coroutine, as `RpcServer` takes them."""
        return {
            "base_meterBundle": self.bundle,
            "base_meterBlockByHash": self.block,
            "base_meterBlockByNumber": self.block,
        }

    async def bundle(self, bundle: Any) -> dict[str, Any]:
        """What a bundle's transactions would take if they came next."""
        transactions = read_bundle(bundle)
        found = self._view.find(PENDING)
        header, state = self._view.state_of(PENDING)
        hashes = self._view.block_hashes(header)
        index = found.index if isinstance(found, PendingSnapshot) else None
        spec = self._view.spec
        return await self._beside.run(
            lambda: meter_bundle(spec, header, state, transactions, hashes, time.perf_counter, index)
        )

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
