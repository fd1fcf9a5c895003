"""The report of drills as one HTML page that needs nothing else: verdicts, times, and the timeline as a picture."""

from __future__ import annotations

import time
from collections.abc import Sequence
from html import escape
from importlib.resources import files

from chaos.catalogue import CATALOGUE
from chaos.history import Began, Event
from chaos.judgement import Result, Run, kept
from chaos.picture import Picture, gap_bars
from chaos.summary import bound

CLOSE_UPS_MAX = 12
VIOLATIONS_MAX = 50
PROMISES = {
    1: "no equivocation",
    2: "no preconfirmation lost",
    3: "one block per height",
    4: "no stale leader speaks",
    5: "0, 1, 2 … once each",
    6: "pending never null or stale",
}
LEGEND = (
    ("var(--g0)", "leads (epoch)"),
    ("var(--hurt)", "hurt until back and level"),
    ("var(--first)", "index 0"),
    ("var(--tick)", "flashblock"),
    ("var(--silence)", "no flashblock"),
    ("var(--fault)", "fault"),
    ("var(--lifted)", "undone"),
)

Outcome = tuple[str, Sequence[Event], Result]


def page(outcomes: Sequence[Outcome]) -> str:
    """The whole page for some drills' outcomes."""
    style = files("chaos").joinpath("report.css").read_text()
    failed = sum(result.verdict == "fail" for _, _, result in outcomes)
    title = "Drills: all promises kept" if not failed else f"Drills: {failed} of {len(outcomes)} failed"
    began = min(
        (event.at for _, history, _ in outcomes for event in history[:1] if isinstance(event, Began)), default=0
    )
    when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(began)) if began else "at an unknown time"
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title><style>{style}</style></head><body>",
        f"<h1>{escape(title)}</h1>",
        f'<p class="sub">{len(outcomes)} drills, begun {when}. Judged from the histories alone: '
        "what subscribers of every proxy and conductor, and clients of the rpc-nodes saw.</p>",
        _overview(outcomes),
        *(_drill(*outcome) for outcome in outcomes),
        "</body></html>",
    ]
    return "\n".join(parts)


def _overview(outcomes: Sequence[Outcome]) -> str:
    rows = []
    for name, _, result in outcomes:
        drill = CATALOGUE.get(result.drill)
        rows.append(
            f'<tr><td><a href="#{escape(name)}">{escape(name)}</a></td><td>{_badge(result.verdict)}</td>'
            f'<td class="number">{result.kills}</td><td class="number">{result.gap_ms_p50:.0f}</td>'
            f'<td class="number">{result.gap_ms_p99:.0f}</td><td class="number">{result.gap_ms_max:.0f}</td>'
            f"<td>{escape(bound(drill.bound if drill else None))}{_mark(result.within_bound)}</td>"
            f'<td class="number">{result.lost}</td><td class="number">{result.duplicates}</td>'
            f'<td class="number">{result.gaps}</td><td class="number">{result.flashblocks}</td>'
            f'<td class="number">{result.acknowledged}</td><td class="number">{result.included}</td></tr>'
        )
    heads = ("faults", "p50 ms", "p99 ms", "worst ms")
    more = ("lost", "duplicates", "gaps", "flashblocks", "tx accepted", "tx sealed")
    header = "".join(f'<th class="number">{head}</th>' for head in heads) + "<th>bound p50 / p99</th>"
    header += "".join(f'<th class="number">{head}</th>' for head in more)
    return f'<div class="table"><table><tr><th>drill</th><th>verdict</th>{header}</tr>{"".join(rows)}</table></div>'


