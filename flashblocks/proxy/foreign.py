"""Streams that are not ours: plain flashblock JSON, as text or binary, brotli-compressed or not, without an epoch."""

from typing import NamedTuple

import brotli
import msgspec

from flashblocks.proxy.ordering import Arrival
from flashblocks.wire.flashblock import Flashblock, encode_body
from flashblocks.wire.flashblock_json import decode_json
from flashblocks.wire.frames import FRAME_SIZE_BYTES_MAX, FlashblockFrame, frame_of
from flashblocks.wire.hexadecimal import WireError
from flashblocks.wire.keccak import keccak256

json_bytes_max = 2 * FRAME_SIZE_BYTES_MAX + 1024 * 1024
unknown_hash = bytes(32)


class Foreign(NamedTuple):
    """A foreign flashblock: our frame of it (epoch 0) and the JSON text exactly as it came."""

    frame: FlashblockFrame
    text: bytes


def plain_json(message: str | bytes) -> bytes:
    """Return the JSON text of a message; what does not begin with a brace is taken for brotli.

    Raises WireError for what is neither, and for a text that would grow beyond `json_bytes_max`.
    """
    if isinstance(message, str):
        return message.encode()
    if message.lstrip()[:1] == b"{":
        return message
    decompressor = brotli.Decompressor()
    try:
        text: bytes = decompressor.process(message, output_buffer_limit=json_bytes_max)
        finished = decompressor.is_finished()
    except brotli.error as error:
        raise WireError(f"neither JSON nor brotli: {error}") from None
    if not finished:
        raise WireError(f"brotli: cut short, or more than {json_bytes_max} bytes")
    return text


class ForeignStream:
    """Reads one upstream's messages. It remembers the open block's base, because only index 0 names the parent."""

    def __init__(self, upstream: int) -> None:
        self._upstream = upstream
        self._payload_id = b""
        self._parent_hash = b""

    def read(self, message: str | bytes) -> Arrival:
        """Turn a message into an arrival whose item is a `Foreign`; raises WireError."""
        text = plain_json(message)
        flashblock = decode_json(text)
        if flashblock.base is not None:
            self._payload_id = flashblock.payload_id
            self._parent_hash = flashblock.base.parent_hash
        parent_hash = self._parent_hash if flashblock.payload_id == self._payload_id else b""
        body = encode_body(_in_block_order(flashblock))
        frame = frame_of(flashblock, body, parent_hash or unknown_hash)
        # A stream without state roots (Base's builder) hashes a header that will never be a block.
        has_hash = any(flashblock.diff.state_root)
        return Arrival(
            self._upstream,
            None,
            frame.number,
            frame.index,
            frame.payload_id,
            parent_hash,
            frame.block_hash if has_hash else b"",
            frame.digest,
            Foreign(frame, text),
        )


def _in_block_order(flashblock: Flashblock) -> Flashblock:
    """Put the receipts in the order of the transactions.

    JSON maps have no order of their own, bodies do: without this the same flashblock from a stream of ours and from a
    foreign one would have two digests.
    """
    receipts = flashblock.metadata.receipts
    hashes = [keccak256(transaction) for transaction in flashblock.diff.transactions]
    ordered = {tx_hash: receipts[tx_hash] for tx_hash in hashes if tx_hash in receipts}
    metadata = msgspec.structs.replace(flashblock.metadata, receipts=ordered | receipts)
    return msgspec.structs.replace(flashblock, metadata=metadata)


def ours(upstream: int, frame: FlashblockFrame, *, replay: bool = False) -> Arrival:
    """Make the arrival of one of our own frames; its item is the frame.

    Epoch 0 is that of an upstream before any commit (a builder's or rollup-boost's port): it has no epoch to compare.
    """
    return Arrival(
        upstream,
        frame.epoch or None,
        frame.number,
        frame.index,
        frame.payload_id,
        frame.parent_hash,
        frame.block_hash,
        frame.digest,
        frame,
        replay,
    )
