"""``flashblocks watch``: the public stream, a line per flashblock."""

from __future__ import annotations

import argparse
import asyncio
import time

import msgspec

from cli.output import say, say_json
from cli.running import add_name, endpoints, find
from cli.stream import SeenFlashblock, SeenGap, follow


def configure(parser: argparse.ArgumentParser, _: list[str]) -> None:
    """Add the options."""
    add_name(parser)
    parser.add_argument("--url", action="append", help="a stream to watch instead of the running cluster's")
    parser.add_argument("--count", type=int, default=0, help="end after this many flashblocks (0: never)")
    parser.add_argument("--json", action="store_true", help="one JSON object per line")


def run(options: argparse.Namespace) -> int:
    """Print flashblocks until interrupted or *count* is reached."""
    urls = options.url or endpoints(find(options.name))["stream"]
    asyncio.run(_watch(urls, options.count, options.json))
    return 0


async def _watch(urls: list[str], count: int, as_json: bool) -> None:
    seen = 0
    last_at: float | None = None
    async for event in follow(urls):
        if as_json:
            say_json(
                {"kind": "flashblock" if isinstance(event, SeenFlashblock) else "gap", **_table(event)}, indented=False
            )
        else:
            say(line(event, last_at))
        if isinstance(event, SeenFlashblock):
            last_at = event.at
            seen += 1
            if seen == count:
                return


def _table(event: SeenFlashblock | SeenGap) -> dict[str, object]:
    return dict(msgspec.structs.asdict(event))


def line(event: SeenFlashblock | SeenGap, last_at: float | None) -> str:
    """One line of text; *last_at* is when the flashblock before arrived."""
    clock = time.strftime("%H:%M:%S", time.localtime(event.at)) + f".{int(event.at * 1000) % 1000:03d}"
    if isinstance(event, SeenGap):
        return f"{clock}  block {event.number:>7}  GAP: {event.index_from}…{event.index_to} cannot be provided"
    since = f"+{(event.at - last_at) * 1000:.0f} ms" if last_at is not None else ""
    return (
        f"{clock}  block {event.number:>7}  index {event.index:>2}  epoch {event.epoch:>3}  "
        f"{event.transactions:>4} tx  {event.gas_used / 1e6:>7.2f} Mgas  {event.size_bytes / 1000:>7.1f} kB  "
        f"{event.block_hash[:12]}…  {since:>9}"
    )
