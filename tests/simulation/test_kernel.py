import pytest

from chaos.simulation import kernel
from chaos.simulation.kernel import Cancelled, Clock, Event, Future, Killed, Livelock, Lock, Process


@pytest.fixture
def clock():
    return Clock(1)


@pytest.fixture
def process(clock):
    return Process(clock, "one", "host")


def test_events_come_in_the_order_of_their_time_and_then_of_their_making(clock, process):
    seen = []
    for name, at in (("late", 2.0), ("first", 1.0), ("second", 1.0)):
        clock.at(at, process, lambda name=name: seen.append((clock.now, name)))
    clock.run(1.5)
    assert seen == [(1.0, "first"), (1.0, "second")]
    assert clock.now == 1.5
    clock.run(3.0)
    assert seen[-1] == (2.0, "late")


def test_a_dead_process_does_nothing_and_a_hung_one_catches_up_in_order(clock, process):
    seen = []
    other = Process(clock, "two", "host")
    for second in (1, 2, 3):
        clock.at(second, process, seen.append, second)
        clock.at(second, other, seen.append, -second)
    other.kill()
    process.pause()
    clock.run(2.5)
    assert seen == []
    process.wake()
    clock.run(5.0)
    assert seen == [1, 2, 3]


def test_a_slow_process_falls_behind_and_keeps_its_order(clock, process):
    seen = []
    process.slow_s = 1.0
    for number in range(5):
        clock.at(0.1 * number, process, lambda number=number: seen.append((number, clock.now)))
    clock.run(20.0)
    assert [number for number, _ in seen] == [0, 1, 2, 3, 4]
    assert seen[-1][1] > 0.4


def test_a_coroutine_waits_in_virtual_time(clock, process):
    async def work():
        await process.sleep(1.5)
        return clock.now

    task = process.spawn(work())
    clock.run(1.0)
    assert not task.done
    clock.run(2.0)
    assert task.value == 1.5


def test_what_a_coroutine_raises_ends_the_run(clock, process):
    async def work():
        await process.sleep(1.0)
        raise ValueError("our bug")

    process.spawn(work())
    with pytest.raises(ValueError, match="our bug"):
        clock.run(2.0)


def test_a_cancelled_or_killed_coroutine_cleans_up_and_goes_no_further(clock, process):
    seen = []

    async def work(name):
        try:
            await process.sleep(1.0)
            seen.append("never")
        finally:
            seen.append(name)

    task = process.spawn(work("cancelled"))
    process.spawn(work("killed"))
    task.cancel()
    assert seen == ["cancelled"] and isinstance(task.error, Cancelled)
    process.kill()
    clock.run(5.0)
    assert seen == ["cancelled", "killed"]


def test_a_process_may_die_of_what_it_does(clock, process):
    seen = []

    async def work():
        await process.sleep(1.0)
        seen.append("before")
        process.kill()
        raise Killed

    process.spawn(work())
    process.after(2.0, seen.append, "after")
    clock.run(5.0)
    assert seen == ["before"]


def test_a_future_has_one_outcome(clock, process):
    future = Future(process)
    future.fail(ValueError("first"))
    future.set("second")

    async def work():
        await future

    with pytest.raises(ValueError, match="first"):
        process.spawn(work())


def test_a_lock_lets_one_in_at_a_time_and_outlives_a_waiter_that_gives_up(clock, process):
    lock, seen = Lock(process), []

    async def work(name):
        async with lock:
            seen.append(f"{name} in")
            await process.sleep(1.0)
            seen.append(f"{name} out")

    process.spawn(work("a"))
    given_up = process.spawn(work("b"))
    process.spawn(work("c"))
    assert lock.waiting == 2
    given_up.cancel()
    clock.run(5.0)
    assert seen == ["a in", "a out", "c in", "c out"]


def test_a_waiter_that_is_cancelled_with_its_turn_in_hand_passes_it_on(clock, process):
    lock, seen = Lock(process), []

    async def hold():
        async with lock:
            await process.sleep(1.0)
        given_up.cancel()  # its turn was handed to it a moment ago

    async def work(name):
        async with lock:
            seen.append(name)

    process.spawn(hold())
    given_up = process.spawn(work("b"))
    process.spawn(work("c"))
    clock.run(5.0)
    assert seen == ["c"]


def test_an_event_is_waited_for_until_a_time_out(clock, process):
    event, seen = Event(process), []

    async def work(timeout_s):
        seen.append((await event.wait(timeout_s), clock.now))

    process.spawn(work(1.0))
    process.spawn(work(None))
    process.after(2.0, event.set)
    clock.run(5.0)
    assert seen == [(False, 1.0), (True, 2.0)]


def test_a_loop_without_a_pause_is_noticed(clock, process, monkeypatch):
    monkeypatch.setattr(kernel, "EVENTS_MAX", 1000)

    def again():
        process.after(0.0, again)

    again()
    with pytest.raises(Livelock):
        clock.run(1.0)
