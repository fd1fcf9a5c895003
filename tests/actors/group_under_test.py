"""One to five groups in this process: real op-nodes, conductors and Raft nodes around scripted rollup-boosts."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import structlog

from actors.conductor import Conductor
from actors.conductor import Settings as ConductorSettings
from actors.frame_link import FrameClient
from actors.op_node import OpNode
from actors.op_node import Settings as OpNodeSettings
from actors.rpc_client import RpcClient
from flashblocks.wire.frames import FlashblockFrame, Frame
from tests.actors.scripted_boost import ScriptedBoost

GENESIS_HASH = b"\xaa" * 32
WAIT_S_MAX = 30.0
PORT_RANGE = (22_000, 32_000)


def free_ports(count: int) -> list[int]:
    """Ports that are free now, below the range from which the kernel serves outgoing connections."""
    chosen: list[int] = []
    while len(chosen) < count:
        port = random.randrange(*PORT_RANGE)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            if port not in chosen:
                chosen.append(port)
    return chosen


async def until(condition: Callable[[], Any], what: str = "condition") -> Any:
    """Wait for a fact; fails loudly when it does not come."""
    deadline = time.monotonic() + WAIT_S_MAX
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come true in {WAIT_S_MAX} s")
        await asyncio.sleep(0.01)
    return value


class Running:
    """A component with its `run` task; `kill` ends it without its farewells."""

    def __init__(self, component: Any) -> None:
        self.component = component
        self.task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self.component.start()
        self.task = asyncio.create_task(self.component.run())

    async def stop(self) -> None:
        if self.task is not None:
            self.task.cancel()
            results = await asyncio.gather(self.task, return_exceptions=True)
            self.task = None
            failed = [
                one for one in results if isinstance(one, BaseException) and not isinstance(one, asyncio.CancelledError)
            ]
            await self.component.close()
            if failed:
                raise failed[0]
            return
        await self.component.close()


class Group:
    """One sequencer group."""

    def __init__(self, index: int, cluster: Cluster) -> None:
        self.index, self.name, self.cluster = index, f"sequencer-{index}", cluster
        self.log = structlog.get_logger().bind(group=index)
        self.boost = ScriptedBoost(GENESIS_HASH, cluster.genesis_time, cluster.flashblock_time_ms / 1000, self.log)
        self.op_node: Running | None = None
        self.conductor: Running | None = None

    @property
    def settings(self) -> ConductorSettings:
        c, i = self.cluster, self.index
        return ConductorSettings(
            name=self.name,
            group=i,
            data_dir=str(c.directory / self.name),
            genesis_hash="0x" + GENESIS_HASH.hex(),
            rpc_port=c.rpc_ports[i],
            ws_port=c.ws_ports[i],
            raft_port=c.raft_ports[i],
            raft_peers={f"sequencer-{n}": f"127.0.0.1:{port}" for n, port in enumerate(c.raft_ports)},
            raft_password_path=str(c.directory / "password"),
            peer_urls={f"sequencer-{n}": f"http://127.0.0.1:{port}" for n, port in enumerate(c.rpc_ports)},
            op_node_url=f"http://127.0.0.1:{c.op_node_ports[i]}",
            rollup_boost_url=self.boost.url,
            rollup_boost_ws_url=self.boost.ws_url,
            execution_url=self.boost.url,
            block_time_s=c.block_time_s,
            flashblock_time_ms=c.flashblock_time_ms,
        )

    @property
    def op_node_settings(self) -> OpNodeSettings:
        c, i = self.cluster, self.index
        return OpNodeSettings(
            name=self.name,
            group=i,
            data_dir=str(c.directory / self.name / "op-node"),
            genesis_path=str(c.directory / "genesis.json"),
            genesis_hash="0x" + GENESIS_HASH.hex(),
            rpc_port=c.op_node_ports[i],
            engine_url=self.boost.url,
            conductor_url=f"http://127.0.0.1:{c.rpc_ports[i]}",
            peer_op_node_urls=[f"http://127.0.0.1:{port}" for n, port in enumerate(c.op_node_ports) if n != i],
            block_time_s=c.block_time_s,
        )

    async def start_op_node(self) -> None:
        self.op_node = Running(OpNode(self.op_node_settings, self.log))
        await self.op_node.start()

    async def start_conductor(self) -> None:
        self.conductor = Running(Conductor(self.settings, self.log))
        await self.conductor.start()

    async def start(self) -> None:
        await self.boost.start()
        await self.start_op_node()
        await self.start_conductor()

    async def stop(self) -> None:
        if self.conductor is not None:
            await self.conductor.stop()
        if self.op_node is not None:
            await self.op_node.stop()
        await self.boost.close()

    async def kill_conductor(self) -> None:
        """End the conductor without its farewells: its sockets close, nothing is handed over."""
        assert self.conductor is not None
        running, self.conductor = self.conductor, None
        await running.component.raft.close()
        await running.stop()

    async def kill_op_node(self) -> None:
        assert self.op_node is not None
        running, self.op_node = self.op_node, None
        await running.stop()

    @property
    def leads(self) -> bool:
        return self.conductor is not None and self.conductor.component.stream.publisher.epoch is not None

    @property
    def sequences(self) -> bool:
        return self.op_node is not None and self.op_node.component.driver.active

    @property
    def head(self) -> int:
        if self.op_node is None:
            return -1
        return -1 if self.op_node.component.chain.head is None else self.op_node.component.chain.head.number

    def rpc(self) -> RpcClient:
        return RpcClient(f"http://127.0.0.1:{self.cluster.rpc_ports[self.index]}")

    def op_node_rpc(self) -> RpcClient:
        return RpcClient(f"http://127.0.0.1:{self.cluster.op_node_ports[self.index]}")


class Cluster:
    """The groups and their addresses."""

    def __init__(self, directory: Path, groups: int, block_time_s: int = 1, flashblock_time_ms: int = 100) -> None:
        self.directory, self.block_time_s, self.flashblock_time_ms = directory, block_time_s, flashblock_time_ms
        self.genesis_time = int(time.time())
        genesis = {"config": {"chainId": 901}, "gasLimit": "0x8583b00", "timestamp": hex(self.genesis_time)}
        (directory / "genesis.json").write_text(json.dumps(genesis))
        (directory / "password").write_text("p" * 40)
        ports = free_ports(4 * groups)
        self.rpc_ports, self.ws_ports, self.raft_ports, self.op_node_ports = (ports[n::4] for n in range(4))
        self.groups = [Group(index, self) for index in range(groups)]

    @property
    def leader(self) -> Group | None:
        leaders = [group for group in self.groups if group.leads and group.sequences]
        return leaders[0] if leaders else None

    def url(self, group: int, path: str = "") -> str:
        return f"ws://127.0.0.1:{self.ws_ports[group]}/ws{path}"


@asynccontextmanager
async def cluster(directory: Path, groups: int = 1, **options: Any) -> AsyncIterator[Cluster]:
    made = Cluster(directory, groups, **options)
    try:
        await asyncio.gather(*(group.start() for group in made.groups))
        yield made
    finally:
        await asyncio.gather(*(group.stop() for group in made.groups))


class Listener:
    """Listens to every conductor as a proxy does: drops repetitions and older epochs, notes every violation."""

    def __init__(self, cluster: Cluster) -> None:
        self.seen: dict[tuple[int, int], bytes] = {}
        self.order: list[tuple[int, int]] = []
        self.times: list[float] = []
        self.violations: list[str] = []
        self.epoch = 0
        self.clients = [
            FrameClient(cluster.url(index), self._on_frame, start=lambda: self.order[-1] if self.order else None)
            for index in range(len(cluster.groups))
        ]

    async def __aenter__(self) -> Listener:
        for client in self.clients:
            await client.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        for client in self.clients:
            await client.close()

    def _on_frame(self, frame: Frame) -> None:
        assert isinstance(frame, FlashblockFrame)
        if frame.epoch < self.epoch:
            return
        self.epoch = frame.epoch
        known = self.seen.get(frame.key)
        if known is not None:
            if known != frame.digest:
                self.violations.append(f"two bodies at {frame.key}")
            return
        last = self.order[-1] if self.order else None
        if last is not None and frame.key not in ((last[0], last[1] + 1), (last[0] + 1, 0)):
            self.violations.append(f"{frame.key} after {last}")
        self.seen[frame.key] = frame.digest
        self.order.append(frame.key)
        self.times.append(time.monotonic())

    def lost(self, cluster: Cluster) -> list[tuple[int, int]]:
        """What was seen and is not in the sealed chain of any ledger."""
        sealed: dict[tuple[int, int], bytes] = {}
        for group in cluster.groups:
            if group.conductor is None:
                continue
            view = group.conductor.component.raft.ledger
            blocks = [*view.sealed_blocks, *([view.open] if view.open is not None else [])]
            sealed |= {(block.number, entry.index): entry.digest for block in blocks for entry in block.entries}
        return [key for key, digest in self.seen.items() if sealed.get(key) != digest]

    def longest_gap_s(self, since: float) -> float:
        """The longest pause between two flashblocks after that moment."""
        times = [since, *(at for at in self.times if at > since)]
        return max(later - earlier for earlier, later in pairwise(times))
