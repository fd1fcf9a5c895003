"""The websocket-proxy: one ordered stream out of every conductor's, fanned out to everybody.

The rules are in `flashblocks.proxy`; here are the sockets and the one timer. Upstream links are `FrameClient`s; a gap
is filled over a second, short-lived link to one of them, so that the running stream is never interrupted.
"""

import asyncio
import os
import socket
import time
from functools import partial
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from actors.fanout import ACCEPT, HttpReply, Query, json_reply
from actors.frame_link import FirstBug, FrameClient
from actors.proxy_history import HistorySearch
from actors.proxy_metrics import as_openmetrics, exposition, labelled
from actors.proxy_subscribers import Outgoing, ServingOptions, Subscribers
from actors.stream_server import RoutesPort, split_address
from flashblocks.proxy.admission import Format
from flashblocks.proxy.backlog import Backlog
from flashblocks.proxy.foreign import ForeignStream, ours
from flashblocks.proxy.limits import Limits, parse_api_keys
from flashblocks.proxy.ordering import Announce, Arrival, Ask, Decision, Deliver, Ordering, OrderSettings, Restart
from flashblocks.wire.frames import AnnounceGapFrame, FlashblockFrame, Frame
from flashblocks.wire.hexadecimal import WireError
from tracing import names
from tracing.logs import Logger
from tracing.stages import component_stages

PATIENCE_POLL_S = 0.01


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every option of a websocket-proxy; names and defaults of the original where it has them."""

    name: str = "proxy-0"
    group: int = 0
    host: str = "127.0.0.1"
    port: int = 8550
    metrics: bool = True
    metrics_addr: str = ""
    """`host:port` on which metrics are served besides the main port."""
    metrics_global_labels: dict[str, str] = {}
    metrics_host_label: bool = False
    """Label every metric with this host's name."""
    data_dir: str = ""
    log_level: str = "info"
    upstream_ws: list[str]
    message_buffer_size: int = 20
    """Messages a subscriber may be behind before it is closed with 1013."""
    instance_connection_limit: int = 100
    per_ip_connection_limit: int = 10
    """0: no limit per IP."""
    api_keys: list[str] = []
    """`app:key` or `app:key:limit` each."""
    public_access_enabled: bool = False
    """With API keys: leave `/ws` open to everybody."""
    ip_addr_http_header: str = "X-Forwarded-For"
    enable_compression: bool = False
    """Subscribers who name no format get brotli."""
    binary_messages: bool = False
    """Subscribers who name no format get JSON in binary messages, as the original always sends it."""
    subscriber_max_interval_ms: int = 500
    """The longest pause between two attempts to reach an upstream (the original: 20 s)."""
    subscriber_ping_interval_ms: int = 500
    subscriber_pong_timeout_ms: int = 3000
    client_ping_enabled: bool = True
    client_ping_interval_ms: int = 15_000
    client_pong_timeout_ms: int = 30_000
    client_send_timeout_ms: int = 5_000
    """How long a subscriber's socket may stay full."""
    gap_wait_ms: int = 1000
    gap_ask_interval_ms: int = 200
    restart_wait_ms: int = 5_000
    """How long upstreams must go on behind us – their ledger was wiped – before we follow them."""
    backlog_blocks: int = 16
    backlog_bytes_max: int = 64 * 1024 * 1024
    history_wait_ms: int = 500
    """How long one upstream has, after a start, to give the blocks before the first one delivered."""
    resume_wait_ms: int = 2_000
    """How long the search for that history goes on, and a subscriber who resumes right after a start waits for it."""
    stale_after_ms: int = 10_000
    """`/readyz` says no when the last flashblock is older."""
    traceparent_in_metadata: bool = False
    """Tell subscribers of JSON each flashblock's trace: `metadata.traceparent`, which the original does not have."""


