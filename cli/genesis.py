"""``flashblocks genesis``: the genesis of the development chain, in op-geth's format."""

from __future__ import annotations

import argparse
import time

from actors.plan import ClusterOptions
from cli.output import say_json


def configure(parser: argparse.ArgumentParser, _: list[str]) -> None:
    """Add the options."""
    parser.add_argument("--chain-id", type=int, default=ClusterOptions().chain_id, help="chain id")
    parser.add_argument("--timestamp", type=int, default=None, help="time of block 0 in seconds (default: now)")
    parser.add_argument("--jovian-time", type=int, default=None, help="when Jovian begins, in seconds (default: never)")
    parser.add_argument("--json", action="store_true", help="for symmetry; the output is JSON anyway")


def run(options: argparse.Namespace) -> int:
    """Print the genesis."""
    from flashblocks.execution import default_genesis

    timestamp = int(time.time()) if options.timestamp is None else options.timestamp
    say_json(default_genesis(chain_id=options.chain_id, timestamp=timestamp, jovian_time=options.jovian_time))
    return 0
