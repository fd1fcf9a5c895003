"""What a drill does to the group that leads, and how it is undone: SIGKILL, SIGSTOP for a while, a planned transfer."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import Any

from actors.rpc_client import RpcRefused, RpcUnknown
from chaos.history import Event, Fault, Restored
from chaos.target import DrillError, Target

ACTORS = ("conductor", "op-node", "rollup-boost", "builder", "fallback-el")
WHOLE_GROUP = "group"
HANG_S = 5.0
RESTORED_S_MAX = 60.0
TRANSFER_S_MAX = 10.0

KILL, HANG, TRANSFER = "kill", "hang", "transfer"
FAULTS = {
    KILL: "SIGKILL an actor of the leading group; Ray starts it again and it must catch up",
    HANG: f"SIGSTOP an actor of the leading group, SIGCONT {HANG_S:.0f} s later; the woken one must publish nothing",
    TRANSFER: "hand the lead over as an operator does (conductor_transferLeader)",
}


class Inflicted:
    """One fault on one group: `inject` does it, `restore` undoes it and waits until the group is level again."""

    def __init__(self, target: Target, kind: str, actor: str, group: dict[str, Any]) -> None:
        self.kind, self.actor, self.group = kind, actor, group
        actors = ACTORS if actor == WHOLE_GROUP else (actor,)
        self.pids = {} if kind == TRANSFER else {one: int(group["actors"][one]["pid"]) for one in actors}
        self._target = target
        self._stopped: set[int] = set()
        self._injected_at = 0.0

    def events(self, run: int, at: float) -> list[Event]:
        """What the history says of it."""
        pids = self.pids or {self.actor: int(self.group["actors"][self.actor]["pid"])}
        return [Fault(at, run, self.kind, one, self.group["name"], pid) for one, pid in pids.items()]

    async def inject(self) -> None:
        """Do it now; raises DrillError when the process is not there or the conductor refuses."""
        self._injected_at = time.monotonic()
        if self.kind == TRANSFER:
            client = self._target.client(self.group["actors"]["conductor"]["rpc"])
            try:
                await client.call("conductor_transferLeader", timeout_s=TRANSFER_S_MAX)
            except (RpcRefused, RpcUnknown) as error:
                raise DrillError(f"{self.group['name']} does not hand over: {error}") from None
            return
        for pid in self.pids.values():
            _signal(pid, signal.SIGKILL if self.kind == KILL else signal.SIGSTOP)
            if self.kind == HANG:
                self._stopped.add(pid)

    async def restore(self, run: int) -> list[Event]:
        """Undo it and wait for the group; returns what the history says of it."""
        if self.kind == HANG:
            await asyncio.sleep(max(0.0, self._injected_at + HANG_S - time.monotonic()))
            self.wake()
        events: list[Event] = []
        for actor, pid in self.pids.items():
            old_pid = pid if self.kind == KILL else 0
            back = await self._target.wait_for_actor(self.group["name"], actor, old_pid, RESTORED_S_MAX)
            events.append(Restored(time.time(), run, back))
        return events

    def wake(self) -> None:
        """SIGCONT whatever is stopped; also when the drill is given up in the middle."""
        while self._stopped:
            pid = self._stopped.pop()
            try:
                os.kill(pid, signal.SIGCONT)
            except ProcessLookupError:
                continue  # it was ended and started anew meanwhile


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        raise DrillError(f"process {pid} is not there: endpoints.json is stale; try again in a second") from None
