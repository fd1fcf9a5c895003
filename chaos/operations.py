"""What operators do by hand, at a bad moment: conductors that are paused, a builder that is switched off."""

from __future__ import annotations

import asyncio
import contextlib
import time
import urllib.request
from collections.abc import Sequence
from typing import Any

import orjson

from actors.rpc_client import RpcRefused, RpcUnknown
from chaos.faults import HANG_S, TRANSFER_S_MAX, Fault, KeptDead, all_back, victims
from chaos.history import Event
from chaos.target import DrillError, Target

HALTED_S_MAX = 10.0
HALTED_POLL_S = 0.02
UNDO_S_MAX = 2.0


async def told(target: Target, group: dict[str, Any], actor: str, url: str, method: str, *params: Any) -> Any:
    """An operator's call; raises DrillError when it is refused or not answered."""
    try:
        return await target.client(url).call(method, *params, timeout_s=TRANSFER_S_MAX)
    except (RpcRefused, RpcUnknown) as error:
        raise DrillError(f"{group['name']}/{actor} refuses {method}: {error}") from None


async def hand_over(target: Target, leader: dict[str, Any], chosen: dict[str, Any]) -> None:
    """conductor_transferLeaderToServer from the one to the other; raises DrillError."""
    url = leader["actors"]["conductor"]["rpc"]
    membership = await told(target, leader, "conductor", url, "conductor_clusterMembership")
    address = next(one["addr"] for one in membership["servers"] if one["id"] == chosen["name"])
    await told(target, leader, "conductor", url, "conductor_transferLeaderToServer", chosen["name"], address)


class Undone(Fault):
    """Calls that are undone by other calls, also when the drill is given up in the middle."""

    def __init__(self, target: Target, hurt: Sequence[dict[str, Any]], actor: str, hold_s: float) -> None:
        self.victims, self.hold_s = victims(hurt, [actor]), hold_s
        self._target, self._hurt, self._actor = target, hurt, actor
        self._undo: list[tuple[str, bytes]] = []

    def will_undo(self, url: str, method: str, *params: Any) -> None:
        """Remember the call that undoes one that is about to be made."""
        self._undo.append((url, call_body(method, *params)))

    async def recovered(self, run: int) -> list[Event]:
        """Wait until the groups are level."""
        return await all_back(self._target, dict.fromkeys(self.victims, 0), run)

    def abandon(self) -> None:
        """Undo what was done; a process that was started anew meanwhile has forgotten it anyway."""
        while self._undo:
            post(*self._undo.pop())


class WentOnAlone(KeptDead):
    """The conductors of a majority are dead, and the operator has one of the others go on without it."""

    kind = "override"

    def __init__(
        self, target: Target, hurt: Sequence[dict[str, Any]], left: Sequence[dict[str, Any]], hold_s: float
    ) -> None:
        super().__init__(target, victims(hurt, ["conductor"]), hold_s)
        self._left = {group["actors"]["conductor"]["rpc"]: group for group in left}
        self._alone = ""

    async def prepare(self) -> None:
        """Kill them, and choose who has the most; raises DrillError when somebody leads all the same."""
        await super().inject()
        deadline = time.monotonic() + HALTED_S_MAX
        while time.monotonic() < deadline:
            said = [(await self._target.status(url), url) for url in self._left]
            if all(status is not None and status["leader"] is None for status, _ in said):
                _, self._alone = max(said, key=lambda one: _position(one[0] or {}))
                return
            await asyncio.sleep(HALTED_POLL_S)
        raise DrillError("a majority of conductors is dead and somebody leads")

    async def inject(self) -> None:
        """conductor_overrideLeader."""
        group = self._left[self._alone]
        await told(self._target, group, "conductor", self._alone, "conductor_overrideLeader", True)

    async def recovered(self, run: int) -> list[Event]:
        """Wait until all are back; the override is over by itself. Raises DrillError when it is not."""
        found = await super().recovered(run)
        status = await self._target.status(self._alone)
        if status is None or status["role"] == "overridden":
            raise DrillError(f"{self._left[self._alone]['name']} still goes on alone")
        return found

    def abandon(self) -> None:
        """Let the others live, and end the override."""
        super().abandon()
        if self._alone:
            post(self._alone, call_body("conductor_overrideLeader", False))


def _position(status: dict[str, Any]) -> tuple[int, int, int]:
    return status["epoch"], status["number"], -1 if status["index"] is None else status["index"]


def call_body(method: str, *params: Any) -> bytes:
    """A JSON-RPC request."""
    return orjson.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})


def post(url: str, body: bytes) -> None:
    """Send a request whose answer does not matter, also where no loop runs any more."""
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with contextlib.suppress(OSError):
        urllib.request.urlopen(request, timeout=UNDO_S_MAX).close()


class Paused(Undone):
    """conductor_pause at some groups before the fault's moment, and conductor_resume `hold_s` after it."""

    kind = "paused"

    def __init__(self, target: Target, hurt: Sequence[dict[str, Any]], hold_s: float = HANG_S) -> None:
        super().__init__(target, hurt, "conductor", hold_s)

    async def prepare(self) -> None:
        """Pause them; each is once it answers."""
        for group in self._hurt:
            url = group["actors"]["conductor"]["rpc"]
            self.will_undo(url, "conductor_resume")
            await told(self._target, group, "conductor", url, "conductor_pause")


class HandedToPaused(Paused):
    """Leadership is handed to a group whose conductor is paused, which may act on nothing: it has to hand on."""

    kind = "handed to who is paused"

    def __init__(self, target: Target, leader: dict[str, Any], chosen: dict[str, Any]) -> None:
        super().__init__(target, [chosen])
        self._leader, self._chosen = leader, chosen

    async def inject(self) -> None:
        """Hand it over."""
        await hand_over(self._target, self._leader, self._chosen)


class SwitchedOff(Undone):
    """debug_setExecutionMode takes the leader's builder out, as is done with one whose blocks are bad but valid."""

    kind = "builder switched off"

    def __init__(self, target: Target, leader: dict[str, Any], hold_s: float = HANG_S) -> None:
        super().__init__(target, [leader], "rollup-boost", hold_s)

    async def inject(self) -> None:
        """Switch it off."""
        (group,) = self._hurt
        url = group["actors"][self._actor]["debug"]
        self.will_undo(url, "debug_setExecutionMode", {"execution_mode": "enabled"})
        await told(self._target, group, self._actor, url, "debug_setExecutionMode", {"execution_mode": "disabled"})
