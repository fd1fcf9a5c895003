"""Blocks that no conductor's ledger has any more, from any execution client: `debug_getRawBlock` to a payload."""

from __future__ import annotations

from typing import Any

from actors.execution_peers import ExecutionPeers
from actors.rpc_client import RpcRefused, RpcUnknown
from flashblocks.wire.engine import Envelope
from flashblocks.wire.hexadecimal import WireError, quantity, to_bytes


class PayloadBackfill:
    """Asks the execution clients at `urls`; the answer is checked by the engine that imports it, not here."""

    def __init__(self, urls: list[str], log: Any) -> None:
        self._peers = ExecutionPeers(urls)
        self._log = log

    async def fetch(self, number: int) -> Envelope | None:
        """The payload of block `number`, or None when nobody has it now."""
        # Late: a conductor needs blocks only after a disaster, and must not carry the execution rules until then.
        from flashblocks.execution.errors import InvalidBlock, InvalidEncoding
        from flashblocks.execution.header import Block
        from flashblocks.execution.payloads import envelope_of

        try:
            raw = to_bytes(await self._peers.call("debug_getRawBlock", quantity(number)), None, "block")
            return envelope_of(Block.from_rlp(raw))
        except (RpcRefused, RpcUnknown, WireError, InvalidEncoding, InvalidBlock) as error:
            self._log.info("block not fetched", block=number, error=str(error))
            return None

    async def close(self) -> None:
        """Close the connections."""
        await self._peers.close()
