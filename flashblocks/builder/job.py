"""The life of one building job: index 0 at once, then one flashblock per trigger, resumed where others left off.

The next flashblock is begun as soon as the one before it is published; how candidates of it are made until its trigger
is `pace`'s.

One job at a time, as in op-rbuilder: a new payload id cancels the old job, the same id again never restarts it.
Facts go into ``step`` with the time; decisions come out.  Times are Unix seconds.

A job can begin in the middle of its block.  When the committed flashblocks 0..k of its payload were already executed
here (this node followed a leader that died), building goes on at k+1 and nothing is streamed twice.
"""

import enum
from dataclasses import dataclass

from flashblocks.builder.schedule import Timing, trigger_times_s

RECENT_PAYLOADS_MAX = 16
EXTRA_DEADLINE_S_DEFAULT = 20.0  # how long after its timestamp a payload may still be asked for


class Phase(enum.Enum):
    """What the job is doing."""

    IDLE = "idle"
    OPENING = "opening"
    BUILDING = "building"
    COMPLETE = "complete"


class Cancellation(enum.Enum):
    """Why a job ended; the value is the metric's label."""

    RESOLVED = "resolved"
    NEW_FCU = "new_fcu"
    DEADLINE = "deadline"
    COMPLETE = "complete"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Attributes:
    """A forkchoice update with attributes; ``followed_index``: the last index of it already executed here, or None."""

    payload_id: bytes
    timestamp_s: int
    no_tx_pool: bool = False
    followed_index: int | None = None


@dataclass(frozen=True, slots=True)
class Built:
    """There is a sealed candidate of the flashblock asked for, or a better one than before."""

    payload_id: bytes
    index: int


@dataclass(frozen=True, slots=True)
class Failed:
    """The flashblock asked for could not be built."""

    payload_id: bytes
    index: int


@dataclass(frozen=True, slots=True)
class Committed:
    """A committed flashblock was executed here; ``foreign`` when it is not the one this builder made."""

    payload_id: bytes
    index: int
    foreign: bool


@dataclass(frozen=True, slots=True)
class PayloadAsked:
    """getPayload: what was published is the block, nothing may follow."""

    payload_id: bytes


@dataclass(frozen=True, slots=True)
class Tick:
    """The time asked for by ``WakeAt`` has come."""


Fact = Attributes | Built | Failed | Committed | PayloadAsked | Tick


@dataclass(frozen=True, slots=True)
class BuildOpening:
    """Build index 0 of this payload now: the forced transactions and nothing else."""

    payload_id: bytes


@dataclass(frozen=True, slots=True)
class Build:
    """Have candidates of this flashblock, instead of any other, ready until ``due_s``, when the last one is published.

    It may fill ``share``/``shares`` of the budgets; ``last`` is the block's last flashblock.
    """

    payload_id: bytes
    index: int
    share: int
    shares: int
    due_s: float
    last: bool = False


@dataclass(frozen=True, slots=True)
class Publish:
    """Stream the candidate; ``late_s`` is the delay after its trigger (0 for index 0).

    ``waited``: there was none at the trigger, and this is the first one.
    """

    payload_id: bytes
    index: int
    late_s: float
    waited: bool = False


@dataclass(frozen=True, slots=True)
class WakeAt:
    """Call ``step`` with a Tick at this time; replaces an earlier request."""

    at_s: float


@dataclass(frozen=True, slots=True)
class Cancel:
    """Stop all work for this payload and forget what was built but not published."""

    payload_id: bytes
    reason: Cancellation
    unpublished: bool


Decision = BuildOpening | Build | Publish | WakeAt | Cancel


