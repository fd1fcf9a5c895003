"""A host that will not come back is replaced by another, as documented. Runs last: it changes who is where."""

import asyncio
import time

import pytest

from actors.ray_guard import RUNNING
from chaos.target import Target
from tests.clients.first_transaction import first_transactions
from tests.hosts.deployment import HEAD, NAME, SPARE, Deployment
from tests.hosts.listening import listening
from tests.hosts.machine import HOME, SSH_PORT, Machine

pytestmark = [pytest.mark.hosts, pytest.mark.slow, pytest.mark.timeout(900)]

LEVEL_S_MAX = 240.0


async def spare_runs_ray(spare: Machine) -> None:
    """Wait until a guard says that Ray runs there."""
    lock = spare.file(f"{HOME}/.flashblocks/ray-{spare.address}.lock")
    deadline = time.monotonic() + LEVEL_S_MAX
    while not (lock.exists() and RUNNING in lock.read_text()):
        assert time.monotonic() < deadline, "the launcher did not start Ray on the spare host"
        await asyncio.sleep(1.0)


async def test_another_host_takes_the_place_of_one_that_is_gone(deployment: Deployment) -> None:
    machines = deployment.machines
    target = Target(deployment.endpoints_path)
    try:
        leader, _ = await target.wait_for_leader(LEVEL_S_MAX)
        group = next(each["name"] for each in target.groups() if each["name"] != leader["name"])
        lost, spare = deployment.host_of(group), machines[SPARE]
        lost.kill()
        deployment.announce(lost.address, spare.address)  # the launcher brings package, token and Ray to the new host
        machines[HEAD].run("flashblocks", "ray", "restart")  # it read the list of hosts when it began
        await spare_runs_ray(spare)
        # With the address, as the head has lost the cluster's files when another test booted it.
        words = ("flashblocks", "replace-host", "--name", NAME, "--address", "auto", lost.address, spare.address)
        machines[HEAD].run(*words)
        for actor in ("conductor", "op-node", "rollup-boost", "builder", "fallback-el"):
            await target.wait_for_actor(group, actor, 0, LEVEL_S_MAX)
    finally:
        await target.close()
    assert deployment.host_of(group).name == SPARE
    assert {(spare.address, 5050), (spare.address, 8546)} <= set(listening(spare)) - {(spare.address, SSH_PORT)}
    assert first_transactions(deployment.endpoints["rpc"]["http"], count=5)["transfers"] == 5
