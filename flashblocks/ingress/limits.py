"""Rates per key (a client's address, a sender's account): token buckets in a table of bounded size."""

from collections import OrderedDict


class RateLimit:
    """At most `per_second` on average and `burst` at once for each key; 0 per second means no limit.

    The table keeps the `keys_max` keys used last; a key that falls out starts anew with a full bucket, so an attacker
    with many keys gains nothing over having many keys.
    """

    def __init__(self, per_second: float, burst: int, keys_max: int = 10_000) -> None:
        self.per_second, self.burst, self.keys_max = per_second, burst, keys_max
        self._buckets: OrderedDict[str | bytes, tuple[float, float]] = OrderedDict()

    def take(self, key: str | bytes, now: float, amount: int = 1) -> bool:
        """Take `amount` tokens of `key`; False, and nothing taken, when there are not enough."""
        if self.per_second <= 0:
            return True
        tokens, since = self._buckets.get(key, (float(self.burst), now))
        tokens = min(float(self.burst), tokens + max(0.0, now - since) * self.per_second)
        taken = tokens >= amount
        self._buckets[key] = (tokens - amount if taken else tokens, now)
        self._buckets.move_to_end(key)
        if len(self._buckets) > self.keys_max:
            self._buckets.popitem(last=False)
        return taken

    def __len__(self) -> int:
        return len(self._buckets)
