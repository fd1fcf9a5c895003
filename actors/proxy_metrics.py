"""The websocket-proxy's metrics as Prometheus text, under the names that operators' dashboards know."""

from collections.abc import Iterable, Mapping

import msgspec

from actors.frame_link import FrameClient
from actors.proxy_subscribers import ServingCounters
from flashblocks.proxy.ordering import OrderCounters

prefix = "websocket_proxy_"


def exposition(
    *,
    serving: ServingCounters,
    stream: OrderCounters,
    links: Iterable[tuple[str, FrameClient, int]],
    active: int,
    by_app: Mapping[str, int],
    age_s: float | None,
    fan_outs: tuple[int, float],
    queued_max: int,
) -> bytes:
    """Write every metric; `links` are (URL, link, malformed messages), `age_s` that of the last flashblock.

    `fan_outs` are how many flashblocks were given to all subscribers, and the seconds it took.
    """
    links = list(links)
    counters = [link.counters for _, link, _ in links]
    lines: list[str] = []
    for name, value in msgspec.to_builtins(serving).items():
        lines += _metric(name, "counter", [("", value)])
    lines += _metric("active_connections", "gauge", [("", active)])
    lines += _metric("connections_by_app", "gauge", [(_label("app", app), count) for app, count in by_app.items()])
    connected = sum(link.connected for _, link, _ in links)
    lines += _metric("upstream_connections", "gauge", [("", connected)])
    attempts, successes = sum(c.attempts for c in counters), sum(c.connects for c in counters)
    lines += _metric("upstream_connection_attempts", "counter", [("", attempts)])
    lines += _metric("upstream_connection_successes", "counter", [("", successes)])
    lines += _metric("upstream_connection_failures", "counter", [("", attempts - successes)])
    errors = sum(c.losses + c.malformed for c in counters) + sum(malformed for _, _, malformed in links)
    lines += _metric("upstream_errors", "counter", [("", errors)])
    messages = [(_label("upstream", url), link.counters.received) for url, link, _ in links]
    lines += _metric("upstream_messages", "counter", messages)
    count, seconds = fan_outs
    lines += _metric("broadcast_queue_size", "gauge", [("", queued_max)])
    lines += _metric("message_send_duration", "summary", [("_sum", round(seconds, 6)), ("_count", count)])
    for name, value in msgspec.to_builtins(stream).items():
        lines += _metric(f"stream_{name}", "counter", [("", value)])
    if age_s is not None:
        lines += _metric("last_flashblock_age_seconds", "gauge", [("", round(age_s, 3))])
    return ("\n".join(lines) + "\n").encode()


def as_openmetrics(text: bytes) -> bytes:
    """The same for OpenMetrics, which wants counters to be called `…_total`; the original's are not."""
    return text.replace(b" counter\n", b" unknown\n")


def _metric(name: str, kind: str, samples: Iterable[tuple[str, float]]) -> list[str]:
    return [f"# TYPE {prefix}{name} {kind}", *(f"{prefix}{name}{label} {value}" for label, value in samples)]


def _label(name: str, value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'{{{name}="{escaped}"}}'


def labelled(text: bytes, labels: Mapping[str, str]) -> bytes:
    """The exposition with these labels at every sample."""
    if not labels:
        return text
    more = ",".join(_label(name, value)[1:-1] for name, value in labels.items())
    return b"\n".join(_with_labels(line, more) for line in text.split(b"\n"))


def _with_labels(line: bytes, more: str) -> bytes:
    if not line or line.startswith(b"#"):
        return line
    end = line.index(b" ")
    brace = line.find(b"{", 0, end)
    if brace >= 0:
        return line[: brace + 1] + more.encode() + b"," + line[brace + 1 :]
    return line[:end] + b"{" + more.encode() + b"}" + line[end:]
