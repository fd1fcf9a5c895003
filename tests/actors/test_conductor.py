import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from actors.rpc_client import RpcClient, RpcRefused
from tests.actors.group_under_test import Cluster, Group, Listener, cluster, until


async def test_one_group_makes_blocks_out_of_flashblocks(tmp_path: Path) -> None:
    async with cluster(tmp_path) as made:
        group = made.groups[0]
        raft = group.conductor.component.raft
        await until(
            lambda: any(len(block.entries) > 3 for block in raft.ledger.sealed_blocks), "a block of flashblocks"
        )
        block = next(block for block in raft.ledger.sealed_blocks if len(block.entries) > 3)
        assert not block.fallback
        await until(lambda: block.block_hash in group.boost.numbers, "the sealed block is inserted")
        assert group.boost.numbers[block.block_hash] == block.number


async def test_without_a_builder_blocks_go_on(tmp_path: Path) -> None:
    async with cluster(tmp_path) as made:
        group = made.groups[0]
        await until(lambda: group.head >= 1, "a block")
        group.boost.set_health(206)
        sealed = group.head
        await until(lambda: group.head >= sealed + 3, "blocks without flashblocks")
        assert group.conductor.component.raft.ledger.sealed(group.head).fallback


async def level(made: Cluster) -> None:
    """Every op-node has the same head, and it moves."""
    start = max(group.head for group in made.groups)
    await until(lambda: all(group.head >= start + 2 for group in made.groups), "every group follows")


async def leader_of(made: Cluster) -> Group:
    return await until(lambda: made.leader, "a leader")


async def changed(made: Cluster, old: Group) -> Group:
    return await until(lambda: made.leader if made.leader is not old else None, "another leader")


async def goes_on(listener: Listener) -> None:
    seen = len(listener.order)
    await until(lambda: len(listener.order) > seen + 2, "the stream goes on")


async def back(group: Group) -> None:
    await until(lambda: group.conductor.component.raft.caught_up, "the killed one is back")


async def check(made: Cluster, listener: Listener) -> None:
    seen = len(listener.order)
    await until(lambda: len(listener.order) > seen + 3, "the stream goes on")
    await level(made)
    assert listener.violations == []
    assert listener.lost(made) == []


async def test_a_planned_transfer_loses_nothing(tmp_path: Path) -> None:
    async with cluster(tmp_path, 3) as made, Listener(made) as listener:
        await until(lambda: len(listener.order) > 5, "flashblocks")
        for _ in range(2):
            leader = await leader_of(made)
            began = time.monotonic()
            rpc = leader.rpc()
            await rpc.call("conductor_transferLeader")
            await rpc.close()
            await changed(made, leader)
            await goes_on(listener)
            print("planned transfer, longest gap", round(listener.longest_gap_s(began), 3))
        await check(made, listener)


async def test_the_death_of_the_leaders_conductor_loses_nothing(tmp_path: Path) -> None:
    async with cluster(tmp_path, 3) as made, Listener(made) as listener:
        await until(lambda: len(listener.order) > 5, "flashblocks")
        for _ in range(2):
            leader = await leader_of(made)
            began = time.monotonic()
            await leader.kill_conductor()
            await changed(made, leader)
            await goes_on(listener)
            print("conductor killed, longest gap", round(listener.longest_gap_s(began), 3))
            await leader.start_conductor()
            await back(leader)
        await check(made, listener)


async def test_the_death_of_the_leaders_op_node_hands_leadership_on(tmp_path: Path) -> None:
    async with cluster(tmp_path, 3) as made, Listener(made) as listener:
        await until(lambda: len(listener.order) > 5, "flashblocks")
        leader = await leader_of(made)
        began = time.monotonic()
        await leader.kill_op_node()
        await changed(made, leader)
        await goes_on(listener)
        print("op-node killed, longest gap", round(listener.longest_gap_s(began), 3))
        await leader.start_op_node()
        await check(made, listener)


@pytest.mark.parametrize("status", [206, 503])
async def test_a_leader_whose_rollup_boost_is_not_well_hands_leadership_on(tmp_path: Path, status: int) -> None:
    async with cluster(tmp_path, 3) as made, Listener(made) as listener:
        await until(lambda: len(listener.order) > 5, "flashblocks")
        leader = await leader_of(made)
        leader.boost.set_health(status)
        await changed(made, leader)
        leader.boost.set_health(200)
        await check(made, listener)


