"""What a drill writes down: every flashblock any subscriber saw, every transaction sent, every fault, the sealed chain.

One event a line, JSON, in the order it was noticed; `at` is Unix seconds on the drill's own clock. The checker reads
nothing else, so a history kept from a failed run can be judged again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec


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


class Link(msgspec.Struct, frozen=True, tag="link"):
    """A subscriber's connection came up or went down."""

    at: float
    source: str
    up: bool


class Sent(msgspec.Struct, frozen=True, tag="sent"):
    """A client handed a transaction to the RPC and got its hash back."""

    at: float
    transaction: str


class Preconfirmed(msgspec.Struct, frozen=True, tag="preconfirmed"):
    """The RPC answered a receipt for a transaction before its block was sealed."""

    at: float
    transaction: str
    number: int


class Fault(msgspec.Struct, frozen=True, tag="fault"):
    """The drill did something to an actor of the leading group."""

    at: float
    run: int
    kind: str
    actor: str
    group: str
    pid: int


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


Event = Seen | GapAnnounced | Link | Sent | Preconfirmed | Fault | Restored | SealedBlock


def write(path: Path, events: Iterable[Event]) -> None:
    """Write a history to a file, whole."""
    encoder = msgspec.json.Encoder()
    path.write_bytes(b"".join(encoder.encode(event) + b"\n" for event in events))


def read(path: Path) -> Iterator[Event]:
    """Read a history; raises msgspec.DecodeError on a line that is not an event."""
    decoder = msgspec.json.Decoder(Event)
    for line in path.read_bytes().splitlines():
        yield decoder.decode(line)
