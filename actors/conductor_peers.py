"""What the other conductors say of their groups, asked twice a second, so that leadership finds a fit successor."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from typing import Any

from actors.rpc_client import RpcClient, RpcRefused, RpcUnknown
from flashblocks.conductor.candidates import Candidate, Report, Voter, candidates
from flashblocks.conductor.health import Readiness
from raft.node import RaftNode

ASK_INTERVAL_S = 0.5
ASK_S_MAX = 0.4
ALONE_FIRST_S_MAX = 5.0
ALONE_TRANSFER_S_MAX = 0.5
ALONE_RETRY_S = 0.05


class ConductorPeers:
    """The other conductors by name; `urls` are their RPC addresses."""

    def __init__(self, urls: Mapping[str, str], own: str, raft: RaftNode, log: Any) -> None:
        self._clients = {node: RpcClient(url, timeout_s=ASK_S_MAX) for node, url in urls.items() if node != own}
        self._own = own
        self._raft = raft
        self._log = log
        self._reports: dict[str, Report] = {}
        self._unasked = set(self._clients)
        self._asked = asyncio.Event()
        if not self._unasked:
            self._asked.set()

    def candidates(self, now: float) -> list[Candidate]:
        """Every other voter in contact, the fittest first."""
        voters = [
            Voter(node=member.id, connected=member.connected, lag_entries=member.lag_entries)
            for member in self._raft.members()
            if member.id != self._own
        ]
        return candidates(now, voters, self._reports.values())

    def reports(self) -> list[Report]:
        """The newest report of each peer."""
        return list(self._reports.values())

    def alone(self) -> str | None:
        """A peer that went on without a majority by an operator's word, or None."""
        return next(iter(sorted(report.node for report in self._reports.values() if report.alone)), None)

    async def let_alone_lead(self, leads: Callable[[], bool]) -> None:
        """Hand leadership to a group that went on alone, before we claim an epoch: a majority has to take in what that
        group streamed before anybody continues the ledger otherwise. Bounded; `leads()` while leadership is ours."""
        began = time.monotonic()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ASK_S_MAX):
                await self._asked.wait()
        while leads() and (node := self.alone()) is not None and time.monotonic() - began < ALONE_FIRST_S_MAX:
            outcome = await self._raft.transfer_leadership(node, ALONE_TRANSFER_S_MAX)
            self._log.warning("a group that went on alone leads first", node=node, outcome=str(outcome))
            await asyncio.sleep(ALONE_RETRY_S)

    async def keep_asking(self) -> None:
        """Ask everybody in turn, for ever; a peer that does not answer has no report."""
        async with asyncio.TaskGroup() as group:
            for node, client in self._clients.items():
                group.create_task(self._keep_asking(node, client))

    async def _keep_asking(self, node: str, client: RpcClient) -> None:
        while True:
            try:
                answer = await client.call("flashblocks_readiness")
                self._reports[node] = Report(
                    node=node,
                    readiness=Readiness(answer["readiness"]),
                    head_number=int(answer["headNumber"]),
                    paused=bool(answer["paused"]),
                    alone=bool(answer.get("alone", False)),
                    received_at=time.monotonic(),
                )
            except (RpcRefused, RpcUnknown, KeyError, TypeError, ValueError) as error:
                if self._reports.pop(node, None) is not None:
                    self._log.info("peer conductor does not answer", peer=node, error=str(error))
            self._unasked.discard(node)
            if not self._unasked:
                self._asked.set()
            await asyncio.sleep(ASK_INTERVAL_S)

    async def close(self) -> None:
        """Close the connections."""
        await asyncio.gather(*(client.close() for client in self._clients.values()))
