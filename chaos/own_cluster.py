"""The cluster a drill runs on: the named one, the only one running, or one that lives as long as the drill."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from actors.fault_points import VARIABLE
from actors.plan import ClusterOptions
from actors.run_directory import RunDirectory, all_runs
from actors.starter import start
from chaos.disk import disks_of_their_own
from chaos.signalling import reaching
from chaos.target import DrillError

OWN_NAME = "drill"
START_S_MAX = 150.0


@contextlib.contextmanager
def cluster(name: str | None, say: Callable[[str], None]) -> Iterator[RunDirectory]:
    """The cluster to drill; one of our own is ended afterwards. Raises DrillError when the choice is not clear."""
    running = [run for run in all_runs() if run.is_running()]
    names = [run.name for run in running]
    if name is not None and name not in names:
        raise DrillError(f"no cluster named {name!r} is running; start one: flashblocks up --name {name}")
    if name is not None:
        with reaching(running[names.index(name)]) as directory:
            yield directory
    elif len(running) == 1:
        with reaching(running[0]) as directory:
            yield directory
    elif running:
        raise DrillError(f"several clusters are running; say which with --name: {', '.join(names)}")
    else:
        with _own(say) as directory:
            yield directory


@contextlib.contextmanager
def _own(say: Callable[[str], None]) -> Iterator[RunDirectory]:
    """A cluster with fault points, and – where we may mount – a disk for each group."""
    say("starting a cluster for the drill …")
    options = ClusterOptions(name=OWN_NAME)
    with contextlib.ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="flashblocks-drill-")))
        points, data = place / "points", place / "data"
        points.mkdir()
        stack.enter_context(disks_of_their_own(data, options.groups))
        stack.enter_context(_environment(VARIABLE, str(points)))
        started = start(options, data, time.time())
        try:
            deadline = time.monotonic() + START_S_MAX
            while not started.directory.endpoints.exists():
                if started.has_ended() or time.monotonic() > deadline:
                    raise DrillError("the cluster did not start; try `flashblocks up` to see why")
                time.sleep(0.1)
            yield started.directory
        finally:
            say("ending the drill's cluster …")
            started.stop()


@contextlib.contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    """Set a variable of our own environment, which the cluster inherits, for as long as it lives."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
