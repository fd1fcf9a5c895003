"""One WebSocket message, serialised once, written to many subscribers that cannot slow one another.

The obvious loop, `await connection.send(message)` per subscriber, serialises the message a thousand times and stops
at the first reader that does not read. `websockets.broadcast` does not stop, but has no bound: an unread message
waits in memory until the connection times out. Here a message is serialised once; a subscriber whose socket is full
gets it by reference into a short queue, and one whose queue is full is told to come back later (close code 1013).
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

import orjson
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.server import Server, ServerConnection
from websockets.datastructures import Headers
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import State

queue_messages_default = 256
send_timeout_s_default = 5.0
accept_steps = 3
"""Turns of the event loop from a socket's accept to its `connection_made`, with one to spare."""


class HttpReply(NamedTuple):
    """The answer to a plain GET on a WebSocket port."""

    status: int
    body: bytes
    content_type: str = "application/json"


Route = Callable[[], HttpReply]
Routes = Mapping[str, Route]
"""Path → what a plain GET of it answers. Read when the request arrives, so a reply always tells the present."""

ACCEPT: ContextVar[str] = ContextVar("accept", default="")
"""The formats that the asker of a route understands: its Accept header. Set while the route is asked."""


class Query(NamedTuple):
    """What a subscriber asked for in its request line.

    `start` is the (block number, index) of the first flashblock it wants (`?from=<block>.<index>`), inclusive,
    or None when it just wants the stream.
    """

    path: str
    start: tuple[int, int] | None
    parameters: Mapping[str, str]


class BadQuery(ValueError):
    """The request line is not understood; the text is meant for the client (HTTP 400)."""


def parse_query(target: str) -> Query:
    """Split a request target; raise `BadQuery` for an unreadable one or an unreadable `?from=`."""
    try:
        parts = urlsplit(target)
    except ValueError as error:
        raise BadQuery(f"request target: {error}") from None
    parameters = dict(parse_qsl(parts.query, keep_blank_values=True))
    return Query(parts.path, parse_start(parameters.get("from")), parameters)


def parse_start(text: str | None) -> tuple[int, int] | None:
    """Read `<block>.<index>` (decimal; the index may be left out and is then 0)."""
    if not text:
        return None
    number, _, index = text.partition(".")
    index = index or "0"
    if not (number.isascii() and number.isdigit() and index.isascii() and index.isdigit()):
        raise BadQuery("from must be <block number>.<index>")
    if len(number) > 19 or len(index) > 9:
        raise BadQuery("from is out of range")
    return int(number), int(index)


def text_message(payload: bytes) -> bytes:
    """Serialise a whole unmasked text message (RFC 6455 §5.2), ready for any number of `offer` calls."""
    return Frame(Opcode.TEXT, payload).serialize(mask=False)


def binary_message(payload: bytes) -> bytes:
    """Serialise a whole unmasked binary message (RFC 6455 §5.2), ready for any number of `offer` calls."""
    return Frame(Opcode.BINARY, payload).serialize(mask=False)


def json_reply(status: int, value: Any) -> HttpReply:
    """Build a JSON answer to a plain GET."""
    return HttpReply(status, orjson.dumps(value))


def answer_route(route: Route, request: Request) -> Response:
    """Ask a route for its reply to a request."""
    ACCEPT.set(request.headers.get("Accept", ""))
    return to_response(route())


def to_response(reply: HttpReply, *, with_body: bool = True) -> Response:
    """Turn a reply into the response that `process_request` returns instead of an upgrade."""
    status = HTTPStatus(reply.status)
    headers = Headers(
        [
            ("Connection", "close"),
            ("Content-Length", str(len(reply.body))),
            ("Content-Type", reply.content_type),
        ]
    )
    return Response(status.value, status.phrase, headers, reply.body if with_body else b"")


class ClosedTransport(asyncio.Transport):
    """Stands in for the transport of a connection that is gone.

    In CPython 3.11 `abort()` raises AttributeError on a transport that was closed while it had bytes to flush, and
    `websockets` aborts every connection once more after it was lost.
    """

    def __init__(self, gone: asyncio.Transport) -> None:
        super().__init__()
        self._gone = gone

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Answer as the old transport does."""
        return self._gone.get_extra_info(name, default)

    def is_closing(self) -> bool:
        """Say that it is over."""
        return True

    def get_write_buffer_size(self) -> int:
        """Say that nothing waits to be written."""
        return 0

    def write(self, data: Any) -> None:
        """Drop the bytes: nobody is there."""

    def can_write_eof(self) -> bool:
        """Say that there is no half left to close."""
        return False

    def close(self) -> None:
        """Do nothing: it is closed."""

    def abort(self) -> None:
        """Do nothing: it is closed."""


class LinkClientConnection(ClientConnection):
    """A client connection whose end may be noticed twice without harm."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Asyncio's word that the socket is gone."""
        super().connection_lost(exc)
        self.transport = ClosedTransport(self.transport)


