"""Following a stream over real sockets: frames read, a dead proxy left for the next one."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from actors.frame_link import FrameServer
from cli.stream import SeenFlashblock, SeenGap, follow
from flashblocks.wire.flashblock import Flashblock, FlashblockBase, FlashblockDiff, FlashblockMetadata, encode_body
from flashblocks.wire.frames import AnnounceGapFrame, FlashblockFrame, frame_of

HASH = b"\xaa" * 32


def frame(number: int, index: int) -> FlashblockFrame:
    base = FlashblockBase(HASH, HASH, b"\x01" * 20, HASH, number, 30_000_000, 1, b"", 7) if index == 0 else None
    diff = FlashblockDiff(HASH, HASH, bytes(256), 42_000, b"\xbb" * 32, (b"\x02", b"\x02\x03"), HASH)
    flashblock = Flashblock(b"\x04" * 8, index, base, diff, FlashblockMetadata(number))
    return frame_of(flashblock, encode_body(flashblock), HASH, epoch=5)


@pytest.fixture
async def server() -> AsyncIterator[FrameServer]:
    greeting = [frame(9, 0), AnnounceGapFrame(9, 1, 2), frame(9, 3)]
    server = FrameServer("127.0.0.1", 0, greet=lambda query: greeting)
    await server.start()
    yield server
    await server.close()


async def test_flashblocks_and_gaps_are_read(server: FrameServer) -> None:
    events = follow([f"ws://127.0.0.1:{server.port}/ws"])
    first, gap, second = [await anext(events) for _ in range(3)]
    await events.aclose()
    assert isinstance(first, SeenFlashblock)
    assert (first.number, first.index, first.epoch, first.transactions, first.gas_used) == (9, 0, 5, 2, 42_000)
    assert first.block_hash == "0x" + "bb" * 32
    assert first.payload_id == "0x" + "04" * 8
    assert isinstance(gap, SeenGap)
    assert (gap.number, gap.index_from, gap.index_to) == (9, 1, 2)
    assert isinstance(second, SeenFlashblock)
    assert second.index == 3


async def test_a_proxy_that_does_not_answer_is_left_for_the_next(server: FrameServer) -> None:
    dead = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    port = dead.sockets[0].getsockname()[1]
    dead.close()
    await dead.wait_closed()
    events = follow([f"ws://127.0.0.1:{port}/ws", f"ws://127.0.0.1:{server.port}/ws"])
    event = await anext(events)
    await events.aclose()
    assert isinstance(event, SeenFlashblock)
