"""Trace ids that nobody has to be told: derived from what the trace is about, so that every process joins the same one.

A block's trace is named by chain id and payload id, a transaction's by its hash, a failover's by chain id and epoch.
The root span's id is derived too: children can hang below it before – or without ever – seeing the process that
records it, also the new leader's after a failover. It is the first half of the trace id, so that anybody who has seen
one span of a trace knows the root. Between processes the context is W3C `traceparent`.
"""

from __future__ import annotations

from hashlib import sha256
from typing import NamedTuple

TRACEPARENT_LENGTH = 55
SAMPLED_FLAG = 1
TRACED_TRANSACTIONS_MAX = 64
"""Per flashblock, whoever asks for it: what a frame's text can name at most."""


class TraceRoot(NamedTuple):
    """A derived trace: its id (128 bits) and the id of its root span (64 bits); or those of any span.

    `sampled` is traceparent's flag: whether the trace is kept.
    """

    trace_id: int
    span_id: int
    sampled: bool = True

    @property
    def traceparent(self) -> str:
        """The root as a W3C traceparent."""
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-{self.sampled:02x}"


def block_root(chain_id: int, payload_id: bytes) -> TraceRoot:
    """The trace of the block that this payload id builds."""
    return _root(b"block", chain_id.to_bytes(8, "big") + payload_id)


def transaction_root(tx_hash: bytes) -> TraceRoot:
    """The trace of one transaction, from the wallet's send to its preconfirmation."""
    return _root(b"transaction", tx_hash)


def failover_root(chain_id: int, epoch: int) -> TraceRoot:
    """The trace of the failover that ended in this epoch."""
    return _root(b"failover", chain_id.to_bytes(8, "big") + epoch.to_bytes(8, "big"))


def root_of(context: TraceRoot) -> TraceRoot:
    """The root of the derived trace that a span of it lies in."""
    return TraceRoot(context.trace_id, context.trace_id >> 64, context.sampled)


class FrameContext(NamedTuple):
    """What travels with a flashblock: the span that built it, and the hashes of its transactions that are traced.

    As text it is a traceparent, then – after a blank – the hashes in hex, joined by dots. So the builder decides once
    which transactions are traced, and nobody behind it has to open the body.
    """

    build: TraceRoot
    transactions: tuple[bytes, ...] = ()

    @property
    def text(self) -> str:
        """The text for `FlashblockFrame.traceparent`."""
        hashes = ".".join(tx_hash.hex() for tx_hash in self.transactions)
        return f"{self.build.traceparent} {hashes}" if hashes else self.build.traceparent


def parse_frame_context(text: str) -> FrameContext | None:
    """Read a frame's text; None when there is none, or none of ours."""
    traceparent, _, hashes = text.partition(" ")
    build = parse_traceparent(traceparent)
    if build is None:
        return None
    try:
        named = tuple(bytes.fromhex(each) for each in hashes.split(".")) if hashes else ()
    except ValueError:
        named = ()
    return FrameContext(build, tuple(each for each in named[:TRACED_TRANSACTIONS_MAX] if len(each) == 32))


def traceparent_of(text: str) -> str:
    """The traceparent alone of a frame's text; empty when there is none of ours."""
    context = parse_frame_context(text)
    return "" if context is None else context.build.traceparent


def parse_traceparent(text: str | None) -> TraceRoot | None:
    """Read a traceparent header (W3C Trace Context, version 00); None when it is absent or malformed."""
    if not text or len(text) < TRACEPARENT_LENGTH:
        return None
    parts = text.split("-")
    if len(parts) < 4 or (len(parts[0]), len(parts[1]), len(parts[2])) != (2, 32, 16) or parts[0] == "ff":
        return None
    try:
        root = TraceRoot(int(parts[1], 16), int(parts[2], 16), bool(int(parts[3][:2], 16) & SAMPLED_FLAG))
    except ValueError:
        return None
    return root if root.trace_id and root.span_id else None


def _root(kind: bytes, name: bytes) -> TraceRoot:
    trace_id = int.from_bytes(sha256(b"flashblocks " + kind + b"\0" + name).digest()[:16], "big")
    return root_of(TraceRoot(trace_id, 0))
