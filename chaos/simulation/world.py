"""A whole cluster in one process: put together, disturbed by a schedule, healed, and read back for the checker."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from random import Random
from typing import Any, Final

import msgspec

from chaos.checker import Report, Violation
from chaos.history import Event, SealedBlock, Seen
from chaos.simulation import schedule as faults
from chaos.simulation.blocks import transaction_hash
from chaos.simulation.boost import RollupBoost
from chaos.simulation.builder import Builder
from chaos.simulation.conductor import Conductor
from chaos.simulation.consensus import GENESIS_HASH, Consensus, Variant
from chaos.simulation.edge import EDGE, RpcNode, Senders, Witness
from chaos.simulation.execution import ChainDisk, Client, FallbackEl
from chaos.simulation.injuries import Injuries
from chaos.simulation.judge import judge
from chaos.simulation.kernel import Clock, Process
from chaos.simulation.network import Network
from chaos.simulation.op_node import OpNode
from chaos.simulation.proxy import Proxy
from chaos.simulation.raft_disk import RaftDisk
from chaos.simulation.schedule import FaultPlan, draw_schedule
from flashblocks.builder.schedule import Timing
from flashblocks.conductor.publishing import Publisher
from flashblocks.proxy.ordering import Ordering, OrderSettings
from flashblocks.sequencing.l1 import SimulatedL1
from flashblocks.sequencing.rollup import RollupConfig, SystemConfig
from flashblocks.wire.hexadecimal import data

GENESIS_TIME_S: Final = 1_700_000_000
"""Wall clock at the start of a run, in Unix seconds."""
L1 = SimulatedL1(b"simulation", GENESIS_TIME_S)
UNSETTLED: Final = "no recovery"
STEADY_S: Final = 1.6
"""From the start to the first fault: an election, a claim, and the first flashblocks."""
SETTLE_STEP_S: Final = 0.5
SETTLE_S_MAX: Final = 25.0
SETTLED_BLOCKS: Final = 2
CHECK_PERIOD_S: Final = 0.5


class Shape(msgspec.Struct, frozen=True):
    """How large a run is, and its cadence."""

    groups: int
    block_s: int
    flashblock_ms: int
    send_offset_ms: int
    chaos_s: float
    faults: int


SHAPES: Final = (
    Shape(3, 1, 250, -70, 3.0, 2),
    Shape(3, 1, 200, -110, 4.0, 3),
    Shape(5, 1, 250, -70, 3.0, 3),
    Shape(5, 2, 250, -110, 4.0, 4),
)


class Parts:
    """The classes a cluster is made of; a mutant replaces some of them."""

    variant: Variant = Variant()
    conductor: type[Conductor] = Conductor
    publisher: Callable[[str], Publisher] = Publisher
    boost: type[RollupBoost] = RollupBoost
    builder: type[Builder] = Builder
    op_node: type[OpNode] = OpNode
    ordering: Callable[[OrderSettings], Ordering] = Ordering


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What a run is made of besides its seed; None is drawn from the seed."""

    kinds: tuple[str, ...] = tuple(faults.KINDS)
    shape: Shape | None = None
    schedule: tuple[FaultPlan, ...] | None = None
    lasts_s: float | None = None
    """How long every fault lasts."""


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One seed's outcome."""

    seed: int
    shape: Shape
    schedule: list[FaultPlan]
    history: list[Event]
    report: Report
    simulated_s: float
    cpu_s: float
    events: int
    leaders: int

    @property
    def passed(self) -> bool:
        """Whether nothing was broken."""
        return self.report.passed


