"""A flood of what clients should not send: transactions that cannot be accepted, calls that make no sense."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import Callable
from typing import Any

import aiohttp
import orjson

from chaos.faults import Fault, Victim
from chaos.history import Event
from chaos.target import DrillError, Target
from flashblocks.execution.signing import sign_transaction

SENDERS = 12
PAUSE_S = 0.02
"""Each sender's pause between two requests: a few hundred requests a second altogether."""
REQUEST_S_MAX = 3.0
FLOOD_S = 8.0
GAS = 21_000
FEE_WEI = 10**10


class Flood(Fault):
    """Bad transactions and bad calls to every rpc-node, ingress and conductor, as fast as a dozen clients can."""

    kind = "flood"

    def __init__(self, target: Target, draw: random.Random, hold_s: float = FLOOD_S) -> None:
        self.hold_s = hold_s
        endpoints = target.endpoints()
        groups = [group["actors"] for group in endpoints["groups"]]
        self._urls: list[str] = [node["http"] for node in (*endpoints["rpc_nodes"], *endpoints["ingress"])]
        self._urls += [group["conductor"]["rpc"] for group in groups] + [group["op-node"]["rpc"] for group in groups]
        self.victims: list[Victim] = []
        self._bodies = bad_requests(endpoints["chain_id"], draw)
        self._draw = draw
        self._tasks: list[asyncio.Task[None]] = []
        self.sent = self.answered = 0

    async def inject(self) -> None:
        """Begin to send."""
        session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=REQUEST_S_MAX))
        self._tasks = [asyncio.create_task(self._send(session, number)) for number in range(SENDERS)]
        self._tasks.append(asyncio.create_task(_close_after(session, self._tasks[:])))

    async def lift(self) -> None:
        """Stop sending."""
        self.abandon()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def recovered(self, run: int) -> list[Event]:
        """Nothing was hurt; raises DrillError when nobody answered, for then nothing was flooded."""
        if not self.answered:
            raise DrillError(f"none of {self.sent} bad requests was answered")
        return await super().recovered(run)

    def abandon(self) -> None:
        """Stop sending."""
        for task in self._tasks[:SENDERS]:
            task.cancel()

    async def _send(self, session: aiohttp.ClientSession, number: int) -> None:
        for step in itertools.count(number):
            url, body = self._urls[step % len(self._urls)], self._draw.choice(self._bodies)()
            self.sent += 1
            with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
                async with session.post(url, data=body, headers={"Content-Type": "application/json"}) as response:
                    await response.read()
                    self.answered += 1
            await asyncio.sleep(PAUSE_S)


async def _close_after(session: aiohttp.ClientSession, tasks: list[asyncio.Task[None]]) -> None:
    await asyncio.gather(*tasks, return_exceptions=True)
    await session.close()


def bad_requests(chain_id: int, draw: random.Random) -> list[Callable[[], bytes]]:
    """Makers of request bodies, each of which has to be answered with an error and change nothing."""

    def signed(chain: int, nonce: int, value: int, gas: int = GAS) -> str:
        raw = sign_transaction(
            draw.randbytes(32),
            chain_id=chain,
            nonce=nonce,
            to=draw.randbytes(20),
            value=value,
            data=b"",
            gas_limit=gas,
            max_fee_per_gas=FEE_WEI,
            max_priority_fee_per_gas=1,
        )
        return "0x" + raw.hex()

    def send(make: Callable[[], Any]) -> Callable[[], bytes]:
        return lambda: call("eth_sendRawTransaction", [make()])

    return [
        send(lambda: signed(chain_id, 0, 1)),  # from an account without money
        send(lambda: signed(chain_id, 10**6, 0)),  # far in the future
        send(lambda: signed(chain_id + 1, 0, 0)),  # of another chain
        send(lambda: signed(chain_id, 0, 0, gas=20_999)),  # below its intrinsic gas
        send(lambda: "0x7e" + draw.randbytes(80).hex()),  # a deposit from outside
        send(lambda: "0x" + draw.randbytes(200).hex()),  # noise
        send(lambda: "0x02"),
        send(lambda: {"not": "hex"}),
        lambda: call("eth_getBlockByNumber", ["0x" + "f" * 70, True]),
        lambda: call("eth_call", [{"to": 1}, "never"]),
        lambda: call("eth_getLogs", [{"fromBlock": "0x0", "toBlock": "0x" + "f" * 15}]),
        lambda: call("conductor_commitUnsafePayload", [{"executionPayload": {}}]),
        lambda: call("conductor_transferLeaderToServer", ["nobody", "nowhere"]),
        lambda: call("admin_postUnsafePayload", [{"executionPayload": None}]),
        lambda: call("admin_startSequencer", ["0x" + "00" * 32]),
        lambda: call("no_such_method", [[[]]]),
        lambda: b"[" * 2000,
        lambda: b'{"jsonrpc":"2.0","id":1',
        lambda: draw.randbytes(300),
        lambda: orjson.dumps([{"jsonrpc": "2.0", "id": n, "method": "eth_chainId"} for n in range(50)]),
    ]


def call(method: str, params: list[Any]) -> bytes:
    """One JSON-RPC request."""
    return orjson.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
