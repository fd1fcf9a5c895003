"""The rpc-node: Ethereum JSON-RPC over HTTP and WebSocket on one port, with `pending` made of flashblocks.

It trusts nobody: it executes every flashblock and every block itself (`preconf_follower`), takes the stream from all
proxies and blocks from any execution client. Without a fresh stream it goes on as a plain node, and says so.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import msgspec
import orjson
from prometheus_client import CollectorRegistry

from actors.preconf_follower import PreconfFollower
from actors.rpc_admin import RpcAdmin
from actors.rpc_calls import Beside, RpcCalls
from actors.rpc_client import RpcRefused, RpcUnknown
from actors.rpc_metering import RpcMetering
from actors.rpc_reads import RpcReads
from actors.rpc_sender import RpcSender
from actors.rpc_server import CALLER, Probes, RpcServer
from actors.rpc_subscriber import RpcSubscriber
from actors.rpc_view import RpcView
from flashblocks.execution.genesis import load_genesis
from flashblocks.ingress.limits import RateLimit
from flashblocks.preconf.events import Event
from flashblocks.preconf.sent import SentTransactions
from flashblocks.wire.hexadecimal import data
from flashblocks.wire.jsonrpc import LIMIT_EXCEEDED, METHOD_NOT_FOUND, SERVER_ERROR, RpcError
from tracing import names
from tracing.pending import PendingTrace
from tracing.sending import SendTrace
from tracing.stages import component_stages

REQUEST_SIZE_BYTES_MAX = 5 * 1024 * 1024
GIL_SWITCH_S = 0.001  # how long a thread that executes may keep the loop waiting
FORWARDED_METHODS = frozenset(
    {
        "debug_getRawBlock",
        "debug_getRawHeader",
        "debug_getRawReceipts",
        "debug_getRawTransaction",
        "txpool_content",
        "txpool_contentFrom",
        "txpool_inspect",
        "txpool_status",
    }
)


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every option of an rpc-node. Rates are calls per second and address; 0 means no limit."""

    name: str
    group: int = 0
    host: str = "127.0.0.1"
    port: int = 8545
    data_dir: str = ""  # empty: the chain is kept in memory only
    log_level: str = "info"
    genesis_path: str
    stream_urls: list[str]
    execution_urls: list[str]
    ingress_urls: list[str] = []
    flashblock_time_ms: int = 200
    stale_after_ms: int = 0  # 0: three flashblock times
    max_unconfirmed_blocks: int = 8
    cors_origins: str = "*"
    request_size_bytes_max: int = REQUEST_SIZE_BYTES_MAX
    per_ip_rate: float = 5_000.0
    per_ip_burst: int = 10_000
    trusted_proxy_addresses: tuple[str, ...] = ("127.0.0.1", "::1")  # whose X-Forwarded-For counts
    metered_fee_percentile: Annotated[int, msgspec.Meta(ge=0, le=100)] = 50  # of `base_meteredPriorityFeePerGas`


