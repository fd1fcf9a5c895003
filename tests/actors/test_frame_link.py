import asyncio
import urllib.error
import urllib.request

import msgspec
import orjson
import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.utils import accept_key

from actors.fanout import LinkClientConnection, json_reply
from actors.frame_link import (
    FrameClient,
    FrameServer,
    frame_subprotocol,
    handshake_timeout_s,
    message_bytes_max,
)
from flashblocks.wire.flashblock import (
    Flashblock,
    FlashblockBase,
    FlashblockDiff,
    FlashblockMetadata,
    decode_body,
    encode_body,
)
from flashblocks.wire.flashblock_json import decode_json, encode_json
from flashblocks.wire.frames import FlashblockFrame, HealthFrame, decode_frame, encode_frame, frame_of
from tracing.context import TraceRoot

hash_a, hash_b = b"\xaa" * 32, b"\xbb" * 32


def flashblock_frame(number: int = 7, index: int = 0, transaction: bytes = b"\x02") -> FlashblockFrame:
    base = FlashblockBase(hash_a, hash_a, b"\x01" * 20, hash_a, number, 30_000_000, 1, b"", 7) if index == 0 else None
    diff = FlashblockDiff(hash_a, hash_a, bytes(256), 21_000, hash_b, (transaction,), hash_a)
    flashblock = Flashblock(b"\x04" * 8, index, base, diff, FlashblockMetadata(number))
    return frame_of(flashblock, encode_body(flashblock), hash_a, epoch=3)


class Inbox:
    """Collects what a callback got and lets a test wait for the n-th."""

    def __init__(self):
        self.items = []
        self._more = asyncio.Event()

    def __call__(self, *item):
        self.items.append(item[0] if len(item) == 1 else item)
        self._more.set()

    async def have(self, count):
        while len(self.items) < count:
            self._more.clear()
            await self._more.wait()
        return self.items


async def started(server):
    await server.start()
    return f"ws://127.0.0.1:{server.port}/ws"


async def get(server, path):
    def fetch():
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}") as reply:
                return reply.status, reply.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    return await asyncio.to_thread(fetch)


async def test_frames_travel_both_ways_unchanged():
    heard, offered, changes = Inbox(), Inbox(), Inbox()
    server = FrameServer("127.0.0.1", 0, on_frame=lambda peer, frame: heard(frame), on_peer=lambda p, up: offered(up))
    client = FrameClient(await started(server), incoming := Inbox(), changes)
    await client.start()
    assert await changes.have(1) == [True]
    assert client.connected
    frame = flashblock_frame()
    server.publish(frame)
    server.publish(HealthFrame(206, "no builder"))
    assert await incoming.have(2) == [frame, HealthFrame(206, "no builder")]
    assert client.send(frame)
    assert await heard.have(1) == [frame]
    await client.close()
    assert await offered.have(2) == [True, False]
    assert not client.send(frame)
    await server.close()


async def test_a_listener_without_our_subprotocol_gets_each_flashblock_as_json_text_only():
    server = FrameServer("127.0.0.1", 0, None)
    await server.start()
    async with connect(f"ws://127.0.0.1:{server.port}/whatever") as listener:
        server.publish(HealthFrame(200, ""))
        frame = flashblock_frame()
        server.publish(frame)
        text = await listener.recv()
        assert isinstance(text, str)
        assert text.encode() == encode_json(decode_body(frame.body))
        await listener.send("listeners have nothing to say")
        server.publish(flashblock_frame(index=1))
        assert orjson.loads(await listener.recv())["index"] == 1
    await server.close()


