"""The model of Raft keeps what it stands for, on its own, under the network's worst."""

import hashlib

import pytest

from chaos.simulation.consensus import GENESIS_HASH, Consensus, Variant
from chaos.simulation.kernel import Clock
from chaos.simulation.network import Network, Weather
from chaos.simulation.raft_disk import RaftDisk
from raft.commands import Accepted, Append, Claim, Reason, Refused, Seal
from raft.node import Transferred, Unknown

NAMES = [f"n{number}" for number in range(5)]


class Member:
    def __init__(self, world, process, name, disk):
        self.world, self.process = world, process
        self.raft = Consensus(world.network, process, name, NAMES, disk, world.variant)
        self.raft.on_leadership = self._on_leadership

    def start(self):
        self.raft.start()

    def on_raft(self, method, arguments):
        self.raft.receive(method, arguments)

    def _on_leadership(self, leading, term):
        if leading:
            assert self.world.leaders.setdefault(term, self.raft.name) == self.raft.name, "two leaders of one term"


class World:
    def __init__(self, seed=1, variant=None):
        self.clock = Clock(seed)
        self.network = Network(self.clock)
        self.variant = variant or Variant()
        self.leaders = {}
        self.acknowledged = {}
        for name in NAMES:
            make = lambda process, disk, name=name: Member(self, process, name, disk)  # noqa: E731
            self.network.add(f"{name}/conductor", name, make, RaftDisk())
        for slot in self.network.slots.values():
            slot.start()

    def slot(self, name):
        return self.network.slots[f"{name}/conductor"]

    def rafts(self):
        return [slot.component.raft for slot in self.network.slots.values() if slot.component is not None]

    def run(self, seconds):
        self.clock.run(self.clock.now + seconds)

    def leader(self):
        leading = [raft for raft in self.rafts() if raft.is_leader]
        return max(leading, key=lambda raft: raft.term) if leading else None

    def propose(self, raft, command, timeout_s=1.0):
        outcomes = []

        async def work():
            outcomes.append(await raft.propose(command, timeout_s))
            if isinstance(outcomes[0], Accepted) and isinstance(command, Append):
                self.acknowledged[(command.number, command.index)] = command.digest

        raft._process.spawn(work())
        return outcomes

    def grow(self, raft):
        """Propose what comes next, as a conductor would."""
        view = raft.ledger
        if (view.epoch, view.owner) != (raft.term, raft.name):
            return self.propose(raft, Claim(raft.term, raft.name))
        if view.open is not None and len(view.open.entries) == 4:
            block = view.open
            seal = Seal(view.epoch, raft.name, block.number, block.payload_id, block.last_index, block.block_hash)
            return self.propose(raft, seal)
        number = view.head_number + 1
        index = 0 if view.open is None else len(view.open.entries)
        body = f"{number}.{index} {raft.name} {self.clock.now}".encode()
        digest = hashlib.sha256(body).digest()
        payload_id = number.to_bytes(8, "big") if view.open is None else view.open.payload_id
        return self.propose(
            raft,
            Append(view.epoch, raft.name, payload_id, number, index, view.head_hash, digest, digest, body),
        )

    def check(self):
        logs = {}
        for raft in self.rafts():
            raft.check()
            for index in range(raft.disk.first, raft.commit + 1):
                entry = raft.disk.log[index - raft.disk.first]
                assert logs.setdefault(index, entry) == entry, f"two entries are committed at {index}"


def test_one_leader_is_elected_and_commits_reach_everybody():
    world = World()
    world.run(1.0)
    leader = world.leader()
    assert leader is not None and sum(raft.is_leader for raft in world.rafts()) == 1
    assert all(raft.leader() == leader.name for raft in world.rafts())
    outcome = world.propose(leader, Claim(leader.term, leader.name))
    world.run(0.2)
    assert outcome == [Accepted()]
    assert {raft.ledger.owner for raft in world.rafts()} == {leader.name}


def test_a_follower_refuses_at_once_and_forwards_nothing():
    world = World()
    world.run(1.0)
    follower = next(raft for raft in world.rafts() if not raft.is_leader)
    outcome = world.propose(follower, Claim(99, follower.name))
    world.run(0.5)
    assert isinstance(outcome[0], Refused) and outcome[0].reason is Reason.NOT_LEADER
    assert all(raft.ledger.epoch == 0 for raft in world.rafts())


