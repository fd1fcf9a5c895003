"""What goes wrong and when: a list of faults drawn from the seed, printed as it is, and replayed exactly."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Final

import msgspec

COMPONENTS: Final = ("conductor", "op-node", "rollup-boost", "builder", "fallback-el")
EDGE_COMPONENTS: Final = ("proxy-0", "proxy-1", "rpc-node")
GROUP: Final = "group"

CRASH = "crash"
HANG = "hang"
SLOW = "slow"
PARTITION = "partition"
DEAF = "deaf"
MUTE = "mute"
BRIDGE = "bridge"
WEATHER = "weather"
UNLINK = "unlink"
TRANSFER = "transfer"
LOSE_JOURNAL = "lose-journal"
MAJORITY = "majority"
EVERYBODY = "everybody"
CLOCK = "clock"
BOUNCE_VOTERS = "bounce-voters"
STAGE = "stage"
NO_BUILDERS = "no-builders"
LIE = "lie"

BEFORE_APPEND = "before append"
BEFORE_PUBLISH = "after commit, before publish"
AFTER_PUBLISH = "after publish"
BEFORE_SEAL = "before seal"
DURING_SEAL = "during seal"
BEFORE_INSERT = "after seal, before insert"
STAGES: Final = (BEFORE_APPEND, BEFORE_PUBLISH, AFTER_PUBLISH, BEFORE_SEAL, DURING_SEAL, BEFORE_INSERT)
"""Where a commit can be cut short; the names are those of `actors.fault_points`."""

KINDS: Final = {
    CRASH: "SIGKILL a component, or a whole group; it is started again after a while",
    HANG: "SIGSTOP a component, or a whole group, and wake it later",
    SLOW: "every event takes a component some milliseconds",
    PARTITION: "a minority of the groups is cut off from the rest",
    DEAF: "nothing reaches one group",
    MUTE: "nothing leaves one group",
    BRIDGE: "two halves that only one group in between can reach",
    WEATHER: "messages between groups are lost, doubled and delayed",
    UNLINK: "every WebSocket of a component breaks",
    TRANSFER: "an operator hands leadership on",
    LOSE_JOURNAL: "a conductor is killed and its journal is damaged",
    MAJORITY: "a majority of the groups is killed and comes back: nothing may move meanwhile",
    EVERYBODY: "all groups are killed at once and come back",
    CLOCK: "the wall clock of one group jumps by up to two seconds",
    NO_BUILDERS: "the builders of all groups are killed: the fallback ELs go on in their place",
    LIE: "a builder publishes flashblocks whose roots are not as executed",
    STAGE: "the leader's conductor or op-node dies at one stage of a commit",
    BOUNCE_VOTERS: "the leader is killed, two halves cannot reach each other, and members die as they have voted",
}
"""Every kind of fault and what it does."""

WEIGHTS: Final = {
    CRASH: 8,
    HANG: 5,
    SLOW: 2,
    PARTITION: 4,
    DEAF: 2,
    MUTE: 2,
    BRIDGE: 2,
    WEATHER: 3,
    UNLINK: 3,
    TRANSFER: 4,
    LOSE_JOURNAL: 1,
    MAJORITY: 1,
    EVERYBODY: 1,
    CLOCK: 1,
    BOUNCE_VOTERS: 1,
    STAGE: 4,
    NO_BUILDERS: 2,
    LIE: 2,
}

LEADER: Final = "leader"
"""As a group: whichever leads when the fault begins."""


class FaultPlan(msgspec.Struct, frozen=True):
    """One fault: when (seconds of the run), what, to whom (`leader`, a group, or a component of the edge), how long."""

    at: float
    kind: str
    group: str
    component: str
    lasts_s: float
    draw: float
    """Random in 0..1, for whatever else the fault leaves open."""

    def __str__(self) -> str:
        where = f"{self.group}/{self.component}" if self.component else self.group
        return f"{self.at:6.3f} s  {self.kind} {where} for {self.lasts_s:.2f} s"


def draw_schedule(
    random: Random, groups: Sequence[str], kinds: Sequence[str], begin_s: float, end_s: float, count: int
) -> list[FaultPlan]:
    """`count` faults between two moments, in order."""
    weights = [WEIGHTS[kind] for kind in kinds]
    moments = sorted(begin_s + (end_s - begin_s) * random.random() for _ in range(count))
    return [
        _one(random, groups, kind, at)
        for at, kind in zip(moments, random.choices(kinds, weights, k=count), strict=True)
    ]


def _one(random: Random, groups: Sequence[str], kind: str, at: float) -> FaultPlan:
    group = LEADER if random.random() < 0.65 else random.choice(groups)
    component = ""
    if kind in (CRASH, HANG, SLOW, UNLINK):
        component = random.choice((*COMPONENTS, *COMPONENTS, GROUP, "edge"))
        if component == "edge":
            group, component = random.choice(EDGE_COMPONENTS), ""
    lasts_s = round(random.choice((0.02, 0.1, 0.3, 0.6, 1.2, 2.5)) * (0.5 + random.random()), 3)
    return FaultPlan(round(at, 4), kind, group, component, lasts_s, round(random.random(), 6))
