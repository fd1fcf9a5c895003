"""The one Ray actor class: a worker process that hosts one component in a thread of its own.

Ray starts, places and restarts it; the component's sockets, timers and tasks live on the thread's own event loop and
never wait for Ray.  When the component fails, the process exits loudly and Ray starts it again.  A small file, the
actor's note, tells the supervisor the pid and whether the component serves.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

STATUS_S_MAX = 1.0
STOP_S_MAX = 5.0
DELIVERY_POLL_S = 0.1
RESTART_PAUSE_S = 1.0  # a component that cannot even start is not tried more often than this


class ComponentActor:
    """Hosts one component; made a Ray actor by `actors.cluster`.

    The constructor returns at once and never raises: Ray gives an actor whose constructor failed up for good.
    """

    def __init__(
        self,
        component: str,
        settings: dict[str, Any],
        log_dir: str,
        log_level: str,
        note: str,
        wait_for: str = "",
    ) -> None:
        self._component_name = component
        self._note = Path(note)
        self._settings = settings
        self._log_dir = log_dir
        self._log_level = log_level
        self._wait_for = wait_for
        self._started = threading.Event()
        self._ended = threading.Event()
        self._component: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._write_note()
        threading.Thread(target=self._main, name=component, daemon=True).start()

    def info(self) -> dict[str, Any]:
        """``{pid, serving, settings, status}``: settings as a digest, status None where there is none (yet)."""
        return {
            "pid": os.getpid(),
            "serving": self._started.is_set(),
            "settings": settings_digest(self._settings),
            "status": self._status(),
        }

    def stop(self) -> bool:
        """End the component cleanly; whether it ended in time."""
        if self._loop is not None and self._stopping is not None:
            self._loop.call_soon_threadsafe(self._stopping.set)
        return self._ended.wait(STOP_S_MAX)

    def _write_note(self) -> None:
        """Tell the supervisor who we are; it learns it two seconds sooner than by a call after a restart."""
        fresh = self._note.with_name(f".{self._note.name}.{os.getpid()}")
        try:
            fresh.write_text(note_text(os.getpid(), self._started.is_set()))
            os.replace(fresh, self._note)
        except OSError:
            pass  # the run directory is being removed: so are we

    def _status(self) -> dict[str, Any] | None:
        if not self._started.is_set() or self._loop is None:
            return None
        try:
            return asyncio.run_coroutine_threadsafe(self._read_status(), self._loop).result(STATUS_S_MAX)
        except (TimeoutError, RuntimeError):
            return None

    async def _read_status(self) -> dict[str, Any]:
        found: dict[str, Any] = self._component.status()
        return found

    def _main(self) -> None:
        # On a host that is back its files may have to be delivered again, and Ray may be quicker.
        while self._wait_for and not os.path.exists(self._wait_for):
            time.sleep(DELIVERY_POLL_S)
        spare_imports()
        from actors.fault_points import fit_dials
        from actors.open_files import raise_limit
        from actors.process import display_name
        from tracing.logs import forward_standard_library, get_logger

        fit_dials()
        raise_limit()
        group = int(self._settings.get("group", 0))
        name = display_name(self._component_name)
        log = get_logger(name, group, log_dir=Path(self._log_dir), level=self._log_level)
        forward_standard_library(log)
        try:
            asyncio.run(self._host(log))
        except BaseException:
            log.error("the component failed; its process ends and is started again", exc_info=True, pid=os.getpid())
            if not self._started.is_set():
                time.sleep(RESTART_PAUSE_S)
            os._exit(1)
        log.info("ended", pid=os.getpid())
        self._ended.set()

    async def _host(self, log: Any) -> None:
        from actors.process import host, make_component

        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        self._component = make_component(self._component_name, self._settings, log)
        await host(self._component, self._stopping, lambda: self._on_started(log))

    def _on_started(self, log: Any) -> None:
        # What is alive now (modules, Ray) stays: without this every full collection would walk it again.
        gc.collect()
        gc.freeze()
        self._started.set()
        self._write_note()
        log.info("serving", pid=os.getpid(), cpu_s=round(time.process_time(), 3))


def settings_digest(settings: dict[str, Any]) -> str:
    """Tells whether a running actor has the settings it should have."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()


def note_text(pid: int, serving: bool) -> str:
    """What an actor notes about itself: its pid, and whether its component serves."""
    return f"{pid} {'serving' if serving else 'starting'}"


def read_note(path: Path) -> tuple[int, bool] | None:
    """The (pid, serving) an actor noted, None when there is no note yet."""
    try:
        pid, state = path.read_text().split()
    except (OSError, ValueError):
        return None
    return int(pid), state == "serving"


def spare_imports() -> None:
    """Keep structlog from importing rich for coloured tracebacks nobody sees here: 0.1 s in each of 29 workers."""
    sys.modules.setdefault("rich", None)  # type: ignore[arg-type]
