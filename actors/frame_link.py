"""The link between our own components: flashblock frames over WebSocket, pre-encoded, bounded, reconnecting.

A server publishes; a client subscribes and may send frames back. Peers that offer the sub-protocol
`flashblocks.frame.v1` exchange binary frames (`flashblocks.wire.frames`); any other subscriber gets the public JSON
text of every flashblock and nothing else, so that foreign tools can listen at every port of the data path.
"""

import asyncio
import random
from collections.abc import Callable, Iterable, Sequence
from urllib.parse import urlencode, urlsplit

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.frames import CloseCode
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.typing import Subprotocol

from actors.backoff import Backoff
from actors.fanout import (
    BadQuery,
    LinkClientConnection,
    Query,
    Routes,
    SubscriberConnection,
    answer_route,
    binary_message,
    json_reply,
    parse_query,
    queue_messages_default,
    text_message,
    to_response,
)
from actors.stream_server import StreamServer, close_timeout_s, handshake_timeout_s
from flashblocks.wire.flashblock import decode_body
from flashblocks.wire.flashblock_json import encode_json
from flashblocks.wire.frames import (
    FRAME_SIZE_BYTES_MAX,
    SUBPROTOCOL,
    FlashblockFrame,
    Frame,
    decode_frame,
    encode_frame,
)
from flashblocks.wire.hexadecimal import WireError
from tracing.context import traceparent_of

frame_subprotocol = Subprotocol(SUBPROTOCOL)

message_bytes_max = FRAME_SIZE_BYTES_MAX
ping_interval_s = 0.5
pong_timeout_s = 3.0  # rollup-boost allows 1.5 s; on a busy machine that closes healthy links
client_write_bytes_max = 64 * 1024 * 1024
peers_max_default = 256

retry_first_s = 0.010
retry_max_s = 0.500
retry_growth = 2.0
steady_after_s = 1.0


class LinkCounters(msgspec.Struct):
    """What one end of a link has seen since it started."""

    sent: int = 0
    received: int = 0
    malformed: int = 0
    shed: int = 0
    refused: int = 0
    attempts: int = 0
    connects: int = 0
    losses: int = 0


class FirstBug:
    """Carries the first exception of a callback to whoever waits in `run()`; links may share one."""

    def __init__(self) -> None:
        self._bug: Exception | None = None
        self._seen = asyncio.Event()

    def report(self, bug: Exception) -> None:
        """Tell the loop's exception handler, and whoever waits."""
        context = {"message": "a callback of a frame link failed", "exception": bug}
        asyncio.get_running_loop().call_exception_handler(context)
        if self._bug is None:
            self._bug = bug
            self._seen.set()

    async def wait(self) -> None:
        """Wait for a bug and raise it."""
        await self._seen.wait()
        assert self._bug is not None
        raise self._bug


class Peer:
    """One subscriber of a `FrameServer`, from its handshake to its end."""

    __slots__ = ("_connection", "frames", "query", "remote")

    def __init__(self, connection: SubscriberConnection, query: Query) -> None:
        self._connection = connection
        self.query = query
        self.frames: bool = connection.subprotocol == frame_subprotocol
        """True for one of ours (binary frames both ways), False for a listener of public JSON."""
        address = connection.remote_address
        self.remote: str = f"{address[0]}:{address[1]}" if address else "?"


