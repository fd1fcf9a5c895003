"""What rollup-boost's core has the two execution clients do, and how their answers come back as facts."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from actors.rollup_boost_clients import EngineClientOfBoost
from actors.rpc_client import RpcRefused, RpcUnknown
from actors.upstream_metrics import UpstreamMetrics
from flashblocks.rollup_boost.core import Core
from flashblocks.rollup_boost.facts import Applied, Apply, Fact, HeadSeen, StoodIn, Target
from flashblocks.wire.assembly import assemble
from flashblocks.wire.engine import Envelope
from flashblocks.wire.frames import FlashblockFrame
from flashblocks.wire.hexadecimal import WireError, data, to_int
from tracing import names
from tracing.stages import Stages


class ClientCalls:
    """Calls to the clients; each tells the core what came of it."""

    def __init__(
        self,
        clients: Mapping[Target, EngineClientOfBoost],
        core: Core,
        tell: Callable[[Fact], object],
        stages: Stages,
        metrics: UpstreamMetrics,
        log: Any,
    ) -> None:
        self._clients, self._core, self._tell = clients, core, tell
        self._stages, self._metrics, self._log = stages, metrics, log

    async def apply(self, apply: Apply) -> None:
        """Have a flashblock executed."""
        frame, client = apply.frame, self._clients[apply.target]
        began = time.perf_counter()
        verdict = await client.apply(frame, lambda: self._prefix(apply.payload_id, frame))
        took_s, ended = time.perf_counter() - began, time.time()
        self._metrics.observe("flashblocks_apply_duration_seconds", took_s, target=apply.target.value)
        self._tell(
            Applied(
                apply.target,
                apply.payload_id,
                frame.index,
                frame.digest,
                verdict.status,
                verdict.expected_index,
                verdict.error,
            )
        )
        if apply.target is Target.EXECUTION and frame.epoch == 0:  # after the offer is on its way
            self._stages.frame(frame, names.JUDGE, took_s, verdict.error, ended=ended)

    async def stand_in(self, payload_id: bytes, index: int) -> None:
        """Have a flashblock made in the builder's place."""
        try:
            frame, flashblock = await self._clients[Target.EXECUTION].stand_in(payload_id, index)
        except (RpcRefused, RpcUnknown, WireError) as error:
            self._tell(StoodIn(payload_id, index, error=str(error)))
        else:
            self._tell(StoodIn(payload_id, index, frame, flashblock))

    async def end_builder_job(self, builder_id: bytes) -> None:
        """Tell the builder that its block is closed."""
        try:
            await self._clients[Target.BUILDER].rpc.call("engine_getPayloadV4", data(builder_id))
        except (RpcRefused, RpcUnknown) as error:
            self._log.debug("the builder's job was not ended", error=str(error))

    async def look_at(self, target: Target) -> None:
        """Look at a client's head."""
        try:
            block = await self._clients[target].rpc.call("eth_getBlockByNumber", "latest", False)
            seen = HeadSeen(target, to_int(block["timestamp"], "timestamp"))
        except (RpcRefused, RpcUnknown, WireError, TypeError, KeyError) as error:
            seen = HeadSeen(target, failure=f"eth_getBlockByNumber: {error}")
        self._tell(seen)

    def _prefix(self, payload_id: bytes, frame: FlashblockFrame) -> Envelope | None:
        """The block up to this flashblock, None where another one stands in its place meanwhile."""
        block = self._core.blocks.get(payload_id)
        pieces = [] if block is None else block.pieces[: frame.index + 1]
        if len(pieces) <= frame.index or pieces[-1].frame.digest != frame.digest:
            return None
        return assemble([piece.flashblock for piece in pieces])
