"""A proxy that has just started asks a conductor for the blocks before the first one it delivers, once.

So that a subscriber who resumes (`?from=`) does not notice the restart of a proxy.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from actors.frame_link import FirstBug, FrameClient
from flashblocks.proxy.foreign import ours
from flashblocks.proxy.history import History
from flashblocks.proxy.ordering import Arrival
from flashblocks.wire.frames import FlashblockFrame, Frame


class HistorySearch:
    """Asks one upstream after another over a link of its own; `found(arrivals)` is called at most once."""

    def __init__(
        self,
        *,
        blocks: int,
        wait_s: float,
        give_up_s: float,
        bugs: FirstBug,
        upstreams: Callable[[], list[tuple[int, str]]],
        found: Callable[[list[Arrival]], None],
    ) -> None:
        """Set the bounds: how many blocks are wanted, how long one upstream has to give them, and how long all have.

        `upstreams()` tells who could be asked just now, as (number, URL).
        """
        self.done = asyncio.Event()
        self._blocks = blocks
        self._wait_s = wait_s
        self._give_up_s = give_up_s
        self._give_up_at = 0.0
        self._bugs = bugs
        self._found = found
        self._first: Arrival | None = None
        self._upstreams = upstreams
        self._times_asked: Counter[int] = Counter()
        self._asked_in_vain: set[int] = set()
        self._link: FrameClient | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, first: Arrival) -> None:
        """Search for what was before `first`."""
        self._first = first
        self._give_up_at = asyncio.get_running_loop().time() + self._give_up_s
        self._ask_next()

    async def close(self) -> None:
        """Stop searching. Bounded by a link's close time-out; idempotent."""
        self.done.set()
        self._end_link()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _ask_next(self) -> None:
        self._end_link()
        loop = asyncio.get_running_loop()
        if self._first is None or loop.time() >= self._give_up_at:
            self.done.set()
            return
        there = self._upstreams()
        able = [candidate for candidate in there if candidate[0] not in self._asked_in_vain]
        if there and not able:
            self.done.set()  # nobody has it
            return
        self._timer = loop.call_later(self._wait_s, self._ask_next)
        if not able:
            return  # nobody is there just now
        number, url = min(able, key=self._preference)
        self._times_asked[number] += 1
        history = History(self._first, self._blocks)
        start = history.start
        self._link = FrameClient(url, partial(self._take, number, history), start=lambda: start, bugs=self._bugs)
        self._later(self._link.start())

    def _preference(self, candidate: tuple[int, str]) -> tuple[int, bool]:
        # In turn; and a follower before the busy leader, who sent the first flashblock.
        assert self._first is not None
        return self._times_asked[candidate[0]], candidate[0] == self._first.upstream

    def _take(self, number: int, history: History, frame: Frame) -> None:
        if self.done.is_set() or not isinstance(frame, FlashblockFrame):
            return
        if history.take(ours(number, frame)):
            self._found(history.arrivals)
            self._end_link()
            self.done.set()
        elif history.fruitless:
            self._asked_in_vain.add(number)
            self._ask_next()

    def _end_link(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        link, self._link, self._timer = self._link, None, None
        if link is not None:
            self._later(link.close())

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
