"""Whether this group can sequence: its own sickness, told apart from a chain that stands still for everybody.

op-conductor looks at its own node only, so when a leader stalls every follower looks sick too. Here a head that is old
while the ledger has nothing newer is the chain's trouble, not this group's; a head behind the ledger is our own.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

import msgspec

LAG_BLOCKS_MAX: Final = 3
ROLLUP_BOOST_HEALTHY: Final = 200
ROLLUP_BOOST_PARTIAL: Final = 206


class Sickness(Enum):
    """Why a group is unhealthy; the value is op-conductor's error text where it has one."""

    NONE = ""
    STARTING = "nothing is known about the sequencer yet"
    CONNECTION_DOWN = "cannot connect to sequencer rpc endpoints"
    LAGGING = "sequencer is not healthy"
    SAFE_HEAD_OLD = "sequencer is not healthy: the safe head is too old"
    FEW_PEERS = "sequencer is not healthy: too few peers"
    CHAIN_STALLED = "sequencer is not healthy: the chain stands still"
    NO_PROGRESS = "sequencer is not healthy: it leads and publishes nothing"
    ROLLUP_BOOST_DOWN = "cannot connect to rollup boost endpoint"
    ROLLUP_BOOST_UNHEALTHY = "rollup boost is not healthy"
    ROLLUP_BOOST_PARTIAL = "rollup boost is partially healthy"


class Readiness(Enum):
    """How well a group could lead, best first; `order` grows with it."""

    UNABLE = 0
    """Known to be sick: op-node, rollup-boost or execution client gone, paused, or not in contact."""
    BEHIND = 1
    """Alive, but behind the ledger, or stuck."""
    UNKNOWN = 2
    """In contact, but nothing is known about it."""
    WITHOUT_BUILDER = 3
    """Makes blocks, but no flashblocks."""
    READY = 4


READINESS_OF: Final = {
    Sickness.NONE: Readiness.READY,
    Sickness.STARTING: Readiness.UNKNOWN,
    Sickness.CONNECTION_DOWN: Readiness.UNABLE,
    Sickness.LAGGING: Readiness.BEHIND,
    Sickness.SAFE_HEAD_OLD: Readiness.BEHIND,
    Sickness.FEW_PEERS: Readiness.BEHIND,
    Sickness.CHAIN_STALLED: Readiness.READY,
    Sickness.NO_PROGRESS: Readiness.BEHIND,
    Sickness.ROLLUP_BOOST_DOWN: Readiness.UNABLE,
    Sickness.ROLLUP_BOOST_UNHEALTHY: Readiness.UNABLE,
    Sickness.ROLLUP_BOOST_PARTIAL: Readiness.WITHOUT_BUILDER,
}


class Health(msgspec.Struct, frozen=True):
    """The verdict: the reason, and how fit the group is to lead."""

    sickness: Sickness
    readiness: Readiness

    @property
    def healthy(self) -> bool:
        """Whether nothing is wrong: the answer of `conductor_sequencerHealthy`."""
        return self.sickness is Sickness.NONE


class HealthLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """op-conductor's limits, in seconds, and ours.

    A socket that closes is noticed at once; a peer that is silent, after `silence_s_max`. A group that recovers counts
    as healthy after `recovery_s` without trouble, so that it does not flap.
    """

    unsafe_interval_s: float = 5.0
    silence_s_max: float = 0.75
    safe_interval_s: float | None = None
    """Largest age of the safe head; None leaves it unchecked (healthcheck.safe-enabled=false)."""
    min_peer_count: int = 1
    partial_tolerance_limit: int = 0
    partial_tolerance_interval_s: float = 0.0
    lag_s_max: float = 2.0
    recovery_s: float = 1.0

    def __post_init__(self) -> None:
        if (self.partial_tolerance_limit > 0) != (self.partial_tolerance_interval_s > 0):
            raise ValueError("partial tolerance: limit and interval belong together, set both or none")


