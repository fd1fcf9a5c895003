"""A drill's history as a picture: who led, who was hurt, what each subscriber saw and when nothing came. Inline SVG."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from html import escape

import msgspec

from chaos.history import (
    Acknowledged,
    Event,
    Fault,
    GapAnnounced,
    Included,
    Lifted,
    Link,
    Preconfirmed,
    Restored,
    SealedBlock,
    Seen,
)
from chaos.judgement import INTERRUPTION_S, Run, fresh_flashblocks

WIDTH_PX, LABEL_PX, RIGHT_PX = 1180, 150, 14
LANE_PX, LANE_GAP_PX, AXIS_PX = 18, 5, 24
CLOSE_BEFORE_S, CLOSE_AFTER_S = 1.2, 2.4
GROUP_COLOURS = 5
AXIS_TICKS_MAX = 12
AXIS_STEPS_S = (0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600)
THROUGHPUT_BINS = 120


class Window(msgspec.Struct, frozen=True):
    """The time a picture shows, and where a moment is on it."""

    begin: float
    end: float

    def x(self, at: float) -> float:
        """Pixels from the left, kept inside the picture."""
        share = (min(max(at, self.begin), self.end) - self.begin) / max(self.end - self.begin, 0.001)
        return round(LABEL_PX + share * (WIDTH_PX - LABEL_PX - RIGHT_PX), 1)

    def holds(self, at: float) -> bool:
        """Whether a moment is inside."""
        return self.begin <= at <= self.end

    def step_s(self) -> float:
        """The distance of the axis' ticks."""
        wanted = (self.end - self.begin) / AXIS_TICKS_MAX
        return next((step for step in AXIS_STEPS_S if step >= wanted), AXIS_STEPS_S[-1])


