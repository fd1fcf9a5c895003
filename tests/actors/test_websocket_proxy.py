import asyncio
import urllib.error
import urllib.request

import brotli
import msgspec
import orjson
import pytest
import structlog
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed, InvalidStatus

from actors.fanout import LinkClientConnection
from actors.frame_link import FrameServer
from actors.websocket_proxy import Settings, WebsocketProxy
from flashblocks.wire.flashblock import (
    Flashblock,
    FlashblockBase,
    FlashblockDiff,
    FlashblockLog,
    FlashblockMetadata,
    FlashblockReceipt,
    decode_body,
    encode_body,
)
from flashblocks.wire.flashblock_json import encode_json
from flashblocks.wire.frames import AnnounceGapFrame, FlashblockFrame, decode_frame, frame_of
from flashblocks.wire.keccak import keccak256
from tracing.context import TraceRoot
from tracing.stages import METRIC

alice, token, topic = b"\xa1" * 20, b"\x70" * 20, b"\x01" * 32
last_index = 2


def block_hash(number, index):
    return keccak256(b"%d.%d" % (number, index))


def flashblock_frame(number, index, *, epoch=1, transaction=None, logs=(), size=0) -> FlashblockFrame:
    transaction = transaction or b"\x02" + bytes([number % 256, index]) + bytes(size)
    receipt = FlashblockReceipt(2, 1, 21_000, logs)
    parent, root = block_hash(number - 1, last_index), b"\x05" * 32
    base = FlashblockBase(root, parent, alice, root, number, 30_000_000, number * 2, b"", 7) if index == 0 else None
    diff = FlashblockDiff(root, root, bytes(256), 21_000, block_hash(number, index), (transaction,), root)
    metadata = FlashblockMetadata(number, {}, {keccak256(transaction): receipt})
    flashblock = Flashblock(b"\x04" + number.to_bytes(7, "big"), index, base, diff, metadata)
    return frame_of(flashblock, encode_body(flashblock), parent, epoch)


def text_of(frame):
    return encode_json(decode_body(frame.body)).decode()


def place(message):
    obj = orjson.loads(message)
    return obj["metadata"]["block_number"], obj["index"]


class Conductor:
    """A real frame server over a ledger in memory: publishes, and replays with `?from=`."""

    def __init__(self, resumable=True):
        self.ledger = []
        self.starts = []
        self.resumable = resumable
        self.server = FrameServer("127.0.0.1", 0, greet=self._greet, on_peer=lambda *_: self._changed.set())
        self._changed = asyncio.Event()

    def _greet(self, query):
        self.starts.append(query.start)
        if query.start is None or not self.resumable:
            return []
        return [frame for frame in self.ledger if frame.key >= query.start]

    async def start(self):
        await self.server.start()
        return f"ws://127.0.0.1:{self.server.port}/ws"

    async def have_peers(self, count):
        while len(self.server.peers) < count:
            self._changed.clear()
            await self._changed.wait()

    def publish(self, *frames):
        self.ledger += frames
        for frame in frames:
            self.server.publish(frame)


class Cluster:
    """Some conductors and one proxy in front of them."""

    def __init__(self, conductors=1, **settings):
        self.conductors = [Conductor() for _ in range(conductors)]
        self._settings = settings

    async def __aenter__(self):
        urls = [await conductor.start() for conductor in self.conductors]
        self.proxy = WebsocketProxy(Settings(port=0, upstream_ws=urls, **self._settings), structlog.get_logger())
        await self.proxy.start()
        for conductor in self.conductors:
            await conductor.have_peers(1)
        self.url = f"ws://127.0.0.1:{self.proxy.port}/ws"
        return self

    async def __aexit__(self, *_):
        await self.proxy.close()
        for conductor in self.conductors:
            await conductor.server.close()

    async def get(self, path, headers=None):
        request = urllib.request.Request(f"http://127.0.0.1:{self.proxy.port}{path}", headers=headers or {})

        def fetch():
            try:
                with urllib.request.urlopen(request) as reply:
                    return reply.status, reply.read()
            except urllib.error.HTTPError as error:
                with error:
                    return error.code, error.read()

        return await asyncio.to_thread(fetch)


@pytest.fixture(autouse=True)
def quiet():
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    yield
    structlog.reset_defaults()