class RpcNode:
    """One rpc-node."""

    def __init__(self, settings: Settings, log: Any) -> None:
        self.settings, self._log = settings, log
        self._registry = CollectorRegistry()
        self._stages = component_stages("rpc-node", settings.name, settings.data_dir, self._registry)
        sends = SendTrace(self._stages, names.SEND)
        self._stale_after_ms = settings.stale_after_ms or 3 * settings.flashblock_time_ms
        self.follower = PreconfFollower(
            load_genesis(orjson.loads(Path(settings.genesis_path).read_bytes())),
            directory=Path(settings.data_dir) / "chain" if settings.data_dir else None,
            stream_urls=settings.stream_urls,
            execution_urls=settings.execution_urls,
            stale_after_s=self._stale_after_ms / 1000,
            max_unconfirmed_blocks=settings.max_unconfirmed_blocks,
            registry=self._registry,
            log=log,
            trace=PendingTrace(self._stages, sends),
        )
        self._beside = Beside()
        self._sent = SentTransactions()
        self.follower.known_transaction = self._sent.get
        self._per_ip = RateLimit(settings.per_ip_rate, settings.per_ip_burst)
        view = RpcView(self.follower)
        self._sender = RpcSender(
            view,
            self.follower,
            self._sent,
            settings.ingress_urls,
            self.follower.peers,
            self._publish,
            log,
            trusted_proxies=settings.trusted_proxy_addresses,
        )
        self._sender.trace = sends
        sender = self._sender
        reads = RpcReads(view, self._sent, self._beside.run, sender.pool_nonce, sender.waiting_transaction)
        self._subscriber = RpcSubscriber(reads, self._registry)
        self._admin = RpcAdmin(view, self._sent, settings.ingress_urls or settings.execution_urls)
        self.follower.listeners.append(self._subscriber.event)
        self.server = RpcServer(
            settings.host,
            settings.port,
            {
                **reads.methods(),
                **RpcCalls(view, self._beside).methods(),
                **RpcMetering(
                    view, self._beside, settings.flashblock_time_ms, settings.metered_fee_percentile
                ).methods(),
                **self._sender.methods(),
                **self._admin.methods(),
                **self._subscriber.methods(),
                "web3_clientVersion": self._client_version,
                "op_supportedCapabilities": self._capabilities,
                "flashblocks_status": self._status,
            },
            name="rpc-node",
            log=log,
            session_methods=self._subscriber.session_methods(),
            probes=self._probes,
            registry=self._registry,
            cors_origins=settings.cors_origins,
            request_size_bytes_max=settings.request_size_bytes_max,
            side_by_side=frozenset({"eth_sendRawTransaction"}),
            fallback=self._forward,
            admit=self._admit,
        )

    async def start(self) -> None:
        """Bind and serve; proxies, clients and ingresses may come later, in any order."""
        sys.setswitchinterval(GIL_SWITCH_S)
        await self.server.start()
        await self.follower.start()
        self._sender.start()

    async def run(self) -> None:
        """Follow until cancelled."""
        await self.follower.run()

    async def close(self) -> None:
        """Let go of everything."""
        await self.server.close()
        await self._sender.close()
        await self._admin.close()
        self._beside.close()
        await self.follower.close()
        await asyncio.to_thread(self._stages.close)

    def status(self) -> dict[str, Any]:
        """What `flashblocks status` shows."""
        follower, head = self.follower, self.follower.chain.head
        view = follower.machine.view(time.monotonic())
        age = follower.stream_age_s()
        return {
            "component": "rpc-node",
            "name": self.settings.name,
            "group": self.settings.group,
            "pid": os.getpid(),
            "health": "ready" if self._probes().ready[0] == 200 else "not ready",
            "epoch": follower.machine.epoch,
            "number": head.number,
            "hash": data(head.hash),
            "index": view.index,
            "pending": view.source,
            "pending_reason": view.reason,
            "stream_age_ms": None if age is None else round(age * 1000),
            "streams_up": follower.streams_up(),
            "unconfirmed_blocks": follower.machine.unconfirmed_blocks,
        }

    def _probes(self) -> Probes:
        age = self.follower.stream_age_s()
        if age is None:
            return Probes(ready=(503, f"no flashblock yet; {self.follower.streams_up()} proxies connected"))
        text = f"stream age {age * 1000:.0f} ms"
        if age * 1000 > self._stale_after_ms:
            return Probes(ready=(503, f"{text}, over {self._stale_after_ms} ms: pending is latest"))
        return Probes(ready=(200, text))

    async def _client_version(self) -> str:
        return f"flashblocks/rpc-node/python{sys.version_info.major}.{sys.version_info.minor}"

    async def _capabilities(self) -> list[str]:
        return ["flashblocksv1"]

    async def _status(self) -> dict[str, Any]:
        return self.status()

    async def _forward(self, method: str, params: list[Any]) -> Any:
        """Methods that need a full execution client are answered by one."""
        if method not in FORWARDED_METHODS:
            raise RpcError(METHOD_NOT_FOUND, f"the method {method} does not exist/is not available")
        try:
            return await self.follower.peers.call(method, *params)
        except RpcRefused as refused:
            raise RpcError(refused.code, refused.message, refused.data) from None
        except RpcUnknown as unknown:
            raise RpcError(SERVER_ERROR, f"no execution client answers: {unknown}") from None

    def _admit(self, method: str) -> None:
        self.follower.metrics.called(method)
        if not self._per_ip.take(CALLER.get().origin(self.settings.trusted_proxy_addresses), time.monotonic()):
            raise RpcError(LIMIT_EXCEEDED, "rate limit exceeded")

    def _publish(self, event: Event) -> None:
        self._subscriber.event(event)
