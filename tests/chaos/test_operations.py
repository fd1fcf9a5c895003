"""What operators do by hand, done to real conductors, and undone however the drill ends."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from chaos.operations import HandedToPaused, Paused
from chaos.target import DrillError, Target
from tests.actors.group_under_test import Cluster, Group, cluster, until


@asynccontextmanager
async def closed(target: Target) -> AsyncIterator[None]:
    """Its connections are closed in the end."""
    try:
        yield
    finally:
        await target.close()


def known(made: Cluster, group: Group) -> dict[str, Any]:
    """The group as endpoints.json has it."""
    url = f"http://127.0.0.1:{made.rpc_ports[group.index]}"
    return {"name": group.name, "actors": {"conductor": {"rpc": url, "pid": os.getpid()}}}


async def test_a_paused_conductor_is_resumed_also_when_the_drill_is_given_up(tmp_path: Path, target: Target) -> None:
    async with closed(target), cluster(tmp_path) as made:
        (group,) = made.groups
        fault = Paused(target, [known(made, group)])
        await fault.prepare()
        assert group.conductor.component.control.paused
        await asyncio.to_thread(fault.abandon)  # it does not give way to the conductor's loop, which is ours here
        assert not group.conductor.component.control.paused
        await asyncio.to_thread(fault.abandon)


async def test_leadership_is_handed_to_the_paused_one_and_goes_on_from_there(tmp_path: Path, target: Target) -> None:
    async with closed(target), cluster(tmp_path, 3) as made:
        leader = await until(lambda: made.leader, "a leader")
        chosen = next(group for group in made.groups if group is not leader)
        epoch = leader.conductor.component.raft.ledger.epoch
        fault = HandedToPaused(target, known(made, leader), known(made, chosen))
        await fault.prepare()
        await fault.inject()
        await until(lambda: made.leader not in (None, chosen) and made.leader.conductor, "somebody who may act leads")
        assert made.leader.conductor.component.raft.ledger.epoch >= epoch + 2, "the paused one had it in between"
        await asyncio.to_thread(fault.abandon)


async def test_a_refused_call_is_said(tmp_path: Path, target: Target) -> None:
    async with closed(target), cluster(tmp_path, 3) as made:
        leader = await until(lambda: made.leader, "a leader")
        follower = next(group for group in made.groups if group is not leader)
        fault = HandedToPaused(target, known(made, follower), known(made, leader))
        with pytest.raises(
            DrillError, match=f"{follower.name}/conductor refuses conductor_transferLeaderToServer: node"
        ):
            await fault.inject()
