"""A running edge for blocking clients: a sequencer by the clock, an ingress and an rpc-node, on their own thread."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from actors.ingress import Ingress
from actors.ingress import Settings as IngressSettings
from actors.rpc_node import RpcNode
from tests.actors.one_sequencer import LOG, OneSequencer, node_behind, until

T = TypeVar("T")
START_S_MAX = 30.0
FLASHBLOCK_S = 0.2


class LiveEdge:
    """What the blocking test sees: addresses, and a way to do something on the edge's loop."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.url = ""
        self.ws_url = ""
        self.sequencer: OneSequencer
        self.node: RpcNode
        self.ingress: Ingress
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready = threading.Event()
        self._stop: asyncio.Event | None = None
        self._error: BaseException | None = None
        self._pause_at = float("inf")
        self._pause_s = 0.0
        self._pause_every_s: float | None = None
        self._thread = threading.Thread(target=self._main, name="live edge")

    def start(self) -> None:
        self._thread.start()
        if not self._ready.wait(START_S_MAX) or self._error is not None:
            raise RuntimeError("the edge did not start") from self._error

    def stop(self) -> None:
        assert self._loop is not None and self._stop is not None
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(START_S_MAX)
        if self._error is not None:
            raise RuntimeError("the edge failed") from self._error

    def on_loop(self, work: Callable[[], T]) -> T:
        """Run something on the edge's loop and wait for its result."""
        assert self._loop is not None

        async def run() -> T:
            return work()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(10)

    def pause(self, seconds: float, every_s: float | None = None) -> None:
        """The leader dies in mid-block and for a while nobody shows anything; once, or again and again."""
        self._pause_s, self._pause_every_s = seconds, every_s
        self._pause_at = time.monotonic() if seconds else float("inf")

    def _main(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            self._error = error
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self.sequencer = OneSequencer(self.directory, genesis_time=int(time.time()) - 1)
        await self.sequencer.start()
        ingress = self.ingress = Ingress(
            IngressSettings(
                name="ingress-0",
                port=0,
                target_urls=[self.sequencer.rpc_url],
                stream_urls=[self.sequencer.stream_url],
                execution_urls=[self.sequencer.rpc_url],
            ),
            LOG,
        )
        await ingress.start()
        tasks = [asyncio.create_task(ingress.run()), asyncio.create_task(self._sequence())]
        try:
            async with node_behind(self.sequencer, ingress_urls=[ingress.server.url]) as node:
                self.node, self.url = node, node.server.url
                self.ws_url = f"ws://127.0.0.1:{node.server.port}"
                await until(lambda: node.follower.pending() is not None, "the node has a pending block")
                self._ready.set()
                await asyncio.wait(
                    [*tasks, asyncio.create_task(self._stop.wait())], return_when=asyncio.FIRST_COMPLETED
                )
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            await ingress.close()
            await self.sequencer.close()
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
                raise result

    async def _sequence(self) -> None:
        while True:
            began = time.monotonic()
            self.sequencer.begin()
            for turn in range(10):
                await asyncio.sleep(max(0.0, began + FLASHBLOCK_S * (turn + 1) - time.monotonic()))
                self.sequencer.flashblock()
                if time.monotonic() >= self._pause_at and turn == 4:
                    every_s = self._pause_every_s
                    self._pause_at = float("inf") if every_s is None else time.monotonic() + every_s
                    await asyncio.sleep(self._pause_s)
                    self.sequencer.epoch += 1  # the next leader goes on with the same block
            await self.sequencer.seal()


@contextmanager
def live_edge(directory: Path) -> Iterator[LiveEdge]:
    """A started edge, stopped at the end."""
    edge = LiveEdge(directory)
    edge.start()
    try:
        yield edge
    finally:
        edge.stop()
