"""``flashblocks trace``: one transaction's, block's or failover's trace as a waterfall, and where its time went."""

from __future__ import annotations

import argparse
import json
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cli.output import CommandError, say_json
from cli.running import add_name, find

LAST_FAILOVER = "last-failover"
JAEGER_S_MAX = 5.0
JAEGER_TRACES_MAX = 50
BAR_CELLS_MIN, BAR_CELLS_MAX = 20, 72
NAME_CELLS = 30
NOT_YET = "a trace is complete one or two seconds after it happened"


def configure(parser: argparse.ArgumentParser, _: list[str]) -> None:
    """Add the options."""
    parser.add_argument("what", metavar=f"TXHASH|BLOCK|{LAST_FAILOVER}", help="transaction hash, block number or hash")
    add_name(parser)
    parser.add_argument("--data-dir", type=Path, help="read the trace files below this directory instead")
    parser.add_argument("--jaeger", metavar="URL", help="ask Jaeger instead of the files, http://127.0.0.1:16686 say")
    parser.add_argument("--save", metavar="FILE", type=Path, help="also write it as OTLP JSON, for Jaeger's UI to open")
    parser.add_argument("--json", action="store_true", help="machine-readable, complete")


def run(options: argparse.Namespace) -> int:
    """Find the trace and show it; 1 when it is not there."""
    source: _Files | _Jaeger = _Jaeger(options.jaeger) if options.jaeger else _Files(_directory(options))
    spans = find_trace(source, options.what)
    if not spans:
        raise CommandError(f"no trace of {options.what} {source.place}; {NOT_YET}")
    if options.save is not None:
        _save(options.save, spans)
    link = f"{options.jaeger.rstrip('/')}/trace/{spans[0].trace_id}" if options.jaeger else None
    if options.json:
        say_json(as_json(spans, link))
    else:
        _draw(spans, link)
    return 0


def _directory(options: argparse.Namespace) -> Path:
    if options.data_dir is not None:
        return Path(options.data_dir)
    state = find(options.name).read_state()
    if state is None:
        raise CommandError("the cluster is still starting; try again in a moment")
    return Path(state.data_dir)


def _save(path: Path, spans: Sequence[Any]) -> None:
    from tracing.reading import otlp_of

    try:
        path.write_text(json.dumps(otlp_of(spans)))
    except OSError as error:
        raise CommandError(f"--save {path}: {error}") from None


class _Files:
    """The OTLP-JSON files of a cluster."""

    def __init__(self, directory: Path) -> None:
        from tracing.reading import TRACE_FILES

        self._directory = directory
        collector = "; one that sends them to a collector has none there: --jaeger URL asks Jaeger"
        self.place = f"in the files below {directory}" + ("" if any(directory.glob(TRACE_FILES)) else collector)

    def by_id(self, trace_id: str) -> Sequence[Any]:
        """All spans of a trace."""
        from tracing.reading import read_files

        return read_files(self._directory, trace_id)

    def roots(self, operation: str, tag: str, value: str) -> Sequence[Any]:
        """Spans that may be the root looked for."""
        from tracing.reading import read_files

        return read_files(self._directory, value)


class _Jaeger:
    """Jaeger's query service."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self.place = f"at {url}"

    def by_id(self, trace_id: str) -> Sequence[Any]:
        """All spans of a trace."""
        return self._ask(f"/api/traces/{trace_id}")

    def roots(self, operation: str, tag: str, value: str) -> Sequence[Any]:
        """Spans of the traces in which one of this operation has this tag."""
        query = {"service": "conductor", "operation": operation, "limit": JAEGER_TRACES_MAX, "lookback": "2d"}
        if tag:
            query["tags"] = json.dumps({tag: value})
        return self._ask("/api/traces?" + urllib.parse.urlencode(query))

    def _ask(self, path: str) -> Sequence[Any]:
        from tracing.reading import spans_of_jaeger

        try:
            with urllib.request.urlopen(self._url + path, timeout=JAEGER_S_MAX) as response:
                return list(spans_of_jaeger(json.load(response)))
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return []
            raise CommandError(f"Jaeger at {self._url}: {error}") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CommandError(f"Jaeger at {self._url} does not answer: {error}") from None


def find_trace(source: _Files | _Jaeger, what: str) -> list[Any]:
    """The spans of the trace that is meant, root first; empty when there is none.

    Raises `CommandError` for a word that names nothing.
    """
    from tracing import names, reading
    from tracing.context import transaction_root

    if what == LAST_FAILOVER:
        candidates = [
            span
            for span in source.roots(names.FAILOVER, "", names.FAILOVER)
            if span.attributes.get(names.CAUSE) != "start"
        ]
        found = reading.newest(candidates, names.FAILOVER)
    elif re.fullmatch(r"0x[0-9a-fA-F]{64}", what):
        trace_id = f"{transaction_root(bytes.fromhex(what[2:])).trace_id:032x}"
        spans = reading.trace(source.by_id(trace_id), trace_id)
        if spans:
            return spans
        found = _block(source, names.BLOCK_HASH, what.lower())
    elif re.fullmatch(r"\d+|0x[0-9a-fA-F]{1,16}", what):
        found = _block(source, names.BLOCK_NUMBER, str(int(what, 0)))
    else:
        raise CommandError(f"{what!r} is no transaction hash, no block and not {LAST_FAILOVER}", status=2)
    return [] if found is None else reading.trace(source.by_id(found.trace_id), found.trace_id)


def _block(source: _Files | _Jaeger, attribute: str, value: str) -> Any:
    from tracing import names, reading

    found = source.roots(names.BLOCK, attribute, value)
    return reading.newest([span for span in found if str(span.attributes.get(attribute)) == value], names.BLOCK)


def as_json(spans: Sequence[Any], link: str | None) -> dict[str, Any]:
    """What ``--json`` prints: times in milliseconds from the root's start."""
    from tracing import reading

    zero = spans[0].start
    return {
        "trace_id": spans[0].trace_id,
        "name": spans[0].name,
        "started_at": zero,
        "duration_ms": _ms(spans[0].seconds),
        "complete": reading.root(spans) is not None and not reading.orphans(spans),
        "services": sorted({span.service for span in spans}),
        "stages": [
            {
                "stage": share.stage,
                "total_ms": _ms(share.seconds),
                "count": share.count,
                "max_ms": _ms(share.seconds_max),
            }
            for share in reading.shares(spans)
        ],
        "phases_ms": {name: _ms(seconds) for name, seconds in reading.phases(spans).items()},
        "between_ms": _ms(reading.between_s(spans)),
        "jaeger": link,
        "spans": [
            {
                "span_id": span.span_id,
                "parent_id": span.parent_id or None,
                "name": span.name,
                "service": span.service,
                "instance": span.instance,
                "start_ms": _ms(span.start - zero),
                "duration_ms": _ms(span.seconds),
                "error": span.error,
                "attributes": span.attributes,
                "links": [{"trace_id": trace_id, "span_id": span_id} for trace_id, span_id in span.links],
            }
            for span in spans
        ],
    }


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 3)


