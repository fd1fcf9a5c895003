"""A running cluster as a drill sees it: endpoints.json, and what the components answer over HTTP. No Ray here."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import orjson

from actors.rpc_client import RpcClient, RpcRefused, RpcUnknown
from chaos.history import SealedBlock

POLL_S = 0.05
STATUS_S_MAX = 1.0
BLOCKS_READ_AT_ONCE = 8


class DrillError(RuntimeError):
    """The drill could not be carried out; says what is missing and what to do about it."""


class Target:
    """Reads the cluster's endpoints anew whenever asked, because pids change with every restart."""

    def __init__(self, endpoints_path: Path) -> None:
        self.endpoints_path = endpoints_path
        self._clients: dict[str, RpcClient] = {}

    def endpoints(self) -> dict[str, Any]:
        """Return endpoints.json as it is now; raises DrillError when there is none."""
        try:
            found: dict[str, Any] = orjson.loads(self.endpoints_path.read_bytes())
        except (OSError, orjson.JSONDecodeError) as error:
            raise DrillError(f"no running cluster: {self.endpoints_path}: {error}") from None
        return found

    def groups(self) -> list[dict[str, Any]]:
        """Return the groups of endpoints.json."""
        groups: list[dict[str, Any]] = self.endpoints()["groups"]
        return groups

    def client(self, url: str) -> RpcClient:
        """Return the one client for a URL."""
        if url not in self._clients:
            self._clients[url] = RpcClient(url, timeout_s=STATUS_S_MAX)
        return self._clients[url]

    async def status(self, url: str) -> dict[str, Any] | None:
        """Return what a component says of itself, None when it does not answer."""
        try:
            answered = await self.client(url).call("flashblocks_status", timeout_s=STATUS_S_MAX)
        except (RpcRefused, RpcUnknown):
            return None
        return answered if isinstance(answered, dict) else None

    async def leader(self) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """Return (group, its conductor's status) of the group that leads and sequences, None while there is none.

        Of two that claim to lead, the one with the higher epoch does: the ledger refuses the other.
        """
        groups = self.groups()
        statuses = await asyncio.gather(*(self.status(group["actors"]["conductor"]["rpc"]) for group in groups))
        leading = [
            (status["epoch"], group, status)
            for group, status in zip(groups, statuses, strict=True)
            if status and status.get("role") in ("leader", "overridden") and status.get("active")
        ]
        if not leading:
            return None
        _, group, status = max(leading, key=lambda one: one[0])
        return group, status

    async def wait_for_leader(self, timeout_s: float) -> tuple[dict[str, Any], dict[str, Any]]:
        """Wait until a group leads and sequences; raises DrillError after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while (found := await self.leader()) is None:
            if time.monotonic() > deadline:
                raise DrillError(f"no group leads and sequences for {timeout_s:.0f} s; look at `flashblocks status`")
            await asyncio.sleep(POLL_S)
        return found

    async def wait_for_actor(self, group: str, actor: str, old_pid: int, timeout_s: float) -> int:
        """Wait until an actor of a group runs, not as `old_pid`, and the group is level; returns the pid."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            found = next(one for one in self.groups() if one["name"] == group)
            pid = int(found["actors"][actor]["pid"] or 0)
            if pid not in (0, old_pid) and await self._level(found):
                return pid
            await asyncio.sleep(2 * POLL_S)
        raise DrillError(f"{group}/{actor} (pid {old_pid}) is not back and level after {timeout_s:.0f} s")

    async def _level(self, group: dict[str, Any]) -> bool:
        """Whether every execution client of a group has the blocks the others have, give or take the newest."""
        heads = []
        for one in self.groups():
            for actor in ("fallback-el", "builder"):
                number = await self.head(one["actors"][actor]["rpc"])
                heads.append((one["name"], number))
        best = max((number for _, number in heads if number is not None), default=0)
        own = [number for name, number in heads if name == group["name"]]
        conductor = await self.status(group["actors"]["conductor"]["rpc"])
        return all(number is not None and number + 1 >= best for number in own) and conductor is not None

    async def head(self, url: str) -> int | None:
        """Return a node's block number, None when it does not answer."""
        try:
            return int(await self.client(url).call("eth_blockNumber", timeout_s=STATUS_S_MAX), 16)
        except (RpcRefused, RpcUnknown):
            return None

    async def chain(self, source: str, url: str, first: int, last: int) -> list[SealedBlock]:
        """Read blocks first..last from one node; raises DrillError when it does not have one of them."""
        blocks: list[SealedBlock] = []
        for start in range(first, last + 1, BLOCKS_READ_AT_ONCE):
            numbers = range(start, min(start + BLOCKS_READ_AT_ONCE, last + 1))
            try:
                answers = await asyncio.gather(
                    *(self.client(url).call("eth_getBlockByNumber", hex(n), False, timeout_s=10.0) for n in numbers)
                )
            except (RpcRefused, RpcUnknown) as error:
                raise DrillError(f"{source} does not answer blocks {start}…: {error}") from None
            for number, answer in zip(numbers, answers, strict=True):
                if answer is None:
                    raise DrillError(f"{source} at {url} does not have block {number}")
                hashes = tuple(answer["transactions"])
                blocks.append(SealedBlock(source, number, answer["hash"], answer["parentHash"], hashes))
        return blocks

    async def close(self) -> None:
        """Close every connection."""
        await asyncio.gather(*(client.close() for client in self._clients.values()))
