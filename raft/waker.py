"""Waking the Raft thread out of its wait from any other thread, safely even while the node is being closed."""

from __future__ import annotations

import os
import threading

from raft.link import READ, Poller


class Waker:
    """An event descriptor in the poller. It replaces the library's pipe, which fills up and is never closed."""

    def __init__(self, poller: Poller) -> None:
        self._poller = poller
        self._lock = threading.Lock()
        self._descriptor: int | None = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        poller.subscribe(self._descriptor, self._drain, READ)

    def notify(self) -> None:
        """End the current or the next wait; nothing happens after `close`."""
        with self._lock:
            if self._descriptor is not None:
                os.eventfd_write(self._descriptor, 1)

    def close(self) -> None:
        """Release the descriptor; idempotent."""
        with self._lock:
            descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            self._poller.unsubscribe(descriptor)
            os.close(descriptor)

    def _drain(self, descriptor: int, _events: int) -> None:
        os.eventfd_read(descriptor)
