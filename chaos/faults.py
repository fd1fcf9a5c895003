"""What a drill does to processes, and how it is undone: SIGKILL, SIGSTOP for a while, kept dead, a planned transfer.

Other kinds of faults – on the network, on disks, in the data – are in modules of their own; all offer `Fault`.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from actors.rpc_client import RpcRefused, RpcUnknown
from chaos.history import Event, Restored
from chaos.history import Fault as FaultEvent
from chaos.signalling import signal_process
from chaos.target import DrillError, Target

ACTORS = ("conductor", "op-node", "rollup-boost", "builder", "fallback-el")
WHOLE_GROUP = "group"
HANG_S = 5.0
RESTORED_S_MAX = 90.0
TRANSFER_S_MAX = 10.0
HOLD_POLL_S = 0.02
MOMENT_S_MAX = 20.0
MOMENT_POLL_S = 0.005

KILL, HANG, DOWN, TRANSFER = "kill", "hang", "down", "transfer"


class Victim(msgspec.Struct, frozen=True):
    """One process of a group, as it is before the fault."""

    group: str
    actor: str
    pid: int


class Fault:
    """One fault: `inject` does it, `lift` undoes it, `recovered` waits until all is well again."""

    kind: str
    victims: list[Victim]
    hold_s: float = 0.0
    """How long it lasts before it is lifted."""

    async def prepare(self) -> None:
        """What has to happen before the moment from which times count; raises DrillError."""

    async def inject(self) -> None:
        """Do it now; raises DrillError when it cannot be done."""

    async def lift(self) -> None:
        """Undo it."""
        self.abandon()

    async def recovered(self, run: int) -> list[Event]:
        """Wait until who was hurt is back and level; returns what the history says of it."""
        return [Restored(time.time(), run, 0)]

    def abandon(self) -> None:
        """Undo at once what would outlive the drill, also in the middle; harmless when nothing is to be undone."""


def events(fault: Fault, run: int, at: float) -> list[Event]:
    """What the history says of a fault: one line for each process that is hurt, one at all where it is none of ours."""
    if not fault.victims:
        return [FaultEvent(at, run, fault.kind, "", "", 0)]
    return [FaultEvent(at, run, fault.kind, one.actor, one.group, one.pid) for one in fault.victims]


def victims(groups: Iterable[dict[str, Any]], actors: Sequence[str]) -> list[Victim]:
    """These actors of these groups (of endpoints.json)."""
    return [Victim(group["name"], actor, int(group["actors"][actor]["pid"])) for group in groups for actor in actors]


class Signals(Fault):
    """SIGKILL, or SIGSTOP and SIGCONT `hold_s` later."""

    def __init__(self, target: Target, kind: str, hurt: list[Victim], hold_s: float = HANG_S) -> None:
        self.kind, self.victims = kind, hurt
        self.hold_s = hold_s if kind == HANG else 0.0
        self._target = target
        self._number = signal.SIGKILL if kind == KILL else signal.SIGSTOP
        self._stopped: set[int] = set()

    async def inject(self) -> None:
        """Signal every victim; raises DrillError when one is not there."""
        self.strike()

    def strike(self) -> None:
        """Signal every victim."""
        for victim in self.victims:
            send_signal(victim.pid, self._number)
            if self._number is signal.SIGSTOP:
                self._stopped.add(victim.pid)

    async def recovered(self, run: int) -> list[Event]:
        """Wait until every victim is back – killed ones as another process – and its group level with the chain."""
        old = {victim: victim.pid if self._number is signal.SIGKILL else 0 for victim in self.victims}
        return await all_back(self._target, old, run)

    def abandon(self) -> None:
        """SIGCONT whatever is stopped."""
        while self._stopped:
            with contextlib.suppress(ProcessLookupError):  # it was ended and started anew meanwhile
                signal_process(self._stopped.pop(), signal.SIGCONT)


class AtFlashblock(Signals):
    """SIGKILL of the leader's conductor when its newest flashblock is the first, the middle or the last of a block."""

    def __init__(self, target: Target, leader: dict[str, Any], share: float) -> None:
        super().__init__(target, KILL, victims([leader], ["conductor"]))
        self._url, self._share = leader["actors"]["conductor"]["rpc"], share

    async def prepare(self) -> None:
        """Wait for that moment; raises DrillError when it does not come."""
        endpoints = self._target.endpoints()
        last = round(1000 * endpoints["block_time_s"] / endpoints["flashblock_time_ms"])
        wanted = round(last * self._share)
        before, deadline = wanted, time.monotonic() + MOMENT_S_MAX
        while time.monotonic() < deadline:
            status = await self._target.status(self._url)
            index = status["index"] if status is not None else None
            if index == wanted != before:
                return
            before = index
            await asyncio.sleep(MOMENT_POLL_S)
        raise DrillError(f"{self.victims[0].group} came to no flashblock {wanted}")


