"""Bare Raft members, one per host: what distance does to commits and elections, without the rest of the system."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any, Final

import msgspec

from raft.local_cluster import LINE_BYTES_MAX, READY_TIMEOUT_S, LocalCluster, MemberProcess
from raft.member import MemberConfig
from tests.hosts.machine import HOME
from tests.hosts.machines import Machines
from tests.hosts.network import REPOSITORY

RAFT_PORT: Final = 5050
DATA_DIRECTORY: Final = f"{HOME}/raft"


class HostedCluster(LocalCluster):
    """A `LocalCluster` whose members live on hosts of their own, named as the hosts are."""

    def __init__(self, machines: Machines, **config: Any) -> None:
        super().__init__(machines.key.parent / "raft", 0, **config)
        self._machines = machines
        self.peers = {machine.name: f"{machine.address}:{RAFT_PORT}" for machine in machines}

    async def start(self, name: str) -> MemberProcess:
        """Start, or start again, the member of one host."""
        machine = self._machines[name]
        config = MemberConfig(
            node_id=name,
            peers=self.peers,
            data_dir=DATA_DIRECTORY,
            password_hex=self._password_hex,
            **self._config,
        )
        machine.file(f"{HOME}/member.json").write_bytes(msgspec.json.encode(config))
        process = await asyncio.create_subprocess_exec(
            *machine.inside(sys.executable, "-m", "raft.member", f"{HOME}/member.json", PYTHONPATH=str(REPOSITORY)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=LINE_BYTES_MAX,
        )
        member = self.members[name] = MemberProcess(name, process, self._on_fact)
        async with asyncio.timeout(READY_TIMEOUT_S):
            await member.ready.wait()
        return member

    async def kill(self, name: str) -> float:
        """SIGKILL a member: its pid is a number of its host's own; the moment it was sent."""
        pid = next(fact["pid"] for fact in self.members[name].facts if "ready" in fact)
        moment = time.monotonic()
        self._machines[name].run("kill", "-KILL", str(pid))
        await self.members[name].stop()
        return moment

    async def close(self) -> None:
        """Stop every member and forget what it wrote."""
        await super().close()
        for machine in self._machines:
            machine.run("rm", "-rf", DATA_DIRECTORY)
