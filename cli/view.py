"""Tables and the live view: who leads, what the chain does, how each component of each group is."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from cli.stream import SeenFlashblock, SeenGap

RATE_WINDOW_S = 10.0
STALE_AFTER_S = 2.5
SEEN_MAX = 4096

_GOOD = {"healthy", "ready", "ok", "serving", "200"}
_MIDDLING = {"partial", "syncing", "catching up", "206"}


class StreamView:
    """What the stream has shown so far, for the first line of the live view."""

    def __init__(self) -> None:
        self.last: SeenFlashblock | None = None
        self.flashblocks = 0
        self.transactions = 0
        self.gaps = 0
        self._recent: deque[tuple[float, int]] = deque(maxlen=SEEN_MAX)

    def add(self, event: SeenFlashblock | SeenGap) -> None:
        """Count one event; deposits (index 0) are the protocol's own transactions and do not count."""
        if isinstance(event, SeenGap):
            self.gaps += 1
            return
        users = event.transactions if event.index else 0
        self.last = event
        self.flashblocks += 1
        self.transactions += users
        self._recent.append((event.at, users))

    def rate_tps(self, now: float) -> float:
        """User transactions per second over the last `RATE_WINDOW_S`."""
        return sum(users for at, users in self._recent if now - at <= RATE_WINDOW_S) / RATE_WINDOW_S


def live(snapshot: Mapping[str, Any] | None, stream: StreamView, started_at: float, now: float) -> RenderableType:
    """The whole live view."""
    parts: list[RenderableType] = [_headline(snapshot, stream, now)]
    if snapshot is not None:
        parts += ["", groups_table(snapshot, steady=True), "", others_table(snapshot, steady=True)]
    up_s = int(now - started_at)
    footer = f"up {up_s // 3600:d}:{up_s // 60 % 60:02d}:{up_s % 60:02d} · Ctrl-C ends the cluster"
    return Panel(Group(*parts), title="flashblocks", subtitle=footer, border_style="blue")


def _headline(snapshot: Mapping[str, Any] | None, stream: StreamView, now: float) -> Table:
    leader = snapshot["leader"] if snapshot else None
    last = stream.last
    age_s = now - last.at if last else None
    cells = [
        ("leader", leader["group"] if leader else "–"),
        ("epoch", str(last.epoch if last else leader["epoch"] if leader else "–")),
        ("block", f"{last.number:,}" if last else "–"),
        ("index", str(last.index) if last else "–"),
        (
            "last flashblock",
            f"{age_s * 1000:.0f} ms ago" if age_s is not None and age_s < STALE_AFTER_S else _silence(age_s),
        ),
        ("flashblocks", f"{stream.flashblocks:,}"),
        ("transactions", f"{stream.transactions:,} ({stream.rate_tps(now):.0f}/s)"),
        ("gaps", str(stream.gaps)),
    ]
    table = Table.grid(expand=True)
    for name, _ in cells:
        table.add_column(name, justify="center", ratio=1)
    table.add_row(*(Text(name, style="dim") for name, _ in cells))
    table.add_row(*(Text(value, style="bold" if "silent" not in value else "bold red") for _, value in cells))
    return table


def _silence(age_s: float | None) -> str:
    return "none yet" if age_s is None else f"silent for {age_s:.0f} s"


def plain(snapshot: Mapping[str, Any] | None, stream: StreamView, now: float) -> str:
    """The live view in one line, for output that is no terminal."""
    leader = snapshot["leader"] if snapshot else None
    last = stream.last
    at = f"block {last.number} index {last.index} epoch {last.epoch}" if last else "no flashblock yet"
    restarts = sum(entry["restarts"] for entry in _entries(snapshot)) if snapshot else 0
    silent = sum(entry["status"] is None for entry in _entries(snapshot)) if snapshot else 0
    return (
        f"leader {leader['group'] if leader else '–'}  {at}  flashblocks {stream.flashblocks}  "
        f"transactions {stream.transactions} ({stream.rate_tps(now):.0f}/s)  gaps {stream.gaps}  "
        f"silent components {silent}  restarts {restarts}"
    )


def groups_table(snapshot: Mapping[str, Any], *, steady: bool = False) -> Table:
    """A row per sequencer group, a column per component: role, health and height.

    *steady* gives columns fixed shares of the width: a live table that jumps about cannot be read.
    """
    leader = snapshot["leader"]["group"] if snapshot["leader"] else None
    table = Table(expand=True, box=None, padding=(0, 1), header_style="dim")
    for column in ("group", "conductor", "op-node", "rollup-boost", "builder", "fallback-el"):
        table.add_column(column, ratio=1 if steady else None, no_wrap=column == "group")
    for group in snapshot["groups"]:
        leading = group["name"] == leader
        name = Text(("▶ " if leading else "  ") + group["name"], style="bold green" if leading else "")
        actors = group["actors"]
        table.add_row(name, *(_cell(actors.get(column.header)) for column in table.columns[1:]))
    return table


def others_table(snapshot: Mapping[str, Any], *, steady: bool = False) -> Table:
    """Proxies, rpc-nodes and ingresses in one row each; *steady* as for groups."""
    table = Table(expand=True, box=None, padding=(0, 1), header_style="dim")
    for column in ("component", "state", "address"):
        table.add_column(column, ratio=1 if steady else None)
    for key, kind in (("proxies", "websocket-proxy"), ("rpc_nodes", "rpc-node"), ("ingress", "ingress")):
        for entry in snapshot[key]:
            table.add_row(f"  {entry['name']} ({kind})", _cell(entry), entry.get("ws") or entry["http"])
    return table


def _entries(snapshot: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    of_groups = [entry for group in snapshot["groups"] for entry in group["actors"].values()]
    return [*of_groups, *snapshot["proxies"], *snapshot["rpc_nodes"], *snapshot["ingress"]]


def _cell(entry: Mapping[str, Any] | None) -> Text:
    """What one component says of itself, short."""
    if entry is None:
        return Text("–", style="dim")
    status = entry.get("status")
    restarted = f" ↻{entry['restarts']}" if entry.get("restarts") else ""
    if status is None:
        return Text("no answer" + restarted, style="bold red")
    words = [_role(status), _health(status), _height(status)]
    return Text(" ".join(word for word in words if word) + restarted, style=_style(status))


def _role(status: Mapping[str, Any]) -> str:
    return str(status.get("role") or "")


def _health(status: Mapping[str, Any]) -> str:
    if "health" in status:
        return str(status["health"])
    for key, good, bad in (("healthy", "healthy", "unhealthy"), ("ready", "ready", "not ready")):
        if key in status:
            return good if status[key] else bad
    return ""


def _height(status: Mapping[str, Any]) -> str:
    if status.get("number") is None:
        return ""
    index = status.get("index")
    return f"#{status['number']}" + (f".{index}" if index is not None and index >= 0 else "")


def _style(status: Mapping[str, Any]) -> str:
    health = _health(status).lower()
    if not health or health in _GOOD:
        return "green"
    return "yellow" if health in _MIDDLING else "red"
