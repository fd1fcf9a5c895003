"""A group's disk is full: a real file system of limited size, filled to the last byte and emptied again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from chaos.faults import ACTORS, HANG_S, Fault, all_back, victims
from chaos.history import Event
from chaos.target import DrillError, Target

DISK_SIZE_MIB = 768
BALLAST_FILE = "ballast"
BALLAST_BLOCK_BYTES = 1 << 20
MOUNT_S_MAX = 10.0


class FullDisk(Fault):
    """The file system under a group's data has no byte left, for `hold_s`."""

    kind = "full disk"

    def __init__(self, target: Target, group: dict[str, Any], hold_s: float = 2 * HANG_S) -> None:
        self.victims, self.hold_s = victims([group], ACTORS), hold_s
        self._target = target
        self._ballast = Path(target.endpoints()["data_dir"]) / group["name"] / BALLAST_FILE

    async def inject(self) -> None:
        """Write ballast until there is no room; raises DrillError when it is not a disk of its own."""
        await asyncio.to_thread(self._fill)

    def _fill(self) -> None:
        if not os.path.ismount(self._ballast.parent):
            raise DrillError(f"{self._ballast.parent} is not a file system of its own")
        fill(self._ballast)

    def abandon(self) -> None:
        """Make room again."""
        self._ballast.unlink(missing_ok=True)

    async def recovered(self, run: int) -> list[Event]:
        """Wait until all five are there – whether they lived through it or were started again – and level."""
        return await all_back(self._target, dict.fromkeys(self.victims, 0), run)


def fill(path: Path) -> None:
    """Write until the file system is full, in ever smaller pieces."""
    size = BALLAST_BLOCK_BYTES
    with open(path, "wb", buffering=0) as file:
        while size:
            try:
                written = file.write(bytes(size))
            except OSError:
                written = 0
            if written < size:
                size //= 2


@contextlib.contextmanager
def disks_of_their_own(data_dir: Path, groups: int) -> Iterator[None]:
    """A small file system in memory under each group's data directory; nothing where we may not mount."""
    mounted: list[Path] = []
    try:
        if os.geteuid() == 0:
            for group in range(groups):
                directory = data_dir / f"sequencer-{group}"
                directory.mkdir(parents=True, exist_ok=True)
                done = subprocess.run(
                    ["mount", "-t", "tmpfs", "-o", f"size={DISK_SIZE_MIB}m,mode=0700", "flashblocks-drill", directory],
                    capture_output=True,
                    timeout=MOUNT_S_MAX,
                    check=False,
                )
                if done.returncode != 0:
                    break
                mounted.append(directory)
        yield
    finally:
        for directory in mounted:
            # lazily: a process that is only just ending may still have a file open
            subprocess.run(["umount", "-l", directory], capture_output=True, timeout=MOUNT_S_MAX, check=False)


def missing(target: Target) -> str | None:
    """Why no disk can be filled on this cluster; None when it can."""
    endpoints = target.endpoints()
    if os.path.ismount(Path(endpoints["data_dir"]) / endpoints["groups"][0]["name"]):
        return None
    return "its groups have no disks of their own; the drill's own cluster has, when it is started by root"
