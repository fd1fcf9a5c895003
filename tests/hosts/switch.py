"""A learning Ethernet switch whose links can be cut, slowed and made lossy, per direction: frames in, frames out.

Pure: `now` (seconds, any clock that never goes back) and the randomness come from the caller, which owns the sockets,
see `switch_process`. A `Condition` holds for one direction between two ports; where none is set, frames pass at once.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping
from random import Random

import msgspec

MAC_BYTES = 6
GROUP_BIT = 1  # the lowest bit of a MAC address's first byte: broadcast and multicast
IN_FLIGHT_FRAMES_MAX = 20_000  # per switch: 50 ms of 400,000 frames/s, far above what the tests send


class Condition(msgspec.Struct, frozen=True):
    """What happens to frames of one direction: nothing passes, or each is held back, or lost with a probability."""

    cut: bool = False
    delay_s: float = 0.0
    loss: float = 0.0

    def __post_init__(self) -> None:
        if self.delay_s < 0 or not 0 <= self.loss <= 1:
            raise ValueError(f"a delay is not negative and a loss lies between 0 and 1: {self}")


CLEAR = Condition()
Direction = tuple[str, str]  # from port, to port
Delivery = tuple[str, bytes]  # to port, frame


class Switch:
    """Ports by name, the addresses learnt behind them, and the frames on their way."""

    def __init__(self, random: Random, in_flight_max: int = IN_FLIGHT_FRAMES_MAX) -> None:
        self.counts: Counter[str] = Counter(passed=0, cut=0, lost=0, overflowed=0)
        self._random = random
        self._in_flight_max = in_flight_max
        self._ports: list[str] = []
        self._port_by_address: dict[bytes, str] = {}
        self._conditions: dict[Direction, Condition] = {}
        self._in_flight: list[tuple[float, int, str, str, bytes]] = []
        self._number = 0  # keeps frames that are due together in their order

    def plug(self, port: str) -> None:
        """Add a port; one that is there keeps its place and forgets what was learnt behind it."""
        self.unplug(port)
        self._ports.append(port)

    def unplug(self, port: str) -> None:
        """Remove a port with what was learnt behind it; frames on their way to it are dropped when due."""
        if port in self._ports:
            self._ports.remove(port)
        self._port_by_address = {address: at for address, at in self._port_by_address.items() if at != port}

    def set_conditions(self, conditions: Mapping[Direction, Condition]) -> None:
        """Replace every condition; directions that are not named are clear."""
        self._conditions = {direction: each for direction, each in conditions.items() if each != CLEAR}

    def arrived(self, port: str, frame: bytes, now: float) -> list[Delivery]:
        """Take a frame from a port; returns what is delivered at once. Anything later comes from `due`."""
        if port not in self._ports:
            return []
        self._port_by_address[frame[MAC_BYTES : 2 * MAC_BYTES]] = port
        return [(to, frame) for to in self._destinations(port, frame) if self._passes_at_once(port, to, frame, now)]

    def due(self, now: float) -> list[Delivery]:
        """Return the held frames whose time has come, in the order of their times. A cut made meanwhile counts."""
        deliveries = []
        while self._in_flight and self._in_flight[0][0] <= now:
            _, _, port, to, frame = heapq.heappop(self._in_flight)
            if to not in self._ports or self._conditions.get((port, to), CLEAR).cut:
                self.counts["cut"] += 1
                continue
            self.counts["passed"] += 1
            deliveries.append((to, frame))
        return deliveries

    def next_due(self) -> float | None:
        """When `due` must be called next, None while nothing is held."""
        return self._in_flight[0][0] if self._in_flight else None

    def _destinations(self, port: str, frame: bytes) -> Iterable[str]:
        known = None if frame[0] & GROUP_BIT else self._port_by_address.get(frame[:MAC_BYTES])
        if known is not None:
            return () if known == port else (known,)
        return [other for other in self._ports if other != port]

    def _passes_at_once(self, port: str, to: str, frame: bytes, now: float) -> bool:
        condition = self._conditions.get((port, to))
        if condition is None:
            self.counts["passed"] += 1
            return True
        if condition.cut:
            self.counts["cut"] += 1
            return False
        if condition.loss and self._random.random() < condition.loss:
            self.counts["lost"] += 1
            return False
        if not condition.delay_s:
            self.counts["passed"] += 1
            return True
        if len(self._in_flight) >= self._in_flight_max:
            self.counts["overflowed"] += 1
            return False
        self._number += 1
        heapq.heappush(self._in_flight, (now + condition.delay_s, self._number, port, to, frame))
        return False
