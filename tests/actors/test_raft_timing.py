"""Raft's time-outs grow with the distance, fit together, and are the measured ones for neighbours."""

from pathlib import Path

import pytest

from actors.plan import ClusterOptions
from actors.raft_timing import ROUND_TRIPS, for_distance, timeouts_s
from raft.settings import RaftSettings


def settings() -> RaftSettings:
    return RaftSettings(
        node_id="a",
        peers={"a": "10.0.0.1:1", "b": "10.0.0.2:1"},
        data_dir=Path("/data"),
        password=bytes(32),
        genesis_number=0,
        genesis_hash=bytes(32),
    )


def test_neighbours_keep_what_was_measured() -> None:
    default = settings()
    assert {name: getattr(default, name) for name in ROUND_TRIPS} == timeouts_s(0)


@pytest.mark.parametrize("round_trip_ms", [0, 1, 10, 100, 300, 1000])
def test_they_fit_together_at_every_distance(round_trip_ms: int) -> None:
    found = for_distance(settings(), round_trip_ms)  # which checks them
    assert found.raft_min_timeout_s > 2 * round_trip_ms / 1000
    assert found.election_stagger_s >= 2 * round_trip_ms / 1000


def test_at_a_hundred_milliseconds() -> None:
    assert timeouts_s(100)["raft_min_timeout_s"] == 0.5
    assert timeouts_s(100)["raft_max_timeout_s"] == 0.7
    assert ClusterOptions().round_trip_ms == 0
