"""Background tasks of an actor: begun at any time, ended together, and a bug in one of them ends the actor."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


class Tasks:
    """Like a TaskGroup, but callbacks may begin tasks at any moment, also when everything is about to end."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._bug: asyncio.Future[None] | None = None
        self._closed = False

    def begin(self, coroutine: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any] | None:
        """Run `coroutine` in a task; None, and nothing is run, once the actor is ending."""
        if self._closed:
            coroutine.close()
            return None
        task = asyncio.get_running_loop().create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._on_done)
        return task

    async def wait(self) -> None:
        """Wait for ever; raise what a task raised, if one does."""
        self._bug = self._bug or asyncio.get_running_loop().create_future()
        await self._bug

    async def close(self) -> None:
        """Cancel what is under way and wait for it; nothing begins any more. Idempotent."""
        self._closed = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _on_done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is None or self._closed:
            return
        self._bug = self._bug or asyncio.get_running_loop().create_future()
        if not self._bug.done():
            self._bug.set_exception(error)
