"""A JSON-RPC 2.0 server on one port: HTTP, WebSocket, probes, metrics, and the lifeline by which peers notice a death.

POST / takes single calls and batches; GET / upgrades to a WebSocket with the same methods and the session's own
(subscriptions). GET /healthz, /readyz, /livez, /metrics answer without a token; everything else asks for the JWT
when the server has a secret. GET /lifeline is a WebSocket on which nothing is said: it lives as long as the process.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Container, Iterable, Iterator, Mapping
from contextvars import ContextVar
from itertools import groupby
from typing import Any, NamedTuple, Protocol

import orjson
from aiohttp import WSCloseCode, WSMsgType, web
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.exposition import choose_encoder

from flashblocks.wire.hexadecimal import WireError
from flashblocks.wire.jsonrpc import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    PARSE_ERROR,
    RpcError,
    answer,
    read_request,
    refusal,
)
from flashblocks.wire.jwt import TokenError, check_token

REQUEST_SIZE_BYTES_MAX = 32 * 1024 * 1024
BATCH_SIZE_MAX = 1_000
NOTIFICATIONS_QUEUED_MAX = 10_000
NOTIFICATION_BYTES_QUEUED_MAX = 32 * 1024 * 1024
WEBSOCKET_HEARTBEAT_S = 20.0
SHUTDOWN_S_MAX = 1.0

Method = Callable[..., Awaitable[Any]]


class Caller(NamedTuple):
    """Who is asking: the socket's address, and the X-Forwarded-For header as it came (only a trusted hop's counts).

    `traceparent` is the W3C header as it came, `authorization` the header that may carry a JWT.
    """

    address: str = ""
    forwarded_for: str = ""
    traceparent: str = ""
    authorization: str = ""

    def origin(self, trusted: Container[str]) -> str:
        """The address that a limit counts: what a trusted hop says last, else the socket's."""
        if self.forwarded_for and self.address in trusted:
            return self.forwarded_for.rpartition(",")[2].strip() or self.address
        return self.address


UNKNOWN_CALLER = Caller()
CALLER: ContextVar[Caller] = ContextVar("caller", default=UNKNOWN_CALLER)
"""The caller of the method that runs, for limits per address; set for every HTTP request and WebSocket."""


class Probes(NamedTuple):
    """What the probe paths answer: an HTTP status and a short text each."""

    health: tuple[int, str] = (200, "OK")
    ready: tuple[int, str] = (200, "OK")


class Link(Protocol):
    """A WebSocket of its own protocol on the server's port."""

    def refuse(self, request: web.Request) -> web.Response | None:
        """The answer instead of an upgrade, or None."""

    async def serve(self, websocket: web.WebSocketResponse, request: web.Request) -> None:
        """Talk until the peer is gone."""


class RpcSession:
    """One WebSocket client of an RpcServer; `notify` queues, a client that does not read is closed with 1013."""

    def __init__(self, websocket: web.WebSocketResponse, remote: str) -> None:
        self.remote = remote
        self.on_close: list[Callable[[], None]] = []
        self._websocket = websocket
        self._queue: asyncio.Queue[bytes] = asyncio.Queue(NOTIFICATIONS_QUEUED_MAX)
        self._queued_bytes = 0
        self._closing: asyncio.Task[None] | None = None

    def notify(self, method: str, params: Any) -> None:
        """Queue a notification for this client."""
        self.send(orjson.dumps({"jsonrpc": "2.0", "method": method, "params": params}))

    def send(self, text: bytes) -> None:
        """Queue a text that is already encoded. The last that is taken may pass the bound: an answer may be large."""
        if self._queued_bytes <= NOTIFICATION_BYTES_QUEUED_MAX and not self._queue.full():
            self._queue.put_nowait(text)
            self._queued_bytes += len(text)
        elif self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._close_slow())

    async def write(self) -> None:
        """Write what is queued, until cancelled or the client is gone."""
        while not self._websocket.closed:
            text = await self._queue.get()
            try:
                await self._websocket.send_str(text.decode())
            except ConnectionError:
                return
            self._queued_bytes -= len(text)

    async def _close_slow(self) -> None:
        await self._websocket.close(code=WSCloseCode.TRY_AGAIN_LATER, message=b"too slow: notifications overflowed")