class Entrance:
    """Every connection of one server, from its accept to its end, so that closing does not wait for the unfinished.

    `websockets` closes only connections whose handshake is done; a stalled one would hold a closing server for the
    whole handshake time-out, and one accepted in the very moment of closing would be forgotten.
    """

    def __init__(self, kind: type["SubscriberConnection"]) -> None:
        self._kind = kind
        self._inside: set[SubscriberConnection] = set()
        self._shut = False

    def __call__(self, *args: Any, **kwargs: Any) -> "SubscriberConnection":
        """Make a connection, in the place of its class."""
        connection = self._kind(*args, **kwargs)
        connection.entrance = self
        return connection

    def enter(self, connection: "SubscriberConnection") -> None:
        """Note a new connection; once shut, cut it off."""
        self._inside.add(connection)
        if self._shut:
            connection.transport.abort()

    def leave(self, connection: "SubscriberConnection") -> None:
        """Forget a connection that is gone."""
        self._inside.discard(connection)

    async def close(self, server: Server) -> None:
        """Close the server: goodbye (1001) to the open connections, an end to the others. Bounded; idempotent."""
        self._shut = True
        if not server.is_serving():
            return
        loop = asyncio.get_running_loop()
        for listening in server.sockets:
            loop.remove_reader(listening.fileno())
        for _ in range(accept_steps):
            # CPython 3.11 loses a socket that was accepted but has no transport yet when its server is closed.
            await asyncio.sleep(0)
        server.close()
        for connection in list(self._inside):
            if connection.protocol.state is State.CONNECTING:
                connection.transport.abort()
        await server.wait_closed()
        while server.handler_tasks:
            await asyncio.wait(list(server.handler_tasks))


class SubscriberConnection(ServerConnection):
    """A server connection that takes prepared messages into a bounded queue instead of waiting for the reader.

    Only whole messages made by `text_message` and `binary_message` may be offered, and the connection must have no
    extension (compression off), because the bytes go to the socket as they are.
    """

    entrance: Entrance | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.queue_messages_max = queue_messages_default
        self.send_timeout_s = send_timeout_s_default
        self._queued: deque[bytes] = deque()
        self._greeting_queued = 0
        self._paused_since = 0.0

    @property
    def queued(self) -> int:
        """How many messages wait for this reader beyond what its socket buffers hold."""
        return len(self._queued)

    def offer(self, message: bytes) -> bool:
        """Write one prepared message, or queue it; False when the reader is too slow and should be shed.

        A closing or closed connection takes and forgets everything.
        """
        if self.protocol.state is not State.OPEN or self.transport.is_closing():
            return True
        if not self.paused:
            self.transport.write(message)
            return True
        if len(self._queued) >= self.queue_messages_max + self._greeting_queued:
            return False
        if self.loop.time() - self._paused_since > self.send_timeout_s:
            return False
        self._queued.append(message)
        return True

    def greet(self, messages: list[bytes]) -> None:
        """Write the messages a new subscriber is owed. They do not count against its queue: it asked for them."""
        for message in messages:
            if self.paused:
                self._queued.append(message)
                self._greeting_queued += 1
            else:
                self.transport.write(message)

    def shed(self, reason: str) -> asyncio.Task[None]:
        """Start closing a reader that is too slow (code 1013, "try again later"); never waits for it."""
        self._queued.clear()
        return self.loop.create_task(self.close(CloseCode.TRY_AGAIN_LATER, reason))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Asyncio's word that there is a socket."""
        super().connection_made(transport)
        if self.entrance is not None:
            self.entrance.enter(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Asyncio's word that the socket is gone."""
        if self.entrance is not None:
            self.entrance.leave(self)
        self._queued.clear()
        super().connection_lost(exc)
        self.transport = ClosedTransport(self.transport)

    def pause_writing(self) -> None:
        """Asyncio's word that the socket is full."""
        super().pause_writing()
        self._paused_since = self.loop.time()

    def resume_writing(self) -> None:
        """Asyncio's word that there is room again: the queue goes first, in order."""
        super().resume_writing()
        if self.protocol.state is not State.OPEN:
            self._queued.clear()
        while self._queued and not self.paused:
            self._greeting_queued = max(0, self._greeting_queued - 1)
            self.transport.write(self._queued.popleft())
