"""The builder: an execution client whose payloads grow in flashblocks, streamed as they are built.

Everything but the source of payloads is the shared execution client.  What it adds: the WebSocket on which the
flashblocks go out (frames to ours, JSON text to anybody else) and ``eth_sendBundle``.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import msgspec

from actors.builder_metrics import builder_metrics
from actors.builder_source import FlashblockSource
from actors.execution_client import ClientOptions, ExecutionClient
from actors.frame_link import FrameServer, Peer
from actors.version_info import version_info
from actors.warm_up import warm_up
from flashblocks.builder.backruns import BackrunPool, BackrunRules, Replacement, read_backrun
from flashblocks.builder.bundles import BundlePool, read_bundle
from flashblocks.builder.job import EXTRA_DEADLINE_S_DEFAULT
from flashblocks.builder.limiter import Rate, SenderLimits
from flashblocks.builder.schedule import (
    BLOCK_TIME_MS_DEFAULT,
    END_BUFFER_MS_DEFAULT,
    FLASHBLOCK_TIME_MS_DEFAULT,
    SEND_OFFSET_MS_DEFAULT,
    Timing,
)
from flashblocks.execution.chain import HeadChange
from flashblocks.execution.follow import Verdict
from flashblocks.wire.hexadecimal import data, to_bytes
from flashblocks.wire.jsonrpc import METHOD_NOT_FOUND, RpcError

SUBSCRIBERS_MAX_DEFAULT = 256
DROPPED_CODE = -32000


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every option of a builder; 0 means no limit.  The timing defaults are explained in ``builder/schedule.py``."""

    name: str = "sequencer-0"
    group: int = 0
    host: str = "127.0.0.1"
    engine_host: str = ""
    """Address of the Engine API and the flashblocks, which only the own group talks to; empty is `host`."""
    data_dir: str = ""
    log_level: str = "info"
    jwt_secret_path: str = ""
    genesis_path: str
    engine_port: int = 8552
    rpc_port: int = 8543
    ws_port: int = 1111
    block_time_s: int = BLOCK_TIME_MS_DEFAULT // 1000
    flashblock_time_ms: int = FLASHBLOCK_TIME_MS_DEFAULT
    send_offset_ms: int = SEND_OFFSET_MS_DEFAULT
    end_buffer_ms: int = END_BUFFER_MS_DEFAULT
    peer_urls: list[str] = []
    extra_block_deadline_secs: float = EXTRA_DEADLINE_S_DEFAULT
    """How long after its timestamp a payload that nobody asked for is kept."""
    max_gas_per_txn: int = 0
    max_uncompressed_block_size: int = 0
    enable_revert_protection: bool = True
    backruns_enabled: bool = False
    """Serve eth_sendBackrunBundle; the numbers bound what is tried and what may land."""
    backruns_max_considered_per_block: int = BackrunRules().considered_per_block
    backruns_max_landed_per_block: int = BackrunRules().landed_per_block
    backruns_max_considered_per_target: int = BackrunRules().considered_per_target
    backruns_max_landed_per_target: int = BackrunRules().landed_per_target
    ws_subscriber_limit: int = SUBSCRIBERS_MAX_DEFAULT
    gas_limiter_enabled: bool = False
    """Pass over senders whose transactions used more gas than a bucket holds that is refilled with every block."""
    gas_limiter_max_gas_per_address: int = 10_000_000
    gas_limiter_refill_rate_per_block: int = 1_000_000
    gas_limiter_cleanup_interval: int = 100
    compute_limiter_enabled: bool = False
    """The same by the time their execution took here."""
    compute_limiter_max_time_us_per_address: int = 50_000
    compute_limiter_refill_rate_us_per_block: int = 10_000
    compute_limiter_cleanup_interval: int = 100


