"""`conductor_overrideLeader`: the stream goes on without a majority, and a majority takes in what it streamed."""

from pathlib import Path
from typing import Any

import pytest

from raft.commands import Claimed
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


@pytest.mark.slow
async def test_upstreams_procedure_by_hand_works_too(tmp_path: Path) -> None:
    """Runbook: everything paused, both overrides, admin_startSequencer; then the reverse, with a new op-node."""
    async with cluster(tmp_path, 3) as made, Listener(made) as listener:
        alone = await majority_lost(made)
        await ask(alone.rpc(), "conductor_pause")
        await ask(alone.rpc(), "conductor_overrideLeader", True)
        await ask(alone.op_node_rpc(), "admin_overrideLeader")
        head = (await ask(alone.op_node_rpc(), "optimism_syncStatus"))["unsafe_l2"]["hash"]
        assert not alone.sequences, "a paused conductor starts nothing"
        await ask(alone.op_node_rpc(), "admin_startSequencer", head)
        await streams_on(listener)
        await ask(alone.op_node_rpc(), "admin_stopSequencer")
        await alone.kill_op_node()
        await alone.start_op_node()
        await ask(alone.rpc(), "conductor_overrideLeader", False)
        assert await ask(alone.rpc(), "conductor_leader") is False
        await ask(alone.rpc(), "conductor_resume")
        await back(made)
        await agreed(made, listener)


async def test_an_override_that_ends_before_a_majority_is_back_keeps_what_it_made(tmp_path: Path) -> None:
    async with cluster(tmp_path, 3) as made, Listener(made) as listener:
        alone = await majority_lost(made)
        await ask(alone.rpc(), "conductor_overrideLeader", True)
        await streams_on(listener)
        await ask(alone.rpc(), "conductor_overrideLeader", False)
        await until(lambda: not alone.sequences and not alone.leads, "it stops")
        kept = alone.head
        await back(made)
        await agreed(made, listener)
        assert made.groups[0].conductor.component.raft.ledger.sealed(kept) is not None


async def test_where_a_majority_is_there_an_override_changes_answers_only(tmp_path: Path) -> None:
    async with cluster(tmp_path, 3) as made, Listener(made) as listener:
        leader = await until(lambda: made.leader, "a leader")
        await level(made)
        follower = next(group for group in made.groups if group is not leader)
        for group in (leader, follower):
            await ask(group.rpc(), "conductor_overrideLeader", True)
            assert await ask(group.rpc(), "conductor_leaderOverridden") is True
            assert not group.conductor.component.override.in_force
        await streams_on(listener, 12)
        assert not follower.sequences
        for group in (leader, follower):
            await ask(group.rpc(), "conductor_overrideLeader", False)
        await agreed(made, listener)


@pytest.mark.slow
async def test_what_a_majority_cannot_take_in_is_replaced(tmp_path: Path) -> None:
    """The lone conductor dies with what only it had; its execution client is on a chain that nobody else has."""
    async with cluster(tmp_path, 3) as made, Listener(made) as listener:
        alone = await majority_lost(made)
        first = alone.conductor.component.raft.ledger.head_number + 1
        await ask(alone.rpc(), "conductor_overrideLeader", True)
        await streams_on(listener)
        await until(lambda: alone.head > first + 1, "blocks made alone")
        await alone.kill_conductor()
        made_alone = {number: hash_ for hash_, number in alone.boost.numbers.items() if number >= first}
        for group in made.groups:
            if group is not alone:
                group.boost.set_health(206)  # without a builder they end the open block where the majority lost it
        await back(made)
        await until(lambda: made.leader, "a leader")
        await level(made)
        view = made.groups[0].conductor.component.raft.ledger
        assert view.sealed(first).block_hash != made_alone[first]
        on_top = {alone.boost.numbers[hash_]: hash_ for hash_ in alone.boost.chain()}
        assert on_top[first] == view.sealed(first).block_hash


@pytest.mark.slow
async def test_a_group_that_was_alone_restarts_its_conductor_and_is_overridden_again(tmp_path: Path) -> None:
    async with cluster(tmp_path, 3) as made, Listener(made) as listener:
        alone = await majority_lost(made)
        await ask(alone.rpc(), "conductor_overrideLeader", True)
        await streams_on(listener)
        await alone.kill_conductor()
        await alone.start_conductor()
        await ask(alone.rpc(), "conductor_overrideLeader", True)
        began = alone.head
        await until(lambda: alone.head > began + 2, "blocks go on upon those that it has")
        assert listener.violations == []


async def test_a_claim_of_a_majority_ends_the_override_at_once(tmp_path: Path) -> None:
    async with cluster(tmp_path, 3) as made, Listener(made) as listener:
        alone = await majority_lost(made)
        await ask(alone.rpc(), "conductor_overrideLeader", True)
        await streams_on(listener, 5)
        override = alone.conductor.component.override
        override._on_event(Claimed(override.ledger.epoch + 1, "sequencer-9"), False)
        assert not alone.leads and not override.in_force
        assert await ask(alone.rpc(), "conductor_leaderOverridden") is False
        assert await ask(alone.rpc(), "conductor_leader") is False
        await until(lambda: not alone.sequences, "its op-node is stopped")
