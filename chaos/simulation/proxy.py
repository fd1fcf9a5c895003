"""A websocket-proxy: the real ordering, backlog and history, wired as `actors.websocket_proxy` does it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

import msgspec

from actors.websocket_proxy import PATIENCE_POLL_S
from chaos.simulation.kernel import Event, Process
from chaos.simulation.network import Connection, Link, Network
from flashblocks.proxy.backlog import Backlog
from flashblocks.proxy.foreign import ours
from flashblocks.proxy.history import History
from flashblocks.proxy.ordering import Announce, Arrival, Ask, Decision, Deliver, Ordering, Restart
from flashblocks.wire.frames import AnnounceGapFrame, FlashblockFrame
from raft.ledger import ENTRY_SIZE_BYTES_MAX

BACKLOG_BLOCKS: Final = 16
HISTORY_WAIT_S: Final = 0.5
"""How long one upstream has to give the blocks before the first one delivered."""
RESUME_WAIT_S: Final = 2.0
"""How long the search for them goes on, and a subscriber who resumes waits for it."""


class Proxy:
    """One websocket-proxy."""

    def __init__(self, network: Network, process: Process, upstreams: list[str], ordering: Ordering) -> None:
        self.network, self.process = network, process
        self._ordering = ordering
        self._backlog: Backlog[FlashblockFrame] = Backlog(
            blocks_max=BACKLOG_BLOCKS, bytes_max=16 * ENTRY_SIZE_BYTES_MAX
        )
        self._upstreams = upstreams
        self._replays: dict[int, Link] = {}
        self._subscribers: list[Connection] = []
        self._ticks = 0
        self._live: dict[int, None] = {}
        self._history = HistorySearch(network, process, upstreams, lambda: list(self._live), self._on_history)

    def start(self) -> None:
        """Connect to every conductor."""
        for number, slot in enumerate(self._upstreams):
            Link(
                self.network,
                self.process,
                slot,
                partial(self._on_frame, number, False),
                partial(self._on_change, number),
                start=lambda: self._ordering.wanted,
            )

    def _on_change(self, number: int, up: bool) -> None:
        now = self.process.clock.now
        if up:
            self._live[number] = None
            self._ordering.upstream_up(number, resumable=True)
            self._act(self._ordering.tick(now))
        else:
            self._live.pop(number, None)
            self._act(self._ordering.upstream_down(number, now))

    def _on_frame(self, number: int, replay: bool, frame: FlashblockFrame) -> None:
        self._act(self._ordering.arrive(ours(number, frame, replay=replay), self.process.clock.now))

    def _act(self, decisions: list[Decision]) -> None:
        for decision in decisions:
            match decision:
                case Deliver(arrival=arrival):
                    self._history.begin(arrival)
                    frame = _frame_of(arrival)
                    self._send(frame)
                    self._backlog.add(frame.number, frame.index, len(frame.body), frame)
                case Announce(number=number, index_from=index_from, index_to=index_to):
                    self._send(AnnounceGapFrame(number, index_from, index_to))
                case Ask(upstream=number, start=start):
                    self._ask(number, start)
                case Restart():
                    self._backlog.clear()
        if not self._ordering.gap_open:
            for replay in self._replays.values():
                replay.close()
            self._replays.clear()
        self._ticks += 1
        if self._ordering.wakes_at is not None:
            self.process.after(max(0.0, self._ordering.wakes_at - self.process.clock.now), self._tick, self._ticks)

    def _tick(self, tick: int) -> None:
        if tick == self._ticks:
            self._act(self._ordering.tick(self.process.clock.now))

    def _ask(self, number: int, start: tuple[int, int]) -> None:
        old = self._replays.pop(number, None)
        if old is not None:
            old.close()
        on_frame = partial(self._on_frame, number, True)
        self._replays[number] = Link(self.network, self.process, self._upstreams[number], on_frame, start=lambda: start)

    def _send(self, frame: FlashblockFrame | AnnounceGapFrame) -> None:
        for peer in self._subscribers:
            peer.to_client(frame)

    def _on_history(self, arrivals: list[Arrival]) -> None:
        frames = [_frame_of(arrival) for arrival in arrivals]
        self._backlog.add_before([(frame.key, len(frame.body), frame) for frame in frames])

    def on_peer(self, peer: Connection, start: tuple[int, int] | None, port: str) -> None:
        """A subscriber gets the open block, or what it asked for – a moment later while the history is looked for."""
        self.process.spawn(self._greet(peer, start))

    def _is_behind(self, start: tuple[int, int]) -> bool:
        wanted = self._ordering.wanted
        return wanted is not None and wanted < start

    async def _greet(self, peer: Connection, start: tuple[int, int] | None) -> None:
        oldest, until = self._backlog.oldest, self.process.clock.now + RESUME_WAIT_S
        if start is not None and (oldest is None or start < oldest):
            await self._history.done.wait(RESUME_WAIT_S)
        while start is not None and self._is_behind(start) and self.process.clock.now < until:
            await self.process.sleep(PATIENCE_POLL_S)
        if peer.broken:
            return
        self._subscribers.append(peer)
        owed = self._backlog.owed(start)
        if owed.missing is not None:
            peer.to_client(AnnounceGapFrame(*owed.missing, owed.missing[1]))
        for frame in owed.items:
            peer.to_client(frame)

    def on_peer_lost(self, peer: Connection) -> None:
        """A subscriber left."""
        if peer in self._subscribers:
            self._subscribers.remove(peer)

    def on_peer_frame(self, peer: Connection, message: object) -> None:
        """A subscriber has nothing to say."""

    def check(self) -> None:
        """The ordering's invariants."""
        self._ordering.check()


