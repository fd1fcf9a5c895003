"""The gate: the product through hundreds of random schedules, the same every time."""

import os
import subprocess
import sys
from collections import Counter

import msgspec
import pytest

from chaos.history import Fault
from chaos.simulation import schedule as faults
from chaos.simulation.cli import outcome_of
from chaos.simulation.world import Options, Shape, simulate

GATE_SEEDS = 180
SEEDS_PER_TEST = 30
MANY_SEEDS = 5000

encode = msgspec.json.Encoder().encode


@pytest.mark.parametrize("first", range(0, GATE_SEEDS, SEEDS_PER_TEST))
def test_every_promise_is_kept_whatever_the_schedule(first):
    outcomes = [outcome_of((seed, tuple(faults.KINDS), "")) for seed in range(first, first + SEEDS_PER_TEST)]
    broken = {outcome.seed: outcome.crash or outcome.rules for outcome in outcomes if not outcome.passed}
    assert not broken
    assert sum(outcome.leaders > 1 for outcome in outcomes) > SEEDS_PER_TEST / 4, "most schedules must move leadership"
    assert all(outcome.flashblocks > 10 for outcome in outcomes), "the stream must go on in each"


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("first", range(10_000, 10_000 + MANY_SEEDS, 500))
def test_thousands_of_schedules(first):
    outcomes = [outcome_of((seed, tuple(faults.KINDS), "")) for seed in range(first, first + 500)]
    assert not {outcome.seed: outcome.crash or outcome.rules for outcome in outcomes if not outcome.passed}


@pytest.mark.parametrize("kind", faults.KINDS)
def test_every_kind_of_fault_happens_and_is_survived(kind):
    for seed in range(3):
        run = simulate(seed, Options(kinds=(kind,)))
        assert run.report.violations == ()
        assert {event.kind for event in run.history if isinstance(event, Fault)} == {kind}


def test_a_healthy_cluster_streams_every_flashblock_of_every_block():
    run = simulate(5, Options(shape=Shape(5, 2, 200, -110, 6.0, 0), schedule=()))
    assert run.passed and run.leaders == 1
    sizes = Counter(event.number for event in run.history if getattr(event, "source", "") == "proxy-0")
    whole = sorted(sizes)[1:-1]
    assert len(whole) >= 3
    assert all(sizes[number] == 11 for number in whole), "index 0 and ten flashblocks of 200 ms"


def test_a_seed_replays_exactly():
    first, second = simulate(42), simulate(42)
    assert encode(first.history) == encode(second.history)
    assert first.schedule == second.schedule and first.events == second.events


def test_a_seed_replays_exactly_in_another_process_with_other_hashes():
    code = (
        "import hashlib, msgspec; from chaos.simulation.world import simulate; "
        "print(hashlib.sha256(b''.join(msgspec.json.encode(simulate(seed).history) for seed in (3, 17))).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": salt},
            check=True,
            capture_output=True,
            timeout=50,
        ).stdout
        for salt in ("1", "2")
    }
    assert len(digests) == 1


def test_another_seed_is_another_run():
    assert encode(simulate(1).history) != encode(simulate(2).history)
