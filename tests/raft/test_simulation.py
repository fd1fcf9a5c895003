"""The real consensus of five nodes on a virtual clock and an in-memory network that does its worst, by seed.

Everything but sockets and time is the product: PySyncObj with our repairs, the journal on disk, snapshots, the
ledger. The network delays, holds back and breaks connections in each direction separately; nodes crash, restart, hang,
and now and then lose their journal or their whole disk; members are removed and taken back. Checked at every step: one
leader per term, one entry per log position on all nodes; in the end: all nodes agree, and whatever was acknowledged is
there.
`pytest -m slow` runs hundreds of further seeds. The library iterates over sets of names: set PYTHONHASHSEED=0 to
replay a seed exactly.
"""

import shutil

import pytest

from raft import rejoining, syncobj
from raft.journal import Journal
from raft.ledger import Accepted, Claim, encode_command
from raft.member import next_append
from raft.replication import Repair
from raft.syncobj import LEADER
from tests.raft.simulated_members import (
    CALM_S,
    NAMES,
    SimulatedNode,
    World,
    agreed,
    run,
    simulate,
    world_of,
)


@pytest.mark.parametrize("seed", range(12))
def test_whatever_happens_nothing_acknowledged_is_lost(seed, tmp_path, monkeypatch):
    world = simulate(tmp_path, seed, monkeypatch)
    assert len(world.acknowledged) > 20, "the schedule must leave room for work"
    assert len(world.leaders) > 1, "and take the leader away at least once"


def leader_of(world: World) -> SimulatedNode:
    run(world, CALM_S, False, until=lambda: any(leads(node) for node in world.nodes.values()))
    return max(filter(leads, world.nodes.values()), key=lambda node: node.consensus.figures()["term"])


def leads(node: SimulatedNode) -> bool:
    consensus = node.consensus
    return consensus is not None and not node.paused and consensus.role() == LEADER and consensus.is_caught_up()


def submit(world: World, leader: SimulatedNode, command) -> list:
    """Propose; after a moment, the answers that came."""
    answers: list = []
    leader.consensus.submit(encode_command(command), lambda answer, reason: answers.append(answer))
    run(world, 0.5, disturbing=False)
    return answers


def claim(world: World, leader: SimulatedNode) -> None:
    assert submit(world, leader, Claim(leader.consensus.figures()["term"], leader.name)) == [Accepted()]


def test_a_claim_is_told_as_new_where_a_longer_log_was_cut(tmp_path, monkeypatch):
    with world_of(tmp_path, 0, monkeypatch) as world:
        world.proposes = False
        cut_off = claimed(world)
        world.cut = {(name, cut_off.name) for name in NAMES} | {(cut_off.name, name) for name in NAMES}
        view = cut_off.consensus.ledger.view
        for _ in range(12):  # they stay in its log, but nobody else ever has them
            cut_off.consensus.submit(
                encode_command(next_append(view, view.epoch, cut_off.name, 50)), lambda answer, reason: None
            )
        run(world, 0.1, disturbing=False)
        longer = cut_off.consensus.figures()["last_index"]
        cut_off.crash()
        successor = claimed(world)
        world.cut.clear()
        cut_off.start()
        run(world, 2.0, disturbing=False)
        assert cut_off.consensus.figures()["last_index"] < longer - 3
        successor.consensus.hand_over(cut_off.name, lambda answer, reason: None)
        run(world, CALM_S, False, until=lambda: leads(cut_off))
        assert leads(cut_off)
        claim(world, cut_off)  # `on_event_applied` looks how it is told


def claimed(world: World) -> SimulatedNode:
    """A leader that has claimed its term; who is elected first may lose it again at once."""
    for _ in range(20):
        leader = leader_of(world)
        answers = submit(world, leader, Claim(leader.consensus.figures()["term"], leader.name))
        if all(isinstance(answer, Accepted) for answer in answers):
            return leader
    raise AssertionError("nobody leads for long enough")


def lose_disk(node: SimulatedNode) -> None:
    """The process ends and its disk is gone; it starts with an empty one."""
    node.crash()
    shutil.rmtree(node.settings.data_dir)
    node.start()


def split(world: World, one: list[SimulatedNode], two: list[SimulatedNode]) -> None:
    world.cut |= {(a.name, b.name) for a in one for b in two} | {(a.name, b.name) for a in two for b in one}


