"""The conductor's spans: the root and the seal of each block it seals, and the failover that made it the leader."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from tracing import names
from tracing.context import TraceRoot, block_root, failover_root
from tracing.stages import Stages
from tracing.tracer import Attribute

BLOCKS_REMEMBERED_MAX = 16
LATE_NEWS_S = 0.25
"""How much later than it happened the event loop may hear of a commit: a leader lost before that was another one."""
HAND_OVER_S_MAX = 5.0
"""The successor's claim follows within this time, or is another story."""
UNFLUSHED_S = 1.2
"""What a killed leader recorded at the end may be lost (BATCH_DELAY_MS): its successor records those roots again."""


class BlockTrace:
    """The roots of block traces. Every conductor follows along; the one that seals records."""

    def __init__(self, stages: Stages, chain_id: int, node: str) -> None:
        self._stages, self._chain_id, self._node = stages, chain_id, node
        self._began: OrderedDict[int, float] = OrderedDict()
        self._kept: OrderedDict[int, None] = OrderedDict()
        self._sealing: tuple[int, TraceRoot | None, float] | None = None
        self._others_last: tuple[TraceRoot, float, float, dict[str, Attribute]] | None = None
        self._sealed_at = 0.0

    def trace_of(self, payload_id: bytes) -> TraceRoot:
        """The root that a payload's spans hang below."""
        return self._stages.tracer.sampled(block_root(self._chain_id, payload_id))

    def began(self, number: int, at: float) -> None:
        """The first sign of a block of this height; later ones do not count."""
        if number not in self._began:
            self._began[number] = at
            if len(self._began) > BLOCKS_REMEMBERED_MAX:
                self._began.popitem(last=False)

    def kept(self, number: int) -> None:
        """A builder keeps this block's trace, whatever the sampler says: it is one in which leadership changed."""
        if number not in self._kept:
            self._kept[number] = None
            if len(self._kept) > BLOCKS_REMEMBERED_MAX:
                self._kept.popitem(last=False)

    def sealing(self, number: int, root: TraceRoot | None, slot_start: float, now: float) -> None:
        """The op-node asks for a seal; `root` is the trace its call names."""
        self._sealing = (number, root, now)
        start = max(slot_start, self._sealed_at)
        self._began[number] = min(self._began.get(number, now), max(start, 0.0) or now)

    def sealed(
        self, number: int, node: str, payload_id: bytes | None, block_hash: bytes, epoch: int, now: float
    ) -> None:
        """A block was sealed, by whomever."""
        began = self._began.pop(number, now)
        asked = self._sealing if self._sealing is not None and self._sealing[0] == number else None
        root = self.trace_of(payload_id) if payload_id is not None else asked[1] if asked is not None else None
        self._sealed_at, self._others_last = now, None
        if root is None:
            return
        if number in self._kept:
            root = root._replace(sampled=True)
        attributes: dict[str, Attribute] = {
            names.BLOCK_NUMBER: number,
            names.BLOCK_HASH: "0x" + block_hash.hex(),
            names.EPOCH: epoch,
            names.OUTCOME: "ok" if payload_id is not None else "fallback",
        }
        if payload_id is not None:
            attributes[names.PAYLOAD_ID] = "0x" + payload_id.hex()
        if node != self._node:
            self._others_last = (root, began, now, attributes)
            return
        tracer = self._stages.tracer
        seal_began = asked[2] if asked is not None else now
        self._stages.observe(names.SEAL, now - seal_began, root)
        tracer.span(root, names.SEAL, seal_began, now, attributes)
        tracer.root(root, names.BLOCK, began, now, attributes)

    def claimed(self, noticed_at: float | None) -> None:
        """This node leads from here on; a leader that died has perhaps not told of its last block."""
        last, self._others_last = self._others_last, None
        if last is None or noticed_at is None:
            return
        root, began, sealed_at, attributes = last
        if -LATE_NEWS_S < noticed_at - sealed_at < UNFLUSHED_S:
            self._stages.tracer.root(root, names.BLOCK, began, sealed_at, attributes)


