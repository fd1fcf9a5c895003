"""What the runner makes of a growing history, and that it undoes a fault whatever ends the drill."""

import asyncio
import random

import pytest

from chaos.catalogue import CATALOGUE
from chaos.faults import Fault
from chaos.history import Began, GaveUp, Lifted, Observed
from chaos.history import Fault as FaultEvent
from chaos.runner import Options, PublicStream, Runner
from chaos.target import DrillError
from tests.chaos.histories import seen


def test_the_newest_flashblock_and_epoch_of_all_subscribers():
    history = []
    stream = PublicStream(history)
    stream.look()
    assert (stream.fresh_at, stream.epoch) == (0.0, 0)
    history += [seen(1.0, 1, 0, "text", 0), seen(1.1, 1, 0, "frames", 3), seen(1.2, 9, 9, "door", 7, edge=False)]
    stream.look()
    assert (stream.fresh_at, stream.epoch, stream.epoch_at) == (1.0, 3, 1.1)
    history += [seen(2.0, 1, 1, "frames", 4), seen(2.1, 1, 0, "late", 3)]
    stream.look()
    stream.look()
    assert (stream.fresh_at, stream.epoch, stream.epoch_at) == (2.0, 4, 2.0)
    assert stream.counts == {"text": 1, "frames": 2, "late": 1}


class Noted(Fault):
    """A fault on nobody that notes what is done with it."""

    kind = "noted"

    def __init__(self, hold_s=0.0):
        self.victims, self.hold_s, self.done = [], hold_s, []

    async def prepare(self):
        self.done.append("prepare")

    async def inject(self):
        self.done.append("inject")

    def abandon(self):
        self.done.append("abandon")


class Streaming:
    """Stands where the cluster would: one leader, and a stream that the test moves."""

    def __init__(self, runner_history):
        self.history = runner_history
        self.index = 0

    def groups(self):
        return [{"name": f"sequencer-{number}", "actors": {}} for number in range(3)]

    async def leader(self):
        return self.groups()[0], {"epoch": 1}

    async def wait_for_leader(self, timeout_s):
        return self.groups()[0], {"epoch": 1}


def runner_with(fault, drill="kill-conductor"):
    made = Runner(None, CATALOGUE[drill], Options(count=1), lambda text: None)
    made._target = Streaming(made.history)
    made._drill = type(made._drill)(
        name="noted", title="", row="", fault=lambda scene: fault, expect=CATALOGUE[drill].expect
    )
    made._random = random.Random(1)
    return made


async def test_a_fault_is_prepared_injected_lifted_and_in_the_history():
    fault = Noted()
    runner = runner_with(fault)
    runner.history.append(Began(at=0.0, drill="noted", count=1, seed=1, tps=0))

    async def stream():
        while True:
            await asyncio.sleep(0.01)
            runner.history.append(seen(asyncio.get_running_loop().time() + 4e9, 2, len(runner.history), "frames", 2))

    streaming = asyncio.create_task(stream())
    try:
        await asyncio.wait_for(runner._one(1, 0), 30)
    finally:
        streaming.cancel()
    assert fault.done == ["prepare", "inject", "abandon", "abandon"]
    kinds = [type(event) for event in runner.history]
    assert kinds.index(FaultEvent) < kinds.index(Observed) < kinds.index(Lifted)


async def test_a_drill_that_is_cancelled_in_the_middle_undoes_its_fault():
    fault = Noted(hold_s=600.0)
    runner = runner_with(fault, "kill-follower-group")
    task = asyncio.create_task(runner._one(1, 0))
    while "inject" not in fault.done:  # noqa: ASYNC110 – set by the task
        await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert fault.done == ["prepare", "inject", "abandon"]


async def test_a_drill_that_cannot_go_on_says_so_in_its_history(target):
    runner = Runner(target, CATALOGUE["kill-conductor"], Options(), lambda text: None)
    gone = target.endpoints_path.with_name("gone.json")
    target.endpoints_path.rename(gone)
    with pytest.raises(DrillError, match="no running cluster"):
        await runner.run(lambda record: asyncio.sleep(0))
    assert [type(event) for event in runner.history][-1] is GaveUp
