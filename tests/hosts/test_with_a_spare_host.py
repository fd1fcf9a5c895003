"""A host that will not come back is replaced by another, as documented. Runs last: it changes who is where."""

import asyncio
import shutil
import time

import pytest

from actors.ray_guard import RUNNING
from chaos.target import Target
from tests.clients.first_transaction import first_transactions
from tests.hosts.deployment import HEAD, NAME, SEQUENCERS, SPARE, Deployment
from tests.hosts.listening import listening
from tests.hosts.machine import HOME, SSH_PORT, Machine

pytestmark = [pytest.mark.hosts, pytest.mark.slow, pytest.mark.timeout(900)]

LEVEL_S_MAX = 240.0
REPLACED_S_MAX = 500.0


async def restart_the_head(deployment: Deployment) -> None:
    """Ray's launcher on the head read the list of hosts when it began."""
    head = deployment.machines[HEAD]
    head.run("flashblocks", "ray", "restart", check=False)  # on a busy machine Ray gives up, and its guard does not
    await runs_ray(head)


async def runs_ray(machine: Machine) -> None:
    """Wait until a guard says that Ray runs there."""
    lock = machine.file(f"{HOME}/.flashblocks/ray-{machine.address}.lock")
    deadline = time.monotonic() + LEVEL_S_MAX
    while not (lock.exists() and RUNNING in lock.read_text()):
        assert time.monotonic() < deadline, f"Ray does not run on {machine.name}"
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
        await restart_the_head(deployment)
        await runs_ray(spare)
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


async def test_another_host_takes_the_place_of_the_keepers(deployment: Deployment) -> None:
    machines = deployment.machines
    head, gone = machines[HEAD], machines[deployment.edge]
    groups = {deployment.host_of(group["name"]).name for group in deployment.endpoints["groups"]}
    new = next(machines[name] for name in (*SEQUENCERS, SPARE) if name not in groups)  # the other test left it free
    gone.kill()
    if not new.is_up:
        shutil.rmtree(new.file(f"{HOME}/.flashblocks"))
        new.boot()
    deployment.announce(gone.address, new.address)
    await restart_the_head(deployment)
    await runs_ray(new)
    words = ("flashblocks", "replace-host", "--name", NAME, "--address", "auto", gone.address, new.address)
    head.run(*words, timeout_s=REPLACED_S_MAX)
    deployment.edge = new.name
    assert deployment.endpoints["rpc"]["http"] == f"http://{new.address}:8545"
    target = Target(deployment.endpoints_path)
    try:
        await target.wait_for_leader(LEVEL_S_MAX)
    finally:
        await target.close()
    assert first_transactions(deployment.endpoints["rpc"]["http"], count=5)["transfers"] == 5
