"""A JSON-RPC client with three outcomes: done (a value), refused (RpcRefused), unknown (RpcUnknown) – never folded."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Any

import aiohttp
import orjson

from flashblocks.wire.jwt import make_token

CONNECTIONS_MAX = 32
KEEPALIVE_S = 300.0
RESPONSE_SIZE_BYTES_MAX = 64 * 1024 * 1024


class RpcRefused(Exception):
    """The peer answered with an error: it did not do what was asked."""

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(f"{message} ({code})")
        self.code, self.message, self.data = code, message, data


class RpcUnknown(Exception):
    """No answer: time-out, connection refused or lost. The call may or may not have been carried out."""


class RpcClient:
    """Calls one server over keep-alive HTTP; a JWT secret gives every request a fresh token."""

    def __init__(
        self,
        url: str,
        *,
        jwt_secret: bytes | None = None,
        timeout_s: float = 10.0,
        connections_max: int = CONNECTIONS_MAX,
    ) -> None:
        self.url, self.timeout_s, self.connections_max = url, timeout_s, connections_max
        self._secret = jwt_secret
        self._ids = itertools.count(1)
        self._session: aiohttp.ClientSession | None = None

    async def call(
        self, method: str, *params: Any, timeout_s: float | None = None, headers: dict[str, str] | None = None
    ) -> Any:
        """Return the result; raises RpcRefused or RpcUnknown."""
        identifier = next(self._ids)
        request = {"jsonrpc": "2.0", "id": identifier, "method": method, "params": params}
        raw = await self._post(self.url, orjson.dumps(request), "application/json", timeout_s, headers)
        try:
            obj = orjson.loads(raw)
        except orjson.JSONDecodeError:
            raise RpcUnknown(f"{method} at {self.url}: the answer is not JSON") from None
        if not isinstance(obj, dict):
            raise RpcUnknown(f"{method} at {self.url}: the answer is not an object")
        error = obj.get("error")
        if error is not None:
            fields = error if isinstance(error, dict) else {}
            raise RpcRefused(int(fields.get("code", 0)), str(fields.get("message", error)), fields.get("data"))
        return obj.get("result")

    async def post_binary(
        self, path: str, body: bytes, timeout_s: float | None = None, headers: dict[str, str] | None = None
    ) -> bytes:
        """POST bytes to a path of the server and return the answer's bytes; raises RpcRefused or RpcUnknown."""
        return await self._post(self.url.rstrip("/") + path, body, "application/octet-stream", timeout_s, headers)

    async def get(self, path: str, timeout_s: float | None = None) -> tuple[int, bytes]:
        """GET a path of the server: HTTP status and body; raises RpcUnknown."""
        try:
            async with self._open().get(self.url.rstrip("/") + path, timeout=self._limit(timeout_s)) as response:
                return response.status, await response.read()
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise RpcUnknown(f"GET {path} at {self.url}: {_reason(error)}") from None

    async def close(self) -> None:
        """Close the connections; the client opens new ones when it is used again."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _post(
        self, url: str, body: bytes, content_type: str, timeout_s: float | None, headers: dict[str, str] | None
    ) -> bytes:
        sent = {"Content-Type": content_type, **(headers or {})}
        if self._secret is not None:
            sent["Authorization"] = f"Bearer {make_token(self._secret, time.time())}"
        try:
            async with self._open().post(url, data=body, headers=sent, timeout=self._limit(timeout_s)) as response:
                raw = await response.read()
                if response.status != 200:
                    raise RpcRefused(response.status, raw[:200].decode(errors="replace") or str(response.reason))
                return raw
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise RpcUnknown(f"{url}: {_reason(error)}") from None

    def _limit(self, timeout_s: float | None) -> aiohttp.ClientTimeout:
        return aiohttp.ClientTimeout(total=self.timeout_s if timeout_s is None else timeout_s)

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=self.connections_max, keepalive_timeout=KEEPALIVE_S)
            self._session = aiohttp.ClientSession(connector=connector, auto_decompress=True)
        return self._session


def _reason(error: BaseException) -> str:
    if isinstance(error, asyncio.TimeoutError):
        return "timed out"
    return str(error) or type(error).__name__
