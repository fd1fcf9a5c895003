"""A group's wall clock jumps: its processes believe another time than everybody else's, then the right one again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from actors.fault_points import CLOCK
from chaos.commit_stages import fault_point_directory
from chaos.faults import ACTORS, HANG_S, Fault, all_back, victims
from chaos.history import Event
from chaos.target import DrillError, Target


class ClockJump(Fault):
    """`time.time` of all actors of some groups is `offset_s` off, for `hold_s`; monotonic clocks go on as they do."""

    def __init__(
        self, target: Target, groups: Sequence[dict[str, Any]], offset_s: float, hold_s: float = HANG_S
    ) -> None:
        self.kind, self.hold_s = f"clock {offset_s:+.0f} s", hold_s
        self.victims = victims(groups, ACTORS)
        self._target, self._offset_s = target, offset_s

    async def inject(self) -> None:
        """Move the clocks; raises DrillError when these processes have none that can be moved."""
        for victim in self.victims:
            directory = fault_point_directory(victim.pid)
            if directory is None:
                raise DrillError(f"the clock of {victim.group}/{victim.actor} cannot be moved")
            (directory / f"{victim.pid}.{CLOCK}").write_text(str(self._offset_s))

    def abandon(self) -> None:
        """Put the clocks right."""
        for victim in self.victims:
            directory = fault_point_directory(victim.pid)
            if directory is not None:
                (directory / f"{victim.pid}.{CLOCK}").unlink(missing_ok=True)

    async def recovered(self, run: int) -> list[Event]:
        """Wait until all are level."""
        return await all_back(self._target, dict.fromkeys(self.victims, 0), run)