class FrameServer:
    """Publishes frames to subscribers on one port and hands back what they send.

    `greet(query)` gives the frames a new subscriber gets before anything published later; `on_frame(peer, frame)` and
    `on_peer(peer, joined)` are called on the loop, in order, and must not block. An exception out of a callback is our
    own bug: it ends `run()`. `path` None accepts every path (as builders and rollup-boost do). `routes` answers plain
    GETs on the same port. With `traceparent_in_metadata` the public JSON tells each flashblock's trace.
    """

    def __init__(
        self,
        host: str,
        port: int,
        path: str | None = "/ws",
        *,
        greet: Callable[[Query], Iterable[Frame]] | None = None,
        on_frame: Callable[[Peer, Frame], None] | None = None,
        on_peer: Callable[[Peer, bool], None] | None = None,
        routes: Routes | None = None,
        queue_messages_max: int = queue_messages_default,
        peers_max: int = peers_max_default,
        traceparent_in_metadata: bool = False,
    ) -> None:
        self.counters = LinkCounters()
        self._path = path
        self._greet = greet
        self._on_frame = on_frame
        self._on_peer = on_peer
        self._routes: Routes = routes or {}
        self._queue_messages_max = queue_messages_max
        self._peers_max = peers_max
        self._traced = traceparent_in_metadata
        self._peers: dict[Peer, SubscriberConnection] = {}
        self._server = StreamServer(
            host,
            port,
            SubscriberConnection,
            self._serve_peer,
            self._process_request,
            _prefer_frames,
            ping_interval_s=ping_interval_s,
            pong_timeout_s=pong_timeout_s,
            message_bytes_max=message_bytes_max,
        )
        self._bug = FirstBug()

    @property
    def port(self) -> int:
        """The bound port (after `start`; before it, the wanted one)."""
        return self._server.port

    @property
    def peers(self) -> list[Peer]:
        """The subscribers connected now."""
        return list(self._peers)

    async def start(self) -> None:
        """Bind and serve; raises `OSError` when the port is taken."""
        await self._server.start()

    async def run(self) -> None:
        """Wait for ever; raise what a callback raised, if one does."""
        await self._bug.wait()

    async def close(self) -> None:
        """Say goodbye to every peer (1001) and free the port. Bounded by the close time-out; idempotent."""
        await self._server.close()

    def publish(self, frame: Frame) -> None:
        """Give a frame to every subscriber: encoded once, never waiting for anyone."""
        messages = _Messages(frame, self._traced)
        for peer, connection in list(self._peers.items()):
            self._offer(peer, connection, messages)

    def send(self, peer: Peer, frame: Frame) -> None:
        """Give a frame to one subscriber (nothing happens when it has gone)."""
        connection = self._peers.get(peer)
        if connection is not None:
            self._offer(peer, connection, _Messages(frame, self._traced))

    def _offer(self, peer: Peer, connection: SubscriberConnection, messages: "_Messages") -> None:
        message = messages.binary() if peer.frames else messages.text()
        if message is None:
            return
        if connection.offer(message):
            self.counters.sent += 1
            return
        self.counters.shed += 1
        del self._peers[peer]
        self._server.shed(connection, f"too slow: more than {self._queue_messages_max} messages behind")

    def _process_request(self, connection: ServerConnection, request: Request) -> Response | None:
        try:
            query = parse_query(request.path)
        except BadQuery as error:
            return to_response(json_reply(400, {"message": str(error)}))
        route = self._routes.get(query.path)
        if route is not None:
            return answer_route(route, request)
        if self._path is not None and query.path != self._path:
            return to_response(json_reply(404, {"message": "not found"}))
        if len(self._peers) >= self._peers_max:
            self.counters.refused += 1
            return to_response(json_reply(429, {"message": f"more than {self._peers_max} subscribers"}))
        return None

    async def _serve_peer(self, connection: ServerConnection) -> None:
        assert isinstance(connection, SubscriberConnection) and connection.request is not None
        connection.queue_messages_max = self._queue_messages_max
        peer = Peer(connection, parse_query(connection.request.path))
        try:
            self._welcome(peer, connection)
            try:
                await self._listen(peer, connection)
            finally:
                self._forget(peer)
        except Exception as bug:
            self._bug.report(bug)
            raise

    async def _listen(self, peer: Peer, connection: SubscriberConnection) -> None:
        try:
            async for message in connection:
                if not self._receive(peer, message):
                    await connection.close(CloseCode.INVALID_DATA, "malformed frame")
                    return
        except ConnectionClosed:
            pass  # the peer's end of the link broke; its absence is what on_peer tells

    def _welcome(self, peer: Peer, connection: SubscriberConnection) -> None:
        # No await between the greeting and the registration: nothing published can fall in between.
        self.counters.connects += 1
        if self._greet is not None:
            owed = [_Messages(frame, self._traced) for frame in self._greet(peer.query)]
            made = [messages.binary() if peer.frames else messages.text() for messages in owed]
            connection.greet([message for message in made if message is not None])
        self._peers[peer] = connection
        if self._on_peer is not None:
            self._on_peer(peer, True)

    def _forget(self, peer: Peer) -> None:
        self.counters.losses += 1
        self._peers.pop(peer, None)
        if self._on_peer is not None:
            self._on_peer(peer, False)

    def _receive(self, peer: Peer, message: str | bytes) -> bool:
        if not peer.frames or isinstance(message, str):
            return True  # listeners of public JSON have nothing to say; what they say is read and dropped
        try:
            frame = decode_frame(message)
        except WireError:
            self.counters.malformed += 1
            return False
        self.counters.received += 1
        if self._on_frame is not None:
            self._on_frame(peer, frame)
        return True