async def test_the_stream_is_json_text_exactly_as_specified():
    async with Cluster() as cluster, connect(cluster.url) as client:
        frames = [flashblock_frame(7, 0), flashblock_frame(7, 1)]
        cluster.conductors[0].publish(*frames)
        assert [await client.recv() for _ in frames] == [text_of(frame) for frame in frames]


async def test_every_format_by_subprotocol_and_by_query():
    async with Cluster() as cluster:
        frame = flashblock_frame(7, 0)
        text = text_of(frame)
        unpack = {
            "flashblocks.frame.v1": lambda m: text_of(decode_frame(m)),
            "flashblocks.json.v1": lambda m: m,
            "flashblocks.json-binary.v1": bytes.decode,
            "flashblocks.json-brotli.v1": lambda m: brotli.decompress(m).decode(),
        }
        for name, read in unpack.items():
            async with connect(cluster.url, subprotocols=[name]) as client:
                assert client.subprotocol == name
                if not cluster.proxy.status()["stream"]["delivered"]:
                    cluster.conductors[0].publish(frame)
                assert read(await client.recv()) == text
        async with connect(cluster.url + "?format=brotli", subprotocols=["soap"]) as client:
            assert client.subprotocol is None
            assert brotli.decompress(await client.recv()).decode() == text
        assert (await cluster.get("/ws?format=xml"))[0] == 400


@pytest.mark.parametrize("option", ["enable_compression", "binary_messages"])
async def test_the_operator_chooses_the_format_of_those_who_ask_for_none(option):
    async with Cluster(**{option: True}) as cluster, connect(cluster.url) as client:
        cluster.conductors[0].publish(frame := flashblock_frame(7, 0))
        message = await client.recv()
        assert isinstance(message, bytes)
        unpacked = brotli.decompress(message) if option == "enable_compression" else message
        assert unpacked.decode() == text_of(frame)


@pytest.mark.parametrize("wanted", [False, True])
async def test_subscribers_of_json_are_told_the_trace_only_where_that_is_wanted(wanted):
    own = TraceRoot(7 << 64, 9).traceparent
    frame = msgspec.structs.replace(flashblock_frame(7, 0), traceparent=f"{own} {'ab' * 32}")
    async with Cluster(traceparent_in_metadata=wanted) as cluster, connect(cluster.url) as client:
        cluster.conductors[0].publish(frame)
        text = await client.recv()
    assert text == encode_json(decode_body(frame.body), own if wanted else "").decode()
    assert orjson.loads(text)["metadata"].get("traceparent") == (own if wanted else None)


async def test_the_fan_outs_duration_has_its_trace_as_exemplar(tmp_path):
    own = TraceRoot(7 << 64, 9)
    frame = msgspec.structs.replace(flashblock_frame(7, 0), traceparent=own.traceparent)
    async with Cluster(data_dir=str(tmp_path)) as cluster, connect(cluster.url) as client:
        cluster.conductors[0].publish(frame)
        await client.recv()
        plain = (await cluster.get("/metrics"))[1].decode()
        text = (await cluster.get("/metrics", {"Accept": "application/openmetrics-text"}))[1].decode()
    assert "# TYPE websocket_proxy_sent_messages counter\n" in plain and "trace_id" not in plain
    assert "\nwebsocket_proxy_message_send_duration_count 1\n" in plain
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert families["websocket_proxy_sent_messages"].samples[0].value == 1
    exemplars = [sample.exemplar for sample in families[METRIC].samples if sample.exemplar is not None]
    assert [exemplar.labels for exemplar in exemplars] == [{"trace_id": f"{own.trace_id:032x}"}]


async def test_a_leader_dies_and_the_subscriber_sees_each_flashblock_once():
    async with Cluster(conductors=2) as cluster, connect(cluster.url) as client:
        old, new = cluster.conductors
        old.publish(*(flashblock_frame(7, i) for i in range(2)))
        assert [place(await client.recv()) for _ in range(2)] == [(7, 0), (7, 1)]
        await old.server.close()
        new.publish(*(flashblock_frame(7, i, epoch=2) for i in range(3)), flashblock_frame(8, 0, epoch=2))
        assert [place(await client.recv()) for _ in range(2)] == [(7, 2), (8, 0)]
        status = cluster.proxy.status()
        assert (status["epoch"], status["stream"]["duplicates"]) == (2, 2)
        assert status["stream"]["gaps"] == 0


