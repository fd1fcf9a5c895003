"""What a late joiner is owed: the open block from index 0, or everything since the place it names.

Kept are the open block and the blocks before it, up to a number of blocks and a number of bytes; what passes through
is opaque here.
"""

from collections import deque
from typing import Generic, NamedTuple, TypeVar

Item = TypeVar("Item")


class Owed(NamedTuple, Generic[Item]):
    """What a new subscriber gets first; `missing` is the place it asked for when that is no longer kept."""

    items: list[Item]
    missing: tuple[int, int] | None = None


class Backlog(Generic[Item]):
    """The last flashblocks of the stream, in order. The open block is always kept whole."""

    def __init__(self, *, blocks_max: int, bytes_max: int) -> None:
        assert blocks_max >= 1
        self._blocks_max = blocks_max
        self._bytes_max = bytes_max
        self._kept: deque[tuple[tuple[int, int], int, Item]] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def oldest(self) -> tuple[int, int] | None:
        """The place of the oldest kept flashblock."""
        return self._kept[0][0] if self._kept else None

    @property
    def size_bytes(self) -> int:
        """How many bytes the kept flashblocks have."""
        return self._bytes

    def add(self, number: int, index: int, size_bytes: int, item: Item) -> None:
        """Append the newest flashblock; the oldest blocks go when a bound is passed."""
        assert not self._kept or (number, index) > self._kept[-1][0]
        self._kept.append(((number, index), size_bytes, item))
        self._bytes += size_bytes
        while self._kept[0][0][0] < number and (
            self._kept[0][0][0] <= number - self._blocks_max or self._bytes > self._bytes_max
        ):
            self._bytes -= self._kept.popleft()[1]

    def clear(self) -> None:
        """Forget everything: the chain began anew."""
        self._kept.clear()
        self._bytes = 0

    def add_before(self, older: list[tuple[tuple[int, int], int, Item]]) -> None:
        """Put what was before the oldest kept one in front – (place, bytes, item) each – as far as the bounds allow."""
        if not self._kept:
            return
        newest = self._kept[-1][0][0]
        for key, size_bytes, item in reversed(older):
            assert key < self._kept[0][0]
            if key[0] <= newest - self._blocks_max or self._bytes + size_bytes > self._bytes_max:
                break
            self._kept.appendleft((key, size_bytes, item))
            self._bytes += size_bytes

    def owed(self, start: tuple[int, int] | None) -> Owed[Item]:
        """Tell what a subscriber gets first.

        Without a start: the open block. With one: everything kept from there on; `missing` says that the beginning of
        it is no longer (or was never) kept.
        """
        if not self._kept:
            return Owed([])
        oldest, newest = self._kept[0][0], self._kept[-1][0]
        if start is None:
            start = (newest[0], 0)
        elif start < oldest:
            return Owed([item for _, _, item in self._kept], start)
        return Owed([item for key, _, item in self._kept if key >= start])