async def test_where_it_is_wanted_the_json_names_the_flashblocks_trace():
    server = FrameServer("127.0.0.1", 0, None, traceparent_in_metadata=True)
    await server.start()
    own = TraceRoot(7 << 64, 9).traceparent
    traced = msgspec.structs.replace(flashblock_frame(), traceparent=f"{own} {'ab' * 32}")
    async with connect(f"ws://127.0.0.1:{server.port}/whatever") as listener:
        server.publish(traced)
        server.publish(flashblock_frame(index=1))
        told, untold = [await listener.recv() for _ in range(2)]
    assert orjson.loads(told)["metadata"]["traceparent"] == own
    assert decode_json(told) == decode_body(traced.body)
    assert "traceparent" not in orjson.loads(untold)["metadata"]
    await server.close()


async def test_a_new_subscriber_is_greeted_before_anything_published_later():
    asked = []

    def greet(query):
        asked.append(query.start)
        return [flashblock_frame(index=0), flashblock_frame(index=1)]

    server = FrameServer("127.0.0.1", 0, greet=greet)
    incoming = Inbox()
    client = FrameClient(await started(server), incoming, start=lambda: (7, 1))
    await client.start()
    await incoming.have(1)
    server.publish(flashblock_frame(index=2))
    assert [frame.index for frame in await incoming.have(3)] == [0, 1, 2]
    async with connect(f"ws://127.0.0.1:{server.port}/ws?from=7") as listener:
        assert orjson.loads(await listener.recv())["index"] == 0
    assert asked == [(7, 1), (7, 0)]
    await client.close()
    await server.close()


async def test_a_reader_that_does_not_read_is_shed_with_1013_and_slows_nobody():
    server = FrameServer("127.0.0.1", 0, queue_messages_max=4)
    url = await started(server)
    client = FrameClient(url, incoming := Inbox(), changes := Inbox())
    await client.start()
    await changes.have(1)
    slow = await connect(url, max_queue=1, max_size=None, ping_interval=None)
    published = 0
    while server.counters.shed == 0:
        assert published < 200, "a full queue must shed its reader"
        server.publish(flashblock_frame(index=1, transaction=bytes(1_000_000)))
        published += 1
        await incoming.have(published)
    received = 0
    with pytest.raises(ConnectionClosed) as closed:
        while True:
            await slow.recv()
            received += 1
    assert closed.value.rcvd is not None and closed.value.rcvd.code == 1013
    assert "too slow" in closed.value.rcvd.reason
    assert 0 < received < published
    assert client.connected
    await client.close()
    await server.close()


async def test_a_stalled_handshake_keeps_nobody_waiting():
    server = FrameServer("127.0.0.1", 0)
    url = await started(server)
    _, stalled = await asyncio.open_connection("127.0.0.1", server.port)
    stalled.write(b"GET /ws HTTP/1.1\r\nHost: x\r\n")
    await stalled.drain()
    async with connect(url) as listener:
        await listener.ping()
    async with asyncio.timeout(handshake_timeout_s / 2):
        await server.close()  # which does not wait for the handshake either
    stalled.close()
    await stalled.wait_closed()


async def test_plain_http_on_the_same_port():
    ready = {"ready": False}
    routes = {"/readyz": lambda: json_reply(200 if ready["ready"] else 503, ready)}
    server = FrameServer("127.0.0.1", 0, routes=routes, peers_max=1)
    url = await started(server)
    assert await get(server, "/readyz") == (503, b'{"ready":false}')
    ready["ready"] = True
    assert await get(server, "/readyz") == (200, b'{"ready":true}')
    assert (await get(server, "/nothing"))[0] == 404
    assert await get(server, "/ws?from=seven") == (400, b'{"message":"from must be <block number>.<index>"}')
    async with connect(url):
        with pytest.raises(InvalidStatus) as refused:
            await connect(url)
        assert refused.value.response.status_code == 429
    assert server.counters.refused == 1
    await server.close()


async def test_a_malformed_frame_closes_its_sender_and_is_counted():
    server = FrameServer("127.0.0.1", 0, on_frame=lambda peer, frame: None)
    url = await started(server)
    good = encode_frame(flashblock_frame())
    async with connect(url, subprotocols=[frame_subprotocol]) as peer:
        await peer.send(good[:-1] + b"\xff")
        with pytest.raises(ConnectionClosed) as closed:
            await peer.recv()
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 1007
    assert server.counters.malformed == 1
    await server.close()


