"""Five bare members as processes on this machine, under one roof: start, kill, pause, ask. For tests and benchmarks."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any, Final

import msgspec

from raft.member import Load, MemberConfig

READY_TIMEOUT_S: Final = 60.0
ASK_TIMEOUT_S: Final = 10.0
STOP_TIMEOUT_S: Final = 5.0
LINE_BYTES_MAX: Final = 64 * 1024 * 1024
POLL_S: Final = 0.002


class MemberProcess:
    """One running member: its process, and every fact it told."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, on_fact: Callable[[str, dict[str, Any]], None]):
        self.name = name
        self.process = process
        self.facts: list[dict[str, Any]] = []
        self._on_fact = on_fact
        self._replies: dict[int, asyncio.Future[Any]] = {}
        self._ids = count()
        self.ready = asyncio.Event()
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            fact = msgspec.json.decode(line)
            if "reply" in fact:
                self._replies.pop(fact["reply"]).set_result(fact["result"])
                continue
            self.facts.append(fact)
            self._on_fact(self.name, fact)
            if "ready" in fact:
                self.ready.set()

    async def ask(self, kind: str, **more: Any) -> Any:
        """Send a request and await its answer; raises TimeoutError."""
        assert self.process.stdin is not None
        number = next(self._ids)
        reply = self._replies[number] = asyncio.get_running_loop().create_future()
        self.process.stdin.write(msgspec.json.encode({"id": number, "ask": kind, **more}) + b"\n")
        async with asyncio.timeout(ASK_TIMEOUT_S):
            return await reply

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the member's process, if it still runs."""
        if self.process.returncode is None:
            self.process.send_signal(number)

    async def stop(self) -> None:
        """End the member in an orderly way, by force if it does not."""
        if self.process.returncode is None and self.process.stdin is not None:
            self.process.stdin.close()
            try:
                async with asyncio.timeout(STOP_TIMEOUT_S):
                    await self.process.wait()
            except TimeoutError:
                self.process.kill()
        await self.process.wait()
        await self._reading


class LocalCluster:
    """Members "sequencer-0" … on free loopback ports, each with a directory below `directory`.

    `program` are the interpreter's arguments before the configuration file; `config` are fields of MemberConfig.
    """

    def __init__(
        self, directory: Path, members: int = 5, *, program: Sequence[str] = ("-m", "raft.member"), **config: Any
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._program = program
        self._config = config
        names = [f"sequencer-{number}" for number in range(members)]
        self.peers = dict(zip(names, (f"127.0.0.1:{port}" for port in free_ports(members)), strict=True))
        self._password_hex = secrets.token_hex(32)
        self.members: dict[str, MemberProcess] = {}
        self.acked: list[tuple[str, dict[str, Any]]] = []

    async def __aenter__(self) -> LocalCluster:
        """Start all members and wait until each serves its port."""
        try:
            await asyncio.gather(*(self.start(name) for name in self.peers))
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop all members."""
        await self.close()

    async def start(self, name: str) -> MemberProcess:
        """Start, or start again, one member."""
        config = MemberConfig(
            node_id=name,
            peers=self.peers,
            data_dir=str(self.data_dir(name)),
            password_hex=self._password_hex,
            **self._config,
        )
        path = self._directory / f"{name}.json"
        path.write_bytes(msgspec.json.encode(config))
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *self._program,
            str(path),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=LINE_BYTES_MAX,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        )
        member = self.members[name] = MemberProcess(name, process, self._on_fact)
        async with asyncio.timeout(READY_TIMEOUT_S):
            await member.ready.wait()
        return member

    def data_dir(self, name: str) -> Path:
        """Where a member keeps its journal."""
        return self._directory / name

    def _on_fact(self, name: str, fact: dict[str, Any]) -> None:
        if "acked" in fact:
            self.acked.append((name, fact))

    async def acked_after(self, moment: float, timeout_s: float, but: str | None = None) -> tuple[str, dict[str, Any]]:
        """The first flashblock acknowledged later than `moment` by any member `but` that one; raises TimeoutError."""
        async with asyncio.timeout(timeout_s):
            while True:
                for name, fact in reversed(self.acked):
                    if fact["at"] <= moment:
                        break
                    if name != but:
                        return min(
                            ((who, what) for who, what in self.acked if what["at"] > moment and who != but),
                            key=lambda item: float(item[1]["at"]),
                        )
                await asyncio.sleep(POLL_S)

    async def kill(self, name: str) -> float:
        """SIGKILL a member; the moment it was sent."""
        moment = time.monotonic()
        self.members[name].signal(signal.SIGKILL)
        await self.members[name].stop()
        return moment

    async def set_load(self, load: Load) -> None:
        """Change pace and size on all members."""
        await asyncio.gather(*(member.ask("load", load=msgspec.to_builtins(load)) for member in self.members.values()))

    async def level(self, timeout_s: float) -> list[dict[str, Any]]:
        """Wait until every member has the same ledger (with the load off); their ledgers. Raises TimeoutError."""
        async with asyncio.timeout(timeout_s):
            while True:
                ledgers = await asyncio.gather(*(member.ask("ledger") for member in self.members.values()))
                if all(ledger == ledgers[0] for ledger in ledgers):
                    return list(ledgers)
                await asyncio.sleep(POLL_S * 10)

    async def close(self) -> None:
        """Stop every member that still runs."""
        await asyncio.gather(*(member.stop() for member in self.members.values()))


def free_ports(number: int) -> list[int]:
    """Loopback TCP ports that are free now."""
    sockets = [socket.socket() for _ in range(number)]
    try:
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [int(sock.getsockname()[1]) for sock in sockets]
    finally:
        for sock in sockets:
            sock.close()
