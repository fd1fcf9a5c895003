"""Drills on the leader: kill, hang or hand over, again and again under load, and judge what was seen.

Steady state, fault, next flashblock, restored, steady state – with a seed for the moment of each fault. Load and
subscribers run all the time; the checker decides from the history alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from chaos.checker import DUPLICATE, GAP, LOST_FLASHBLOCK, LOST_TRANSACTION, Report, check
from chaos.faults import ACTORS, FAULTS, KILL, WHOLE_GROUP, Inflicted
from chaos.history import Event, Preconfirmed, Seen, Sent
from chaos.subscribers import Subscriber
from chaos.target import DrillError, Target

STEADY_FLASHBLOCKS = 8
STEADY_S_MAX = 60.0
NEXT_FLASHBLOCK_S_MAX = 30.0
PAUSE_S_MIN, PAUSE_S_MAX = 0.5, 2.5
SETTLE_S_MAX = 30.0
POLL_S = 0.01


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What to do to which actor, how often, with which seed, under how much load (transactions per second)."""

    fault: str = KILL
    actor: str = "conductor"
    count: int = 10
    seed: int = 1
    tps: float = 20.0


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One fault: who led before and after, and how long the stream was silent (milliseconds)."""

    run: int
    fault: str
    actor: str
    pid: int
    leader: str
    new_leader: str
    epoch: int
    gap_ms: float
    restored_ms: float


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What `flashblocks drill … --json` prints; `kills` counts the faults, of whatever kind."""

    verdict: str
    kills: int
    lost: int
    duplicates: int
    gaps: int
    gap_ms_p50: float
    gap_ms_p99: float
    transactions: int
    flashblocks: int
    seed: int
    runs: list[Run]
    violations: list[str]