async def test_a_gap_is_filled_over_a_second_link_without_touching_the_first():
    async with Cluster(conductors=1) as cluster, connect(cluster.url) as client:
        conductor = cluster.conductors[0]
        conductor.publish(flashblock_frame(7, 0))
        lost = flashblock_frame(7, 1)
        conductor.ledger.append(lost)
        conductor.publish(flashblock_frame(7, 2))
        assert [place(await client.recv()) for _ in range(3)] == [(7, 0), (7, 1), (7, 2)]
        assert conductor.starts == [None, (0, 0), (7, 1)]  # its stream, the history of a fresh proxy, the gap
        assert cluster.proxy.status()["stream"]["gaps_filled"] == 1


async def test_a_gap_that_nobody_can_fill_is_announced_to_those_who_understand():
    async with (
        Cluster(gap_wait_ms=30) as cluster,
        connect(cluster.url, subprotocols=["flashblocks.frame.v1"]) as ours,
        connect(cluster.url + "?announce=1") as curious,
        connect(cluster.url) as plain,
    ):
        conductor = cluster.conductors[0]
        conductor.resumable = False
        conductor.publish(flashblock_frame(7, 0), flashblock_frame(7, 3))
        assert decode_frame(await ours.recv()).key == (7, 0)
        assert decode_frame(await ours.recv()) == AnnounceGapFrame(7, 1, 2)
        assert decode_frame(await ours.recv()).key == (7, 3)
        await curious.recv()
        gap = {"gap": {"block_number": 7, "index_from": 1, "index_to": 2}}
        assert orjson.loads(await curious.recv()) == gap
        assert [place(await plain.recv()) for _ in range(2)] == [(7, 0), (7, 3)]


async def test_joining_mid_block_and_resuming():
    async with Cluster() as cluster:
        published = [flashblock_frame(n, i) for n in (7, 8) for i in range(3)]
        cluster.conductors[0].publish(*published)
        async with connect(cluster.url) as client:
            assert [place(await client.recv()) for _ in range(3)] == [(8, 0), (8, 1), (8, 2)]
            cluster.conductors[0].publish(flashblock_frame(9, 0))
            assert place(await client.recv()) == (9, 0)
        async with connect(cluster.url + "?from=7.1") as client:
            assert [place(await client.recv()) for _ in range(3)] == [(7, 1), (7, 2), (8, 0)]
        async with connect(cluster.url + "?from=3.0", subprotocols=["flashblocks.frame.v1"]) as client:
            assert decode_frame(await client.recv()) == AnnounceGapFrame(3, 0, 0)
            assert decode_frame(await client.recv()).key == (7, 0)


async def test_a_proxy_that_just_started_knows_the_blocks_before():
    """So that a subscriber who resumes does not notice the restart of a proxy, whichever conductor it asks."""
    conductors = [Conductor() for _ in range(3)]
    urls = [await conductor.start() for conductor in conductors]
    past = [flashblock_frame(n, i) for n in (5, 6, 7) for i in range(3)]
    conductors[0].ledger, conductors[1].ledger = list(past), list(past)  # the third one has lost its memory
    proxy = WebsocketProxy(Settings(port=0, upstream_ws=urls, backlog_blocks=3), structlog.get_logger())
    await proxy.start()
    async with connect(f"ws://127.0.0.1:{proxy.port}/ws?from=6.2") as resuming:
        for conductor in conductors:
            await conductor.have_peers(1)
        conductors[0].publish(flashblock_frame(8, 0))
        assert [place(await resuming.recv()) for _ in range(5)] == [(6, 2), (7, 0), (7, 1), (7, 2), (8, 0)]
    async with connect(f"ws://127.0.0.1:{proxy.port}/ws") as fresh:
        assert place(await fresh.recv()) == (8, 0)
    async with connect(f"ws://127.0.0.1:{proxy.port}/ws?from=5.1&announce=1") as late:
        assert orjson.loads(await late.recv())["gap"]["block_number"] == 5
        assert place(await late.recv()) == (6, 0)
    await proxy.close()
    for conductor in conductors:
        await conductor.server.close()


