"""The conductor's traces: it hears the ledger's events and Raft's word on leadership, and records what they mean."""

from __future__ import annotations

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Gauge

from actors.rpc_server import CALLER
from actors.sidecar import read_chain_id
from flashblocks.wire.frames import FlashblockFrame
from raft.commands import Appended, Claimed, Event, Sealed
from raft.node import RaftNode
from tracing import names
from tracing.conducting import BlockTrace, FailoverTrace
from tracing.context import parse_frame_context, parse_traceparent, root_of
from tracing.stages import component_stages

OFFERS_REMEMBERED_MAX = 1024


class ConductorTrace:
    """Spans of one conductor. Register it with `RaftNode.on_event` and `.on_leadership`; everything is on the loop."""

    def __init__(self, raft: RaftNode, node: str, data_dir: str, genesis_path: str) -> None:
        self.registry = CollectorRegistry()
        self.stages = component_stages("conductor", node, data_dir, self.registry)
        chain_id = read_chain_id(genesis_path)
        self.blocks = BlockTrace(self.stages, chain_id, node)
        self.failover = FailoverTrace(self.stages, chain_id)
        self._raft, self._node = raft, node
        self._publishes: Callable[[], bool] = lambda: False
        self._make_metrics()
        self._offers: dict[tuple[int, int], float] = {}

    def bind(self, publishes: Callable[[], bool]) -> None:
        """Say how to know whether this node feeds the public stream."""
        self._publishes = publishes

    def _make_metrics(self) -> None:
        for name, text, value in (
            ("conductor_leader", "1 while this node leads in Raft", lambda: self._raft.is_leader),
            ("conductor_publishing", "1 while this node feeds the public stream", lambda: bool(self._publishes())),
            ("ledger_head", "Newest sealed block in this node's ledger", lambda: self._raft.ledger.head_number),
            ("ledger_epoch", "Newest epoch in this node's ledger", lambda: self._raft.ledger.epoch),
        ):
            gauge = Gauge(f"flashblocks_{name}", text, registry=self.registry)
            gauge.set_function(value)

    def on_event(self, event: Event, replayed: bool) -> None:
        """The ledger applied something on this node."""
        if replayed:
            return
        now, ours = time.time(), event.node == self._node
        if isinstance(event, Appended):
            self.blocks.began(event.number, now)
            self._note_kept(event.number, event.traceparent)
            self.failover.committed(ours, event.number, event.index, now)
        elif isinstance(event, Sealed):
            block = self._raft.ledger.sealed(event.number)
            payload_id = None if block is None else block.payload_id
            self.blocks.sealed(event.number, event.node, payload_id, event.block_hash, event.epoch, now)
            self.failover.committed(ours, event.number, 0, now)
        elif isinstance(event, Claimed) and not ours:
            self.failover.claimed_elsewhere(event.epoch, now)
        elif isinstance(event, Claimed):
            self.failover.claimed(event.epoch, now)
            self.blocks.claimed(self._raft.leader_lost_at)

    def _note_kept(self, number: int, context_text: str) -> None:
        if self.stages.tracer.samples_all:
            return
        context = parse_frame_context(context_text)
        if context is not None and context.build.sampled:
            self.blocks.kept(number)

    def on_leadership(self, leading: bool, term: int) -> None:
        """Raft made this node the leader, or no longer."""
        self.failover.elected(leading, self._raft.leader_lost_at, time.time())

    def offered(self, frame: FlashblockFrame) -> None:
        """A judged flashblock is proposed now."""
        now = time.time()
        self.blocks.began(frame.number, now)
        self._offers[frame.key] = now
        if len(self._offers) > OFFERS_REMEMBERED_MAX:  # of some nobody ever learns what became of them
            del self._offers[next(iter(self._offers))]

    def refused(self, frame: FlashblockFrame, reason: str) -> None:
        """It was not committed."""
        offered = self._offers.pop(frame.key, None)
        if offered is not None:
            self.stages.frame(frame, names.COMMIT, time.time() - offered, reason)

    def published(self, frame: FlashblockFrame, committed: float, ended: float) -> None:
        """It was committed at the one moment, and was published by the other."""
        offered, more = self._offers.pop(frame.key, None), {names.EPOCH: frame.epoch}
        if offered is not None:
            self.stages.frame(frame, names.COMMIT, committed - offered, ended=committed, more=dict(more))
        self.stages.frame(frame, names.PUBLISH, ended - committed, ended=ended, more=dict(more))

    def sealing(self, number: int, slot_start: float) -> None:
        """The op-node asks for this block's seal; its call names the block's trace."""
        caller = parse_traceparent(CALLER.get().traceparent)
        self.blocks.sealing(number, None if caller is None else root_of(caller), slot_start, time.time())

    def headers(self, payload_id: bytes | None) -> dict[str, str] | None:
        """What a call about this payload carries."""
        return None if payload_id is None else {"traceparent": self.blocks.trace_of(payload_id).traceparent}
