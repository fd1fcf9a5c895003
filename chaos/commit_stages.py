"""Death at a named place on the way of a commit: the process itself dies there, as by SIGKILL, when a drill arms it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from actors.fault_points import PLACES, VARIABLE, arm
from actors.supervisor import process_end
from chaos.faults import Fault, Victim, all_back
from chaos.history import Event
from chaos.target import DrillError, Target

FIRES_S_MAX = 20.0


class DiesAt(Fault):
    """A process dies when it next passes a place; the fault's moment is that death."""

    def __init__(self, target: Target, victim: Victim, place: str) -> None:
        self.kind, self.victims = place, [victim]
        self._target = target
        self._armed: Path | None = None

    async def prepare(self) -> None:
        """Arm the place and wait for the death; raises DrillError when nothing passes there."""
        (victim,) = self.victims
        directory = fault_point_directory(victim.pid)
        if directory is None:
            raise DrillError(f"{victim.group}/{victim.actor} has no fault points")
        self._armed = arm(directory, victim.pid, self.kind)
        try:
            async with asyncio.timeout(FIRES_S_MAX):
                await process_end(victim.pid)
        except TimeoutError:
            raise DrillError(f"{victim.group}/{victim.actor} did not come to {self.kind}") from None

    async def recovered(self, run: int) -> list[Event]:
        """Wait until it is back and level."""
        return await all_back(self._target, {victim: victim.pid for victim in self.victims}, run)

    def abandon(self) -> None:
        """Disarm the place."""
        if self._armed is not None:
            self._armed.unlink(missing_ok=True)


def dies_at(target: Target, group: dict[str, object], place: str) -> DiesAt:
    """The death of the actor that passes this place, in a group of endpoints.json."""
    actor = PLACES[place]
    actors = group["actors"]
    assert isinstance(actors, dict)
    return DiesAt(target, Victim(str(group["name"]), actor, int(actors[actor]["pid"])), place)


def fault_point_directory(pid: int) -> Path | None:
    """Where the process's fault points are armed; None when it was started without any."""
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return None
    prefix = f"{VARIABLE}=".encode()
    return next((Path(os.fsdecode(one.removeprefix(prefix))) for one in environment if one.startswith(prefix)), None)


def missing(target: Target) -> str | None:
    """Why nothing can be armed on this cluster; None when it can."""
    pid = int(target.groups()[0]["actors"]["conductor"]["pid"] or 0)
    if fault_point_directory(pid) is None:
        return (
            f"its processes have no fault points; the drill's own cluster has, or start one with {VARIABLE}=DIRECTORY"
        )
    return None
