"""The virtual clock: events in the order of their time, processes that own them, and coroutines that wait.

Nothing here reads a clock, draws from a global source of randomness, or iterates over a set: two runs of one seed do
the same things in the same order. An event belongs to a process. A dead process's events are void; those of a hung one
(SIGSTOP) wait until it is woken, in order; those of a slow one are put off while it is busy.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from heapq import heappop, heappush
from random import Random
from typing import Any

Awaiting = Coroutine[Any, Any, Any]

EVENTS_MAX = 1_000_000
"""More events than any schedule needs: the sign of a loop without a pause."""


class Cancelled(BaseException):
    """Thrown into a coroutine that is ended from outside."""


class Killed(BaseException):
    """The process that was running has just been killed from within: what it was doing ends here."""


class Livelock(RuntimeError):
    """A schedule went through EVENTS_MAX events: something asks for itself without letting time pass."""


class Clock:
    """Time in seconds from the start of the run, and everything that is still to happen."""

    def __init__(self, seed: int) -> None:
        self.now = 0.0
        self.random = Random(seed)
        self.draw = self.random.random
        self.events = 0
        self._sequence = 0
        self._heap: list[tuple[float, int, Process | None, Callable[..., Any], tuple[Any, ...]]] = []

    def at(self, time: float, process: Process | None, function: Callable[..., Any], *arguments: Any) -> None:
        """Call `function` at `time`, in `process` (None: in nobody's, whatever happens)."""
        self._sequence += 1
        heappush(self._heap, (time, self._sequence, process, function, arguments))

    def after(self, delay_s: float, process: Process | None, function: Callable[..., Any], *arguments: Any) -> None:
        """Call `function` in `delay_s` seconds."""
        self._sequence += 1
        heappush(self._heap, (self.now + delay_s, self._sequence, process, function, arguments))

    def run(self, until: float) -> None:
        """Let everything happen that is due up to `until`; raises whatever a rule of ours raises."""
        heap = self._heap
        while heap and heap[0][0] <= until:
            at, _, process, function, arguments = heappop(heap)
            self.now = at
            self.events += 1
            if process is not None:
                if not process.alive:
                    continue
                if process.paused:
                    process.held.append((function, arguments))
                    continue
                if process.slow_s:
                    if process.busy_until > at:
                        self.at(process.busy_until, process, function, *arguments)
                        continue
                    process.busy_until = at + process.slow_s * self.draw()
            try:
                function(*arguments)
            except Killed:
                continue
            if self.events > EVENTS_MAX:
                raise Livelock(f"{self.events} events up to {self.now:.3f} s; the last one is {function!r}")
        self.now = until

    def drop_all(self) -> None:
        """Forget what is still to happen: the run is over."""
        self._heap.clear()


class Process:
    """One incarnation of a component. `group` names the host it runs on."""

    __slots__ = ("alive", "busy_until", "clock", "held", "host", "name", "paused", "paused_at", "slow_s", "tasks")

    def __init__(self, clock: Clock, name: str, host: str) -> None:
        self.clock, self.name, self.host = clock, name, host
        self.alive = True
        self.paused = False
        self.paused_at = 0.0
        self.slow_s = 0.0
        self.busy_until = 0.0
        self.held: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []
        self.tasks: dict[Task, None] = {}

    def after(self, delay_s: float, function: Callable[..., Any], *arguments: Any) -> None:
        """Call `function` here in `delay_s` seconds."""
        self.clock.after(delay_s, self, function, *arguments)

    def every(self, period_s: float, function: Callable[[], Any]) -> None:
        """Call `function` here again and again, first after a part of the period."""
        self.after(period_s * self.clock.draw(), self._again, period_s, function)

    def _again(self, period_s: float, function: Callable[[], Any]) -> None:
        function()
        self.after(period_s, self._again, period_s, function)

    def spawn(self, work: Awaiting) -> Task:
        """Run a coroutine here, from now on; what it raises ends the run, as it is our own bug."""
        task = Task(self, work)
        self.tasks[task] = None
        task.step()
        return task

    def sleep(self, delay_s: float) -> Future:
        """A future that is done in `delay_s` seconds."""
        future = Future(self)
        self.clock.after(delay_s, self, future.set, None)
        return future

    def pause(self) -> None:
        """SIGSTOP."""
        self.paused, self.paused_at = True, self.clock.now

    def wake(self) -> None:
        """SIGCONT: what waited happens now, in order, and before anything newer."""
        self.paused = False
        held, self.held = self.held, []
        for function, arguments in held:
            self.clock.at(self.clock.now, self, function, *arguments)

    def kill(self) -> None:
        """SIGKILL."""
        self.alive = self.paused = False
        self.held.clear()
        tasks, self.tasks = self.tasks, {}
        for task in tasks:
            task.close()


class Future:
    """A result that is not there yet; those who wait for it go on in their own process."""

    __slots__ = ("done", "error", "process", "value", "waiters")

    def __init__(self, process: Process) -> None:
        self.process = process
        self.done = False
        self.value: Any = None
        self.error: BaseException | None = None
        self.waiters: list[Callable[[], Any]] = []

    def set(self, value: Any) -> None:
        """The result; a second one changes nothing."""
        if not self.done:
            self.done, self.value = True, value
            self._tell()

    def fail(self, error: BaseException) -> None:
        """Waiting ends with an exception."""
        if not self.done:
            self.done, self.error = True, error
            self._tell()

    def _tell(self) -> None:
        waiters, self.waiters = self.waiters, []
        for waiter in waiters:
            waiter()

    def __await__(self) -> Generator[Future, None, Any]:
        if not self.done:
            yield self
        if self.error is not None:
            raise self.error
        return self.value


class Task(Future):
    """A coroutine on its way."""

    __slots__ = ("_running", "_work")

    def __init__(self, process: Process, work: Awaiting) -> None:
        super().__init__(process)
        self._work = work
        self._running = False

    def step(self) -> None:
        """Go on until it waits again or ends."""
        if not self.done and self.process.alive:
            self._advance(self._work.send, None)

    def cancel(self) -> None:
        """End it where it waits."""
        if not self.done:
            self._advance(self._work.throw, Cancelled())

    def close(self) -> None:
        """Its process is gone: nothing of it runs any more."""
        self.done = True
        if not self._running:  # one that is killed from within is ended by `Killed`
            self._work.close()

    def _advance(self, go_on: Callable[[Any], Any], what: Any) -> None:
        self._running = True
        try:
            awaited: Future = go_on(what)
        except StopIteration as finished:
            self.process.tasks.pop(self, None)
            self.set(finished.value)
        except Cancelled:
            self.process.tasks.pop(self, None)
            self.fail(Cancelled())
        else:
            awaited.waiters.append(self.step)
        finally:
            self._running = False


class Lock:
    """One at a time, first come first served."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._held = False
        self._queue: list[Future] = []

    @property
    def waiting(self) -> int:
        """How many wait for their turn."""
        return len(self._queue)

    async def __aenter__(self) -> None:
        if self._held:
            turn = Future(self._process)
            self._queue.append(turn)
            try:
                await turn
            except Cancelled:
                if turn in self._queue:
                    self._queue.remove(turn)
                else:
                    self._pass_on()
                raise
        self._held = True

    async def __aexit__(self, *_: object) -> None:
        self._pass_on()

    def _pass_on(self) -> None:
        self._held = False
        if self._queue:
            self._held = True
            self._process.after(0.0, self._queue.pop(0).set, None)


class Event:
    """A flag to wait for."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._set = False
        self._waiting: list[Future] = []

    def set(self) -> None:
        """Raise it."""
        self._set = True
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            self._process.after(0.0, future.set, None)

    def clear(self) -> None:
        """Lower it."""
        self._set = False

    async def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until it is raised; False when the time-out came first."""
        if self._set:
            return True
        future = Future(self._process)
        self._waiting.append(future)
        if timeout_s is not None:
            self._process.after(timeout_s, future.set, None)
        await future
        return self._set
