"""The conductor's hands on its op-node: start it level with the ledger, stop it, keep it level while it follows."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from actors.execution_peers import call_batch
from actors.rpc_client import RpcClient, RpcRefused, RpcUnknown
from flashblocks.conductor.catch_up import CATCH_UP_BATCH_BLOCKS, Ahead, Level, Push, envelope_of, plan
from flashblocks.conductor.ledger_shape import SealedBlock
from flashblocks.wire.hexadecimal import WireError, data, to_bytes
from raft.ledger import LedgerView

START_S_MAX = 0.5
"""An op-node that is well answers in a few milliseconds; one that does not must not hold the chain for a second."""
STOP_S_MAX = 1.0
ASK_S_MAX = 0.5
PUSH_S_MAX = 10.0
CATCH_UP_BLOCKS_PER_START_MAX = 4096
RETRY_S_FIRST = 0.1
RETRY_S_MAX = 1.0
SETTLE_S = 0.5
"""How long the sequencer gets to insert its own block before the conductor hands it over."""

ALREADY_RUNNING = "sequencer already running"
NOT_RUNNING = "sequencer not running"
STALE_HEAD = ("block hash does not match", "no prestate")


class OpNodeAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What the health check wants to know of an op-node."""

    head_number: int
    head_timestamp: float
    safe_timestamp: float
    peers: int
    active: bool


