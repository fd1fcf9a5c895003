"""The verdict on a simulated run: the checker's rules, and one that only virtual time allows – the stream never stalls.

On a real machine silence says something about the machine. Here time passes only where the system lets it pass, so a
stream that is silent although most groups are unhurt is the system's fault.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from chaos.checker import Report, Violation, check
from chaos.history import Event, Fault, Restored, Seen
from chaos.simulation import schedule as faults

STALLED: Final = "stalled"
SILENCE_S_MAX: Final = 4.0
"""Longest silence of the public stream while most groups are unhurt: a hang is noticed after a second, a successor may
turn out to be unfit, and the patience of the watchdog doubles."""
EVERYWHERE: Final = (faults.MAJORITY, faults.EVERYBODY, faults.BRIDGE, faults.WEATHER, faults.BOUNCE_VOTERS)
"""Faults that leave no group out."""


def judge(history: Sequence[Event], groups: int, block_s: float) -> Report:
    """Judge a history by every rule."""
    report = check(history)
    stalls = tuple(_stalls(history, groups, SILENCE_S_MAX + block_s))
    return msgspec.structs.replace(report, violations=(*report.violations, *stalls))


def silences(history: Sequence[Event], groups: int) -> Iterator[tuple[float, float]]:
    """(begin, length) of every pause of the public stream, without the time in which a majority was hurt."""
    hurt: dict[int, Fault] = {}
    since, newest = 0.0, (-1, -1)
    for event in history:
        if isinstance(event, Fault):
            hurt[event.run] = event
        elif isinstance(event, Restored):
            if not _most_are_well(hurt, groups):
                since = event.at  # time counts from when it could go on
            hurt.pop(event.run, None)
        elif isinstance(event, Seen) and event.edge and (event.number, event.index) > newest:
            newest = (event.number, event.index)
            if _most_are_well(hurt, groups):
                yield since, event.at - since
            since = event.at


def _most_are_well(hurt: dict[int, Fault], groups: int) -> bool:
    if any(fault.kind in EVERYWHERE for fault in hurt.values()):
        return False
    return len({fault.group for fault in hurt.values()}) <= (groups - 1) // 2


def _stalls(history: Sequence[Event], groups: int, silence_s_max: float) -> Iterator[Violation]:
    for since, length in silences(history, groups):
        if length > silence_s_max:
            yield Violation(STALLED, f"no flashblock for {length:.1f} s after {since:.1f} s, and most groups were well")
