"""Follows the public stream of a proxy as frames, which carry the epoch and announced gaps."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.typing import Subprotocol

from flashblocks.wire.flashblock import decode_body
from flashblocks.wire.frames import FRAME_SIZE_BYTES_MAX, SUBPROTOCOL, AnnounceGapFrame, FlashblockFrame, decode_frame

CONNECT_S_MAX = 2.0
RETRY_S = 0.1


class SeenFlashblock(msgspec.Struct, frozen=True):
    """One flashblock as a subscriber sees it; *at* is the time of arrival in seconds since the epoch."""

    at: float
    epoch: int
    number: int
    index: int
    transactions: int
    gas_used: int  # of the block up to and with this flashblock
    size_bytes: int
    block_hash: str
    payload_id: str


class SeenGap(msgspec.Struct, frozen=True):
    """The proxy says that it cannot provide these flashblocks of a block."""

    at: float
    number: int
    index_from: int
    index_to: int


async def follow(urls: Sequence[str]) -> AsyncIterator[SeenFlashblock | SeenGap]:
    """Every flashblock from now on, from the first proxy that answers, for ever; reconnects and changes proxies."""
    turn = 0
    while True:
        try:
            async with connect(
                urls[turn % len(urls)],
                subprotocols=[Subprotocol(SUBPROTOCOL)],
                compression=None,
                max_size=4 * FRAME_SIZE_BYTES_MAX,
                open_timeout=CONNECT_S_MAX,
            ) as connection:
                async for event in _events(connection):
                    yield event
        except (OSError, ConnectionClosed, InvalidHandshake, TimeoutError):
            pass
        turn += 1
        await asyncio.sleep(RETRY_S)


async def _events(connection: ClientConnection) -> AsyncIterator[SeenFlashblock | SeenGap]:
    async for message in connection:
        if isinstance(message, str):
            continue
        frame = decode_frame(message)
        if isinstance(frame, FlashblockFrame):
            yield read(frame, time.time())
        elif isinstance(frame, AnnounceGapFrame):
            yield SeenGap(time.time(), frame.number, frame.index_from, frame.index_to)


def read(frame: FlashblockFrame, at: float) -> SeenFlashblock:
    """What a frame that arrived *at* says."""
    diff = decode_body(frame.body).diff
    return SeenFlashblock(
        at=at,
        epoch=frame.epoch,
        number=frame.number,
        index=frame.index,
        transactions=len(diff.transactions),
        gas_used=diff.gas_used,
        size_bytes=len(frame.body),
        block_hash="0x" + frame.block_hash.hex(),
        payload_id="0x" + frame.payload_id.hex(),
    )
