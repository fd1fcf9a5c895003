"""Faults, inflicted on the processes and the network of a simulated cluster, and undone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from chaos.history import Event, Fault, Restored
from chaos.simulation import schedule as faults
from chaos.simulation.edge import EDGE
from chaos.simulation.kernel import Killed
from chaos.simulation.network import Network, Slot, Weather
from chaos.simulation.schedule import FaultPlan

BOUNCED_VOTERS_SHARE: Final = 0.5
BOUNCE_S_MAX: Final = 0.004

Undo = Callable[[], None]


class Injuries:
    """Everything that can be done to a cluster; `skews` are the wall clocks of the groups."""

    def __init__(
        self, network: Network, groups: list[str], skews: dict[str, list[float]], history: list[Event]
    ) -> None:
        self._network, self._groups, self._skews, self._history = network, groups, skews, history
        self._wall_clock_s = skews[groups[0]][0]
        self._bouncing = 0
        self._kinds: dict[str, Callable[[FaultPlan, str], Undo]] = {
            faults.CRASH: self._crash,
            faults.HANG: self._hang,
            faults.SLOW: self._slow,
            faults.PARTITION: self._partition,
            faults.DEAF: self._deaf,
            faults.MUTE: self._mute,
            faults.BRIDGE: self._bridge,
            faults.WEATHER: self._weather,
            faults.UNLINK: self._unlink,
            faults.TRANSFER: self._transfer,
            faults.LOSE_JOURNAL: self._lose_journal,
            faults.MAJORITY: self._majority,
            faults.EVERYBODY: self._everybody,
            faults.CLOCK: self._clock,
            faults.NO_BUILDERS: self._no_builders,
            faults.LIE: self._lie,
            faults.STAGE: self._stage,
            faults.BOUNCE_VOTERS: self._bounce_voters,
        }

    def _leader(self) -> str:
        leading = [
            (conductor.raft.ledger.epoch, group)
            for group in self._groups
            if (conductor := self._network.slots[f"{group}/conductor"].component) is not None
            and conductor.publisher.epoch is not None
        ]
        return max(leading)[1] if leading else self._groups[0]

    def _slots_of(self, plan: FaultPlan, group: str) -> list[str]:
        if plan.group in faults.EDGE_COMPONENTS:
            return [plan.group]
        if plan.component == faults.GROUP:
            return [f"{group}/{component}" for component in faults.COMPONENTS]
        return [f"{group}/{plan.component}"]

    def inflict(self, number: int, plan: FaultPlan) -> None:
        """Do it now, and undo it when its time is over; the history says both."""
        group = self._leader() if plan.group == faults.LEADER else plan.group
        self._history.append(Fault(self._network.clock.now, number, plan.kind, plan.component or plan.kind, group, 0))
        undo = self._kinds[plan.kind](plan, group)

        def restore() -> None:
            undo()
            self._history.append(Restored(self._network.clock.now, number, 0))

        self._network.clock.after(plan.lasts_s, None, restore)

    def _crash(self, plan: FaultPlan, group: str) -> Undo:
        return self._kill([self._network.slots[name] for name in self._slots_of(plan, group)])

    def _kill(self, slots: Sequence[Slot]) -> Undo:
        for slot in slots:
            slot.kill()

        def undo() -> None:
            for slot in slots:
                slot.start()

        return undo

    def _hang(self, plan: FaultPlan, group: str) -> Undo:
        slots = [self._network.slots[name] for name in self._slots_of(plan, group)]
        for slot in slots:
            slot.pause()

        def undo() -> None:
            for slot in slots:
                slot.wake()

        return undo

    def _slow(self, plan: FaultPlan, group: str) -> Undo:
        processes = [self._network.slots[name].process for name in self._slots_of(plan, group)]
        living = [process for process in processes if process is not None]
        for process in living:
            process.slow_s = 0.001 + 0.02 * plan.draw

        def undo() -> None:
            for process in living:
                process.slow_s = 0.0

        return undo

    def _unlink(self, plan: FaultPlan, group: str) -> Undo:
        processes = {self._network.slots[name].process for name in self._slots_of(plan, group)}
        for connection in list(self._network.connections):
            if connection.client in processes or connection.server in processes:
                connection.break_now()
        return lambda: None

    def _cut(self, ways: list[tuple[str, str]]) -> Undo:
        for way in ways:
            self._network.cut_path(*way)

        def undo() -> None:
            for way in ways:
                self._network.mend_path(*way)

        return undo

    def _partition(self, plan: FaultPlan, group: str) -> Undo:
        others = [other for other in self._groups if other != group]
        first = int(plan.draw * len(others))
        size = 1 + int(plan.draw * 97) % max(1, (len(self._groups) - 1) // 2)
        inside = [group, *(others[first:] + others[:first])[: size - 1]]
        outside = [other for other in self._groups if other not in inside]
        if int(plan.draw * 1009) % 3 == 0:
            outside.append(EDGE)
        return self._cut([way for one in inside for two in outside for way in ((one, two), (two, one))])

    def _deaf(self, plan: FaultPlan, group: str) -> Undo:
        return self._cut([(other, group) for other in self._groups if other != group])

    def _mute(self, plan: FaultPlan, group: str) -> Undo:
        return self._cut([(group, other) for other in self._groups if other != group])

    def _halves(self, plan: FaultPlan) -> list[tuple[str, str]]:
        bridge = int(plan.draw * len(self._groups))
        rest = self._groups[bridge + 1 :] + self._groups[:bridge]
        left, right = rest[: len(rest) // 2], rest[len(rest) // 2 :]
        return [way for one in left for two in right for way in ((one, two), (two, one))]

    def _bridge(self, plan: FaultPlan, group: str) -> Undo:
        return self._cut(self._halves(plan))

    def _bounce_voters(self, plan: FaultPlan, group: str) -> Undo:
        """The member between two halves is asked by both: whether it remembers its vote matters now."""
        undo = self._cut(self._halves(plan))
        self._network.slots[f"{self._leader()}/conductor"].kill()
        self._bouncing += 1

        def end() -> None:
            self._bouncing -= 1
            undo()
            for each in self._groups:
                self._network.slots[f"{each}/conductor"].start()

        return end

    def on_voted(self, member: str) -> None:
        """A member has given its vote: now and then it dies in that moment."""
        if self._bouncing and self._network.clock.draw() < BOUNCED_VOTERS_SHARE:
            slot = self._network.slots[f"{member}/conductor"]
            self._network.clock.after(BOUNCE_S_MAX * self._network.clock.draw(), None, self._bounce, slot)

    def _bounce(self, slot: Slot) -> None:
        slot.kill()
        self._network.clock.after(BOUNCE_S_MAX, None, slot.start)

    def _no_builders(self, plan: FaultPlan, group: str) -> Undo:
        return self._kill([self._network.slots[f"{each}/builder"] for each in self._groups])

    def _lie(self, plan: FaultPlan, group: str) -> Undo:
        builder = self._network.slots[f"{group}/builder"].component
        if builder is not None:
            builder.lies = True

        def undo() -> None:
            if builder is not None:
                builder.lies = False

        return undo

    def _stage(self, plan: FaultPlan, group: str) -> Undo:
        """The next time the group comes to this stage it dies there."""
        stage = faults.STAGES[int(plan.draw * len(faults.STAGES))]
        component = "op-node" if stage in (faults.BEFORE_SEAL, faults.BEFORE_INSERT) else "conductor"
        slot = self._network.slots[f"{group}/{component}"]
        living = slot.component

        def reached(now_at: str) -> None:
            if now_at == stage and slot.component is living:
                slot.kill()
                raise Killed

        if living is not None:
            living.on_stage = reached

        def undo() -> None:
            if living is not None:
                living.on_stage = lambda _: None
            slot.start()

        return undo

    def _weather(self, plan: FaultPlan, group: str) -> Undo:
        hosts = [*self._groups, EDGE]
        weather = Weather(0.3 * plan.draw, 0.2 * plan.draw, 0.1 * plan.draw)
        self._network.weather = {(one, two): weather for one in hosts for two in hosts if one != two}
        return self._network.weather.clear

    def _transfer(self, plan: FaultPlan, group: str) -> Undo:
        slot = self._network.slots[f"{group}/conductor"]
        if slot.process is not None and not slot.process.paused:
            slot.process.spawn(slot.component.operator_transfers())
        return lambda: None

    def _lose_journal(self, plan: FaultPlan, group: str) -> Undo:
        slot = self._network.slots[f"{group}/conductor"]
        undo = self._kill([slot])
        amnesiacs = sum(self._network.slots[f"{each}/conductor"].disk.rejoining for each in self._groups)
        if amnesiacs < len(self._groups) - len(self._groups) // 2 - 1:
            slot.disk.lose()
        return undo

    def _majority(self, plan: FaultPlan, group: str) -> Undo:
        start = self._groups.index(group)
        chosen = (self._groups[start:] + self._groups[:start])[: len(self._groups) // 2 + 1]
        return self._kill([self._network.slots[f"{each}/{one}"] for each in chosen for one in faults.COMPONENTS])

    def _everybody(self, plan: FaultPlan, group: str) -> Undo:
        return self._kill([self._network.slots[f"{each}/{one}"] for each in self._groups for one in faults.COMPONENTS])

    def _clock(self, plan: FaultPlan, group: str) -> Undo:
        skew, jump = self._skews[group], 4.0 * plan.draw - 2.0
        skew[0] += jump

        def undo() -> None:
            skew[0] -= jump

        return undo

    def heal(self) -> None:
        """Nothing is cut, hung, slow or dead any more, and every clock is right."""
        self._network.mend_all()
        for skew in self._skews.values():
            skew[0] = self._wall_clock_s
        for slot in self._network.slots.values():
            slot.wake()
            if slot.process is not None:
                slot.process.slow_s = 0.0
            slot.start()
