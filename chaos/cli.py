"""`flashblocks drill`: break something on purpose, on a running cluster or an own one, and judge."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from actors.plan import ClusterOptions, OptionsError
from actors.ports import NoFreePorts
from actors.run_directory import AlreadyRunning, RunDirectory, all_runs
from actors.starter import start
from chaos.faults import ACTORS, FAULTS, TRANSFER, WHOLE_GROUP
from chaos.history import Event, write
from chaos.leader_drill import LeaderDrill, Options, Result
from chaos.load import drill_load
from chaos.target import DrillError, Target

OWN_NAME = "drill"
START_S_MAX = 150.0
FAILED_STATUS, UNUSABLE_STATUS, INTERRUPTED_STATUS = 1, 2, 130


def app(arguments: Sequence[str]) -> int:
    """Run `flashblocks drill …`: 0 on a pass, 1 when a promise was broken, 2 when it could not run."""
    options = parser().parse_args(list(arguments))

    def say(text: str) -> None:
        print(text, file=sys.stderr if options.json else sys.stdout, flush=True)

    try:
        with _cluster(options, say) as directory:
            return asyncio.run(_drill(options, directory, say))
    except (DrillError, OptionsError, AlreadyRunning, NoFreePorts) as error:
        print(f"flashblocks drill: {error}", file=sys.stderr)
        return UNUSABLE_STATUS
    except KeyboardInterrupt:
        return INTERRUPTED_STATUS


def parser() -> argparse.ArgumentParser:
    """The words that `flashblocks drill` takes."""
    made = argparse.ArgumentParser(prog="flashblocks drill", description="break something on purpose, and judge")
    drills = made.add_subparsers(dest="drill", required=True, metavar="DRILL")
    formatter = argparse.ArgumentDefaultsHelpFormatter
    defaults = Options()
    for fault, text in FAULTS.items():
        drill = drills.add_parser(f"{fault}-leader", help=text, description=text, formatter_class=formatter)
        drill.set_defaults(fault=fault, actor=defaults.actor)
        if fault != TRANSFER:
            actors = (*ACTORS, WHOLE_GROUP)
            drill.add_argument("--actor", choices=actors, default=defaults.actor, help="which; group: all five at once")
        drill.add_argument("--count", type=int, default=defaults.count, help="how many times")
        drill.add_argument("--seed", type=int, default=defaults.seed, help="for the moments of the faults")
        drill.add_argument("--tps", type=float, default=defaults.tps, help="transactions per second meanwhile")
        drill.add_argument("--name", default=None, help="a running cluster; without one the drill starts its own")
        drill.add_argument("--json", action="store_true", help="print the result as JSON, progress on stderr")
        drill.add_argument(
            "--history", type=Path, default=None, help="keep the history here; a failed one is kept anyway"
        )
    return made


@contextlib.contextmanager
def _cluster(options: argparse.Namespace, say: Callable[[str], None]) -> Iterator[RunDirectory]:
    """The cluster to drill: the named one, else the only one running, else one that lives as long as the drill."""
    if options.count < 1 or options.tps < 0:
        raise DrillError("--count must be at least 1 and --tps not negative")
    running = [run for run in all_runs() if run.is_running()]
    names = [run.name for run in running]
    if options.name is not None or len(running) == 1:
        if options.name is not None and options.name not in names:
            raise DrillError(
                f"no cluster named {options.name!r} is running; start one: flashblocks up --name {options.name}"
            )
        yield running[0] if options.name is None else running[names.index(options.name)]
        return
    if running:
        raise DrillError(f"several clusters are running; say which with --name: {', '.join(names)}")
    say("starting a cluster for the drill …")
    started = start(ClusterOptions(name=OWN_NAME), None, time.time())
    try:
        deadline = time.monotonic() + START_S_MAX
        while not started.directory.endpoints.exists():
            if started.has_ended() or time.monotonic() > deadline:
                raise DrillError("the cluster did not start; try `flashblocks up` to see why")
            time.sleep(0.1)
        yield started.directory
    finally:
        say("ending the drill's cluster …")
        started.stop()


async def _drill(options: argparse.Namespace, directory: RunDirectory, say: Callable[[str], None]) -> int:
    wanted = Options(fault=options.fault, actor=options.actor, count=options.count, seed=options.seed, tps=options.tps)
    target = Target(directory.endpoints)
    drill = LeaderDrill(target, wanted, say)

    def load(record: Callable[[Event], None]) -> Any:
        return drill_load(target.endpoints(), wanted.tps, record)

    try:
        await target.wait_for_leader(START_S_MAX)
        result = await drill.run(load)
    except DrillError:
        _keep(drill.history, options.history, say)
        raise
    finally:
        await target.close()
    if options.history is not None or result.verdict != "pass":
        _keep(drill.history, options.history, say)
    print(msgspec.json.format(msgspec.json.encode(result), indent=2).decode() if options.json else table(result))
    return 0 if result.verdict == "pass" else FAILED_STATUS


def table(result: Result) -> str:
    """The result for people."""
    lines = [
        f"{result.verdict.upper()}: {result.kills} faults, {result.flashblocks} flashblocks and "
        f"{result.transactions} transactions seen (seed {result.seed})",
        f"lost {result.lost}   duplicates {result.duplicates}   gaps {result.gaps}",
        f"next flashblock after the fault: p50 {result.gap_ms_p50:.0f} ms, p99 {result.gap_ms_p99:.0f} ms",
    ]
    shown = 20
    lines += [f"  broken: {text}" for text in result.violations[:shown]]
    if len(result.violations) > shown:
        lines.append(f"  … and {len(result.violations) - shown} more; see the history")
    return "\n".join(lines)


def _keep(history: Sequence[Event], path: Path | None, say: Callable[[str], None]) -> None:
    kept = path or Path(f"drill-history-{os.getpid()}.jsonl").absolute()
    write(kept, history)
    say(f"history: {kept}")