class HealthMonitor:
    """Keeps what is known and gives the verdict.

    Every time is in seconds of one clock that never jumps; the shell converts block times to it.
    """

    def __init__(self, limits: HealthLimits) -> None:
        self._limits = limits
        self._op_node_up: bool | None = None
        self._answered_at = float("-inf")
        self._head_number = -1
        self._head_timestamp = 0.0
        self._ledger_number = -1
        self._level_at = 0.0
        self._peers: int | None = None
        self._safe_timestamp: float | None = None
        self._rollup_boost: int | None = None
        self._rollup_boost_known = False
        self._rollup_boost_at = float("-inf")
        self._partial_bucket = -1
        self._partials = 0
        self._sick_at = float("-inf")
        self._was_well = False
        self._last = Health(Sickness.STARTING, Readiness.UNKNOWN)

    def on_op_node(self, now: float, up: bool) -> None:
        """The lifeline to the op-node opened or closed."""
        self._op_node_up = up
        if up:
            self._answered_at = now  # it has its silence to answer the first question

    def on_op_node_answer(
        self,
        now: float,
        head_number: int,
        head_timestamp: float,
        peers: int | None,
        safe_timestamp: float | None = None,
    ) -> None:
        """The op-node told its unsafe head, its number of peers and the time of its safe head."""
        self._op_node_up = True
        self._answered_at = now
        self._head_timestamp = head_timestamp
        self._head_number = head_number
        self._peers = peers
        self._safe_timestamp = safe_timestamp
        self._see_level(now)

    def on_head(self, now: float, number: int, timestamp: float) -> None:
        """The op-node has taken a block that the ledger sealed."""
        self._head_number = max(self._head_number, number)
        self._head_timestamp = max(self._head_timestamp, timestamp)
        self._see_level(now)

    def on_ledger(self, now: float, head_number: int) -> None:
        """The ledger's newest sealed block, as known on this node."""
        if self._head_number >= self._ledger_number:
            self._level_at = now
        self._ledger_number = head_number
        self._see_level(now)

    def on_rollup_boost(self, now: float, status: int | None) -> None:
        """Rollup-boost's health status (200, 206, 503), or None when the link to it is down."""
        if status == ROLLUP_BOOST_PARTIAL and self._limits.partial_tolerance_limit > 0:
            bucket = int(now // self._limits.partial_tolerance_interval_s)
            self._partials = self._partials + 1 if bucket == self._partial_bucket else 1
            self._partial_bucket = bucket
        self._rollup_boost = status
        self._rollup_boost_known = self._rollup_boost_known or status is not None
        self._rollup_boost_at = now

    @property
    def rollup_boost_status(self) -> int | None:
        """What rollup-boost said last."""
        return self._rollup_boost

    @property
    def head_number(self) -> int:
        """The op-node's unsafe head, -1 before it is known."""
        return self._head_number

    def health(self, now: float) -> Health:
        """The verdict at `now`: sick at once, well again only after `recovery_s` without trouble."""
        sickness = self._sickness(now)
        if sickness in (Sickness.NONE, Sickness.CHAIN_STALLED):
            if self._was_well and now - self._sick_at < self._limits.recovery_s:
                return self._last
            self._was_well = True
        elif sickness is not Sickness.STARTING:
            self._sick_at = now
        self._last = Health(sickness, self._readiness(sickness))
        return self._last

    def _sickness(self, now: float) -> Sickness:
        limits = self._limits
        if self._op_node_up is None:
            return Sickness.STARTING
        if not self._op_node_up:
            return Sickness.CONNECTION_DOWN
        if self._head_number < 0:
            return Sickness.STARTING  # it is there, but its engine has not told it a head yet
        if now - self._answered_at > limits.silence_s_max:
            return Sickness.CONNECTION_DOWN
        behind = self._ledger_number - self._head_number
        if behind > LAG_BLOCKS_MAX or (behind > 0 and now - self._level_at > limits.lag_s_max):
            return Sickness.LAGGING
        if self._safe_head_is_old(now):
            return Sickness.SAFE_HEAD_OLD
        if self._peers is not None and self._peers < limits.min_peer_count:
            return Sickness.FEW_PEERS
        rollup_boost = self._rollup_boost_sickness(now)
        if rollup_boost is not Sickness.NONE:
            return rollup_boost
        return Sickness.CHAIN_STALLED if now - self._head_timestamp > limits.unsafe_interval_s else Sickness.NONE

    def _safe_head_is_old(self, now: float) -> bool:
        limit, safe = self._limits.safe_interval_s, self._safe_timestamp
        return limit is not None and safe is not None and now - safe > limit

    def _rollup_boost_sickness(self, now: float) -> Sickness:
        status = self._rollup_boost
        if status is None:
            return Sickness.ROLLUP_BOOST_DOWN if self._rollup_boost_known else Sickness.STARTING
        if now - self._rollup_boost_at > self._limits.silence_s_max:
            return Sickness.ROLLUP_BOOST_DOWN
        if status == ROLLUP_BOOST_HEALTHY:
            return Sickness.NONE
        if status != ROLLUP_BOOST_PARTIAL:
            return Sickness.ROLLUP_BOOST_UNHEALTHY
        tolerated = self._partials < self._limits.partial_tolerance_limit
        return Sickness.NONE if tolerated else Sickness.ROLLUP_BOOST_PARTIAL

    def _readiness(self, sickness: Sickness) -> Readiness:
        if self._rollup_boost == ROLLUP_BOOST_PARTIAL and sickness in (Sickness.NONE, Sickness.CHAIN_STALLED):
            return Readiness.WITHOUT_BUILDER  # tolerated is not the same as good
        return READINESS_OF[sickness]

    def _see_level(self, now: float) -> None:
        if self._head_number >= self._ledger_number:
            self._level_at = now
