"""What a builder does between two triggers, so that a candidate is ready at the next one.

The naive way builds when the trigger comes, or once, timed to end there: whatever makes that one build slow makes the
flashblock late.  Here the candidate grows from the last publication on, in short passes; it is sealed once in between –
that one is always there – and again just before the trigger, when nearly everything in it has been executed already.

How much is executed for one flashblock is bounded, because somebody else has to execute it again before it can be
committed.  When a block comes back shorter than what was published (the judge or the ledger did not keep up), the bound
is halved; with every block that comes back whole it grows again.  Times are seconds.
"""

from dataclasses import dataclass

from flashblocks.builder.schedule import Timing

SLICE_S = 0.004  # of uninterrupted work; then the sockets get a turn
FIRST_LOOK_S = 0.020  # what was just published is being judged, perhaps on the same processor
FILL_S_MIN = 0.008  # however near the trigger is: a block that is begun late need not be empty
PAUSE_S_MIN = 0.025  # between two looks at a pool that goes on changing
LOOK_SHARE_MAX = 4  # looking at the pool may take a quarter of the time
SEAL_EVERY_S = 0.090
MARGIN_S = 0.002
LATE_S_TOLERATED = 0.004  # what a fresher candidate may cost; later than that the older one is published
SEAL_S_FIRST = 0.005
PASS_S_FIRST, PASS_S_MAX = 0.003, 0.020
COST_DECAY = 0.9

EXECUTION_SHARE = 2  # of the flashblock time: half of it
LAST_COMMIT_S = 0.020  # from the last verdict to the committed flashblock
SEAL_BEFORE_S = 0.050  # op-node asks for the payload this long before the timestamp
ALLOWANCE_S_MIN = 0.010
ALLOWANCE_GROWTH = 1.25


@dataclass(frozen=True, slots=True)
class Fill:
    """Execute until ``until_s``; what still runs at ``deadline_s`` is stopped. ``renew``: look at the pool first."""

    until_s: float
    deadline_s: float
    renew: bool


@dataclass(frozen=True, slots=True)
class Seal:
    """Seal what is there: it is the candidate."""


@dataclass(frozen=True, slots=True)
class Rest:
    """Nothing to do until then."""

    until_s: float


@dataclass(frozen=True, slots=True)
class Done:
    """The candidate is what it will be."""


Work = Fill | Seal | Rest | Done


class Costs:
    """What the steps have cost lately: slowly forgetting maxima."""

    def __init__(self) -> None:
        self.seal_s = SEAL_S_FIRST
        self.pass_s = PASS_S_FIRST

    def sealed(self, took_s: float) -> None:
        """Learn from one more sealing."""
        self.seal_s = max(took_s, COST_DECAY * self.seal_s)

    def passed(self, took_s: float) -> None:
        """Learn from one more look at the pool and what was executed after it."""
        self.pass_s = min(PASS_S_MAX, max(took_s, COST_DECAY * self.pass_s))


class Allowance:
    """How long the transactions of one flashblock may take to execute here."""

    def __init__(self, timing: Timing) -> None:
        self._most_s = timing.flashblock_time_ms / 1000 / EXECUTION_SHARE
        # The last one has only the time until the payload is asked for to be judged and committed.
        rest_s = (timing.end_buffer_ms - timing.send_offset_ms) / 1000 - SEAL_BEFORE_S - LAST_COMMIT_S
        self._last_share = min(1.0, max(ALLOWANCE_S_MIN, rest_s) / self._most_s)
        self._now_s = self._most_s

    def of(self, *, last: bool) -> float:
        """Seconds for a flashblock, or for the last one of a block."""
        return max(ALLOWANCE_S_MIN, self._now_s * self._last_share if last else self._now_s)

    def block_came_back(self, *, whole: bool) -> None:
        """A block was made of what was published: all of it, or only a part that was judged and committed in time."""
        changed_s = self._now_s * ALLOWANCE_GROWTH if whole else self._now_s / 2
        self._now_s = min(self._most_s, max(ALLOWANCE_S_MIN, changed_s))


class Pace:
    """The work on one flashblock, from its beginning until the trigger at ``due_s``."""

    def __init__(self, began_s: float, due_s: float, allowance_s: float, costs: Costs, *, last: bool = False) -> None:
        self._due_s, self._allowance_s, self._costs, self.last = due_s, allowance_s, costs, last
        self._revision = -1
        self._exhausted = True
        self._began_s = began_s
        self._look_at_s = began_s + (FIRST_LOOK_S if due_s - began_s > 2 * FIRST_LOOK_S else 0.0)
        self._sealed_at_s = began_s
        self._pass_s = 0.0
        self.sealed_any = False
        self.unsealed = True  # the first candidate may be empty, but there must be one
        self.executed_s = self.sealing_s = 0.0

    @property
    def freeze_s(self) -> float:
        """When the last sealing has to begin."""
        return max(self._due_s - self._costs.seal_s - MARGIN_S, self._began_s + FILL_S_MIN)

    def next(self, now_s: float, revision: int) -> Work:
        """Say what to do now; ``revision`` is the pool's, it moves with every change."""
        if now_s >= self.freeze_s:
            late = now_s + self._costs.seal_s > self._due_s + LATE_S_TOLERATED
            return Seal() if self.unsealed and not (late and self.sealed_any) else Done()
        left_s = self._allowance_s - self.executed_s
        renew = revision != self._revision and now_s >= min(self._look_at_s, self._last_look_s)
        if (renew or not self._exhausted) and left_s > 0:
            stop_s = min(self.freeze_s, now_s + left_s)
            # A single long transaction may use up what is left until the trigger, where the judge has the time for it.
            deadline_s = stop_s if self.last else self.freeze_s
            return Fill(min(now_s + SLICE_S, stop_s), deadline_s, renew)
        if self.unsealed and now_s >= self._sealed_at_s + SEAL_EVERY_S:
            return Seal()
        return Rest(min(self._next_look_s(now_s, revision, left_s), self._next_seal_s(), self.freeze_s))

    @property
    def _last_look_s(self) -> float:
        """What arrived since the look before comes in by one more, which is over just before the end."""
        return self.freeze_s - self._costs.pass_s

    def _next_look_s(self, now_s: float, revision: int, left_s: float) -> float:
        if left_s <= 0:
            return self.freeze_s
        look_s = self._look_at_s if revision != self._revision else now_s + PAUSE_S_MIN
        return min(look_s, self._last_look_s) if now_s < self._last_look_s else look_s

    def _next_seal_s(self) -> float:
        return self._sealed_at_s + SEAL_EVERY_S if self.unsealed else self.freeze_s

    def looked(self, began_s: float, ended_s: float, revision: int) -> None:
        """The pool was looked at as of this revision; an expensive look is not repeated soon."""
        self._revision, self._pass_s = revision, ended_s - began_s
        self._look_at_s = ended_s + max(PAUSE_S_MIN, LOOK_SHARE_MAX * (ended_s - began_s))

    def filled(self, took_s: float, *, exhausted: bool, unsealed: bool) -> None:
        """A pass ended: whether it came to the end of what was on offer, and whether the candidate is outdated."""
        self.executed_s += took_s
        self._pass_s += took_s
        self._exhausted = exhausted
        if exhausted:
            self._costs.passed(self._pass_s)
        self.unsealed = unsealed or not self.sealed_any

    def sealed(self, began_s: float, ended_s: float) -> None:
        """There is a candidate."""
        self._costs.sealed(ended_s - began_s)
        self.sealing_s += ended_s - began_s
        self.sealed_any, self.unsealed, self._sealed_at_s = True, False, ended_s
