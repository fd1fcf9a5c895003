"""Faults inside a process, at the places it has for them: death on the way of a commit, a state that diverges."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from actors.fault_points import DIVERGES, PLACES, VARIABLE, arm
from actors.supervisor import process_end
from chaos.faults import HANG_S, Fault, Victim, all_back, victims
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


class Diverges(Fault):
    """A builder's state is not the others' for `hold_s`: what it builds must not reach anybody."""

    kind = "diverges"

    def __init__(self, target: Target, group: dict[str, Any], hold_s: float = HANG_S) -> None:
        self.victims, self.hold_s = victims([group], ["builder"]), hold_s
        self._target = target
        self._armed: Path | None = None

    async def inject(self) -> None:
        """Begin to diverge; raises DrillError when the builder has no fault points."""
        directory = fault_point_directory(self.victims[0].pid)
        if directory is None:
            raise DrillError(f"{self.victims[0].group}/builder has no fault points")
        self._armed = arm(directory, self.victims[0].pid, DIVERGES)

    async def recovered(self, run: int) -> list[Event]:
        """Wait until the group is level."""
        return await all_back(self._target, dict.fromkeys(self.victims, 0), run)

    def abandon(self) -> None:
        """Build on the right state again."""
        if self._armed is not None:
            self._armed.unlink(missing_ok=True)


def dies_at(target: Target, group: dict[str, Any], place: str) -> DiesAt:
    """The death of the actor that passes this place, in a group of endpoints.json."""
    (victim,) = victims([group], [PLACES[place]])
    return DiesAt(target, victim, place)


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
