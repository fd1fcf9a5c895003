"""Every drill as data: what it injects, which promises it puts to the test, how the stream should bear it.

`flashblocks drill list` prints this table; a drill is run by `chaos.runner` and judged by `chaos.judgement`.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Sequence
from pathlib import Path

from actors import fault_points
from chaos import commit_stages, disk, network
from chaos.damage import Damage, alter, tear, wipe
from chaos.dials import clock_jump, slow_disk
from chaos.disk import FullDisk
from chaos.drill import Drill, Scene
from chaos.expectation import Bound, Expect
from chaos.faults import (
    ACTORS,
    HANG,
    HANG_S,
    KILL,
    WHOLE_GROUP,
    AtFlashblock,
    Fault,
    KeptDead,
    Signals,
    Together,
    Transfer,
    victims,
)
from chaos.flood import Flood
from chaos.operations import HandedToPaused, Paused, SwitchedOff, WentOnAlone
from chaos.outages import Failing, NotReady, RayProcessKilled
from chaos.senders import Sender
from chaos.signalling import elsewhere
from chaos.target import DrillError

HALT_S = 8.0
BEHIND_BLOCKS = 200
SLOW_WRITE_S = 0.1
DEAD_S = 10.0

BOUND_TRANSFER = Bound(200, 400)
BOUND_CONDUCTOR = Bound(300, 800)
BOUND_MEMBER = Bound(400, 1000)
BOUND_SLOW = Bound(1000, 2000)


def _on_leader(kind: str, actor: str) -> Callable[[Scene], Fault]:
    actors = ACTORS if actor == WHOLE_GROUP else (actor,)
    return lambda scene: Signals(scene.target, kind, victims([scene.leader], actors))


def _on_follower(kind: str, actor: str) -> Callable[[Scene], Fault]:
    actors = ACTORS if actor == WHOLE_GROUP else (actor,)
    return lambda scene: Signals(scene.target, kind, victims(scene.some_followers(1), actors))


def _kept_dead(leader: bool, others: int, actors: Sequence[str], hold_s: float) -> Callable[[Scene], Fault]:
    def fault(scene: Scene) -> Fault:
        hurt = [scene.leader] * leader + scene.some_followers(others)
        return KeptDead(scene.target, victims(hurt, actors), hold_s)

    return fault


def _bounds() -> list[Drill]:
    """The rows of the bounds table: faults on the leader."""
    bounds = {"conductor": BOUND_CONDUCTOR, WHOLE_GROUP: BOUND_CONDUCTOR}
    made = [
        Drill(
            name="transfer",
            title="hand the lead over as an operator does (conductor_transferLeader)",
            row="bounds: planned transfer",
            fault=lambda scene: Transfer(scene.target, scene.leader),
            bound=BOUND_TRANSFER,
        )
    ]
    for actor in (*ACTORS, WHOLE_GROUP):
        what = "whole group" if actor == WHOLE_GROUP else actor
        made.append(
            Drill(
                name=f"kill-{actor}",
                title=f"SIGKILL the leader's {what}; Ray starts it again and it must catch up",
                row=f"bounds: SIGKILL {what}",
                fault=_on_leader(KILL, actor),
                bound=bounds.get(actor, BOUND_MEMBER),
            )
        )
    for actor in (*ACTORS, WHOLE_GROUP):
        what = "whole group" if actor == WHOLE_GROUP else actor
        made.append(
            Drill(
                name=f"hang-{actor}",
                title=f"SIGSTOP the leader's {what}, SIGCONT {HANG_S:.0f} s later; the woken one publishes nothing",
                row=f"bounds: SIGSTOP {what}",
                fault=_on_leader(HANG, actor),
                bound=BOUND_SLOW,
            )
        )
    return made


def _followers() -> list[Drill]:
    """Faults on those that do not lead: nobody outside should notice."""
    return [
        Drill(
            name=f"{kind}-follower-{actor}",
            title=f"{'SIGKILL' if kind == KILL else 'SIGSTOP'} a follower's {actor}",
            row="op-conductor: a standby fails; rollup-boost: a follower's failure does not reach the leader",
            fault=_on_follower(kind, actor),
            expect=Expect.UNNOTICED,
        )
        for kind, actor in (*((KILL, actor) for actor in (*ACTORS, WHOLE_GROUP)), (HANG, WHOLE_GROUP))
    ]


def _majorities() -> list[Drill]:
    """Several groups at once: with a majority the stream goes on, without one it halts and loses nothing."""

    def alone(scene: Scene) -> Fault:
        dead = [scene.leader, *scene.some_followers(2)]
        left = [group for group in scene.followers if group not in dead]
        return WentOnAlone(scene.target, dead, left, HALT_S)

    return [
        Drill(
            name="two-groups-dead",
            title=f"two of five groups, the leader's among them, kept dead for {DEAD_S:.0f} s",
            row="two of five groups dead",
            fault=_kept_dead(True, 1, ACTORS, DEAD_S),
            groups_min=5,
        ),
        Drill(
            name="two-sick-leaders",
            title="SIGSTOP the op-nodes of the leader and of another group: leadership must find a healthy one",
            row="op-conductor: two nodes bad",
            fault=lambda scene: Signals(
                scene.target, HANG, victims([scene.leader, *scene.some_followers(1)], ["op-node"])
            ),
            groups_min=5,
        ),
        Drill(
            name="three-groups-dead",
            title=f"three of five groups, the leader's among them, kept dead for {HALT_S:.0f} s, and back",
            row="three dead and back",
            fault=_kept_dead(True, 2, ACTORS, HALT_S),
            expect=Expect.HALTS,
            groups_min=5,
        ),
        Drill(
            name="three-conductors-dead",
            title=f"the conductors of three of five groups kept dead for {HALT_S:.0f} s, and back",
            row="op-conductor: the conductors of a majority dead",
            fault=_kept_dead(True, 2, ["conductor"], HALT_S),
            expect=Expect.HALTS,
            groups_min=5,
        ),
        Drill(
            name="override-without-majority",
            title=f"three of five conductors dead, and one of the others told to go on alone for {HALT_S:.0f} s",
            row="op-conductor: disaster recovery with conductor_overrideLeader",
            fault=alone,
            bound=BOUND_SLOW,
            groups_min=5,
        ),
        Drill(
            name="restart-everybody",
            title="SIGKILL all actors of all groups at the same moment",
            row="simultaneous restart of all five",
            fault=lambda scene: Signals(scene.target, KILL, victims(scene.everybody(), ACTORS)),
        ),
    ]


def _networks() -> list[Drill]:
    """The network between the groups: cut in two, in five, or in one direction."""

    def minority(scene: Scene) -> Fault:
        with_leader = [scene.leader, *scene.some_followers(1)]
        names = {group["name"] for group in with_leader}
        others = [group for group in scene.followers if group["name"] not in names]
        return network.Cut(scene.target, with_leader, others)

    def followers_cut(scene: Scene) -> Fault:
        two = scene.some_followers(2)
        names = {group["name"] for group in two}
        return network.Cut(scene.target, two, [group for group in scene.everybody() if group["name"] not in names])

    def from_all(direction: str) -> Callable[[Scene], Fault]:
        return lambda scene: network.Cut(scene.target, [scene.leader], scene.followers, direction)

    needs = (elsewhere, network.missing)
    held = f"for {HANG_S:.0f} s"
    return [
        Drill(
            name="partition-leader",
            title=f"the leader and one follower hear none of the other three {held}; then it heals",
            row="bounds: partition 2-3 with the leader on the small side",
            fault=minority,
            bound=BOUND_SLOW,
            groups_min=5,
            needs=needs,
        ),
        Drill(
            name="leader-alone",
            title=f"the leader hears nobody and is heard by nobody {held}",
            row="bounds: partition",
            fault=from_all(network.BOTH),
            bound=BOUND_SLOW,
            needs=needs,
        ),
        Drill(
            name="leader-deaf",
            title=f"what the others send does not reach the leader {held}",
            row="bounds: leader deaf",
            fault=from_all(network.INTO),
            bound=BOUND_SLOW,
            needs=needs,
        ),
        Drill(
            name="leader-mute",
            title=f"what the leader sends does not reach the others {held}",
            row="bounds: leader mute",
            fault=from_all(network.OUT_OF),
            bound=BOUND_SLOW,
            needs=needs,
        ),
        Drill(
            name="partition-followers",
            title=f"two followers hear none of the other three {held}",
            row="partition with the leader on the large side",
            fault=followers_cut,
            expect=Expect.UNNOTICED,
            groups_min=5,
            needs=needs,
        ),
        Drill(
            name="everybody-alone",
            title=f"no group hears another one for {HALT_S:.0f} s; then it heals",
            row="op-conductor: total partition",
            fault=lambda scene: network.Alone(scene.target, scene.everybody(), HALT_S),
            expect=Expect.HALTS,
            needs=needs,
        ),
    ]


def _stages() -> list[Drill]:
    """Death at every stage of a commit, at the leader."""
    when = {
        fault_points.BEFORE_APPEND: "before a flashblock is appended to the ledger",
        fault_points.BEFORE_PUBLISH: "after a flashblock is committed, before it is published",
        fault_points.AFTER_PUBLISH: "after a flashblock is published",
        fault_points.BEFORE_SEAL: "after the block is built, before it is committed",
        fault_points.DURING_SEAL: "after the block is committed, before its op-node is told",
        fault_points.BEFORE_INSERT: "after the block is committed, before it is inserted",
    }

    def fault(place: str) -> Callable[[Scene], Fault]:
        return lambda scene: commit_stages.dies_at(scene.target, scene.leader, place)

    def at(share: float) -> Callable[[Scene], Fault]:
        return lambda scene: AtFlashblock(scene.target, scene.leader, share)

    moments = [
        Drill(
            name=f"kill-at-{which}-flashblock",
            title=f"SIGKILL the leader's conductor right after the {which} flashblock of a block",
            row="op-conductor: the outcome depends on the moment",
            fault=at(share),
            bound=BOUND_CONDUCTOR,
        )
        for which, share in (("first", 0.0), ("middle", 0.5), ("last", 1.0))
    ]
    return moments + [
        Drill(
            name=f"dies-{place}",
            title=f"the leader's {fault_points.PLACES[place]} dies {text}",
            row="kill at every stage of a commit",
            fault=fault(place),
            bound=BOUND_MEMBER,
            needs=(commit_stages.missing,),
        )
        for place, text in when.items()
    ]


def _machines() -> list[Drill]:
    """Clocks, disks, and what is on them."""

    def clock(offset_s: float, everybody: bool) -> Callable[[Scene], Fault]:
        return lambda scene: clock_jump(scene.target, scene.everybody() if everybody else [scene.leader], offset_s)

    def damage(kind: str, how: Callable[[Path], None], actors: Sequence[str]) -> Callable[[Scene], Fault]:
        return lambda scene: Damage(scene.target, kind, victims([scene.leader], actors), how)

    def behind(scene: Scene) -> Fault:
        hold_s = BEHIND_BLOCKS * float(scene.target.endpoints()["block_time_s"])
        return KeptDead(scene.target, victims(scene.some_followers(1), ACTORS), hold_s)

    clocks = [
        Drill(
            name=f"clock-{direction}-{who}",
            title=f"the clock of {'everybody' if who == 'all' else 'the leader'} jumps {offset:+.0f} s, and back later",
            row="clock jump ±2 s",
            fault=clock(offset, who == "all"),
            needs=(commit_stages.missing,),
        )
        for direction, offset in (("ahead", 2.0), ("back", -2.0))
        for who in ("leader", "all")
    ]
    return [
        *clocks,
        Drill(
            name="slow-disk-leader",
            title=f"every write of the leader's journal and stores takes {SLOW_WRITE_S * 1000:.0f} ms more for 5 s",
            row="slow disk on one node",
            fault=lambda scene: slow_disk(scene.target, [scene.leader], SLOW_WRITE_S),
            needs=(commit_stages.missing,),
        ),
        Drill(
            name="slow-disk-follower",
            title=f"every write of a follower's journal and stores takes {SLOW_WRITE_S * 1000:.0f} ms more for 5 s",
            row="slow disk on one node",
            fault=lambda scene: slow_disk(scene.target, scene.some_followers(1), SLOW_WRITE_S),
            expect=Expect.UNNOTICED,
            needs=(commit_stages.missing,),
        ),
        Drill(
            name="full-disk-leader",
            title="no byte is left on the leader's disk for 10 s",
            row="full disk on one node",
            fault=lambda scene: FullDisk(scene.target, scene.leader),
            needs=(disk.missing,),
        ),
        Drill(
            name="full-disk-follower",
            title="no byte is left on a follower's disk for 10 s",
            row="full disk on one node",
            fault=lambda scene: FullDisk(scene.target, scene.some_followers(1)[0]),
            expect=Expect.UNNOTICED,
            needs=(disk.missing,),
        ),
        Drill(
            name="torn-journal",
            title="the leader's conductor dies in the middle of writing a journal record",
            row="torn journal",
            fault=damage("torn journal", tear, ["conductor"]),
            needs=(elsewhere,),
        ),
        Drill(
            name="altered-journal",
            title="the leader's conductor dies, and a byte in the middle of its journal is another one",
            row="torn journal: a damaged one is refused, the node rejoins from its peers",
            fault=damage("altered journal", alter, ["conductor"]),
            needs=(elsewhere,),
        ),
        Drill(
            name="torn-chain",
            title="the leader's builder and fallback EL die in the middle of writing a block",
            row="torn chain store",
            fault=damage("torn chain store", tear, ["builder", "fallback-el"]),
            needs=(elsewhere,),
        ),
        Drill(
            name="altered-chain",
            title="the leader's builder and fallback EL die, and a byte in the middle of their stores is another one",
            row="torn chain store: a damaged one is put aside, the chain is fetched from the others",
            fault=damage("altered chain store", alter, ["builder", "fallback-el"]),
            needs=(elsewhere,),
        ),
        Drill(
            name="reset-follower",
            title="a follower comes back with nothing on its disk while blocks keep coming",
            row="outage: a reset node races to catch up",
            fault=lambda scene: Damage(scene.target, "wiped", victims(scene.some_followers(1), ACTORS), wipe),
            expect=Expect.UNNOTICED,
            needs=(elsewhere,),
        ),
        Drill(
            name="follower-behind",
            title=f"a follower is gone for {BEHIND_BLOCKS} blocks and catches up",
            row="a follower down for 200 blocks",
            fault=behind,
            expect=Expect.UNNOTICED,
            slow=True,
        ),
    ]


def _outages() -> list[Drill]:
    """What large chains have lived through, bad traffic, and Ray's own processes."""

    def flood(scene: Scene) -> Fault:
        kill = Signals(scene.target, KILL, victims([scene.leader], ["conductor"]))
        return Together([Flood(scene.target, scene.random), kill])

    def failing(scene: Scene) -> Fault:
        endpoints = scene.target.endpoints()
        account = endpoints["accounts"][-1]
        sender = Sender(endpoints["chain_id"], account["address"], account["private_key"])
        return Together([Failing(scene.target, sender), Transfer(scene.target, scene.leader)])

    def kill_among_paused(scene: Scene) -> Fault:
        kill = Signals(scene.target, KILL, victims([scene.leader], ["conductor"]))
        return Together([Paused(scene.target, scene.some_followers(2)), kill])

    return [
        Drill(
            name="handed-to-paused",
            title="leadership is handed to a group whose conductor is paused; it must hand on by itself",
            row="outage: leadership handed to a conductor that could not act on it",
            fault=lambda scene: HandedToPaused(scene.target, scene.leader, scene.some_followers(1)[0]),
            bound=BOUND_SLOW,
        ),
        Drill(
            name="kill-among-paused",
            title="SIGKILL the leader's conductor while two followers' are paused: one that may act must follow it",
            row="op-conductor: paused conductors in an election",
            fault=kill_among_paused,
            bound=BOUND_MEMBER,
            groups_min=5,
        ),
        Drill(
            name="builder-switched-off",
            title=f"debug_setExecutionMode takes the leader's builder out for {HANG_S:.0f} s",
            row="rollup-boost: a builder's blocks are bad but valid (manual action)",
            fault=lambda scene: SwitchedOff(scene.target, scene.leader),
            bound=BOUND_SLOW,
        ),
        Drill(
            name="handed-to-unready",
            title="leadership is handed to a group whose op-node hangs; it must hand on by itself",
            row="outage: leadership handed to a node that is not ready",
            fault=lambda scene: NotReady(scene.target, scene.leader, scene.some_followers(1)[0]),
            bound=BOUND_SLOW,
        ),
        Drill(
            name="builder-diverges",
            title=f"the state of the leader's builder is not the others' for {HANG_S:.0f} s: a wei too much",
            row="builder divergence",
            fault=lambda scene: commit_stages.Diverges(scene.target, scene.leader),
            needs=(commit_stages.missing,),
        ),
        Drill(
            name="failing-transactions",
            title="transactions that write, create and then fail in every way, across a transfer",
            row="outage: a failing transaction leaves residue in the execution state",
            fault=failing,
        ),
        Drill(
            name="flood",
            title="hundreds of bad transactions and bad calls a second while the leader's conductor is killed",
            row="flood of bad transactions and bad RPC during a failover",
            fault=flood,
        ),
        Drill(
            name="kill-gcs",
            title="SIGKILL Ray's GCS and go on for 75 s: the data path must not notice",
            row="Ray head and GCS killed",
            fault=lambda scene: RayProcessKilled(scene.target, "gcs_server"),
            expect=Expect.UNNOTICED,
            ends_the_cluster=True,
            slow=True,
            needs=(elsewhere,),
        ),
    ]


DRILLS: tuple[Drill, ...] = (
    *_bounds(),
    *_followers(),
    *_majorities(),
    *_networks(),
    *_stages(),
    *_machines(),
    *_outages(),
)
CATALOGUE: dict[str, Drill] = {drill.name: drill for drill in DRILLS}
ALL = "all"


def chosen(names: Sequence[str]) -> list[Drill]:
    """The drills of these names or patterns (``kill-*``), each once; `all` are those that are not slow and leave the
    cluster alive. Raises DrillError for a name that nothing matches.
    """
    found: dict[str, Drill] = {}
    for name in names:
        if name == ALL:
            matching = [drill for drill in DRILLS if not drill.slow and not drill.ends_the_cluster]
        else:
            matching = [drill for drill in DRILLS if fnmatch.fnmatchcase(drill.name, name)]
        if not matching:
            raise DrillError(f"no drill named {name!r}; see: flashblocks drill list")
        found.update({drill.name: drill for drill in matching})
    return list(found.values())
