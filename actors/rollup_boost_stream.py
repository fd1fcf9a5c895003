"""rollup-boost's ear: the builder's flashblocks, as our frames or as public JSON, over a link that comes back alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from actors.frame_link import FrameClient
from actors.upstream_metrics import UpstreamMetrics
from flashblocks.rollup_boost.facts import Fact, FlashblockArrived, GarbageArrived
from flashblocks.wire.flashblock import Flashblock, decode_body, encode_body
from flashblocks.wire.flashblock_json import decode_json
from flashblocks.wire.frames import FlashblockFrame, Frame, frame_of
from flashblocks.wire.hexadecimal import WireError

PARENTS_REMEMBERED_MAX = 64
RESEND_CONNECT_S_MAX = 0.5


class LinkTimes(msgspec.Struct, frozen=True):
    """How the link to the builder is kept, in seconds."""

    reconnect_first_s: float
    reconnect_max_s: float
    connect_timeout_s: float
    ping_interval_s: float
    pong_timeout_s: float


class BuilderStream:
    """Turns what the builder sends into facts for ``tell``; ``on_link(up)`` is called at once when the link changes."""

    def __init__(
        self,
        url: str,
        tell: Callable[[Fact], object],
        on_link: Callable[[bool], None],
        metrics: UpstreamMetrics,
        times: LinkTimes,
    ) -> None:
        self._url, self._tell, self._on_link, self._metrics = url, tell, on_link, metrics
        self._times = times
        self._parents: dict[bytes, bytes] = {}
        self._malformed = 0
        self._resending = False
        self._link = self._new_link()

    @property
    def connected(self) -> bool:
        """True while the link is up."""
        return self._link.connected

    async def start(self) -> None:
        """Begin to connect; the builder may come later."""
        await self._link.start()

    async def close(self) -> None:
        """Leave."""
        await self._link.close()

    async def ask_again(self) -> None:
        """Connect anew: every subscriber is greeted with the open block's flashblocks, a missed one among them."""
        if self._resending:
            return
        self._resending = True
        try:
            old, self._link = self._link, self._new_link()
            await old.close()
            self._malformed = 0
            await self._link.start()
            await asyncio.sleep(RESEND_CONNECT_S_MAX)
        finally:
            self._resending = False
        if not self._link.connected:
            self._on_link(False)

    def notice_malformed(self) -> None:
        """Tell of messages that the link could not decode since the last time."""
        malformed = self._link.counters.malformed
        if malformed > self._malformed:
            self._tell(GarbageArrived(f"{malformed - self._malformed} malformed messages"))
        self._malformed = malformed

    def _new_link(self) -> FrameClient:
        return FrameClient(
            self._url,
            self._frame,
            self._changed,
            on_foreign=self._foreign,
            ping_interval_s=self._times.ping_interval_s,
            pong_timeout_s=self._times.pong_timeout_s,
            retry_first_s=self._times.reconnect_first_s,
            retry_max_s=self._times.reconnect_max_s,
            connect_timeout_s=self._times.connect_timeout_s,
        )

    def _changed(self, up: bool) -> None:
        self._metrics.gauge("flashblocks_ws_inbound_connection_status", int(up))
        self._metrics.set_count("flashblocks_ws_inbound_reconnect_attempts", self._link.counters.attempts)
        if not self._resending:
            self._on_link(up)

    def _frame(self, frame: Frame) -> None:
        self._metrics.count("flashblocks_ws_inbound_messages_received")
        self.notice_malformed()
        if not isinstance(frame, FlashblockFrame):
            self._tell(GarbageArrived(f"a {type(frame).__name__} from the builder"))
            return
        try:
            flashblock = decode_body(frame.body)
        except WireError as error:
            self._tell(GarbageArrived(str(error)))
            return
        self._tell(FlashblockArrived(frame, flashblock))

    def _foreign(self, message: str | bytes) -> None:
        """A builder that streams public JSON, as op-rbuilder does."""
        self._metrics.count("flashblocks_ws_inbound_messages_received")
        try:
            flashblock = decode_json(message)
        except WireError as error:
            self._tell(GarbageArrived(str(error)))
            return
        frame = frame_of(flashblock, encode_body(flashblock), self._parent_of(flashblock))
        self._tell(FlashblockArrived(frame, flashblock))

    def _parent_of(self, flashblock: Flashblock) -> bytes:
        """JSON names the parent at index 0 only."""
        if flashblock.base is not None:
            self._parents[flashblock.payload_id] = flashblock.base.parent_hash
            while len(self._parents) > PARENTS_REMEMBERED_MAX:
                del self._parents[next(iter(self._parents))]
        return self._parents.get(flashblock.payload_id, b"\0" * 32)