def _drill(name: str, history: Sequence[Event], result: Result) -> str:
    drill = CATALOGUE.get(result.drill)
    picture = Picture(history)
    runs = sorted(result.runs, key=lambda run: -run.gap_ms)[:CLOSE_UPS_MAX]
    limits = (drill.bound.p50_ms, drill.bound.p99_ms) if drill is not None and drill.bound is not None else None
    parts = [f'<section id="{escape(name)}"><div class="head"><h2>{escape(name)}</h2>{_badge(result.verdict)}</div>']
    if drill is not None:
        parts.append(f'<p class="sub">{escape(drill.title)}. The stream should be: {drill.expect}.</p>')
    parts += [_facts(result), _promises(result), _broken(result)]
    if result.runs or picture.fresh:
        parts += ["<h3>The whole drill</h3>", f'<div class="picture">{picture.overview()}</div>', _legend()]
    if len(result.runs) > 1:
        parts.append("<h3>Time to the next flashblock, milliseconds</h3>")
        parts.append(f'<div class="picture">{gap_bars(result.runs, limits)}</div>')
    if result.runs:
        parts.append(_close_ups(picture, runs))
        parts.append(_runs(result.runs))
    return "".join(parts) + "</section>"


def _facts(result: Result) -> str:
    facts = (
        (f"{result.kills}", "faults"),
        (f"{result.gap_ms_p50:.0f} ms", "next flashblock, p50"),
        (f"{result.gap_ms_max:.0f} ms", "worst"),
        (f"{result.flashblocks}", "flashblocks"),
        (f"{result.blocks}", "blocks"),
        (f"{result.acknowledged}", "transactions accepted"),
        (f"{result.preconfirmed}", "preconfirmed"),
        (f"{result.included}", "found sealed"),
        (f"{result.seed}", "seed"),
    )
    return (
        f'<div class="facts">{"".join(f"<div><b>{value}</b><span>{name}</span></div>" for value, name in facts)}</div>'
    )


def _promises(result: Result) -> str:
    chips = [
        f'<span class="badge {"pass" if fine else "fail"}">{"✓" if fine else "✗"} {number} {PROMISES[number]}</span>'
        for number, fine in kept(result).items()
    ]
    return f'<div class="promises">{"".join(chips)}</div>'


def _broken(result: Result) -> str:
    if not result.violations:
        return ""
    items = "".join(f"<li>{escape(text)}</li>" for text in result.violations[:VIOLATIONS_MAX])
    more = len(result.violations) - VIOLATIONS_MAX
    return f'<ul class="broken">{items}</ul>' + (f'<p class="broken">… and {more} more</p>' if more > 0 else "")


def _legend() -> str:
    items = "".join(f'<i style="background:{colour}"></i>{text}' for colour, text in LEGEND)
    return f'<p class="legend">{items} – the small ticks in a group\'s lane are what its own conductor said</p>'


def _close_ups(picture: Picture, runs: Sequence[Run]) -> str:
    parts = []
    for place, run in enumerate(runs):
        title = f"fault {run.run}: {run.fault} {run.group}/{run.actor}, next flashblock after {run.gap_ms:.0f} ms"
        opened = " open" if place == 0 else ""
        drawn = picture.close_up(run)
        parts.append(f'<details{opened}><summary>{escape(title)}</summary><div class="picture">{drawn}</div></details>')
    return f"<h3>Close up, the slowest first</h3>{''.join(parts)}"


def _runs(runs: Sequence[Run]) -> str:
    rows = "".join(
        f'<tr><td class="number">{run.run}</td><td>{escape(run.fault)}</td><td>{escape(run.group)}</td>'
        f"<td>{escape(run.actor)}</td><td>{escape(run.leader)} → {escape(run.new_leader)}</td>"
        f'<td class="number">{run.epoch}</td><td class="number">{run.gap_ms:.0f}</td>'
        f'<td class="number">{run.silence_ms:.0f}</td><td class="number">{run.restored_ms / 1000:.1f}</td></tr>'
        for run in runs
    )
    header = (
        '<tr><th class="number">fault</th><th>kind</th><th>group</th><th>actor</th><th>leader</th>'
        '<th class="number">epoch</th><th class="number">next flashblock, ms</th>'
        '<th class="number">longest silence, ms</th><th class="number">back and level, s</th></tr>'
    )
    return f"<details><summary>All faults</summary><table>{header}{rows}</table></details>"


def _badge(verdict: str) -> str:
    return f'<span class="badge {escape(verdict)}">{escape(verdict)}</span>'


def _mark(within: bool | None) -> str:
    return "" if within is None else (" ✓" if within else " ✗")
