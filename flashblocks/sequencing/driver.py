"""The sequencer's loop as a pure core: what to do next, and what follows from how it went.

One thing is under way at a time: ask for the open block, start a build, seal it, commit it, insert it. `next(now)`
hands out the next step once; the shell carries it out and reports with the `on_…` method of its outcome, naming the
step's job. A report of a job that was dropped in the meantime changes nothing.

A block is inserted only after its commit, so a sequencer that loses its leadership has nothing to take back.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

import msgspec

from flashblocks.sequencing.attributes import next_attributes
from flashblocks.sequencing.l1 import SimulatedL1
from flashblocks.sequencing.origin import NextOriginRequired, select_origin
from flashblocks.sequencing.references import L2BlockRef
from flashblocks.sequencing.rollup import RollupConfig
from flashblocks.sequencing.schedule import SEALING_DURATION_S, build_start, seal_start
from flashblocks.wire.engine import Envelope, PayloadAttributes

TEMPORARY_ERROR_S: Final = 1.0
"""op-node's wait after a temporary error; we reach it step by step, as a failover cannot spare a second."""
RETRY_DELAYS_S: Final = (0.05, 0.1, 0.25, 0.5, TEMPORARY_ERROR_S)
UNKNOWN_COMMIT_RETRY_S: Final = 0.1
PREFIX_MISMATCH: Final = "prefix mismatch"
PREFIX_RESEALS_MAX: Final = 5
"""Seals in a row that may miss what is committed before the block is started anew."""
COMMIT_REFUSALS_MAX: Final = 3
"""Refusals of one payload after which it is given up and the head looked at again."""


class StartRefused(Exception):
    """admin_startSequencer cannot be followed; the text is op-node's."""


class AskOpenBlock(msgspec.Struct, frozen=True):
    """Ask the conductor which block the ledger has open, so that it is resumed and not built anew."""

    job: int


class StartBuild(msgspec.Struct, frozen=True):
    """engine_forkchoiceUpdated with attributes."""

    job: int
    head: L2BlockRef
    attributes: PayloadAttributes


class SealBlock(msgspec.Struct, frozen=True):
    """engine_getPayload."""

    job: int
    payload_id: bytes


class Commit(msgspec.Struct, frozen=True):
    """conductor_commitUnsafePayload."""

    job: int
    envelope: Envelope


class Insert(msgspec.Struct, frozen=True):
    """engine_newPayload and engine_forkchoiceUpdated without attributes."""

    job: int
    envelope: Envelope


Step = AskOpenBlock | StartBuild | SealBlock | Commit | Insert


class OpenBlock(msgspec.Struct, frozen=True):
    """The ledger's open block, as `flashblocks_openBlock` answers it."""

    number: int
    payload_id: bytes
    parent_hash: bytes
    attributes: PayloadAttributes
    last_index: int


class Phase(Enum):
    """Which step comes next, or is under way."""

    ASK = "ask"
    START = "start"
    SEAL = "seal"
    COMMIT = "commit"
    INSERT = "insert"


