"""The server that frame links and the websocket-proxy have in common: one port of WebSockets with prepared messages."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from actors.fanout import Entrance, Routes, SubscriberConnection, answer_route, json_reply, to_response

handshake_timeout_s = 5.0
close_timeout_s = 1.0
write_high_water_bytes = 256 * 1024


class StreamServer:
    """Binds, serves, sends away who is too slow, and closes without waiting for anybody.

    `kind` is the class of its connections, `serve_peer` their life, `process_request` what may answer them before.
    """

    def __init__(
        self,
        host: str,
        port: int,
        kind: type[SubscriberConnection],
        serve_peer: Callable[[ServerConnection], Awaitable[None]],
        process_request: Callable[[ServerConnection, Request], Response | None],
        select_subprotocol: Callable[[ServerConnection, Sequence[Subprotocol]], Subprotocol | None],
        *,
        ping_interval_s: float | None,
        pong_timeout_s: float | None,
        message_bytes_max: int,
    ) -> None:
        self._host, self._port = host, port
        self._entrance = Entrance(kind)
        self._serve_peer, self._process_request = serve_peer, process_request
        self._options: dict[str, Any] = {
            "select_subprotocol": select_subprotocol,
            "ping_interval": ping_interval_s,
            "ping_timeout": pong_timeout_s,
            "max_size": message_bytes_max,
        }
        self._server: Server | None = None
        self._shedding: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        """The bound port (after `start`; before it, the wanted one)."""
        return self._port if self._server is None else int(self._server.sockets[0].getsockname()[1])

    async def start(self) -> None:
        """Bind and serve; raises `OSError` when the port is taken."""
        self._server = await serve(
            self._serve_peer,
            self._host,
            self._port,
            process_request=self._process_request,
            compression=None,
            open_timeout=handshake_timeout_s,
            close_timeout=close_timeout_s,
            write_limit=write_high_water_bytes,
            create_connection=cast(Any, self._entrance),
            **self._options,
        )

    async def close(self) -> None:
        """Say goodbye to everybody (1001) and free the port. Bounded by the close time-out; idempotent."""
        if self._server is None:
            return
        await self._entrance.close(self._server)
        if self._shedding:
            await asyncio.wait(self._shedding)

    def shed(self, connection: SubscriberConnection, reason: str) -> None:
        """Send one away that is too slow (1013); never waits for it."""
        task = connection.shed(reason)
        self._shedding.add(task)
        task.add_done_callback(self._shedding.discard)


class RoutesPort:
    """A port that only answers plain GETs."""

    def __init__(self, host: str, port: int, routes: Routes) -> None:
        self._routes = routes
        self._server = StreamServer(
            host,
            port,
            SubscriberConnection,
            _nobody,
            self._answer,
            lambda connection, offered: None,
            ping_interval_s=None,
            pong_timeout_s=None,
            message_bytes_max=1,
        )

    @property
    def port(self) -> int:
        """The bound port."""
        return self._server.port

    async def start(self) -> None:
        """Bind and serve; raises `OSError` when the port is taken."""
        await self._server.start()

    async def close(self) -> None:
        """Free the port; idempotent."""
        await self._server.close()

    def _answer(self, connection: ServerConnection, request: Request) -> Response:
        route = self._routes.get(request.path.partition("?")[0])
        if route is None:
            return to_response(json_reply(404, {"message": "not found"}))
        return answer_route(route, request)


async def _nobody(connection: ServerConnection) -> None:
    """No connection gets past `process_request`."""


def split_address(address: str) -> tuple[str, int]:
    """`host:port`, `[v6]:port` or `:port` (every address); raises ValueError."""
    host, _, port = address.rpartition(":")
    if not port.isascii() or not port.isdigit():
        raise ValueError(f"{address!r} is not host:port")
    return host.removeprefix("[").removesuffix("]") or "0.0.0.0", int(port)
