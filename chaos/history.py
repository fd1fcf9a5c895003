"""What a drill writes down: every flashblock any subscriber saw, every transaction sent, every fault, the sealed chain.

One event a line, JSON, in the order it was noticed; `at` is Unix seconds on the drill's own clock. The checker reads
nothing else, so a history kept from a failed run can be judged again (`flashblocks drill report`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from chaos.expectation import Bound, Expect


class Began(msgspec.Struct, frozen=True, tag="began", kw_only=True):
    """A drill began: how many faults, with which seed, under how much load, and what it expects of the stream.

    With this a history can be judged by itself.
    """

    at: float
    drill: str
    count: int
    seed: int
    tps: float
    expect: Expect = Expect.GOES_ON
    bound: Bound | None = None


class Seen(msgspec.Struct, frozen=True, tag="seen"):
    """A subscriber of `source` got a flashblock; `epoch` is 0 on streams that carry none.

    `edge` is true at a proxy, where every index comes once and in order; a conductor republishes when it is elected.
    """

    at: float
    source: str
    number: int
    index: int
    payload_id: str
    parent_hash: str | None
    block_hash: str
    transactions: tuple[str, ...]
    epoch: int = 0
    edge: bool = True


class GapAnnounced(msgspec.Struct, frozen=True, tag="gap"):
    """A proxy said that these indices of a block cannot be had, both ends inclusive."""

    at: float
    source: str
    number: int
    index_from: int
    index_to: int


class GaveUp(msgspec.Struct, frozen=True, tag="gave up"):
    """The drill could not be carried out to its end."""

    at: float
    reason: str


class Link(msgspec.Struct, frozen=True, tag="link"):
    """A subscriber's connection came up or went down."""

    at: float
    source: str
    up: bool


class Sent(msgspec.Struct, frozen=True, tag="sent"):
    """A client handed a transaction to the RPC, for the first time."""

    at: float
    transaction: str


class Acknowledged(msgspec.Struct, frozen=True, tag="acknowledged"):
    """The RPC answered with the transaction's hash."""

    at: float
    transaction: str


class Preconfirmed(msgspec.Struct, frozen=True, tag="preconfirmed"):
    """The RPC answered a receipt for a transaction before its block was sealed."""

    at: float
    transaction: str
    number: int


class Included(msgspec.Struct, frozen=True, tag="included"):
    """The client found its transaction in a sealed block of the rpc-node."""

    at: float
    transaction: str
    number: int


class PendingRead(msgspec.Struct, frozen=True, tag="pending"):
    """One request to an rpc-node for `latest` and `pending`, in this order; `pending` null is number None."""

    at: float
    source: str
    latest: int
    number: int | None
    transactions: tuple[str, ...]


class Invalidated(msgspec.Struct, frozen=True, tag="invalidated"):
    """An rpc-node told its subscribers that something it had shown of a block is not so any more."""

    at: float
    source: str
    number: int
    transactions: tuple[str, ...]


class Leads(msgspec.Struct, frozen=True, tag="leads"):
    """Who led, as the drill asked it: before a fault (`after` False) and when the stream went on."""

    at: float
    run: int
    group: str
    epoch: int
    after: bool


class Fault(msgspec.Struct, frozen=True, tag="fault"):
    """The drill did something to an actor; `pid` 0 where no one process was hurt."""

    at: float
    run: int
    kind: str
    actor: str
    group: str
    pid: int


class Lifted(msgspec.Struct, frozen=True, tag="lifted"):
    """The drill undid what it had done: processes woken, rules removed, room on the disk."""

    at: float
    run: int


class Observed(msgspec.Struct, frozen=True, tag="observed"):
    """The drill has seen of this fault what it waited for; what comes later is not its effect."""

    at: float
    run: int


class Restored(msgspec.Struct, frozen=True, tag="restored"):
    """The actor is back and level with the chain."""

    at: float
    run: int
    pid: int


class SealedBlock(msgspec.Struct, frozen=True, tag="block"):
    """A block as one node answers it after the drill."""

    source: str
    number: int
    block_hash: str
    parent_hash: str
    transactions: tuple[str, ...]


Event = (
    Began
    | GaveUp
    | Seen
    | GapAnnounced
    | Link
    | Sent
    | Acknowledged
    | Preconfirmed
    | Included
    | PendingRead
    | Invalidated
    | Leads
    | Fault
    | Lifted
    | Observed
    | Restored
    | SealedBlock
)


def write(path: Path, events: Iterable[Event]) -> None:
    """Write a history to a file, whole."""
    encoder = msgspec.json.Encoder()
    path.write_bytes(b"".join(encoder.encode(event) + b"\n" for event in events))


def read(path: Path) -> Iterator[Event]:
    """Read a history; raises msgspec.DecodeError on a line that is not an event."""
    decoder = msgspec.json.Decoder(Event)
    for line in path.read_bytes().splitlines():
        yield decoder.decode(line)
