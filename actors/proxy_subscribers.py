"""The public side of the websocket-proxy: who is let in, in which format, and one write per subscriber."""

from collections.abc import Awaitable, Callable, Iterable, Sequence

import brotli
import msgspec
import orjson
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from actors.fanout import (
    BadQuery,
    Query,
    Routes,
    SubscriberConnection,
    answer_route,
    binary_message,
    json_reply,
    parse_query,
    text_message,
    to_response,
)
from actors.frame_link import FirstBug
from actors.stream_server import StreamServer
from flashblocks.proxy.admission import Door, Format, find_door, pick_subprotocol, subprotocols
from flashblocks.proxy.filters import Touched
from flashblocks.proxy.foreign import Foreign
from flashblocks.proxy.limits import INSTANCE_LIMIT, PER_IP_LIMIT, Limits, Refused, Ticket, client_ip
from flashblocks.proxy.ordering import Arrival
from flashblocks.wire.flashblock import decode_body
from flashblocks.wire.flashblock_json import encode_json
from flashblocks.wire.frames import AnnounceGapFrame, FlashblockFrame, encode_frame
from tracing.context import traceparent_of

brotli_quality = 5  # the deployed proxies' choice; quality 11, the library's default, costs 50 times as much
brotli_window_log2 = 22

client_message_bytes_max = 64 * 1024


class Outgoing:
    """A flashblock on its way out: each form is made when the first subscriber needs it, and kept for the others."""

    __slots__ = ("_made", "_text", "_touched", "_traced", "frame")

    def __init__(self, arrival: Arrival, *, traced: bool = False) -> None:
        item: FlashblockFrame | Foreign = arrival.item
        frame = item.frame if isinstance(item, Foreign) else item
        epoch = arrival.epoch or 0
        self.frame = frame if frame.epoch == epoch else msgspec.structs.replace(frame, epoch=epoch)
        self._text = item.text if isinstance(item, Foreign) else None
        self._made: dict[Format, bytes] = {}
        self._touched: Touched | None = None
        self._traced = traced

    @property
    def text(self) -> bytes:
        """The public JSON, with its trace where that is wanted; a foreign one is passed on exactly as it came."""
        if self._text is None:
            traceparent = traceparent_of(self.frame.traceparent) if self._traced else ""
            self._text = encode_json(decode_body(self.frame.body), traceparent)
        return self._text

    @property
    def touched(self) -> Touched:
        """What filters ask."""
        if self._touched is None:
            self._touched = Touched(decode_body(self.frame.body))
        return self._touched

    def message(self, form: Format) -> bytes:
        """The whole WebSocket message in one format."""
        made = self._made.get(form)
        if made is None:
            made = self._made[form] = self._make(form)
        return made

    def _make(self, form: Format) -> bytes:
        match form:
            case "frame":
                return binary_message(encode_frame(self.frame))
            case "text":
                return text_message(self.text)
            case "binary":
                return binary_message(self.text)
            case "brotli":
                packed = brotli.compress(self.text, quality=brotli_quality, lgwin=brotli_window_log2)
                return binary_message(packed)


class Gap:
    """A gap announcement on its way out: a frame for our own, JSON for those who asked for announcements."""

    def __init__(self, gap: AnnounceGapFrame) -> None:
        fields = {"block_number": gap.number, "index_from": gap.index_from, "index_to": gap.index_to}
        text = orjson.dumps({"gap": fields})
        self._made: dict[Format, bytes] = {
            "frame": binary_message(encode_frame(gap)),
            "text": text_message(text),
            "binary": binary_message(text),
            "brotli": binary_message(brotli.compress(text, quality=brotli_quality, lgwin=brotli_window_log2)),
        }

    def message(self, form: Format) -> bytes:
        """The whole WebSocket message in one format."""
        return self._made[form]


