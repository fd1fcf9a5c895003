"""Holds Ray and the actors of one cluster: starts them, watches them, tells where they are, ends them.

    python -m actors.supervisor NAME LOCK_FD ALIVE_FD

Started by `actors.starter` through `actors.reaper`.  It writes, in the run directory, ``progress.jsonl`` (one event
per line, for whoever shows the start) and ``endpoints.json`` (the addresses and pids of everything, rewritten
atomically whenever a pid changes).  It ends on SIGTERM, and when its starter dies without having detached.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import orjson

from actors import data_directory
from actors.endpoints import ENDPOINTS_FILE, describe
from actors.fork_workers import ForkedWorkers
from actors.operator_config import OPERATOR_CONFIG_FILE, operator_config
from actors.plan import ComponentPlan
from actors.progress import Progress
from actors.reaper import descendants
from actors.run_directory import RunDirectory, clean_after_crash
from actors.shell import read_note
from actors.starter import DETACH_WORD, StartOrder

STOP_COMPONENTS_S_MAX = 4.0
START_S_MAX = 180.0
NOTE_POLL_S = 0.05
RAY_TRIES_MAX = 3
GCS = "gcs_server"
RAY_PROCESSES = ("raylet", GCS)
NEED_GENESIS_HASH = ("conductor", "op-node")


class Supervisor:
    """One cluster's life, from the order to start it to its clean end."""

    def __init__(self, directory: RunDirectory, order: StartOrder, alive: int) -> None:
        self._directory = directory
        self._order = order
        self._alive = alive
        self._data_dir = Path(order.data_dir)
        self._progress = Progress(directory.progress, order.command_at)
        self._stopping = asyncio.Event()
        self._stop_reason = ""
        self._failed = False
        # Ray's processes die with the thread that started them, so one thread does it and lives to the end.
        self._ray_thread = ThreadPoolExecutor(1, thread_name_prefix="ray")
        self._cluster: Any = None
        self._forked: ForkedWorkers | None = None
        self._chain: dict[str, Any] = {}
        self._pids: dict[str, int] = {}
        self._restarts: dict[str, int] = {}
        self._watchers: set[asyncio.Task[None]] = set()

    async def run(self) -> int:
        """Run the cluster until it is told to stop; returns the exit status."""
        self._note_own_pid()
        self._listen_for_the_end()
        starting = asyncio.create_task(self._start())
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()
                await stopping
        except Exception as error:
            self._failed = True
            self._progress.tell("failed", error=f"{type(error).__name__}: {error}", trace=traceback.format_exc())
        starting.cancel()
        await self._end()
        return 1 if self._failed else 0

    def _note_own_pid(self) -> None:
        state = self._directory.read_state()
        if state is not None:
            mine = msgspec.structs.replace(state, supervisor_pid=os.getpid())
            data_directory.write_atomically(self._directory.state, msgspec.json.encode(mine))

    def _listen_for_the_end(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self._stop, f"signal {number.name}")
        loop.add_reader(self._alive, self._read_starter)

    def _read_starter(self) -> None:
        """The starter's pipe: it detaches, or it is dead."""
        said = os.read(self._alive, len(DETACH_WORD))
        asyncio.get_running_loop().remove_reader(self._alive)
        if said != DETACH_WORD:
            self._stop("the starter ended")

    def _stop(self, reason: str) -> None:
        self._stop_reason = self._stop_reason or reason
        self._stopping.set()

    async def _start(self) -> None:
        """Start Ray while the chain is prepared, then all actors at once; returns when every component serves."""
        self._progress.tell("starting", components=len(self._order.plan))
        async with asyncio.timeout(START_S_MAX):
            _, plan = await asyncio.gather(self._start_ray(), self._prepare_chain())
            for process, pid in children_named(RAY_PROCESSES):
                self._begin_watching(self._watch_ray(process, pid))
            await self._in_ray_thread(lambda: self._cluster.create(plan))
            self._progress.tell("actors-created", actors=len(plan))
            serving = [asyncio.Event() for _ in plan]
            for each, event in zip(plan, serving, strict=True):
                self._begin_watching(self._watch(each, event))
            await asyncio.gather(*(event.wait() for event in serving))
        self._progress.tell("ready")

    async def _start_ray(self) -> None:
        """Start Ray; on a machine so busy that Ray gives itself up (30 s, fixed), try again."""
        self._directory.notes.mkdir()
        for tries_left in reversed(range(RAY_TRIES_MAX)):
            before = set(descendants(os.getpid()))
            self._forked = ForkedWorkers(self._directory.path, self._order.plan)
            try:
                await self._in_ray_thread(self._start_ray_once)
                break
            except Exception as error:
                if tries_left == 0:
                    raise
                self._progress.tell("ray-again", error=str(error))
                for pid in set(descendants(os.getpid())) - before:
                    os.kill(pid, signal.SIGKILL)
                self._forked.end()
        self._progress.tell("ray-up")

    def _start_ray_once(self) -> None:
        from actors.cluster import Cluster

        assert self._forked is not None
        options = self._order.options
        self._cluster = Cluster(self._directory.ray, self._directory.notes, self._data_dir, options.log_level)
        with self._forked.in_place_of_the_interpreter():
            self._cluster.start(len(self._order.plan))

    async def _prepare_chain(self) -> list[ComponentPlan]:
        """The plan with what is only known once the chain exists."""
        if not self._order.prepare_chain:
            return self._order.plan
        now = int(time.time())
        self._chain = await asyncio.to_thread(data_directory.prepare, self._data_dir, self._order.options, now)
        self._progress.tell("chain-prepared", **self._chain)
        return [_with_genesis_hash(each, self._chain["genesis_hash"]) for each in self._order.plan]

    async def _in_ray_thread(self, call: Callable[[], None]) -> None:
        await asyncio.get_running_loop().run_in_executor(self._ray_thread, call)

    async def _watch(self, plan: ComponentPlan, serving: asyncio.Event) -> None:
        """Keep the pid of one actor right: wait for its death on its pidfd, then for its successor's note."""
        name, note = plan.actor_name, self._directory.notes / plan.note_name
        while True:
            pid = await self._pid_after(note, self._pids.get(name))
            self._pids[name] = pid
            self._write_endpoints()
            up = asyncio.create_task(self._tell_serving(name, note, pid, serving))
            try:
                await process_end(pid)
            finally:
                up.cancel()
            self._restarts[name] = self._restarts.get(name, 0) + 1
            self._progress.tell("component-ended", component=name, pid=pid, restarts=self._restarts[name])

    async def _pid_after(self, note: Path, last: int | None) -> int:
        """The pid of the actor's new process."""
        while (found := read_note(note)) is None or found[0] == last:  # noqa: ASYNC110 – another process writes it
            await asyncio.sleep(NOTE_POLL_S)
        return found[0]

    async def _tell_serving(self, name: str, note: Path, pid: int, serving: asyncio.Event) -> None:
        while read_note(note) != (pid, True):  # noqa: ASYNC110
            await asyncio.sleep(NOTE_POLL_S)
        serving.set()
        self._progress.tell("component-up", component=name, pid=pid)

    async def _watch_ray(self, process: str, pid: int) -> None:
        """Without its raylet no worker lives: end. Without its GCS what lives goes on; nothing is started again."""
        await process_end(pid)
        if process != GCS or self._cluster is None:
            raise RuntimeError(f"Ray's {process} (pid {pid}) ended")
        self._cluster.let_go_of_gcs()
        self._progress.tell("ray-lost", process=process, pid=pid, remark="nothing that dies is started again")

    def _begin_watching(self, watcher: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(watcher)
        self._watchers.add(task)
        task.add_done_callback(self._on_watcher_end)

    def _on_watcher_end(self, task: asyncio.Task[None]) -> None:
        self._watchers.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed = True
            self._progress.tell("failed", error=str(error) or repr(error))
            self._stop("failed")

    def _write_endpoints(self) -> None:
        """Rewrite ``endpoints.json`` once every actor has a pid."""
        if len(self._pids) < len(self._order.plan):
            return
        found = describe(
            self._order.options,
            self._order.plan,
            pids=self._pids,
            restarts=self._restarts,
            data_dir=self._data_dir,
            chain=self._chain,
        )
        content = orjson.dumps(found, option=orjson.OPT_INDENT_2)
        data_directory.write_atomically(self._directory.endpoints, content)
        data_directory.write_atomically(self._data_dir / ENDPOINTS_FILE, content)
        data_directory.write_atomically(self._data_dir / OPERATOR_CONFIG_FILE, operator_config(found).encode())

    async def _end(self) -> None:
        """End components, then Ray; the reaper does the rest when we exit."""
        self._progress.tell("stopping", reason=self._stop_reason)
        for task in list(self._watchers):
            task.cancel()
        if self._cluster is not None:
            await self._bounded(self._cluster.stop_components(STOP_COMPONENTS_S_MAX))
            await self._bounded(self._in_ray_thread(self._cluster.shutdown))
        if self._forked is not None:
            self._forked.end()
        self._progress.tell("ended")

    async def _bounded(self, step: Awaitable[Any]) -> None:
        """One step of the end: its failure must not keep the next from happening."""
        try:
            async with asyncio.timeout(2 * STOP_COMPONENTS_S_MAX):
                await step
        except Exception:
            traceback.print_exc()


def _with_genesis_hash(plan: ComponentPlan, genesis_hash: str) -> ComponentPlan:
    if plan.component not in NEED_GENESIS_HASH:
        return plan
    return msgspec.structs.replace(plan, settings={**plan.settings, "genesis_hash": genesis_hash})


def children_named(names: Sequence[str]) -> list[tuple[str, int]]:
    """The (name, pid) of our own children that run one of the programs *names*."""
    found = []
    for pid in descendants(os.getpid()):
        try:
            name = Path(f"/proc/{pid}/comm").read_text().strip()
        except OSError:
            continue
        if name in names:
            found.append((name, pid))
    return found


async def process_end(pid: int) -> None:
    """Wait until the process *pid* has ended, told by the kernel."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def main(arguments: list[str]) -> int:
    """Run the supervisor of the cluster NAME; see the module."""
    name, lock, alive = arguments[0], int(arguments[1]), int(arguments[2])
    for descriptor in (lock, alive):
        os.set_inheritable(descriptor, False)
    directory = RunDirectory(name)
    order = msgspec.json.decode(directory.options.read_bytes(), type=StartOrder)
    reaper_pid = os.getppid()
    status = asyncio.run(Supervisor(directory, order, alive).run())
    if os.getppid() != reaper_pid:
        os.close(lock)  # our reaper died: clean up in its place
        clean_after_crash(directory)
    sys.stdout.flush()
    os._exit(status)  # not waiting for any thread of Ray


if __name__ == "__main__":
    main(sys.argv[1:])
