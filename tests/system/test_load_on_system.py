"""Load on a whole cluster: a burst, and a steady rate – in seconds here, for twenty minutes behind `soak`."""

import json
import os
import subprocess
from typing import Any

import pytest

from tests.system.running import FLASHBLOCKS, NAME, Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

SOAK_S = 20 * 60
SOAK_GRACE_S = 120
MIX = ("--mix", "transfer,erc20")


def load(cluster: Cluster, *words: str, timeout_s: float) -> dict[str, Any]:
    environment = {**os.environ, "FLASHBLOCKS_RUN_ROOT": str(cluster.root)}
    command = [FLASHBLOCKS, "load", "--name", NAME, *MIX, *words, "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout_s, check=False)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    report: dict[str, Any] = json.loads(done.stdout)
    print(json.dumps(report))
    return report


def assert_nothing_lost(report: dict[str, Any], count: int) -> None:
    assert report["due"] == report["sent"] == report["sealed"] == count, report
    assert report["refused"] == report["unknown"] == report["not_sent_in_time"] == 0, report


def test_a_burst_of_a_thousand_is_taken_in_and_sealed_whole(cluster: Cluster) -> None:
    assert_nothing_lost(load(cluster, "--burst", "1000", timeout_s=200), 1000)


@pytest.mark.parametrize(
    ("tps", "seconds"),
    [
        (100, 8),
        pytest.param(200, SOAK_S, marks=[pytest.mark.soak, pytest.mark.timeout(SOAK_S + 3 * SOAK_GRACE_S)], id="soak"),
    ],
)
def test_a_steady_rate_is_sealed_whole(cluster: Cluster, tps: int, seconds: int) -> None:
    report = load(cluster, "--tps", str(tps), "--duration", str(seconds), timeout_s=seconds + SOAK_GRACE_S)
    assert_nothing_lost(report, tps * seconds)
