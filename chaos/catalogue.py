"""Every drill as data: what it injects, which promises it puts to the test, how the stream should bear it.

`flashblocks drill list` prints this table; a drill is run by `chaos.runner` and judged by `chaos.judgement`.
"""

from __future__ import annotations

import fnmatch
import random
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from chaos.expectation import Bound, Expect
from chaos.faults import (
    ACTORS,
    DOWN,
    HANG,
    HANG_S,
    KILL,
    TRANSFER,
    WHOLE_GROUP,
    Fault,
    KeptDead,
    Signals,
    Transfer,
    victims,
)
from chaos.target import DrillError, Target

HALT_S = 8.0
DEAD_S = 10.0

BOUND_TRANSFER = Bound(200, 400)
BOUND_CONDUCTOR = Bound(300, 800)
BOUND_MEMBER = Bound(400, 1000)
BOUND_SLOW = Bound(1000, 2000)


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


def _on_leader(kind: str, actor: str) -> Callable[[Scene], Fault]:
    actors = ACTORS if actor == WHOLE_GROUP else (actor,)
    return lambda scene: Signals(scene.target, kind, victims([scene.leader], actors))


def _on_follower(kind: str, actor: str) -> Callable[[Scene], Fault]:
    actors = ACTORS if actor == WHOLE_GROUP else (actor,)
    return lambda scene: Signals(scene.target, kind, victims(scene.some_followers(1), actors))


def _kept_dead(leader: bool, others: int, actors: Sequence[str], hold_s: float) -> Callable[[Scene], Fault]:
    def fault(scene: Scene) -> Fault:
        hurt = [scene.leader] * leader + scene.some_followers(others)
        return KeptDead(scene.target, victims(hurt, actors), hold_s)

    return fault


def _bounds() -> list[Drill]:
    """The rows of the bounds table: faults on the leader."""
    bounds = {"conductor": BOUND_CONDUCTOR, WHOLE_GROUP: BOUND_CONDUCTOR}
    made = [
        Drill(
            name="transfer",
            title="hand the lead over as an operator does (conductor_transferLeader)",
            row="bounds: planned transfer",
            fault=lambda scene: Transfer(scene.target, scene.leader),
            bound=BOUND_TRANSFER,
        )
    ]
    for actor in (*ACTORS, WHOLE_GROUP):
        what = "whole group" if actor == WHOLE_GROUP else actor
        made.append(
            Drill(
                name=f"kill-{actor}",
                title=f"SIGKILL the leader's {what}; Ray starts it again and it must catch up",
                row=f"bounds: SIGKILL {what}",
                fault=_on_leader(KILL, actor),
                bound=bounds.get(actor, BOUND_MEMBER),
            )
        )
    for actor in (*ACTORS, WHOLE_GROUP):
        what = "whole group" if actor == WHOLE_GROUP else actor
        made.append(
            Drill(
                name=f"hang-{actor}",
                title=f"SIGSTOP the leader's {what}, SIGCONT {HANG_S:.0f} s later; the woken one publishes nothing",
                row=f"bounds: SIGSTOP {what}",
                fault=_on_leader(HANG, actor),
                bound=BOUND_SLOW,
            )
        )
    return made


def _followers() -> list[Drill]:
    """Faults on those that do not lead: nobody outside should notice."""
    return [
        Drill(
            name=f"{kind}-follower-{actor}",
            title=f"{'SIGKILL' if kind == KILL else 'SIGSTOP'} a follower's {actor}",
            row="op-conductor: a standby fails; rollup-boost: a follower's failure does not reach the leader",
            fault=_on_follower(kind, actor),
            expect=Expect.UNNOTICED,
        )
        for kind, actor in (*((KILL, actor) for actor in (*ACTORS, WHOLE_GROUP)), (HANG, WHOLE_GROUP))
    ]


def _majorities() -> list[Drill]:
    """Several groups at once: with a majority the stream goes on, without one it halts and loses nothing."""
    return [
        Drill(
            name="two-groups-dead",
            title=f"two of five groups, the leader's among them, kept dead for {DEAD_S:.0f} s",
            row="two of five groups dead",
            fault=_kept_dead(True, 1, ACTORS, DEAD_S),
            groups_min=5,
        ),
        Drill(
            name="two-sick-leaders",
            title="SIGSTOP the op-nodes of the leader and of another group: leadership must find a healthy one",
            row="op-conductor: two nodes bad",
            fault=lambda scene: Signals(
                scene.target, HANG, victims([scene.leader, *scene.some_followers(1)], ["op-node"])
            ),
            groups_min=5,
        ),
        Drill(
            name="three-groups-dead",
            title=f"three of five groups, the leader's among them, kept dead for {HALT_S:.0f} s, and back",
            row="three dead and back",
            fault=_kept_dead(True, 2, ACTORS, HALT_S),
            expect=Expect.HALTS,
            groups_min=5,
        ),
        Drill(
            name="three-conductors-dead",
            title=f"the conductors of three of five groups kept dead for {HALT_S:.0f} s, and back",
            row="op-conductor: the conductors of a majority dead",
            fault=_kept_dead(True, 2, ["conductor"], HALT_S),
            expect=Expect.HALTS,
            groups_min=5,
        ),
        Drill(
            name="restart-everybody",
            title="SIGKILL all actors of all groups at the same moment",
            row="simultaneous restart of all five",
            fault=lambda scene: Signals(scene.target, KILL, victims(scene.everybody(), ACTORS)),
        ),
    ]


DRILLS: tuple[Drill, ...] = (*_bounds(), *_followers(), *_majorities())
CATALOGUE: dict[str, Drill] = {drill.name: drill for drill in DRILLS}
KINDS = {KILL: "SIGKILL", HANG: "SIGSTOP", DOWN: "kept dead", TRANSFER: "planned transfer"}
ALL = "all"


def chosen(names: Sequence[str]) -> list[Drill]:
    """The drills of these names, in the catalogue's order of each name; `all` is every one that is not slow, and
    patterns (``kill-*``) are understood. Raises DrillError for a name that nothing matches.
    """
    found: dict[str, Drill] = {}
    for name in names:
        if name == ALL:
            matching = [drill for drill in DRILLS if not drill.slow]
        else:
            matching = [drill for drill in DRILLS if fnmatch.fnmatchcase(drill.name, name)]
        if not matching:
            raise DrillError(f"no drill named {name!r}; see: flashblocks drill list")
        found.update({drill.name: drill for drill in matching})
    return list(found.values())