def committed_by_three(world: World, at_once: bool) -> list[SimulatedNode]:
    """The first entries of a group, committed by its leader and two more while the last two are cut off.

    If that happens `at_once`, these two have not had a single entry yet.
    """
    world.proposes = False
    run(world, CALM_S, False, until=lambda: any(node.consensus.role() == LEADER for node in world.nodes.values()))
    if not at_once:
        run(world, 2.0, disturbing=False)
    leader = next(node for node in world.nodes.values() if node.consensus.role() == LEADER)
    nodes = sorted(world.nodes.values(), key=lambda node: node.consensus.figures()["last_index"], reverse=True)
    nodes = [leader, *(node for node in nodes if node is not leader)]
    split(world, nodes[:3], nodes[3:])
    claim(world, leader)
    for _ in range(3):
        view = leader.consensus.ledger.view
        assert submit(world, leader, next_append(view, view.epoch, leader.name, 100)) == [Accepted()]
    assert {node.consensus.figures()["last_index"] for node in nodes[3:]} == {1 if at_once else 2}
    return nodes


def last_indices(world: World) -> set[int]:
    views = [node.consensus.ledger.view for node in world.nodes.values() if node.consensus is not None]
    return {view.open.last_index if view.open is not None else -1 for view in views}


@pytest.mark.parametrize("at_once", [True, False])
def test_a_member_with_an_empty_disk_elects_nobody_who_lacks_what_it_had(at_once, tmp_path, monkeypatch):
    with world_of(tmp_path, 1, monkeypatch) as world:
        leader, wiped, hung, *behind = committed_by_three(world, at_once)
        leader.crash()
        lose_disk(wiped)
        hung.paused = True
        world.cut.clear()
        run(world, 10.0, disturbing=False)
        assert not any(leads(node) for node in (wiped, *behind)), "two of three never had what was acknowledged"
        wiped.crash()  # a second start changes nothing
        wiped.start()
        run(world, 5.0, disturbing=False)
        assert not any(leads(node) for node in (wiped, *behind))
        assert wiped.consensus.rejoining
        hung.paused = False
        if at_once:  # the two may not have come as far as to vote: then they need the other one that knows
            leader.start()
        run(world, CALM_S, False, until=lambda: not wiped.consensus.rejoining)
        assert not wiped.consensus.rejoining
        if not at_once:
            leader.start()
        run(world, CALM_S, False, until=lambda: agreed(world))
        assert last_indices(world) == {2}


def test_a_member_with_an_empty_disk_is_not_counted_by_a_leader_of_an_earlier_term(tmp_path, monkeypatch):
    with world_of(tmp_path, 2, monkeypatch) as world:
        world.proposes = False
        old = claimed(world)
        others = [node for node in world.nodes.values() if node is not old]
        # It hangs, with one other; the rest elect a new leader, and commit with it.
        asleep, rest = others[0], others[1:]
        old.paused = asleep.paused = True
        new = claimed(world)
        view = new.consensus.ledger.view
        assert submit(world, new, next_append(view, view.epoch, new.name, 100)) == [Accepted()]
        # One of the rest loses its disk, the other two are cut off, and those who hung wake up.
        wiped = next(node for node in rest if node is not new)
        split(world, [old, asleep, wiped], [node for node in rest if node is not wiped])
        lose_disk(wiped)
        old.paused = asleep.paused = False
        for _ in range(20):
            view = old.consensus.ledger.view
            command = encode_command(next_append(view, view.epoch, old.name, 50))
            old.consensus.submit(command, lambda answer, reason: None)
            run(world, 0.1, disturbing=False)  # `CheckedConsensus` would see another entry at the same position
        world.cut.clear()
        run(world, CALM_S, False, until=lambda: agreed(world))
        assert agreed(world)


def test_a_first_start_waits_for_every_member_and_then_needs_a_majority_only(tmp_path, monkeypatch):
    with world_of(tmp_path, 3, monkeypatch) as world:
        world.proposes = False
        last = world.nodes[NAMES[-1]]
        last.crash()
        run(world, 5.0, disturbing=False)
        assert all(node.consensus.rejoining for node in world.nodes.values() if node is not last)
        last.start()
        claimed(world)
        run(world, CALM_S, False, until=lambda: agreed(world))
        world.nodes[NAMES[0]].crash()
        last.crash()
        claimed(world)


