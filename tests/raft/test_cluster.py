"""Five members as real processes under load: killed, paused, restarted. Nothing acknowledged is ever lost."""

import asyncio
import signal
import time

import pytest

from raft.local_cluster import LocalCluster
from raft.member import Load

LOAD = Load(body_bytes=10_000, interval_s=0.02, leads=True)
QUIET = Load(body_bytes=10_000, interval_s=0.02, leads=False)
COMMIT_TIMEOUT_S = 15.0

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]


def assert_all_acknowledged(cluster: LocalCluster, ledger: dict) -> None:
    """Every flashblock that any member ever acknowledged is in the ledger, with the acknowledged digest."""
    kept = {(number, index): digest for number, index, digest in ledger["flashblocks"]}
    for name, fact in cluster.acked:
        number, index, digest, _ = fact["acked"]
        assert kept.get((number, index)) == digest, (name, fact)
    assert len(cluster.acked) > 0


def assert_one_owner_per_flashblock(cluster: LocalCluster) -> None:
    acknowledged = [tuple(fact["acked"][:2]) for _, fact in cluster.acked]
    assert len(acknowledged) == len(set(acknowledged))


async def settle(cluster: LocalCluster) -> dict:
    """Stop the load and wait until all members agree."""
    await cluster.set_load(QUIET)
    await asyncio.sleep(0.1)
    return (await cluster.level(COMMIT_TIMEOUT_S))[0]


async def test_kill_9_of_the_leader_under_load_loses_nothing_acknowledged(tmp_path, capsys):
    gaps_ms = []
    async with LocalCluster(tmp_path, interval_s=LOAD.interval_s) as cluster:
        await cluster.acked_after(0.0, COMMIT_TIMEOUT_S)
        for _ in range(4):
            leader = cluster.acked[-1][0]
            before = len(cluster.acked)
            killed_at = await cluster.kill(leader)
            successor, fact = await cluster.acked_after(killed_at, COMMIT_TIMEOUT_S, but=leader)
            assert successor != leader
            gaps_ms.append(round((fact["at"] - killed_at) * 1000, 1))
            await cluster.start(leader)
            await cluster.acked_after(cluster.acked[-1][1]["at"], COMMIT_TIMEOUT_S)
            assert len(cluster.acked) > before
        ledger = await settle(cluster)
        assert_all_acknowledged(cluster, ledger)
        assert_one_owner_per_flashblock(cluster)
        replayed = [fact for member in cluster.members.values() for fact in member.facts if fact.get("replayed")]
        assert replayed, "a restarted member must have replayed its journal"
    with capsys.disabled():
        print(f"\nkill -9 of the leader → next acknowledged flashblock, ms: {gaps_ms}")


async def test_a_paused_leader_commits_nothing_once_it_wakes(tmp_path, capsys):
    async with LocalCluster(tmp_path, interval_s=LOAD.interval_s) as cluster:
        await cluster.acked_after(0.0, COMMIT_TIMEOUT_S)
        leader = cluster.acked[-1][0]
        stale_epoch = cluster.acked[-1][1]["acked"][3]
        paused, paused_at = cluster.members[leader], time.monotonic()
        paused.signal(signal.SIGSTOP)
        try:
            successor, fact = await cluster.acked_after(cluster.acked[-1][1]["at"], COMMIT_TIMEOUT_S, but=leader)
            taken_over_at, new_epoch = fact["at"], fact["acked"][3]
            assert successor != leader
            assert new_epoch > stale_epoch
        finally:
            paused.signal(signal.SIGCONT)
        await cluster.acked_after(taken_over_at + 1.0, COMMIT_TIMEOUT_S)
        ledger = await settle(cluster)
        assert_all_acknowledged(cluster, ledger)
        assert_one_owner_per_flashblock(cluster)
        stale = [what for who, what in cluster.acked if what["acked"][3] == stale_epoch and what["at"] > taken_over_at]
        assert stale == []
    with capsys.disabled():
        print(f"\nSIGSTOP of the leader → next acknowledged flashblock: {(taken_over_at - paused_at) * 1000:.0f} ms")


async def test_without_a_majority_nothing_is_acknowledged_and_with_one_again_all_goes_on(tmp_path):
    async with LocalCluster(tmp_path, interval_s=LOAD.interval_s) as cluster:
        await cluster.acked_after(0.0, COMMIT_TIMEOUT_S)
        leader = cluster.acked[-1][0]
        down = [name for name in cluster.peers if name != leader][:3]
        moments = [await cluster.kill(name) for name in down]
        await asyncio.sleep(1.0)
        count = len(cluster.acked)
        await asyncio.sleep(0.5)
        assert len(cluster.acked) == count
        await asyncio.gather(*(cluster.start(name) for name in down))
        await cluster.acked_after(max(moments) + 1.0, COMMIT_TIMEOUT_S)
        ledger = await settle(cluster)
        assert_all_acknowledged(cluster, ledger)


async def test_all_five_killed_at_once_come_back_with_everything(tmp_path):
    async with LocalCluster(tmp_path, interval_s=LOAD.interval_s) as cluster:
        await cluster.acked_after(0.0, COMMIT_TIMEOUT_S)
        await cluster.acked_after(cluster.acked[-1][1]["at"] + 0.5, COMMIT_TIMEOUT_S)
        for member in cluster.members.values():
            member.signal(signal.SIGKILL)
        killed_at = max([await cluster.kill(name) for name in list(cluster.members)])
        await asyncio.gather(*(cluster.start(name) for name in cluster.peers))
        await cluster.acked_after(killed_at, COMMIT_TIMEOUT_S)
        ledger = await settle(cluster)
        assert_all_acknowledged(cluster, ledger)
        assert_one_owner_per_flashblock(cluster)