class KeptDead(Fault):
    """SIGKILL, and whatever Ray starts in its place is stopped at birth, for `hold_s`: a machine gone for a while."""

    kind = DOWN

    def __init__(self, target: Target, hurt: list[Victim], hold_s: float) -> None:
        self.victims, self.hold_s = hurt, hold_s
        self._target = target
        self._held = {victim: victim.pid for victim in hurt}
        self._holding: asyncio.Task[None] | None = None

    async def inject(self) -> None:
        """Kill all, and hold their successors."""
        for victim in self.victims:
            send_signal(victim.pid, signal.SIGKILL)
        self._holding = asyncio.create_task(self._hold())

    async def lift(self) -> None:
        """Let new ones live."""
        if self._holding is not None:
            self._holding.cancel()
            await asyncio.gather(self._holding, return_exceptions=True)
        self._let_live()

    async def recovered(self, run: int) -> list[Event]:
        """Wait until all are back and level."""
        return await all_back(self._target, self._held, run)

    def abandon(self) -> None:
        """Let new ones live."""
        self._let_live()

    def _let_live(self) -> None:
        """End the held ones; Ray starts others, which nobody stops."""
        if self._holding is not None:
            self._holding.cancel()
            self._holding = None
            for victim, pid in self._held.items():
                if pid != victim.pid:
                    with contextlib.suppress(ProcessLookupError):
                        signal_process(pid, signal.SIGKILL)

    async def _hold(self) -> None:
        while True:
            groups = {group["name"]: group for group in self._target.groups()}
            for victim, held in self._held.items():
                pid = int(groups[victim.group]["actors"][victim.actor]["pid"] or 0)
                if pid not in (0, held):
                    with contextlib.suppress(ProcessLookupError):
                        signal_process(pid, signal.SIGSTOP)
                    self._held[victim] = pid
            await asyncio.sleep(HOLD_POLL_S)


class Transfer(Fault):
    """Hand the lead over as an operator does, to whom the conductor chooses or to a named group."""

    kind = TRANSFER

    def __init__(self, target: Target, leader: dict[str, Any]) -> None:
        self.victims = victims([leader], ["conductor"])
        self._url = leader["actors"]["conductor"]["rpc"]
        self._target = target

    async def inject(self) -> None:
        """conductor_transferLeader; raises DrillError when it is refused."""
        try:
            await self._target.client(self._url).call("conductor_transferLeader", timeout_s=TRANSFER_S_MAX)
        except (RpcRefused, RpcUnknown) as error:
            raise DrillError(f"{self.victims[0].group} does not hand over: {error}") from None


class Together(Fault):
    """Several faults at the same moment, as one."""

    def __init__(self, faults: Sequence[Fault], kind: str = "") -> None:
        self.kind = kind or " and ".join(fault.kind for fault in faults)
        self.victims = [victim for fault in faults for victim in fault.victims]
        self.hold_s = max(fault.hold_s for fault in faults)
        self._faults = faults

    async def prepare(self) -> None:
        """Prepare all."""
        await asyncio.gather(*(fault.prepare() for fault in self._faults))

    async def inject(self) -> None:
        """Inject all at once."""
        await asyncio.gather(*(fault.inject() for fault in self._faults))

    async def lift(self) -> None:
        """Lift all at once."""
        await asyncio.gather(*(fault.lift() for fault in self._faults))

    async def recovered(self, run: int) -> list[Event]:
        """Wait for all."""
        found = await asyncio.gather(*(fault.recovered(run) for fault in self._faults))
        return [event for one in found for event in one]

    def abandon(self) -> None:
        """Give all up."""
        for fault in self._faults:
            fault.abandon()


async def all_back(target: Target, old_pids: dict[Victim, int], run: int) -> list[Event]:
    """Wait until every victim runs, not as its old pid, and its group is level with the chain."""
    found: list[Event] = []
    for victim, old in old_pids.items():
        back = await target.wait_for_actor(victim.group, victim.actor, old, RESTORED_S_MAX)
        found.append(Restored(time.time(), run, back))
    return found


def send_signal(pid: int, number: signal.Signals) -> None:
    """Signal a process; raises DrillError when it is not there."""
    try:
        signal_process(pid, number)
    except ProcessLookupError:
        raise DrillError(f"process {pid} is not there: endpoints.json is stale; try again in a second") from None
