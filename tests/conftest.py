"""Rules for every test: unit tests start no Ray, and no test leaves a process or a task behind."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, settings

from actors.reaper import descendants

# The gate draws the same examples every time, so that a change is judged and not a die; HYPOTHESIS_PROFILE=explore
# draws new ones, and what it finds becomes a test of its own.
# How fast a machine draws them is not judged: that check has failed on a busy one.
UNHURRIED = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("gate", derandomize=True, **UNHURRIED)
settings.register_profile("explore", derandomize=False, **UNHURRIED)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "gate"))

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # started with `&`: what tests start would ignore Ctrl-C as well
    signal.signal(signal.SIGINT, signal.default_int_handler)

LEAK_GRACE_S = 2.0
LOOP_TURNS_TO_END = 20  # a task that was cancelled a moment ago needs a few turns of the loop


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Forbid Ray outside tests marked ``cluster``: a rule that needs Ray to be tested is in the wrong place."""
    if item.get_closest_marker("cluster") is not None:
        return (yield)
    with pytest.MonkeyPatch.context() as patch:
        if (ray := sys.modules.get("ray")) is not None:
            patch.setattr(ray, "init", _forbidden)
        patch.setitem(sys.modules, "ray", None)  # importing it raises ImportError
        return (yield)


def _forbidden(*_: Any, **__: Any) -> None:
    raise AssertionError("a unit test starts Ray; mark it `cluster` or test the rule without Ray")


@pytest.fixture(autouse=True)
def no_process_is_left_behind() -> Iterator[None]:
    """A test ends every process it starts."""
    before = set(descendants(os.getpid()))
    yield
    deadline = time.monotonic() + LEAK_GRACE_S
    while left := set(descendants(os.getpid())) - before:
        if time.monotonic() > deadline:
            pytest.fail(f"the test left processes behind: {sorted(_describe(pid) for pid in left)}")
        time.sleep(0.02)


def _describe(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return f"{pid} {file.read().replace(bytes(1), b' ').decode(errors='replace')[:120]}"
    except OSError:
        return str(pid)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the task check before every other fixture of an async test, so that it is torn down last."""
    for item in items:
        if isinstance(item, pytest.Function) and asyncio.iscoroutinefunction(item.obj):
            item.fixturenames.insert(0, "no_task_is_left_behind")


@pytest_asyncio.fixture
async def no_task_is_left_behind() -> AsyncIterator[None]:
    """An async test and its fixtures end every task; asyncio's runner would cancel what is left without a word."""
    yield
    left: set[asyncio.Task[Any]] = set()
    for _ in range(LOOP_TURNS_TO_END):
        left = {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}
        if not left:
            return
        await asyncio.sleep(0)
    pytest.fail(f"the test left tasks behind: {left}")
