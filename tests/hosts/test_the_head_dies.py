"""Ray's head is not on the data path: the stream goes on while its host is dead or cut off, and after it is back."""

import pytest

from chaos.drill import Scene
from chaos.expectation import Expect
from tests.hosts.deployment import Deployment
from tests.hosts.drilling import drilled
from tests.hosts.host_faults import HeadCutOff, HeadKilled

pytestmark = [pytest.mark.hosts, pytest.mark.slow, pytest.mark.timeout(900)]

CUT_OFF_S = 30.0  # as long as Ray's head takes nobody for dead: docs/many-hosts.md
DEAD_S = 20.0


def processes(deployment: Deployment) -> dict[str, int]:
    """Every actor of every group and its pid."""
    return {
        f"{group['name']}/{actor}": entry["pid"]
        for group in deployment.endpoints["groups"]
        for actor, entry in group["actors"].items()
    }


async def test_nobody_notices_that_the_head_is_cut_off(deployment: Deployment) -> None:
    def fault(scene: Scene) -> HeadCutOff:
        return HeadCutOff(deployment, CUT_OFF_S)

    before = processes(deployment)
    result = await drilled(deployment, "head cut off", fault, expect=Expect.UNNOTICED)
    assert result.verdict == "pass", result.violations
    assert processes(deployment) == before


async def test_nobody_notices_that_the_head_is_dead(deployment: Deployment) -> None:
    def fault(scene: Scene) -> HeadKilled:
        return HeadKilled(deployment, DEAD_S)

    before = processes(deployment)
    result = await drilled(deployment, "head killed", fault, expect=Expect.UNNOTICED)
    assert result.verdict == "pass", result.violations
    deployment.await_nodes()
    assert processes(deployment) == before, "the head came back to the same actors"
