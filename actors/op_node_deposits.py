"""User deposits injected into the simulated L1, told to every op-node and kept across restarts.

The op-node that is asked chooses an L1 block at least `DEPOSIT_NOTICE_S` ahead, writes the deposit down and tells its
peers. Whichever op-node opens the first L2 block of that epoch includes what it knows then; the others import it. A
restarted op-node reads its own file and asks its peers for what it missed.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from secrets import token_bytes
from typing import Any

import orjson

from actors.rpc_client import RpcClient, RpcRefused, RpcUnknown
from flashblocks.sequencing.deposits import UserDeposit
from flashblocks.sequencing.l1 import DepositRefused, SimulatedL1
from flashblocks.wire.hexadecimal import WireError, data, quantity, to_bytes, to_int

DEPOSITS_FILE = "deposits.jsonl"
DEPOSIT_ID_BYTES = 16
TELL_S_MAX = 1.0
CATCH_UP_TRIES_MAX = 20
CATCH_UP_RETRY_S = 0.5
LOOK_BACK_L1_BLOCKS = 8


class DepositBook:
    """The deposits this op-node knows, and the ways they spread."""

    def __init__(self, l1: SimulatedL1, peer_urls: list[str], data_dir: str, log: Any) -> None:
        self._l1 = l1
        self._log = log
        self._path = Path(data_dir) / DEPOSITS_FILE if data_dir else None
        self._peers = [RpcClient(url, timeout_s=TELL_S_MAX) for url in peer_urls]

    def load(self) -> None:
        """Read the own file; a line that was cut off by a crash is left out."""
        if self._path is None or not self._path.exists():
            return
        for line in self._path.read_bytes().splitlines():
            try:
                number, deposit_id, deposit = _from_json(orjson.loads(line))
                self._l1.place(number, deposit_id, deposit)
            except (orjson.JSONDecodeError, WireError, DepositRefused) as error:
                self._log.warning("deposit left out", error=str(error))

    async def catch_up(self) -> None:
        """Ask the peers once for what was injected while we were away."""
        for _ in range(CATCH_UP_TRIES_MAX if self._peers else 0):
            since = max(0, self._l1.head(time.time()).number - LOOK_BACK_L1_BLOCKS)
            if any(await asyncio.gather(*(self._ask(peer, since) for peer in self._peers))):
                return
            await asyncio.sleep(CATCH_UP_RETRY_S)

    async def _ask(self, peer: RpcClient, since: int) -> bool:
        try:
            for obj in await peer.call("flashblocks_deposits", quantity(since)):
                self._keep(*_from_json(obj))
        except (RpcRefused, RpcUnknown, WireError, DepositRefused) as error:
            self._log.debug("peer has no deposits for us", peer=peer.url, error=str(error))
            return False
        return True

    async def inject(self, deposit: UserDeposit) -> dict[str, Any]:
        """Put a new deposit into an L1 block ahead and tell every peer; raises DepositRefused."""
        number, deposit_id = self._l1.next_deposit_block(time.time()), token_bytes(DEPOSIT_ID_BYTES)
        self._keep(number, deposit_id, deposit)
        obj = _to_json(number, deposit_id, deposit)
        told = await asyncio.gather(*(self._tell(peer, obj) for peer in self._peers))
        block = self._l1.block(number)
        return {
            "id": data(deposit_id),
            "l1BlockNumber": quantity(number),
            "l1BlockHash": data(block.hash),
            "l1Timestamp": quantity(block.timestamp),
            "peersTold": sum(told),
        }

    async def _tell(self, peer: RpcClient, obj: dict[str, Any]) -> bool:
        try:
            await peer.call("flashblocks_placeDeposit", obj)
        except (RpcRefused, RpcUnknown) as error:
            self._log.warning("peer not told of a deposit", peer=peer.url, error=str(error))
            return False
        return True

    def place(self, obj: Any) -> bool:
        """A peer tells of a deposit; whether it was new. Raises WireError or DepositRefused."""
        return self._keep(*_from_json(obj))

    def since(self, number: int) -> list[dict[str, Any]]:
        """All deposits of L1 block `number` and later."""
        return [_to_json(*entry) for entry in self._l1.deposits_from(number)]

    async def close(self) -> None:
        """Close the connections to the peers."""
        await asyncio.gather(*(peer.close() for peer in self._peers))

    def _keep(self, number: int, deposit_id: bytes, deposit: UserDeposit) -> bool:
        new = self._l1.place(number, deposit_id, deposit)
        if new and self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with open(self._path, "ab") as file:
                file.write(orjson.dumps(_to_json(number, deposit_id, deposit)) + b"\n")
        return new


def deposit_from_json(obj: Any) -> UserDeposit:
    """Read {from, to?, mint?, value?, gas?, data?}, hex as in JSON-RPC; raises WireError."""
    if not isinstance(obj, dict):
        raise WireError("deposit: expected an object")
    to = obj.get("to")
    return UserDeposit(
        sender=to_bytes(obj.get("from"), 20, "from"),
        to=None if to is None else to_bytes(to, 20, "to"),
        mint=to_int(obj.get("mint", 0), "mint"),
        value=to_int(obj.get("value", 0), "value"),
        gas=to_int(obj.get("gas", 100_000), "gas"),
        data=to_bytes(obj.get("data", "0x"), None, "data"),
    )


def _from_json(obj: Any) -> tuple[int, bytes, UserDeposit]:
    deposit = deposit_from_json(obj)
    return to_int(obj.get("l1BlockNumber"), "l1BlockNumber"), to_bytes(obj.get("id"), DEPOSIT_ID_BYTES, "id"), deposit


def _to_json(number: int, deposit_id: bytes, deposit: UserDeposit) -> dict[str, Any]:
    return {
        "l1BlockNumber": quantity(number),
        "id": data(deposit_id),
        "from": data(deposit.sender),
        "to": None if deposit.to is None else data(deposit.to),
        "mint": quantity(deposit.mint),
        "value": quantity(deposit.value),
        "gas": quantity(deposit.gas),
        "data": data(deposit.data),
    }
