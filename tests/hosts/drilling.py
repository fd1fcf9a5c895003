"""Runs one drill on the system on hosts, from outside, and judges what was seen."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from chaos.drill import Drill, Scene
from chaos.expectation import Expect
from chaos.faults import Fault
from chaos.history import Event
from chaos.judgement import Result, judge
from chaos.keeping import Kept
from chaos.load import drill_load
from chaos.runner import Options, Runner
from chaos.target import Target
from tests.hosts.deployment import FIGURES, Deployment
from tests.hosts.machines import KEEP

LEADER_S_MAX = 120.0


async def drilled(
    deployment: Deployment,
    name: str,
    fault: Callable[[Scene], Fault],
    *,
    expect: Expect = Expect.GOES_ON,
    count: int = 1,
    tps: float = 10.0,
    seed: int = 1,
) -> Result:
    """Inflict a fault `count` times under load and judge the history; it is kept where FLASHBLOCKS_HOSTS_KEEP says."""
    drill = Drill(name=name, title=name, row="many machines", fault=fault, expect=expect)
    target = Target(deployment.endpoints_path)
    options = Options(count=count, seed=seed, tps=tps)
    runner = Runner(target, drill, options, lambda line: print(line, flush=True))
    try:
        await target.wait_for_leader(LEADER_S_MAX)
        await runner.run(lambda record: drill_load(target.endpoints(), tps, record))
    finally:
        await target.close()
        _keep(name, runner.history)
    result = judge(runner.history)
    for run in result.runs:
        FIGURES.append(
            f"{name}: {result.verdict}, next flashblock {run.gap_ms:.0f} ms, longest silence {run.silence_ms:.0f} ms, "
            f"back and level {run.restored_ms / 1000:.0f} s"
        )
    return result


def _keep(name: str, history: list[Event]) -> None:
    folder = os.environ.get(KEEP)
    if folder:
        Kept(Path(folder)).keep(name.replace(" ", "-"), history, judge(history))
