"""A checker that lets a mutant pass is broken; so is a simulator that never brings one into trouble."""

import pytest

from chaos.simulation.mutants import MUTANTS, Parts
from chaos.simulation.world import Cluster

SEEDS_MAX = 60


def caught(mutant, seeds):
    """The first violation of one of the mutant's own rules."""
    for seed in seeds:
        run = Cluster(seed, mutant.options, mutant.parts()).run()
        for violation in run.report.violations:
            if violation.rule in mutant.rules and violation.text.startswith(mutant.where):
                return seed, violation
    return None


@pytest.mark.parametrize("name", MUTANTS)
def test_the_mutant_is_caught_by_its_own_rule(name):
    assert caught(MUTANTS[name], range(SEEDS_MAX)) is not None


@pytest.mark.parametrize("name", MUTANTS)
def test_the_product_survives_what_the_mutant_did_not(name):
    mutant = MUTANTS[name]
    found = caught(mutant, range(SEEDS_MAX))
    assert found is not None
    run = Cluster(found[0], mutant.options, Parts()).run()
    assert run.report.violations == ()


def test_the_proxy_is_what_protects_its_subscribers_from_a_leader_that_emits():
    mutant = MUTANTS["credulous-proxy"]
    assert caught(mutant, range(20)) is not None
    emitting = MUTANTS["follower-emits"]
    for seed in range(20):
        run = Cluster(seed, emitting.options, emitting.parts()).run()
        assert not [one for one in run.report.violations if one.rule in mutant.rules and one.text.startswith("proxy-")]
