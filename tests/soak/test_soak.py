"""Random faults on a whole cluster: twenty minutes of them, or a few where FLASHBLOCKS_SOAK_FAULTS says how many."""

import asyncio
import os
from pathlib import Path

import pytest

from chaos.own_cluster import cluster
from chaos.runner import Options
from chaos.soak import COUNT_DEFAULT, soak, table
from chaos.target import Target

FAULTS = int(os.environ.get("FLASHBLOCKS_SOAK_FAULTS", COUNT_DEFAULT))
SEED = int(os.environ.get("FLASHBLOCKS_SOAK_SEED", "1"))
FAULT_S_MAX = 60
START_S = 300
GROWTH_MIB_PER_HOUR_MAX = 400.0
GROWTH_WATCHED_S_MIN = 300.0
DESCRIPTORS_GROWN_MAX = 100

pytestmark = [pytest.mark.soak, pytest.mark.timeout(START_S + FAULTS * FAULT_S_MAX)]


def test_random_faults_break_no_promise_and_nothing_grows_without_end(monkeypatch):
    root = Path(f"/tmp/fb-soak-{os.getpid()}")  # short: Ray's socket paths end at 107 bytes
    monkeypatch.setenv("FLASHBLOCKS_RUN_ROOT", str(root))
    root.mkdir(mode=0o700)
    with cluster(None, print) as directory:
        soaked, _ = asyncio.run(soak(Target(directory.endpoints), Options(count=FAULTS, seed=SEED, tps=10.0), print))
    print(table(soaked))
    assert soaked.result.violations == []
    assert soaked.result.kills == FAULTS
    watched = [one for one in soaked.growth if one.lived_s >= GROWTH_WATCHED_S_MIN]
    assert not [one for one in watched if one.mib_per_hour > GROWTH_MIB_PER_HOUR_MAX]
    assert not [one for one in soaked.growth if one.descriptors_last - one.descriptors_warm > DESCRIPTORS_GROWN_MAX]
