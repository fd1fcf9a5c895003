"""Proxies between conductors that die and a program that listens: real sockets, faults by seed."""

import asyncio
import random
from contextlib import aclosing

import msgspec
import pytest
import structlog

from actors.frame_link import FrameServer
from actors.stream_client import stream
from actors.websocket_proxy import Settings, WebsocketProxy
from flashblocks.wire.flashblock import Flashblock, FlashblockBase, FlashblockDiff, FlashblockMetadata, encode_body
from flashblocks.wire.frames import frame_of
from flashblocks.wire.keccak import keccak256

indices_per_block = 4
steps = 120
root = b"\x05" * 32


def block_hash(number, index):
    return keccak256(b"%d.%d" % (number, index))


def committed(place):
    """The n-th flashblock of the ledger."""
    number, index = 100 + place // indices_per_block, place % indices_per_block
    parent = block_hash(number - 1, indices_per_block - 1)
    base = FlashblockBase(root, parent, b"\x01" * 20, root, number, 1, 2, b"", 7) if index == 0 else None
    diff = FlashblockDiff(root, root, bytes(256), 1, block_hash(number, index), (b"\x02%d" % place,), root)
    flashblock = Flashblock(number.to_bytes(8, "big"), index, base, diff, FlashblockMetadata(number))
    return frame_of(flashblock, encode_body(flashblock), parent)


class World:
    """Three conductors over one ledger, of which one leads; proxies that may be restarted at their ports."""

    def __init__(self, seed):
        self.chance = random.Random(seed)
        self.ledger = []
        self.epoch = 1
        self.leader = 0
        self.servers = [None] * 3
        self.ports = [0] * 3
        self.end = None
        self.proxies = [None] * 2
        self.proxy_ports = [0] * 2

    async def start(self):
        for node in range(3):
            await self.revive(node)
        for number in range(2):
            await self.start_proxy(number)

    async def close(self):
        for proxy in self.proxies:
            await proxy.close()
        for server in self.servers:
            if server is not None:
                await server.close()

    async def revive(self, node):
        if self.servers[node] is None:
            server = FrameServer("127.0.0.1", self.ports[node], greet=lambda query: self.greet(node, query.start))
            await server.start()
            self.servers[node], self.ports[node] = server, server.port

    async def start_proxy(self, number):
        if self.proxies[number] is not None:
            await self.proxies[number].close()
        urls = [f"ws://127.0.0.1:{port}/ws" for port in self.ports]
        log = structlog.wrap_logger(structlog.ReturnLogger())
        patient = {"backlog_blocks": 1000, "gap_wait_ms": 10_000, "history_wait_ms": 300, "resume_wait_ms": 10_000}
        settings = Settings(port=self.proxy_ports[number], upstream_ws=urls, **patient)
        proxy = WebsocketProxy(settings, log)
        await proxy.start()
        self.proxies[number], self.proxy_ports[number] = proxy, proxy.port

    def signed(self, frames):
        return [msgspec.structs.replace(frame, epoch=self.epoch) for frame in frames]

    def greet(self, node, start):
        if start is None:
            start = (self.ledger[-1].number, 0) if self.ledger and node == self.leader else (1 << 40, 0)
        return self.signed(frame for frame in self.ledger if frame.key >= start)

    def commit(self, publish=True):
        self.ledger.append(committed(len(self.ledger)))
        if publish and self.servers[self.leader] is not None:
            self.servers[self.leader].publish(self.signed(self.ledger[-1:])[0])

    async def kill_leader(self):
        server, self.servers[self.leader] = self.servers[self.leader], None
        if server is not None:
            await server.close()

    async def elect(self):
        self.epoch += 1
        self.leader = self.chance.randrange(3)
        await self.revive(self.leader)
        open_and_last = [frame for frame in self.ledger if frame.number >= self.ledger[-1].number - 1]
        for frame in self.signed(open_and_last):
            self.servers[self.leader].publish(frame)

    async def step(self):
        fate = self.chance.random()
        if fate < 0.75:
            self.commit()
        elif fate < 0.85:
            # The leader dies between a commit and its publication; its successor makes up for it.
            self.commit(publish=False)
            await self.kill_leader()
            await self.elect()
        elif fate < 0.95:
            await self.revive(self.chance.randrange(3))
        else:
            await self.start_proxy(self.chance.randrange(2))


async def listen(world, port, seen, gaps):
    url = f"ws://127.0.0.1:{port}/ws"
    async with aclosing(stream(url, on_gap=lambda *gap: gaps.append(gap))) as flashblocks:
        async for flashblock in flashblocks:
            seen.append((flashblock.number, flashblock.index))
            if seen[-1] == world.end:
                return


@pytest.mark.parametrize("seed", range(4))
async def test_a_listener_sees_every_committed_flashblock_once_and_in_order(seed):
    world = World(seed)
    await world.start()
    world.commit()
    seen, gaps = ([], []), ([], [])
    listeners = [asyncio.create_task(listen(world, world.proxy_ports[n], seen[n], gaps[n])) for n in range(2)]
    for _ in range(steps):
        await world.step()
        await asyncio.sleep(0.003)  # faults must meet messages under way
    world.end = committed(len(world.ledger)).key
    await world.elect()
    world.commit()
    await asyncio.gather(*listeners)
    await world.close()
    keys = [frame.key for frame in world.ledger]
    assert gaps == ([], [])
    for each in seen:
        assert each == keys[keys.index(each[0]) :]
