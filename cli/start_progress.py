"""Follows a starting cluster through the events its supervisor writes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import orjson

from actors.joined_starter import Joined
from actors.starter import Started
from cli.output import CommandError

PROGRESS_POLL_S = 0.05


class StartProgress:
    """Turns the supervisor's events into lines."""

    def __init__(self, show: Callable[[str], None]) -> None:
        self._show = show
        self._total = 0
        self._up: set[str] = set()

    def add(self, event: Mapping[str, Any]) -> None:
        """Show one event."""
        kind, after = event["event"], f"{event['after_s']:6.1f} s"
        if kind == "starting":
            self._total = event["components"]
            self._show(f"{after}  starting Ray for {self._total} actors")
        elif kind == "joining":
            self._show(f"{after}  joining Ray at {event['address']}")
        elif kind == "waiting":
            self._show(f"{after}  Ray does not have {event['lacking']} yet; waiting")
        elif kind == "placed":
            self._show(f"{after}  on {len(event['hosts'])} hosts: {', '.join(event['hosts'])}")
            for remark in event["remarks"]:
                self._show(f"          {remark}")
        elif kind == "keeper-up":
            self._total = event["components"]
            self._show(f"{after}  the keeper runs on {event['address']}; {self._total} actors to start")
        elif kind == "going-on-without":
            self._show(f"{after}  no answer from {', '.join(event['hosts'])}: going on without")
        elif kind == "ray-up":
            self._show(f"{after}  Ray is up")
        elif kind == "ray-again":
            self._show(f"{after}  Ray did not come up ({event['error']}); trying again")
        elif kind == "chain-prepared":
            self._show(f"{after}  chain {event['chain_id']}, genesis {event['genesis_hash']}")
        elif kind == "component-up":
            self._up.add(event["component"])
            self._show(f"{after}  [{len(self._up):>2}/{self._total}] {event['component']}")
        elif kind == "component-ended":
            self._show(f"{after}  {event['component']} ended; Ray starts it again (see its log)")
        elif kind == "ray-lost":
            self._show(f"{after}  Ray's {event['process']} ended: {event['remark']}")

    def summary(self) -> str:
        """How far it came."""
        return f"{len(self._up)} of {self._total} components serve"


async def events(started: Started | Joined) -> AsyncIterator[Mapping[str, Any]]:
    """The supervisor's events as they are written; raises `CommandError` when it ends."""
    position = 0
    while True:
        ended = started.has_ended()
        new = _read_from(started.directory.progress, position)
        complete = new[: new.rfind(b"\n") + 1]
        position += len(complete)
        for text in complete.splitlines():
            yield orjson.loads(text)
        if ended:
            raise CommandError("the cluster ended while starting")
        await asyncio.sleep(PROGRESS_POLL_S)


def _read_from(path: Path, position: int) -> bytes:
    try:
        with open(path, "rb") as file:
            file.seek(position)
            return file.read()
    except OSError:
        return b""