class _Upstream:
    """One upstream URL: its running link and, while a gap is open, a second one that replays the past."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.link: FrameClient | None = None
        self.replay: FrameClient | None = None
        self.spoke_frames: bool | None = None
        """Whether it spoke our sub-protocol when it was last connected; None before."""
        self.malformed = 0


class WebsocketProxy:
    """The component: `start`, `run`, `close`, `status`."""

    def __init__(self, settings: Settings, log: Logger) -> None:
        self._settings = settings
        self._log = log
        self._bugs = FirstBug()
        self._ordering = Ordering(
            OrderSettings(
                gap_wait_s=settings.gap_wait_ms / 1000,
                ask_interval_s=settings.gap_ask_interval_ms / 1000,
                window_blocks=settings.backlog_blocks,
                restart_wait_s=settings.restart_wait_ms / 1000,
            )
        )
        self._backlog: Backlog[Outgoing] = Backlog(
            blocks_max=settings.backlog_blocks, bytes_max=settings.backlog_bytes_max
        )
        self._upstreams = [_Upstream(url) for url in settings.upstream_ws]
        self._subscribers = Subscribers(
            settings.host,
            settings.port,
            Limits(
                instance=settings.instance_connection_limit,
                per_ip=settings.per_ip_connection_limit,
                api_keys=parse_api_keys(settings.api_keys),
            ),
            _serving_options(settings),
            self._greeting,
            self._patience,
            {
                "/healthz": self._healthz,
                "/readyz": self._readyz,
                "/livez": lambda: json_reply(200, {"status": "ok"}),
                "/status": lambda: json_reply(200, self.status()),
                **({"/metrics": self._metrics} if settings.metrics else {}),
            },
            self._bugs,
        )
        self._history = HistorySearch(
            blocks=settings.backlog_blocks - 1,
            wait_s=settings.history_wait_ms / 1000,
            give_up_s=settings.resume_wait_ms / 1000,
            bugs=self._bugs,
            upstreams=self._who_knows_history,
            found=self._on_history,
        )
        self._labels = dict(settings.metrics_global_labels)
        if settings.metrics_host_label:
            self._labels["hostname"] = socket.gethostname()
        self._metrics_server: RoutesPort | None = None
        if settings.metrics and settings.metrics_addr:
            routes = {"/metrics": self._metrics, "/healthz": self._healthz, "/readyz": self._readyz}
            self._metrics_server = RoutesPort(*split_address(settings.metrics_addr), routes)
        self._registry = CollectorRegistry()
        self._stages = component_stages("websocket-proxy", settings.name, settings.data_dir, self._registry)
        self._last_flashblock_at: float | None = None
        self._fan_outs, self._fan_out_s = 0, 0.0
        self._closing = False
        self._timer: asyncio.TimerHandle | None = None
        self._closings: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        """The bound port."""
        return self._subscribers.port

    @property
    def metrics_port(self) -> int | None:
        """The bound port of the metrics alone, where there is one."""
        return None if self._metrics_server is None else self._metrics_server.port

    async def start(self) -> None:
        """Serve, and begin to connect to every upstream."""
        await self._subscribers.start()
        if self._metrics_server is not None:
            await self._metrics_server.start()
        for number, upstream in enumerate(self._upstreams):
            upstream.link = self._link(number, upstream)
            await upstream.link.start()

    async def run(self) -> None:
        """Work until cancelled; raises what one of our callbacks raised."""
        await self._bugs.wait()

    async def close(self) -> None:
        """Leave upstreams and subscribers. Bounded; idempotent."""
        self._closing = True
        if self._timer is not None:
            self._timer.cancel()
        links = [link for up in self._upstreams for link in (up.link, up.replay) if link is not None]
        await asyncio.gather(self._subscribers.close(), self._history.close(), *(link.close() for link in links))
        if self._metrics_server is not None:
            await self._metrics_server.close()
        if self._closings:
            await asyncio.wait(self._closings)
        await asyncio.to_thread(self._stages.close)

    def status(self) -> dict[str, Any]:
        """Who is connected on both sides and what became of the flashblocks, as JSON values."""
        last = self._ordering.last
        age_s = self._age_s()
        return {
            "component": "websocket-proxy",
            "name": self._settings.name,
            "group": self._settings.group,
            "pid": os.getpid(),
            "ready": self._why_not_ready() is None,
            "epoch": self._ordering.epoch,
            "number": last.number if last is not None else None,
            "index": last.index if last is not None else None,
            "age_ms": round(age_s * 1000) if age_s is not None else None,
            "subscribers": len(self._subscribers),
            "upstreams": [
                {
                    "url": upstream.url,
                    "connected": upstream.link is not None and upstream.link.connected,
                    "frames": bool(upstream.spoke_frames),
                    "messages": upstream.link.counters.received if upstream.link is not None else 0,
                }
                for upstream in self._upstreams
            ],
            "stream": msgspec.to_builtins(self._ordering.counters),
            "serving": msgspec.to_builtins(self._subscribers.counters),
            "backlog": {"flashblocks": len(self._backlog), "bytes": self._backlog.size_bytes},
        }

    # Upstream side.

    def _link(self, number: int, upstream: _Upstream, replay_from: tuple[int, int] | None = None) -> FrameClient:
        """Make a link: the running one, or (with a place to replay from) a second one that fills a gap."""
        settings = self._settings
        foreign = ForeignStream(number)
        replays = replay_from is not None
        return FrameClient(
            upstream.url,
            partial(self._on_frame, number, replays),
            None if replays else partial(self._on_change, number),
            on_foreign=None if replays else partial(self._on_foreign, number, foreign),
            start=(lambda: replay_from) if replays else partial(self._resume_place, upstream),
            ping_interval_s=settings.subscriber_ping_interval_ms / 1000,
            pong_timeout_s=settings.subscriber_pong_timeout_ms / 1000,
            retry_max_s=settings.subscriber_max_interval_ms / 1000,
            bugs=self._bugs,
        )

    def _resume_place(self, upstream: _Upstream) -> tuple[int, int] | None:
        # A stream that is not ours does not know `?from=`, and might mind it; a stranger is judged by its neighbours.
        speaks = upstream.spoke_frames
        if speaks is None:
            speaks = any(other.spoke_frames for other in self._upstreams)
        return self._ordering.wanted if speaks else None

    def _on_change(self, number: int, up: bool) -> None:
        upstream = self._upstreams[number]
        assert upstream.link is not None
        self._log.info("upstream connected" if up else "upstream lost", upstream=upstream.url)
        if up:
            upstream.spoke_frames = upstream.link.speaks_frames
            self._ordering.upstream_up(number, upstream.spoke_frames)
            self._act(self._ordering.tick(self._now()))  # it may be the one that can fill a gap
        else:
            self._act(self._ordering.upstream_down(number, self._now()))

    def _on_frame(self, number: int, replay: bool, frame: Frame) -> None:
        if isinstance(frame, FlashblockFrame):
            self._arrive(ours(number, frame, replay=replay))

    def _on_foreign(self, number: int, stream: ForeignStream, message: str | bytes) -> None:
        if not message:
            return  # the original proxies send empty messages as pings
        try:
            arrival = stream.read(message)
        except WireError as error:
            self._upstreams[number].malformed += 1
            self._log.warning("malformed upstream message", upstream=self._upstreams[number].url, error=str(error))
            return
        self._arrive(arrival)

    def _arrive(self, arrival: Arrival) -> None:
        equivocations = self._ordering.counters.equivocations
        decisions = self._ordering.arrive(arrival, self._now())
        if self._ordering.counters.equivocations > equivocations:
            self._log.error(
                "equivocation dropped",
                upstream=self._upstreams[arrival.upstream].url,
                epoch=arrival.epoch,
                block=arrival.number,
                index=arrival.index,
                payload_id=arrival.payload_id,
                digest=arrival.digest,
            )
        self._act(decisions)

    def _act(self, decisions: list[Decision]) -> None:
        if self._closing:
            return  # losing every upstream is no news while we are leaving ourselves
        for decision in decisions:
            match decision:
                case Deliver(arrival=arrival):
                    self._deliver(arrival)
                case Announce(number=number, index_from=index_from, index_to=index_to):
                    self._log.warning("gap announced", block=number, index=index_from, index_to=index_to)
                    self._subscribers.announce(AnnounceGapFrame(number, index_from, index_to))
                case Ask(upstream=number, start=start):
                    self._ask(number, start)
                case Restart(epoch=epoch, number=number):
                    self._log.error("the chain of every upstream began anew", epoch=epoch, block=number)
                    self._backlog.clear()
        if not self._ordering.gap_open:
            self._end_replays()
        self._set_timer()

    def _deliver(self, arrival: Arrival) -> None:
        outgoing, began = self._outgoing(arrival), time.perf_counter()
        if self._last_flashblock_at is None:
            self._history.begin(arrival)
        self._last_flashblock_at = self._now()
        self._subscribers.publish(outgoing)
        took_s, more = time.perf_counter() - began, {names.SUBSCRIBERS: len(self._subscribers)}
        self._fan_outs, self._fan_out_s = self._fan_outs + 1, self._fan_out_s + took_s
        self._stages.frame(outgoing.frame, names.FAN_OUT, took_s, more=dict(more))
        self._backlog.add(arrival.number, arrival.index, len(outgoing.frame.body), outgoing)

    def _outgoing(self, arrival: Arrival) -> Outgoing:
        return Outgoing(arrival, traced=self._settings.traceparent_in_metadata)

    def _ask(self, number: int, start: tuple[int, int]) -> None:
        upstream = self._upstreams[number]
        self._log.info("gap", upstream=upstream.url, block=start[0], index=start[1])
        self._end_replay(upstream)
        upstream.replay = self._link(number, upstream, start)
        self._later(upstream.replay.start())

    def _end_replays(self) -> None:
        for upstream in self._upstreams:
            self._end_replay(upstream)

    def _end_replay(self, upstream: _Upstream) -> None:
        replay, upstream.replay = upstream.replay, None
        if replay is not None:
            self._later(replay.close())

    def _later(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._closings.add(task)
        task.add_done_callback(self._closings.discard)

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        wakes_at = self._ordering.wakes_at
        if wakes_at is not None:
            self._timer = asyncio.get_running_loop().call_at(wakes_at, self._tick)

    def _tick(self) -> None:
        try:
            self._act(self._ordering.tick(self._now()))
        except Exception as bug:
            self._bugs.report(bug)

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()

    def _who_knows_history(self) -> list[tuple[int, str]]:
        return [(n, up.url) for n, up in enumerate(self._upstreams) if up.link is not None and up.link.speaks_frames]

    def _on_history(self, arrivals: list[Arrival]) -> None:
        older = [(arrival.key, self._outgoing(arrival)) for arrival in arrivals]
        self._backlog.add_before([(key, len(outgoing.frame.body), outgoing) for key, outgoing in older])
        self._log.info("history", flashblocks=len(older))

    # Subscriber side.

    async def _patience(self, query: Query) -> None:
        """Let one who resumes right after our start wait a moment: for the history, and until we are where it is."""
        start, oldest = query.start, self._backlog.oldest
        if start is None:
            return
        try:
            async with asyncio.timeout(self._settings.resume_wait_ms / 1000):
                if oldest is None or start < oldest:
                    await self._history.done.wait()
                while self._is_behind(start):  # noqa: ASYNC110 – seldom, and soon over
                    await asyncio.sleep(PATIENCE_POLL_S)
        except TimeoutError:
            pass

    def _is_behind(self, start: tuple[int, int]) -> bool:
        """Whether what comes next here a subscriber has already that wants the stream from `start` on."""
        wanted = self._ordering.wanted
        return wanted is not None and wanted < start

    def _greeting(self, query: Query) -> tuple[list[Outgoing], AnnounceGapFrame | None]:
        if self._closing:
            return [], None  # it is about to be sent away, and must not hear of gaps that our successor has not
        owed = self._backlog.owed(query.start)
        missing = AnnounceGapFrame(*owed.missing, owed.missing[1]) if owed.missing is not None else None
        return owed.items, missing

    def _age_s(self) -> float | None:
        return self._now() - self._last_flashblock_at if self._last_flashblock_at is not None else None

    def _connected(self) -> int:
        return sum(upstream.link is not None and upstream.link.connected for upstream in self._upstreams)

    def _why_not_ready(self) -> str | None:
        age_s = self._age_s()
        if not self._connected():
            return "no upstream is connected"
        if age_s is None:
            return "no flashblock yet"
        if age_s * 1000 > self._settings.stale_after_ms:
            return f"the last flashblock is {age_s:.1f} s old"
        return None

    def _healthz(self) -> HttpReply:
        connected = self._connected()
        return json_reply(200 if connected else 503, {"upstreams": len(self._upstreams), "connected": connected})

    def _readyz(self) -> HttpReply:
        why_not = self._why_not_ready()
        return json_reply(200 if why_not is None else 503, {"ready": why_not is None, "reason": why_not})

    def _metrics(self) -> HttpReply:
        text = exposition(
            serving=self._subscribers.counters,
            stream=self._ordering.counters,
            links=[(up.url, up.link, up.malformed) for up in self._upstreams if up.link is not None],
            active=self._subscribers.limits.active,
            by_app=self._subscribers.limits.by_app(),
            age_s=self._age_s(),
            fan_outs=(self._fan_outs, self._fan_out_s),
            queued_max=self._subscribers.queued_max,
        )
        # OpenMetrics, for those who can read it, has the trace ids beside the numbers.
        encode, content_type = choose_encoder(ACCEPT.get())
        if "openmetrics" in content_type:
            text = as_openmetrics(text)
        return HttpReply(200, labelled(text + encode(self._registry), self._labels), content_type)


def _serving_options(settings: Settings) -> ServingOptions:
    plain: Format = "binary" if settings.binary_messages else "text"
    pings = settings.client_ping_enabled
    return ServingOptions(
        default_format="brotli" if settings.enable_compression else plain,
        public=settings.public_access_enabled,
        ip_header=settings.ip_addr_http_header,
        queue_messages_max=settings.message_buffer_size,
        send_timeout_s=settings.client_send_timeout_ms / 1000,
        ping_interval_s=settings.client_ping_interval_ms / 1000 if pings else None,
        pong_timeout_s=settings.client_pong_timeout_ms / 1000 if pings else None,
    )
