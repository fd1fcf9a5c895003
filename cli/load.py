"""``flashblocks load``: transactions at a fixed rate, and how long each took to be seen and sealed."""

from __future__ import annotations

import argparse
import asyncio
from typing import Any

from cli.output import CommandError, say, say_json
from cli.running import add_name, endpoints, find

LOST_STATUS = 1


def configure(parser: argparse.ArgumentParser, _: list[str]) -> None:
    """Add the options."""
    add_name(parser)
    parser.add_argument("--tps", type=float, help="transactions per second")
    parser.add_argument("--duration", type=float, help="seconds")
    parser.add_argument("--burst", type=int, help="so many within one second, instead of --tps and --duration")
    parser.add_argument("--mix", help="transfer (the default), erc20, or both with a comma: taken in turn")
    parser.add_argument("--json", action="store_true", help="machine-readable")


def run(options: argparse.Namespace) -> int:
    """Send, wait, report; 0 when all that was accepted is sealed."""
    import msgspec

    from chaos.load import Load, LoadError, LoadOptions

    tps, duration = _rate(options)
    mix = tuple(part.strip() for part in (options.mix or "transfer").split(",") if part.strip())
    found = endpoints(find(options.name))
    try:
        wanted = LoadOptions(tps=tps, duration_s=duration, mix=mix)
        report = asyncio.run(_run(Load(found, wanted)))
    except LoadError as error:
        raise CommandError(str(error)) from None
    table = msgspec.to_builtins(report)
    if options.json:
        say_json(table)
    else:
        _tell(table)
    return 0 if report.sealed >= report.sent else LOST_STATUS


def _rate(options: argparse.Namespace) -> tuple[float, float]:
    """Transactions per second, and for how many seconds."""
    if options.burst is not None:
        if options.tps is not None or options.duration is not None:
            raise CommandError("--burst is instead of --tps and --duration")
        if options.burst <= 0:
            raise CommandError("--burst must be more than 0")
        return float(options.burst), 1.0
    if options.tps is None or options.duration is None:
        raise CommandError("give --tps and --duration, or --burst")
    if options.duration <= 0:
        raise CommandError("--duration must be more than 0")
    return options.tps, options.duration


async def _run(load: Any) -> Any:
    return await load.run()


def _tell(report: dict[str, Any]) -> None:
    say(
        f"sent {report['sent']} of {report['due']} due ({report['tps_wanted']:g}/s wanted), "
        f"preconfirmed {report['preconfirmed']}, sealed {report['sealed']} ({report['tps_sealed']:g}/s)"
    )
    for key, words in (
        ("accepted_ms", "due → accepted"),
        ("preconfirmed_ms", "due → seen on the stream"),
        ("sealed_ms", "due → sealed"),
    ):
        values = report[key]
        if values:
            say(f"  {words:<26}" + "  ".join(f"{name} {value:8.1f} ms" for name, value in values.items()))
    for key in ("refused", "unknown", "not_sent_in_time"):
        if report[key]:
            say(f"  {key.replace('_', ' ')}: {report[key]}")
    for text, count in report["errors"].items():
        say(f"  {count} × {text}")