class FrameClient:
    """Keeps one connection to a `FrameServer` (or to a foreign stream of flashblock JSON) open for ever.

    `on_frame(frame)` gets every frame in order; `on_change(up)` is called at once when the link comes up or is lost.
    `start()` is asked at every connect and gives the (block, index) to resume from, sent as `?from=`. When the peer
    does not speak our sub-protocol its messages go raw to `on_foreign` (text or bytes); without one they are counted
    as malformed. Callbacks must not block; an exception out of one is our bug and ends `run()`.
    """

    def __init__(
        self,
        url: str,
        on_frame: Callable[[Frame], None],
        on_change: Callable[[bool], None] | None = None,
        *,
        on_foreign: Callable[[str | bytes], None] | None = None,
        start: Callable[[], tuple[int, int] | None] | None = None,
        ping_interval_s: float = ping_interval_s,
        pong_timeout_s: float = pong_timeout_s,
        retry_first_s: float = retry_first_s,
        retry_max_s: float = retry_max_s,
        connect_timeout_s: float = handshake_timeout_s,
        chance: random.Random | None = None,
        bugs: FirstBug | None = None,
    ) -> None:
        self.url = url
        self.counters = LinkCounters()
        self._on_frame = on_frame
        self._on_change = on_change
        self._on_foreign = on_foreign
        self._start_at = start
        self._ping_interval_s = ping_interval_s
        self._pong_timeout_s = pong_timeout_s
        self._connect_timeout_s = connect_timeout_s
        self._backoff = Backoff(
            min(retry_first_s, retry_max_s),
            retry_max_s,
            growth=retry_growth,
            steady_after_s=steady_after_s,
            chance=chance or random.Random(),
        )
        self._connection: ClientConnection | None = None
        self._task: asyncio.Task[None] | None = None
        self._bug = bugs or FirstBug()

    @property
    def connected(self) -> bool:
        """True while the link is up."""
        return self._connection is not None and self._connection.state is State.OPEN

    @property
    def speaks_frames(self) -> bool:
        """True while the link is up and the peer speaks our sub-protocol."""
        return self._connection is not None and self._connection.subprotocol == frame_subprotocol

    async def start(self) -> None:
        """Begin connecting; returns at once, the peer may come later."""
        if self._task is None:
            self._task = asyncio.create_task(self._keep_connected(), name=f"frame-client {self.url}")

    async def run(self) -> None:
        """Wait for ever; raise what a callback raised, if one does."""
        await self._bug.wait()

    async def close(self) -> None:
        """Leave (1000) and stop reconnecting. Bounded by the close time-out; idempotent."""
        task, self._task = self._task, None
        if task is None:
            return
        task.cancel()
        await asyncio.wait([task])

    def send(self, frame: Frame) -> bool:
        """Write a frame now; False when the link is down (nothing is kept for later: the caller's facts are).

        A peer that lets more than `client_write_bytes_max` pile up is cut off; the link then comes up anew.
        """
        connection = self._connection
        if connection is None or connection.state is not State.OPEN:
            return False
        if connection.transport.get_write_buffer_size() > client_write_bytes_max:
            self.counters.shed += 1
            connection.transport.abort()
            return False
        connection.protocol.send_binary(encode_frame(frame))
        connection.send_data()
        self.counters.sent += 1
        return True

    async def _keep_connected(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                await self._live_once()
            except (OSError, TimeoutError, InvalidHandshake, ConnectionClosed, EOFError):
                pass
            except Exception as bug:
                self._bug.report(bug)
                return
            await asyncio.sleep(self._backoff.pause_s(loop.time() - began))

    async def _live_once(self) -> None:
        self.counters.attempts += 1
        connection = await connect(
            self._url_now(),
            subprotocols=[frame_subprotocol],
            compression=None,
            proxy=None,
            open_timeout=self._connect_timeout_s,
            ping_interval=self._ping_interval_s,
            ping_timeout=self._pong_timeout_s,
            close_timeout=close_timeout_s,
            max_size=message_bytes_max,
            create_connection=LinkClientConnection,
        )
        try:
            self._connection = connection
            self.counters.connects += 1
            if self._on_change is not None:
                self._on_change(True)
            speaks_frames = connection.subprotocol == frame_subprotocol
            async for message in connection:
                self._receive(message, speaks_frames)
        finally:
            self._connection = None
            self.counters.losses += 1
            try:
                if self._on_change is not None:
                    self._on_change(False)
            finally:
                await connection.close()

    def _url_now(self) -> str:
        start = self._start_at() if self._start_at is not None else None
        if start is None:
            return self.url
        joint = "&" if urlsplit(self.url).query else "?"
        return f"{self.url}{joint}{urlencode({'from': f'{start[0]}.{start[1]}'})}"

    def _receive(self, message: str | bytes, speaks_frames: bool) -> None:
        if not speaks_frames and self._on_foreign is not None:
            self.counters.received += 1
            self._on_foreign(message)
            return
        try:
            if isinstance(message, str):
                raise WireError("a frame is a binary message")
            frame = decode_frame(message)
        except WireError:
            self.counters.malformed += 1
            return
        self.counters.received += 1
        self._on_frame(frame)


class _Messages:
    """A frame's WebSocket messages, each made when the first subscriber needs it and kept for the others."""

    __slots__ = ("_binary", "_frame", "_text", "_traced")

    def __init__(self, frame: Frame, traced: bool) -> None:
        self._frame, self._traced = frame, traced
        self._binary: bytes | None = None
        self._text: bytes | None = None

    def binary(self) -> bytes:
        if self._binary is None:
            self._binary = binary_message(encode_frame(self._frame))
        return self._binary

    def text(self) -> bytes | None:
        """The public JSON; None for a frame that is not a flashblock."""
        if self._text is None and isinstance(self._frame, FlashblockFrame):
            traceparent = traceparent_of(self._frame.traceparent) if self._traced else ""
            self._text = text_message(encode_json(decode_body(self._frame.body), traceparent))
        return self._text


def _prefer_frames(_connection: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    return frame_subprotocol if frame_subprotocol in offered else None
