"""Five real members on a virtual clock and an in-memory network, and what may befall them; `test_simulation` runs them.

The library iterates over sets of names: set PYTHONHASHSEED=0 to replay a seed exactly.
"""

import contextlib
import hashlib
import random
import shutil
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from raft import syncobj
from raft.journal import Journal, move_aside
from raft.ledger import Accepted, Claim, Claimed, Seal, encode_command
from raft.member import next_append
from raft.membership import ChangeRefused, MemberChange
from raft.settings import RaftSettings
from raft.syncobj import LEADER, Consensus
from raft.transport import _decode_message, _encode

NAMES = [f"n{number}" for number in range(5)]
STEP_S = 0.008
CHAOS_S = 8.0
CALM_S = 30.0
FAULTS = (
    "crash",
    "crash",
    "restart",
    "restart",
    "bounce",
    "bounce",
    "cut",
    "cut",
    "heal",
    "pause",
    "resume",
    "transfer",
    "member",
    "member",
)
MEMBERS_MIN = 3
AMNESIACS_MAX = 2
"""So many journals may be lost at a time: with more, a majority would not know what it acknowledged."""


def address_of(name: str) -> str:
    return f"127.0.0.1:{NAMES.index(name) + 1}"


class World:
    """Clock, network and history shared by all nodes of one run."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.random = random.Random(seed)
        self.directory = directory
        self.now = 1000.0
        self.nodes: dict[str, SimulatedNode] = {}
        self.cut: set[tuple[str, str]] = set()
        self.connection_ids = 0
        self.leaders: dict[int, str] = {}
        self.applied: dict[int, bytes] = {}
        self.acknowledged: dict[tuple[int, int], bytes] = {}
        self.proposes = True

    def delay(self) -> float:
        return self.random.choice((0.0, 0.001, 0.004, 0.02)) * self.random.random()


class SimulatedTransport:
    """The transport's interface over the world's queues. Each end believes in a connection until it learns better."""

    ready = True
    rejected = 0
    world: World

    def __init__(self, settings, poller, clock) -> None:
        self.name = settings.node_id
        self.timeout_s = settings.connection_timeout_s
        self.peers = {}
        self.open: dict[str, int] = {}
        self.heard: dict[str, float] = {}
        self.inbox: dict[str, deque] = {name: deque() for name in NAMES}
        self.on_peer_death = None

    def setOnMessageReceivedCallback(self, callback) -> None:
        self.deliver = callback

    def setOnNodeConnectedCallback(self, callback) -> None:
        self.up = callback

    def setOnNodeDisconnectedCallback(self, callback) -> None:
        self.down = callback

    def _ignore(self, *_) -> None:
        pass

    setOnReadonlyNodeConnectedCallback = setOnReadonlyNodeDisconnectedCallback = setOnUtilityMessageCallback = _ignore
    tryGetReady = waitReady = destroy = introduce_as = _ignore

    def addNode(self, node) -> None:
        self.peers[node.id] = node
        if node.id in self.open:
            self.up(node)

    def dropNode(self, node) -> None:
        del self.peers[node.id]
        self.open.pop(node.id, None)
        self.inbox[node.id].clear()

    def peer(self, name: str):
        return self.peers.get(name) or self.make_guest(name)

    def connected(self) -> set[str]:
        return set(self.open)

    def backlog_bytes(self, node) -> int:
        return 0

    def send(self, node, message) -> bool:
        connection = self.open.get(node.id)
        other = self.world.nodes[node.id].transport
        if connection is None:
            return False
        if other is not None:
            inbox = other.inbox[self.name]
            due = max(self.world.now + self.world.delay(), inbox[-1][0] if inbox else 0.0)
            inbox.append((due, connection, _encode(message)))
        return True

    def close(self, name: str, *, death: bool = False) -> None:
        if self.open.pop(name, None) is None:
            return
        self.inbox[name].clear()
        self.down(self.peer(name))
        if death:
            self.on_peer_death(self.peer(name))

    def connect(self, name: str, connection: int) -> None:
        self.close(name)
        self.open[name] = connection
        self.heard[name] = self.world.now
        self.up(self.peer(name))

    def upkeep(self) -> None:
        for name, connection in list(self.open.items()):
            other = self.world.nodes[name]
            if (name, self.name) not in self.world.cut and not other.paused:
                if other.transport is None or other.transport.open.get(self.name) != connection:
                    self.close(name, death=True)  # its FIN or RST arrives
                    continue
                self.heard[name] = self.world.now
            if self.world.now - self.heard[name] > self.timeout_s:
                self.close(name)

    def receive(self) -> None:
        for name, inbox in self.inbox.items():
            while inbox and inbox[0][0] <= self.world.now and (name, self.name) not in self.world.cut:
                _, connection, data = inbox.popleft()
                if self.open.get(name) == connection:
                    self.deliver(self.peer(name), _decode_message(data))


class CheckedConsensus(Consensus):
    """Compares every applied entry with what any node ever applied at that position."""

    def __init__(self, world: World, *arguments) -> None:
        self._world = world
        super().__init__(*arguments)

    def _SyncObj__doApplyCommand(self, entry: bytes):
        index = self._SyncObj__raftLastApplied + 1
        assert self._world.applied.setdefault(index, entry) == entry, f"two entries at position {index}"
        return super()._SyncObj__doApplyCommand(entry)


class NoPoller:
    def poll(self, timeout) -> None:
        pass


class SimulatedNode:
    """One node: running, paused or down; it proposes whenever it believes to lead."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        self.consensus: CheckedConsensus | None = None
        self.paused = False
        self.members = len(NAMES)
        self.settings = RaftSettings(
            node_id=name,
            peers={other: address_of(other) for other in NAMES},
            data_dir=world.directory / name,
            password=bytes(32),
            genesis_number=0,
            genesis_hash=bytes(32),
            segment_bytes=20_000,
            free_space_bytes_min=1,
            compaction_entries=60,
            trailing_entries=20,
        )

    @property
    def transport(self):
        return self.consensus.transport if self.consensus is not None else None

    def start(self) -> None:
        journal = Journal(self.settings.data_dir, self.settings.segment_bytes, 1, False)
        self.consensus = CheckedConsensus(self.world, self.settings, journal, self, SimulatedTransport)
        self.consensus._poller = NoPoller()

    def crash(self) -> None:
        consensus, self.consensus = self.consensus, None
        self.paused = False
        consensus.shut_down()

    def on_event_applied(self, event, replayed) -> None:
        if self.consensus is None or not isinstance(event, Claimed) or event.node != self.name:
            return
        leads_in_it = self.consensus.role() == LEADER and self.consensus.figures()["term"] == event.epoch
        assert not (leads_in_it and replayed), (
            f"{self.name} is told of its claim {event.epoch} as if it were an old one"
        )

    def on_role_changed(self, leading: bool, term: int) -> None:
        if leading:
            assert self.world.leaders.setdefault(term, self.name) == self.name, f"two leaders in term {term}"

    def step(self) -> None:
        if self.consensus is None or self.paused:
            return
        self.transport.receive()
        self.consensus.tick()
        self.members = len(self.consensus.membership.addresses)
        if self.consensus._snapshots._writer is not None:
            self.consensus._snapshots._writer.join()
        if self.consensus.role() == LEADER and self.world.proposes and self.world.random.random() < 0.3:
            self.propose()

    def propose(self) -> None:
        consensus = self.consensus
        view, term = consensus.ledger.view, consensus.figures()["term"]
        if (view.epoch, view.owner) != (term, self.name) and self.world.random.random() < 0.8:
            consensus.submit(encode_command(Claim(term, self.name)), lambda answer, reason: None)
            return
        # Sometimes a command of an epoch that is over, as a leader in error would send it.
        epoch = view.epoch
        if view.open is not None and self.world.random.random() < 0.3:
            block = view.open
            seal = Seal(epoch, self.name, block.number, block.payload_id, block.last_index, block.block_hash)
            consensus.submit(encode_command(seal), lambda answer, reason: None)
            return
        command = next_append(view, epoch, self.name, self.world.random.choice((10, 100, 2000)))

        def acknowledged(answer, reason) -> None:
            if isinstance(answer, Accepted):
                known = self.world.acknowledged.setdefault((command.number, command.index), command.digest)
                assert known == command.digest, "two acknowledged flashblocks at one index"

        consensus.submit(encode_command(command), acknowledged)


