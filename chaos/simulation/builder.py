"""The builder: the real job and schedule (`flashblocks.builder`) around the stand-in for the EVM.

Wired as `actors.builder_source` does it: what is built is published at its trigger, adopted, and gone on from; what a
majority committed instead of it replaces it.
"""

from __future__ import annotations

import msgspec

from chaos.simulation.blocks import Block, envelope_of, execute, flashblock, frame_of, header_of, opened
from chaos.simulation.execution import TRANSACTIONS_PER_FLASHBLOCK_MAX, ChainDisk, Client, Followed, Step
from chaos.simulation.kernel import Process
from chaos.simulation.network import CallRefused, Connection, Network
from flashblocks.builder.job import (
    Attributes,
    Build,
    BuildOpening,
    Built,
    Cancel,
    Committed,
    Fact,
    Failed,
    Job,
    PayloadAsked,
    Publish,
    Tick,
    WakeAt,
)
from flashblocks.builder.schedule import Timing
from flashblocks.wire.engine import Envelope, PayloadAttributes
from flashblocks.wire.flashblock import Flashblock
from flashblocks.wire.frames import FlashblockFrame

BUILD_S_MIN, BUILD_S_SPREAD = 0.002, 0.010


class Builder(Client):
    """An execution client whose payloads grow in flashblocks."""

    resumes = True
    """A mutant begins every job at index 0."""
    lies = False
    """What it publishes is not what it executed."""

    def __init__(
        self,
        network: Network,
        process: Process,
        disk: ChainDisk,
        peers: list[str],
        timing: Timing,
        clock_skew: list[float],
    ) -> None:
        super().__init__(network, process, disk, peers)
        self.job = Job(timing)
        self._skew = clock_skew
        self._subscribers: list[Connection] = []
        self._published: list[FlashblockFrame] = []
        self._parent: Block | None = None
        self._attributes: PayloadAttributes | None = None
        self._ready: tuple[Followed, Step, FlashblockFrame] | None = None
        self._ground: dict[int, bytes] = {}
        self._builds = self._wakes = 0

    def _now(self) -> float:
        return self.process.clock.now + self._skew[0]

    # The source of payloads

    def begin_payload(self, identifier: bytes, parent: Block, attributes: PayloadAttributes) -> None:
        """Begin a build, or go on behind what was followed of it."""
        followed = self.followed.get(identifier)
        last = None if followed is None or not followed.steps else len(followed.steps) - 1
        if self.job.payload_id != identifier:
            self._parent, self._attributes, self._published = parent, attributes, []
            steps = [] if followed is None else followed.steps
            self._ground = {step.flashblock.index: step.flashblock.diff.block_hash for step in steps}
        if not self.resumes:
            last = None
            self.followed.pop(identifier, None)
        self._tell(Attributes(identifier, attributes.timestamp, attributes.no_tx_pool, last))

    def get_payload(self, identifier: bytes) -> Envelope:
        """engine_getPayload: what was published is the block, and nothing follows."""
        self._tell(PayloadAsked(identifier))
        followed = self.followed.get(identifier)
        if followed is None or not followed.steps:
            raise CallRefused("Unknown payload")
        return envelope_of([step.flashblock for step in followed.steps])

    def on_applied(self, made: Flashblock) -> None:
        """A flashblock came back from the ledger: if it is new here, go on behind it."""
        block_hash = made.diff.block_hash
        if made.payload_id != self.job.payload_id or self._ground.get(made.index) == block_hash:
            return
        self._ground = {index: ground for index, ground in self._ground.items() if index < made.index}
        self._ground[made.index] = block_hash
        self._published = [frame for frame in self._published if frame.index < made.index]
        self._tell(Committed(made.payload_id, made.index, foreign=True))

    def on_head(self) -> None:
        """The head reached the height of the job's block."""
        if self._parent is not None and self.head.number == self._parent.number + 1 and self.job.payload_id:
            self._tell(PayloadAsked(self.job.payload_id))

    # The stream

    def on_peer(self, peer: Connection, start: object, port: str) -> None:
        """A subscriber is greeted with the open block's flashblocks."""
        self._subscribers.append(peer)
        for frame in self._published:
            peer.to_client(frame)

    def on_peer_lost(self, peer: Connection) -> None:
        """A subscriber left."""
        if peer in self._subscribers:
            self._subscribers.remove(peer)

    def on_peer_frame(self, peer: Connection, message: object) -> None:
        """Nobody has anything to say to a builder."""

    # The job's door

    def _tell(self, fact: Fact) -> None:
        for decision in self.job.step(fact, self._now()):
            match decision:
                case BuildOpening():
                    self._build_opening(decision)
                case Build():
                    self._begin_building(decision)
                case Publish():
                    self._publish()
                case WakeAt(at_s):
                    self._wakes += 1
                    self.process.after(max(0.0, at_s - self._now()), self._tick, self._wakes)
                case Cancel():
                    self._builds += 1
                    self._ready = None
        self.job.check()

    def _tick(self, wake: int) -> None:
        if wake == self._wakes:
            self._tell(Tick())

    def _build_opening(self, opening: BuildOpening) -> None:
        assert self._parent is not None and self._attributes is not None
        attributes, parent = self._attributes, self._parent
        state = execute(parent.state, attributes.transactions)
        header = header_of(parent.number + 1, parent.hash, attributes)
        made = flashblock(header, opening.payload_id, 0, state, len(attributes.transactions), attributes.transactions)
        followed = Followed(opening.payload_id, header, parent.state)
        self._ready = (followed, Step(made, state, committed=False), frame_of(made, parent.hash))
        if attributes.no_tx_pool:
            self._adopt(self._ready)
        self._tell(Built(opening.payload_id, 0))

    def _begin_building(self, build: Build) -> None:
        """A first candidate soon, the last one shortly before the trigger."""
        self._builds += 1
        self._ready = None
        followed = self.followed.get(build.payload_id)
        if followed is None or len(followed.steps) != build.index:
            self._tell(Failed(build.payload_id, build.index))
            return
        took_s = BUILD_S_MIN + BUILD_S_SPREAD * self.process.clock.draw()
        late_s = build.due_s - self._now() - took_s
        self.process.after(took_s, self._build_one, build, followed, self._builds)
        if late_s > took_s:
            self.process.after(late_s, self._build_one, build, followed, self._builds)

    def _build_one(self, build: Build, followed: Followed, number: int) -> None:
        if number != self._builds:
            return
        chosen = self.pool.best(followed.state, TRANSACTIONS_PER_FLASHBLOCK_MAX)
        state = execute(followed.state, chosen)
        so_far = followed.transactions + len(chosen)
        made = flashblock(followed.header, build.payload_id, build.index, state, so_far, chosen)
        frame = frame_of(made, followed.header.parent_hash)
        self._ready = (followed, Step(made, state, committed=False), frame)
        self._tell(Built(build.payload_id, build.index))

    def _publish(self) -> None:
        ready, self._ready = self._ready, None
        assert ready is not None, "only what was built is published"
        if not self._adopt(ready):
            return
        frame = self._altered(ready[2]) if self.lies else ready[2]
        self._published.append(frame)
        for peer in self._subscribers:
            peer.to_client(frame)

    @staticmethod
    def _altered(frame: FlashblockFrame) -> FlashblockFrame:
        made = opened(frame.body)
        diff = msgspec.structs.replace(made.diff, state_root=made.diff.state_root[::-1])
        return frame_of(msgspec.structs.replace(made, diff=diff), frame.parent_hash)

    def _adopt(self, ready: tuple[Followed, Step, FlashblockFrame]) -> bool:
        followed, step, _ = ready
        known = self.followed.get(followed.payload_id)
        if known is not None and len(known.steps) > step.flashblock.index:
            return False
        target = followed if known is None else known
        assert len(target.steps) == step.flashblock.index, "adopted flashblocks follow one another"
        self.keep(target, step)
        self._ground[step.flashblock.index] = step.flashblock.diff.block_hash
        return True
