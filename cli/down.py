"""``flashblocks down``: ends a cluster and waits until nothing of it is left."""

from __future__ import annotations

import argparse

from actors.joined_starter import Left, NoToken, leave
from actors.ray_guard import guarded_addresses
from actors.run_directory import RunDirectory, all_runs
from actors.starter import stop
from cli.output import CommandError, note, say
from cli.running import DEFAULT_NAME


def configure(parser: argparse.ArgumentParser, _: list[str]) -> None:
    """Add the options."""
    parser.add_argument("--name", default=None, help="which cluster (default: the default one, else the only one)")
    parser.add_argument(
        "--address", metavar="RAY", default=None, help="end a cluster on many hosts whose files this host does not have"
    )
    parser.add_argument("--all", action="store_true", help="every cluster of this user, crashed ones too")


def run(options: argparse.Namespace) -> int:
    """End the cluster; 0 also when nothing was running, because then it is down."""
    if options.address is not None:
        directory = RunDirectory(options.name or DEFAULT_NAME)
        return _leave(directory, options.address)
    runs = list(all_runs())
    if options.name is not None:
        runs = [RunDirectory(options.name)]
    elif not options.all and len(runs) > 1:
        runs = [run for run in runs if run.name == DEFAULT_NAME] or runs
        if len(runs) > 1:
            names = ", ".join(run.name for run in runs)
            raise CommandError(f"several clusters are running; use --all, or --name with one of: {names}")
    if not runs:
        say("nothing is running")
        if guarded_addresses():
            say("a system on many hosts whose files this host has lost: flashblocks down --address auto [--name NAME]")
    for directory in runs:
        if directory.is_joined():
            _leave(directory)
            continue
        existed = directory.path.exists()
        was_running = stop(directory)
        say(_words(directory.name, was_running, existed))
    return 0


def _leave(directory: RunDirectory, address: str = "") -> int:
    note(f"{directory.name}: ending its actors on all hosts …")
    try:
        left = leave(directory, address)
    except NoToken as error:
        raise CommandError(str(error)) from None
    for line in left_words(directory, left):
        say(line)
    return 0


def left_words(directory: RunDirectory, left: Left) -> list[str]:
    """What was ended on many hosts, and what could not be."""
    name = directory.name
    if left.error:
        return [f"{name}: Ray does not answer ({left.error}); only this host's files were removed"]
    lines = [f"{name}: {left.actors} actors ended, files removed on {len(left.cleaned)} hosts; Ray goes on"]
    if left.silent:
        lines.append(f"{name}: no answer from {', '.join(left.silent)}: remove {directory.path} there by hand")
    return lines


def _words(name: str, was_running: bool, existed: bool) -> str:
    if was_running:
        return f"{name}: ended; no process, port or temporary file is left"
    return f"{name}: was not running; cleaned up what a crash had left" if existed else f"{name}: was not running"
