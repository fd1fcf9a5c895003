"""How much a single sender may have executed: a bucket per sender, of gas and of time, refilled with every block.

What was executed is charged, whether it was included or not; a sender in debt is passed over until the refill has paid
it back.  So nobody can keep the builder busy with transactions that are thrown away afterwards.
"""

from dataclasses import dataclass

MICROSECONDS_PER_S = 1_000_000


@dataclass(frozen=True, slots=True)
class Rate:
    """The size of a bucket, what comes in per block, and after how many blocks full ones are forgotten."""

    most: int
    refill_per_block: int
    cleanup_blocks: int


class Buckets:
    """What each sender has left; those that are not mentioned have it all."""

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._left: dict[bytes, int] = {}
        self._blocks = 0

    def __len__(self) -> int:
        return len(self._left)

    def in_debt(self, sender: bytes) -> bool:
        """Whether more was charged than there was."""
        return self._left.get(sender, 0) < 0

    def charge(self, sender: bytes, amount: int) -> None:
        """Take out what an execution cost; the balance may become negative."""
        self._left[sender] = self._left.get(sender, self._rate.most) - amount

    def new_block(self) -> None:
        """Refill all buckets."""
        rate = self._rate
        self._blocks += 1
        for sender, left in self._left.items():
            self._left[sender] = min(rate.most, left + rate.refill_per_block)
        if self._blocks % rate.cleanup_blocks == 0:
            self._left = {sender: left for sender, left in self._left.items() if left < rate.most}


class SenderLimits:
    """Both limits, each of which may be absent."""

    def __init__(self, gas: Rate | None = None, time_us: Rate | None = None) -> None:
        self._gas = None if gas is None else Buckets(gas)
        self._time_us = None if time_us is None else Buckets(time_us)

    def refuses(self, sender: bytes) -> bool:
        """Whether this sender has to wait."""
        return any(buckets.in_debt(sender) for buckets in (self._gas, self._time_us) if buckets is not None)

    def charge(self, sender: bytes, gas: int, took_s: float) -> None:
        """An execution used this much gas and time (seconds)."""
        if self._gas is not None:
            self._gas.charge(sender, gas)
        if self._time_us is not None:
            self._time_us.charge(sender, round(took_s * MICROSECONDS_PER_S))

    def new_block(self) -> None:
        """A block has gone by."""
        for buckets in (self._gas, self._time_us):
            if buckets is not None:
                buckets.new_block()


NO_LIMITS = SenderLimits()