def test_a_dead_leader_is_replaced_within_a_moment():
    world = World()
    world.run(1.0)
    old = world.leader()
    world.slot(old.name).kill()
    world.run(0.15)
    assert world.leader() is not None and world.leader().name != old.name


def test_an_isolated_leader_steps_down_and_what_it_could_not_commit_is_unknown_and_gone():
    world = World()
    world.run(1.0)
    old = world.leader()
    for other in NAMES:
        if other != old.name:
            world.network.cut_path(old.name, other)
            world.network.cut_path(other, old.name)
    outcome = world.propose(old, Claim(old.term, old.name))
    world.run(0.5)
    assert not old.is_leader and outcome == [Unknown("leadership_lost")]
    world.run(1.0)
    new = world.leader()
    claimed = world.propose(new, Claim(new.term, new.name))
    world.run(0.2)
    assert claimed == [Accepted()]
    world.network.mend_all()
    world.run(1.0)
    assert {raft.ledger.owner for raft in world.rafts()} == {new.name}
    world.check()


def test_leadership_is_handed_to_the_member_asked_for():
    world = World()
    world.run(1.0)
    leader = world.leader()
    target = next(name for name in NAMES if name != leader.name)
    outcomes = []

    async def work():
        outcomes.append(await leader.transfer_leadership(target, 1.0))

    leader._process.spawn(work())
    world.run(1.0)
    assert isinstance(outcomes[0], Transferred) and outcomes[0].leader == target
    assert world.leader().name == target


def test_a_member_far_behind_gets_a_snapshot_and_one_without_its_journal_does_not_vote_until_it_is_level():
    world = World()
    world.run(1.0)
    leader = world.leader()
    lagging, forgetful = [name for name in NAMES if name != leader.name][:2]
    world.slot(lagging).kill()
    world.slot(forgetful).kill()
    world.slot(forgetful).disk.lose()
    for _ in range(120):
        world.grow(leader)
        world.run(0.05)
    assert leader.disk.first > 1, "the log was compacted"
    world.slot(lagging).start()
    world.slot(forgetful).start()
    assert world.slot(forgetful).disk.rejoining
    world.run(1.0)
    assert not world.slot(forgetful).disk.rejoining
    assert {raft.ledger.head for raft in world.rafts()} == {leader.ledger.head}
    world.check()


@pytest.mark.parametrize("seed", range(25))
def test_whatever_happens_nothing_acknowledged_is_lost(seed):
    world = World(seed)
    random = world.clock.random
    world.run(1.0)
    for _ in range(60):
        for raft in world.rafts():
            if raft.is_leader and not raft._process.paused:
                world.grow(raft)
        chance = random.random()
        slot = world.slot(random.choice(NAMES))
        down = sum(other.process is None for other in world.network.slots.values())
        if chance < 0.05 and slot.process is not None and down < 2:
            slot.kill()
        elif chance < 0.12:
            slot.start()
        elif chance < 0.17:
            slot.pause()
        elif chance < 0.25:
            slot.wake()
        elif chance < 0.32:
            one, other = random.sample(NAMES, 2)
            world.network.cut_path(one, other)
        elif chance < 0.38:
            world.network.mend_all()
        elif chance < 0.42:
            weather = Weather(0.3, 0.2, 0.1)
            world.network.weather = {(one, other): weather for one in NAMES for other in NAMES if one != other}
        world.run(0.1 * random.random())
        world.check()
    world.network.mend_all()
    for name in NAMES:
        world.slot(name).wake()
        world.slot(name).start()
    world.run(3.0)
    leader = world.leader()
    assert leader is not None and world.acknowledged, "the schedule must leave room for work"
    assert {(raft.ledger.head, raft.applied) for raft in world.rafts()} == {(leader.ledger.head, leader.applied)}
    blocks = [*leader.ledger.sealed_blocks, *([leader.ledger.open] if leader.ledger.open else [])]
    kept = {(block.number, entry.index): entry.digest for block in blocks for entry in block.entries}
    assert world.acknowledged.items() <= kept.items()
    assert leader.ledger.sealed_blocks == () or leader.ledger.sealed_blocks[0].parent_hash == GENESIS_HASH
