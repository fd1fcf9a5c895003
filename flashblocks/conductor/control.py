"""op-conductor's control table over (leader, healthy, active), with its exceptions and our additions.

The table (op-conductor, conductor/service.go `action`) is `decide`; `Control` keeps the flags, hands out one action at
a time and bounds every wait. Our additions:

- leadership goes only to a voter that is strictly fitter (`candidates`), so there is no hand-over to and fro;
- an unhealthy leader that nobody can relieve goes on as well as it can, instead of handing on to the next sick one;
- waiting for recovery has a cap, a failing start is retried with back-off and then handed on;
- a leader without a claimed epoch does not start: everything it made would be refused;
- a paused or stopped conductor acts on nothing, so leadership that comes to it is handed on.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

import msgspec

from flashblocks.conductor.candidates import Candidate, Successors
from flashblocks.conductor.health import Health, Readiness, Sickness

RECOVERY_WAIT_S_MAX: Final = 5.0
"""How long a fresh leader that started on a stalled chain may stay unhealthy (#16558: upstream waits for ever)."""
START_FAILURES_MAX: Final = 2
"""Failed starts after which a fitter or equal voter is asked to lead; one suffices where nothing was answered."""
TRANSFER_COOLDOWN_S: Final = 5.0
"""Pause between hand-overs of a leader that still can make blocks; one that cannot hands on at once."""
TRANSFER_RETRY_S: Final = 0.25
RETRY_S_FIRST: Final = 0.05
RETRY_S_MAX: Final = 2.0
"""op-conductor draws its retry from 0 to 2000 ms; ours begins short and doubles up to the same."""


class Action(Enum):
    """What the shell does; TRANSFER names its target in the decision."""

    NOTHING = "nothing"
    WAIT = "wait"
    START = "start sequencer"
    STOP = "stop sequencer"
    TRANSFER = "transfer leadership"
    STOP_AND_TRANSFER = "stop sequencer and transfer leadership"


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """The three flags of the table and what its exceptions look at."""

    leader: bool
    healthy: bool
    active: bool
    sickness: Sickness = Sickness.NONE
    claimed: bool = True
    """Our claim of this leadership's epoch is committed."""
    recovering: bool = False
    """We started on a stalled chain less than RECOVERY_WAIT_S_MAX ago."""
    start_failed: bool = False
    """START_FAILURES_MAX starts in a row failed."""
    successor: bool = False
    """A voter that is strictly fitter is there (any other one, when starts fail)."""


def decide(facts: Facts) -> Action:
    """The table, row by row."""
    match (facts.leader, facts.healthy, facts.active):
        case (False, False, False):
            return Action.NOTHING  # a sick follower has nothing to give away
        case (False, True, False):
            return Action.NOTHING  # the normal follower
        case (False, _, True):
            return Action.STOP  # stepped down, or restarted while its node went on; it cannot commit anyway
        case (True, True, True):
            return Action.NOTHING  # the normal leader
        case (True, True, False):
            return _begin(facts)  # a new leader
        case (True, False, False):
            if facts.successor:
                return Action.TRANSFER  # never began: hand on at once to somebody fitter
            if facts.sickness in (Sickness.CONNECTION_DOWN, Sickness.STARTING):
                return Action.WAIT  # no op-node to start, nobody to take over
            return _begin(facts)  # everybody looks sick when the chain stands still: somebody has to begin
        case _:
            if facts.recovering and facts.sickness is Sickness.CHAIN_STALLED:
                return Action.WAIT  # it will look healthy with the first block
            if facts.successor:
                return Action.STOP_AND_TRANSFER
            return Action.WAIT  # nobody is fitter: go on as well as possible


def _begin(facts: Facts) -> Action:
    if not facts.claimed:
        return Action.WAIT
    if facts.start_failed and facts.successor:
        return Action.TRANSFER
    return Action.START


class Decision(msgspec.Struct, frozen=True):
    """An action and, for a transfer, its target."""

    action: Action
    target: str | None = None


class Control:
    """The flags and the loop around the table; one action is under way at a time."""

    def __init__(self, paused: bool = False) -> None:
        self.leader = False
        self.claimed = False
        self.active = False
        self.paused = paused
        self.stopped = False
        self.health = Health(Sickness.STARTING, Readiness.UNKNOWN)
        self.state_changes = 0
        self.actions = 0
        """Actions begun so far: a question asked before one began has nothing to say after it."""
        self._successors = Successors()
        self._busy: Decision | None = None
        self._not_before = float("-inf")
        self._failures = 0
        self._start_failures = 0
        self._started_at: float | None = None
        self._transferred_at = float("-inf")
        self._leadership_news = 0
        self._leadership_news_then = 0

    def on_leadership(self, leading: bool) -> None:
        """Raft gave or took leadership; an epoch has to be claimed anew each time."""
        if leading != self.leader:
            self.state_changes += 1
        self._leadership_news += 1
        self.leader, self.claimed = leading, False
        self._started_at = None
        self._start_failures = self._failures = 0
        self._not_before = float("-inf")

    def on_claimed(self) -> None:
        """Our claim is committed: what we propose from now on counts."""
        self.claimed = True
        self._not_before = float("-inf")

    def on_health(self, health: Health) -> None:
        """A new verdict; a change is acted on at once, whatever the back-off says."""
        if health != self.health:
            self.state_changes += health.healthy != self.health.healthy
            self._not_before = float("-inf")
        self.health = health

    def on_active(self, active: bool) -> None:
        """The op-node told, or showed, whether it sequences."""
        if active != self.active:
            self.state_changes += 1
            self._not_before = float("-inf")
        self.active = active

    @property
    def readiness(self) -> Readiness:
        """How fit this group is to lead, as the others are told."""
        if self.paused or self.stopped:
            return Readiness.UNABLE
        return self.health.readiness

    def next(self, now: float, judged: list[Candidate]) -> Decision | None:
        """The action to take now; None while one is under way, until a retry is due, or with nothing to do.

        `judged` are the other voters, best first (`candidates`).
        """
        if self._busy is not None or now < self._not_before:
            return None
        successor = self._successor(now, judged)
        if self.paused or self.stopped:
            action = Action.TRANSFER if successor is not None and self._idle_leader else Action.NOTHING
        else:
            action = decide(self._facts(now, successor is not None))
        if action in (Action.NOTHING, Action.WAIT):
            return None
        self.actions += 1
        self._leadership_news_then = self._leadership_news
        transfers = action in (Action.TRANSFER, Action.STOP_AND_TRANSFER)
        if transfers and successor is not None:
            self._transferred_at = now
            self._successors.on_tried(now, successor.node)
        self._busy = Decision(action, successor.node if transfers and successor is not None else None)
        return self._busy

    def on_done(self, now: float, ok: bool, jitter: float = 1.0, *, silent: bool = False) -> None:
        """The action under way ended. After a failure the table is looked at again after a back-off.

        STOP_AND_TRANSFER is ok when leadership is elsewhere; whether the sequencer stopped comes with `on_active`.
        `jitter` in 0..1 spreads the retries of several nodes. `silent`: the op-node did not answer a start in time; a
        second try would cost the chain as much again.
        """
        assert self._busy is not None, "no action is under way"
        action, self._busy = self._busy.action, None
        if ok:
            self._failures = 0
            self._note_success(now, action)
            return
        self._failures += 1
        if action is Action.START:
            self._start_failures += START_FAILURES_MAX if silent else 1
        if action in (Action.TRANSFER, Action.STOP_AND_TRANSFER):
            self._not_before = now + TRANSFER_RETRY_S * jitter
            return
        self._not_before = now + min(RETRY_S_MAX, RETRY_S_FIRST * 2 ** (self._failures - 1)) * (0.5 + 0.5 * jitter)

    @property
    def busy(self) -> Decision | None:
        """The action under way."""
        return self._busy

    def _note_success(self, now: float, action: Action) -> None:
        if action is Action.START:
            self.active = True
            self._started_at = now
            self._start_failures = 0
        elif action is Action.STOP:
            self.active = False
        transferred = action in (Action.TRANSFER, Action.STOP_AND_TRANSFER)
        if transferred and self._leadership_news == self._leadership_news_then:
            self.leader = self.claimed = False  # Raft's word comes a moment later; do not begin anew until then

    @property
    def _idle_leader(self) -> bool:
        """Whether we lead, may not act on it, and nobody meant it so: a sequencer that was ours before the pause, and
        whatever the operator does with it, are the operator's business; conductor_stop gives leadership away."""
        return self.leader and not self.active and (self.stopped or self._started_at is None)

    def _facts(self, now: float, successor: bool) -> Facts:
        recovering = self._started_at is not None and now - self._started_at < RECOVERY_WAIT_S_MAX
        return Facts(
            leader=self.leader,
            healthy=self.health.healthy,
            active=self.active,
            sickness=self.health.sickness,
            claimed=self.claimed,
            recovering=recovering,
            start_failed=self._start_failures >= START_FAILURES_MAX,
            successor=successor,
        )

    def _successor(self, now: float, judged: list[Candidate]) -> Candidate | None:
        if not self.leader:
            return None
        own = self._own_readiness(now)
        unable = own.value <= Readiness.BEHIND.value
        if not unable and now - self._transferred_at < TRANSFER_COOLDOWN_S:
            return None
        return self._successors.choose(now, own, judged)

    def _own_readiness(self, now: float) -> Readiness:
        """What we are worth as a leader: one that cannot start, or leads a standing chain for long, is worth little."""
        if self.paused or self.stopped or self._start_failures >= START_FAILURES_MAX:
            return Readiness.UNABLE
        stalled = self.active and self.health.sickness is Sickness.CHAIN_STALLED
        if stalled and self._started_at is not None and now - self._started_at >= RECOVERY_WAIT_S_MAX:
            return Readiness.BEHIND
        return self.health.readiness
