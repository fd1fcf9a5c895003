"""The in-memory network: calls, links, lifelines and single messages between processes, and what goes wrong with them.

Hosts are the groups and the edge (proxies, rpc-node, clients). On one host nothing is lost. Between hosts a single
message may be lost, doubled, delayed and overtaken; a call may be lost or answered late; a link keeps its order, as TCP
does, stands still while its path is cut, and breaks after LINK_SILENCE_S without a sign of the other end.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from chaos.simulation.kernel import Clock, Future, Process

LOCAL_S_MIN, LOCAL_S_SPREAD = 0.0002, 0.0006
REMOTE_S_MIN, REMOTE_S_SPREAD = 0.0004, 0.0016
STRAGGLER_SHARE, STRAGGLER_S_MAX = 0.01, 0.040
LINK_SILENCE_S = 3.0
LINK_RETRY_S_FIRST, LINK_RETRY_S_MAX = 0.05, 0.5
LIFELINE_RETRY_S_MIN, LIFELINE_RETRY_S_MAX = 0.02, 0.4
DEATH_NOTICE_S = 0.001


class CallRefused(Exception):
    """The callee answered with an error: it certainly did nothing of what was asked."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class CallUnknown(Exception):
    """No answer: refused connection, broken connection, time-out."""


class Weather:
    """What the path from one host to another does to what travels on it, beyond the ordinary delay."""

    __slots__ = ("delay_s_max", "double_share", "loss_share")

    def __init__(self, loss_share: float, double_share: float, delay_s_max: float) -> None:
        self.loss_share, self.double_share, self.delay_s_max = loss_share, double_share, delay_s_max


class Slot:
    """A named place for a component: its disk stays, its process comes and goes."""

    def __init__(self, network: Network, name: str, host: str, make: Callable[[Process, Any], Any], disk: Any) -> None:
        self.name, self.host, self.disk = name, host, disk
        self._network, self._make = network, make
        self.process: Process | None = None
        self.component: Any = None
        self.starts = 0
        self.wanted = True

    def start(self) -> None:
        """Start the component, on what its disk holds."""
        if self.process is not None:
            return
        self.starts += 1
        self.process = Process(self._network.clock, self.name, self.host)
        self.component = self._make(self.process, self.disk)
        self.component.start()
        self._network.on_start(self)

    def kill(self) -> None:
        """SIGKILL."""
        process, self.process = self.process, None
        if process is not None:
            process.kill()
            self._network.on_death(self, process)
            self.component = None

    def pause(self) -> None:
        """SIGSTOP."""
        if self.process is not None and not self.process.paused:
            self.process.pause()
            self._network.on_pause(self.process)

    def wake(self) -> None:
        """SIGCONT."""
        if self.process is not None and self.process.paused:
            self.process.wake()


