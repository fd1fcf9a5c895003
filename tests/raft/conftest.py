"""Members of one Raft group in this process, on real loopback sockets, with nothing left behind."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from raft.local_cluster import free_ports
from raft.node import RaftNode
from raft.settings import RaftSettings

SMALL_SEGMENT_BYTES = 1024 * 1024
WAIT_S = 20.0
PATIENT = {
    "raft_min_timeout_s": 1.2,
    "raft_max_timeout_s": 1.5,
    "leader_fallback_timeout_s": 1.0,
    "connection_timeout_s": 2.5,
}
"""Time-outs under which a busy machine does not look like a dead leader; a closed connection counts at once."""


class Group:
    """Nodes "n0" … of one group; `settings(name)` may be changed before a (re)start."""

    def __init__(self, directory: Path, members: int, **changes) -> None:
        self.directory = directory
        names = [f"n{number}" for number in range(members)]
        self.peers = dict(zip(names, (f"127.0.0.1:{port}" for port in free_ports(members)), strict=True))
        self.password = os.urandom(32)
        self.changes = {"segment_bytes": SMALL_SEGMENT_BYTES, "free_space_bytes_min": 1, **PATIENT, **changes}
        self.nodes = {name: RaftNode(self.settings(name)) for name in names}

    def settings(self, name: str, **changes) -> RaftSettings:
        fields = {
            "node_id": name,
            "peers": self.peers,
            "data_dir": self.directory / name,
            "password": self.password,
            "genesis_number": 0,
            "genesis_hash": bytes(32),
        }
        return RaftSettings(**{**fields, **self.changes, **changes})

    async def start(self, *names: str) -> None:
        for name in names or self.nodes:
            await self.nodes[name].start()

    async def leader(self, *, but: str | None = None) -> RaftNode:
        """The node that leads and has applied everything committed before."""
        found: list[RaftNode] = []

        def one_leads() -> bool:
            found[:] = [
                node for node in self.nodes.values() if node.is_leader and node.caught_up and node.node_id != but
            ]
            return bool(found)

        await until(one_leads)
        return max(found, key=lambda node: node.term)

    async def close(self) -> None:
        for node in self.nodes.values():
            await node.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110 - conditions of another thread have no event
            await asyncio.sleep(0.005)


@pytest.fixture(name="until")
def until_fixture() -> Callable[[Callable[[], bool]], Awaitable[None]]:
    return until


@pytest.fixture
async def make_group(tmp_path) -> AsyncIterator[Callable[..., Group]]:
    groups: list[Group] = []

    def make(members: int = 3, **changes) -> Group:
        group = Group(tmp_path, members, **changes)
        groups.append(group)
        return group

    yield make
    for group in groups:
        await group.close()
    left = [thread.name for thread in threading.enumerate() if thread.name.startswith("raft-")]
    assert left == []