def connect(world: World) -> None:
    """Establish what is missing between nodes that can reach each other."""
    for position, name in enumerate(NAMES):
        for other in NAMES[:position]:
            one, two = world.nodes[name], world.nodes[other]
            reachable = not {(name, other), (other, name)} & world.cut and not one.paused and not two.paused
            if not reachable or one.transport is None or two.transport is None:
                continue
            if other not in one.transport.peers and name not in two.transport.peers:
                continue
            connection = one.transport.open.get(other)
            agreed_on = connection is not None and connection == two.transport.open.get(name)
            if not agreed_on and world.random.random() < 0.15:
                world.connection_ids += 1
                one.transport.connect(other, world.connection_ids)
                two.transport.connect(name, world.connection_ids)


def amnesiacs(world: World) -> int:
    """How many lost their journal or disk and have not caught up since."""
    directories = [world.directory / name for name in NAMES]
    return sum((one / "rejoining").exists() or not (one / "vote").exists() for one in directories)


def shrunk(world: World) -> bool:
    """Whether somebody may count fewer members than there are: then two lost journals may be one too many."""
    return any(node.members < len(NAMES) for node in world.nodes.values())


def disturb(world: World) -> None:
    """One random fault, or the end of one."""
    chance = world.random.random
    up = [node for node in world.nodes.values() if node.consensus is not None]
    down = [node for node in world.nodes.values() if node.consensus is None]
    leaders = [node for node in up if node.consensus.role() == LEADER]
    victim = world.random.choice(leaders if leaders and chance() < 0.5 else list(world.nodes.values()))
    fault = world.random.choice(FAULTS)
    if fault == "crash" and victim.consensus is not None and len(down) < 3:
        victim.crash()
        if chance() < 0.25 and amnesiacs(world) < AMNESIACS_MAX and not shrunk(world):
            if chance() < 0.4:
                move_aside(victim.settings.data_dir)
            else:
                shutil.rmtree(victim.settings.data_dir)
    elif fault == "bounce" and victim.consensus is not None:
        victim.crash()
        victim.start()
    elif fault == "restart" and down:
        world.random.choice(down).start()
    elif fault == "cut":
        side = set(world.random.sample(NAMES, world.random.choice((1, 1, 2)))) if chance() < 0.7 else {victim.name}
        kind = world.random.choice(("both", "deaf", "mute"))
        for inside in side:
            for outside in set(NAMES) - side:
                if kind != "deaf":
                    world.cut.add((inside, outside))
                if kind != "mute":
                    world.cut.add((outside, inside))
    elif fault == "heal":
        world.cut.clear()
    elif fault == "pause" and victim.consensus is not None:
        victim.paused = True
    elif fault == "resume":
        for node in world.nodes.values():
            node.paused = False
    elif fault == "member" and leaders and not amnesiacs(world):
        change_members(leaders[0].consensus, world.random.choice(NAMES))
    elif fault == "transfer" and leaders:
        target = world.random.choice(NAMES)
        if target != leaders[0].name:
            leaders[0].consensus.hand_over(target, lambda answer, reason: None)


