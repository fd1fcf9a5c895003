"""What every process of a cluster holds – memory and file descriptors – over a soak, read from /proc."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from chaos.target import DrillError, Target

SAMPLE_PERIOD_S: Final = 5.0
WARM_S: Final = 30.0
"""A process younger than this still fills its caches: growth counts from here."""
PROC: Final = Path("/proc")
KIB: Final = 1024
PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


class Sample(msgspec.Struct, frozen=True):
    """What a process held at one moment: resident bytes, open file descriptors."""

    at_s: float
    resident_bytes: int
    descriptors: int


class Growth(msgspec.Struct, frozen=True):
    """One process from when it was warm to its last sample."""

    name: str
    pid: int
    lived_s: float
    resident_mib_warm: float
    resident_mib_last: float
    resident_mib_most: float
    descriptors_warm: int
    descriptors_last: int
    descriptors_most: int

    @property
    def mib_per_hour(self) -> float:
        """How fast its memory grew; 0 for one that was watched for too short a time to say."""
        watched_s = self.lived_s - WARM_S
        return 0.0 if watched_s < WARM_S else (self.resident_mib_last - self.resident_mib_warm) * 3600 / watched_s


class Resources:
    """Samples every process that endpoints.json names, the ones that are started later as well."""

    def __init__(self, target: Target, proc: Path = PROC) -> None:
        self._target, self._proc = target, proc
        self._samples: dict[tuple[str, int], list[Sample]] = {}

    async def watch(self) -> None:
        """Sample until cancelled."""
        while True:
            self.sample(time.monotonic())
            await asyncio.sleep(SAMPLE_PERIOD_S)

    def sample(self, now: float) -> None:
        """Look at every process once; one that is gone meanwhile is left out."""
        try:
            endpoints = self._target.endpoints()
        except DrillError:
            return  # the cluster is ending
        for name, pid in processes(endpoints):
            try:
                pages = int((self._proc / str(pid) / "statm").read_text().split()[1])
                descriptors = len(os.listdir(self._proc / str(pid) / "fd"))
            except (OSError, IndexError, ValueError):
                continue
            self._samples.setdefault((name, pid), []).append(Sample(now, pages * PAGE_BYTES, descriptors))

    def growth(self) -> list[Growth]:
        """What each process grew by, the fastest first; those that died before they were warm are left out."""
        grown = [
            _growth(name, pid, samples)
            for (name, pid), samples in self._samples.items()
            if samples[-1].at_s - samples[0].at_s >= WARM_S
        ]
        return sorted(grown, key=lambda one: (-one.mib_per_hour, one.name))


def processes(endpoints: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """(name, pid) of every process of a cluster that runs."""
    for group in endpoints["groups"]:
        for actor, entry in group["actors"].items():
            if entry.get("pid"):
                yield f"{group['name']}/{actor}", int(entry["pid"])
    for value in endpoints.values():
        for entry in value if isinstance(value, list) else ():
            if isinstance(entry, dict) and "actors" not in entry and entry.get("pid"):
                yield str(entry["name"]), int(entry["pid"])


def _growth(name: str, pid: int, samples: Sequence[Sample]) -> Growth:
    warm = next(sample for sample in samples if sample.at_s - samples[0].at_s >= WARM_S)
    last = samples[-1]
    since = [sample for sample in samples if sample.at_s >= warm.at_s]
    return Growth(
        name=name,
        pid=pid,
        lived_s=round(last.at_s - samples[0].at_s, 1),
        resident_mib_warm=_mib(warm.resident_bytes),
        resident_mib_last=_mib(last.resident_bytes),
        resident_mib_most=_mib(max(sample.resident_bytes for sample in since)),
        descriptors_warm=warm.descriptors,
        descriptors_last=last.descriptors,
        descriptors_most=max(sample.descriptors for sample in since),
    )


def _mib(amount_bytes: int) -> float:
    return round(amount_bytes / KIB / KIB, 1)


def growth_table(growth: Sequence[Growth]) -> str:
    """A line per process, the fastest growing first."""
    lines = ["process                        lived      memory MiB (warm → last, most)      files"]
    for one in growth:
        memory = f"{one.resident_mib_warm:6.1f} → {one.resident_mib_last:6.1f} ({one.resident_mib_most:6.1f})"
        files = f"{one.descriptors_warm} → {one.descriptors_last} ({one.descriptors_most})"
        lines.append(f"{one.name:<28} {one.lived_s:6.0f} s   {memory}  {one.mib_per_hour:+8.1f}/h   {files}")
    return "\n".join(lines)
