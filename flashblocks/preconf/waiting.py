"""Flashblocks that wait for their turn, by height and index, within bounds."""

from flashblocks.preconf.facts import Arrival

MAX_WAITING_BLOCKS = 16
MAX_WAITING_PER_BLOCK = 64


class Waiting:
    """At most one flashblock per (height, index): of two, the one with the newer epoch, then the newer arrival."""

    def __init__(self) -> None:
        self._blocks: dict[int, dict[int, Arrival]] = {}

    def put(self, arrival: Arrival) -> str | None:
        """Keep it; returns the reason (a drop label) when it is not kept."""
        slots = self._blocks.get(arrival.number, {})
        present = slots.get(arrival.index)
        if present is not None and present.digest == arrival.digest:
            return "duplicate"
        if present is not None and present.epoch > arrival.epoch:
            return "replaced"
        if present is None and len(slots) >= MAX_WAITING_PER_BLOCK:
            highest = max(slots)  # the one needed last; it is asked for again when its turn comes
            if arrival.index > highest:
                return "too_far_ahead"
            slots = {index: other for index, other in slots.items() if index != highest}
        if arrival.number not in self._blocks and len(self._blocks) >= MAX_WAITING_BLOCKS:
            # The lowest heights go first: by the time we have caught up, they will have been sealed.
            lowest = min(self._blocks)
            if arrival.number < lowest:
                return "too_far_ahead"
            del self._blocks[lowest]
        if arrival.index == 0:
            slots = {index: other for index, other in slots.items() if other.payload_id == arrival.payload_id}
        self._blocks[arrival.number] = {**slots, arrival.index: arrival}
        return None

    def get(self, number: int, index: int) -> Arrival | None:
        """The flashblock waiting there, if any."""
        return self._blocks.get(number, {}).get(index)

    def continues(self, arrival: Arrival) -> bool:
        """Whether a newer epoch goes on with this flashblock's payload behind it: then it was committed before."""
        return any(
            other.payload_id == arrival.payload_id and other.epoch > arrival.epoch and index > arrival.index
            for index, other in self._blocks.get(arrival.number, {}).items()
        )

    def take(self, arrival: Arrival) -> None:
        """Its turn has come: remove it."""
        slots = self._blocks.get(arrival.number, {})
        slots.pop(arrival.index, None)
        if not slots:
            self._blocks.pop(arrival.number, None)

    def parent_hash(self, number: int) -> bytes:
        """The parent hash that the flashblocks of this height name."""
        slots = self._blocks[number]
        return slots[min(slots)].parent_hash

    def numbers(self) -> list[int]:
        """The heights with something waiting, ascending."""
        return sorted(self._blocks)

    def forget(self, number: int) -> None:
        """Drop everything of one height."""
        self._blocks.pop(number, None)

    def forget_up_to(self, number: int) -> None:
        """Drop everything of this height and below."""
        for lower in [n for n in self._blocks if n <= number]:
            del self._blocks[lower]

    def check(self) -> None:
        """Invariants; an AssertionError is our bug."""
        assert len(self._blocks) <= MAX_WAITING_BLOCKS
        for number, slots in self._blocks.items():
            assert slots
            assert len(slots) <= MAX_WAITING_PER_BLOCK
            assert all((arrival.number, arrival.index) == (number, index) for index, arrival in slots.items())