class FailoverTrace:
    """One failover after another, as the new leader's conductor sees it: steps in order, each ending where it says."""

    def __init__(self, stages: Stages, chain_id: int) -> None:
        self._stages, self._chain_id = stages, chain_id
        self._last_commit: float | None = None
        self._noticed: float | None = None
        self._elected: float | None = None
        self._claimed: tuple[int, float] | None = None
        self._starting: float | None = None
        self._resumed: float | None = None
        self._hand_over: tuple[float, float, float | None] | None = None  # last commit, begun, leadership lost
        self.on_finished: Callable[[dict[str, Any]], None] = lambda told: None
        """Hears of each failover that is over: its epoch, cause and trace, how long it took and each of its steps."""

    def handing_over(self, now: float) -> None:
        """This leader gives leadership away, because its group cannot go on or somebody asked for it."""
        self._hand_over = (self._last_commit if self._last_commit is not None else now, now, None)

    def claimed_elsewhere(self, epoch: int, now: float) -> None:
        """Another node leads: what happened here before belongs to its failover's trace."""
        hand_over, self._hand_over = self._hand_over, None
        if hand_over is None:
            return
        last_commit, began, ended = hand_over
        if ended is None or now - ended > HAND_OVER_S_MAX:
            return  # it failed, or is long past
        root = failover_root(self._chain_id, epoch)
        attributes: dict[str, Attribute] = {names.EPOCH: epoch, names.CAUSE: "transfer", names.OUTCOME: "ok"}
        for name, start, end in ((names.DETECT, last_commit, began), (names.HAND_OVER, began, ended)):
            self._stages.observe(name, end - start, root)
            self._stages.tracer.span(root, name, start, end, attributes)

    def committed(self, ours: bool, number: int, index: int, now: float) -> None:
        """A flashblock or block was committed; the first of ours after a claim ends the failover."""
        if ours and self._claimed is not None:
            self._finish(number, index, now)
        self._last_commit = now

    def elected(self, leading: bool, noticed_at: float | None, now: float) -> None:
        """Raft made this node the leader, or no longer; `noticed_at` is when the old one's connection broke."""
        self._claimed = self._starting = self._resumed = None
        self._elected = now if leading else None
        if self._hand_over is not None:
            self._hand_over = None if leading else (*self._hand_over[:2], now)
        last = self._last_commit
        this_one = noticed_at is not None and (last is None or noticed_at > last - LATE_NEWS_S)
        self._noticed = noticed_at if this_one else None

    def claimed(self, epoch: int, now: float) -> None:
        """The claim is committed."""
        if self._elected is not None:
            self._claimed = (epoch, now)

    def trace_id(self, epoch: int) -> str:
        """The id of the trace of the failover that ends in this epoch, for the log."""
        return f"{failover_root(self._chain_id, epoch).trace_id:032x}"

    def starting(self, now: float) -> None:
        """The own sequencer is told to start (again, perhaps)."""
        if self._starting is None and self._claimed is not None:
            self._starting = now

    def started(self, now: float) -> None:
        """It runs, level with the ledger."""
        if self._resumed is None:
            self._resumed = now

    def _finish(self, number: int, index: int, now: float) -> None:
        assert self._claimed is not None and self._elected is not None
        epoch, claimed = self._claimed
        root = failover_root(self._chain_id, epoch)
        noticed = self._noticed
        first = self._last_commit
        start = min(each for each in (first, noticed, self._elected) if each is not None)
        cause = "start" if first is None else "transfer" if noticed is None else "leader lost"
        attributes: dict[str, Attribute] = {
            names.EPOCH: epoch,
            names.CAUSE: cause,
            names.BLOCK_NUMBER: number,
            names.FLASHBLOCK_INDEX: index,
            names.OUTCOME: "ok",
        }
        starting = self._starting if self._starting is not None else claimed
        resumed = self._resumed if self._resumed is not None else starting
        steps: list[tuple[str, float, float]] = []
        if noticed is not None:  # else the old leader tells of its side
            steps = [(names.DETECT, start, noticed), (names.ELECT, noticed, self._elected)]
        steps += [
            (names.CLAIM, self._elected, claimed),
            (names.CATCH_UP, claimed, starting),
            (names.RESUME, starting, resumed),
            (names.FIRST_FLASHBLOCK, resumed, now),
        ]
        for name, began, ended in steps:
            self._stages.observe(name, ended - began, root)
            self._stages.tracer.span(root, name, began, ended, attributes)
        self._stages.observe(names.FAILOVER, now - start, root)
        self._stages.tracer.root(root, names.FAILOVER, start, now, attributes)
        self._claimed = self._elected = self._starting = self._resumed = None
        took_ms = {name.removeprefix("failover "): round(1000 * (ended - began), 1) for name, began, ended in steps}
        self.on_finished(
            {
                "epoch": epoch,
                "cause": cause,
                "block": number,
                "index": index,
                "took_ms": round(1000 * (now - start), 1),
                "steps_ms": took_ms,
                "trace_id": f"{root.trace_id:032x}",
            }
        )