class Job:
    """The builder's one job; see the module's docstring."""

    def __init__(self, timing: Timing, extra_deadline_s: float = EXTRA_DEADLINE_S_DEFAULT) -> None:
        self._timing, self._extra_deadline_s = timing, extra_deadline_s
        self._resolved: list[bytes] = []
        self.phase = Phase.IDLE
        self.ready = False
        """There is a candidate of the flashblock being built."""
        self.failed = False
        """It cannot be built: the next try begins at its trigger."""
        self.payload_id = b""
        self.timestamp_s = 0
        self.no_tx_pool = False
        self.index = 0
        self.triggers: tuple[float, ...] = ()
        self.used_triggers = 0
        self.resumed = 0

    @property
    def shares(self) -> int:
        """Into how many parts the budgets are divided: the flashblocks resumed after and those still to come."""
        return self.resumed + len(self.triggers)

    def step(self, fact: Fact, now_s: float) -> list[Decision]:
        """Take in one fact and say what to do."""
        match fact:
            case Attributes():
                return self._begin(fact, now_s)
            case Built():
                return self._built(fact, now_s)
            case Failed():
                return self._failed(fact, now_s)
            case Committed():
                return self._committed(fact, now_s)
            case PayloadAsked():
                return self._end(Cancellation.RESOLVED) if self._is_current(fact.payload_id) else []
            case Tick():
                return self._advance(now_s)

    def check(self) -> None:
        """Assert what must hold between any two steps."""
        assert self.used_triggers <= len(self.triggers)
        assert (self.phase is Phase.IDLE) == (not self.payload_id)
        assert self.phase is not Phase.OPENING or self.index == 0
        assert self.phase is not Phase.BUILDING or self.index > 0
        assert self.phase is not Phase.BUILDING or self.used_triggers < len(self.triggers)
        assert self.phase is Phase.BUILDING or not (self.ready or self.failed)
        assert not (self.ready and self.failed)
        assert self.payload_id not in self._resolved

    def _is_current(self, payload_id: bytes) -> bool:
        return self.phase is not Phase.IDLE and payload_id == self.payload_id

    def _begin(self, fact: Attributes, now_s: float) -> list[Decision]:
        if self._is_current(fact.payload_id) or fact.payload_id in self._resolved:
            # The same update again: a job of that id is running, or was stopped by getPayload; neither starts over.
            return []
        decisions = self._end(Cancellation.NEW_FCU)
        self.payload_id, self.timestamp_s, self.no_tx_pool = fact.payload_id, fact.timestamp_s, fact.no_tx_pool
        self.triggers, self.used_triggers, self.resumed = (), 0, 0
        if fact.followed_index is None:
            self.phase, self.index = Phase.OPENING, 0
            return [*decisions, BuildOpening(fact.payload_id)]
        self.resumed = fact.followed_index
        return [*decisions, *self._schedule(fact.followed_index + 1, now_s)]

    def _schedule(self, next_index: int, now_s: float) -> list[Decision]:
        """Fix the triggers, after index 0 is built: its building time comes out of the slot."""
        self.index = next_index
        if self.no_tx_pool:
            return self._complete()
        self.triggers = trigger_times_s(self._timing, self.timestamp_s, now_s)
        return self._begin_next()

    def _begin_next(self) -> list[Decision]:
        """Begin to build the next flashblock, at once: its trigger shall find it ready."""
        self.ready = self.failed = False
        if self.used_triggers == len(self.triggers):
            return self._complete()
        self.phase = Phase.BUILDING
        due_s, last = self.triggers[self.used_triggers], self.used_triggers == len(self.triggers) - 1
        share = min(self.resumed + self.used_triggers + 1, self.shares)
        return [Build(self.payload_id, self.index, share, self.shares, due_s, last), WakeAt(due_s)]

    def _complete(self) -> list[Decision]:
        """Nothing more to build; a payload that nobody asks for ends with its deadline."""
        self.phase = Phase.COMPLETE
        return [WakeAt(self._deadline_s)]

    @property
    def _deadline_s(self) -> float:
        return self.timestamp_s + self._extra_deadline_s

    def _advance(self, now_s: float, *, waited: bool = False) -> list[Decision]:
        if self.phase is Phase.COMPLETE and now_s >= self._deadline_s:
            return self._end(Cancellation.DEADLINE)
        if self.phase is not Phase.BUILDING:
            return []
        due_s = self.triggers[self.used_triggers]
        if now_s < due_s:
            return [WakeAt(due_s)]
        if self.failed:
            self._use_trigger(now_s)
            return self._begin_next()
        if not self.ready:
            return []  # published when there is something
        published = Publish(self.payload_id, self.index, now_s - due_s, waited)
        self._use_trigger(now_s)
        self.index += 1
        return [published, *self._begin_next()]

    def _use_trigger(self, now_s: float) -> None:
        """Go to the next trigger; those already past are skipped, their share of the budgets goes to the next one."""
        self.used_triggers += 1
        while self.used_triggers < len(self.triggers) - 1 and self.triggers[self.used_triggers] <= now_s:
            self.used_triggers += 1

    def _built(self, fact: Built, now_s: float) -> list[Decision]:
        if not self._is_current(fact.payload_id) or fact.index != self.index:
            return []
        if self.phase is Phase.OPENING:
            published: list[Decision] = [] if self.no_tx_pool else [Publish(fact.payload_id, 0, 0.0)]
            return [*published, *self._schedule(1, now_s)]
        if self.phase is not Phase.BUILDING:
            return []
        waited = not self.ready and now_s > self.triggers[self.used_triggers]
        self.ready, self.failed = True, False
        return self._advance(now_s, waited=waited)

    def _failed(self, fact: Failed, now_s: float) -> list[Decision]:
        if not self._is_current(fact.payload_id) or fact.index != self.index:
            return []
        if self.phase is Phase.OPENING:
            return self._end(Cancellation.ERROR)
        if self.phase is not Phase.BUILDING:
            return []
        self.ready, self.failed = False, True
        return self._advance(now_s)

    def _committed(self, fact: Committed, now_s: float) -> list[Decision]:
        if not self._is_current(fact.payload_id) or not fact.foreign:
            return []
        # Another builder's flashblock took this index or a later one: what was built here on other ground is void.
        if self.phase is Phase.OPENING:
            self.resumed = fact.index
            return self._schedule(fact.index + 1, now_s)
        if self.phase is Phase.COMPLETE:
            self.index = fact.index + 1
            return []
        self.index = fact.index + 1
        return self._begin_next()

    def _end(self, reason: Cancellation) -> list[Decision]:
        if self.phase is Phase.IDLE:
            return []
        unpublished = self.phase is Phase.OPENING or self.ready
        ended_by = reason
        if self.phase is Phase.COMPLETE and reason is not Cancellation.DEADLINE:
            ended_by = Cancellation.COMPLETE
        ended = Cancel(self.payload_id, ended_by, unpublished)
        if reason in (Cancellation.RESOLVED, Cancellation.DEADLINE):
            self._resolved = [*self._resolved, self.payload_id][-RECENT_PAYLOADS_MAX:]
        self.phase, self.payload_id, self.triggers, self.used_triggers = Phase.IDLE, b"", (), 0
        self.ready = self.failed = False
        return [ended]