class Builder:
    """One builder; see the module's docstring."""

    def __init__(self, settings: Settings, log: Any) -> None:
        self.settings, self._log = settings, log
        self.bundles, self.backruns = BundlePool(), BackrunPool()
        self.metrics = builder_metrics(flags_of(settings))
        self.stream = FrameServer(
            settings.engine_host or settings.host,
            settings.ws_port,
            None,
            on_peer=self._peer_changed,
            peers_max=settings.ws_subscriber_limit,
        )
        self._bug: asyncio.Future[None] | None = None
        self.client = ExecutionClient(
            ClientOptions(
                component="builder",
                name=settings.name,
                group=settings.group,
                host=settings.host,
                engine_host=settings.engine_host,
                engine_port=settings.engine_port,
                rpc_port=settings.rpc_port,
                genesis_path=settings.genesis_path,
                data_dir=settings.data_dir,
                jwt_secret_path=settings.jwt_secret_path,
                peer_urls=settings.peer_urls,
                believes_senders=True,  # it only proposes; the fallback EL judges
            ),
            log,
            self._make_source,
            rpc_methods={"eth_sendBundle": self._send_bundle, "eth_sendBackrunBundle": self._send_backrun},
            status=self._status,
        )
        self.client.registry.register(self.metrics)
        self.client.registry.register(version_info())
        self.client.on_verdict = self._judged
        self.client.on_applied = self.source.applied
        self.source.trace = self.client.building
        self.client.on_head = self._head_changed
        receipts = self.client.rpc_server.methods["eth_getTransactionReceipt"]

        async def receipt_or_dropped(tx_hash: Any, *rest: Any) -> Any:
            found = await receipts(tx_hash, *rest)
            if found is None and self.bundles.was_dropped(to_bytes(tx_hash, 32, "hash")):
                raise RpcError(DROPPED_CODE, "the transaction was dropped from the pool")
            return found

        self.client.rpc_server.methods["eth_getTransactionReceipt"] = receipt_or_dropped

    def _make_source(self, client: ExecutionClient) -> FlashblockSource:
        settings = self.settings
        self.source = FlashblockSource(
            client,
            Timing(
                settings.block_time_s * 1000,
                settings.flashblock_time_ms,
                settings.send_offset_ms,
                settings.end_buffer_ms,
            ),
            self.stream,
            self.bundles,
            self.metrics,
            gas_per_transaction=settings.max_gas_per_txn or None,
            uncompressed_bytes_per_block=settings.max_uncompressed_block_size or None,
            sender_limits=sender_limits_of(settings),
            extra_deadline_s=settings.extra_block_deadline_secs,
            backruns=(self.backruns, backrun_rules_of(settings)) if settings.backruns_enabled else None,
        )
        self.source.on_bug = self._report
        return self.source

    async def start(self) -> None:
        """Bind the three ports."""
        self._bug = asyncio.get_running_loop().create_future()
        warm_up(self.client.chain)
        await self.stream.start()
        await self.client.start()

    async def run(self) -> None:
        """Keep the client going; ends only with our own bug."""
        assert self._bug is not None
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.client.run())
            tasks.create_task(self.stream.run())
            tasks.create_task(_raise_bug(self._bug))

    async def close(self) -> None:
        """Let go of everything."""
        await self.client.close()
        await self.stream.close()

    def status(self) -> dict[str, Any]:
        """What ``flashblocks status`` shows."""
        return self.client.status()

    def _status(self) -> dict[str, Any]:
        job = self.source.job
        return {"job": job.phase.value, "building_index": job.index, "bundles": len(self.bundles)}

    def _peer_changed(self, peer: Peer, joined: bool) -> None:
        self.metrics.gauge("ws_connections_active", len(self.stream.peers))
        self.metrics.set_count("ws_publish_lagged", self.stream.counters.shed)
        self.source.greet(peer, joined)

    def _judged(self, verdict: Verdict, took_s: float) -> None:
        """A flashblock of another builder was executed here."""
        if verdict.status == "VALID":
            self.metrics.count("block_synced_success")
            self.metrics.observe("flashblock_sync_duration", took_s)
        elif verdict.status == "INVALID":
            self.metrics.count("invalid_synced_blocks_count")

    def _head_changed(self, change: HeadChange) -> None:
        for block in change.added:
            for transaction in block.transactions:
                self.bundles.landed(transaction.hash)
        head = self.client.chain.head
        self.bundles.expire(head.number)
        self.backruns.expire(head.number)
        self.source.head_moved(head.number, head.hash)

    def _report(self, bug: BaseException) -> None:
        self._log.error("our own bug", exc_info=bug)
        if self._bug is not None and not self._bug.done():
            self._bug.set_exception(bug)

    async def _send_bundle(self, obj: Any) -> dict[str, str]:
        if not self.settings.enable_revert_protection:
            raise RpcError(METHOD_NOT_FOUND, "the method eth_sendBundle does not exist/is not available")
        self.metrics.count("bundle_requests")
        began = time.perf_counter()
        try:
            bundle = read_bundle(obj, self.client.chain.head.number)
            tx_hash = self.bundles.add(bundle)
        except RpcError:
            self.metrics.count("failed_bundles")
            raise
        self.metrics.count("valid_bundles")
        self.metrics.observe("bundle_receive_duration", time.perf_counter() - began)
        return {"bundleHash": data(tx_hash)}

    async def _send_backrun(self, obj: Any) -> dict[str, str | None]:
        if not self.settings.backruns_enabled:
            raise RpcError(METHOD_NOT_FOUND, "the method eth_sendBackrunBundle does not exist/is not available")
        wanted = read_backrun(obj, self.client.chain.head.number)
        if isinstance(wanted, Replacement):
            self.backruns.cancel(wanted)
            return {"bundleHash": None}
        self.backruns.add(wanted)  # an older version than what is here is dropped without a word, as in the original
        return {"bundleHash": data(wanted.transaction.hash)}


def backrun_rules_of(settings: Settings) -> BackrunRules:
    """How many backruns may be tried and may land."""
    return BackrunRules(
        settings.backruns_max_considered_per_block,
        settings.backruns_max_landed_per_block,
        settings.backruns_max_considered_per_target,
        settings.backruns_max_landed_per_target,
    )


def sender_limits_of(settings: Settings) -> SenderLimits:
    """The limits per sender that are switched on."""
    gas = Rate(
        settings.gas_limiter_max_gas_per_address,
        settings.gas_limiter_refill_rate_per_block,
        settings.gas_limiter_cleanup_interval,
    )
    time_us = Rate(
        settings.compute_limiter_max_time_us_per_address,
        settings.compute_limiter_refill_rate_us_per_block,
        settings.compute_limiter_cleanup_interval,
    )
    return SenderLimits(
        gas if settings.gas_limiter_enabled else None, time_us if settings.compute_limiter_enabled else None
    )


def flags_of(settings: Settings) -> dict[str, float]:
    """The settings that op-rbuilder shows as ``op_rbuilder_flags_…``: numbers and switches."""
    named = {name: getattr(settings, name) for name in settings.__struct_fields__}
    return {name: float(value) for name, value in named.items() if isinstance(value, bool | int | float)}


async def _raise_bug(bug: asyncio.Future[None]) -> None:
    await bug
