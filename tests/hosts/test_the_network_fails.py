"""The leader's host is cut off, wholly or in one direction; half the hosts are slow and lossy: no promise is broken."""

import pytest

from chaos.drill import Scene
from chaos.expectation import Expect
from tests.hosts.deployment import Deployment
from tests.hosts.drilling import drilled
from tests.hosts.host_faults import KilledThere, Partitioned, Slowed

pytestmark = [pytest.mark.hosts, pytest.mark.slow, pytest.mark.timeout(900)]

SHORT_S = 5.0  # Ray does not notice
LONG_S = 75.0  # Ray takes the host for dead and, when it is back, ends what runs there: docs/many-hosts.md
LOSSY_S = 15.0


@pytest.mark.parametrize(
    ("name", "deaf", "mute", "hold_s"),
    [
        ("cut off", True, True, SHORT_S),
        ("deaf", True, False, SHORT_S),
        ("mute", False, True, SHORT_S),
        ("cut off", True, True, LONG_S),
    ],
)
async def test_the_leaders_host_is_cut_off(
    deployment: Deployment, name: str, deaf: bool, mute: bool, hold_s: float
) -> None:
    def fault(scene: Scene) -> Partitioned:
        return Partitioned(deployment, scene, scene.leader, deaf=deaf, mute=mute, hold_s=hold_s)

    result = await drilled(deployment, f"leader's host {name} for {hold_s:.0f} s", fault)
    assert result.verdict == "pass", result.violations
    assert result.runs[0].leader != result.runs[0].new_leader


@pytest.mark.parametrize("leader_is_far", [True, False])
async def test_half_the_hosts_are_far_away_and_lose_one_frame_in_a_hundred(
    deployment: Deployment, leader_is_far: bool
) -> None:
    def fault(scene: Scene) -> Slowed:
        groups = [scene.leader, scene.followers[0]] if leader_is_far else scene.followers[:2]
        far = [deployment.host_of(group["name"]).name for group in groups]
        return Slowed(deployment, far, delay_s=0.05, loss=0.01, hold_s=LOSSY_S)

    result = await drilled(deployment, f"far away, leader {leader_is_far}", fault, expect=Expect.GOES_ON)
    assert result.verdict == "pass", result.violations


async def test_the_leader_is_killed_while_all_hosts_are_far_apart(deployment: Deployment) -> None:
    def fault(scene: Scene) -> KilledThere:
        return KilledThere(deployment, scene, scene.leader, ["conductor"])

    network = deployment.machines.network
    network.slow_everywhere(0.05)
    try:
        result = await drilled(deployment, "leader killed, all 50 ms apart", fault, count=2)
    finally:
        network.heal()
    assert result.verdict == "pass", result.violations
    assert all(run.leader != run.new_leader for run in result.runs)
