"""The life of one building job: index 0 at once, then one flashblock per trigger, resumed where others left off.

One job at a time, as in op-rbuilder: a new payload id cancels the old job, the same id again never restarts it.
Facts go into ``step`` with the time; decisions come out.  Times are Unix seconds.

A job can begin in the middle of its block.  When the committed flashblocks 0..k of its payload were already executed
here (this node followed a leader that died), building goes on at k+1 and nothing is streamed twice.
"""

import enum
from dataclasses import dataclass

from flashblocks.builder.schedule import Timing, trigger_times_s

BUILD_TIME_ESTIMATE_S_FIRST = 0.020
BUILD_MARGIN_S = 0.004
BUILD_TIME_DECAY = 0.8
RECENT_PAYLOADS_MAX = 16


class Phase(enum.Enum):
    """What the job is doing."""

    IDLE = "idle"
    OPENING = "opening"
    WAITING = "waiting"
    BUILDING = "building"
    READY = "ready"
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
    """The flashblock asked for is sealed and can be published; it took this long."""

    payload_id: bytes
    index: int
    took_s: float


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
    """Build this, instead of any other, to be ready at ``due_s``; it may fill ``share``/``shares`` of the budgets."""

    payload_id: bytes
    index: int
    share: int
    shares: int
    due_s: float


@dataclass(frozen=True, slots=True)
class Publish:
    """Stream the flashblock that was built; ``late_s`` is the delay after its trigger (0 for index 0)."""

    payload_id: bytes
    index: int
    late_s: float


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

    def __init__(self, timing: Timing) -> None:
        self._timing = timing
        self._estimate_s = BUILD_TIME_ESTIMATE_S_FIRST
        self._resolved: list[bytes] = []
        self.phase = Phase.IDLE
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

    @property
    def build_time_s(self) -> float:
        """How long before its trigger a build begins: a slowly forgetting maximum of measured times, and a margin."""
        return min(self._estimate_s + BUILD_MARGIN_S, self._timing.flashblock_time_ms / 1000)

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
        assert self.phase not in (Phase.BUILDING, Phase.READY) or self.index > 0
        assert self.phase not in (Phase.BUILDING, Phase.READY) or self.used_triggers < len(self.triggers)
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
            self.phase = Phase.COMPLETE
            return []
        self.phase = Phase.WAITING
        self.triggers = trigger_times_s(self._timing, self.timestamp_s, now_s)
        return self._advance(now_s)

    def _advance(self, now_s: float) -> list[Decision]:
        if self.phase is Phase.READY:
            due_s = self.triggers[self.used_triggers]
            if now_s < due_s:
                return [WakeAt(due_s)]
            published = Publish(self.payload_id, self.index, now_s - due_s)
            self._use_trigger(now_s)
            self.index += 1
            return [published, *self._advance(now_s)]
        if self.phase is not Phase.WAITING:
            return []
        if self.used_triggers == len(self.triggers):
            self.phase = Phase.COMPLETE
            return []
        due_s = self.triggers[self.used_triggers]
        if now_s < due_s - self.build_time_s:
            return [WakeAt(due_s - self.build_time_s)]
        self.phase = Phase.BUILDING
        share = min(self.resumed + self.used_triggers + 1, self.shares)
        return [Build(self.payload_id, self.index, share, self.shares, due_s)]

    def _use_trigger(self, now_s: float) -> None:
        """Go to the next trigger; those already past are skipped, their share of the budgets goes to the next one."""
        self.used_triggers += 1
        while self.used_triggers < len(self.triggers) - 1 and self.triggers[self.used_triggers] <= now_s:
            self.used_triggers += 1
        self.phase = Phase.WAITING

    def _built(self, fact: Built, now_s: float) -> list[Decision]:
        if not self._is_current(fact.payload_id) or fact.index != self.index:
            return []
        if self.phase is Phase.OPENING:
            published: list[Decision] = [] if self.no_tx_pool else [Publish(fact.payload_id, 0, 0.0)]
            return [*published, *self._schedule(1, now_s)]
        if self.phase is not Phase.BUILDING:
            return []
        self._estimate_s = max(fact.took_s, BUILD_TIME_DECAY * self._estimate_s)
        self.phase = Phase.READY
        return self._advance(now_s)

    def _failed(self, fact: Failed, now_s: float) -> list[Decision]:
        if not self._is_current(fact.payload_id) or fact.index != self.index:
            return []
        if self.phase is Phase.OPENING:
            return self._end(Cancellation.ERROR)
        if self.phase is not Phase.BUILDING:
            return []
        self._use_trigger(now_s)
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
        self.phase = Phase.WAITING
        return self._advance(now_s)

    def _end(self, reason: Cancellation) -> list[Decision]:
        if self.phase is Phase.IDLE:
            return []
        unpublished = self.phase in (Phase.OPENING, Phase.BUILDING, Phase.READY)
        ended = Cancel(self.payload_id, Cancellation.COMPLETE if self.phase is Phase.COMPLETE else reason, unpublished)
        if reason is Cancellation.RESOLVED:
            self._resolved = [*self._resolved, self.payload_id][-RECENT_PAYLOADS_MAX:]
        self.phase, self.payload_id, self.triggers, self.used_triggers = Phase.IDLE, b"", (), 0
        return [ended]
