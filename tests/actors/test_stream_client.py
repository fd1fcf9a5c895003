import asyncio
from contextlib import aclosing

import pytest
from websockets.asyncio.server import serve

from actors.fanout import json_reply, to_response
from actors.frame_link import FrameServer
from flashblocks.client import StreamRefused, preconfirmed, stream
from flashblocks.wire.flashblock import (
    Flashblock,
    FlashblockBase,
    FlashblockDiff,
    FlashblockMetadata,
    FlashblockReceipt,
    decode_body,
    encode_body,
)
from flashblocks.wire.flashblock_json import encode_json
from flashblocks.wire.frames import AnnounceGapFrame, frame_of
from flashblocks.wire.keccak import keccak256

root = b"\x05" * 32


def block_hash(number, index):
    return keccak256(b"%d.%d" % (number, index))


def frame(number, index, *, epoch=1, transactions=(), receipts=True):
    parent = block_hash(number - 1, 2)
    base = FlashblockBase(root, parent, b"\x01" * 20, root, number, 1, 2, b"", 7) if index == 0 else None
    diff = FlashblockDiff(root, root, bytes(256), 1, block_hash(number, index), tuple(transactions), root)
    made = {keccak256(raw): FlashblockReceipt(2, 1, 1) for raw in transactions} if receipts else {}
    flashblock = Flashblock(number.to_bytes(8, "big"), index, base, diff, FlashblockMetadata(number, {}, made))
    return frame_of(flashblock, encode_body(flashblock), parent, epoch)


class Proxy:
    """A frame server that keeps everything, and can go away and come back at the same port."""

    def __init__(self, kept=()):
        self.kept = list(kept)
        self.starts = []
        self.port = 0
        self.server = None

    async def __aenter__(self):
        await self.up()
        return self

    async def __aexit__(self, *_):
        await self.server.close()

    async def up(self):
        self.server = FrameServer("127.0.0.1", self.port, greet=self._greet)
        await self.server.start()
        self.port = self.server.port
        self.url = f"ws://127.0.0.1:{self.port}/ws"

    def _greet(self, query):
        self.starts.append(query.start)
        start = query.start or (self.kept[-1].number if self.kept else 0, 0)
        missing = [AnnounceGapFrame(*start, start[1])] if self.kept and start < self.kept[0].key else []
        return missing + [each for each in self.kept if each.key >= start]

    def publish(self, each):
        self.kept.append(each)
        self.server.publish(each)


async def take(flashblocks, count):
    taken = []
    while len(taken) < count:
        flashblock = await anext(flashblocks)
        taken.append((flashblock.number, flashblock.index))
    return taken


async def test_it_begins_with_the_open_block_and_loses_nothing_over_a_restart():
    keys = [(7, 0), (7, 1), (7, 2)]
    async with Proxy([frame(6, 0), *(frame(*key) for key in keys[:2])]) as proxy, aclosing(stream(proxy.url)) as it:
        assert await take(it, 2) == keys[:2]
        await proxy.server.close()
        proxy.kept += [frame(7, 2), frame(8, 0)]
        await proxy.up()
        assert await take(it, 2) == [(7, 2), (8, 0)]
        proxy.publish(frame(8, 1))
        assert await take(it, 1) == [(8, 1)]
        assert proxy.starts == [None, (7, 2)]


async def test_what_a_new_leader_repeats_is_not_repeated_to_the_program():
    async with Proxy([frame(7, 0)]) as proxy, aclosing(stream(proxy.url)) as it:
        assert await take(it, 1) == [(7, 0)]
        for key in ((7, 0), (7, 1)):
            proxy.server.publish(frame(*key, epoch=2))
        assert await take(it, 1) == [(7, 1)]


async def test_it_begins_where_it_is_told_to_and_tells_what_is_no_longer_kept():
    gaps = []
    kept = [frame(n, i) for n in (7, 8) for i in range(3)]
    async with Proxy(kept) as proxy:
        async with aclosing(stream(proxy.url, (7, 1), on_gap=lambda *gap: gaps.append(gap))) as it:
            assert await take(it, 3) == [(7, 1), (7, 2), (8, 0)]
        assert gaps == []
        async with aclosing(stream(proxy.url, (3, 4), on_gap=lambda *gap: gaps.append(gap))) as it:
            assert await take(it, 1) == [(7, 0)]
        assert gaps == [(3, 4, 4)]
        async with aclosing(stream(proxy.url, (8, 0), on_gap=lambda *gap: gaps.append(gap))) as it:
            await take(it, 3)
            proxy.server.publish(frame(10, 0))
            assert await take(it, 1) == [(10, 0)]
        assert gaps[1:] == [(9, 0, 0)]


async def test_a_foreign_stream_of_json_text_will_do():
    async def speak(connection):
        for index in range(3):
            await connection.send(encode_json(decode_body(frame(7, index).body)).decode())
        await connection.send("noise")
        await connection.wait_closed()

    async with serve(speak, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with aclosing(stream(f"ws://127.0.0.1:{port}/any?key=1")) as it:
            assert await take(it, 3) == [(7, 0), (7, 1), (7, 2)]


async def test_a_refusal_for_good_is_an_error_and_a_full_house_is_waited_out():
    answers = [429, 503]

    def refuse(connection, request):
        if request.path.startswith("/ws/guess"):
            return to_response(json_reply(401, {"message": "Invalid API key"}))
        return to_response(json_reply(answers.pop(0), {})) if answers else None

    async def speak(connection):
        await connection.send(encode_json(decode_body(frame(7, 0).body)).decode())
        await connection.wait_closed()

    async with serve(speak, "127.0.0.1", 0, process_request=refuse) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/ws"
        with pytest.raises(StreamRefused, match=r"401.*Invalid API key"):
            await anext(stream(url + "/guess"))
        async with aclosing(stream(url)) as it:
            assert await take(it, 1) == [(7, 0)]
        assert answers == []


@pytest.mark.parametrize("receipts", [True, False])
@pytest.mark.parametrize("spelling", [bytes, lambda raw: "0x" + raw.hex()])
async def test_a_preconfirmation_is_found_before_and_after_it_happens(receipts, spelling):
    early, late = b"\x02early", b"\x02late"
    kept = [frame(6, 1, transactions=(b"\x02", early), receipts=receipts), frame(7, 0)]
    async with Proxy(kept) as proxy:
        found = await preconfirmed(proxy.url, spelling(keccak256(early)), 5)
        assert (found.number, found.index, found.receipt is not None) == (6, 1, receipts)
        waiting = asyncio.create_task(preconfirmed(proxy.url, spelling(keccak256(late)), 5))
        proxy.publish(frame(7, 1, transactions=(late,), receipts=receipts))
        found = await waiting
        assert (found.number, found.index) == (7, 1)


async def test_a_transaction_that_does_not_come_times_out():
    async with Proxy([frame(7, 0)]) as proxy:
        with pytest.raises(TimeoutError):
            await preconfirmed(proxy.url, b"\x01" * 32, timeout_s=0.05)
