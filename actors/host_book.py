"""What is known of the processes of a cluster on many hosts, out of what its hosts report or fail to report.

Pure: reports in, events out.  A host that does not answer is a host of which nothing is known to run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from actors.plan import ComponentPlan


class HostReport(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent says of its host."""

    agent_pid: int
    delivered: bool
    order_version: int = 0  # of the order it holds; 0: of this run none
    actors: dict[str, tuple[int, bool]]
    """By note name: the pid, 0 when the process is gone, and whether the component serves."""


class Told(msgspec.Struct, frozen=True):
    """Something that happened, for the log and for whoever shows a start."""

    event: str
    details: dict[str, Any]


class HostBook:
    """The pids, restarts and services of the components of one plan."""

    def __init__(self, plan: Sequence[ComponentPlan]) -> None:
        self.pids: dict[str, int] = {}  # by actor name; 0: does not run, or its host does not answer
        self.restarts: dict[str, int] = {}
        self.serving: set[str] = set()
        self.answering: set[str] = set()  # addresses
        self._plan = plan
        self._last_pids: dict[str, int] = {}  # that were not 0

    @property
    def is_whole(self) -> bool:
        """Whether every component serves."""
        return len(self.serving) == len(self._plan)

    @property
    def is_complete(self) -> bool:
        """Whether every component has been heard of."""
        return len(self.pids) == len(self._plan)

    def report(self, address: str, report: HostReport) -> list[Told]:
        """The host at *address* answered."""
        told = []
        if address not in self.answering:
            told.append(Told("host-answers", {"address": address}))
        self.answering.add(address)
        for each in self._plan:
            if each.host == address:
                told += self._component(each, *report.actors.get(each.note_name, (0, False)))
        return told

    def _component(self, each: ComponentPlan, pid: int, serving: bool) -> list[Told]:
        told = []
        name, before = each.actor_name, self.pids.get(each.actor_name, 0)
        if pid != before and name in self.serving:
            self.serving.discard(name)
            told.append(Told("component-ended", {"component": name, "pid": before, "host": each.host}))
        if pid and pid != self._last_pids.get(name, 0):
            self.restarts[name] = self.restarts.get(name, -1) + 1
            self._last_pids[name] = pid
        self.pids[name] = pid
        if serving and name not in self.serving:
            self.serving.add(name)
            told.append(Told("component-up", {"component": name, "pid": pid, "host": each.host}))
        return told

    def silence(self, address: str, reason: str) -> list[Told]:
        """The host at *address* did not answer."""
        for each in self._plan:
            if each.host == address:
                self.pids[each.actor_name] = 0
                self.serving.discard(each.actor_name)
        if address not in self.answering:
            return []
        self.answering.discard(address)
        return [Told("host-silent", {"address": address, "error": reason})]

    def expect(self, stale: Sequence[ComponentPlan]) -> None:
        """These are being started anew: what was heard of them does not count any more."""
        self.serving -= {each.actor_name for each in stale}
