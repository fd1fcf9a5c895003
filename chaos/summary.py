"""Drills and their outcomes as tables for people, and the catalogue as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chaos.catalogue import CATALOGUE
from chaos.drill import Drill
from chaos.expectation import Bound
from chaos.judgement import Result

VIOLATIONS_SHOWN = 20


def catalogue_json(drills: Sequence[Drill]) -> list[dict[str, Any]]:
    """Everything about each drill that is data."""
    return [
        {
            "name": drill.name,
            "title": drill.title,
            "row": drill.row,
            "expects": drill.expect.value,
            "promises": list(drill.promises),
            "bound_ms": None if drill.bound is None else {"p50": drill.bound.p50_ms, "p99": drill.bound.p99_ms},
            "groups_min": drill.groups_min,
            "slow": drill.slow,
        }
        for drill in drills
    ]


def catalogue_table(drills: Sequence[Drill]) -> str:
    """One line a drill: name, how the stream should bear it, what it injects."""
    width = max(len(drill.name) for drill in drills)
    lines = [f"{'drill':<{width}}  {'the stream':<10}  {'bound p50/p99':<15}  what it injects"]
    for drill in drills:
        slow = " (slow)" if drill.slow else ""
        lines.append(f"{drill.name:<{width}}  {drill.expect:<10}  {bound(drill.bound):<15}  {drill.title}{slow}")
    return "\n".join(lines)


def bound(value: Bound | None) -> str:
    """A bound in words: ``300 / 800 ms``."""
    return "–" if value is None else f"{value.p50_ms:.0f} / {value.p99_ms:.0f} ms"


def results_table(results: Sequence[Result]) -> str:
    """One line a drill, and what was broken below."""
    width = max([5, *(len(result.drill) for result in results)])
    header = "verdict  faults  p50 ms  p99 ms  worst ms  in bound  lost  dup  gaps  flashblocks  sealed tx"
    lines = [f"{'drill':<{width}}  {header}"]
    for result in results:
        kept = {None: "–", True: "yes", False: "no"}[result.within_bound]
        lines.append(
            f"{result.drill:<{width}}  {result.verdict:<7}  {result.kills:>6}  {result.gap_ms_p50:>6.0f}  "
            f"{result.gap_ms_p99:>6.0f}  {result.gap_ms_max:>8.0f}  {kept:>8}  {result.lost:>4}  "
            f"{result.duplicates:>3}  {result.gaps:>4}  {result.flashblocks:>11}  {result.included:>9}"
        )
    for result in results:
        lines += [f"{result.drill} broken: {text}" for text in result.violations[:VIOLATIONS_SHOWN]]
    return "\n".join(lines)


def outcome(result: Result) -> str:
    """One drill's result for people."""
    lines = [
        f"{result.verdict.upper()}: {result.kills} faults, {result.flashblocks} flashblocks and "
        f"{result.transactions} transactions seen (seed {result.seed})",
        f"lost {result.lost}   duplicates {result.duplicates}   gaps {result.gaps}",
        f"next flashblock after the fault: p50 {result.gap_ms_p50:.0f} ms, p99 {result.gap_ms_p99:.0f} ms"
        + _against(result),
    ]
    lines += [f"  broken: {text}" for text in result.violations[:VIOLATIONS_SHOWN]]
    if len(result.violations) > VIOLATIONS_SHOWN:
        lines.append(f"  … and {len(result.violations) - VIOLATIONS_SHOWN} more; see the history")
    return "\n".join(lines)


def _against(result: Result) -> str:
    drill = CATALOGUE.get(result.drill)
    if drill is None or drill.bound is None or result.within_bound is None:
        return ""
    return f" (bound {bound(drill.bound)}: {'kept' if result.within_bound else 'not kept'})"
