"""Many seeds, on all processors: progress, rate, which ones failed, and how to replay one."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from chaos.history import write
from chaos.simulation.mutants import MUTANTS
from chaos.simulation.schedule import KINDS
from chaos.simulation.world import Cluster, Options, Run

TITLE: Final = "the whole system on a virtual clock, through thousands of random schedules of faults"
SEEDS_DEFAULT: Final = 1000
PROGRESS_S: Final = 2.0
SEEDS_AT_ONCE: Final = 8
FAILED_STATUS, INTERRUPTED_STATUS = 1, 130
SHOWN_VIOLATIONS_MAX: Final = 20


class Outcome(msgspec.Struct, frozen=True):
    """What one seed came to; `crash` is the traceback of our own bug, empty where there was none."""

    seed: int
    passed: bool
    rules: tuple[str, ...]
    flashblocks: int
    leaders: int
    simulated_s: float
    cpu_s: float
    crash: str = ""


class Summary(msgspec.Struct, frozen=True):
    """What `--json` prints; the rate is in seeds per minute of processor time of one core."""

    seeds: int
    failed: list[int]
    rules: dict[str, int]
    flashblocks: int
    leader_changes: int
    simulated_s: float
    cpu_s: float
    wall_s: float
    seeds_per_cpu_minute: float
    mutant: str


def app(arguments: Sequence[str]) -> int:
    """`python -m chaos.simulation`: the same as `flashblocks drill simulate`."""
    parser = argparse.ArgumentParser(prog="python -m chaos.simulation", description=TITLE)
    configure(parser)
    try:
        return run(parser.parse_args(list(arguments)))
    except KeyboardInterrupt:
        return INTERRUPTED_STATUS


def run(options: argparse.Namespace, _: object = None) -> int:
    """Run the simulator: 0 when every seed passed, 1 when one failed."""
    kinds = tuple(options.faults)
    if options.seed is not None and options.seeds is None:
        return _one(options.seed, kinds, options.mutant, options.history)
    first = options.seed or 0
    summary = run_many(range(first, first + (options.seeds or SEEDS_DEFAULT)), kinds, options.mutant, options.jobs)
    if options.json:
        print(msgspec.json.format(msgspec.json.encode(summary), indent=2).decode())
    else:
        print(table(summary))
    return FAILED_STATUS if summary.failed else 0


def configure(made: argparse.ArgumentParser) -> None:
    """The words that the simulator takes."""
    made.epilog = "One failing seed, replayed exactly: --seed N without --seeds."
    made.add_argument("--seeds", type=int, default=None, help=f"how many (default {SEEDS_DEFAULT})")
    made.add_argument(
        "--seed", type=int, default=None, help="the first one; without --seeds the only one, shown in full"
    )
    text = f"only these, with commas; there are {', '.join(KINDS)}"
    made.add_argument("--faults", type=_kinds, default=tuple(KINDS), metavar="KIND,…", help=text)
    made.add_argument("--mutant", choices=sorted(MUTANTS), default="", help="a system that lacks one of its defences")
    made.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: one per processor)")
    made.add_argument("--history", type=Path, default=None, help="with one seed: write what was seen to this file")
    made.add_argument("--json", action="store_true", help="print the result as JSON, progress on stderr")


def _kinds(text: str) -> tuple[str, ...]:
    kinds = tuple(text.split(","))
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise argparse.ArgumentTypeError(f"no such fault: {', '.join(unknown)}; there are {', '.join(KINDS)}")
    return kinds


def run_many(seeds: Sequence[int], kinds: tuple[str, ...], mutant: str = "", jobs: int = 1) -> Summary:
    """Go through many seeds; a line every PROGRESS_S on stderr, and one for each that failed."""
    began, told = time.monotonic(), time.monotonic()
    rules: Counter[str] = Counter()
    outcomes: list[Outcome] = []
    for outcome in _outcomes(seeds, kinds, mutant, jobs):
        outcomes.append(outcome)
        if not outcome.passed:
            rules.update(outcome.rules)
            _say(f"seed {outcome.seed}: {', '.join(outcome.rules)}{outcome.crash and ': ' + outcome.crash}")
        if time.monotonic() - told > PROGRESS_S:
            told = time.monotonic()
            _say(f"{len(outcomes)}/{len(seeds)} seeds, {60 * len(outcomes) / (told - began):.0f} a minute")
    cpu_s = sum(outcome.cpu_s for outcome in outcomes)
    return Summary(
        seeds=len(outcomes),
        failed=sorted(outcome.seed for outcome in outcomes if not outcome.passed),
        rules=dict(rules),
        flashblocks=sum(outcome.flashblocks for outcome in outcomes),
        leader_changes=sum(max(0, outcome.leaders - 1) for outcome in outcomes),
        simulated_s=round(sum(outcome.simulated_s for outcome in outcomes), 1),
        cpu_s=round(cpu_s, 2),
        wall_s=round(time.monotonic() - began, 2),
        seeds_per_cpu_minute=round(60 * len(outcomes) / cpu_s) if cpu_s else 0,
        mutant=mutant,
    )


def _outcomes(seeds: Sequence[int], kinds: tuple[str, ...], mutant: str, jobs: int) -> Iterator[Outcome]:
    work = [(seed, kinds, mutant) for seed in seeds]
    if jobs <= 1 or len(work) <= SEEDS_AT_ONCE:
        yield from map(outcome_of, work)
        return
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap_unordered(outcome_of, work, chunksize=SEEDS_AT_ONCE)


def outcome_of(work: tuple[int, tuple[str, ...], str]) -> Outcome:
    """One seed; an exception is our own bug and counts as a failure."""
    seed, kinds, mutant = work
    began = time.process_time()
    try:
        run = _cluster(seed, kinds, mutant).run()
    except Exception:
        crash = traceback.format_exc(limit=-3)
        return Outcome(seed, False, ("crash",), 0, 0, 0.0, time.process_time() - began, crash)
    rules = tuple(sorted({violation.rule for violation in run.report.violations}))
    return Outcome(seed, run.passed, rules, run.report.flashblocks, run.leaders, run.simulated_s, run.cpu_s)


def _cluster(seed: int, kinds: tuple[str, ...], mutant: str) -> Cluster:
    if mutant:
        return Cluster(seed, MUTANTS[mutant].options, MUTANTS[mutant].parts())
    return Cluster(seed, Options(kinds=kinds))


def _one(seed: int, kinds: tuple[str, ...], mutant: str, history: Path | None) -> int:
    cluster = _cluster(seed, kinds, mutant)
    try:
        run = cluster.run()
    finally:
        if history is not None:
            write(history, cluster.history)
            _say(f"history: {history}")
    print(show(run))
    return 0 if run.passed else FAILED_STATUS


def show(run: Run) -> str:
    """One run for people: what was done to it and what came of it."""
    shape, report = run.shape, run.report
    lines = [
        f"seed {run.seed}: {shape.groups} groups, blocks of {shape.block_s} s, flashblocks of {shape.flashblock_ms} ms",
        *(f"  {plan}" for plan in run.schedule),
        f"{'PASS' if run.passed else 'FAIL'}: {report.flashblocks} flashblocks, {report.blocks} blocks, "
        f"{report.transactions} transactions, {run.leaders} epochs; {run.simulated_s:.1f} s in {run.cpu_s:.3f} s",
    ]
    lines += [f"  {violation.rule}: {violation.text}" for violation in report.violations[:SHOWN_VIOLATIONS_MAX]]
    return "\n".join(lines)


def table(summary: Summary) -> str:
    """Many seeds for people."""
    verdict = "FAIL" if summary.failed else "PASS"
    lines = [
        f"{verdict}: {summary.seeds} seeds, {len(summary.failed)} failed; {summary.flashblocks} flashblocks, "
        f"{summary.leader_changes} changes of leader, {summary.simulated_s:.0f} simulated seconds",
        f"{summary.cpu_s:.1f} s of processor time, {summary.wall_s:.1f} s on the clock: "
        f"{summary.seeds_per_cpu_minute:.0f} seeds per processor minute",
    ]
    if summary.failed:
        lines.append("rules: " + ", ".join(f"{rule} {count}" for rule, count in sorted(summary.rules.items())))
        mutant = f" --mutant {summary.mutant}" if summary.mutant else ""
        lines.append(f"replay one: flashblocks drill simulate --seed {summary.failed[0]}{mutant}")
    return "\n".join(lines)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
