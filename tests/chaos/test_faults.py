"""Faults on real processes: stopped ones are woken, dead ones' successors held, whatever ends the drill."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from chaos.faults import HANG, KILL, KeptDead, Signals, Together, Victim, events, victims
from chaos.history import Fault
from chaos.target import DrillError

SLEEPER = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]
STATE_S_MAX = 20.0


@pytest.fixture
def sleeper():
    """Makes processes that only sleep."""
    made = []

    def make():
        process = subprocess.Popen(SLEEPER, stdout=subprocess.PIPE)
        made.append(process)
        assert process.stdout.readline() == b"up\n"
        return process

    yield make
    for process in made:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()
        process.stdout.close()


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


async def comes_to(wanted: str, pid: int) -> None:
    deadline = time.monotonic() + STATE_S_MAX
    while state(pid) != wanted:
        assert time.monotonic() < deadline, f"{pid} is {state(pid)}, not {wanted}"
        await asyncio.sleep(0.01)


def gives(target, pid: int) -> Victim:
    """Let endpoints.json say that sequencer-0's conductor is this process."""
    known = json.loads(target.endpoints_path.read_text())
    known["groups"][0]["actors"]["conductor"]["pid"] = pid
    target.endpoints_path.write_text(json.dumps(known))
    return Victim("sequencer-0", "conductor", pid)


async def test_a_hung_process_is_woken_when_the_fault_is_lifted_or_given_up(target, sleeper):
    process = sleeper()
    fault = Signals(target, HANG, [gives(target, process.pid)])
    for undo in (fault.lift(), asyncio.to_thread(fault.abandon)):
        await fault.inject()
        await comes_to("T", process.pid)
        await undo
        await comes_to("S", process.pid)


async def test_killing_is_for_good_and_lasts_no_time(target, sleeper):
    process = sleeper()
    fault = Signals(target, KILL, [gives(target, process.pid)])
    await fault.inject()
    assert process.wait(STATE_S_MAX) == -signal.SIGKILL
    assert fault.hold_s == 0
    await fault.lift()


async def test_a_process_that_is_not_there_is_said(target, sleeper):
    process = sleeper()
    process.kill()
    process.wait()
    with pytest.raises(DrillError, match="stale"):
        await Signals(target, KILL, [Victim("sequencer-0", "conductor", process.pid)]).inject()


async def test_the_successor_of_a_dead_one_is_held_and_ended_when_the_next_may_live(target, sleeper):
    first, second, third = sleeper(), sleeper(), sleeper()
    fault = KeptDead(target, [gives(target, first.pid)], 1.0)
    await fault.inject()
    assert first.wait(STATE_S_MAX) == -signal.SIGKILL
    gives(target, second.pid)
    await comes_to("T", second.pid)
    await fault.lift()
    assert second.wait(STATE_S_MAX) == -signal.SIGKILL
    gives(target, third.pid)
    await asyncio.sleep(0)
    assert state(third.pid) == "S"


async def test_several_faults_are_one(target, sleeper):
    one, other = sleeper(), sleeper()
    hurt = [Victim("sequencer-0", "conductor", one.pid)], [Victim("sequencer-1", "conductor", other.pid)]
    fault = Together([Signals(target, KILL, hurt[0]), Signals(target, HANG, hurt[1], hold_s=3.0)])
    assert (fault.kind, fault.hold_s) == ("kill and hang", 3.0)
    assert [event.pid for event in events(fault, 1, 5.0)] == [one.pid, other.pid]
    await fault.inject()
    assert one.wait(STATE_S_MAX) == -signal.SIGKILL
    await comes_to("T", other.pid)
    fault.abandon()
    await comes_to("S", other.pid)


def test_a_fault_on_nobody_is_in_the_history_too(target):
    assert events(Together([Signals(target, KILL, [])], "kill gcs"), 3, 5.0) == [Fault(5.0, 3, "kill gcs", "", "", 0)]


def test_victims_are_named_by_group_and_actor(target):
    found = victims(target.groups()[:2], ["builder", "op-node"])
    assert [(one.group, one.actor) for one in found] == [
        ("sequencer-0", "builder"),
        ("sequencer-0", "op-node"),
        ("sequencer-1", "builder"),
        ("sequencer-1", "op-node"),
    ]
    assert os.getpid() not in {one.pid for one in found}