async def test_one_who_resumes_ahead_of_a_proxy_that_catches_up_is_told_nothing_twice():
    async with Cluster() as cluster:
        conductor = cluster.conductors[0]
        conductor.publish(flashblock_frame(7, 0))
        async with connect(cluster.url) as other, connect(cluster.url + "?from=7.2") as ahead:
            assert place(await other.recv()) == (7, 0)
            conductor.publish(flashblock_frame(7, 1))
            assert place(await other.recv()) == (7, 1)
            conductor.publish(flashblock_frame(7, 2))
            assert place(await ahead.recv()) == (7, 2)


async def test_a_slow_subscriber_is_closed_with_1013_and_can_resume():
    async with Cluster(message_buffer_size=2) as cluster, connect(cluster.url, max_size=None) as quick:
        # A subscriber whose buffers are full after a few messages, because nobody takes them out.
        slow = await connect(cluster.url, max_queue=1, max_size=None, create_connection=LinkClientConnection)
        index = 0
        while not cluster.proxy.status()["serving"]["lagged_connections"]:
            assert index < 200
            cluster.conductors[0].publish(flashblock_frame(7, index, size=500_000))
            assert place(await quick.recv()) == (7, index)
            index += 1
        seen = []
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                seen.append(place(await slow.recv()))
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 1013
        assert "resume" in closed.value.rcvd.reason
        assert seen == [(7, i) for i in range(len(seen))]
        async with connect(f"{cluster.url}?from=7.{len(seen)}", max_size=None) as again:
            assert place(await again.recv()) == (7, len(seen))


async def test_a_socket_that_stays_full_is_given_up_by_time_too():
    async with Cluster(message_buffer_size=1000, client_send_timeout_ms=0) as cluster:
        stuck = await connect(cluster.url, max_queue=1, max_size=None, create_connection=LinkClientConnection)
        index = 0
        async with connect(cluster.url, max_size=None) as quick:
            while not cluster.proxy.status()["serving"]["lagged_connections"]:
                assert index < 200
                cluster.conductors[0].publish(flashblock_frame(7, index, size=500_000))
                assert place(await quick.recv()) == (7, index)
                index += 1
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                await stuck.recv()
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 1013


async def test_a_proxy_may_stand_behind_a_proxy():
    async with Cluster() as cluster:
        second = WebsocketProxy(Settings(port=0, upstream_ws=[cluster.url]), structlog.get_logger())
        await second.start()
        conductor = cluster.conductors[0]
        async with connect(f"ws://127.0.0.1:{second.port}/ws", subprotocols=["flashblocks.frame.v1"]) as client:
            frames = [flashblock_frame(7, i) for i in range(3)]
            conductor.publish(*frames)
            assert [decode_frame(await client.recv()) for _ in frames] == frames
        assert second.status()["upstreams"][0]["frames"]
        await second.close()


async def test_limits_answer_before_the_upgrade_and_free_their_slots():
    keys = ["shop:k1:1", "desk:k2"]
    async with Cluster(api_keys=keys, instance_connection_limit=3, per_ip_connection_limit=2) as cluster:
        assert await cluster.get("/ws") == (404, b'{"message":"not found"}')
        assert await cluster.get("/ws/guess") == (401, b'{"message":"Invalid API key"}')
        from_elsewhere = {"additional_headers": {"X-Forwarded-For": "10.0.0.1, 10.0.0.2"}}
        refused = {}
        async with connect(cluster.url + "/k1"), connect(cluster.url + "/k2") as second:
            for key, extra in (("k1", from_elsewhere), ("k2", {})):
                with pytest.raises(InvalidStatus) as error:
                    await connect(f"{cluster.url}/{key}", **extra)
                refused[key] = (error.value.response.status_code, orjson.loads(error.value.response.body)["message"])
            assert refused == {"k1": (429, "App limit exceeded"), "k2": (429, "IP limit exceeded")}
            async with connect(cluster.url + "/k2", **from_elsewhere):
                with pytest.raises(InvalidStatus) as error:
                    await connect(cluster.url + "/k2", **from_elsewhere)
                assert orjson.loads(error.value.response.body)["message"] == "Global limit"
            await second.close()
            async with connect(cluster.url + "/k2"):
                pass
        metrics = (await cluster.get("/metrics"))[1].decode()
        assert "\nwebsocket_proxy_unauthorized_requests 1\n" in metrics
        assert "\nwebsocket_proxy_rate_limited_requests 3\n" in metrics
        assert "\nwebsocket_proxy_per_ip_rate_limited_requests 1\n" in metrics
        assert "\nwebsocket_proxy_global_rate_limited_requests 1\n" in metrics
        assert "\nwebsocket_proxy_broadcast_queue_size 0\n" in metrics
        assert "\nwebsocket_proxy_message_send_duration_count 0\n" in metrics
        assert '\nwebsocket_proxy_connections_by_app{app="shop"}' in metrics


