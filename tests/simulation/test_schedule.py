from random import Random

import pytest

from chaos.simulation import schedule as faults
from chaos.simulation.world import Cluster, Options

GROUPS = [f"sequencer-{number}" for number in range(5)]


def drawn(seed, kinds=tuple(faults.KINDS)):
    return faults.draw_schedule(Random(seed), GROUPS, kinds, 2.0, 6.0, 40)


def test_a_schedule_is_a_function_of_the_seed():
    assert drawn(7) == drawn(7)
    assert drawn(7) != drawn(8)


def test_faults_are_in_order_within_their_time_and_mostly_on_the_leader():
    plans = drawn(1)
    assert [plan.at for plan in plans] == sorted(plan.at for plan in plans)
    assert all(2.0 <= plan.at <= 6.0 and plan.lasts_s > 0 for plan in plans)
    assert sum(plan.group == faults.LEADER for plan in plans) > 15


def test_only_the_kinds_asked_for_are_drawn_and_all_of_them_have_a_weight():
    assert {plan.kind for plan in drawn(1, (faults.CRASH, faults.HANG))} == {faults.CRASH, faults.HANG}
    assert set(faults.WEIGHTS) == set(faults.KINDS)
    assert {plan.kind for seed in range(20) for plan in drawn(seed)} == set(faults.KINDS)


@pytest.mark.parametrize("kind", faults.KINDS)
def test_a_given_schedule_is_carried_out_as_it_is(kind):
    plan = faults.FaultPlan(2.0, kind, faults.LEADER, "conductor", 0.2, 0.5)
    run = Cluster(1, Options(schedule=(plan,))).run()
    assert run.schedule == [plan]
    assert run.report.violations == ()
    assert str(plan) == f" 2.000 s  {kind} leader/conductor for 0.20 s"
