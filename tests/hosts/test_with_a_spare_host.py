"""A host that will not come back is replaced by another, as documented. Runs last: it changes who is where."""

import shutil

import pytest

from chaos.target import Target
from tests.clients.first_transaction import first_transactions
from tests.hosts.deployment import HEAD, NAME, OPERATOR, SPARE, Deployment
from tests.hosts.listening import listening
from tests.hosts.machine import HOME, SSH_PORT

pytestmark = [pytest.mark.hosts, pytest.mark.slow, pytest.mark.timeout(900)]

LEVEL_S_MAX = 240.0


async def test_another_host_takes_the_place_of_one_that_is_gone(deployment: Deployment) -> None:
    machines = deployment.machines
    target = Target(deployment.endpoints_path)
    try:
        leader, _ = await target.wait_for_leader(LEVEL_S_MAX)
        group = next(each["name"] for each in target.groups() if each["name"] != leader["name"])
        lost, spare = deployment.host_of(group), machines[SPARE]
        lost.kill()
        token = spare.file(f"{HOME}/.ray/auth_token")
        token.parent.mkdir(mode=0o700)
        shutil.copy(machines[OPERATOR].file(f"{HOME}/.ray/auth_token"), token)
        spare.run("flashblocks", "ray", "start", "--head-address", machines.address(HEAD))
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