class HistorySearch:
    """What was before the first flashblock delivered, asked of one upstream after another: `actors.proxy_history`."""

    def __init__(
        self,
        network: Network,
        process: Process,
        upstreams: list[str],
        live: Callable[[], list[int]],
        found: Callable[[list[Arrival]], None],
    ) -> None:
        self.done = Event(process)
        self._network, self._process, self._upstreams = network, process, upstreams
        self._live, self._found = live, found
        self._first: Arrival | None = None
        self._give_up_at = 0.0
        self._asked: dict[int, int] = {}
        self._in_vain: dict[int, None] = {}
        self._turn = 0
        self._ended = False
        self._link: Link | None = None

    def begin(self, first: Arrival) -> None:
        """Search for what was before the very first one."""
        if self._first is None:
            self._first, self._give_up_at = first, self._process.clock.now + RESUME_WAIT_S
            self._ask_next(self._turn)

    def _ask_next(self, turn: int) -> None:
        if turn != self._turn or self._ended or self._first is None:
            return
        self._end_link()
        there = self._live()
        able = [number for number in there if number not in self._in_vain]
        if self._process.clock.now >= self._give_up_at or (there and not able):
            self._end()
            return
        self._process.after(HISTORY_WAIT_S, self._ask_next, self._turn)
        if able:
            first = self._first
            number = min(able, key=lambda each: (self._asked.get(each, 0), each == first.upstream, each))
            self._asked[number] = self._asked.get(number, 0) + 1
            history = History(first, BACKLOG_BLOCKS - 1)
            start = history.start
            take = partial(self._take, number, history)
            self._link = Link(self._network, self._process, self._upstreams[number], take, start=lambda: start)

    def _take(self, number: int, history: History, frame: FlashblockFrame) -> None:
        if self._ended:
            return
        if history.take(ours(number, frame)):
            self._found(history.arrivals)
            self._end()
        elif history.fruitless:
            self._in_vain[number] = None
            self._turn += 1
            self._ask_next(self._turn)

    def _end(self) -> None:
        self._ended = True
        self._end_link()
        self.done.set()

    def _end_link(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.close()


def _frame_of(arrival: Arrival) -> FlashblockFrame:
    """The frame that came, in the epoch in which it is passed on."""
    frame: FlashblockFrame = arrival.item
    if arrival.epoch is None or arrival.epoch == frame.epoch:
        return frame
    return msgspec.structs.replace(frame, epoch=arrival.epoch)
