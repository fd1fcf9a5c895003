"""`eth_subscribe` on WebSockets and polled filters on HTTP: both are emitters that hear the node's events."""

from __future__ import annotations

import secrets
import time
from typing import Any

import orjson
from prometheus_client import CollectorRegistry, Gauge

from actors.rpc_reads import RpcReads, ends_in_pending
from actors.rpc_server import Method, RpcSession
from flashblocks.preconf.events import Event
from flashblocks.preconf.filters import Filters, block_hashes
from flashblocks.preconf.subscriptions import Emit, FirstSeen, subscription
from flashblocks.wire.hexadecimal import quantity
from flashblocks.wire.jsonrpc import LIMIT_EXCEEDED, RpcError

SUBSCRIPTIONS_PER_SESSION_MAX = 128
SUBSCRIPTIONS_MAX = 10_000


def _new_id() -> int:
    return secrets.randbits(127) | 1 << 127


class RpcSubscriber:
    """All subscriptions and filters of one rpc-node. What several want alike is made once per event."""

    def __init__(self, reads: RpcReads, registry: CollectorRegistry) -> None:
        self._reads = reads
        self._filters = Filters(_new_id)
        self._sessions: dict[RpcSession, dict[str, tuple[Emit, str]]] = {}
        self._shared: dict[str, Emit] = {}
        self._first_seen = FirstSeen()
        self._count = 0
        gauge = Gauge("flashblocks_rpc_subscriptions", "Open subscriptions", registry=registry)
        gauge.set_function(lambda: self._count)

    def methods(self) -> dict[str, Method]:
        """Name → coroutine for HTTP and WebSocket."""
        return {
            "eth_newFilter": self.new_filter,
            "eth_newBlockFilter": self.new_block_filter,
            "eth_newPendingTransactionFilter": self.new_pending_filter,
            "eth_getFilterChanges": self.filter_changes,
            "eth_getFilterLogs": self.filter_logs,
            "eth_uninstallFilter": self.uninstall_filter,
        }

    def session_methods(self) -> dict[str, Method]:
        """Name → coroutine for WebSocket alone."""
        return {"eth_subscribe": self.subscribe, "eth_unsubscribe": self.unsubscribe}

    # Subscriptions --------------------------------------------------------------------------------------------------

    async def subscribe(self, session: RpcSession, kind: Any, parameter: Any = None) -> str:
        """eth_subscribe: the subscription's id."""
        mine = self._sessions.get(session, {})
        if len(mine) >= SUBSCRIPTIONS_PER_SESSION_MAX or self._count >= SUBSCRIPTIONS_MAX:
            raise RpcError(LIMIT_EXCEEDED, "too many subscriptions")
        emit = subscription(kind, parameter)
        # The same question gives the same answer: made once per event for all who ask it.
        alike = f"{kind} {orjson.dumps(parameter)!r}"
        emit = self._shared.setdefault(alike, emit)
        name = quantity(_new_id())
        if session not in self._sessions:
            self._sessions[session] = mine
            session.on_close.append(lambda: self._closed(session))
        mine[name] = (emit, alike)
        self._count += 1
        return name

    async def unsubscribe(self, session: RpcSession, name: Any) -> bool:
        """eth_unsubscribe."""
        found = self._sessions.get(session, {}).pop(name, None) if isinstance(name, str) else None
        if found is None:
            return False
        self._count -= 1
        self._tidy()
        return True

    def _closed(self, session: RpcSession) -> None:
        self._count -= len(self._sessions.pop(session, {}))
        self._tidy()

    def _tidy(self) -> None:
        used = {alike for mine in self._sessions.values() for _, alike in mine.values()}
        for alike in self._shared.keys() - used:
            del self._shared[alike]

    def event(self, event: Event) -> None:
        """Tell everybody who wants to know."""
        fresh = self._first_seen.of(event)
        if fresh is not None:
            self._tell(fresh)
        self._tell(event)

    def _tell(self, event: Event) -> None:
        self._filters.event(event)
        made: dict[str, list[bytes]] = {}
        for session, mine in list(self._sessions.items()):
            for name, (emit, alike) in list(mine.items()):
                results = made.get(alike)
                if results is None:
                    results = made[alike] = [orjson.dumps(result) for result in emit(event)]
                for result in results:
                    session.send(_notification(name, result))

    # Filters --------------------------------------------------------------------------------------------------------

    async def new_filter(self, criteria: Any = None) -> str:
        """eth_newFilter: logs of sealed blocks as they come; of flashblocks where the range reaches into `pending`."""
        emit = subscription("pendingLogs" if ends_in_pending(criteria) else "logs", criteria)
        return self._filters.install(emit, time.monotonic(), criteria)

    async def new_block_filter(self) -> str:
        """eth_newBlockFilter."""
        return self._filters.install(block_hashes, time.monotonic())

    async def new_pending_filter(self, full: bool = False) -> str:
        """eth_newPendingTransactionFilter."""
        return self._filters.install(subscription("newPendingTransactions", full), time.monotonic())

    async def filter_changes(self, name: Any) -> list[Any]:
        """eth_getFilterChanges."""
        return self._filters.changes(name, time.monotonic())

    async def filter_logs(self, name: Any) -> list[Any]:
        """eth_getFilterLogs."""
        return await self._reads.logs(self._filters.criteria_of(name))

    async def uninstall_filter(self, name: Any) -> bool:
        """eth_uninstallFilter."""
        return self._filters.uninstall(name)


def _notification(name: str, result: bytes) -> bytes:
    """One eth_subscription message around a result that is already encoded."""
    head = b'{"jsonrpc":"2.0","method":"eth_subscription","params":{"subscription":"' + name.encode()
    return head + b'","result":' + result + b"}}"
