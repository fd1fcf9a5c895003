"""Finds the running cluster a command means, and reads where its components are."""

from __future__ import annotations

import argparse
import asyncio
from typing import Any

import orjson

from actors.data_directory import write_atomically
from actors.ray_guard import guarded_addresses
from actors.run_directory import RunDirectory, all_runs
from cli.output import CommandError, note

DEFAULT_NAME = "default"
KEEPER_S_MAX = 2.0


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
    hint = "; a host that was booted since has lost its files: ask another one" if guarded_addresses() else ""
    text = f"no cluster named {name!r} is running{others}; start one with: flashblocks up --name {name}{hint}"
    raise CommandError(text)


def endpoints(run: RunDirectory) -> dict[str, Any]:
    """The content of the cluster's ``endpoints.json``; raises `CommandError` while it is still starting."""
    found = _ask_keeper(run) or read_endpoints(run)
    if found is None:
        raise CommandError(f"the cluster {run.name!r} is still starting; try again in a moment")
    return found


def _ask_keeper(run: RunDirectory) -> dict[str, Any] | None:
    """On many hosts: what the keeper says now, None when nobody answers; kept as a file for those who read that."""
    state = run.read_state()
    if state is None or not state.keeper_urls:
        return None
    from actors.keeper_client import fetch_first

    content = asyncio.run(fetch_first([f"{url}/{run.endpoints.name}" for url in state.keeper_urls], KEEPER_S_MAX))
    if content is None:
        note("the keeper does not answer: process ids and restarts may be old")
        return None
    write_atomically(run.endpoints, content)
    found: dict[str, Any] = orjson.loads(content)
    return found


def read_endpoints(run: RunDirectory) -> dict[str, Any] | None:
    """The content of ``endpoints.json``, None as long as it is not written."""
    try:
        found: dict[str, Any] = orjson.loads(run.endpoints.read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return None
    return found
