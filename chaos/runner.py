"""Carries out one drill on a running cluster: steady state, inject, observe, restore, steady state – with a seed.

Load and witnesses run all the time and write the history; what it means is decided from the history alone, by
`chaos.judgement`.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from chaos import faults
from chaos.drill import Drill, Scene
from chaos.expectation import Expect
from chaos.faults import Fault
from chaos.history import Began, Event, GaveUp, Leads, Lifted, Observed, Seen
from chaos.judgement import Run, runs_of
from chaos.rpc_witness import RpcWitness
from chaos.subscribers import Subscriber
from chaos.target import DrillError, Target

STEADY_FLASHBLOCKS = 8
STEADY_S_MAX = 90.0
NEXT_FLASHBLOCK_S_MAX = 60.0
STAYED_S = 3.0
"""A leader that still leads this long after the fault has not lost the lead to it: longer than a block, because what a
block's flashblocks do not need may be missed only at its end.
"""
UNNOTICED_S = 2.0
PAUSE_S_MIN, PAUSE_S_MAX = 0.5, 2.5
SETTLE_S_MAX = 60.0
POLL_S = 0.01

LoadMaker = Callable[[Callable[[Event], None]], Coroutine[Any, Any, None]]


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How often, with which seed for moments and victims, under how much load (transactions per second)."""

    count: int = 10
    seed: int = 1
    tps: float = 20.0


class PublicStream:
    """The newest of what any subscriber of a proxy has seen; reads a growing history once."""

    def __init__(self, history: list[Event]) -> None:
        self._history = history
        self._position = 0
        self._newest = (-1, -1)
        self.epoch = 0
        self.fresh_at = 0.0
        """When the newest flashblock was first seen."""
        self.epoch_at = 0.0
        """When the newest epoch was first seen."""
        self.counts: dict[str, int] = {}

    def look(self) -> None:
        """Take in what the history has got since the last look."""
        events, self._position = self._history[self._position :], len(self._history)
        for event in events:
            if not isinstance(event, Seen) or not event.edge:
                continue
            self.counts[event.source] = self.counts.get(event.source, 0) + 1
            if (event.number, event.index) > self._newest:
                self._newest = (event.number, event.index)
                self.fresh_at = event.at
            if event.epoch > self.epoch:
                self.epoch, self.epoch_at = event.epoch, event.at


