"""``flashblocks replace-host``: another host takes the place of one that will not come back."""

from __future__ import annotations

import argparse
import subprocess
import sys

import orjson

from actors.joined_starter import NoToken, environment_for_joining
from cli.output import CommandError, say
from cli.running import DEFAULT_NAME, add_name, find


def configure(parser: argparse.ArgumentParser, _: list[str]) -> None:
    """Add the options."""
    add_name(parser)
    parser.add_argument(
        "--address",
        metavar="RAY",
        default=None,
        help="a cluster whose files this host does not have (auto: its own Ray)",
    )
    parser.add_argument("old", metavar="OLD", help="address of the host that is gone")
    parser.add_argument("new", metavar="NEW", help="address of the host that takes its place; Ray must run there")


def run(options: argparse.Namespace) -> int:
    """Replace it and show how far it is; ends when everything has its new settings."""
    name, address = options.name or DEFAULT_NAME, options.address
    if address is None:
        name, address = _here(options.name)
    try:
        environment = environment_for_joining()
    except NoToken as error:
        raise CommandError(str(error)) from None
    words = [sys.executable, "-P", "-m", "actors.replace_host"]
    words += [name, address, options.old, options.new]
    failed = ""
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if not line.startswith(b"{"):  # Ray has something to say about its nodes
                continue
            event = orjson.loads(line)
            if event["event"] == "failed":
                failed = event["error"]
            elif text := words_for(event):
                say(text)
    if failed or process.returncode:
        raise CommandError(failed or f"the replacement was given up (status {process.returncode})")
    say(f"{name}: {options.new} has taken the place of {options.old}; put it into cluster.yaml as well")
    return 0


def _here(name: str | None) -> tuple[str, str]:
    """Name and Ray address of the cluster whose files this host has."""
    directory = find(name)
    state = directory.read_state()
    if state is None or not state.ray_address:
        raise CommandError(f"the cluster {directory.name!r} lives on this machine alone; it has no hosts to replace")
    return directory.name, state.ray_address


def words_for(event: dict[str, object]) -> str:
    """One line for an event, none for those that say little here."""
    match event["event"]:
        case "ordered":
            return f"order {event['version']} is with {event['hosts']} hosts"
        case "renewing":
            return f"{event['host']}: restarting with the new addresses"
        case "renewed":
            return f"{event['host']}: serves"
        case "host-silent":
            return f"{event['address']}: does not answer; it is renewed when it is back"
    return ""