def change_members(leader: CheckedConsensus, name: str) -> None:
    """Remove a member, or take a removed one back; at least three stay."""
    gone = name not in leader.membership.addresses
    if not gone and len(leader.membership.addresses) <= MEMBERS_MIN:
        return
    change = MemberChange(name, address_of(name) if gone else None)
    with contextlib.suppress(ChangeRefused):
        leader.propose_change(change, lambda answer, reason: None)


def take_everybody_back(world: World) -> None:
    for node in world.nodes.values():
        if node.consensus is not None and node.consensus.role() == LEADER:
            for name in set(NAMES) - set(node.consensus.membership.addresses):
                change_members(node.consensus, name)


def run(world: World, seconds: float, disturbing: bool, until=lambda: False) -> None:
    end = world.now + seconds
    while world.now < end and not until():
        world.now += STEP_S
        if disturbing and world.random.random() < 0.08:
            disturb(world)
        connect(world)
        if not disturbing:
            take_everybody_back(world)
        for name in world.random.sample(NAMES, len(NAMES)):
            world.nodes[name].step()


def agreed(world: World) -> bool:
    consensuses = [node.consensus for node in world.nodes.values()]
    if any(consensus is not None and len(consensus.membership.addresses) < len(NAMES) for consensus in consensuses):
        return False
    if any(consensus is None or not consensus.is_caught_up() or consensus.rejoining for consensus in consensuses):
        return False
    return len({consensus.figures()["last_applied"] for consensus in consensuses}) == 1


@contextlib.contextmanager
def world_of(directory: Path, seed: int, monkeypatch) -> Iterator[World]:
    """Five nodes that have just started; they are ended with it."""
    world = World(directory, seed)
    monkeypatch.setattr(SimulatedTransport, "world", world, raising=False)
    monkeypatch.setattr(syncobj, "monotonic", lambda: world.now)
    monkeypatch.setattr(syncobj.library, "monotonicTime", lambda: world.now)
    monkeypatch.setattr("raft.member.os.urandom", world.random.randbytes)
    random.seed(seed)
    world.nodes = {name: SimulatedNode(world, name) for name in NAMES}
    try:
        for node in world.nodes.values():
            node.start()
        yield world
    finally:
        for node in world.nodes.values():
            if node.consensus is not None:
                node.crash()


def simulate(directory: Path, seed: int, monkeypatch) -> World:
    with world_of(directory, seed, monkeypatch) as world:
        run(world, 2.0, disturbing=False)
        run(world, CHAOS_S, disturbing=True)
        world.cut.clear()
        for node in world.nodes.values():
            node.paused = False
            if node.consensus is None:
                node.start()
        run(world, CALM_S, disturbing=False, until=lambda: agreed(world))
        assert agreed(world), "\n".join(
            f"{name}: {node.consensus.figures()} {sorted(node.consensus.membership.addresses)} {node.transport.open}"
            for name, node in world.nodes.items()
        )
        check_end(world)
    return world


def check_end(world: World) -> None:
    snapshots = {hashlib.sha256(node.consensus.ledger.snapshot()).digest() for node in world.nodes.values()}
    assert len(snapshots) == 1, "the ledgers differ"
    ledger = world.nodes[NAMES[0]].consensus.ledger
    ledger.check()
    assert ledger.sealed_since(0) is not None, "the window must reach back to the start for the check below"
    kept = {
        (block.number, entry.index): entry.digest for block in ledger.sealed_since(0) or () for entry in block.entries
    }
    if ledger.open is not None:
        kept |= {(ledger.open.number, entry.index): entry.digest for entry in ledger.open.entries}
    for key, digest in world.acknowledged.items():
        assert kept.get(key) == digest, f"acknowledged flashblock {key} is lost or altered"
