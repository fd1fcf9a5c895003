"""Noticing that a stream began anew: for long enough everything that comes lies behind what was delivered.

That happens when the ledger was wiped behind a running proxy: its epochs, perhaps its blocks too, count from the start
again, and all of it would be dropped as stale or late for ever. A stale leader cannot look like this – it commits
nothing, so it publishes nothing –, and a replay of the past is over in a moment or lies on a link opened for it.
"""

import msgspec

Key = tuple[int, int]


class Sighting(msgspec.Struct):
    """A stream that goes on behind ours: in which epoch, since when, and how far it has come."""

    epoch: int
    since: float
    at: float
    newest: Key


class BehindWatch:
    """Collects evidence. `patience_s` is how long a stream must go on behind ours, without a longer pause."""

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._seen: Sighting | None = None

    def clear(self) -> None:
        """Our stream goes on: nothing began anew."""
        self._seen = None

    def sighted(self, epoch: int, key: Key, now: float) -> bool:
        """A flashblock was dropped as stale or late; whether the stream it belongs to is the one to follow now."""
        seen = self._seen
        if seen is None or epoch < seen.epoch or now - seen.at > self._patience_s:
            self._seen = Sighting(epoch, now, now, key)
            return False
        if key <= seen.newest:
            return False  # the same again from another upstream, or again after a reconnect
        seen.epoch, seen.at, seen.newest = epoch, now, key
        return now - seen.since >= self._patience_s