class Picture:
    """Draws windows of one history; what is looked for again and again is sorted once."""

    def __init__(self, history: Sequence[Event]) -> None:
        self.fresh = fresh_flashblocks(history)
        self._by_source: dict[str, list[Seen]] = defaultdict(list)
        self._doors: set[str] = set()
        for event in history:
            if isinstance(event, Seen):
                self._by_source[event.source].append(event)
                if not event.edge:
                    self._doors.add(event.source)
        self._history = [event for event in history if not isinstance(event, Seen | SealedBlock)]
        moments = [event.at for event in self._history] + [event.at for event in self.fresh]
        self.whole = Window(min(moments, default=0.0), max(moments, default=1.0))
        self._reigns = _reigns(self._by_source, self._doors, self.whole.end)
        names = {source.partition("/")[0] for source in self._doors}
        names |= {event.group for event in self._history if isinstance(event, Fault) and event.group}
        self._groups = sorted(names)
        self._edges = sorted(source for source in self._by_source if source not in self._doors)

    def overview(self) -> str:
        """The whole drill."""
        lanes = [*self._group_lanes(self.whole), *self._edge_lanes(self.whole), self._load_lane(self.whole)]
        return self._svg(self.whole, lanes, "the whole drill: leaders, faults, flashblocks at every subscriber")

    def close_up(self, run: Run) -> str:
        """The moments around one fault."""
        faults = [event.at for event in self._history if isinstance(event, Fault) and event.run == run.run]
        began = min(faults)
        window = Window(began - CLOSE_BEFORE_S, began + max(CLOSE_AFTER_S, run.silence_ms / 1000 + 1.2))
        lanes = [*self._group_lanes(window), *self._edge_lanes(window, indices=True)]
        return self._svg(window, lanes, f"around fault {run.run}", zero=began)

    def _svg(self, window: Window, lanes: Sequence[tuple[str, str]], label: str, zero: float | None = None) -> str:
        height = AXIS_PX + len(lanes) * (LANE_PX + LANE_GAP_PX) + 4
        parts = [f'<svg viewBox="0 0 {WIDTH_PX} {height}" role="img" aria-label="{escape(label)}">']
        parts += _axis(window, height, self.whole.begin if zero is None else zero)
        for place, (name, content) in enumerate(lanes):
            y = AXIS_PX + place * (LANE_PX + LANE_GAP_PX)
            parts.append(f'<g transform="translate(0 {y})"><rect class="lane" x="{LABEL_PX}" y="0" ')
            parts.append(f'width="{WIDTH_PX - LABEL_PX - RIGHT_PX}" height="{LANE_PX}" rx="3"/>')
            parts.append(f'<text class="name" x="{LABEL_PX - 8}" y="13">{escape(name)}</text>{content}</g>')
        parts += self._moments(window, height)
        return "".join(parts) + "</svg>"

    def _group_lanes(self, window: Window) -> list[tuple[str, str]]:
        """For each group: when it led, in its colour with the epoch; when it was hurt; what its own door said."""
        lanes = []
        for number, group in enumerate(self._groups):
            colour = f"g{number % GROUP_COLOURS}"
            content = [
                _band(window, begin, end, f"reign {colour}", f"{group} leads, epoch {epoch}", f"{epoch}")
                for name, epoch, begin, end in self._reigns
                if name == group
            ]
            content += [
                _band(window, begin, end, "hurt", f"{text}, {(end - begin) * 1000:.0f} ms")
                for begin, end, text in self._hurt(group)
            ]
            door = [event.at for event in self._by_source.get(f"{group}/conductor", ()) if window.holds(event.at)]
            content.append(_ticks(window, door, "door", LANE_PX - 4, LANE_PX))
            lanes.append((group, "".join(content)))
        return lanes

    def _hurt(self, group: str) -> list[tuple[float, float, str]]:
        """When something of a group was hurt: from the fault until it was back and level, else until it was lifted."""
        faults: dict[int, list[Fault]] = defaultdict(list)
        for event in self._history:
            if isinstance(event, Fault) and event.group == group:
                faults[event.run].append(event)
        spans = []
        for run, hurt in faults.items():
            ends = [event.at for event in self._history if isinstance(event, Restored | Lifted) and event.run == run]
            text = f"{hurt[0].kind} {group}/{'+'.join(event.actor for event in hurt)}"
            spans.append((hurt[0].at, max(ends, default=self.whole.end), text))
        return spans

    def _edge_lanes(self, window: Window, indices: bool = False) -> list[tuple[str, str]]:
        """For each subscriber: one tick a flashblock, taller for index 0; holes, announced gaps, lost connections."""
        return [(source, self._edge_lane(window, source, indices)) for source in self._edges]

    def _edge_lane(self, window: Window, source: str, indices: bool) -> str:
        events = self._by_source[source]
        content = []
        for earlier, later in itertools.pairwise(events):
            if later.at - earlier.at > INTERRUPTION_S and window.holds(later.at):
                text = f"no flashblock for {(later.at - earlier.at) * 1000:.0f} ms"
                content.append(_band(window, earlier.at, later.at, "silence", text))
        down: float | None = None
        for event in self._history:
            if isinstance(event, Link) and event.source == source:
                if event.up and down is not None:
                    content.append(_band(window, down, event.at, "cut", "not connected"))
                down = None if event.up else event.at
            elif isinstance(event, GapAnnounced) and event.source == source:
                text = f"gap announced: {event.number}/{event.index_from}–{event.index_to}"
                content.append(_band(window, event.at, event.at + 0.05, "gap", text))
        inside = [event for event in events if window.holds(event.at)]
        content.append(_ticks(window, [event.at for event in inside if event.index == 0], "first", 2, LANE_PX - 2))
        content.append(_ticks(window, [event.at for event in inside if event.index], "flashblock", 6, LANE_PX - 4))
        if indices:
            content += [f'<text class="index" x="{window.x(event.at)}" y="5">{event.index}</text>' for event in inside]
        return "".join(content)

    def _load_lane(self, window: Window) -> tuple[str, str]:
        """Transactions over time: acknowledged, preconfirmed, sealed."""
        kinds = {Acknowledged: "acknowledged", Preconfirmed: "preconfirmed", Included: "sealed"}
        width = (window.end - window.begin) / THROUGHPUT_BINS or 1.0
        bins: dict[str, list[int]] = {name: [0] * THROUGHPUT_BINS for name in kinds.values()}
        for event in self._history:
            name = kinds.get(type(event))  # type: ignore[call-overload]
            if name is not None:
                bins[name][min(THROUGHPUT_BINS - 1, int((event.at - window.begin) / width))] += 1
        most = max((count for one in bins.values() for count in one), default=0) or 1
        lines = []
        for name, counts in bins.items():
            points = " ".join(
                f"{window.x(window.begin + (place + 0.5) * width)},{LANE_PX - 1 - count / most * (LANE_PX - 3):.1f}"
                for place, count in enumerate(counts)
            )
            lines.append(f'<polyline class="load {name}" points="{points}"><title>{name}</title></polyline>')
        return "transactions", "".join(lines)

    def _moments(self, window: Window, height: int) -> list[str]:
        """Vertical lines where something was done: a fault, its undoing."""
        drawn: dict[tuple[str, float], str] = {}
        for event in self._history:
            if isinstance(event, Fault) and window.holds(event.at):
                drawn.setdefault(("fault", event.at), f"{event.kind} {event.group}/{event.actor}")
            elif isinstance(event, Lifted) and window.holds(event.at):
                drawn.setdefault(("lifted", event.at), "undone")
        return [
            f'<line class="{kind}" x1="{window.x(at)}" x2="{window.x(at)}" y1="{AXIS_PX - 8}" y2="{height}">'
            f"<title>{escape(text)}</title></line>"
            for (kind, at), text in drawn.items()
        ]