class Cluster:
    """One run."""

    def __init__(self, seed: int, options: Options, parts: Parts | None = None) -> None:
        random = Random(f"schedule {seed}")
        self.seed = seed
        self.shape = options.shape or random.choice(SHAPES)
        self.clock = Clock(seed)
        self.network = Network(self.clock)
        self.history: list[Event] = []
        self.groups = [f"sequencer-{number}" for number in range(self.shape.groups)]
        self.skews: dict[str, list[float]] = {group: [float(GENESIS_TIME_S)] for group in self.groups}
        self.epochs: dict[int, str] = {}
        self._parts = parts or Parts()
        self._injuries = Injuries(self.network, self.groups, self.skews, self.history)
        end_s = STEADY_S + self.shape.chaos_s
        self.schedule = (
            list(options.schedule)
            if options.schedule is not None
            else draw_schedule(random, self.groups, options.kinds, STEADY_S, end_s, self.shape.faults)
        )
        if options.lasts_s is not None:
            lasting = {"lasts_s": options.lasts_s}
            self.schedule = [msgspec.structs.replace(plan, **lasting) for plan in self.schedule]
        self._build()

    # Putting it together

    def _build(self) -> None:
        shape, network, parts = self.shape, self.network, self._parts
        config = RollupConfig(
            l2_chain_id=901,
            genesis_hash=GENESIS_HASH,
            genesis_time=GENESIS_TIME_S,
            genesis_l1=L1.block(0).id,
            system_config=SystemConfig(gas_limit=140_000_000),
            block_time_s=shape.block_s,
        )
        timing = Timing(shape.block_s * 1000, shape.flashblock_ms, shape.send_offset_ms)
        cadence_s = (shape.flashblock_ms / 1000, float(shape.block_s))
        clients = [f"{group}/{kind}" for group in self.groups for kind in ("fallback-el", "builder")]
        op_nodes = [f"{group}/op-node" for group in self.groups]
        proxies = ["proxy-0", "proxy-1"]
        doors = [f"{group}/conductor" for group in self.groups]
        for group in self.groups:
            skew = self.skews[group]
            others = [client for client in clients if not client.startswith(group)]
            peers = [peer for peer in op_nodes if not peer.startswith(group)]

            def make_conductor(
                process: Process, disk: RaftDisk, group: str = group, skew: list[float] = skew
            ) -> Conductor:
                raft = Consensus(network, process, group, self.groups, disk, parts.variant)
                raft.on_voted = partial(self._injuries.on_voted, group)
                return parts.conductor(
                    network, process, group, raft, self.groups, parts.publisher(group), cadence_s, skew
                )

            def make_op_node(
                process: Process, _: Any, group: str = group, peers: list[str] = peers, skew: list[float] = skew
            ) -> OpNode:
                return parts.op_node(network, process, group, config, L1, peers, skew)

            def make_builder(
                process: Process, disk: ChainDisk, others: list[str] = others, skew: list[float] = skew
            ) -> Builder:
                return parts.builder(network, process, disk, others, timing, skew)

            def make_boost(process: Process, _: Any, group: str = group, skew: list[float] = skew) -> RollupBoost:
                return parts.boost(network, process, group, cadence_s[0], skew)

            def make_el(process: Process, disk: ChainDisk, others: list[str] = others) -> FallbackEl:
                return FallbackEl(network, process, disk, others)

            network.add(f"{group}/fallback-el", group, make_el, ChainDisk().begin(GENESIS_TIME_S))
            network.add(f"{group}/builder", group, make_builder, ChainDisk().begin(GENESIS_TIME_S))
            network.add(f"{group}/rollup-boost", group, make_boost)
            network.add(f"{group}/op-node", group, make_op_node)
            network.add(f"{group}/conductor", group, make_conductor, RaftDisk())
        settings = OrderSettings()
        record = self.history.append
        for proxy in proxies:
            network.add(proxy, EDGE, lambda process, _: Proxy(network, process, doors, parts.ordering(settings)))
        rpc_disk = ChainDisk().begin(GENESIS_TIME_S)
        network.add(
            "rpc-node", EDGE, lambda process, disk: RpcNode(network, process, disk, proxies, clients, record), rpc_disk
        )
        all_doors = [(proxy, True) for proxy in proxies] + [(door, False) for door in doors]
        network.add("witness", EDGE, lambda process, _: Witness(network, process, all_doors, record))
        period_s = shape.flashblock_ms / 1000 / 2
        network.add("clients", EDGE, lambda process, _: Senders(network, process, clients, period_s, 4, record))
        for slot in network.slots.values():
            self.clock.at(0.02 * self.clock.draw(), None, slot.start)
        for number, plan in enumerate(self.schedule):
            self.clock.at(plan.at, None, self._injuries.inflict, number, plan)

    # Running it

    def run(self) -> Run:
        """Through steady state, faults and healing to the verdict."""
        began = time.process_time()
        with _without_collector():
            end_s = max([STEADY_S + self.shape.chaos_s, *(plan.at + plan.lasts_s for plan in self.schedule)]) + 0.2
            self._run_to(end_s)
            self._injuries.heal()
            settled = self._settle(end_s)
            self._read_chain()
            simulated_s = self.clock.now
            self.clock.drop_all()
        report = judge(self.history, self.shape.groups, self.shape.block_s)
        if not settled:
            stuck = Violation(UNSETTLED, self._describe())
            report = msgspec.structs.replace(report, violations=(*report.violations, stuck))
        return Run(
            seed=self.seed,
            shape=self.shape,
            schedule=self.schedule,
            history=self.history,
            report=report,
            simulated_s=simulated_s,
            cpu_s=time.process_time() - began,
            events=self.clock.events,
            leaders=len({event.epoch for event in self.history if isinstance(event, Seen) and event.epoch}),
        )

    def _run_to(self, end_s: float) -> None:
        while self.clock.now < end_s:
            self.clock.run(min(end_s, self.clock.now + CHECK_PERIOD_S))
            self.check()

    def check(self) -> None:
        """Every component's own invariants."""
        for slot in self.network.slots.values():
            if slot.component is not None:
                slot.component.check()

    def _settle(self, since_s: float) -> bool:
        """Go on until every chain stands on one new block; False when that does not come to pass."""
        target = max(client.head.number for client in self._clients()) + SETTLED_BLOCKS
        while self.clock.now < since_s + SETTLE_S_MAX:
            self._run_to(self.clock.now + SETTLE_STEP_S)
            if all(client.head.number >= target for client in self._clients()):
                return True
        return False

    def _clients(self) -> Iterator[Client]:
        for slot in self.network.slots.values():
            if isinstance(slot.component, Client):
                yield slot.component

    def _read_chain(self) -> None:
        for slot in self.network.slots.values():
            client = slot.component.chain if isinstance(slot.component, RpcNode) else slot.component
            if not isinstance(client, Client):
                continue
            for number in range(1, client.head.number + 1):
                block = client.block(number)
                hashes = tuple(data(transaction_hash(raw)) for raw in block.transactions)
                self.history.append(SealedBlock(slot.name, number, data(block.hash), data(block.parent_hash), hashes))

    def _describe(self) -> str:
        heads = {
            slot.name: slot.component.head.number
            for slot in self.network.slots.values()
            if isinstance(slot.component, Client)
        }
        raft = {
            group: (
                conductor.raft.is_leader,
                conductor.raft.ledger.epoch,
                conductor.raft.ledger.head_number,
                conductor.control.health.sickness.name,
                conductor.control.active,
            )
            for group in self.groups
            if (conductor := self.network.slots[f"{group}/conductor"].component) is not None
        }
        return f"after {SETTLE_S_MAX:.0f} s without faults not every chain has grown: heads {heads}, conductors {raft}"


def simulate(seed: int, options: Options | None = None, parts: Parts | None = None) -> Run:
    """Run one seed; an exception is our own bug and says so."""
    return Cluster(seed, options or Options(), parts).run()


@contextmanager
def _without_collector() -> Iterator[None]:
    """A run is short and its garbage small: collecting in between costs a tenth of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
