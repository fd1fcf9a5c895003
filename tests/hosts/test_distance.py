"""Elections and commits between hosts that are far apart: a leader is found, also where a round trip takes 100 ms."""

import time
from collections.abc import Iterator

import pytest

from tests.hosts.deployment import FIGURES, SEQUENCERS
from tests.hosts.machines import Machines
from tests.hosts.raft_on_hosts import HostedCluster

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(180)]

NEXT_S_MAX = 30.0
KILLS = 3


@pytest.fixture(scope="module")
def five() -> Iterator[Machines]:
    with Machines(SEQUENCERS) as machines:
        yield machines


@pytest.mark.parametrize(
    ("delay_s", "loss"),
    [
        pytest.param(0.0, 0.0, marks=pytest.mark.slow),
        pytest.param(0.005, 0.0, marks=pytest.mark.slow),
        pytest.param(0.05, 0.0, marks=pytest.mark.slow),
        (0.05, 0.01),
    ],
)
async def test_a_leader_is_found_however_far_the_others_are(five: Machines, delay_s: float, loss: float) -> None:
    five.network.heal()
    five.network.slow_everywhere(delay_s, loss)
    async with HostedCluster(five, leads=True) as cluster:
        leader, fact = await cluster.acked_after(0.0, NEXT_S_MAX)
        for _ in range(KILLS):
            killed_at = await cluster.kill(leader)
            successor, fact = await cluster.acked_after(killed_at + 2 * delay_s, NEXT_S_MAX, but=leader)
            gap_ms = (fact["at"] - killed_at) * 1000
            FIGURES.append(f"members {delay_s * 1000:.0f} ms apart, loss {loss}: next commit after {gap_ms:.0f} ms")
            await cluster.start(leader)
            leader = successor
        assert fact["at"] < time.monotonic()