class RpcServer:
    """Serves `methods` (name → coroutine taking the positional parameters) on host:port; port 0 picks a free one.

    `session_methods` are WebSocket-only and get the RpcSession first. A handler raises RpcError for what the peer
    did wrong; a TypeError of its arguments and a WireError become -32602; anything else is our bug: -32603, logged,
    counted. `routes` are further (verb, path, aiohttp handler) on the same port, behind the JWT when there is one;
    `links` are WebSockets by path. Calls of a batch run one after the other, but neighbours of `side_by_side` together.
    """

    def __init__(
        self,
        host: str,
        port: int,
        methods: Mapping[str, Method],
        *,
        name: str,
        log: Any,
        session_methods: Mapping[str, Method] | None = None,
        jwt_secret: bytes | None = None,
        routes: Iterable[tuple[str, str, Callable[[web.Request], Awaitable[web.StreamResponse]]]] = (),
        links: Mapping[str, Link] | None = None,
        probes: Callable[[], Probes] = Probes,
        registry: CollectorRegistry | None = None,
        shows: CollectorRegistry | None = None,
        cors_origins: str | None = None,
        request_size_bytes_max: int = REQUEST_SIZE_BYTES_MAX,
        side_by_side: frozenset[str] = frozenset(),
        fallback: Callable[[str, list[Any]], Awaitable[Any]] | None = None,
        admit: Callable[[str], None] | None = None,
    ) -> None:
        self.host, self.port, self.methods = host, port, dict(methods)
        self.session_methods = dict(session_methods or {})
        self.registry = registry if registry is not None else CollectorRegistry()
        # what /metrics shows: by default what is counted here
        self._shows = shows if shows is not None else self.registry
        self._log, self._secret, self._probes, self._cors = log, jwt_secret, probes, cors_origins
        self._fallback, self._admit, self._together = fallback, admit, side_by_side
        self._sockets: set[web.WebSocketResponse] = set()
        self._errors = Counter(
            "flashblocks_rpc_errors", "RPC calls answered with an error", ["code"], registry=self.registry
        )
        self._name = name
        self._app = web.Application(client_max_size=request_size_bytes_max, middlewares=[self._guard])
        self._app.router.add_post("/", self._http)
        self._app.router.add_get("/", self._websocket)
        self._app.router.add_get("/ws", self._websocket)
        self._app.router.add_get("/lifeline", self._lifeline)
        self._app.router.add_get("/healthz", self._healthz)
        self._app.router.add_get("/readyz", self._readyz)
        self._app.router.add_get("/livez", self._livez)
        self._app.router.add_get("/metrics", self._metrics)
        for verb, path, handler in routes:
            self._app.router.add_route(verb, path, handler)
        self._links = dict(links or {})
        for path in self._links:
            self._app.router.add_get(path, self._link)
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Bind and serve; raises OSError with the address when it is taken."""
        self._runner = web.AppRunner(self._app, access_log=None, handle_signals=False, shutdown_timeout=SHUTDOWN_S_MAX)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self.host, self.port, reuse_address=True)
        try:
            await site.start()
        except OSError as error:
            await self._runner.cleanup()
            self._runner = None
            raise OSError(error.errno, f"{self._name}: cannot listen on {self.host}:{self.port}: {error}") from error
        self.port = self._runner.addresses[0][1]

    async def close(self) -> None:
        """Close every connection and the port; safe to call twice."""
        for websocket in list(self._sockets):
            await websocket.close(code=WSCloseCode.GOING_AWAY, message=b"shutting down")
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    @property
    def url(self) -> str:
        """The server's HTTP address."""
        return f"http://{self.host}:{self.port}"

    async def call(self, method: str, params: list[Any], session: RpcSession | None = None) -> Any:
        """Run one method as a client's call would; raises RpcError."""
        if self._admit is not None:
            self._admit(method)  # raises RpcError where a limit is reached
        handler = self.methods.get(method)
        try:
            if handler is not None:
                return await handler(*params)
            if session is not None and method in self.session_methods:
                return await self.session_methods[method](session, *params)
            if self._fallback is not None:
                return await self._fallback(method, params)
        except WireError as error:
            raise RpcError(INVALID_PARAMS, str(error)) from None
        except TypeError as error:
            if handler is not None and _is_signature_error(handler, error):
                raise RpcError(INVALID_PARAMS, f"wrong number of arguments for {method}") from None
            raise
        raise RpcError(METHOD_NOT_FOUND, f"the method {method} does not exist/is not available")

    async def _answer_one(self, obj: Any, session: RpcSession | None) -> dict[str, Any] | None:
        identifier = obj.get("id") if isinstance(obj, dict) else None
        try:
            request = read_request(obj)
            result = await self.call(request.method, request.params, session)
            return None if request.notification else answer(request.id, result)
        except RpcError as error:
            self._errors.labels(str(error.code)).inc()
            return refusal(identifier, error)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            self._errors.labels(str(INTERNAL_ERROR)).inc()
            self._log.error("rpc handler failed", rpc=self._name, method=str(obj.get("method")), exc_info=error)
            return refusal(identifier, RpcError(INTERNAL_ERROR, f"internal error: {type(error).__name__}"))

    async def _answer(self, raw: bytes | str, session: RpcSession | None) -> bytes | None:
        try:
            obj = orjson.loads(raw)
        except orjson.JSONDecodeError:
            self._errors.labels(str(PARSE_ERROR)).inc()
            return orjson.dumps(refusal(None, RpcError(PARSE_ERROR, "parse error")))
        if not isinstance(obj, list):
            single = await self._answer_one(obj, session)
            return None if single is None else orjson.dumps(single)
        if not obj or len(obj) > BATCH_SIZE_MAX:
            text = "empty batch" if not obj else f"batch too large: {len(obj)} calls, at most {BATCH_SIZE_MAX}"
            return orjson.dumps(refusal(None, RpcError(INVALID_REQUEST, text)))
        answers: list[dict[str, Any] | None] = []
        for together in self._runs(obj):
            if len(together) == 1:
                answers.append(await self._answer_one(together[0], session))
            else:
                answers += await asyncio.gather(*(self._answer_one(call, session) for call in together))
        given = [answer for answer in answers if answer is not None]
        return orjson.dumps(given) if given else None

    def _runs(self, calls: list[Any]) -> Iterator[list[Any]]:
        """A batch's calls in order; neighbours that may run side by side are together."""
        for alike, run in groupby(calls, lambda call: isinstance(call, dict) and call.get("method") in self._together):
            if alike:
                yield list(run)
            else:
                yield from ([call] for call in run)

    async def _http(self, request: web.Request) -> web.Response:
        text = await self._answer(await request.read(), None)
        return web.Response(body=text or b"", content_type="application/json")

    async def _websocket(self, request: web.Request) -> web.StreamResponse:
        websocket = web.WebSocketResponse(heartbeat=WEBSOCKET_HEARTBEAT_S, max_msg_size=self._app._client_max_size)
        if not websocket.can_prepare(request).ok:
            return web.Response(status=405, text="POST a JSON-RPC request, or upgrade to a WebSocket\n")
        if not await _prepared(websocket, request):
            return _gone()
        session = RpcSession(websocket, request.remote or "")
        self._sockets.add(websocket)
        writer = asyncio.create_task(session.write())
        calls: set[asyncio.Task[None]] = set()
        try:
            async for message in websocket:
                if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                    call = asyncio.create_task(self._answer_on(session, message.data))
                    calls.add(call)
                    call.add_done_callback(calls.discard)
        finally:
            for task in (writer, *calls):
                task.cancel()
            await asyncio.gather(writer, *calls, return_exceptions=True)
            self._sockets.discard(websocket)
            for ended in session.on_close:
                ended()
        return websocket

    async def _answer_on(self, session: RpcSession, raw: bytes | str) -> None:
        text = await self._answer(raw, session)
        if text is not None:
            session.send(text)

    async def _link(self, request: web.Request) -> web.StreamResponse:
        link = self._links[request.path]
        refused = link.refuse(request)
        if refused is not None:
            return refused
        websocket = web.WebSocketResponse(heartbeat=None, max_msg_size=self._app._client_max_size, compress=False)
        if not await _prepared(websocket, request):
            return _gone()
        self._sockets.add(websocket)
        try:
            await link.serve(websocket, request)
        finally:
            self._sockets.discard(websocket)
        return websocket

    async def _lifeline(self, request: web.Request) -> web.StreamResponse:
        websocket = web.WebSocketResponse(heartbeat=None)
        if not await _prepared(websocket, request):
            return _gone()
        self._sockets.add(websocket)
        try:
            async for _ in websocket:
                pass
        finally:
            self._sockets.discard(websocket)
        return websocket

    async def _healthz(self, request: web.Request) -> web.Response:
        status, text = self._probes().health
        return web.Response(status=status, text=text)

    async def _readyz(self, request: web.Request) -> web.Response:
        status, text = self._probes().ready
        return web.Response(status=status, text=text)

    async def _livez(self, request: web.Request) -> web.Response:
        return web.Response(text="OK")

    async def _metrics(self, request: web.Request) -> web.Response:
        # OpenMetrics, for those who can read it, has the trace ids beside the numbers.
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(self._shows), headers={"Content-Type": content_type})

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        open_paths = ("/healthz", "/readyz", "/livez", "/metrics", "/lifeline")
        if self._secret is not None and request.path not in open_paths:
            try:
                check_token(self._secret, request.headers.get("Authorization"), time.time())
            except TokenError as error:
                return web.Response(status=401, text=str(error))
        headers = request.headers
        named = (headers.get(name, "") for name in ("X-Forwarded-For", "traceparent", "Authorization"))
        CALLER.set(Caller(request.remote or "", *named))
        if self._cors and request.method == "OPTIONS":
            return web.Response(status=204, headers=self._cors_headers(request))
        response = await handler(request)
        if self._cors and not response.prepared:
            response.headers.update(self._cors_headers(request))
        return response

    def _cors_headers(self, request: web.Request) -> dict[str, str]:
        """What a browser wants to read: of several allowed origins, the one that asks."""
        allowed = [origin.strip() for origin in (self._cors or "").split(",")]
        anybody = "*" in allowed
        origin = "*" if anybody else request.headers.get("Origin", "")
        if origin not in allowed:
            return {"Vary": "Origin"}
        return {
            "Access-Control-Allow-Origin": origin,
            **({} if anybody else {"Vary": "Origin"}),
            "Access-Control-Allow-Methods": "POST, GET, OPTIONS",
            "Access-Control-Allow-Headers": "Content-Type, Authorization, traceparent, tracestate",
        }


async def _prepared(websocket: web.WebSocketResponse, request: web.Request) -> bool:
    """Answer the upgrade; False when the peer has given up by then."""
    try:
        await websocket.prepare(request)
    except ConnectionError:
        return False
    return True


def _gone() -> web.Response:
    """What aiohttp wants to have for a peer that hears nothing any more."""
    return web.Response(status=408)


def _is_signature_error(handler: Method, error: TypeError) -> bool:
    # a call with the wrong number of arguments fails before the handler's first line: no frame of its own
    traceback = error.__traceback__
    return traceback is not None and traceback.tb_next is None and getattr(handler, "__name__", "") in str(error)
