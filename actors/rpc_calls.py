"""What executes without a transaction – `eth_call` and its relatives –, on `pending` in its own environment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from actors.rpc_server import Method
from actors.rpc_view import RpcView
from flashblocks.execution.access_list import create_access_list
from flashblocks.execution.calls import call, estimate_gas
from flashblocks.execution.errors import CallReverted, InvalidTransaction
from flashblocks.execution.header import Header
from flashblocks.execution.reverts import revert_error
from flashblocks.execution.rpc_arguments import (
    LATEST,
    BlockName,
    as_if,
    block_name,
    call_arguments,
    overrides,
)
from flashblocks.execution.rpc_shapes import access_list_json
from flashblocks.execution.state import WorldState
from flashblocks.preconf.simulate import read_simulation, simulate
from flashblocks.wire.hexadecimal import data, quantity
from flashblocks.wire.jsonrpc import LIMIT_EXCEEDED, SERVER_ERROR, RpcError

CALL_THREADS = 2
CALLS_WAITING_MAX = 256
PENDING = BlockName("pending")

T = TypeVar("T")


class Beside:
    """Runs long work in a few threads beside the loop; what would wait behind too much is refused."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(CALL_THREADS, thread_name_prefix="calls")
        self._waiting = 0

    async def run(self, work: Callable[[], T]) -> T:
        """The result of `work`; raises RpcError when too many wait."""
        if self._waiting >= CALLS_WAITING_MAX:
            raise RpcError(LIMIT_EXCEEDED, f"the node is busy: {CALLS_WAITING_MAX} calls wait")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Take nothing new; what runs ends by itself (its gas is bounded)."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class RpcCalls:
    """eth_call, eth_estimateGas, eth_createAccessList and eth_simulateV1 of one rpc-node."""

    def __init__(self, view: RpcView, beside: Beside) -> None:
        self._view, self._beside = view, beside

    def methods(self) -> dict[str, Method]:
        """Name → coroutine, as `RpcServer` takes them."""
        return {
            "eth_call": self.call,
            "eth_estimateGas": self.estimate_gas,
            "eth_createAccessList": self.create_access_list,
            "eth_simulateV1": self.simulate,
        }

    async def call(
        self, message: Any, block: Any = None, state_overrides: Any = None, block_overrides: Any = None
    ) -> str:
        """eth_call: the output; code 3 with the revert data when the contract refuses."""
        header, state = self._view.state(block, LATEST)
        result = await self._run(call, header, state, message, state_overrides, block_overrides)
        if result.error is not None:
            raise revert_error(result.error, result.revert_data)
        return data(result.output)

    async def estimate_gas(
        self, message: Any, block: Any = None, state_overrides: Any = None, block_overrides: Any = None
    ) -> str:
        """eth_estimateGas on `pending`, which is what a transaction sent now will find.

        `latest` means `pending` too: libraries send it where the user said nothing, and an estimate that does not see
        a contract deployed two hundred milliseconds ago makes the next transaction run out of gas.
        """
        name = block_name(block, PENDING)
        header, state = self._view.state_of(PENDING if name == LATEST else name)
        try:
            return quantity(await self._run(estimate_gas, header, state, message, state_overrides, block_overrides))
        except CallReverted as reverted:
            raise revert_error(str(reverted), reverted.revert_data) from None

    async def create_access_list(self, message: Any, block: Any = None, state_overrides: Any = None) -> dict[str, Any]:
        """eth_createAccessList: what a message touches, and what it costs with that said before."""
        header, state = self._view.state(block, PENDING)
        made = await self._run(create_access_list, header, state, message, state_overrides)
        answer = {"accessList": access_list_json(made.access_list), "gasUsed": quantity(made.gas_used)}
        return answer if made.error is None else {**answer, "error": made.error}

    async def _run(
        self,
        work: Callable[..., T],
        header: Header,
        state: WorldState,
        message: Any,
        state_overrides: Any,
        block_overrides: Any = None,
    ) -> T:
        """What `work` finds when it runs a message on a block, with what the caller pretends about it."""
        arguments, changed = call_arguments(message), overrides(state_overrides)
        hashes = self._view.block_hashes(header)
        there = as_if(header, block_overrides)
        try:
            return await self._beside.run(
                lambda: work(self._view.spec, there, state, **arguments, overrides=changed, block_hashes=hashes)
            )
        except InvalidTransaction as refused:
            raise RpcError(SERVER_ERROR, str(refused)) from None

    async def simulate(self, request: Any, block: Any = None) -> list[dict[str, Any]]:
        """eth_simulateV1: blocks of calls on top of a block, the pending one included."""
        header, state = self._view.state(block, LATEST)
        simulation = read_simulation(request)
        hashes = self._view.chain.ancestor_hashes(header.parent_hash)
        return await self._beside.run(lambda: simulate(self._view.spec, header, state, simulation, hashes))
