"""The builder's spans: the build of each flashblock, and of its transactions the wait in the pool and the inclusion.

Here it is decided which transactions of a flashblock are traced at all; the decision travels with the frame.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from tracing import names
from tracing.context import TRACED_TRANSACTIONS_MAX, FrameContext, TraceRoot, block_root, transaction_root
from tracing.stages import Stages, flashblock_attributes
from tracing.tracer import Attribute

SAMPLED_PER_FLASHBLOCK_MAX = 16
SLOW_PER_FLASHBLOCK_MAX = 16
FAILOVER_PER_FLASHBLOCK_MAX = 64
SLOW_POOL_WAIT_S = 1.0
FAILOVER_FLASHBLOCKS = 10
"""How many flashblocks after taking a block over have their transactions traced beyond the usual bound."""
ARRIVALS_MAX = 8192
BUILDS_REMEMBERED_MAX = 32


class _Build:
    """A flashblock that was built and is not published yet."""

    def __init__(self, start: float, end: float, span: TraceRoot, traced: Sequence[bytes]) -> None:
        self.start, self.end, self.span, self.traced = start, end, span, traced


class _Waiting:
    """A transaction in the pool; `since` is its arrival, or when a flashblock with it was last published."""

    __slots__ = ("since", "traced")

    def __init__(self, since: float) -> None:
        self.since, self.traced = since, False


class BuildTrace:
    """What one builder records. Bounded: ARRIVALS_MAX transactions wait, the oldest give way.

    A transaction waits until a block holds it, not until a flashblock does: one that is published too late for its
    block is committed by nobody, and what it held comes again in the next.
    """

    def __init__(self, stages: Stages, chain_id: int) -> None:
        self._stages, self._chain_id = stages, chain_id
        self._arrivals: OrderedDict[bytes, _Waiting] = OrderedDict()
        self._builds: OrderedDict[tuple[bytes, int], _Build] = OrderedDict()
        self._failover_left = 0

    def arrived(self, tx_hash: bytes, now: float) -> None:
        """A transaction came from one of ours, who records the root of its trace; others' have no trace."""
        if self._stages.tracer.enabled and tx_hash not in self._arrivals:
            self._arrivals[tx_hash] = _Waiting(now)
            if len(self._arrivals) > ARRIVALS_MAX:
                self._arrivals.popitem(last=False)

    def landed(self, tx_hash: bytes) -> None:
        """A block holds it."""
        self._arrivals.pop(tx_hash, None)

    def took_over(self) -> None:
        """A block that another builder began goes on here."""
        self._failover_left = FAILOVER_FLASHBLOCKS

    def built(
        self, payload_id: bytes, number: int, index: int, start: float, end: float, hashes: Sequence[bytes]
    ) -> str:
        """Record a build; the text that its frame shall carry (empty when tracing is off)."""
        stages = self._stages
        root = block_root(self._chain_id, payload_id)
        if not self._failover_left:
            root = stages.tracer.sampled(root)
        stages.observe(names.BUILD, end - start, root)
        if not stages.tracer.enabled:
            return ""
        attributes = flashblock_attributes(number, index, payload_id, "ok") | {names.TRANSACTIONS: len(hashes)}
        span = stages.tracer.span(root, names.BUILD, start, end, attributes)
        traced = self._choose(hashes, start)
        self._builds[payload_id, index] = _Build(start, end, span, traced)
        if len(self._builds) > BUILDS_REMEMBERED_MAX:
            self._builds.popitem(last=False)
        return FrameContext(span, tuple(traced)).text

    def published(self, payload_id: bytes, number: int, index: int, hashes: Sequence[bytes], now: float) -> None:
        """A built flashblock went out: its transactions have left the pool, for good if it is committed."""
        build = self._builds.pop((payload_id, index), None)
        if build is None:
            return
        if self._failover_left and index:
            self._failover_left -= 1
        traced = frozenset(build.traced)
        for tx_hash in hashes:
            waiting = self._arrivals.get(tx_hash)
            if waiting is None:
                continue
            since, waiting.since = waiting.since, now
            # One that came while the flashblock was being built has not waited.
            began = max(since, build.start)
            waiting.traced |= tx_hash in traced
            trace = transaction_root(tx_hash) if waiting.traced else None
            self._stages.observe(names.POOL, began - since, trace)
            self._stages.observe(names.INCLUDE, now - began, trace)
            if trace is None:
                continue
            attributes: dict[str, Attribute] = flashblock_attributes(number, index, payload_id, "ok")
            attributes[names.TX_HASH] = "0x" + tx_hash.hex()
            tracer = self._stages.tracer
            tracer.span(trace, names.POOL, since, began, attributes)
            tracer.span(trace, names.INCLUDE, began, now, attributes, links=[build.span])

    def _choose(self, hashes: Sequence[bytes], now: float) -> list[bytes]:
        """Of those with a root: the ones with the smallest hashes, the slow ones; nearly all after a failover.

        The sampler has a say in the ordinary ones only. First of all those that have spans already, from a flashblock
        that came to nothing.
        """
        known = [(tx_hash, waiting) for tx_hash in hashes if (waiting := self._arrivals.get(tx_hash)) is not None]
        chosen = [tx_hash for tx_hash, waiting in known if waiting.traced]
        new = sorted((tx_hash, waiting.since) for tx_hash, waiting in known if not waiting.traced)
        if self._failover_left:
            chosen += [tx_hash for tx_hash, _ in new[:FAILOVER_PER_FLASHBLOCK_MAX]]
        else:
            slow = [tx_hash for tx_hash, since in new if now - since > SLOW_POOL_WAIT_S]
            usual = [tx_hash for tx_hash, since in new if now - since <= SLOW_POOL_WAIT_S and self._is_sampled(tx_hash)]
            chosen += usual[: max(0, SAMPLED_PER_FLASHBLOCK_MAX - len(chosen))] + slow[:SLOW_PER_FLASHBLOCK_MAX]
        return chosen[:TRACED_TRANSACTIONS_MAX]

    def _is_sampled(self, tx_hash: bytes) -> bool:
        tracer = self._stages.tracer
        return tracer.samples_all or tracer.sampled(transaction_root(tx_hash)).sampled
