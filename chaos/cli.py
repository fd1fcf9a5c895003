"""`flashblocks drill`: break something on purpose, on a running cluster or an own one, and judge."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from actors.plan import OptionsError
from actors.ports import NoFreePorts
from actors.run_directory import AlreadyRunning, RunDirectory
from chaos import history as histories
from chaos import soak
from chaos.catalogue import ALL, CATALOGUE, DRILLS, chosen
from chaos.drill import Drill
from chaos.faults import ACTORS, HANG, KILL, TRANSFER, WHOLE_GROUP
from chaos.history import Event
from chaos.judgement import Result, judge
from chaos.keeping import REPORT_FILE, SUMMARY_FILE, Kept, pretty, read_back
from chaos.load import drill_load
from chaos.own_cluster import START_S_MAX, cluster
from chaos.report import page
from chaos.runner import Options, Runner
from chaos.simulation import cli as simulation
from chaos.summary import catalogue_json, catalogue_table, outcome, results_table
from chaos.target import DrillError, Target

FAILED_STATUS, UNUSABLE_STATUS, INTERRUPTED_STATUS = 1, 2, 130
LEADER_DRILLS = {
    KILL: "SIGKILL an actor of the leading group; Ray starts it again and it must catch up",
    HANG: "SIGSTOP an actor of the leading group, SIGCONT 5 s later; the woken one must publish nothing",
    TRANSFER: "hand the lead over as an operator does (conductor_transferLeader)",
}
Say = Callable[[str], None]


def app(arguments: Sequence[str]) -> int:
    """Run `flashblocks drill …`: 0 on a pass, 1 when a promise was broken, 2 when it could not run."""
    options = parser().parse_args(list(arguments))

    def say(text: str) -> None:
        print(text, file=sys.stderr if options.json else sys.stdout, flush=True)

    try:
        return int(options.run(options, say))
    except (DrillError, OptionsError, AlreadyRunning, NoFreePorts) as error:
        print(f"flashblocks drill: {error}", file=sys.stderr)
        return UNUSABLE_STATUS
    except KeyboardInterrupt:
        print("flashblocks drill: interrupted; what it had done is undone", file=sys.stderr)
        return INTERRUPTED_STATUS


def parser() -> argparse.ArgumentParser:
    """The words that `flashblocks drill` takes."""
    made = argparse.ArgumentParser(prog="flashblocks drill", description="break something on purpose, and judge")
    words = made.add_subparsers(dest="word", required=True, metavar="list|run|report|simulate|soak|…-leader")
    formatter = argparse.ArgumentDefaultsHelpFormatter
    text = "all drills: what each one injects, and what it proves"
    listing = words.add_parser("list", help=text, description=text)
    listing.add_argument("--json", action="store_true", help="print them as JSON")
    listing.set_defaults(run=_list)
    text = "run drills, one after the other on one cluster, and judge each"
    running = words.add_parser("run", help=text, description=text, formatter_class=formatter)
    running.add_argument("drills", nargs="+", metavar="NAME", help=f"see `list`; patterns, or {ALL}: all but the slow")
    _add_run_options(running, count=1)
    running.set_defaults(run=_run)
    text = "judge kept histories again, without any cluster, and write the report"
    report = words.add_parser("report", help=text, description=text, formatter_class=formatter)
    report.add_argument("path", type=Path, metavar="DIR|HISTORY", help="what --report or a failed drill has kept")
    report.add_argument("--output", type=Path, default=None, help="the page to write; default: report.html beside it")
    report.add_argument("--json", action="store_true", help="print the results as JSON")
    report.set_defaults(run=_report)
    for word, part in (("simulate", simulation), ("soak", soak)):
        whole = words.add_parser(word, help=part.TITLE, description=part.TITLE, formatter_class=formatter)
        part.configure(whole)
        whole.set_defaults(run=part.run)
    for kind, text in LEADER_DRILLS.items():
        drill = words.add_parser(f"{kind}-leader", help=text, description=text, formatter_class=formatter)
        drill.set_defaults(run=_run_on_leader, kind=kind, actor="conductor")
        if kind != TRANSFER:
            actors = (*ACTORS, WHOLE_GROUP)
            drill.add_argument("--actor", choices=actors, default="conductor", help="which; group: all five at once")
        _add_run_options(drill, count=Options().count)
        drill.add_argument("--history", type=Path, default=None, help="keep the history here, whatever the verdict")
    return made


def _add_run_options(parser: argparse.ArgumentParser, count: int) -> None:
    defaults = Options()
    parser.add_argument("--count", type=int, default=count, help="how many times each")
    parser.add_argument(
        "--seed", type=int, default=defaults.seed, help="for the moments of the faults, and the victims"
    )
    parser.add_argument("--tps", type=float, default=defaults.tps, help="transactions per second meanwhile")
    parser.add_argument("--name", default=None, help="a running cluster; without one the drill starts its own")
    parser.add_argument("--json", action="store_true", help="print the result as JSON, progress on stderr")
    parser.add_argument(
        "--report",
        type=Path,
        default=None,
        metavar="DIR",
        help="keep histories, results and a page; failed ones anyway",
    )


def _list(options: argparse.Namespace, say: Say) -> int:
    print(pretty(catalogue_json(DRILLS)).decode() if options.json else catalogue_table(DRILLS))
    return 0


def _report(options: argparse.Namespace, say: Say) -> int:
    found = read_back(options.path)
    beside = options.path if options.path.is_dir() else options.path.parent
    output = options.output or beside / REPORT_FILE
    output.write_text(page(found))
    results = [result for _, _, result in found]
    print(pretty(results).decode() if options.json else results_table(results))
    say(f"report: {output}")
    return _status(results)


def _run(options: argparse.Namespace, say: Say) -> int:
    results = _carry_out(chosen(options.drills), options, say)
    print(pretty(results).decode() if options.json else results_table(results))
    return _status(results)


def _run_on_leader(options: argparse.Namespace, say: Say) -> int:
    name = TRANSFER if options.kind == TRANSFER else f"{options.kind}-{options.actor}"
    (result,) = _carry_out([CATALOGUE[name]], options, say, options.history)
    print(pretty(result).decode() if options.json else outcome(result))
    return _status([result])


def _status(results: Sequence[Result]) -> int:
    return 0 if all(result.verdict == "pass" for result in results) else FAILED_STATUS


def _carry_out(
    drills: Sequence[Drill], options: argparse.Namespace, say: Say, history_path: Path | None = None
) -> list[Result]:
    """Run drills on one cluster and keep what is to be kept; Ctrl-C and a broken cluster end the rest."""
    if options.count < 1 or options.tps < 0:
        raise DrillError("--count must be at least 1 and --tps not negative")
    found: list[tuple[str, list[Event], Result]] = []
    skipped: list[str] = []
    kept = Kept(options.report or Path(f"drill-{os.getpid()}").absolute())
    with _ended_politely(), cluster(options.name, say) as directory:
        logs = Path(Target(directory.endpoints).endpoints()["log_dir"])
        try:
            for drill in drills:
                missing = drill.missing(Target(directory.endpoints))
                if missing is not None and len(drills) == 1:
                    raise DrillError(f"{drill.name} cannot be run here: {missing}")
                if missing is not None:
                    skipped.append(f"{drill.name}: {missing}")
                    continue
                say(f"{drill.name}: {drill.title}")
                found.append(_one(drill, options, directory, kept, say, history_path))
                if len(drills) > 1:
                    say(outcome(found[-1][2]))
        finally:
            if kept.directory.exists():
                kept.keep_logs(logs)
                (kept.directory / REPORT_FILE).write_text(page(found))
                (kept.directory / SUMMARY_FILE).write_bytes(pretty([result for _, _, result in found]))
                say(f"kept in {kept.directory}, the page is {kept.directory / REPORT_FILE}")
            for text in skipped:
                say(f"skipped {text}")
    return [result for _, _, result in found]


@contextlib.contextmanager
def _ended_politely() -> Iterator[None]:
    """SIGTERM takes the same way out as Ctrl-C, which leaves no stopped process and no rule behind."""
    before = signal.signal(signal.SIGTERM, lambda number, frame: signal.raise_signal(signal.SIGINT))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _one(
    drill: Drill, options: argparse.Namespace, directory: RunDirectory, kept: Kept, say: Say, history_path: Path | None
) -> tuple[str, list[Event], Result]:
    count = 1 if drill.ends_the_cluster else options.count
    wanted = Options(count=count, seed=options.seed, tps=options.tps)
    target = Target(directory.endpoints)
    runner = Runner(target, drill, wanted, say)
    finished = False
    try:
        asyncio.run(_drill(runner, target, wanted))
        finished = True
    except DrillError as error:
        say(f"given up: {error}")
    finally:
        result = judge(runner.history)
        if history_path is not None:
            histories.write(history_path, runner.history)
            say(f"history: {history_path}")
        if options.report is not None or not finished or result.verdict != "pass":
            say(f"history: {kept.keep(drill.name, runner.history, result)}")
    return drill.name, runner.history, result


async def _drill(runner: Runner, target: Target, wanted: Options) -> None:
    def load(record: Callable[[Event], None]) -> object:
        endpoints = target.endpoints()
        # the last account is left to the drill, which sends from it what load does not
        return drill_load({**endpoints, "accounts": endpoints["accounts"][:-1]}, wanted.tps, record)

    try:
        await target.wait_for_leader(START_S_MAX)
        await runner.run(load)  # type: ignore[arg-type]
    finally:
        await target.close()
