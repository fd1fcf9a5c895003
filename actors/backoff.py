"""How long to wait before connecting again: short at first, longer while it does not last, never all in step."""

import random


class Backoff:
    """Gives the pauses between attempts, in seconds.

    A connection that lived shorter than `steady_after_s` is flapping: the pause goes on growing. (Starting over at
    every accepted connection, as is often done, turns a peer that accepts and closes into a busy loop.)
    """

    def __init__(
        self, first_s: float, max_s: float, *, growth: float, steady_after_s: float, chance: random.Random
    ) -> None:
        assert 0 < first_s <= max_s and growth > 1
        self._first_s = first_s
        self._max_s = max_s
        self._growth = growth
        self._steady_after_s = steady_after_s
        self._chance = chance
        self._next_s = first_s

    def pause_s(self, lived_s: float) -> float:
        """Give the next pause, after an attempt whose connection lived this long (0 for none): half of it is chance."""
        if lived_s >= self._steady_after_s:
            self._next_s = self._first_s
        pause_s = self._next_s * self._chance.uniform(0.5, 1.0)
        self._next_s = min(self._max_s, self._next_s * self._growth)
        return pause_s