# The picture


def _draw(spans: Sequence[Any], link: str | None) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    for each in picture(spans, link, console.width):
        console.print(each)


def picture(spans: Sequence[Any], link: str | None, width: int) -> list[Any]:
    """What is printed, for a terminal of this many columns."""
    from tracing import reading

    parts: list[Any] = [_title(spans), waterfall(spans, width), where_time_went(spans)]
    phases = reading.phases(spans)
    if phases:
        parts.append("  ".join(f"[dim]{name}[/] {_ms(seconds):.1f} ms" for name, seconds in phases.items()))
    lost = reading.orphans(spans)
    if reading.root(spans) is None:
        parts.append(f"the root span is not there (yet): {NOT_YET}")
    elif lost:
        parts.append(f"{len(lost)} spans have a parent that is not there")
    if link is not None:
        parts.append(f"in Jaeger: {link}")
    return parts


def _title(spans: Sequence[Any]) -> str:
    from tracing import names

    whole = spans[0]
    told = [
        f"{key} {whole.attributes[key]}"
        for key in (names.TX_HASH, names.BLOCK_NUMBER, names.FLASHBLOCK_INDEX, names.EPOCH, names.CAUSE, names.OUTCOME)
        if key in whole.attributes
    ]
    return f"[bold]{whole.name}[/]  {_ms(whole.seconds):.1f} ms  {'  '.join(told)}\ntrace {whole.trace_id}"


def waterfall(spans: Sequence[Any], width: int) -> Any:
    """One row per span: what, where, a bar at its place in time, when it began and how long it took."""
    from rich.table import Table
    from rich.text import Text

    from tracing import names

    zero, last = min(span.start for span in spans), max(span.end for span in spans)
    cells = min(BAR_CELLS_MAX, max(BAR_CELLS_MIN, width - 92))
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column("span", no_wrap=True)
    table.add_column("service", no_wrap=True)
    table.add_column("".ljust(cells), no_wrap=True)
    for heading in ("at ms", "took ms"):
        table.add_column(heading, justify="right", no_wrap=True)
    for span in spans:
        index = span.attributes.get(names.FLASHBLOCK_INDEX)
        place = f" {index}" if index is not None and span.parent_id and span.name.startswith("flashblock") else ""
        style = "red" if span.error else "bold" if not span.parent_id else ""
        name = Text(("  " if span.parent_id else "") + span.name + place, style=style)
        if span.error:
            name.append(f"  {span.error}", style="red dim")
        name.truncate(NAME_CELLS + 8, overflow="ellipsis")
        table.add_row(
            name,
            Text(f"{span.service} {span.instance}".strip(), style="cyan"),
            _bar(span, zero, last, cells, "red" if span.error else "green" if span.parent_id else "blue"),
            f"{_ms(span.start - zero):.1f}",
            f"{_ms(span.seconds):.1f}",
        )
    return table


def _bar(span: Any, zero: float, last: float, cells: int, style: str) -> Any:
    from rich.text import Text

    scale = cells / max(last - zero, 1e-9)
    begin = min(cells - 1, int((span.start - zero) * scale))
    length = max(1, min(cells - begin, round((span.end - span.start) * scale)))
    thin = span.seconds * scale < 0.5
    return Text(" " * begin) + Text(("▏" if thin else "█") * length, style=style)


def where_time_went(spans: Sequence[Any]) -> Any:
    """The stages of a trace, each with what it took in total, at most, and of the whole."""
    from rich.table import Table

    from tracing import reading

    whole = reading.root(spans)
    table = Table(title="where the time went", title_justify="left", box=None, padding=(0, 1, 0, 0))
    for heading in ("stage", "total ms", "times", "longest ms", "of the whole"):
        table.add_column(heading, justify="left" if heading == "stage" else "right", header_style="dim")

    def percent(seconds: float) -> str:
        return f"{100 * seconds / whole.seconds:.0f} %" if whole is not None and whole.seconds > 0 else ""

    for share in reading.shares(spans):
        took, longest = f"{_ms(share.seconds):.1f}", f"{_ms(share.seconds_max):.1f}"
        table.add_row(share.stage, took, str(share.count), longest, percent(share.seconds))
    between = reading.between_s(spans)
    table.add_row("between the stages", f"{_ms(between):.1f}", "", "", percent(between))
    return table