async def test_a_request_that_never_becomes_a_websocket_frees_its_slot():
    async with Cluster(instance_connection_limit=1) as cluster:
        for _ in range(3):
            assert (await cluster.get("/ws"))[0] == 426
        async with connect(cluster.url):
            pass


async def test_filters_match_the_receipts_of_today():
    log = FlashblockLog(token, (topic,), b"")
    async with (
        Cluster(api_keys=["desk:k"]) as cluster,
        connect(f"{cluster.url}/k/filter?addresses=0x{token.hex()}") as by_emitter,
        connect(f"{cluster.url}/k/filter?topics=0x{topic.hex()}&addresses=0x{alice.hex()}&match=all") as by_all,
    ):
        to_alice = b"\x02" + alice
        cluster.conductors[0].publish(
            flashblock_frame(7, 0),
            flashblock_frame(7, 1, logs=(log,)),
            flashblock_frame(7, 2, logs=(log,), transaction=to_alice),
        )
        assert place(await by_emitter.recv()) == (7, 1)
        assert place(await by_emitter.recv()) == (7, 2)
        assert place(await by_all.recv()) == (7, 2)
        assert (await cluster.get("/ws/k/filter?addresses=0x12"))[0] == 400


async def test_probes_tell_the_truth():
    async with Cluster(stale_after_ms=60_000) as cluster:
        assert (await cluster.get("/healthz"))[0] == 200
        code, body = await cluster.get("/readyz")
        assert (code, orjson.loads(body)["reason"]) == (503, "no flashblock yet")
        async with connect(cluster.url) as client:
            cluster.conductors[0].publish(flashblock_frame(7, 0))
            await client.recv()
        assert (await cluster.get("/readyz"))[0] == 200
        status = orjson.loads((await cluster.get("/status"))[1])
        assert (status["number"], status["index"], status["epoch"]) == (7, 0, 1)
        await cluster.conductors[0].server.close()
        while cluster.proxy.status()["upstreams"][0]["connected"]:
            assert (await cluster.get("/livez"))[0] == 200
        assert (await cluster.get("/healthz"))[0] == 503
        assert orjson.loads((await cluster.get("/readyz"))[1])["reason"] == "no upstream is connected"
        assert (await cluster.get("/livez"))[0] == 200


async def test_foreign_upstreams_text_binary_and_brotli_are_one_stream():
    frames = [flashblock_frame(7, i, epoch=0) for i in range(3)]
    texts = [text_of(frame) for frame in frames]
    send = asyncio.Event()

    async def speak(connection):
        form = connection.request.path
        await send.wait()
        await connection.send(b"not a flashblock")
        for text in texts:
            packed = brotli.compress(text.encode(), quality=1)
            await connection.send({"/text": text, "/binary": text.encode(), "/brotli": packed}[form])
        await connection.wait_closed()

    async with serve(speak, "127.0.0.1", 0, compression=None) as foreign:
        port = foreign.sockets[0].getsockname()[1]
        urls = [f"ws://127.0.0.1:{port}/{form}" for form in ("text", "binary", "brotli")]
        proxy = WebsocketProxy(Settings(port=0, upstream_ws=urls), structlog.get_logger())
        await proxy.start()
        async with connect(f"ws://127.0.0.1:{proxy.port}/ws") as client:
            send.set()
            assert [await client.recv() for _ in frames] == texts
        async with connect(f"ws://127.0.0.1:{proxy.port}/ws", subprotocols=["flashblocks.frame.v1"]) as client:
            assert [decode_frame(await client.recv()) for _ in frames] == frames
        await proxy.close()