class LeaderDrill:
    """Carries out the drill against a running cluster; `say` gets a line per step."""

    def __init__(self, target: Target, options: Options, say: Callable[[str], None]) -> None:
        if options.actor not in (*ACTORS, WHOLE_GROUP) or options.fault not in FAULTS:
            raise DrillError(f"no such drill: {options.fault} {options.actor}")
        self.history: list[Event] = []
        self._target, self._options, self._say = target, options, say
        self._random = random.Random(options.seed)

    async def run(self, load: Callable[[Callable[[Event], None]], Any]) -> Result:
        """Run the drill; `load(record)` returns the coroutine that sends transactions until it is cancelled."""
        endpoints = self._target.endpoints()
        streams = list(endpoints["stream"])
        witnesses = [Subscriber(f"{url} text", url, self.history.append, frames=False) for url in streams]
        witnesses += [Subscriber(f"{url} frames", url, self.history.append, frames=True) for url in streams]
        doors = [group["actors"]["conductor"]["ws"] for group in endpoints["groups"]]
        witnesses += [Subscriber(url, url, self.history.append, frames=True, edge=False) for url in doors]
        background = [asyncio.create_task(witness.run()) for witness in witnesses]
        background.append(asyncio.create_task(load(self.history.append)))
        try:
            runs = []
            for number in range(1, self._options.count + 1):
                await self._steady(streams, background)
                runs.append(await self._one(number))
            await self._steady(streams, background)
            first, last = await self._settled()
        finally:
            for task in background:
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.gather(*background, return_exceptions=True)
        await self._read_chain(first, last)
        return judged(self._options, runs, check(self.history), self.history)

    async def _one(self, number: int) -> Run:
        group, status = await self._target.wait_for_leader(STEADY_S_MAX)
        fault = Inflicted(self._target, self._options.fault, self._options.actor, group)
        epoch_before = max((event.epoch for event in self.history if isinstance(event, Seen)), default=0)
        began = time.time()
        self.history.extend(fault.events(number, began))
        try:
            injected = asyncio.create_task(fault.inject())
            gap_ms = await self._next_flashblock(began, epoch_before)
            await injected
            after, after_status = await self._target.wait_for_leader(STEADY_S_MAX)
            self.history.extend(await fault.restore(number))
        finally:
            fault.wake()
        restored_ms = (time.time() - began) * 1000
        self._say(
            f"{number:3}/{self._options.count}  {fault.kind} {group['name']}/{self._options.actor}  "
            f"leader {group['name']} → {after['name']} (epoch {status['epoch']} → {after_status['epoch']})  "
            f"next flashblock {gap_ms:.0f} ms  back and level {restored_ms:.0f} ms"
        )
        return Run(
            run=number,
            fault=fault.kind,
            actor=self._options.actor,
            pid=next(iter(fault.pids.values()), 0),
            leader=group["name"],
            new_leader=after["name"],
            epoch=int(after_status["epoch"]),
            gap_ms=round(gap_ms, 1),
            restored_ms=round(restored_ms, 1),
        )

    async def _steady(self, streams: Sequence[str], background: Sequence[asyncio.Task[Any]]) -> None:
        """Wait until every subscriber has seen new flashblocks, then a seeded while longer."""
        since, deadline = len(self.history), time.monotonic() + STEADY_S_MAX
        names = {f"{url} {kind}" for url in streams for kind in ("text", "frames")}
        while True:
            for task in background:
                if task.done():
                    task.result()  # a witness or the load died: its exception ends the drill
            counts = dict.fromkeys(names, 0)
            for event in self.history[since:]:
                if isinstance(event, Seen) and event.edge:
                    counts[event.source] += 1
            if min(counts.values()) >= STEADY_FLASHBLOCKS:
                break
            if time.monotonic() > deadline:
                raise DrillError(f"the stream is not steady: flashblocks seen in {STEADY_S_MAX:.0f} s: {counts}")
            await asyncio.sleep(5 * POLL_S)
        await asyncio.sleep(self._random.uniform(PAUSE_S_MIN, PAUSE_S_MAX))

    async def _next_flashblock(self, began: float, epoch_before: int) -> float:
        """Milliseconds from the fault to the next flashblock that no subscriber of a proxy had seen before."""
        position, deadline = 0, time.monotonic() + NEXT_FLASHBLOCK_S_MAX
        newest = (-1, -1)
        first: float | None = None
        while time.monotonic() < deadline:
            events, position = self.history[position:], len(self.history)
            for event in events:
                if not isinstance(event, Seen) or not event.edge:
                    continue
                place = (event.number, event.index)
                fresh, newest = place > newest, max(place, newest)
                if event.at <= began or not fresh:
                    continue
                # what the dead leader still had on the wire says nothing of the failover; its successor's epoch does
                if event.epoch > epoch_before:
                    return (event.at - began) * 1000
                first = first or event.at
            if first is not None and time.time() - first > 1.0 and (await self._target.leader()) is not None:
                return (first - began) * 1000  # leadership stayed where it was
            await asyncio.sleep(POLL_S)
        raise DrillError(f"no flashblock within {NEXT_FLASHBLOCK_S_MAX:.0f} s of the fault")

    async def _settled(self) -> tuple[int, int]:
        """Wait until the last block seen so far is sealed everywhere; return the range of blocks to read."""
        numbers = [event.number for event in self.history if isinstance(event, Seen) and event.edge]
        first, last = min(numbers), max(numbers)
        deadline = time.monotonic() + SETTLE_S_MAX
        nodes = self._nodes()
        while time.monotonic() < deadline:
            heads = await asyncio.gather(*(self._target.head(url) for _, url in nodes))
            if all(head is not None and head >= last for head in heads):
                return first, last
            await asyncio.sleep(10 * POLL_S)
        raise DrillError(
            f"block {last} is not everywhere after {SETTLE_S_MAX:.0f} s: {list(zip(nodes, heads, strict=True))}"
        )

    async def _read_chain(self, first: int, last: int) -> None:
        for source, url in self._nodes():
            self.history.extend(await self._target.chain(source, url, first, last))

    def _nodes(self) -> list[tuple[str, str]]:
        return [
            (f"{group['name']}/{actor}", group["actors"][actor]["rpc"])
            for group in self._target.groups()
            for actor in ("fallback-el", "builder")
        ]


def judged(options: Options, runs: Sequence[Run], report: Report, history: Sequence[Event]) -> Result:
    """Put the runs and the checker's report together."""
    gaps = sorted(run.gap_ms for run in runs)
    sent = sum(isinstance(event, Sent | Preconfirmed) for event in history)
    passed = report.passed and len(runs) == options.count and (sent > 0 or options.tps == 0)
    violations = [f"{violation.rule}: {violation.text}" for violation in report.violations]
    if not passed and not violations:
        violations.append("no transaction was sent: nothing was tested")
    return Result(
        verdict="pass" if passed else "fail",
        kills=len(runs),
        lost=report.count(LOST_FLASHBLOCK, LOST_TRANSACTION),
        duplicates=report.count(DUPLICATE),
        gaps=report.count(GAP),
        gap_ms_p50=percentile(gaps, 50),
        gap_ms_p99=percentile(gaps, 99),
        transactions=report.transactions,
        flashblocks=report.flashblocks,
        seed=options.seed,
        runs=list(runs),
        violations=violations,
    )


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile of sorted values; 0.0 when there are none."""
    if not values:
        return 0.0
    rank = max(1, -(-len(values) * percent // 100))
    return values[int(rank) - 1]
