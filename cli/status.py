"""``flashblocks status``: every component's own words, gathered once."""

from __future__ import annotations

import argparse
import asyncio
import sys

from cli.output import note, say_json
from cli.running import add_name, endpoints, find

NOT_ALL_ANSWER_STATUS = 3
PIPED_WIDTH = 140  # nobody's terminal is asked when the output goes into a pipe


def configure(parser: argparse.ArgumentParser, _: list[str]) -> None:
    """Add the options."""
    add_name(parser)
    parser.add_argument("--json", action="store_true", help="machine-readable, complete")


def run(options: argparse.Namespace) -> int:
    """Print the status; 0 when there is an active leader and everything answers, else 3."""
    from cli.snapshot import components, look_once

    found = endpoints(find(options.name))
    snapshot = asyncio.run(look_once(found))
    silent = [
        f"{instance}/{component}" for instance, component, entry, _ in components(snapshot) if entry["status"] is None
    ]
    if options.json:
        say_json(snapshot)
    else:
        from rich.console import Console

        from cli.view import groups_table, others_table

        console = Console(width=None if sys.stdout.isatty() else PIPED_WIDTH)
        console.print(groups_table(snapshot))
        console.print()
        console.print(others_table(snapshot))
    for host in snapshot.get("hosts", ()):
        if not host["alive"]:
            note(f"host {host['address']} does not answer: {', '.join(host['instances']) or 'nothing runs there'}")
    if silent:
        note(f"no answer from: {', '.join(silent)}")
    healthy = not silent and snapshot["leader"] is not None and snapshot["leader"]["active"]
    return 0 if healthy else NOT_ALL_ANSWER_STATUS
