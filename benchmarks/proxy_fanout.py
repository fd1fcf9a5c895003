"""One flashblock to many subscribers: the websocket-proxy beside `websockets.broadcast` and beside bare sockets.

    python benchmarks/proxy_fanout.py --subscribers 1000 --kilobytes 20

The server runs in this process, on one core; the subscribers are raw sockets in a second process, which does nothing
but read and note the time. Delivery is measured from before the upstream publishes (for the proxy this includes the
upstream link, the ordering and the JSON) to the last byte at a subscriber. Rounds of all three alternate. `bare send`
does nothing but one `send` of the finished message per socket: what the kernel alone costs, in any language.
"""

import argparse
import array
import asyncio
import json
import resource
import select
import socket
import statistics
import struct
import subprocess
import sys
import time
from typing import ClassVar

import structlog
from websockets.asyncio.server import broadcast, serve

from actors.fanout import text_message
from actors.frame_link import FrameServer
from actors.websocket_proxy import Settings, WebsocketProxy
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
from flashblocks.wire.frames import frame_of
from flashblocks.wire.keccak import keccak256

transfer_bytes = 110
indices_per_block = 11
handshake = (
    "GET /ws{query} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def make_frames(rounds: int, kilobytes: int):
    """Flashblocks of transfers whose JSON has about the wanted size, in blocks of eleven."""
    root, frames = b"\x05" * 32, []
    for number in range(rounds):
        block, index = divmod(number, indices_per_block)
        transactions: list[bytes] = []
        receipts = {}
        while len(transactions) * (2 * transfer_bytes + 150) < kilobytes * 1000 - 1800:
            raw = b"\x02" + struct.pack(">QQ", number, len(transactions)) + bytes(range(transfer_bytes - 17))
            transactions.append(raw)
            receipts[keccak256(raw)] = FlashblockReceipt(2, 1, 21_000 * len(transactions))
        base = FlashblockBase(root, root, b"\x01" * 20, root, block, 1, 2, b"", 7) if index == 0 else None
        diff = FlashblockDiff(root, root, bytes(256), 1, root, tuple(transactions), root)
        flashblock = Flashblock(block.to_bytes(8, "big"), index, base, diff, FlashblockMetadata(block, {}, receipts))
        frames.append(frame_of(flashblock, encode_body(flashblock), root, epoch=1))
    return frames


def read_everything(port: int, count: int, messages: int, query: str) -> None:
    """The subscribers' process: note when the last byte of each message came, per subscriber; write it to stdout."""
    poll = select.epoll()
    readers: dict[int, tuple[socket.socket, list[int]]] = {}
    for _ in range(count):
        connection = socket.create_connection(("127.0.0.1", port))
        connection.sendall(handshake.format(query=query).encode())
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            answer += connection.recv(1)
        assert b" 101 " in answer, answer
        connection.setblocking(False)
        readers[connection.fileno()] = (connection, [0])
        poll.register(connection.fileno(), select.EPOLLIN)
    sys.stdout.buffer.write(b"R")
    sys.stdout.buffer.flush()
    times = array.array("q")
    buffer = memoryview(bytearray(1 << 18))
    left = {fd: 0 for fd in readers}
    heads = {fd: b"" for fd in readers}
    due = count * messages
    while len(times) < due:
        for fd, _ in poll.poll():
            size = readers[fd][0].recv_into(buffer)
            assert size, "closed by the server"
            at = 0
            while at < size:
                if left[fd] == 0:
                    heads[fd] += bytes(buffer[at : at + 1])
                    at += 1
                    left[fd] = message_length(heads[fd])
                    if left[fd]:
                        heads[fd] = b""
                    continue
                step = min(left[fd], size - at)
                left[fd] -= step
                at += step
                if left[fd] == 0:
                    times.append(time.monotonic_ns())
    sys.stdout.buffer.write(times.tobytes())


def message_length(head: bytes) -> int:
    """The payload length of an unmasked frame once its head is complete, else 0."""
    if len(head) < 2:
        return 0
    if head[1] < 126:
        return head[1]
    if head[1] == 126:
        return struct.unpack(">H", head[2:4])[0] if len(head) == 4 else 0
    return struct.unpack(">Q", head[2:10])[0] if len(head) == 10 else 0


class Audience:
    """The second process."""

    def __init__(self, port: int, count: int, messages: int, query: str = "") -> None:
        arguments = [sys.executable, __file__, "--read", str(port), str(count), str(messages), query]
        self._count = count
        self._process = subprocess.Popen(arguments, stdout=subprocess.PIPE)

    async def ready(self) -> None:
        assert await asyncio.to_thread(self._process.stdout.read, 1) == b"R"

    async def times_ns(self) -> list[list[int]]:
        """Per message the times at which the subscribers had it."""
        raw, _ = await asyncio.to_thread(self._process.communicate)
        times = sorted(array.array("q", raw))
        return [times[i : i + self._count] for i in range(0, len(times), self._count)]


async def paced(rounds: int, interval_s: float, publish) -> tuple[list[int], float]:
    """Publish at a steady pace; returns the times before each publication and the CPU seconds of this process."""
    began_at, cpu = [], time.process_time()
    for number in range(rounds):
        began_at.append(time.monotonic_ns())
        publish(number)
        await asyncio.sleep(interval_s)
    return began_at, time.process_time() - cpu


async def run_proxy(frames, options) -> tuple[list[float], float]:
    connected = asyncio.Event()
    upstream = FrameServer("127.0.0.1", 0, on_peer=lambda *_: connected.set())
    await upstream.start()
    settings = Settings(
        port=0,
        upstream_ws=[f"ws://127.0.0.1:{upstream.port}/ws"],
        instance_connection_limit=1_000_000,
        per_ip_connection_limit=0,
        client_ping_enabled=False,
    )
    proxy = WebsocketProxy(settings, structlog.get_logger())
    await proxy.start()
    await connected.wait()
    query = f"?format={options.format}"
    audience = Audience(proxy.port, options.subscribers, len(frames), query)
    await audience.ready()
    began_at, cpu_s = await paced(len(frames), options.interval_ms / 1000, lambda n: upstream.publish(frames[n]))
    times = await audience.times_ns()
    assert proxy.status()["serving"]["lagged_connections"] == 0
    await proxy.close()
    await upstream.close()
    return delays_ms(began_at, times), cpu_s


async def run_reference(frames, options) -> tuple[list[float], float]:
    texts = [encode_json(decode_body(frame.body)) for frame in frames]

    async def hold(connection):
        await connection.wait_closed()

    async with serve(hold, "127.0.0.1", 0, compression=None, ping_interval=None) as server:
        port = server.sockets[0].getsockname()[1]
        audience = Audience(port, options.subscribers, len(frames))
        await audience.ready()
        connections = server.connections

        def publish(number):
            broadcast(connections, texts[number], text=True)

        began_at, cpu_s = await paced(len(frames), options.interval_ms / 1000, publish)
        times = await audience.times_ns()
    return delays_ms(began_at, times), cpu_s


class Bare(asyncio.Protocol):
    """Answers the handshake, whatever it says; its transport is then written to."""

    open: ClassVar[list[asyncio.Transport]] = []

    def connection_made(self, transport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
        self.open.append(self.transport)

    def connection_lost(self, exc) -> None:
        self.open.remove(self.transport)


async def run_bare(frames, options) -> tuple[list[float], float]:
    messages = [text_message(encode_json(decode_body(frame.body))) for frame in frames]
    server = await asyncio.get_running_loop().create_server(Bare, "127.0.0.1", 0)
    audience = Audience(server.sockets[0].getsockname()[1], options.subscribers, len(frames))
    await audience.ready()

    def publish(number):
        for transport in Bare.open:
            transport.write(messages[number])

    began_at, cpu_s = await paced(len(frames), options.interval_ms / 1000, publish)
    times = await audience.times_ns()
    server.close()
    await server.wait_closed()
    return delays_ms(began_at, times), cpu_s


def delays_ms(began_at: list[int], times: list[list[int]]) -> list[float]:
    return [(at - began) / 1e6 for began, received in zip(began_at, times, strict=True) for at in received]


def summary(delays: list[float], cpu_s: float, rounds: int, subscribers: int) -> dict[str, float]:
    cuts = statistics.quantiles(delays, n=100)
    return {
        "p50_ms": round(cuts[49], 2),
        "p99_ms": round(cuts[98], 2),
        "max_ms": round(max(delays), 2),
        "cpu_us_per_message": round(1e6 * cpu_s / rounds / subscribers, 2),
    }


async def main(options) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    frames = make_frames(options.rounds, options.kilobytes)
    size = len(encode_json(decode_body(frames[1].body)))
    order = [("proxy", run_proxy), ("websockets.broadcast", run_reference), ("bare send", run_bare)]
    results: dict[str, list] = {name: [[], 0.0, 0] for name, _ in order}
    for turn in range(options.turns):
        for name, run in order if turn % 2 == 0 else order[::-1]:
            delays, cpu_s = await run(frames, options)
            results[name][0] += delays
            results[name][1] += cpu_s
            results[name][2] += len(frames)
    report = {name: summary(*values, options.subscribers) for name, values in results.items()}
    ratio = report["proxy"]["p99_ms"] / report["websockets.broadcast"]["p99_ms"]
    report |= {"subscribers": options.subscribers, "json_bytes": size, "format": options.format}
    floor = report["proxy"]["cpu_us_per_message"] / report["bare send"]["cpu_us_per_message"]
    report |= {"p99_of_broadcast": round(ratio, 2), "cpu_of_bare_send": round(floor, 2)}
    report |= {"within_50_ms": report["proxy"]["p99_ms"] <= 50}
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if sys.argv[1:2] == ["--read"]:
        read_everything(int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
    else:
        parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
        parser.add_argument("--subscribers", type=int, default=1000)
        parser.add_argument("--kilobytes", type=int, default=20)
        parser.add_argument("--rounds", type=int, default=33)
        parser.add_argument("--turns", type=int, default=2)
        parser.add_argument("--interval-ms", type=int, default=200)
        parser.add_argument("--format", choices=["text", "binary", "brotli"], default="text")
        asyncio.run(main(parser.parse_args()))
