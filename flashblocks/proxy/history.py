"""What was before the first flashblock a proxy delivered, so that subscribers can resume over the proxy's restart."""

import msgspec

from flashblocks.proxy.ordering import Announce, Arrival, Deliver, Ordering


class History:
    """Collects an upstream's replay of the blocks before `first` until `first` follows; only an unbroken run counts."""

    def __init__(self, first: Arrival, blocks: int) -> None:
        self._first = first
        self._collected: list[Arrival] = []
        self._ordering = Ordering(start=self.start_before(first, blocks))
        self.complete = False
        self.fruitless = False
        """True when the replay has come to `first` and nothing before it leads there."""

    @staticmethod
    def start_before(first: Arrival, blocks: int) -> tuple[int, int]:
        """Where a replay of so many blocks before `first` begins."""
        return max(0, first.number - blocks), 0

    @property
    def start(self) -> tuple[int, int]:
        """What to ask an upstream for."""
        return self._ordering.wanted or (0, 0)

    @property
    def arrivals(self) -> list[Arrival]:
        """The flashblocks before `first`, in order; nothing as long as they do not lead to it.

        A replay carries the epoch of today, which may be later than that of `first`: epochs must not fall on the way.
        """
        return [self._at_most_first(arrival) for arrival in self._collected] if self.complete else []

    def take(self, arrival: Arrival) -> bool:
        """Take one flashblock of the replay; True when the history leads to `first` and nothing more is needed."""
        if self.complete:
            return True
        if arrival.key >= self._first.key:
            self.fruitless = True
            return False
        for decision in self._ordering.arrive(arrival, 0.0):
            if isinstance(decision, Announce):
                self._collected = []
            elif isinstance(decision, Deliver):
                self._collected.append(decision.arrival)
        self.complete = self._ordering.last is not None and self._ordering.follows(self._first)
        return self.complete

    def _at_most_first(self, arrival: Arrival) -> Arrival:
        latest = self._first.epoch
        if latest is None or arrival.epoch is None or arrival.epoch <= latest:
            return arrival
        return msgspec.structs.replace(arrival, epoch=latest)
