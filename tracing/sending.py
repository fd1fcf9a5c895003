"""The spans of those who take transactions in: the root from send to preconfirmation, and the admission.

Exactly one process records the root of a transaction's trace: the rpc-node that took it, or the ingress when none was
involved. The rpc-node's calls carry the trace's own `traceparent`, which is how the ingress knows.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from opentelemetry.trace import SpanKind

from tracing import names
from tracing.context import (
    TraceRoot,
    parse_frame_context,
    parse_traceparent,
    transaction_root,
)
from tracing.stages import MESSAGING, Stages, jsonrpc_attributes
from tracing.tracer import Attribute

WAITING_MAX = 16_384
WAITING_S_MAX = 60.0
SLOW_S = 1.0
UNNAMED_PER_FLASHBLOCK_MAX = 64
ERRORS_PER_S_MAX = 50
SLOW_PER_FLASHBLOCK_MAX = 16


class Sent:
    """A transaction that was taken in and has not been seen in a flashblock yet."""

    __slots__ = ("end", "own_root", "parent", "start")

    def __init__(self, start: float, end: float, own_root: bool, parent: TraceRoot | None) -> None:
        self.start, self.end, self.own_root, self.parent = start, end, own_root, parent


class SendTrace:
    """What an rpc-node or an ingress records of the transactions it took in. Bounded by WAITING_MAX.

    A flashblock's frame names the transactions that are traced. Where there is none – a block that the fallback made,
    a stream of others – all that the sampler keeps are (at most UNNAMED_PER_FLASHBLOCK_MAX).
    """

    def __init__(self, stages: Stages, taken: str) -> None:
        self._stages = stages
        self._taken = taken  # the name of the span from the call to its answer
        self._waiting: OrderedDict[bytes, Sent] = OrderedDict()
        self._errors_in = (0, 0)  # second, how many in it

    def took(self, tx_hash: bytes, start: float, end: float, traceparent: str) -> None:
        """A transaction was accepted; `traceparent` is the caller's header."""
        if tx_hash not in self._waiting:
            self._waiting[tx_hash] = self._sent(tx_hash, start, end, traceparent)
        self._give_up(end)

    def answered(self, tx_hash: bytes, now: float) -> None:
        """The caller has its answer."""
        sent = self._waiting.get(tx_hash)
        if sent is not None:
            sent.end = now

    def refused(self, tx_hash: bytes, start: float, end: float, traceparent: str, error: str) -> None:
        """A transaction was not accepted: always recorded, up to ERRORS_PER_S_MAX, in a trace apart.

        It may be sent again and be accepted then; its own trace is for that. `tx_hash` is empty for what is none.
        """
        second, count = self._errors_in
        self._errors_in = (int(end), count + 1 if second == int(end) else 1)
        waiting = self._waiting.get(tx_hash)
        if waiting is not None and waiting.start == start:  # else an earlier call was accepted
            del self._waiting[tx_hash]
        sent = self._sent(tx_hash, start, end, traceparent)
        tracer = self._stages.tracer
        if tracer.enabled and sent.own_root and self._errors_in[1] <= ERRORS_PER_S_MAX:
            attributes: dict[str, Attribute] = {**jsonrpc_attributes(names.SEND), names.OUTCOME: error}
            if tx_hash:
                attributes[names.TX_HASH] = "0x" + tx_hash.hex()
            links = [] if sent.parent is None else [sent.parent]
            tracer.apart(names.SEND, start, end, attributes, kind=SpanKind.SERVER, error=error, links=links)

    def seen(
        self, context_text: str, number: int, index: int | None, hashes: Iterable[bytes], arrived: float, now: float
    ) -> None:
        """A flashblock is shown (rpc-node: executed; ingress: read) that holds these transactions."""
        context = parse_frame_context(context_text)
        named = frozenset(() if context is None else context.transactions)
        left = UNNAMED_PER_FLASHBLOCK_MAX if context is None else 0
        slow_left = SLOW_PER_FLASHBLOCK_MAX
        for tx_hash in hashes:
            sent = self._waiting.pop(tx_hash, None)
            if sent is None:
                continue
            # What was slow for an ingress was slower for the rpc-node before it, which records the root.
            slow = now - sent.start > SLOW_S and slow_left > 0
            unnamed = left > 0 and sent.own_root and self._is_sampled(tx_hash)
            recorded = tx_hash in named or unnamed or slow
            trace = transaction_root(tx_hash) if recorded else None
            self._stages.observe(self._total, now - sent.start, trace)
            if self._taken == names.SEND:
                self._stages.observe(names.PRECONFIRM, now - arrived, trace)
            else:
                self._stages.observe(self._taken, sent.end - sent.start, trace)
            if not recorded:
                continue
            left, slow_left = left - 1, slow_left - slow
            attributes: dict[str, Attribute] = {
                names.BLOCK_NUMBER: number,
                names.OUTCOME: "ok" if index is not None else "sealed without a flashblock",
            }
            if index is not None:
                attributes[names.FLASHBLOCK_INDEX] = index
            self._record(tx_hash, sent, now, attributes, None)
            if self._taken == names.SEND and self._stages.tracer.enabled:
                kind, messaging = MESSAGING[names.PRECONFIRM]
                self._stages.tracer.span(
                    transaction_root(tx_hash),
                    names.PRECONFIRM,
                    arrived,
                    now,
                    {**attributes, **messaging, names.TX_HASH: "0x" + tx_hash.hex()},
                    kind=kind,
                    links=[] if context is None else [context.build],
                )

    def _is_sampled(self, tx_hash: bytes) -> bool:
        tracer = self._stages.tracer
        return tracer.samples_all or tracer.sampled(transaction_root(tx_hash)).sampled

    @property
    def _total(self) -> str:
        return "send to preconfirmed" if self._taken == names.SEND else "admit to streamed"

    def _give_up(self, now: float) -> None:
        """The oldest that were never seen again are errors, and recorded as such."""
        while self._waiting:
            oldest = next(iter(self._waiting))
            sent = self._waiting[oldest]
            if len(self._waiting) <= WAITING_MAX and now - sent.start < WAITING_S_MAX:
                return
            del self._waiting[oldest]
            if sent.own_root:
                self._record(oldest, sent, now, {names.OUTCOME: names.LOST}, names.LOST)

    @staticmethod
    def _sent(tx_hash: bytes, start: float, end: float, traceparent: str) -> Sent:
        caller = parse_traceparent(traceparent)
        ours = caller is not None and caller.trace_id == transaction_root(tx_hash).trace_id
        return Sent(start, end, not ours, None if ours else caller)

    def _record(
        self, tx_hash: bytes, sent: Sent, end: float, attributes: dict[str, Attribute], error: str | None
    ) -> None:
        tracer = self._stages.tracer
        if not tracer.enabled:
            return
        trace = transaction_root(tx_hash)
        attributes = {**attributes, **jsonrpc_attributes(names.SEND), names.TX_HASH: "0x" + tx_hash.hex()}
        if sent.own_root:
            links = [] if sent.parent is None else [sent.parent]
            tracer.root(trace, names.SEND, sent.start, end, attributes, kind=SpanKind.SERVER, error=error, links=links)
        if self._taken != names.SEND:
            kind = SpanKind.SERVER
            tracer.span(trace, self._taken, sent.start, sent.end, attributes, kind=kind, error=error)
