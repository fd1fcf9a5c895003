"""What happens to whole hosts and to the network between them, as faults that `chaos.runner` carries out and judges."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from typing import Any

from chaos.drill import Scene
from chaos.faults import ACTORS, Fault, Victim, all_back, victims
from chaos.history import Event, Restored
from chaos.target import DrillError
from tests.hosts.deployment import HEAD, Deployment
from tests.hosts.machine import Machine

BACK_S_MAX = 240.0
JOIN_S_MAX = 180.0
HOLD_S = 5.0


class HostKilled(Fault):
    """A host loses its power for `hold_s`, boots and joins Ray again; its group has to come back by itself."""

    kind = "host killed"

    def __init__(self, deployment: Deployment, scene: Scene, group: dict[str, Any], hold_s: float = HOLD_S) -> None:
        self.victims, self.hold_s = victims([group], ACTORS), hold_s
        self._deployment, self._target, self._group = deployment, scene.target, group["name"]
        self._machine = deployment.host_of(self._group)

    async def inject(self) -> None:
        """Pull the plug."""
        self._machine.kill()

    async def lift(self) -> None:
        """Boot it and start Ray there, as its service would."""
        await boot_and_join(self._deployment, self._machine)

    async def recovered(self, run: int) -> list[Event]:
        """Wait until every actor of the group runs there again and its chain is level."""
        found: list[Event] = []
        for victim in self.victims:  # the pids of another boot may be the same numbers
            pid = await self._target.wait_for_actor(self._group, victim.actor, 0, BACK_S_MAX)
            found.append(Restored(time.time(), run, pid))
        return found

    def abandon(self) -> None:
        """Leave it as it is: the hosts end with the test."""


class KilledThere(Fault):
    """SIGKILL of actors on the host of their group; Ray starts them again."""

    kind = "killed"

    def __init__(self, deployment: Deployment, scene: Scene, group: dict[str, Any], actors: Collection[str]) -> None:
        self.victims = victims([group], list(actors))
        self._target, self._machine = scene.target, deployment.host_of(group["name"])

    async def inject(self) -> None:
        """Kill: a pid of endpoints.json is a number of the host's own."""
        self._machine.run("kill", "-KILL", *(str(victim.pid) for victim in self.victims))

    async def recovered(self, run: int) -> list[Event]:
        """Wait until all are back and level."""
        return await all_back(self._target, {victim: victim.pid for victim in self.victims}, run)


class Partitioned(Fault):
    """Hosts are cut off from the others, in both directions or in one, for `hold_s`."""

    def __init__(
        self,
        deployment: Deployment,
        scene: Scene,
        group: dict[str, Any],
        *,
        deaf: bool = True,
        mute: bool = True,
        hold_s: float = HOLD_S,
    ) -> None:
        self.kind = "cut off" if deaf and mute else "deaf" if deaf else "mute"
        self.victims, self.hold_s = victims([group], ["conductor"]), hold_s
        self._network, self._target, self._group = deployment.machines.network, scene.target, group["name"]
        self._host = deployment.host_of(self._group).name
        self._others = [name for name in deployment.machines.network.hosts if name != self._host]
        self._deaf, self._mute = deaf, mute

    async def inject(self) -> None:
        """Cut."""
        if self._mute:
            self._network.cut([self._host], self._others, both=False)
        if self._deaf:
            self._network.cut(self._others, [self._host], both=False)

    async def recovered(self, run: int) -> list[Event]:
        """Wait until the group is level again."""
        pid = await self._target.wait_for_actor(self._group, "conductor", 0, BACK_S_MAX)
        return [Restored(time.time(), run, pid)]

    def abandon(self) -> None:
        """Heal."""
        self._network.heal()


class Slowed(Fault):
    """The network between two halves is slow and loses frames for `hold_s`."""

    kind = "slow and lossy"

    def __init__(
        self, deployment: Deployment, near: Collection[str], *, delay_s: float, loss: float, hold_s: float
    ) -> None:
        self.victims = [Victim("", "network", 0)]
        self.hold_s = hold_s
        self._network = deployment.machines.network
        self._near, self._delay_s, self._loss = near, delay_s, loss

    async def inject(self) -> None:
        """Slow it."""
        self._network.slow(self._near, delay_s=self._delay_s, loss=self._loss)

    def abandon(self) -> None:
        """Heal."""
        self._network.heal()


class HeadKilled(Fault):
    """Ray's head host loses its power for `hold_s` and comes back."""

    kind = "Ray's head killed"

    def __init__(self, deployment: Deployment, hold_s: float) -> None:
        self.victims = [Victim("", "ray", 0)]
        self.hold_s = hold_s
        self._deployment = deployment

    async def inject(self) -> None:
        """Pull the plug."""
        self._deployment.machines[HEAD].kill()

    async def lift(self) -> None:
        """Boot it and start Ray's head there."""
        await boot_and_join(self._deployment, self._deployment.machines[HEAD])

    def abandon(self) -> None:
        """Leave it as it is: the hosts end with the test."""


class HeadCutOff(Fault):
    """Ray's head host is cut off from everybody for `hold_s`, and is watched for as long again when it is back."""

    kind = "Ray's head cut off"

    def __init__(self, deployment: Deployment, hold_s: float) -> None:
        self.victims = [Victim("", "ray", 0)]
        self.hold_s = hold_s
        self._network = deployment.machines.network

    async def inject(self) -> None:
        """Cut."""
        self._network.cut([HEAD])

    async def recovered(self, run: int) -> list[Event]:
        """Watch what the head does now that it has missed everybody: it may have taken them for dead."""
        await asyncio.sleep(self.hold_s)
        return [Restored(time.time(), run, 0)]

    def abandon(self) -> None:
        """Heal."""
        self._network.heal()


async def boot_and_join(deployment: Deployment, machine: Machine) -> None:
    """Boot a host and run the command that starts Ray there; raises DrillError when that fails."""
    machine.boot()  # in this thread: a host ends with the thread that booted it
    process = await asyncio.create_subprocess_exec(
        *deployment.start_words(machine), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(JOIN_S_MAX):
            said, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        raise DrillError(f"{machine.name} did not join Ray within {JOIN_S_MAX:.0f} s") from None
    if process.returncode:
        raise DrillError(f"{machine.name} did not join Ray: {said.decode(errors='replace')}")