def gap_bars(runs: Sequence[Run], bound: tuple[float, float] | None) -> str:
    """One bar a fault: the time to the next flashblock, with the bound's lines."""
    if not runs:
        return ""
    height, base = 150, 126
    most = max([run.gap_ms for run in runs] + ([bound[1]] if bound else [])) * 1.08 or 1.0
    width = (WIDTH_PX - LABEL_PX - RIGHT_PX) / len(runs)
    parts = [f'<svg viewBox="0 0 {WIDTH_PX} {height}" role="img" aria-label="time to the next flashblock">']
    for place, run in enumerate(runs):
        tall = run.gap_ms / most * (base - 14)
        x, wide = LABEL_PX + (place + 0.15) * width, min(width * 0.7, 46)
        over = " over" if bound and run.gap_ms > bound[1] else ""
        parts.append(
            f'<rect class="bar{over}" x="{x:.1f}" y="{base - tall:.1f}" width="{wide:.1f}" '
            f'height="{tall:.1f}" rx="2"><title>fault {run.run}: {run.gap_ms:.0f} ms</title></rect>'
        )
        if len(runs) <= 25:
            middle = x + wide / 2
            parts.append(f'<text class="value" x="{middle:.1f}" y="{base - tall - 4:.1f}">{run.gap_ms:.0f}</text>')
            parts.append(f'<text class="value" x="{middle:.1f}" y="{base + 14}">{run.run}</text>')
    for name, value in zip(("p50 bound", "p99 bound"), bound or (), strict=False):
        y = base - value / most * (base - 14)
        parts.append(f'<line class="bound" x1="{LABEL_PX}" x2="{WIDTH_PX - RIGHT_PX}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="name" x="{LABEL_PX - 8}" y="{y + 4:.1f}">{name} {value:.0f} ms</text>')
    parts.append(f'<text class="name" x="{LABEL_PX - 8}" y="{base + 14}">fault</text>')
    return "".join(parts) + "</svg>"


def _reigns(by_source: dict[str, list[Seen]], doors: Iterable[str], end: float) -> list[tuple[str, int, float, float]]:
    """(group, epoch, from, to): who led when, by what the conductors' own doors said."""
    first: dict[int, tuple[float, str]] = {}
    for door in doors:
        for event in by_source[door]:
            known = first.get(event.epoch)
            if event.epoch and (known is None or event.at < known[0]):
                first[event.epoch] = (event.at, door.partition("/")[0])
    ordered = sorted((epoch, *value) for epoch, value in first.items())
    ends = [at for _, at, _ in ordered[1:]] + [end]
    return [(group, epoch, at, until) for (epoch, at, group), until in zip(ordered, ends, strict=True)]


def _axis(window: Window, height: int, zero: float) -> list[str]:
    step = window.step_s()
    count = int((window.begin - zero) / step)
    parts = []
    while (at := zero + count * step) <= window.end:
        if at >= window.begin:
            x = window.x(at)
            parts.append(f'<line class="grid" x1="{x}" x2="{x}" y1="{AXIS_PX - 6}" y2="{height}"/>')
            parts.append(f'<text class="tick" x="{x}" y="12">{round(count * step, 1):g} s</text>')
        count += 1
    return parts


def _band(window: Window, begin: float, end: float, kind: str, text: str, label: str = "") -> str:
    if end < window.begin or begin > window.end:
        return ""
    x, width = window.x(begin), max(1.5, window.x(end) - window.x(begin))
    shown = f'<text class="label" x="{x + 4}" y="12">{escape(label)}</text>' if label and width > 16 else ""
    rect = f'<rect class="{kind}" x="{x}" y="1" width="{width:.1f}" height="{LANE_PX - 2}" rx="2">'
    return f"{rect}<title>{escape(text)}</title></rect>{shown}"


def _ticks(window: Window, moments: Sequence[float], kind: str, top: float, bottom: float) -> str:
    """All ticks of a lane as one path."""
    if not moments:
        return ""
    return f'<path class="{kind}" d="{"".join(f"M{window.x(at)} {top}V{bottom}" for at in moments)}"/>'