class Network:
    """Everything that travels."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.slots: dict[str, Slot] = {}
        self.cut: dict[tuple[str, str], float] = {}
        self.weather: dict[tuple[str, str], Weather] = {}
        self.connections: dict[Connection, None] = {}
        self._lifelines: dict[str, list[tuple[Process, Callable[[bool], None], list[bool]]]] = {}
        self._serving: dict[Process, dict[_Call, None]] = {}
        self.lost = self.doubled = self.delivered = 0

    def add(self, name: str, host: str, make: Callable[[Process, Any], Any], disk: Any = None) -> Slot:
        """Make a place for a component."""
        slot = self.slots[name] = Slot(self, name, host, make, disk)
        return slot

    def delay_s(self, source: str, target: str) -> float:
        """How long something takes now from host to host."""
        draw = self.clock.draw
        if source == target:
            return LOCAL_S_MIN + LOCAL_S_SPREAD * draw()
        delay = REMOTE_S_MIN + REMOTE_S_SPREAD * draw()
        if draw() < STRAGGLER_SHARE:
            delay += STRAGGLER_S_MAX * draw()
        weather = self.weather.get((source, target)) if self.weather else None
        return delay if weather is None else delay + weather.delay_s_max * draw()

    def is_cut(self, source: str, target: str) -> bool:
        """Whether nothing gets from host to host."""
        return (source, target) in self.cut

    def cut_for(self, one: str, other: str, seconds: float) -> bool:
        """Whether the path has been cut, in either direction, for that long."""
        now = self.clock.now
        ways = ((one, other), (other, one))
        return any(way in self.cut and now - self.cut[way] >= seconds for way in ways)

    def reachable(self, source: str, target: str) -> bool:
        """Whether both directions are open."""
        return (source, target) not in self.cut and (target, source) not in self.cut

    def cut_path(self, source: str, target: str) -> None:
        """Nothing gets from host to host any more; the other direction is another matter."""
        self.cut.setdefault((source, target), self.clock.now)
        self.clock.after(LINK_SILENCE_S + 0.001, None, self._break_silent)

    def mend_path(self, source: str, target: str) -> None:
        """The way is open again; what stood still on the links goes on."""
        if self.cut.pop((source, target), None) is not None:
            for connection in list(self.connections):
                connection.flush()

    def mend_all(self) -> None:
        """Every way is open and fair."""
        self.weather.clear()
        for way in list(self.cut):
            self.mend_path(*way)

    # Single messages

    def post(self, source: Process, slot: str, method: str, *arguments: Any) -> None:
        """Send a message that nobody promises to deliver, or to deliver once."""
        target = self.slots[slot]
        way = (source.host, target.host)
        if way in self.cut:
            self.lost += 1
            return
        weather = self.weather.get(way) if self.weather else None
        if weather is not None:
            if self.clock.draw() < weather.loss_share:
                self.lost += 1
                return
            if self.clock.draw() < weather.double_share:
                self.doubled += 1
                self.clock.after(self.delay_s(*way), None, self._arrive, target, method, arguments)
        self.clock.after(self.delay_s(*way), None, self._arrive, target, method, arguments)

    def _arrive(self, target: Slot, method: str, arguments: tuple[Any, ...]) -> None:
        process = target.process
        if process is None:
            return
        self.delivered += 1
        if process.paused or process.slow_s:
            self.clock.at(self.clock.now, process, getattr(target.component, method), *arguments)
        else:
            getattr(target.component, method)(*arguments)

    # Calls

    def call(self, caller: Process, slot: str, method: str, *arguments: Any, timeout_s: float) -> Future:
        """Call a method of a component: its result, CallRefused, or CallUnknown after at most `timeout_s`."""
        target, future = self.slots[slot], Future(caller)
        self.clock.after(timeout_s, caller, future.fail, CallUnknown("timeout"))
        way = (caller.host, target.host)
        if way in self.cut or self._loses(way):
            return future
        call = _Call(self, caller, target, method, arguments, future)
        self.clock.after(self.delay_s(*way), None, call.arrive)
        return future

    def _loses(self, way: tuple[str, str]) -> bool:
        weather = self.weather.get(way) if self.weather else None
        return weather is not None and self.clock.draw() < weather.loss_share

    def reply(self, target: Slot, caller: Process, function: Callable[..., Any], *arguments: Any) -> None:
        """Carry an answer back, unless its way is cut."""
        way = (target.host, caller.host)
        if way not in self.cut and not self._loses(way):
            self.clock.after(self.delay_s(*way), caller, function, *arguments)

    def serving(self, process: Process) -> dict[_Call, None]:
        """The calls that a process is answering."""
        return self._serving.setdefault(process, {})

    # Lifelines

    def watch(self, process: Process, slot: str, on_change: Callable[[bool], None]) -> None:
        """Tell at once when the component there dies, and soon when it is back."""
        entry = (process, on_change, [False])
        self._lifelines.setdefault(slot, []).append(entry)
        self._look(slot, entry)

    def _look(self, slot: str, entry: tuple[Process, Callable[[bool], None], list[bool]]) -> None:
        process, on_change, known = entry
        target = self.slots[slot].process
        if target is not None and not target.paused and not known[0]:
            known[0] = True
            process.after(DEATH_NOTICE_S, on_change, True)
        elif target is not None and not known[0]:
            process.after(LIFELINE_RETRY_S_MAX, self._look, slot, entry)

    def on_start(self, slot: Slot) -> None:
        """A component is there again."""
        for entry in self._lifelines.get(slot.name, ()):
            if entry[0].alive:
                spread = LIFELINE_RETRY_S_MIN + LIFELINE_RETRY_S_MAX * self.clock.draw()
                entry[0].after(spread, self._look, slot.name, entry)

    def on_death(self, slot: Slot, process: Process) -> None:
        """A process is gone: its kernel closes every connection, which the others notice where the way is open."""
        entries = self._lifelines.get(slot.name, [])
        entries[:] = [entry for entry in entries if entry[0].alive]
        for watcher, on_change, known in entries:
            if known[0]:
                known[0] = False
                watcher.after(DEATH_NOTICE_S, on_change, False)
        for call in self._serving.pop(process, {}):
            self.reply(slot, call.caller, call.future.fail, CallUnknown("connection closed"))
        for connection in list(self.connections):
            if process in (connection.client, connection.server):
                connection.break_by(process)

    def on_pause(self, process: Process) -> None:
        """A process hangs: its peers notice by its silence."""
        self.clock.after(LINK_SILENCE_S + 0.001, None, self._break_silent)

    def _break_silent(self) -> None:
        now = self.clock.now
        for connection in list(self.connections):
            ends = (connection.client, connection.server)
            hung = any(end.paused and now - end.paused_at >= LINK_SILENCE_S for end in ends)
            if hung or self.cut_for(ends[0].host, ends[1].host, LINK_SILENCE_S):
                connection.break_now()


class _Call:
    __slots__ = ("_arguments", "_method", "_network", "_target", "caller", "future")

    def __init__(
        self, network: Network, caller: Process, target: Slot, method: str, arguments: tuple[Any, ...], future: Future
    ) -> None:
        self._network, self.caller, self._target = network, caller, target
        self._method, self._arguments, self.future = method, arguments, future

    def arrive(self) -> None:
        process = self._target.process
        if process is None:
            self._answer(self.future.fail, CallUnknown("connection refused"))
            return
        self._network.serving(process)[self] = None
        if process.paused or process.slow_s:
            self._network.clock.at(self._network.clock.now, process, self._serve, process)
        else:
            self._serve(process)

    def _serve(self, process: Process) -> None:
        try:
            result = getattr(self._target.component, self._method)(*self._arguments)
        except CallRefused as error:
            self._end(process, self.future.fail, error)
            return
        if isinstance(result, Coroutine):
            process.spawn(self._finish(process, result))
        else:
            self._end(process, self.future.set, result)

    async def _finish(self, process: Process, work: Coroutine[Any, Any, Any]) -> None:
        try:
            result = await work
        except (CallRefused, CallUnknown) as error:
            self._end(process, self.future.fail, CallRefused(str(error)))
        else:
            self._end(process, self.future.set, result)

    def _end(self, process: Process, function: Callable[..., Any], outcome: Any) -> None:
        self._network.serving(process).pop(self, None)
        self._answer(function, outcome)

    def _answer(self, function: Callable[..., Any], outcome: Any) -> None:
        if self.caller.alive and not self.future.done:
            self._network.reply(self._target, self.caller, function, outcome)


class Connection:
    """One established link: in order both ways, until it breaks."""

    def __init__(self, network: Network, client: Process, server: Process, link: Link) -> None:
        self.network, self.client, self.server, self._link = network, client, server, link
        self.broken = False
        self._due = {True: 0.0, False: 0.0}
        self._stalled: dict[bool, list[Any]] = {True: [], False: []}
        network.connections[self] = None

    def send(self, to_client: bool, message: Any) -> None:
        """Send one way or the other."""
        if self.broken:
            return
        source, target = (self.server, self.client) if to_client else (self.client, self.server)
        clock = self.network.clock
        due = max(self._due[to_client], clock.now + self.network.delay_s(source.host, target.host))
        self._due[to_client] = due
        clock.at(due, target, self._deliver, to_client, message)

    def _deliver(self, to_client: bool, message: Any) -> None:
        if self.broken:
            return
        source, target = (self.server, self.client) if to_client else (self.client, self.server)
        if self._stalled[to_client] or (source.host, target.host) in self.network.cut:
            self._stalled[to_client].append(message)
        elif to_client:
            self._link.deliver(message)
        else:
            self._link.slot.component.on_peer_frame(self, message)

    def to_client(self, message: Any) -> None:
        """The server sends."""
        self.send(True, message)

    def flush(self) -> None:
        """The way is open again."""
        for to_client, stalled in self._stalled.items():
            source, target = (self.server, self.client) if to_client else (self.client, self.server)
            if stalled and (source.host, target.host) not in self.network.cut:
                messages = list(stalled)
                stalled.clear()
                for message in messages:
                    self.send(to_client, message)

    def break_by(self, dead: Process) -> None:
        """One end is gone."""
        other = self.server if dead is self.client else self.client
        if self.network.is_cut(dead.host, other.host):
            self.network.clock.after(LINK_SILENCE_S, None, self.break_now)
        else:
            self.break_now()

    def break_now(self) -> None:
        """Both ends notice."""
        if self.broken:
            return
        self.broken = True
        self.network.connections.pop(self, None)
        self.client.after(DEATH_NOTICE_S, self._link.lost, self)
        if self._link.slot.process is self.server:
            self.server.after(DEATH_NOTICE_S, self._link.slot.component.on_peer_lost, self)


class Link:
    """A client's standing wish to be connected to a component; it comes back by itself."""

    def __init__(
        self,
        network: Network,
        process: Process,
        slot: str,
        on_frame: Callable[[Any], None],
        on_change: Callable[[bool], None] | None = None,
        start: Callable[[], Any] = lambda: None,
        port: str = "",
    ) -> None:
        self.slot = network.slots[slot]
        self.port = port
        self.connection: Connection | None = None
        self._network, self._process = network, process
        self._on_frame, self._on_change, self._start = on_frame, on_change, start
        self._retry_s = LINK_RETRY_S_FIRST
        self._closed = False
        self._try()

    @property
    def connected(self) -> bool:
        """Whether it is up."""
        return self.connection is not None

    def send(self, message: Any) -> None:
        """Send to the server; lost when there is no connection."""
        if self.connection is not None:
            self.connection.send(False, message)

    def deliver(self, message: Any) -> None:
        """A message came."""
        self._on_frame(message)

    def close(self) -> None:
        """Leave."""
        self._closed = True
        if self.connection is not None:
            self.connection.break_now()

    def _try(self) -> None:
        if self._closed or self.connection is not None:
            return
        server = self.slot.process
        if server is None or server.paused or not self._network.reachable(self._process.host, self.slot.host):
            self._process.after(self._retry_s * (0.5 + 0.5 * self._network.clock.draw()), self._try)
            self._retry_s = min(2 * self._retry_s, LINK_RETRY_S_MAX)
            return
        self._process.after(2 * self._network.delay_s(self._process.host, self.slot.host), self._open, server)

    def _open(self, server: Process) -> None:
        if self._closed:
            return
        if not server.alive or server.paused or not self._network.reachable(self._process.host, self.slot.host):
            self._try()
            return
        self._retry_s = LINK_RETRY_S_FIRST
        self.connection = Connection(self._network, self._process, server, self)
        if self._on_change is not None:
            self._on_change(True)
        self.slot.component.on_peer(self.connection, self._start(), self.port)

    def lost(self, connection: Connection) -> None:
        """The connection broke."""
        if self.connection is not connection:
            return
        self.connection = None
        if self._closed:
            return
        if self._on_change is not None:
            self._on_change(False)
        self._process.after(self._retry_s * self._network.clock.draw(), self._try)
