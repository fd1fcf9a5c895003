"""`conductor_overrideLeader`: the stream goes on without a majority, and a majority takes in what it streamed."""

from pathlib import Path
from typing import Any

from tests.actors.group_under_test import Cluster, Group, Listener, cluster, until


async def ask(rpc: Any, method: str, *params: Any) -> Any:
    try:
        return await rpc.call(method, *params)
    finally:
        await rpc.close()


async def level(made: Cluster) -> None:
    """Every op-node follows the same chain, and it moves."""
    start = max(group.head for group in made.groups)
    await until(lambda: all(group.head >= start + 2 for group in made.groups), "every group follows")


async def majority_lost(made: Cluster) -> Group:
    """Kill every conductor but the leader's while a block is open; the leader, which stopped."""
    leader = await until(lambda: made.leader, "a leader")
    await level(made)
    raft = leader.conductor.component.raft
    await until(lambda: raft.ledger.open is not None and raft.ledger.open.last_index >= 3, "an open block")
    for group in made.groups:
        if group is not leader:
            await group.kill_conductor()
    await until(lambda: not leader.leads and not leader.sequences, "the leader stops")
    return leader


async def back(made: Cluster) -> None:
    for group in made.groups:
        if group.conductor is None:
            await group.start_conductor()


async def streams_on(listener: Listener, frames: int = 25) -> None:
    seen = len(listener.order)
    await until(lambda: len(listener.order) >= seen + frames, "the stream goes on")


async def agreed(made: Cluster, listener: Listener) -> None:
    """Somebody leads with a majority, everybody follows, and nothing that was streamed is contradicted."""
    await until(lambda: made.leader is not None and made.leader.conductor.component.raft.is_leader, "a leader")
    await level(made)
    assert listener.violations == []
    assert listener.lost(made) == []
    assert not any(group.conductor.component.overridden for group in made.groups)


async def test_the_stream_goes_on_alone_and_a_majority_takes_it_in(tmp_path: Path) -> None:
    async with cluster(tmp_path, 3) as made, Listener(made) as listener:
        alone = await majority_lost(made)
        block = alone.conductor.component.raft.ledger.open
        await ask(alone.rpc(), "conductor_overrideLeader", True)
        assert await ask(alone.rpc(), "conductor_leader") is True
        assert (await ask(alone.rpc(), "conductor_leaderWithID"))["addr"] == "N/A"
        await streams_on(listener)
        assert alone.sequences
        assert alone.conductor.component.raft.ledger.head_number == block.number - 1
        assert alone.head > block.number
        assert alone.conductor.component.status()["role"] == "overridden"
        streamed = list(listener.order)
        assert {(block.number, entry.index) for entry in block.entries} <= set(streamed)
        await back(made)
        await until(lambda: alone.conductor.component.raft.is_leader and alone.leads, "it leads with a majority")
        await ask(alone.rpc(), "conductor_overrideLeader", False)
        await streams_on(listener, 5)
        await agreed(made, listener)
