"""Asking any of several execution clients: one that answers is found, one that does not is asked last for a while."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import orjson

from actors.rpc_client import RpcClient, RpcRefused, RpcUnknown
from flashblocks.wire.hexadecimal import WireError

ANSWER_S_MAX = 2.0
AVOID_S = 5.0
TRIES_MAX = 4

BatchAnswer = tuple[Any, dict[str, Any] | None]


async def call_batch(
    client: RpcClient,
    calls: Sequence[tuple[str, Sequence[Any]]],
    timeout_s: float | None = None,
    headers: dict[str, str] | None = None,
) -> list[BatchAnswer | None]:
    """One HTTP request with many calls: per call (result, error member) or None where the peer left it out.

    Raises RpcUnknown or RpcRefused when the batch as a whole was not answered.
    """
    requests = [
        {"jsonrpc": "2.0", "id": position, "method": method, "params": params}
        for position, (method, params) in enumerate(calls)
    ]
    raw = await client.post_binary("/", orjson.dumps(requests), timeout_s, headers)
    try:
        answers = orjson.loads(raw)
    except orjson.JSONDecodeError:
        raise RpcUnknown(f"batch at {client.url}: the answer is not JSON") from None
    if not isinstance(answers, list):
        raise RpcUnknown(f"batch at {client.url}: the answer is not a list")
    by_id: list[BatchAnswer | None] = [None] * len(requests)
    for answer in answers:
        position = answer.get("id") if isinstance(answer, dict) else None
        if isinstance(position, int) and 0 <= position < len(requests):
            error = answer.get("error")
            by_id[position] = (answer.get("result"), error if isinstance(error, dict) else None)
    return by_id


class ExecutionPeers:
    """The execution clients of all groups, as one source of blocks and accounts; none is trusted to be there."""

    def __init__(self, urls: Sequence[str], *, answer_s_max: float = ANSWER_S_MAX) -> None:
        self.urls = tuple(urls)
        self._clients = {url: RpcClient(url, timeout_s=answer_s_max) for url in self.urls}
        self._avoid_until: dict[str, float] = dict.fromkeys(self.urls, 0.0)
        self._turn = 0

    def client(self, url: str) -> RpcClient:
        """The connection to one of them."""
        return self._clients[url]

    def in_turn(self) -> list[str]:
        """All of them, those that answered lately first, beginning with another one every time."""
        self._turn += 1
        start = self._turn % len(self.urls) if self.urls else 0
        rotated = self.urls[start:] + self.urls[:start]
        now = time.monotonic()
        return sorted(rotated, key=lambda url: self._avoid_until[url] > now)

    async def call(self, method: str, *params: Any) -> Any:
        """The first answer anybody gives; raises RpcRefused of the last one asked, or RpcUnknown."""
        return (await self.call_many([(method, params)]))[0]

    async def call_many(self, calls: Sequence[tuple[str, Sequence[Any]]]) -> list[Any]:
        """Several results out of one client, so that they fit together; raises as `call` does."""
        last: RpcRefused | RpcUnknown = RpcUnknown("no execution client is configured")
        for url in self.in_turn()[:TRIES_MAX]:
            try:
                answers = await call_batch(self._clients[url], calls)
            except (RpcUnknown, RpcRefused) as error:
                self.avoid(url)
                last = error
                continue
            if all(answer is not None and answer[1] is None for answer in answers):
                return [answer[0] for answer in answers if answer is not None]
            refused = next((answer[1] for answer in answers if answer is not None and answer[1] is not None), {})
            last = RpcRefused(int((refused or {}).get("code", 0)), str((refused or {}).get("message", "no answer")))
        raise last

    def avoid(self, url: str) -> None:
        """Ask this one last for a while."""
        self._avoid_until[url] = time.monotonic() + AVOID_S

    async def close(self) -> None:
        """Close all connections."""
        await asyncio.gather(*(client.close() for client in self._clients.values()))


def expect_object(value: Any, what: str) -> dict[str, Any]:
    """The value as a JSON object; raises WireError: a peer's fault."""
    if not isinstance(value, dict):
        raise WireError(f"{what}: expected an object")
    return value
