"""Who should lead instead: the healthy, caught-up voter with a builder first."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from flashblocks.conductor.health import Readiness

REPORT_AGE_S_MAX: Final = 3.0
"""A report older than this says nothing any more."""
TARGET_COOLDOWN_S: Final = 5.0
"""A voter that did not take, or gave back, what we handed it is not asked again for this long."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What another conductor said about its group at `received_at`."""

    node: str
    readiness: Readiness
    head_number: int
    paused: bool
    received_at: float
    alone: bool = False
    """It went on without a majority, and nobody has taken in yet what it made."""


class Voter(msgspec.Struct, frozen=True, kw_only=True):
    """What Raft knows of another member; `lag_entries` None where unknown."""

    node: str
    connected: bool
    lag_entries: int | None = None


class Candidate(msgspec.Struct, frozen=True):
    """A voter with its readiness as far as known now."""

    node: str
    readiness: Readiness
    head_number: int
    lag_entries: int


def candidates(now: float, voters: Iterable[Voter], reports: Iterable[Report]) -> list[Candidate]:
    """Judge every connected voter, best first; a voter without a fresh report is UNKNOWN, a paused one UNABLE."""
    by_node = {report.node: report for report in reports if now - report.received_at <= REPORT_AGE_S_MAX}
    judged = [_judge(voter, by_node.get(voter.node)) for voter in voters if voter.connected]
    return sorted(judged, key=lambda one: (-one.readiness.value, -one.head_number, one.lag_entries, one.node))


def _judge(voter: Voter, report: Report | None) -> Candidate:
    lag = 0 if voter.lag_entries is None else voter.lag_entries
    if report is None:
        return Candidate(voter.node, Readiness.UNKNOWN, -1, lag)
    readiness = Readiness.UNABLE if report.paused else report.readiness
    return Candidate(voter.node, readiness, report.head_number, lag)


class Successors:
    """Chooses whom to hand leadership to, and remembers whom that did not help with."""

    def __init__(self) -> None:
        self._tried_at: dict[str, float] = {}

    def on_tried(self, now: float, node: str) -> None:
        """Leadership was offered to `node`."""
        self._tried_at[node] = now

    def choose(self, now: float, own: Readiness, judged: Iterable[Candidate]) -> Candidate | None:
        """The best candidate that is strictly fitter than we are; None where nobody is.

        Strictly: two groups of equal fitness would otherwise hand leadership to and fro.
        """
        for candidate in judged:
            if candidate.readiness.value <= own.value:
                return None
            if now - self._tried_at.get(candidate.node, float("-inf")) >= TARGET_COOLDOWN_S:
                return candidate
        return None
