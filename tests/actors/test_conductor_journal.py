"""A full disk under one conductor: the others go on, it waits for room, and comes back without having ended."""

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog

from actors.conductor import Conductor
from chaos.disk import fill
from raft.node import Transferred
from tests.actors.group_under_test import Cluster, Group, Listener, cluster, until

DISK_BYTES = 160 * 1024 * 1024  # a segment, what must remain free, and some room
RAFT_S_MAX = 20.0


@contextlib.contextmanager
def small_disk(path: Path) -> Iterator[None]:
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(path)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


async def leads(made: Cluster) -> Group:
    return await until(lambda: made.leader, "a leader")


def goes_on(listener: Listener) -> Callable[[], bool]:
    published = len(listener.order)
    return lambda: len(listener.order) > published + 5


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_a_leader_whose_disk_is_full_lets_others_lead_and_comes_back_when_there_is_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "sequencer-0"):
        async with cluster(tmp_path, 3) as made, Listener(made) as listener:
            victim = made.groups[0]
            await until(lambda: all(group.conductor.component.raft.caught_up for group in made.groups))
            first = await leads(made)
            if first is not victim:
                moved = await first.conductor.component.raft.transfer_leadership(victim.name, RAFT_S_MAX)
                assert isinstance(moved, Transferred)
            await until(lambda: victim.leads and victim.sequences, "the victim leads")
            ballast = tmp_path / "sequencer-0" / "ballast"
            fill(ballast)
            conductor = victim.conductor.component
            assert await conductor.transfer(None)  # its successor's term is what it has no room for
            await until(lambda: conductor.raft.disk_full, "the full disk is noticed")
            await until(lambda: not victim.sequences, "the group whose disk is full does not sequence")
            await until(lambda: made.leader is not None and made.leader is not victim, "another one leads")
            await until(goes_on(listener), "the stream goes on")
            assert not victim.conductor.task.done()
            assert conductor.status()["raft"]["role"] == "stopped"
            ballast.unlink()
            await until(lambda: conductor.raft.caught_up, "it is back")
            assert conductor.raft.fault is None
            await until(goes_on(listener), "the stream goes on")
            assert listener.violations == []


@pytest.mark.timeout(60)
async def test_a_conductor_that_finds_a_full_disk_serves_and_says_what_to_do(tmp_path: Path) -> None:
    made = Cluster(tmp_path, 1)
    with small_disk(tmp_path / "sequencer-0"):
        ballast = tmp_path / "sequencer-0" / "ballast"
        fill(ballast)
        group = made.groups[0]
        with structlog.testing.capture_logs() as logged:
            group.log = structlog.get_logger()
            await group.start_conductor()
            try:
                await until(lambda: any(each["event"].startswith("disk full: free some space") for each in logged))
                said = next(each for each in logged if each["event"].startswith("disk full"))
                assert str(tmp_path / "sequencer-0" / "raft") in said["event"]
                assert said["free_bytes"] < said["needed_bytes"]
                assert not any("exc_info" in each for each in logged)
                rpc = group.rpc()
                assert await rpc.call("conductor_leader") is False
                await rpc.close()
                ballast.unlink()
                await until(lambda: group.conductor.component.raft.is_leader, "it leads")
            finally:
                await group.conductor.stop()


@pytest.mark.parametrize("wanted", [True, False])
def test_the_setting_reaches_the_journal(wanted: bool, tmp_path: Path) -> None:
    group = Cluster(tmp_path, 1).groups[0]
    settings = {name: getattr(group.settings, name) for name in group.settings.__struct_fields__}
    conductor = Conductor(type(group.settings)(**{**settings, "raft_fsync": wanted}), group.log)
    assert conductor._raft_settings().fsync is wanted
