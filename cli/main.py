"""``flashblocks``: finds the sub-command and runs it.

The table below is all that ``--help`` needs, so it answers in well under 200 ms; a sub-command's module – and what it
imports – is loaded only when it runs.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from cli.output import CommandError

INTERRUPTED_STATUS = 130

COMMANDS = {
    "up": ("cli.up", "start a cluster on this machine and show it live"),
    "down": ("cli.down", "end a cluster and remove everything temporary"),
    "status": ("cli.status", "what runs, who leads, how healthy each component is"),
    "watch": ("cli.watch", "the flashblock stream, one line per flashblock"),
    "leader": ("cli.leader", "show the leader, or hand the lead to another group"),
    "load": ("cli.load", "send transactions at a fixed rate and report latencies"),
    "drop": ("cli.drop", "take a stuck transaction out of every pool, and send it no more"),
    "trace": ("cli.trace", "where the time of a transaction, block or failover went"),
    "metrics": ("cli.metrics", "every component's metrics as one, and targets for Prometheus"),
    "drill": ("chaos.cli", "break something on purpose and judge what subscribers saw"),
    "run": ("cli.run", "one component as a plain process, without Ray"),
    "replace-host": ("cli.replace_host", "on many hosts: another host takes the place of one that is gone for good"),
    "ray": ("cli.host_ray", "on many hosts: start Ray on this one and keep it running; its token, its ports"),
    "genesis": ("cli.genesis", "print the genesis of the development chain"),
    "replay": ("cli.replay", "execute recorded blocks again and compare every hash"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line *arguments* (default: the process's own); returns the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    if words[0] == "--version":
        return _version()
    command, rest = words[0], words[1:]
    if command not in COMMANDS:
        print(f"flashblocks: unknown command {command!r}\n\n{overview()}", file=sys.stderr)
        return 2
    try:
        return _run(command, rest)
    except CommandError as error:
        print(f"flashblocks {command}: {error}", file=sys.stderr)
        return error.status
    except KeyboardInterrupt:
        return INTERRUPTED_STATUS
    except BrokenPipeError:  # the reader of our output (head, say) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def overview() -> str:
    """What ``flashblocks --help`` prints."""
    width = max(len(name) for name in COMMANDS)
    lines = [f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: flashblocks COMMAND [options]",
            "",
            "Five sequencers, one chain, a flashblock every 200 ms – and none is lost when the leader dies.",
            "",
            *lines,
            "",
            "flashblocks COMMAND --help explains a command; all that only read take --json.",
        ]
    )


def _run(command: str, arguments: list[str]) -> int:
    module_name, summary = COMMANDS[command]
    module = importlib.import_module(module_name)
    if hasattr(module, "app"):  # a room with sub-commands of its own
        return int(module.app(arguments) or 0)
    parser = argparse.ArgumentParser(
        prog=f"flashblocks {command}", description=summary, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    module.configure(parser, arguments)
    return int(module.run(parser.parse_args(arguments)))


def _version() -> int:
    from importlib.metadata import version

    print(version("flashblocks"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