class Runner:
    """One drill on one cluster; `say` gets a line per step, `history` all that was noticed."""

    def __init__(self, target: Target, drill: Drill, options: Options, say: Callable[[str], None]) -> None:
        self.history: list[Event] = []
        self._target, self._drill, self._options, self._say = target, drill, options, say
        self._random = random.Random(options.seed)
        self._stream = PublicStream(self.history)
        self._background: list[asyncio.Task[Any]] = []
        self._sources: list[str] = []

    async def run(self, load: LoadMaker) -> None:
        """Run the drill; `load(record)` returns the coroutine that sends transactions until it is cancelled.

        Raises DrillError when the drill could not be carried out to its end, which the history then says.
        """
        try:
            await self._run(load)
        except DrillError as error:
            self.history.append(GaveUp(time.time(), str(error)))
            raise

    async def _run(self, load: LoadMaker) -> None:
        options, drill = self._options, self._drill
        self.history.append(
            Began(
                at=time.time(),
                drill=drill.name,
                count=options.count,
                seed=options.seed,
                tps=options.tps,
                expect=drill.expect,
                bound=drill.bound,
            )
        )
        witnesses = self._witnesses()
        self._background = [asyncio.create_task(witness) for witness in witnesses]
        self._background.append(asyncio.create_task(load(self.history.append)))
        try:
            for number in range(1, options.count + 1):
                since = len(self.history)
                await self._steady()
                await self._one(number, since)
            await self._steady()
            first, last = await self._settled()
        finally:
            for task in self._background:
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.gather(*self._background, return_exceptions=True)
        await self._read_chain(first, last)

    def _witnesses(self) -> list[Coroutine[Any, Any, None]]:
        """Every proxy as plain text and as frames, every conductor's own door, every rpc-node."""
        endpoints, record = self._target.endpoints(), self.history.append
        made: list[Coroutine[Any, Any, None]] = []
        for number, url in enumerate(endpoints["stream"]):
            for kind in ("text", "frames"):
                name = f"proxy-{number} {kind}"
                self._sources.append(name)
                made.append(Subscriber(name, url, record, frames=kind == "frames").run())
        for group in endpoints["groups"]:
            url = group["actors"]["conductor"]["ws"]
            made.append(Subscriber(f"{group['name']}/conductor", url, record, frames=True, edge=False).run())
        for node in endpoints["rpc_nodes"]:
            made.append(RpcWitness(node["name"], node["http"], node["ws"], record).run())
        return made

    async def _one(self, number: int, since: int) -> None:
        """One fault, to the moment all is well again; `since`: where in the history the steady state before it is."""
        group, status = await self._target.wait_for_leader(STEADY_S_MAX)
        followers = [one for one in self._target.groups() if one["name"] != group["name"]]
        fault = self._drill.fault(Scene(self._target, group, followers, self._random))
        self.history.append(Leads(time.time(), number, group["name"], int(status["epoch"]), False))
        try:
            self._stream.look()
            epoch_before = self._stream.epoch
            await fault.prepare()
            began = time.time()
            self.history.extend(faults.events(fault, number, began))
            await self._inject_and_observe(number, fault, began, epoch_before)
            self.history.extend(await fault.recovered(number))
        finally:
            fault.abandon()
        self._tell(next(runs_of(self.history[since:], self._drill.expect)))

    async def _inject_and_observe(self, number: int, fault: Fault, began: float, epoch_before: int) -> None:
        expect = self._drill.expect
        injected = asyncio.create_task(fault.inject())
        try:
            if expect is Expect.GOES_ON:
                await self._next_flashblock(began, epoch_before)
                await injected
                await self._observed(number)
                await _sleep_until(began + fault.hold_s)
                await self._lift(number, fault)
                return
            await injected
            await _sleep_until(began + max(fault.hold_s, UNNOTICED_S))
            lifted = await self._lift(number, fault)
            if expect is Expect.HALTS:
                await self._next_flashblock(lifted, epoch_before)
            else:
                await _sleep_until(lifted + UNNOTICED_S)
            await self._observed(number)
        finally:
            injected.cancel()

    async def _lift(self, number: int, fault: Fault) -> float:
        """Undo the fault; returns when."""
        at = time.time()
        await fault.lift()
        self.history.append(Lifted(at, number))
        return at

    async def _observed(self, number: int) -> None:
        group, status = await self._target.wait_for_leader(STEADY_S_MAX)
        now = time.time()
        self.history.append(Leads(now, number, group["name"], int(status["epoch"]), True))
        self.history.append(Observed(now, number))

    async def _next_flashblock(self, since: float, epoch_before: int) -> None:
        """Wait until the stream goes on after a moment: in a new epoch, or for good in the old one."""
        stream, deadline = self._stream, time.monotonic() + NEXT_FLASHBLOCK_S_MAX
        first = 0.0
        while time.monotonic() < deadline:
            stream.look()
            if stream.epoch > epoch_before and stream.epoch_at > since:
                return
            if stream.fresh_at > since:
                first = first or stream.fresh_at
            if first and time.time() - since > STAYED_S and await self._target.leader() is not None:
                return
            await asyncio.sleep(POLL_S)
        raise DrillError(f"no flashblock within {NEXT_FLASHBLOCK_S_MAX:.0f} s")

    async def _steady(self) -> None:
        """Wait until every subscriber of a proxy has seen new flashblocks, then a seeded while longer."""
        stream, deadline = self._stream, time.monotonic() + STEADY_S_MAX
        stream.look()
        stream.counts = dict.fromkeys(self._sources, 0)
        while True:
            for task in self._background:
                if task.done():
                    task.result()  # a witness or the load died: its exception ends the drill
            stream.look()
            if min(stream.counts.values()) >= STEADY_FLASHBLOCKS:
                break
            if time.monotonic() > deadline:
                raise DrillError(f"the stream is not steady: seen in {STEADY_S_MAX:.0f} s: {stream.counts}")
            await asyncio.sleep(5 * POLL_S)
        await asyncio.sleep(self._random.uniform(PAUSE_S_MIN, PAUSE_S_MAX))

    async def _settled(self) -> tuple[int, int]:
        """Wait until the last block seen so far is sealed everywhere; return the range of blocks to read."""
        numbers = [event.number for event in self.history if isinstance(event, Seen) and event.edge]
        first, last = min(numbers), max(numbers)
        deadline = time.monotonic() + SETTLE_S_MAX
        heads: dict[str, int | None] = {}
        while time.monotonic() < deadline:
            heads = {source: await self._target.head(url) for source, url in self._nodes()}
            if all(head is not None and head >= last for head in heads.values()):
                return first, last
            await asyncio.sleep(10 * POLL_S)
        raise DrillError(f"block {last} is not everywhere after {SETTLE_S_MAX:.0f} s: {heads}")

    async def _read_chain(self, first: int, last: int) -> None:
        for source, url in self._nodes():
            self.history.extend(await self._target.chain(source, url, first, last))

    def _nodes(self) -> list[tuple[str, str]]:
        endpoints = self._target.endpoints()
        nodes = [
            (f"{group['name']}/{actor}", group["actors"][actor]["rpc"])
            for group in endpoints["groups"]
            for actor in ("fallback-el", "builder")
        ]
        return nodes + [(node["name"], node["http"]) for node in endpoints["rpc_nodes"]]

    def _tell(self, run: Run) -> None:
        self._say(
            f"{run.run:3}/{self._options.count}  {run.fault} {'/'.join(filter(None, (run.group, run.actor)))}  "
            f"leader {run.leader} → {run.new_leader} (epoch {run.epoch})  "
            f"next flashblock {run.gap_ms:.0f} ms  back and level {run.restored_ms:.0f} ms"
        )


async def _sleep_until(at: float) -> None:
    await asyncio.sleep(max(0.0, at - time.time()))
