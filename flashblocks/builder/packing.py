"""Filling a flashblock: the best transaction first, each sender's nonces in order, nothing over budget.

Every flashblock starts a fresh iteration over the pool.  A transaction that does not fit now is put aside together
with its sender's later nonces for this iteration only; the next flashblock, with its larger target, considers it again.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from flashblocks.builder.budget import Budget, Usage
from flashblocks.builder.limiter import NO_LIMITS, SenderLimits
from flashblocks.builder.offers import Candidate, Offers


@dataclass(frozen=True, slots=True)
class Executed:
    """The transaction ran and is part of the block: its gas used, whether it reverted, how long it took (seconds)."""

    gas_used: int
    reverted: bool
    took_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Unexecutable:
    """The transaction is invalid on this state and left no trace; ``stale`` when its nonce is already used."""

    reason: str
    stale: bool = False


class Workbench(Protocol):
    """The open block the packer appends to."""

    def execute(self, candidate: Candidate) -> Executed | Unexecutable:
        """Append the transaction, or leave the block as it was and say why not."""

    def undo(self) -> None:
        """Take back the transaction executed last."""

    def back_to(self, count: int) -> None:
        """Take back all but the first ``count`` of those that were executed and kept."""


class Followers(Protocol):
    """What wants to land immediately behind a transaction; how much of it may be tried and may land."""

    considered_left: int
    landed_left: int
    considered_per_target: int
    landed_per_target: int

    def behind(self, target: bytes) -> list[Candidate]:
        """The backruns of this transaction, the best tip first."""

    def news(self) -> set[bytes]:
        """The targets for which something has come since this was asked last."""


@dataclass(slots=True)
class Packing:
    """One flashblock being filled; ``run`` may be called repeatedly, so that the shell can do other work in between."""

    index: int
    budget: Budget
    usage: Usage
    best: Offers
    bench: Workbench
    limits: SenderLimits = NO_LIMITS
    followers: Followers | None = None
    included: list[Candidate] = field(default_factory=list)
    dropped: list[tuple[Candidate, str]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    considered: set[bytes] = field(default_factory=set)
    followed_s: float = 0.0
    """How long backruns were executed."""
    _usages: list[Usage] = field(default_factory=list)  # before each of the included
    _fees: list[int] = field(default_factory=list)  # of each of the included
    _charged: set[bytes] = field(default_factory=set)
    _taken_back: set[bytes] = field(default_factory=set)  # executed to no avail: not once more in this flashblock

    def back_to(self, count: int) -> None:
        """Take back all but the first ``count`` included transactions; ``best`` must be offered anew."""
        if count < len(self.included):
            self.bench.back_to(count)
            self.usage = self._usages[count]
            if self.followers is not None:
                self.followers.landed_left += sum(1 for candidate in self.included[count:] if candidate.behind)
            del self.included[count:], self._usages[count:], self._fees[count:]

    @property
    def fees(self) -> int:
        """What the included ones pay beyond the base fee, in wei."""
        return sum(self._fees)

    def run(self, out_of_time: Callable[[], bool]) -> bool:
        """Append transactions until none is left (True) or ``out_of_time()``, asked before each, says so (False)."""
        while not out_of_time():
            candidate = self.best.take()
            if candidate is None:
                return True
            self._consider(candidate)
        return False

    def _consider(self, candidate: Candidate) -> None:
        self.counts["payload_num_tx_considered"] += 1
        self.considered.add(candidate.hash)
        if candidate.hash in self._taken_back:
            self.best.put_aside(candidate.sender)
            return
        if candidate.index_max is not None and candidate.index_max < self.index:
            self.best.put_aside(candidate.sender)
            return
        if candidate.index_min > self.index:
            # Its descendants need its nonce, so they cannot run either; the execution would refuse them one by one.
            self.best.put_aside(candidate.sender)
            return
        if self.limits.refuses(candidate.sender):
            self.counts["tx_sender_limited_total"] += 1
            self.best.put_aside(candidate.sender)
            return
        refusal = self.budget.refuses(self.usage, candidate.gas_limit, candidate.da_bytes, candidate.size_bytes)
        if refusal is not None:
            self.counts[refusal.value] += 1
            self.best.put_aside(candidate.sender)
            return
        self._execute(candidate)

    def _execute(self, candidate: Candidate) -> None:
        self.counts["payload_num_tx_simulated"] += 1
        outcome = self.bench.execute(candidate)
        if isinstance(outcome, Unexecutable):
            self.counts["payload_num_tx_simulated_fail"] += 1
            if not outcome.stale:
                self.best.put_aside(candidate.sender)
            return
        self._charge(candidate, outcome)
        gas_cap = self.budget.limits.gas_per_transaction
        if gas_cap is not None and outcome.gas_used > gas_cap:
            self._take_back(candidate, "max gas per transaction exceeded")
        elif outcome.reverted and candidate.revert_protected:
            self.counts["bundles_reverted"] += 1
            self._take_back(candidate, "bundle reverted")
        else:
            self._include(candidate, outcome)
            self._follow(candidate)

    def _include(self, candidate: Candidate, outcome: Executed) -> None:
        self.counts["payload_num_tx_simulated_success"] += 1
        self._usages.append(self.usage)
        self._fees.append(candidate.tip * outcome.gas_used)
        self.usage = self.usage.plus(outcome.gas_used, candidate.da_bytes, candidate.size_bytes)
        self.included.append(candidate)

    def _charge(self, candidate: Candidate, outcome: Executed) -> None:
        if candidate.hash not in self._charged:
            self._charged.add(candidate.hash)  # once in a flashblock, however often it was put in another order
            self.limits.charge(candidate.sender, outcome.gas_used, outcome.took_s)

    def _follow(self, target: Candidate) -> None:
        """Try what wants to land immediately behind a transaction that was just included."""
        followers = self.followers
        if followers is None:
            return
        landed = 0
        for backrun in followers.behind(target.hash)[: followers.considered_per_target]:
            if landed >= followers.landed_per_target or not (followers.considered_left and followers.landed_left):
                return
            followers.considered_left -= 1
            self.counts["payload_num_backruns_considered"] += 1
            if backrun.tip >= target.tip and self._lands(backrun):
                landed += 1
                followers.landed_left -= 1
                self.counts["payload_num_backruns_successful"] += 1

    def _lands(self, backrun: Candidate) -> bool:
        """Execute a backrun; leaves no trace where it does not fit, cannot run, reverts or uses too much gas."""
        if self.limits.refuses(backrun.sender):
            return False
        if self.budget.refuses(self.usage, backrun.gas_limit, backrun.da_bytes, backrun.size_bytes) is not None:
            return False
        self.counts["payload_num_tx_simulated"] += 1
        outcome = self.bench.execute(backrun)
        if isinstance(outcome, Unexecutable):
            self.counts["payload_num_tx_simulated_fail"] += 1
            return False
        self._charge(backrun, outcome)
        self.followed_s += outcome.took_s
        gas_cap = self.budget.limits.gas_per_transaction
        if outcome.reverted or (gas_cap is not None and outcome.gas_used > gas_cap):
            self.counts["bundles_reverted"] += int(outcome.reverted)
            self.bench.undo()
            return False
        self._include(backrun, outcome)
        return True

    def _take_back(self, candidate: Candidate, reason: str) -> None:
        self.bench.undo()
        self._taken_back.add(candidate.hash)
        self.dropped.append((candidate, reason))
        self.best.put_aside(candidate.sender)
