"""Two indexes over all blocks of a chain that cost tens of bytes per block where dictionaries cost hundreds.

A week of two-second blocks is 302,400 of them, and an execution client keeps them all on disk. What it must have in
memory to find them are the canonical hash of each height (32 bytes) and the place of each hash in the log (24 to 48).
"""

from array import array
from collections.abc import Callable, Iterable

HASH_BYTES = 32
KEY_BYTES = 8
FIRST_CAPACITY = 1 << 10  # slots; a power of two
FULL_NUMERATOR, FULL_DENOMINATOR = 2, 3  # grow when more than this part of the slots is taken


class HashPlaces:
    """Hash → place in the log, by open addressing on the first eight bytes of the hash.

    Only these bytes are kept: `hash_at(place)` tells the whole hash, so that hashes with one beginning are told apart.
    """

    def __init__(self, hash_at: Callable[[int], bytes]) -> None:
        self._hash_at = hash_at
        self._keys = array("Q", bytes(KEY_BYTES * FIRST_CAPACITY))
        self._places = array("Q", bytes(KEY_BYTES * FIRST_CAPACITY))  # the place plus one; 0 is an empty slot
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def get(self, block_hash: bytes) -> int | None:
        """The place of a hash, or None."""
        key = int.from_bytes(block_hash[:KEY_BYTES], "big")
        mask = len(self._keys) - 1
        slot = key & mask
        while place := self._places[slot]:
            if self._keys[slot] == key and self._hash_at(place - 1) == block_hash:
                return place - 1
            slot = (slot + 1) & mask
        return None

    def __contains__(self, block_hash: bytes) -> bool:
        return self.get(block_hash) is not None

    def add(self, block_hash: bytes, place: int) -> None:
        """Add a hash that is not there yet; its record must already be readable."""
        if (self._count + 1) * FULL_DENOMINATOR > len(self._keys) * FULL_NUMERATOR:
            self._grow()
        self._put(int.from_bytes(block_hash[:KEY_BYTES], "big"), place + 1)
        self._count += 1

    def _put(self, key: int, place: int) -> None:
        mask = len(self._keys) - 1
        slot = key & mask
        while self._places[slot]:
            slot = (slot + 1) & mask
        self._keys[slot], self._places[slot] = key, place

    def _grow(self) -> None:
        keys, places = self._keys, self._places
        self._keys = array("Q", bytes(2 * KEY_BYTES * len(keys)))
        self._places = array("Q", bytes(2 * KEY_BYTES * len(keys)))
        for key, place in zip(keys, places, strict=True):
            if place:
                self._put(key, place)

    @property
    def size_bytes(self) -> int:
        """What the two tables take."""
        return 2 * KEY_BYTES * len(self._keys)


class CanonicalHashes:
    """Height → hash of one unbroken chain: it grows and shrinks at its end, and once, at opening, at its beginning."""

    def __init__(self, number: int, block_hash: bytes) -> None:
        self._first = number
        self._hashes = bytearray(block_hash)

    @property
    def last(self) -> int:
        """The highest number."""
        return self._first + len(self._hashes) // HASH_BYTES - 1

    def get(self, number: int) -> bytes | None:
        """The hash at this height, or None outside the chain."""
        if not self._first <= number <= self.last:
            return None
        at = (number - self._first) * HASH_BYTES
        return bytes(self._hashes[at : at + HASH_BYTES])

    def append(self, number: int, block_hash: bytes) -> None:
        """The next height."""
        assert number == self.last + 1 and len(block_hash) == HASH_BYTES
        self._hashes += block_hash

    def cut_to(self, number: int) -> None:
        """Forget everything above this height."""
        assert self._first <= number <= self.last
        del self._hashes[(number - self._first + 1) * HASH_BYTES :]

    def prepend(self, ancestors: Iterable[tuple[int, bytes]]) -> None:
        """Add what lies before the first height, newest first, without a gap."""
        backwards = bytearray()
        for number, block_hash in ancestors:
            assert number == self._first - 1
            self._first = number
            backwards += block_hash
        older = [backwards[at : at + HASH_BYTES] for at in range(len(backwards) - HASH_BYTES, -1, -HASH_BYTES)]
        self._hashes = bytearray().join([*older, self._hashes])
