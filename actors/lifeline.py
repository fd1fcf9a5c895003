"""Noticing at once that a peer process is gone: its kernel closes the lifeline, a WebSocket without messages."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import aiohttp

RETRY_S_FIRST = 0.05
RETRY_S_MAX = 0.5
CONNECT_S_MAX = 2.0


class Lifeline:
    """Keeps a WebSocket to `<url>/lifeline` open and calls `on_change(up)` at every change; reconnects for ever."""

    def __init__(self, url: str, on_change: Callable[[bool], None]) -> None:
        self.up = False
        self._url = url.rstrip("/") + "/lifeline"
        self._on_change = on_change
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to watch, in a task of the running loop."""
        self._task = asyncio.create_task(self._watch(), name=f"lifeline {self._url}")

    async def close(self) -> None:
        """Stop to watch; no change is reported any more."""
        self._on_change = lambda up: None
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _watch(self) -> None:
        retry_s = RETRY_S_FIRST
        async with aiohttp.ClientSession() as session:
            while True:
                try:
                    limit = asyncio.timeout(CONNECT_S_MAX)
                    async with limit, session.ws_connect(self._url, autoping=True) as websocket:
                        limit.reschedule(None)  # the time-out was for connecting only
                        retry_s = RETRY_S_FIRST
                        self._tell(True)
                        async for _ in websocket:
                            pass
                except (aiohttp.ClientError, OSError, TimeoutError):
                    pass
                finally:
                    self._tell(False)
                await asyncio.sleep(retry_s * random.uniform(0.5, 1.0))
                retry_s = min(2 * retry_s, RETRY_S_MAX)

    def _tell(self, up: bool) -> None:
        if up != self.up:
            self.up = up
            self._on_change(up)