class SequencerDriver:
    """Builds block after block while active. `head` is the newest block the execution client has as its head."""

    def __init__(self, config: RollupConfig, l1: SimulatedL1, sealing_duration_s: float = SEALING_DURATION_S) -> None:
        self._config = config
        self._l1 = l1
        self._sealing_duration_s = sealing_duration_s
        self.head: L2BlockRef | None = None
        self.active = False
        self.stopping = False
        self.max_safe_lag = 0
        """Blocks the head may be ahead of the safe head before building pauses; 0 for no bound."""
        self.safe_number = 0
        self.recover_mode = False
        self._job = 0
        self._outstanding = False
        self._due = 0.0
        self._phase = Phase.ASK
        self._open: OpenBlock | None = None
        self._attributes: PayloadAttributes | None = None
        self._payload_id: bytes | None = None
        self._envelope: Envelope | None = None
        self._reseals = self._refusals = self._failures = 0

    def start(self, now: float, block_hash: bytes) -> None:
        """Become active on `block_hash`, which must be the head; raises StartRefused with op-node's words."""
        if self.active and not self.stopping:
            raise StartRefused("sequencer already running")
        if self.stopping:
            raise StartRefused("sequencer is stopping")
        if self.head is None:
            raise StartRefused(f"no prestate, cannot determine if sequencer start at 0x{block_hash.hex()} is safe")
        if self.head.hash != block_hash:
            raise StartRefused(
                f"block hash does not match: head 0x{self.head.hash.hex()}, received 0x{block_hash.hex()}"
            )
        self.active = True
        self._restart(now)

    def stop(self) -> bool:
        """Stop building; True if that is done at once, False while a commit or an insertion is still under way.

        The shell waits for `active` to become False, a bounded time, and then calls `abandon`. Idempotent.
        """
        if self.active and self._phase in (Phase.COMMIT, Phase.INSERT):
            self.stopping = True
            return False
        self.abandon()
        return True

    def abandon(self) -> None:
        """Stop now, whatever is under way. A committed block will come back from the conductor as a payload."""
        self.active = self.stopping = False
        self._restart(0.0)

    @property
    def wake_at(self) -> float | None:
        """When `next` will have something to hand out; None while inactive or while a step is under way."""
        return self._due if self.active and not self._outstanding else None

    @property
    def phase(self) -> Phase:
        """Which step is next or under way."""
        return self._phase

    @property
    def building(self) -> bytes | None:
        """Payload id of the build under way."""
        return self._payload_id

    def next(self, now: float) -> Step | None:
        """Hand out the step that is due at `now`, or None."""
        if not self.active or self._outstanding or now < self._due or self.head is None:
            return None
        step = self._step(now, self.head)
        self._outstanding = step is not None
        return step

    def _step(self, now: float, head: L2BlockRef) -> Step | None:
        if self._phase is Phase.ASK:
            return AskOpenBlock(self._job)
        if self._phase is Phase.START:
            return self._start_build(now, head)
        if self._phase is Phase.SEAL:
            assert self._payload_id is not None
            return SealBlock(self._job, self._payload_id)
        assert self._envelope is not None
        return Commit(self._job, self._envelope) if self._phase is Phase.COMMIT else Insert(self._job, self._envelope)

    def _start_build(self, now: float, head: L2BlockRef) -> StartBuild | None:
        timestamp = head.timestamp + self._config.block_time_s
        resumed = self._open
        if resumed is None and 0 < self.max_safe_lag <= head.number - self.safe_number:
            self._due = now + self._config.block_time_s
            return None
        if resumed is None:
            due = build_start(now, timestamp, self._config.block_time_s)
            if due > now:
                self._due = due
                return None
            try:
                origin = select_origin(self._config, self._l1, head, now)
            except NextOriginRequired:
                self._due = now + TEMPORARY_ERROR_S
                return None
            self._attributes = next_attributes(self._config, self._l1, head, origin)
            if self.recover_mode:
                self._attributes = msgspec.structs.replace(self._attributes, no_tx_pool=True)
        else:
            self._attributes = resumed.attributes
        return StartBuild(self._job, head, self._attributes)

    def on_open_block(self, now: float, job: int, open_block: OpenBlock | None) -> None:
        """The conductor answered: build on what is open, or start a block of our own."""
        if not self._answers(job):
            return
        if open_block is not None and self.head is not None and open_block.parent_hash != self.head.hash:
            if open_block.number > self.head.number:
                self._retry(now)  # the ledger is ahead: the conductor is about to hand us the missing payloads
                return
            open_block = None
        self._open = open_block
        self._go(Phase.START, now)

    def on_build_started(self, now: float, job: int, payload_id: bytes) -> None:
        """The engine builds: seal shortly before the block's time."""
        if not self._answers(job) or self._attributes is None:
            return
        self._payload_id = payload_id
        self._go(Phase.SEAL, seal_start(now, self._attributes.timestamp, self._sealing_duration_s))

    def on_sealed(self, now: float, job: int, envelope: Envelope) -> None:
        """The engine handed out the payload: have it committed."""
        if self._answers(job):
            self._envelope = envelope
            self._go(Phase.COMMIT, now)

    def on_committed(self, now: float, job: int) -> None:
        """A majority has the payload: insert it."""
        if self._answers(job):
            self._go(Phase.INSERT, now)

    def on_commit_refused(self, now: float, job: int, text: str) -> None:
        """The payload certainly was not committed. A prefix mismatch is cured by sealing again, at once."""
        if not self._answers(job):
            return
        if self.stopping:
            self.abandon()
            return
        if PREFIX_MISMATCH in text and self._reseals < PREFIX_RESEALS_MAX:
            self._reseals += 1
            self._envelope = None
            self._go(Phase.SEAL, now, keep_failures=True)
            return
        self._refusals += 1
        if PREFIX_MISMATCH in text or self._refusals >= COMMIT_REFUSALS_MAX:
            self._again(now)
        else:
            self._retry(now)

    def on_commit_unknown(self, now: float, job: int) -> None:
        """Nobody knows whether the payload was committed: offer the same one again, never another."""
        if not self._answers(job):
            return
        if self.stopping:
            self.abandon()
            return
        self._due = now + UNKNOWN_COMMIT_RETRY_S

    def on_inserted(self, now: float, job: int, head: L2BlockRef) -> None:
        """The block is the head: go on with the next one, without asking, as nobody else can have opened it."""
        if not self._answers(job):
            return
        self.head = head
        if self.stopping:
            self.abandon()
            return
        self._clear()
        self._go(Phase.START, now)

    def on_failed(self, now: float, job: int) -> None:
        """A step other than a commit failed or has an unknown outcome.

        A payload that is committed is inserted again; before that the block is started anew, and asked for first, as
        the engine may have forgotten the build.
        """
        if not self._answers(job):
            return
        if self.stopping:
            self.abandon()
        elif self._phase is Phase.INSERT:
            self._retry(now)
        else:
            self._again(now)

    def on_head(self, now: float, head: L2BlockRef) -> None:
        """The head moved by an imported payload: a build that is not on top of it is dropped."""
        if self.head is not None and head.hash == self.head.hash:
            return
        inserting = self._envelope if self._outstanding and self._phase is Phase.INSERT else None
        if inserting is not None and inserting.payload.block_hash == head.hash:
            return  # the insertion under way: its report follows
        self.head = head
        if self.stopping:
            self.abandon()
        elif self.active:
            self._restart(now)

    def check(self) -> None:
        """Raise AssertionError if an invariant is broken."""
        assert not self.stopping or self.active
        assert self.active or not self._outstanding
        assert self._phase not in (Phase.COMMIT, Phase.INSERT) or self._envelope is not None
        assert self._phase is not Phase.SEAL or self._payload_id is not None

    def _answers(self, job: int) -> bool:
        """Whether a report belongs to the step under way; it ends that step."""
        if job != self._job or not self._outstanding:
            return False
        self._outstanding = False
        return True

    def _go(self, phase: Phase, due: float, keep_failures: bool = False) -> None:
        self._phase = phase
        self._due = due
        if not keep_failures:
            self._failures = 0

    def _retry(self, now: float) -> None:
        self._due = now + RETRY_DELAYS_S[min(self._failures, len(RETRY_DELAYS_S) - 1)]
        self._failures += 1

    def _again(self, now: float) -> None:
        """Give the block up and begin it anew, with the question for the open block, after a delay."""
        failures = self._failures
        self._restart(now)
        self._failures = failures
        self._retry(now)

    def _restart(self, now: float) -> None:
        self._job += 1
        self._outstanding = False
        self._clear()
        self._go(Phase.ASK, now)

    def _clear(self) -> None:
        self._open = self._attributes = self._payload_id = self._envelope = None
        self._reseals = self._refusals = self._failures = 0