class SequencerHandle:
    """One op-node seen from its conductor. `view()` is the ledger as applied here."""

    def __init__(self, url: str, view: Callable[[], LedgerView], log: Any) -> None:
        self.client = RpcClient(url, timeout_s=ASK_S_MAX)
        self._view = view
        self._log = log
        self._wanted = asyncio.Event()
        self._pushing = asyncio.Lock()
        self.silent = False
        """Whether the last start was not answered at all."""
        self.headers: Callable[[bytes | None], dict[str, str] | None] = lambda payload_id: None
        self._sequencing: Callable[[], bool] = lambda: False
        self._pushed: Callable[[SealedBlock], None] = lambda block: None
        self._adopt: Callable[[int], Awaitable[bool]] | None = None

    def bind(
        self,
        sequencing: Callable[[], bool],
        pushed: Callable[[SealedBlock], None],
        adopt: Callable[[int], Awaitable[bool]],
    ) -> None:
        """Say how to know whether the op-node sequences by our word, whom to tell of an imported block, and who takes
        blocks up to a number into the ledger that the op-node has beyond it."""
        self._sequencing, self._pushed, self._adopt = sequencing, pushed, adopt

    async def close(self) -> None:
        """Close the connections."""
        await self.client.close()

    async def head(self) -> tuple[int, bytes]:
        """Number and hash of the op-node's unsafe head; raises RpcRefused, RpcUnknown or WireError."""
        status = await self.client.call("optimism_syncStatus")
        try:
            unsafe = status["unsafe_l2"]
            return int(unsafe["number"]), to_bytes(unsafe["hash"], 32, "hash")
        except (TypeError, KeyError, ValueError) as error:
            raise WireError(f"optimism_syncStatus: {error!r}") from error

    async def ask(self) -> OpNodeAnswer:
        """Head, peers and activity in one request; raises RpcRefused, RpcUnknown or WireError."""
        methods = ("optimism_syncStatus", "opp2p_peerStats", "admin_sequencerActive")
        answers = await call_batch(self.client, [(method, ()) for method in methods])
        for method, answer in zip(methods, answers, strict=True):
            if answer is None or answer[1] is not None:
                raise WireError(f"{method}: {answer}")
        status, peers, active = (answer[0] for answer in answers if answer is not None)
        try:
            unsafe = status["unsafe_l2"]
            return OpNodeAnswer(
                head_number=int(unsafe["number"]),
                head_timestamp=float(unsafe["timestamp"]),
                safe_timestamp=float(status["safe_l2"]["timestamp"]),
                peers=int(peers["connected"]),
                active=bool(active),
            )
        except (TypeError, KeyError, ValueError) as error:
            raise WireError(f"op-node: {error!r}") from error

    async def start(self) -> bool:
        """Start the sequencer on the ledger's head; hands it what it lacks first, over a gap of any size."""
        self.silent = False
        for _ in range(2):
            try:
                await self.client.call("admin_startSequencer", data(self._view().head_hash), timeout_s=START_S_MAX)
                return True
            except RpcRefused as error:
                if ALREADY_RUNNING in error.message:
                    return True
                if not any(text in error.message for text in STALE_HEAD):
                    self._log.warning("sequencer did not start", error=error.message)
                    return False
                self._log.info("sequencer is not level with the ledger", error=error.message)
            except RpcUnknown as error:
                self.silent = True
                self._log.warning("sequencer did not start", error=str(error))
                return False
            if not await self.bring_level():
                return False
        return False

    async def stop(self) -> bool:
        """Stop the sequencer; bounded, and a sequencer that does not run is a success."""
        try:
            head = await self.client.call("admin_stopSequencer", timeout_s=STOP_S_MAX)
            self._log.info("sequencer stopped", hash=head)
            return True
        except RpcRefused as error:
            if NOT_RUNNING in error.message:
                return True
            self._log.warning("sequencer did not stop", error=error.message)
        except RpcUnknown as error:
            self._log.warning("sequencer did not stop", error=str(error))
        return False

    async def active(self) -> bool | None:
        """Whether the op-node sequences; None when it does not answer."""
        try:
            return bool(await self.client.call("admin_sequencerActive"))
        except (RpcRefused, RpcUnknown):
            return None

    def want_level(self) -> None:
        """Something may have changed: look whether the op-node is level with the ledger."""
        self._wanted.set()

    async def keep_level(self) -> None:
        """Hand every sealed block to a following op-node, as soon as it is sealed; for ever."""
        retry_s = RETRY_S_FIRST
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            if self._sequencing():
                await asyncio.sleep(SETTLE_S)  # it inserts its own blocks; what it missed comes here
            if await self.bring_level():
                retry_s = RETRY_S_FIRST
                continue
            await asyncio.sleep(retry_s)
            retry_s = min(RETRY_S_MAX, 2 * retry_s)
            self._wanted.set()

    async def bring_level(self) -> bool:
        """Hand over all that the op-node lacks; True when it stands on the ledger's head."""
        async with self._pushing:
            pushed, stood_at, back = 0, b"", 0
            while pushed < CATCH_UP_BLOCKS_PER_START_MAX:
                try:
                    number, block_hash = await self.head()
                except (RpcRefused, RpcUnknown, WireError) as error:
                    self._log.debug("op-node does not tell its head", error=str(error))
                    return False
                view = self._view()
                todo = plan(number, block_hash, view, back)
                if isinstance(todo, Level):
                    return True
                if isinstance(todo, Ahead):
                    self._log.warning("op-node is ahead of the ledger", block=number)
                    if self._adopt is None or not await self._adopt(number):
                        return False
                    continue
                if block_hash == stood_at and not todo.replaces:
                    return False  # it waits for blocks that it has to fetch itself
                if pushed or len(todo.blocks) > 1:
                    self._log.info("catching up", block=number, blocks=len(todo.blocks), backfill=todo.backfill)
                taken = await self._push_all(todo)
                pushed += taken
                if taken == len(todo.blocks) and block_hash != stood_at:
                    stood_at = block_hash
                    continue
                if not todo.replaces or todo.blocks[0].number == view.sealed_blocks[0].number:
                    return False
                back += CATCH_UP_BATCH_BLOCKS - 1  # what it made without a majority goes further down than that
            return False

    async def _push_all(self, todo: Push) -> int:
        """Hand over the blocks in order; how many were taken."""
        for taken, block in enumerate(todo.blocks):
            if not await self._push(block):
                return taken
        return len(todo.blocks)

    async def _push(self, block: SealedBlock) -> bool:
        payload, headers = envelope_of(block).to_json(), self.headers(block.payload_id)
        try:
            await self.client.call("admin_postUnsafePayload", payload, timeout_s=PUSH_S_MAX, headers=headers)
        except (RpcRefused, RpcUnknown) as error:
            self._log.warning(
                "payload not taken by the op-node", block=block.number, error=str(error), **(headers or {})
            )
            return False
        self._pushed(block)
        return True
