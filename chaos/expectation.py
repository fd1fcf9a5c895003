"""What a drill expects of the public stream: how it bears the fault, and how soon it goes on."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Expect(StrEnum):
    """How the stream should bear a fault."""

    GOES_ON = "goes on"
    """It may pause while leadership moves; the time to the next flashblock is what the drill measures."""
    UNNOTICED = "unnoticed"
    """Nobody outside should see anything."""
    HALTS = "halts"
    """It stops while there is no majority and goes on when there is one: promise 2 comes before availability."""


class Bound(msgspec.Struct, frozen=True):
    """How soon the next flashblock has to come on a quiet machine, milliseconds."""

    p50_ms: float
    p99_ms: float
