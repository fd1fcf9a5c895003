"""What becomes of a conductor whose Raft journal is damaged, or whose disk is full.

A damaged journal is put aside: the peers have it all. A full disk stops the Raft node, so that others lead and this
group sequences nothing; it is said in one clear line and waited for, and when there is room again the node comes back
in the same process. To end instead would help nobody: Ray would start the process again and again, into the same disk.
"""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

from raft.journal import JournalDamaged, is_disk_full, move_aside
from raft.node import RaftNode

LOOK_S = 0.5
TOLD_AGAIN_S = 60.0


class ConductorJournal:
    """Starts the Raft node over its directory, and again after a full disk. `room_bytes` is what it needs free then."""

    def __init__(self, raft: RaftNode, directory: Path, room_bytes: int, log: Any) -> None:
        self._raft, self._directory, self._room_bytes, self._log = raft, directory, room_bytes, log
        self._stopped = asyncio.Event()
        raft.on_fault(self._on_fault)

    async def open(self) -> None:
        """Start the Raft node; on a full disk it stays stopped until `keep` finds room."""
        self._directory.mkdir(parents=True, exist_ok=True)
        try:
            await self._open()
        except Exception as error:
            if not is_disk_full(error):
                raise
            self._stopped.set()

    async def _open(self) -> None:
        try:
            await self._raft.start()
        except JournalDamaged as error:
            aside = move_aside(self._directory)
            self._log.error("journal damaged, rejoining from the peers", error=str(error), kept=str(aside))
            await self._raft.start()

    async def keep(self) -> None:
        """Wait for room whenever the disk is full; raises RuntimeError when the Raft node stops for another reason."""
        while True:
            await self._stopped.wait()
            self._stopped.clear()
            if self._raft.fault is not None and not self._raft.disk_full:
                raise RuntimeError(f"the raft node stopped: {self._raft.fault}")
            await self._raft.close()
            await self._wait_for_room()
            await self.open()

    async def _wait_for_room(self) -> None:
        began = time.monotonic()
        told_at = -TOLD_AGAIN_S
        while (free := self._free_bytes()) < self._room_bytes:
            if time.monotonic() - told_at >= TOLD_AGAIN_S:
                told_at = time.monotonic()
                self._log.error(
                    f"disk full: free some space at {self._directory}; until then Raft is stopped and others lead",
                    free_bytes=free,
                    needed_bytes=self._room_bytes,
                )
            await asyncio.sleep(LOOK_S)
        await asyncio.sleep(LOOK_S)  # if it is full again at once, this is not repeated without a pause
        self._log.info("there is room on the disk: Raft starts again", after_s=round(time.monotonic() - began, 1))

    def _free_bytes(self) -> int:
        space = os.statvfs(self._directory)
        return space.f_bavail * space.f_frsize

    def _on_fault(self, fault: str) -> None:
        self._log.error("the raft node stopped", fault=fault)
        self._stopped.set()
