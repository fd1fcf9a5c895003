"""Finds the running cluster a command means, and reads where its components are."""

from __future__ import annotations

import argparse
from typing import Any

import orjson

from actors.run_directory import RunDirectory, all_runs
from cli.output import CommandError

DEFAULT_NAME = "default"


def add_name(parser: argparse.ArgumentParser) -> None:
    """The ``--name`` option of every command that talks to a running cluster."""
    parser.add_argument("--name", default=None, help="which cluster, when more than one is running")


def find(name: str | None) -> RunDirectory:
    """The running cluster called *name*; without a name the default one, else the only one.

    Raises `CommandError` when there is none or the choice is not clear.
    """
    running = [run for run in all_runs() if run.is_running()]
    names = [run.name for run in running]
    if name is None:
        name = DEFAULT_NAME if DEFAULT_NAME in names or len(names) != 1 else names[0]
        if name not in names and names:
            raise CommandError(f"several clusters are running; say which with --name: {', '.join(names)}")
    if name in names:
        return running[names.index(name)]
    others = f"; running: {', '.join(names)}" if names else ""
    raise CommandError(f"no cluster named {name!r} is running{others}; start one with: flashblocks up --name {name}")


def endpoints(run: RunDirectory) -> dict[str, Any]:
    """The content of the cluster's ``endpoints.json``; raises `CommandError` while it is still starting."""
    found = read_endpoints(run)
    if found is None:
        raise CommandError(f"the cluster {run.name!r} is still starting; try again in a moment")
    return found


def read_endpoints(run: RunDirectory) -> dict[str, Any] | None:
    """The content of ``endpoints.json``, None as long as it is not written."""
    try:
        found: dict[str, Any] = orjson.loads(run.endpoints.read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return None
    return found
