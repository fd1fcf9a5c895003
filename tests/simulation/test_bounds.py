"""How long the public stream is silent after each fault on the leader: in virtual time, where no machine is too slow.

The bounds are the 99th percentiles that drills have to keep on a quiet machine. Here a regression of a time-out, of the
order of steps or of a retry shows without one.
"""

import random
from itertools import pairwise

import pytest

from chaos.history import Seen
from chaos.simulation import schedule as faults
from chaos.simulation.schedule import LEADER, FaultPlan
from chaos.simulation.world import Cluster, Options, Shape

SHAPE = Shape(5, 2, 200, -110, 3.0, 1)
SEEDS = range(4)
CADENCE_S = 0.2

BOUNDS = {
    (faults.TRANSFER, "conductor", 0.1): 0.4,
    (faults.CRASH, "conductor", 1.0): 0.8,
    (faults.CRASH, "group", 1.0): 0.8,
    (faults.CRASH, "op-node", 1.0): 1.0,
    (faults.CRASH, "rollup-boost", 1.0): 1.0,
    (faults.CRASH, "fallback-el", 1.0): 1.0,
    (faults.CRASH, "builder", 1.0): 1.0,
    (faults.HANG, "conductor", 5.0): 2.0,
    (faults.HANG, "group", 5.0): 2.0,
    (faults.HANG, "op-node", 5.0): 2.0,
    (faults.HANG, "rollup-boost", 5.0): 2.0,
    (faults.HANG, "fallback-el", 5.0): 2.0,
    (faults.HANG, "builder", 5.0): 2.0,
    (faults.PARTITION, "", 5.0): 2.0,
    (faults.DEAF, "", 5.0): 2.0,
    (faults.MUTE, "", 5.0): 2.0,
}


def silence_s(run, since, until):
    """The longest pause between new flashblocks that overlaps the two moments."""
    fresh, newest = [], (-1, -1)
    for event in run.history:
        if isinstance(event, Seen) and event.edge and (event.number, event.index) > newest:
            newest = (event.number, event.index)
            fresh.append(event.at)
    pauses = [(one, other) for one, other in pairwise(fresh) if other > since and one < until]
    return max(other - max(one, since) for one, other in pauses)


@pytest.mark.parametrize(("kind", "component", "lasts_s"), BOUNDS, ids=str)
def test_the_stream_goes_on_within_its_bound(kind, component, lasts_s):
    bound_s = BOUNDS[kind, component, lasts_s]
    for seed in SEEDS:
        chance = random.Random(seed)
        plan = FaultPlan(round(2.2 + 2 * chance.random(), 3), kind, LEADER, component, lasts_s, chance.random())
        run = Cluster(seed, Options(shape=SHAPE, schedule=(plan,))).run()
        assert run.report.violations == ()
        assert silence_s(run, plan.at, plan.at + lasts_s) <= bound_s + CADENCE_S