class ServingCounters(msgspec.Struct):
    """Under the names of the original's metrics."""

    sent_messages: int = 0
    failed_messages: int = 0
    new_connections: int = 0
    closed_connections: int = 0
    lagged_connections: int = 0
    rate_limited_requests: int = 0
    per_ip_rate_limited_requests: int = 0
    global_rate_limited_requests: int = 0
    unauthorized_requests: int = 0
    bytes_broadcasted: int = 0
    client_pong_disconnects: int = 0


class ServingOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How the public port behaves; times in seconds."""

    default_format: Format
    public: bool
    ip_header: str
    queue_messages_max: int
    send_timeout_s: float
    ping_interval_s: float | None
    pong_timeout_s: float | None


class ProxyConnection(SubscriberConnection):
    """A subscriber's connection, with its place in the limits, its door and its wishes."""

    ticket: Ticket | None = None
    door: Door
    form: Format = "text"
    on_lost: Callable[["ProxyConnection"], None] | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Asyncio's word that the socket is gone: whatever became of the handshake, the slot is free again."""
        super().connection_lost(exc)
        if self.on_lost is not None:
            self.on_lost(self)


Greeting = Callable[[Query], tuple[list[Outgoing], AnnounceGapFrame | None]]
Patience = Callable[[Query], Awaitable[None]]


