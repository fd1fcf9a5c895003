"""Where an execution client's payloads come from: the one thing in which a builder differs from a fallback EL."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from flashblocks.execution.header import Header
from flashblocks.wire.engine import Envelope, PayloadAttributes
from flashblocks.wire.flashblock import Flashblock


class UnknownPayload(LookupError):
    """No payload was begun under this id, or it was forgotten."""


class OutOfStep(LookupError):
    """A flashblock was asked for that is not the next one."""


class PayloadSource(Protocol):
    """Plain blocks in the fallback EL, flashblocks in the builder."""

    def start(self, payload_id: bytes, parent: Header, attributes: PayloadAttributes) -> None:
        """Begin a build on the head; a known id goes on as it is. Raises InvalidAttributes, InvalidTransaction."""

    async def get(self, payload_id: bytes) -> Envelope:
        """The best payload by now; raises UnknownPayload."""

    async def close(self) -> None:
        """Stop all builds."""


@runtime_checkable
class StreamablePayloads(Protocol):
    """A source whose finished payload can also be had as flashblocks: the stream goes on where there is no builder."""

    def flashblocks(self, payload_id: bytes) -> list[Flashblock]:
        """The payload as `PayloadSource.get` answers it, in one or two flashblocks; raises UnknownPayload."""

    async def stand_in(self, payload_id: bytes, index: int) -> Flashblock:
        """The next flashblock of a payload, made here in a builder's place; raises UnknownPayload, OutOfStep."""
