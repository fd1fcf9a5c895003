"""A leader that is alive but publishes nothing gives up leadership by itself."""

from __future__ import annotations

from typing import Final

SILENT_SLOTS_MAX: Final = 3
START_GRACE_S: Final = 0.5
"""What a start may take on top before the first flashblock: claim, catch-up, the builder's first block."""
FRUITLESS_DOUBLINGS_MAX: Final = 4
DISTRUST_S: Final = 3.0
"""How long a leader that was given up on counts as unfit, so that nobody hands leadership straight back to it."""


class ProgressWatchdog:
    """Watches the commits of the own epoch. `slot_s` is the flashblock time, `block_time_s` the block time.

    With a builder, something must be committed every slot; without one, a block every block time. After several
    leaders in a row without any commit between them the patience doubles each time: a chain that nobody can move is
    not moved faster by more elections.
    """

    def __init__(self, slot_s: float, block_time_s: float) -> None:
        self._slot_s = slot_s
        self._block_time_s = block_time_s
        self._leading = False
        self._since = 0.0
        self._grace_s = 0.0
        self._doublings = 0
        self._not_before = 0.0
        self._bit_at = float("-inf")
        self.builder = True

    def on_leading(self, now: float, epochs_without_commit: int) -> None:
        """We claimed an epoch; `epochs_without_commit` earlier ones had no commit at all."""
        self._leading = True
        self._since = now
        self._grace_s = START_GRACE_S
        self._doublings = min(max(epochs_without_commit, 0), FRUITLESS_DOUBLINGS_MAX)

    def on_follower(self) -> None:
        """We do not lead any more."""
        self._leading = False

    def on_commit(self, now: float) -> None:
        """A flashblock or a block of our epoch was committed."""
        self._since = now
        self._grace_s = 0.0
        self._doublings = 0
        self._bit_at = float("-inf")

    def on_head(self, timestamp: float) -> None:
        """The newest block's time: its successor is not begun before that."""
        self._not_before = timestamp

    @property
    def deadline(self) -> float | None:
        """When the leader is given up on, unless something is committed before; None while following."""
        if not self._leading:
            return None
        pause_s = SILENT_SLOTS_MAX * self._slot_s + (0.0 if self.builder else self._block_time_s)
        return max(self._since, self._not_before) + (pause_s + self._grace_s) * float(1 << self._doublings)

    def stuck(self, now: float) -> bool:
        """Whether the leader is silent for too long, or was given up on a moment ago."""
        deadline = self.deadline
        if deadline is not None and now > deadline:
            self._bit_at = now
        return now - self._bit_at < DISTRUST_S
