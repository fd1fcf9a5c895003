"""The soak: random faults on a whole cluster for minutes on end, and what every process grew by meanwhile.

Kill, hang and transfer of the leader's and the followers' actors, drawn from a seed; the history of the whole time is
judged at once, so that what one fault leaves behind and a later one uncovers is found as well.

`flashblocks drill soak` runs it on the running cluster, or on one of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from chaos.drill import Drill, Scene
from chaos.faults import ACTORS, HANG, KILL, TRANSFER, WHOLE_GROUP, Fault, Signals, Transfer, victims
from chaos.judgement import Result, judge
from chaos.keeping import Kept, pretty
from chaos.load import drill_load
from chaos.own_cluster import START_S_MAX, cluster
from chaos.runner import Options, Runner
from chaos.soak_resources import Growth, Resources, growth_table
from chaos.target import Target

COUNT_DEFAULT: Final = 100
TPS_DEFAULT: Final = 10.0
HANG_S_MIN, HANG_S_MAX = 0.5, 4.0
LEADER_SHARE: Final = 0.6
"""How often a fault is on the group that leads; else on one that does not."""
KIND_WEIGHTS: Final = {KILL: 5, HANG: 3, TRANSFER: 2}
GROUP_WEIGHT: Final = 1
"""A whole group against each single actor of it, which weighs as much."""
FAILED_STATUS = 1
TITLE: Final = "random kills, hangs and transfers for minutes on end, and what every process grew by"


class Soaked(msgspec.Struct, frozen=True):
    """What a soak came to."""

    result: Result
    faults: dict[str, int]
    """Kind and actor → how many."""
    minutes: float
    growth: list[Growth]


def random_fault(scene: Scene) -> Fault:
    """The next fault, as the scene's randomness has it."""
    random = scene.random
    (kind,) = random.choices(list(KIND_WEIGHTS), list(KIND_WEIGHTS.values()))
    if kind == TRANSFER:
        return Transfer(scene.target, scene.leader)
    group = scene.leader if random.random() < LEADER_SHARE else scene.some_followers(1)[0]
    actor = random.choice((*ACTORS, *[WHOLE_GROUP] * GROUP_WEIGHT))
    actors = ACTORS if actor == WHOLE_GROUP else (actor,)
    return Signals(scene.target, kind, victims([group], actors), random.uniform(HANG_S_MIN, HANG_S_MAX))


SOAK: Final = Drill(
    name="soak",
    title="random kills, hangs and transfers, one after the other",
    row="chaos tests: ≥ 100 random faults in 20 minutes",
    fault=random_fault,
    slow=True,
)


async def soak(target: Target, options: Options, say: Callable[[str], None]) -> tuple[Soaked, Runner]:
    """Soak a running cluster; raises DrillError when a fault could not be carried out to its end."""
    runner, resources, began = Runner(target, SOAK, options, say), Resources(target), time.monotonic()

    def load(record: Callable[[Any], None]) -> Any:
        return drill_load(target.endpoints(), options.tps, record)

    watching = asyncio.create_task(resources.watch())
    try:
        await target.wait_for_leader(START_S_MAX)
        await runner.run(load)
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
        await target.close()
    result = judge(runner.history)
    counted: dict[str, int] = {}
    for run in result.runs:
        name = f"{run.fault} {run.actor if '+' not in run.actor else WHOLE_GROUP}"
        counted[name] = counted.get(name, 0) + 1
    minutes = round((time.monotonic() - began) / 60, 1)
    return Soaked(result, dict(sorted(counted.items())), minutes, resources.growth()), runner


def table(soaked: Soaked) -> str:
    """The outcome for people."""
    result = soaked.result
    lines = [
        f"{result.verdict.upper()}: {result.kills} faults in {soaked.minutes} minutes (seed {result.seed}): "
        f"{result.flashblocks} flashblocks, {result.blocks} blocks, {result.transactions} transactions seen",
        f"lost {result.lost}   duplicates {result.duplicates}   gaps {result.gaps}",
        "faults: " + ", ".join(f"{name} {count}" for name, count in soaked.faults.items()),
        f"next flashblock after the fault: p50 {result.gap_ms_p50:.0f} ms, p99 {result.gap_ms_p99:.0f} ms",
        *(f"  broken: {text}" for text in result.violations[:20]),
        growth_table(soaked.growth),
    ]
    return "\n".join(lines)


def configure(parser: argparse.ArgumentParser) -> None:
    """The words that the soak takes."""
    parser.add_argument("--count", type=int, default=COUNT_DEFAULT, help="faults")
    parser.add_argument("--seed", type=int, default=1, help="for the faults and their moments")
    parser.add_argument("--tps", type=float, default=TPS_DEFAULT, help="transactions per second meanwhile")
    parser.add_argument("--name", default=None, help="a running cluster; without one the soak starts its own")
    parser.add_argument("--json", action="store_true", help="print the outcome as JSON, progress on stderr")


def run(options: argparse.Namespace, say: Callable[[str], None]) -> int:
    """Soak a cluster: 0 when no promise was broken, 1 when one was; raises DrillError when it cannot be carried out."""
    wanted = Options(count=options.count, seed=options.seed, tps=options.tps)
    with cluster(options.name, say) as directory:
        soaked, runner = asyncio.run(soak(Target(directory.endpoints), wanted, say))
    if soaked.result.verdict != "pass":
        say(f"history: {Kept(Path(f'soak-{os.getpid()}').absolute()).keep(SOAK.name, runner.history, soaked.result)}")
    print(pretty(soaked).decode() if options.json else table(soaked))
    return 0 if soaked.result.verdict == "pass" else FAILED_STATUS
