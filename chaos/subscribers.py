"""Independent witnesses: subscribers that write down what the public stream tells them, and repair nothing.

A subscriber reads either the JSON text, as any consumer would, or the frames, which carry the epoch – at a proxy or at
a conductor's own door. It starts where the stream is and stays connected.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import orjson
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.typing import Subprotocol

from actors.fanout import LinkClientConnection
from chaos.history import Event, GapAnnounced, Link, Seen
from flashblocks.wire.flashblock import Flashblock, decode_body
from flashblocks.wire.flashblock_json import decode_json
from flashblocks.wire.frames import FRAME_SIZE_BYTES_MAX, SUBPROTOCOL, AnnounceGapFrame, FlashblockFrame, decode_frame
from flashblocks.wire.hexadecimal import data
from flashblocks.wire.keccak import keccak256

RETRY_S = 0.1
CONNECT_S_MAX = 5.0

Record = Callable[[Event], None]


class Subscriber:
    """One connection to a stream, kept up until cancelled; every message becomes an event of the history."""

    def __init__(self, name: str, url: str, record: Record, *, frames: bool, edge: bool = True) -> None:
        self.name, self.url = name, url
        self._record, self._frames, self._edge = record, frames, edge

    async def run(self) -> None:
        """Listen until cancelled. A lost connection is written down and opened again."""
        subprotocols = [Subprotocol(SUBPROTOCOL)] if self._frames else None
        while True:
            try:
                async with connect(
                    self.url,
                    subprotocols=subprotocols,
                    compression=None,
                    create_connection=LinkClientConnection,
                    max_size=4 * FRAME_SIZE_BYTES_MAX,
                    open_timeout=CONNECT_S_MAX,
                ) as websocket:
                    self._record(Link(time.time(), self.name, True))
                    async for message in websocket:
                        self._note(time.time(), message)
            except (OSError, ConnectionClosed, InvalidHandshake, TimeoutError):
                pass
            self._record(Link(time.time(), self.name, False))
            await asyncio.sleep(RETRY_S)

    def _note(self, at: float, message: str | bytes) -> None:
        if not self._frames:
            announced = _gap_in_text(at, self.name, message)
            self._record(announced or seen(at, self.name, decode_json(message), 0, self._edge))
            return
        frame = decode_frame(message if isinstance(message, bytes) else message.encode())
        if isinstance(frame, FlashblockFrame):
            self._record(seen(at, self.name, decode_body(frame.body), frame.epoch, self._edge))
        elif isinstance(frame, AnnounceGapFrame):
            self._record(GapAnnounced(at, self.name, frame.number, frame.index_from, frame.index_to))


def seen(at: float, source: str, flashblock: Flashblock, epoch: int, edge: bool) -> Seen:
    """Reduce a flashblock to what the checker needs."""
    base = flashblock.base
    return Seen(
        at,
        source,
        flashblock.number,
        flashblock.index,
        data(flashblock.payload_id),
        None if base is None else data(base.parent_hash),
        data(flashblock.diff.block_hash),
        tuple(data(keccak256(transaction)) for transaction in flashblock.diff.transactions),
        epoch,
        edge,
    )


def _gap_in_text(at: float, source: str, message: str | bytes) -> GapAnnounced | None:
    if b'"gap"' not in (message if isinstance(message, bytes) else message[:64].encode()):
        return None
    gap = orjson.loads(message).get("gap")
    if not isinstance(gap, dict):
        return None
    return GapAnnounced(at, source, int(gap["number"]), int(gap["index_from"]), int(gap["index_to"]))
