"""The catalogue: names, patterns, and what each drill hurts."""

import json
import random
import re

import pytest

from actors.far_hosts import far_pid
from chaos.catalogue import ALL, CATALOGUE, DRILLS, chosen
from chaos.cli import UNUSABLE_STATUS, app
from chaos.drill import Scene
from chaos.expectation import Expect
from chaos.faults import ACTORS
from chaos.target import DrillError


def scene(target, seed=1):
    leader, *followers = target.groups()
    return Scene(target, leader, followers, random.Random(seed))


def test_names_are_unique_and_words():
    assert len(CATALOGUE) == len(DRILLS)
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name) for name in CATALOGUE)


def test_every_row_of_the_bounds_table_has_a_drill_with_a_bound():
    bounded = {drill.name for drill in DRILLS if drill.bound is not None}
    assert {"transfer", *(f"{kind}-{actor}" for kind in ("kill", "hang") for actor in (*ACTORS, "group"))} <= bounded


def test_names_and_patterns_choose_and_each_only_once():
    assert [drill.name for drill in chosen(["transfer", "trans*"])] == ["transfer"]
    assert {drill.name for drill in chosen(["kill-*"])} > {"kill-conductor", "kill-follower-group"}
    assert [drill for drill in chosen([ALL]) if drill.slow] == []
    with pytest.raises(DrillError, match="no drill named 'kil'"):
        chosen(["kil"])


def test_the_same_seed_hurts_the_same(target):
    drill = CATALOGUE["two-groups-dead"]
    first, second = (drill.fault(scene(target, 3)).victims for _ in range(2))
    assert first == second
    assert "sequencer-0" in {victim.group for victim in first}
    assert len({victim.group for victim in first}) == 2


def test_who_is_hurt(target):
    assert {victim.group for victim in CATALOGUE["kill-group"].fault(scene(target)).victims} == {"sequencer-0"}
    assert "sequencer-0" not in {
        victim.group for victim in CATALOGUE["kill-follower-group"].fault(scene(target)).victims
    }
    assert len(CATALOGUE["restart-everybody"].fault(scene(target)).victims) == 25
    three = CATALOGUE["three-conductors-dead"]
    assert three.expect is Expect.HALTS
    assert [victim.actor for victim in three.fault(scene(target)).victims] == ["conductor"] * 3


def test_a_small_cluster_is_refused_where_five_are_needed(target):
    few = {**target.endpoints(), "groups": target.groups()[:3]}
    target.endpoints_path.write_text(json.dumps(few))
    assert "needs 5 groups" in CATALOGUE["three-groups-dead"].missing(target)
    assert CATALOGUE["kill-group"].missing(target) is None


def test_on_many_hosts_what_takes_more_than_signals_and_rpc_says_so(target):
    endpoints = target.endpoints()
    for number, group in enumerate(endpoints["groups"], start=1):
        for actor in group["actors"].values():
            actor["pid"] = far_pid(number, 100)
    target.endpoints_path.write_text(json.dumps(endpoints))
    for name in ("transfer", "kill-group", "hang-op-node", "two-groups-dead", "follower-behind", "flood"):
        assert CATALOGUE[name].missing(target) is None
    for name in ("partition-leader", "torn-journal", "altered-chain", "reset-follower", "kill-gcs"):
        assert "live on other hosts" in CATALOGUE[name].missing(target)
    for name in ("dies-before-append", "clock-ahead-all", "full-disk-leader"):
        assert CATALOGUE[name].missing(target) is not None


@pytest.mark.parametrize("drill", DRILLS, ids=lambda drill: drill.name)
def test_every_drill_makes_a_fault_that_can_be_given_up_before_it_began(target, drill):
    fault = drill.fault(scene(target))
    assert fault.kind
    assert len(set(fault.victims)) == len(fault.victims)
    assert fault.hold_s >= 0
    fault.abandon()


def test_all_leaves_the_slow_ones_and_the_cluster():
    names = {drill.name for drill in chosen([ALL])}
    assert "follower-behind" not in names and "kill-gcs" not in names
    assert {"partition-leader", "three-groups-dead", "dies-before-publish", "full-disk-leader"} <= names


def test_the_list_is_printed(capsys):
    assert app(["list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in listed] == list(CATALOGUE)
    assert listed[0]["bound_ms"] == {"p50": 200.0, "p99": 400.0}
    assert app(["list"]) == 0
    assert all(name in capsys.readouterr().out for name in ("transfer",))


def test_a_name_that_does_not_exist_is_refused_before_anything_starts(capsys):
    assert app(["run", "nonsense"]) == UNUSABLE_STATUS
    assert "flashblocks drill list" in capsys.readouterr().err
