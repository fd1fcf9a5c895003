import asyncio

import pytest

from actors.tasks import Tasks


async def test_a_bug_in_a_task_comes_out_of_wait() -> None:
    tasks = Tasks()

    async def buggy() -> None:
        raise ZeroDivisionError("ours")

    tasks.begin(buggy(), "buggy")
    with pytest.raises(ZeroDivisionError, match="ours"):
        await tasks.wait()
    await tasks.close()


async def test_a_task_that_ends_or_is_cancelled_is_no_bug() -> None:
    tasks = Tasks()

    async def short() -> int:
        return 1

    task = tasks.begin(short(), "short")
    other = tasks.begin(asyncio.sleep(60), "other")
    assert task is not None and other is not None
    other.cancel()
    waiting = asyncio.create_task(tasks.wait())
    await asyncio.gather(task, other, return_exceptions=True)
    await asyncio.sleep(0)
    assert not waiting.done()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await tasks.close()


async def test_close_ends_everything_and_nothing_begins_after_it() -> None:
    tasks, ended = Tasks(), []

    async def long() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("long")

    tasks.begin(long(), "long")
    await asyncio.sleep(0)
    await tasks.close()
    await tasks.close()
    assert ended == ["long"]
    assert tasks.begin(long(), "late") is None
    assert ended == ["long"]