class Subscribers:
    """The server on the public port.

    `greeting(query)` tells what a new subscriber is owed; `patience(query)` is awaited before it is asked.
    """

    def __init__(
        self,
        host: str,
        port: int,
        limits: Limits,
        options: ServingOptions,
        greeting: Greeting,
        patience: Patience,
        routes: Routes,
        bugs: FirstBug,
    ) -> None:
        self.counters = ServingCounters()
        self.limits = limits
        self._options = options
        self._greeting = greeting
        self._patience = patience
        self._routes = routes
        self._bugs = bugs
        self._server = StreamServer(
            host,
            port,
            ProxyConnection,
            self._serve_client,
            self._process_request,
            _pick,
            ping_interval_s=options.ping_interval_s,
            pong_timeout_s=options.pong_timeout_s,
            message_bytes_max=client_message_bytes_max,
        )
        self._plain: dict[Format, dict[ProxyConnection, None]] = {form: {} for form in subprotocols.values()}
        self._filtered: dict[ProxyConnection, None] = {}
        self._announced: dict[ProxyConnection, None] = {}

    @property
    def port(self) -> int:
        """The bound port (after `start`; before it, the wanted one)."""
        return self._server.port

    def __len__(self) -> int:
        return len(self._filtered) + sum(len(group) for group in self._plain.values())

    @property
    def queued_max(self) -> int:
        """How many messages the slowest subscriber has still to take."""
        connections = [*self._filtered, *(each for group in self._plain.values() for each in group)]
        return max((connection.queued for connection in connections), default=0)

    async def start(self) -> None:
        """Bind and serve; raises `OSError` when the port is taken."""
        await self._server.start()

    async def close(self) -> None:
        """Say goodbye to everybody (1001) and free the port. Bounded by the close time-out; idempotent."""
        await self._server.close()

    def publish(self, outgoing: Outgoing) -> None:
        """Give a flashblock to everybody who wants it: no await, no copy, one write each."""
        for form, group in self._plain.items():
            if group:
                self._write(group, outgoing.message(form))
        if self._filtered:
            touched = outgoing.touched
            for connection in list(self._filtered):
                wish = connection.door.filter
                if wish is None or wish.passes(touched):
                    self._write((connection,), outgoing.message(connection.form))

    def announce(self, gap: AnnounceGapFrame) -> None:
        """Tell of a gap to those who understand it."""
        made = Gap(gap)
        for connection in list(self._announced):
            self._write((connection,), made.message(connection.form))

    def _write(self, connections: Iterable[ProxyConnection], message: bytes) -> None:
        slow: list[ProxyConnection] = []
        count = 0
        for connection in connections:
            if connection.offer(message):
                count += 1
            else:
                slow.append(connection)
        self.counters.sent_messages += count
        self.counters.bytes_broadcasted += count * len(message)
        for connection in slow:
            self._shed(connection)

    def _shed(self, connection: ProxyConnection) -> None:
        self._forget(connection)
        self.counters.lagged_connections += 1
        self.counters.failed_messages += connection.queued + 1
        reason = f"too slow: {connection.queued} messages behind; resume with ?from=<block>.<index>"
        self._server.shed(connection, reason)

    def _process_request(self, connection: ServerConnection, request: Request) -> Response | None:
        assert isinstance(connection, ProxyConnection)
        try:
            return self._admit(connection, request)
        except Exception as bug:
            self._bugs.report(bug)
            raise

    def _admit(self, connection: ProxyConnection, request: Request) -> Response | None:
        try:
            query = parse_query(request.path)
        except BadQuery as error:
            return _refusal(Refused(400, str(error)))
        route = self._routes.get(query.path)
        if route is not None:
            return answer_route(route, request)
        door = find_door(query.path, dict(query.parameters), self.limits, public=self._options.public)
        if isinstance(door, Refused):
            return _refusal(door)
        ticket = self.limits.acquire(self._ip_of(connection, request), door.key)
        if isinstance(ticket, Refused):
            if ticket.status == 401:
                self.counters.unauthorized_requests += 1
            else:
                self.counters.rate_limited_requests += 1
                self.counters.per_ip_rate_limited_requests += ticket.message == PER_IP_LIMIT
                self.counters.global_rate_limited_requests += ticket.message == INSTANCE_LIMIT
            return _refusal(ticket)
        connection.ticket, connection.door, connection.on_lost = ticket, door, self._lost
        return None

    def _ip_of(self, connection: ProxyConnection, request: Request) -> str:
        stated = request.headers.get_all(self._options.ip_header)
        address = connection.remote_address
        return client_ip(stated[0] if stated else None, str(address[0]) if address else "")

    def _lost(self, connection: ProxyConnection) -> None:
        ticket, connection.ticket = connection.ticket, None
        if ticket is not None:
            self.limits.release(ticket)

    async def _serve_client(self, connection: ServerConnection) -> None:
        assert isinstance(connection, ProxyConnection) and connection.request is not None
        connection.queue_messages_max = self._options.queue_messages_max
        connection.send_timeout_s = self._options.send_timeout_s
        named = subprotocols.get(connection.subprotocol or "")
        connection.form = named or connection.door.format or self._options.default_format
        try:
            query = parse_query(connection.request.path)
            await self._patience(query)
            self._welcome(connection, query)
            async for _ in connection:
                pass  # subscribers have nothing to say; what they say is read and dropped
        except ConnectionClosed:
            pass
        except Exception as bug:
            self._bugs.report(bug)
            raise
        finally:
            self._forget(connection)
            self.counters.closed_connections += 1
            sent = connection.protocol.close_sent
            if sent is not None and sent.reason == "keepalive ping timeout":
                self.counters.client_pong_disconnects += 1

    def _welcome(self, connection: ProxyConnection, query: Query) -> None:
        # No await between the greeting and the registration: nothing published can fall in between.
        self.counters.new_connections += 1
        owed, missing = self._greeting(query)
        wish = connection.door.filter
        messages = [each.message(connection.form) for each in owed if wish is None or wish.passes(each.touched)]
        if connection.form == "frame" or connection.door.announcements:
            self._announced[connection] = None
            if missing is not None:
                messages.insert(0, Gap(missing).message(connection.form))
        connection.greet(messages)
        if wish is None:
            self._plain[connection.form][connection] = None
        else:
            self._filtered[connection] = None

    def _forget(self, connection: ProxyConnection) -> None:
        self._plain[connection.form].pop(connection, None)
        self._filtered.pop(connection, None)
        self._announced.pop(connection, None)


def _refusal(refused: Refused) -> Response:
    return to_response(json_reply(refused.status, {"message": refused.message}))


def _pick(_connection: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    picked = pick_subprotocol(list(offered))
    return Subprotocol(picked) if picked is not None else None
