"""What a drill is: what it injects, where, and how the stream should bear it."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import msgspec

from chaos.expectation import Bound, Expect
from chaos.faults import Fault
from chaos.target import DrillError, Target


class Scene(msgspec.Struct, frozen=True):
    """Where a fault is to happen: who leads now, who does not, and the drill's own randomness."""

    target: Target
    leader: dict[str, Any]
    followers: list[dict[str, Any]]
    random: random.Random

    def some_followers(self, count: int) -> list[dict[str, Any]]:
        """So many of those that do not lead, drawn; raises DrillError when there are fewer."""
        if count > len(self.followers):
            raise DrillError(f"{count} followers are needed, the cluster has {len(self.followers)}")
        return self.random.sample(self.followers, count)

    def everybody(self) -> list[dict[str, Any]]:
        """All groups."""
        return [self.leader, *self.followers]


class Drill(msgspec.Struct, frozen=True, kw_only=True):
    """One drill: `fault` makes one fault of it, anew for every run."""

    name: str
    title: str
    row: str
    """The row of which table it stands for."""
    fault: Callable[[Scene], Fault]
    expect: Expect = Expect.GOES_ON
    bound: Bound | None = None
    promises: tuple[int, ...] = (1, 2, 3, 4, 5, 6)
    groups_min: int = 3
    ends_the_cluster: bool = False
    """What it kills is not started again: no other drill can follow on the same cluster."""
    slow: bool = False
    """More than a minute: not part of `drill run all`."""
    needs: tuple[Callable[[Target], str | None], ...] = ()
    """Each says what is missing on this machine or cluster, None when nothing is."""

    def missing(self, target: Target) -> str | None:
        """Why this drill cannot be run on this cluster; None when it can."""
        found = len(target.groups())
        if found < self.groups_min:
            return f"it needs {self.groups_min} groups, the cluster has {found}"
        return next((text for need in self.needs if (text := need(target)) is not None), None)
