"""A bare member as a process of its own, for drills, tests and benchmarks of the ledger alone.

`python -m raft.member CONFIG.json` starts one `RaftNode`; whenever it leads, it claims an epoch and appends flashblocks
of random bytes at a fixed pace, sealing every few of them. Requests come as JSON lines on stdin, facts go as JSON
lines to stdout: {"ready"}, {"acked": [number, index, digest, epoch], "at", "latency_s"}, {"event": …}. It ends with
its stdin. Times are CLOCK_MONOTONIC seconds, comparable between processes of one machine.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
import time
from pathlib import Path
from typing import Any, Final

import msgspec

from raft.ledger import Accepted, Append, Appended, Claim, Claimed, Event, LedgerView, Restored, Seal, Sealed
from raft.node import Outcome, RaftNode
from raft.settings import RaftSettings

PROPOSAL_TIMEOUT_S: Final = 2.0
IDLE_S: Final = 0.002
REQUEST_BYTES_MAX: Final = 1024 * 1024


class MemberConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one member process is told. `raft` are further fields of RaftSettings."""

    node_id: str
    peers: dict[str, str]
    data_dir: str
    password_hex: str
    body_bytes: int = 10_000
    interval_s: float = 0.05
    flashblocks_per_block: int = 10
    leads: bool = True
    raft: dict[str, Any] = {}


class Load(msgspec.Struct):
    """The pace that can be changed while the member runs."""

    body_bytes: int
    interval_s: float
    leads: bool


class Member:
    """One node and the load it produces while it leads."""

    def __init__(self, config: MemberConfig) -> None:
        self._config = config
        self._load = Load(config.body_bytes, config.interval_s, config.leads)
        self._settings = RaftSettings(
            node_id=config.node_id,
            peers=config.peers,
            data_dir=Path(config.data_dir),
            password=bytes.fromhex(config.password_hex),
            genesis_number=0,
            genesis_hash=bytes(32),
            **config.raft,
        )
        self.node = RaftNode(self._settings)
        self.node.on_event(self._on_event)
        self.node.on_leadership(lambda leading, term: emit(leading=leading, term=term))
        self.node.on_fault(lambda fault: emit(fault=fault))

    async def run(self) -> None:
        """Serve until stdin ends."""
        await self.node.start()
        emit(ready=self._config.node_id, pid=os.getpid())
        leading = asyncio.create_task(self._lead_forever())
        try:
            await self._serve()
        finally:
            leading.cancel()
            await asyncio.gather(leading, return_exceptions=True)
            await self.node.close()

    async def _serve(self) -> None:
        reader = asyncio.StreamReader(limit=REQUEST_BYTES_MAX)
        protocol = asyncio.StreamReaderProtocol(reader)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
        try:
            while line := await reader.readline():
                request = msgspec.json.decode(line)
                emit(reply=request["id"], result=await self._answer(request))
        finally:
            transport.close()

    async def _answer(self, request: dict[str, Any]) -> Any:
        kind = request["ask"]
        if kind == "status":
            return self.node.status()
        if kind == "ledger":
            return describe(self.node.ledger)
        if kind == "load":
            self._load = msgspec.convert(request["load"], Load)
            return None
        if kind == "transfer":
            return repr(await self.node.transfer_leadership(request["target"], PROPOSAL_TIMEOUT_S))
        raise ValueError(f"unknown request {kind!r}")

    async def _lead_forever(self) -> None:
        while True:
            if self._load.leads and self.node.is_leader:
                term = self.node.term
                outcome = await self.node.propose(Claim(term, self.node.node_id), PROPOSAL_TIMEOUT_S)
                if isinstance(outcome, Accepted):
                    await self._lead(term)
                else:
                    emit(claim=repr(outcome))
            await asyncio.sleep(IDLE_S)

    async def _lead(self, epoch: int) -> None:
        due = time.monotonic()
        while self._load.leads and self.node.is_leader and self.node.ledger.epoch == epoch:
            if not isinstance(await self._step(epoch), Accepted):
                return
            due = max(due + self._load.interval_s, time.monotonic() - self._load.interval_s)
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def _step(self, epoch: int) -> Outcome:
        view = self.node.ledger
        if view.open is not None and len(view.open.entries) >= self._config.flashblocks_per_block:
            block = view.open
            seal = Seal(epoch, self.node.node_id, block.number, block.payload_id, block.last_index, block.block_hash)
            outcome = await self.node.propose(seal, PROPOSAL_TIMEOUT_S)
            if not isinstance(outcome, Accepted):
                emit(seal=repr(outcome))
                return outcome
            view = self.node.ledger
        command = next_append(view, epoch, self.node.node_id, self._load.body_bytes)
        began = time.monotonic()
        outcome = await self.node.propose(command, PROPOSAL_TIMEOUT_S)
        at = time.monotonic()
        if isinstance(outcome, Accepted):
            emit(acked=[command.number, command.index, command.digest.hex(), epoch], at=at, latency_s=at - began)
        else:
            emit(unacked=repr(outcome), at=at)
        return outcome

    def _on_event(self, event: Event, replayed: bool) -> None:
        if isinstance(event, Claimed | Restored):
            emit(event=type(event).__name__, epoch=event.epoch, node=event.node, replayed=replayed, at=time.monotonic())
        elif isinstance(event, Appended | Sealed) and replayed:
            emit(event=type(event).__name__, number=event.number, replayed=True)


def next_append(view: LedgerView, epoch: int, node: str, body_bytes: int) -> Append:
    """The next flashblock of random bytes on top of what is committed."""
    body = os.urandom(body_bytes)
    digest = hashlib.sha256(body).digest()
    if view.open is not None:
        number, index, payload_id = view.open.number, len(view.open.entries), view.open.payload_id
    else:
        number, index, payload_id = view.head_number + 1, 0, digest[:8]
    block_hash = hashlib.sha256(number.to_bytes(8, "big") + index.to_bytes(8, "big") + digest).digest()
    return Append(epoch, node, payload_id, number, index, view.head_hash, block_hash, digest, body)


def describe(view: LedgerView) -> dict[str, Any]:
    """A ledger's contents as JSON: head, epoch, and [number, index, digest] of every kept flashblock."""
    kept = [(block.number, entry) for block in view.sealed_blocks for entry in block.entries]
    if view.open is not None:
        kept += [(view.open.number, entry) for entry in view.open.entries]
    return {
        "epoch": view.epoch,
        "head": view.head_number,
        "head_hash": view.head_hash.hex(),
        "flashblocks": [[number, entry.index, entry.digest.hex()] for number, entry in kept],
    }


def emit(**fact: Any) -> None:
    """One fact as a JSON line on stdout."""
    sys.stdout.buffer.write(msgspec.json.encode(fact) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    asyncio.run(Member(msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=MemberConfig)).run())
