"""Outages that large chains have had, made again: leadership to who is not ready, a transaction that fails and should
leave nothing behind, a machine that comes back empty. And Ray's own processes gone.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from actors.reaper import marked_processes
from actors.rpc_client import RpcRefused, RpcUnknown
from actors.run_directory import MARKER_VARIABLE, RunDirectory
from chaos.faults import HANG, TRANSFER_S_MAX, Fault, Signals, Victim, victims
from chaos.history import Event, Restored
from chaos.operations import hand_over
from chaos.senders import Sender
from chaos.target import DrillError, Target

FAILING_PAUSE_S = 0.1
FAILING_S = 12.0
FAILING_GAS = 200_000
RAY_GONE_S = 75.0
"""Longer than the 60 s after which Ray's own processes give their GCS up."""


class NotReady(Signals):
    """Leadership is handed to a group whose op-node hangs: it has to hand on by itself.

    Base, 2025-08-05: the chain stood for 33 minutes because the new leader could not sequence and kept the lead.
    """

    def __init__(self, target: Target, leader: dict[str, Any], chosen: dict[str, Any]) -> None:
        super().__init__(target, HANG, victims([chosen], ["op-node"]))
        self.kind = "handed to who is not ready"
        self._from, self._to = leader, chosen

    async def prepare(self) -> None:
        """Stop the op-node of the one who is to get the lead."""
        self.strike()

    async def inject(self) -> None:
        """Hand it over; raises DrillError when that is refused."""
        await hand_over(self._target, self._from, self._to)


class Failing(Fault):
    """Transactions that write to storage, create, and then fail in every way there is; they are included and cost gas.

    Were anything of them left in a node's state, its state root would not be the others', and its blocks refused.
    """

    kind = "failing transactions"

    def __init__(self, target: Target, sender: Sender, hold_s: float = FAILING_S) -> None:
        self.victims: list[Victim] = []
        self.hold_s = hold_s
        self._sender = sender
        self._client = target.client(target.endpoints()["rpc"]["http"])
        self._task: asyncio.Task[None] | None = None
        self._hashes: list[str] = []

    async def prepare(self) -> None:
        """Learn the sender's nonce."""
        answer = await self._client.call("eth_getTransactionCount", self._sender.address, "pending", timeout_s=5.0)
        self._sender.nonce = int(answer, 16)

    async def inject(self) -> None:
        """Begin to send them."""
        self._task = asyncio.create_task(self._send())

    async def lift(self) -> None:
        """Stop sending; raises what went wrong meanwhile."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def abandon(self) -> None:
        """Stop sending."""
        if self._task is not None:
            self._task.cancel()

    async def recovered(self, run: int) -> list[Event]:
        """Every one of them is in a block, and failed; raises DrillError when one is not, or did not."""
        if not self._hashes:
            raise DrillError("no failing transaction was accepted")
        for transaction in self._hashes:
            receipt = await self._receipt(transaction)
            if int(receipt["status"], 16) != 0:
                raise DrillError(f"{transaction} was to fail and did not")
        return [Restored(time.time(), run, 0)]

    async def _receipt(self, transaction: str) -> dict[str, Any]:
        deadline = time.monotonic() + 3 * TRANSFER_S_MAX
        while time.monotonic() < deadline:
            try:
                receipt = await self._client.call("eth_getTransactionReceipt", transaction, timeout_s=5.0)
            except (RpcRefused, RpcUnknown):
                receipt = None
            if receipt is not None:
                return dict(receipt)
            await asyncio.sleep(FAILING_PAUSE_S)
        raise DrillError(f"no receipt for {transaction}")

    async def _send(self) -> None:
        number = 0
        while True:
            raw, nonce = self._sender.sign(
                to=None, data=FAILING_CODES[number % len(FAILING_CODES)], gas_limit=FAILING_GAS
            )
            try:
                self._hashes.append(await self._client.call("eth_sendRawTransaction", "0x" + raw.hex(), timeout_s=5.0))
                number += 1
            except RpcRefused:
                self._sender.give_back(nonce)
            except RpcUnknown:
                await self._prepare_again()
            await asyncio.sleep(FAILING_PAUSE_S)

    async def _prepare_again(self) -> None:
        """It is not known whether the last one was taken: ask for the nonce until somebody answers."""
        while True:
            try:
                await self.prepare()
                return
            except (RpcRefused, RpcUnknown):
                await asyncio.sleep(FAILING_PAUSE_S)


def _code(*parts: str) -> bytes:
    return bytes.fromhex("".join(parts).replace(" ", ""))


_STORE = "60 2a 60 00 55  60 07 60 01 55"  # two slots written
_CREATE = "60 00 60 00 60 00 f0 50"  # an empty contract created
FAILING_CODES: Sequence[bytes] = (
    _code(_STORE, "60 00 60 00 fd"),  # REVERT
    _code(_STORE, "fe"),  # INVALID
    _code(_STORE, _CREATE, "60 00 60 00 fd"),  # a creation inside what is reverted
    _code(_STORE, "5b 60 0a 56"),  # out of gas: jumps back for ever
    _code(_STORE, "60 ef 60 00 53 60 01 60 00 f3"),  # code that begins with 0xEF (EIP-3541)
    _code(_STORE, "62 01 00 00 60 00 f3"),  # code larger than EIP-170 allows
    _code("60 01", "56"),  # a jump to where nobody may jump
    _code(_STORE, "01"),  # stack underflow
)


class RayProcessKilled(Fault):
    """One of Ray's own processes is killed: it is not on the data path."""

    def __init__(self, target: Target, process: str, hold_s: float = RAY_GONE_S) -> None:
        self.kind, self.hold_s = f"kill {process}", hold_s
        self.victims: list[Victim] = []
        self._target, self._process = target, process

    async def inject(self) -> None:
        """SIGKILL it; raises DrillError when it is not found."""
        state = RunDirectory(self._target.endpoints_path.parent.name).read_state()
        marker = "" if state is None else f"{MARKER_VARIABLE}={state.marker}"
        found = [pid for pid in marked_processes(marker) if _name(pid) == self._process] if marker else []
        if not found:
            raise DrillError(f"{self._process} is not found among the cluster's processes")
        for pid in found:
            os.kill(pid, signal.SIGKILL)


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""
