"""A witness at one rpc-node: what it answers for `pending`, several times a second, and what it takes back."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

import orjson
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from actors.execution_peers import call_batch
from actors.fanout import LinkClientConnection
from actors.rpc_client import RpcClient, RpcRefused, RpcUnknown
from chaos.history import Invalidated, Link, PendingRead
from chaos.subscribers import RETRY_S, Record

READ_PERIOD_S = 0.25
READ_S_MAX = 2.0
MESSAGE_SIZE_BYTES_MAX = 16 * 1024 * 1024


class RpcWitness:
    """Reads `latest` and `pending` in one request, in this order, and listens to `flashblockInvalidations`."""

    def __init__(self, name: str, http: str, ws: str, record: Record) -> None:
        self.name = name
        self._client = RpcClient(http, timeout_s=READ_S_MAX)
        self._ws = ws
        self._record = record

    async def run(self) -> None:
        """Read and listen until cancelled; a node that does not answer is asked again."""
        listening = asyncio.create_task(self._listen())
        try:
            while True:
                with contextlib.suppress(RpcUnknown, RpcRefused):
                    await self._read()
                await asyncio.sleep(READ_PERIOD_S)
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
            await self._client.close()

    async def _read(self) -> None:
        calls = [("eth_blockNumber", ()), ("eth_getBlockByNumber", ("pending", False))]
        latest, pending = await call_batch(self._client, calls)
        if latest is None or latest[1] is not None or pending is None or pending[1] is not None:
            return  # refused or not answered: it says so, which is not a wrong answer
        block = pending[0]
        number = None if block is None else int(block["number"], 16)
        transactions = () if block is None else tuple(block["transactions"])
        self._record(PendingRead(time.time(), self.name, int(latest[0], 16), number, transactions))

    async def _listen(self) -> None:
        while True:
            try:
                async with connect(
                    self._ws,
                    compression=None,
                    create_connection=LinkClientConnection,
                    max_size=MESSAGE_SIZE_BYTES_MAX,
                ) as websocket:
                    request = {"jsonrpc": "2.0", "id": 1, "method": "eth_subscribe"}
                    await websocket.send(orjson.dumps({**request, "params": ["flashblockInvalidations"]}).decode())
                    self._record(Link(time.time(), self.name, True))
                    async for message in websocket:
                        self._note(orjson.loads(message))
            except (OSError, ConnectionClosed, InvalidHandshake, TimeoutError):
                pass
            self._record(Link(time.time(), self.name, False))
            await asyncio.sleep(RETRY_S)

    def _note(self, message: dict[str, Any]) -> None:
        if message.get("method") != "eth_subscription":
            return
        gone = message["params"]["result"]
        number, transactions = int(gone["blockNumber"], 16), tuple(gone["transactions"])
        self._record(Invalidated(time.time(), self.name, number, transactions))