async def test_a_message_beyond_the_cap_ends_its_link_only():
    server = FrameServer("127.0.0.1", 0, on_frame=lambda peer, frame: None)
    url = await started(server)
    plain = {"create_connection": LinkClientConnection}
    async with connect(url, subprotocols=[frame_subprotocol], **plain) as peer, connect(url) as other:
        with pytest.raises(ConnectionClosed):
            await peer.send(bytes(message_bytes_max + 1))
            await peer.recv()
        server.publish(flashblock_frame())
        assert await other.recv()
    assert server.counters.received == 0
    await server.close()


async def test_the_client_comes_back_by_itself_and_says_what_it_missed():
    first = FrameServer("127.0.0.1", 0)
    url = await started(first)
    incoming, changes, last = Inbox(), Inbox(), [(0, 0)]
    client = FrameClient(url, incoming, changes, start=lambda: last[0])
    await client.start()
    await changes.have(1)
    port = first.port
    await first.close()
    assert await changes.have(2) == [True, False]
    assert not client.connected
    last[0] = (9, 4)
    asked = []
    second = FrameServer("127.0.0.1", port, greet=lambda query: asked.append(query.start) or [])
    await second.start()
    assert await changes.have(3) == [True, False, True]
    assert asked == [(9, 4)]
    await client.close()
    await second.close()


async def test_a_peer_that_hangs_is_noticed_by_its_silence():
    async def hang(reader, writer):
        request = await reader.readuntil(b"\r\n\r\n")
        key = request.partition(b"Sec-WebSocket-Key: ")[2].partition(b"\r\n")[0].decode()
        upgrade = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        writer.write(f"{upgrade}Sec-WebSocket-Accept: {accept_key(key)}\r\n\r\n".encode())
        await reader.read()
        writer.close()

    async with await asyncio.start_server(hang, "127.0.0.1", 0) as hung:
        url = f"ws://127.0.0.1:{hung.sockets[0].getsockname()[1]}/"
        client = FrameClient(url, Inbox(), changes := Inbox(), ping_interval_s=0.01, pong_timeout_s=0.05)
        await client.start()
        assert (await changes.have(2))[:2] == [True, False]
        await client.close()


async def test_messages_of_a_foreign_stream_are_handed_over_raw():
    async def speak(connection):
        await connection.send("text")
        await connection.send(b"binary")
        await connection.wait_closed()

    async with serve(speak, "127.0.0.1", 0, compression=None) as foreign:
        url = f"ws://127.0.0.1:{foreign.sockets[0].getsockname()[1]}/"
        client = FrameClient(url, frames := Inbox(), on_foreign=(raw := Inbox()))
        await client.start()
        assert await raw.have(2) == ["text", b"binary"]
        assert frames.items == []
        await client.close()


@pytest.mark.parametrize("side", ["server", "client"])
async def test_an_exception_out_of_a_callback_is_our_bug_and_ends_run(side):
    logged = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: logged.append(context))

    def broken(*_):
        raise ZeroDivisionError

    server = FrameServer("127.0.0.1", 0, on_frame=broken)
    url = await started(server)
    client = FrameClient(url, broken, changes := Inbox())
    await client.start()
    await changes.have(1)
    if side == "server":
        client.send(HealthFrame(200, ""))
        with pytest.raises(ZeroDivisionError):
            await server.run()
    else:
        server.publish(HealthFrame(200, ""))
        with pytest.raises(ZeroDivisionError):
            await client.run()
    assert logged
    await client.close()
    await server.close()


def test_a_frame_survives_its_encoding():
    frame = flashblock_frame()
    assert decode_frame(encode_frame(frame)) == frame