async def test_a_follower_that_was_away_catches_up_over_any_gap(tmp_path: Path) -> None:
    async with cluster(tmp_path, 3) as made, Listener(made) as listener:
        leader = await leader_of(made)
        away = next(group for group in made.groups if group is not leader)
        await until(lambda: leader.head >= 2, "blocks")
        await away.conductor.stop()
        away.conductor = None
        await away.kill_op_node()
        left = leader.head
        await until(lambda: leader.head >= left + 4, "blocks without it")
        await away.start_op_node()
        await away.start_conductor()
        await check(made, listener)


async def test_all_conductors_restart_and_the_chain_goes_on(tmp_path: Path) -> None:
    async with cluster(tmp_path, 3) as made, Listener(made) as listener:
        await until(lambda: len(listener.order) > 15, "flashblocks")
        for group in made.groups:
            await group.kill_conductor()
        for group in made.groups:
            await group.start_conductor()
        await check(made, listener)


async def test_the_stream_stops_without_a_majority_and_resumes_with_it(tmp_path: Path) -> None:
    async with cluster(tmp_path, 3) as made, Listener(made) as listener:
        leader = await leader_of(made)
        await until(lambda: len(listener.order) > 5, "flashblocks")
        others = [group for group in made.groups if group is not leader]
        for group in others:
            await group.kill_conductor()
        await until(lambda: not leader.leads, "the isolated leader steps down")
        await until(lambda: not leader.sequences, "its sequencer is stopped")
        seen = len(listener.order)
        for group in others:
            await group.start_conductor()
        await until(lambda: len(listener.order) > seen + 5, "the stream resumes")
        await check(made, listener)


@asynccontextmanager
async def operator(group: Group) -> AsyncIterator[RpcClient]:
    """A connection to the group's conductor."""
    rpc = group.rpc()
    try:
        yield rpc
    finally:
        await rpc.close()


async def ask_the_operators_rpc(made: Cluster, leader: Group, follower: Group) -> None:
    async with operator(leader) as at_leader, operator(follower) as at_follower:
        await at_follower.call("conductor_overrideLeader", False)
        assert await at_leader.call("conductor_leader") is True
        assert await at_follower.call("conductor_leader") is False
        assert await at_follower.call("conductor_leaderWithID") == {
            "id": leader.name,
            "addr": leader.settings.raft_peers[leader.name],
            "suffrage": 0,
        }
        membership = await at_follower.call("conductor_clusterMembership")
        assert [server["id"] for server in membership["servers"]] == [group.name for group in made.groups]
        assert {server["suffrage"] for server in membership["servers"]} == {0}
        for method, expected in [
            ("conductor_active", True),
            ("conductor_paused", False),
            ("conductor_stopped", False),
            ("conductor_sequencerHealthy", True),
            ("conductor_leaderOverridden", False),
        ]:
            assert await at_leader.call(method) is expected, method
        assert (await at_leader.call("optimism_syncStatus"))["unsafe_l2"]["number"] > 0
        assert await at_leader.call("admin_sequencerActive") is True
        assert (await at_leader.call("eth_getBlockByNumber", "latest", False))["number"] != "0x0"
        for method, params in [("optimism_syncStatus", ()), ("eth_getBlockByNumber", ("latest", False))]:
            with pytest.raises(RpcRefused, match="refusing to proxy request to non-leader sequencer"):
                await at_follower.call(method, *params)
        with pytest.raises(RpcRefused, match="node is not the leader"):
            await at_follower.call("conductor_transferLeaderToServer", leader.name, "")
        with pytest.raises(RpcRefused, match="transfer leadership first"):
            await at_leader.call("conductor_removeServer", leader.name, 0)
        with pytest.raises(RpcRefused, match="node is not the leader"):
            await at_follower.call("conductor_removeServer", leader.name, 0)
        with pytest.raises(RpcRefused, match="configuration changed since"):
            await at_leader.call("conductor_removeServer", follower.name, 7)
        with pytest.raises(RpcRefused, match="failed to dial server"):
            await at_leader.call("conductor_addServerAsVoter", "sequencer-9", "127.0.0.1:1", 0)
        await at_follower.call("conductor_overrideLeader", True)
        assert await at_follower.call("conductor_leader") is True
        assert (await at_follower.call("conductor_leaderWithID"))["id"] == "N/A (Leader overridden)"
        await at_follower.call("conductor_overrideLeader", False)
        await at_leader.call(
            "conductor_transferLeaderToServer", follower.name, follower.settings.raft_peers[follower.name]
        )
        await until(lambda: follower.leads and follower.sequences, "the chosen one leads")