def test_two_of_five_with_empty_disks_come_back_once_the_other_three_are_there(tmp_path, monkeypatch):
    with world_of(tmp_path, 4, monkeypatch) as world:
        leader, *others = committed_by_three(world, at_once=False)
        world.cut.clear()
        run(world, CALM_S, False, until=lambda: agreed(world))
        leader.crash()
        for node in others[:2]:
            lose_disk(node)
        run(world, 5.0, disturbing=False)
        assert not any(leads(node) for node in others), "two know everything, and they are no majority"
        leader.start()
        run(world, CALM_S, False, until=lambda: agreed(world))
        assert last_indices(world) == {2}


def test_all_restart_at_once_and_one_finds_its_disk_empty(tmp_path, monkeypatch):
    with world_of(tmp_path, 5, monkeypatch) as world:
        leader = committed_by_three(world, at_once=False)[0]
        for node in world.nodes.values():
            node.crash()
        world.cut.clear()
        shutil.rmtree(leader.settings.data_dir)
        for node in world.nodes.values():
            node.start()
        run(world, CALM_S, False, until=lambda: agreed(world))
        assert last_indices(world) == {2}


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("block", range(20))
def test_hundreds_of_schedules(block, tmp_path, monkeypatch):
    for seed in range(1000 + block * 20, 1020 + block * 20):
        (tmp_path / str(seed)).mkdir()
        with monkeypatch.context() as context:
            simulate(tmp_path / str(seed), seed, context)


def forget_votes(context) -> None:
    """A journal as PySyncObj 0.3.14 had it: term and vote do not survive a restart."""
    context.setattr(Journal, "getCurrentTerm", lambda self: 0)
    context.setattr(Journal, "getVotedForNodeId", lambda self: None)


def trust_pieces_of_snapshots(context) -> None:
    """PySyncObj 0.3.17 as it is: any append message may move the commit index over any log."""
    context.setattr(syncobj, "repair_append", lambda message, log: Repair(message, keep_suffix=False))


def vote_without_memory(context) -> None:
    """A node that lost its journal takes part at once, as if it had never acknowledged anything."""
    context.setattr(rejoining, "lacks_memory", lambda directory, journal: False)
    context.setattr(Journal, "knows_vote", True)


def vote_with_an_empty_disk(context) -> None:
    """Only a node that has put its journal aside knows that it lost it; an empty disk looks like a new member's."""
    context.setattr(rejoining, "lacks_memory", lambda directory, journal: (directory / "rejoining").exists())
    context.setattr(Journal, "knows_vote", True)


def believe_any_leader(context) -> None:
    """A node that does not know its last term follows, and so counts for, whoever calls itself leader."""
    context.setattr(Journal, "knows_vote", True)


def begin_with_a_majority(context) -> None:
    """An empty disk counts as a new member's if most of the others are empty, too."""

    def most_empty(memories, others) -> bool:
        empty = [told.last_index <= 1 for name, told in memories._told.items() if name in others]
        return sum(empty) >= (len(others) + 1) // 2

    context.setattr(rejoining.Memories, "all_empty", most_empty)


def hear_members_only(context) -> None:
    """A node that has not heard of a change of the members ignores whom it does not know: elections can get stuck."""
    context.setattr(syncobj, "GUESTS_MAY", ())


MUTANTS = (
    forget_votes,
    trust_pieces_of_snapshots,
    vote_without_memory,
    vote_with_an_empty_disk,
    hear_members_only,
)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("mutate", MUTANTS)
def test_a_broken_consensus_is_noticed(mutate, tmp_path, monkeypatch):
    for seed in range(300):
        (tmp_path / str(seed)).mkdir()
        with monkeypatch.context() as context:
            mutate(context)
            try:
                simulate(tmp_path / str(seed), seed, context)
            except AssertionError:
                return
    pytest.fail("300 schedules of a broken consensus looked fine")


@pytest.mark.parametrize("mutate", [vote_with_an_empty_disk, begin_with_a_majority])
def test_what_keeps_an_empty_disk_from_voting_is_needed(mutate, tmp_path, monkeypatch):
    mutate(monkeypatch)
    with pytest.raises(AssertionError):
        test_a_member_with_an_empty_disk_elects_nobody_who_lacks_what_it_had(True, tmp_path, monkeypatch)


def test_what_keeps_an_empty_disk_from_following_is_needed(tmp_path, monkeypatch):
    believe_any_leader(monkeypatch)
    with pytest.raises(AssertionError):
        test_a_member_with_an_empty_disk_is_not_counted_by_a_leader_of_an_earlier_term(tmp_path, monkeypatch)
