"""What a drill turns on all processes of a group for a while: their wall clock, the speed of their disk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from actors.fault_points import CLOCK, SLOW_DISK
from chaos.commit_stages import fault_point_directory
from chaos.faults import ACTORS, HANG_S, Fault, all_back, victims
from chaos.history import Event
from chaos.target import DrillError, Target


def clock_jump(target: Target, groups: Sequence[dict[str, Any]], offset_s: float) -> Turned:
    """`time.time` of all actors is so far off; monotonic clocks go on as they do."""
    return Turned(target, groups, f"clock {offset_s:+.0f} s", CLOCK, offset_s)


def slow_disk(target: Target, groups: Sequence[dict[str, Any]], delay_s: float) -> Turned:
    """Every write of a journal or a chain store takes so much longer."""
    return Turned(target, groups, f"slow disk +{delay_s * 1000:.0f} ms", SLOW_DISK, delay_s)


class Turned(Fault):
    """One dial of all actors of some groups stands at a value for `hold_s`, and then at nothing again."""

    def __init__(self, target: Target, groups: Sequence[dict[str, Any]], kind: str, dial: str, value: float) -> None:
        self.kind, self.hold_s = kind, HANG_S
        self.victims = victims(groups, ACTORS)
        self._target, self._dial, self._value = target, dial, value

    async def inject(self) -> None:
        """Turn it; raises DrillError when these processes have none."""
        for victim in self.victims:
            directory = fault_point_directory(victim.pid)
            if directory is None:
                raise DrillError(f"{victim.group}/{victim.actor} has no {self._dial} that could be turned")
            (directory / f"{victim.pid}.{self._dial}").write_text(str(self._value))

    def abandon(self) -> None:
        """Turn it back."""
        for victim in self.victims:
            directory = fault_point_directory(victim.pid)
            if directory is not None:
                (directory / f"{victim.pid}.{self._dial}").unlink(missing_ok=True)

    async def recovered(self, run: int) -> list[Event]:
        """Wait until all are level."""
        return await all_back(self._target, dict.fromkeys(self.victims, 0), run)
