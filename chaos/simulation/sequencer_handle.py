"""The conductor's hands on its op-node: `actors.conductor_sequencer` over the in-memory network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from actors.conductor_sequencer import (
    ALREADY_RUNNING,
    ASK_S_MAX,
    CATCH_UP_BLOCKS_PER_START_MAX,
    NOT_RUNNING,
    PUSH_S_MAX,
    SETTLE_S,
    STALE_HEAD,
    START_S_MAX,
    STOP_S_MAX,
)
from chaos.simulation.kernel import Event, Lock, Process
from chaos.simulation.network import CallRefused, CallUnknown, Network
from flashblocks.conductor.catch_up import Ahead, Level, envelope_of, plan
from raft.view import LedgerView, SealedBlock

LEVEL_RETRY_S_FIRST: Final = 0.1
LEVEL_RETRY_S_MAX: Final = 1.0


class SequencerHandle:
    """One op-node seen from its conductor; `sequencing()` says whether it sequences by our word."""

    def __init__(
        self,
        network: Network,
        process: Process,
        slot: str,
        view: Callable[[], LedgerView],
        sequencing: Callable[[], bool],
        pushed: Callable[[SealedBlock], None],
    ) -> None:
        self.up = False
        self._network, self._process, self._slot = network, process, slot
        self._view, self._sequencing, self._pushed = view, sequencing, pushed
        self._wanted, self._pushing = Event(process), Lock(process)

    def want_level(self) -> None:
        """Something may have changed: look whether the op-node is level with the ledger."""
        self._wanted.set()

    async def ask(self) -> tuple[int, bytes, int, int, int, bool]:
        """Head number, hash and time, safe head's time, peers, whether it sequences."""
        status: tuple[int, bytes, int, int, int, bool] = await self._call("status", timeout_s=ASK_S_MAX)
        return status

    async def _call(self, method: str, *arguments: Any, timeout_s: float) -> Any:
        return await self._network.call(self._process, self._slot, method, *arguments, timeout_s=timeout_s)

    async def start(self) -> bool:
        """Start it on the ledger's head, level with it first."""
        for _ in range(2):
            try:
                head = self._view().head_hash
                await self._call("start_sequencer", head, timeout_s=START_S_MAX)
                return True
            except CallRefused as error:
                if ALREADY_RUNNING in error.message:
                    return True
                if not any(text in error.message for text in STALE_HEAD):
                    return False
            except CallUnknown:
                return False
            if not await self.bring_level():
                return False
        return False

    async def stop(self) -> bool:
        """Stop it; a dead one is stopped."""
        if not self.up:
            return True
        try:
            await self._call("stop_sequencer", timeout_s=STOP_S_MAX)
            return True
        except CallRefused as error:
            return NOT_RUNNING in error.message
        except CallUnknown:
            return False

    async def keep_level(self) -> None:
        """Hand every sealed block to a following op-node, for ever."""
        retry_s = LEVEL_RETRY_S_FIRST
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            if self._sequencing():
                await self._process.sleep(SETTLE_S)
            if await self.bring_level():
                retry_s = LEVEL_RETRY_S_FIRST
                continue
            await self._process.sleep(retry_s)
            retry_s = min(LEVEL_RETRY_S_MAX, 2 * retry_s)
            self._wanted.set()

    async def bring_level(self) -> bool:
        """Hand over all that it lacks; True when it stands on the ledger's head."""
        async with self._pushing:
            pushed, stood_at = 0, b""
            while pushed < CATCH_UP_BLOCKS_PER_START_MAX:
                try:
                    number, block_hash, *_ = await self._call("status", timeout_s=ASK_S_MAX)
                except (CallRefused, CallUnknown):
                    return False
                todo = plan(number, block_hash, self._view())
                if isinstance(todo, Level):
                    return True
                if isinstance(todo, Ahead) or block_hash == stood_at:
                    return False  # nothing is ever inserted without a commit here, so there is nothing to adopt
                stood_at = block_hash
                for block in todo.blocks:
                    assert isinstance(block, SealedBlock)
                    if not await self._push(block):
                        return False
                    pushed += 1
            return False

    async def _push(self, block: SealedBlock) -> bool:
        try:
            await self._call("post_unsafe_payload", envelope_of(block), timeout_s=PUSH_S_MAX)
        except (CallRefused, CallUnknown):
            return False
        self._pushed(block)
        return True
