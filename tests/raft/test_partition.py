"""Five members in this process with a cuttable wire between every two: the leader isolated, deaf, mute, or in a pair.

Each direction of each connection runs through a small forwarder. A cut direction is silent, as a dropped network is:
nothing is closed, bytes wait and arrive after the heal. So the time-outs count here, not the sockets' ends.
"""

import asyncio
import time
from dataclasses import dataclass, field

import pytest

from raft.ledger import Accepted, Append, Claim
from raft.local_cluster import free_ports
from raft.member import next_append
from raft.node import RaftNode

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]
CHUNK_BYTES = 64 * 1024


@dataclass
class Wires:
    """Forwarders between members, and which directions are cut."""

    cut: set[tuple[str, str]] = field(default_factory=set)
    healed: asyncio.Event = field(default_factory=asyncio.Event)
    servers: list[asyncio.Server] = field(default_factory=list)
    tasks: set[asyncio.Task] = field(default_factory=set)

    async def lay(self, dialler: str, listener: str, address: str) -> str:
        """A forwarder for connections of one member to another; its address."""

        async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                onward_reader, onward_writer = await asyncio.open_connection(*address.split(":"))
            except OSError:
                writer.close()
                return
            there = asyncio.create_task(self._pump(dialler, listener, reader, onward_writer))
            back = asyncio.create_task(self._pump(listener, dialler, onward_reader, writer))
            self.tasks |= {there, back}

        server = await asyncio.start_server(forward, "127.0.0.1", 0)
        self.servers.append(server)
        return f"127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def _pump(self, source: str, target: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(CHUNK_BYTES):
                await self._passable(source, target)
                writer.write(data)
            await self._passable(source, target)
        except OSError:
            pass
        finally:
            writer.close()

    async def _passable(self, source: str, target: str) -> None:
        while (source, target) in self.cut:
            self.healed.clear()
            await self.healed.wait()

    def heal(self) -> None:
        self.cut.clear()
        self.healed.set()

    async def close(self) -> None:
        for server in self.servers:
            server.close()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await asyncio.sleep(0)


class Client:
    """Proposes at one node for ever, as its conductor would, and remembers what was acknowledged when."""

    def __init__(self, node: RaftNode, acknowledged: list) -> None:
        self.node, self.acknowledged = node, acknowledged

    async def run(self) -> None:
        while True:
            if self.node.is_leader:
                epoch = max(self.node.ledger.epoch, self.node.term)
                if self.node.ledger.owner != self.node.node_id or self.node.ledger.epoch != epoch:
                    await self.node.propose(Claim(epoch, self.node.node_id), 1.0)
                command = next_append(self.node.ledger, epoch, self.node.node_id, 1000)
                if command.index < 200 and await self.node.propose(command, 1.0) == Accepted():
                    self.acknowledged.append((self.node.node_id, time.monotonic(), command))
            await asyncio.sleep(0.02)


def directions(kind: str, leader: str, names: list[str]) -> set[tuple[str, str]]:
    others = [name for name in names if name != leader]
    if kind == "deaf":
        return {(other, leader) for other in others}
    if kind == "mute":
        return {(leader, other) for other in others}
    side = {leader} if kind == "isolated" else {leader, others[0]}
    return {(one, two) for one in names for two in names if (one in side) != (two in side)}


@pytest.mark.parametrize("kind", ["isolated", "deaf", "mute", "two of five"])
async def test_the_majority_goes_on_and_the_minority_acknowledges_nothing(make_group, until, capsys, kind):
    group = make_group(
        5, raft_min_timeout_s=0.3, raft_max_timeout_s=0.4, leader_fallback_timeout_s=0.3, connection_timeout_s=0.5
    )
    names = sorted(group.nodes)
    wires = Wires()
    listening = dict(zip(names, (f"127.0.0.1:{port}" for port in free_ports(5)), strict=True))
    for name in names:
        # Of two members the later name dials, so only its way to the earlier one needs a forwarder.
        peers = {
            **listening,
            **{other: await wires.lay(name, other, listening[other]) for other in names if other < name},
        }
        group.nodes[name] = RaftNode(group.settings(name, peers=peers))
    acknowledged: list[tuple[str, float, Append]] = []
    await group.start()
    leader = (await group.leader()).node_id
    clients = [asyncio.create_task(Client(node, acknowledged).run()) for node in group.nodes.values()]
    try:
        await until(lambda: len(acknowledged) > 5)
        leader = acknowledged[-1][0]
        wires.cut |= directions(kind, leader, names)
        cut_at = time.monotonic()
        await until(lambda: acknowledged[-1][0] != leader)
        gap_s = acknowledged[-1][1] - cut_at
        successor = acknowledged[-1][0]
        taken_over_at = next(at for name, at, _ in acknowledged if name == successor and at > cut_at)
        await asyncio.sleep(0.7)
        wires.heal()
        await until(lambda: all(node.caught_up for node in group.nodes.values()))
        count = len(acknowledged)
        await until(lambda: len(acknowledged) > count + 5)
    finally:
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
        wires.heal()
    await until(lambda: len({node.ledger for node in group.nodes.values()}) == 1)
    stale = [
        name for name, at, _ in acknowledged if name == leader and at > taken_over_at and at < cut_at + gap_s + 0.7
    ]
    assert stale == []
    keys = [(command.number, command.index) for _, _, command in acknowledged]
    assert len(keys) == len(set(keys)), "nothing was acknowledged twice"
    block = group.nodes[successor].ledger.open
    assert block is not None
    kept = {entry.index: entry.digest for entry in block.entries}
    assert all(kept[command.index] == command.digest for _, _, command in acknowledged)
    await group.close()
    await wires.close()
    with capsys.disabled():
        print(f"\nleader {kind}: next acknowledged flashblock after {gap_s * 1000:.0f} ms")
