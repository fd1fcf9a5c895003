"""Every call to Ray: start it on this machine, create the actors, end their components, end it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray

from actors.plan import LOG_DIRECTORY, ComponentPlan
from actors.shell import ComponentActor

NAMESPACE = "flashblocks"
OBJECT_STORE_BYTES = 80 * 1024 * 1024  # Ray's own minimum: no data of ours goes through it
CALLS_AT_ONCE = 2  # per actor: `info` is answered while `stop` waits


class Cluster:
    """A Ray of our own on this machine, and the components that live in it."""

    def __init__(self, temporary: Path, notes: Path, data_dir: Path, log_level: str) -> None:
        self._temporary = temporary
        self._notes = notes
        self._log_dir = data_dir / LOG_DIRECTORY
        self._log_level = log_level
        self._handles: dict[str, Any] = {}

    def start(self, workers: int) -> None:
        """Start Ray (blocking, 2–5 s); its processes share this process's fate.

        May be tried again when it raised; what it had started by then is the caller's to end.
        """
        ray.shutdown()  # what an earlier try left in this process
        ray.init(
            address="local",
            num_cpus=workers,
            num_gpus=0,
            object_store_memory=OBJECT_STORE_BYTES,
            include_dashboard=False,
            configure_logging=False,
            log_to_driver=False,
            namespace=NAMESPACE,
            _node_ip_address="127.0.0.1",
            _temp_dir=str(self._temporary),
        )

    def create(self, plan: Sequence[ComponentPlan]) -> None:
        """Ask for all actors at once; Ray restarts each of them for ever."""
        actor_class = ray.remote(ComponentActor)
        for each in plan:
            self._handles[each.actor_name] = actor_class.options(  # type: ignore[attr-defined]
                name=each.actor_name,
                num_cpus=0,
                max_restarts=-1,
                max_concurrency=CALLS_AT_ONCE,
            ).remote(
                each.component, each.settings, str(self._log_dir), self._log_level, str(self._notes / each.note_name)
            )

    async def stop_components(self, timeout_s: float) -> int:
        """Ask every component to end cleanly; how many did in time."""
        calls = [handle.stop.remote() for handle in self._handles.values()]
        if not calls:
            return 0
        done, _ = await asyncio.wait([asyncio.wrap_future(call.future()) for call in calls], timeout=timeout_s)
        return sum(1 for each in done if each.exception() is None and each.result())

    def let_go_of_gcs(self) -> None:
        """Ray's GCS is dead: stop the thread that asks it for errors and never pauses (half a core and more)."""
        ray._private.worker.global_worker.threads_stopped.set()

    def shutdown(self) -> None:
        """End Ray (blocking, about 1.5 s)."""
        ray.shutdown()