async def test_the_operators_rpc_has_upstreams_names_and_shapes(tmp_path: Path) -> None:
    async with cluster(tmp_path, 3) as made:
        for _ in range(5):  # a leader that is lost meanwhile, on a busy machine, makes the answers others
            leader = await leader_of(made)
            follower = next(group for group in made.groups if group is not leader)
            await level(made)
            epoch = leader.conductor.component.stream.publisher.epoch
            try:
                await ask_the_operators_rpc(made, leader, follower)
            except (AssertionError, RpcRefused, pytest.fail.Exception):
                if leader.conductor.component.stream.publisher.epoch == epoch:
                    raise
            else:
                return
        pytest.fail("no leader stayed for as long as the questions take")


async def test_leadership_given_to_a_paused_conductor_is_handed_on(tmp_path: Path) -> None:
    async with cluster(tmp_path, 3) as made, Listener(made) as listener:
        leader = await leader_of(made)
        await level(made)
        paused = next(group for group in made.groups if group is not leader)
        async with operator(leader) as at_leader, operator(paused) as at_paused:
            await at_paused.call("conductor_pause")
            await at_leader.call(
                "conductor_transferLeaderToServer", paused.name, paused.settings.raft_peers[paused.name]
            )
            await until(lambda: made.leader not in (None, paused), "somebody who may act leads")
            await check(made, listener)
            await at_paused.call("conductor_resume")


async def test_no_leadership_is_given_where_everybody_is_paused_and_it_waits_for_who_is_resumed(tmp_path: Path) -> None:
    async with cluster(tmp_path, 3) as made, Listener(made) as listener:
        leader = await leader_of(made)
        await level(made)
        others = [group for group in made.groups if group is not leader]
        async with AsyncExitStack() as stack:
            at_leader, *at_others = [await stack.enter_async_context(operator(each)) for each in (leader, *others)]
            for each in at_others:
                await each.call("conductor_pause")
            await until(lambda: leader.conductor.component.nobody_fit, "the leader knows")
            with pytest.raises(RpcRefused, match="no other member is fit to lead"):
                await at_leader.call("conductor_transferLeader")
            await goes_on(listener)
            await leader.kill_conductor()
            await until(lambda: any(group.leads for group in others), "one of those that are paused is elected")
            waiting = next(group for group in others if not group.leads)
            await at_others[others.index(waiting)].call("conductor_resume")
            await until(lambda: made.leader is waiting, "the resumed one leads")
            await leader.start_conductor()
            await check(made, listener)


async def test_a_paused_conductor_leaves_its_op_node_alone(tmp_path: Path) -> None:
    async with cluster(tmp_path) as made:
        group = made.groups[0]
        await leader_of(made)
        rpc, op_node = group.rpc(), group.op_node_rpc()
        await rpc.call("conductor_pause")
        await op_node.call("admin_stopSequencer")
        assert await rpc.call("conductor_active") is False
        stopped_at = group.head
        await until(lambda: not group.conductor.component.control.active, "the conductor knows")
        assert not group.sequences
        await rpc.call("conductor_resume")
        await until(lambda: group.head > stopped_at, "it goes on after resume")
        await rpc.close()
        await op_node.close()


async def test_what_is_not_the_open_block_is_refused_as_a_prefix_mismatch(tmp_path: Path) -> None:
    async with cluster(tmp_path) as made:
        group = made.groups[0]
        conductor = group.conductor.component
        await until(lambda: conductor.raft.ledger.open is not None, "an open block")
        build = group.boost.builds[conductor.raft.ledger.open.payload_id]
        rpc = group.rpc()
        with pytest.raises(RpcRefused, match=r"^prefix mismatch"):
            await rpc.call("conductor_commitUnsafePayload", build.fallback().to_json())
        await rpc.close()
        await until(lambda: group.head >= build.number, "the block is sealed all the same")


async def test_a_listener_may_ask_for_what_it_missed(tmp_path: Path) -> None:
    from actors.frame_link import FrameClient

    async with cluster(tmp_path) as made:
        group = made.groups[0]
        await until(lambda: group.head >= 3, "blocks")
        frames = []
        client = FrameClient(made.url(0, "?from=2.1"), frames.append)
        await client.start()
        await until(lambda: len(frames) > 15, "frames")
        await client.close()
        keys = [frame.key for frame in frames]
        assert keys[0] == (2, 1)
        assert keys == sorted(set(keys))
