"""Frames between our own processes: MessagePack arrays, kind first, on WebSockets with the sub-protocol below.

A flashblock's body passes through unopened; what a hop must know stands beside it.
"""

from __future__ import annotations

import msgpack
import msgspec

from flashblocks.wire.flashblock import Flashblock, body_digest
from flashblocks.wire.hexadecimal import WireError

SUBPROTOCOL = "flashblocks.frame.v1"
FRAME_SIZE_BYTES_MAX = 9 * 1024 * 1024

# on the Engine port of our execution clients: execute a flashblock frame; a payload as flashblock frames
APPLY_PATH = "/flashblocks/v1/apply"
PAYLOAD_PATH = "/flashblocks/v1/payload"
STAND_IN_PATH = "/flashblocks/v1/stand-in"


class FlashblockFrame(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A flashblock on its way; `epoch` is 0 until a leader's commit has given it one.

    `digest` is SHA-256 of `body`; `block_hash` that of the block made of this prefix; `traceparent` W3C or empty.
    """

    epoch: int
    number: int
    index: int
    payload_id: bytes
    parent_hash: bytes
    block_hash: bytes
    digest: bytes
    traceparent: str
    body: bytes

    @property
    def key(self) -> tuple[int, int]:
        """Its place in the stream: (block number, index)."""
        return self.number, self.index


class CommittedFrame(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Conductor to rollup-boost: a majority holds this flashblock; it is in the block for good."""

    frame: FlashblockFrame


class RefusedFrame(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Conductor to rollup-boost: an offered flashblock was not committed; `reason` is the ledger's."""

    number: int
    index: int
    payload_id: bytes
    reason: str


class SealedFrame(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Conductor to rollup-boost: the block of this number is sealed with this hash."""

    number: int
    block_hash: bytes


class LeadershipFrame(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Conductor to rollup-boost: whether this group leads, and in which epoch."""

    epoch: int
    leading: bool


class HealthFrame(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Rollup-boost to conductor: 200 healthy, 206 no builder, 503 no execution client; as /healthz answers."""

    status: int
    detail: str


class AnnounceGapFrame(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Proxy to subscribers: these indices of this block could not be had from any upstream; both ends inclusive."""

    number: int
    index_from: int
    index_to: int


Frame = FlashblockFrame | CommittedFrame | RefusedFrame | SealedFrame | LeadershipFrame | HealthFrame | AnnounceGapFrame

KINDS: dict[str, type[Frame]] = {
    "flashblock": FlashblockFrame,
    "committed": CommittedFrame,
    "refused": RefusedFrame,
    "sealed": SealedFrame,
    "leadership": LeadershipFrame,
    "health": HealthFrame,
    "gap": AnnounceGapFrame,
}
NAMES = {kind: name for name, kind in KINDS.items()}


def frame_of(
    flashblock: Flashblock, body: bytes, parent_hash: bytes, epoch: int = 0, traceparent: str = ""
) -> FlashblockFrame:
    """Put the frame around a flashblock whose body was just encoded."""
    return FlashblockFrame(
        epoch,
        flashblock.number,
        flashblock.index,
        flashblock.payload_id,
        parent_hash,
        flashblock.diff.block_hash,
        body_digest(body),
        traceparent,
        body,
    )


def encode_frame(frame: Frame) -> bytes:
    """Pack a frame: (kind, field, field, …)."""
    if isinstance(frame, CommittedFrame):
        fields: tuple[object, ...] = (msgspec.structs.astuple(frame.frame),)
    else:
        fields = msgspec.structs.astuple(frame)
    packed: bytes = msgpack.packb((NAMES[type(frame)], *fields))
    return packed


def decode_frame(raw: bytes) -> Frame:
    """Unpack a frame and check its types and its digest; raises WireError."""
    if len(raw) > FRAME_SIZE_BYTES_MAX:
        raise WireError(f"frame: {len(raw)} bytes, at most {FRAME_SIZE_BYTES_MAX}")
    try:
        kind, *fields = msgpack.unpackb(raw, use_list=True)
        frame: Frame = msgspec.convert(fields, KINDS[kind])
    except Exception as error:  # whatever msgpack or msgspec found, the peer's bytes are at fault
        raise WireError(f"frame: {error!r}") from error
    flashblock = frame.frame if isinstance(frame, CommittedFrame) else frame
    if isinstance(flashblock, FlashblockFrame) and flashblock.digest != body_digest(flashblock.body):
        raise WireError("frame: the digest is not that of the body")
    return frame
