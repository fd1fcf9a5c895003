"""rollup-boost's core: one door, facts in, decisions out.

A flashblock of the builder is inspected, executed by the execution client, offered to the conductor, and, once the
ledger has committed it, promised.  getPayload answers what is promised, whatever has happened to the builder, the mode
or the rest of the block: nothing is added to it silently and it is never replaced.  Committed flashblocks of another
leader take the same way from the middle on, so that both execution clients here stand where the chain stands.  Where
the builder makes none, the execution client does (`standing_in`).

Every fact ends in ``_advance``, which looks at all blocks and does whatever has become possible (level-triggered).
"""

from flashblocks.rollup_boost import executing, standing_in
from flashblocks.rollup_boost.answering import Answering
from flashblocks.rollup_boost.assembly import Block, Progress
from flashblocks.rollup_boost.blocks import Blocks
from flashblocks.rollup_boost.facts import (
    Applied,
    BlocksOffered,
    Called,
    Committed,
    ConductorLost,
    Decision,
    Fact,
    FlashblockArrived,
    Forkchoice,
    Forward,
    GarbageArrived,
    HeadSeen,
    Leadership,
    Linked,
    ModeSet,
    Offering,
    PayloadAsked,
    PayloadIdAnswered,
    Refused,
    RequestResend,
    Sealed,
    SetHealth,
    StoodIn,
    Stream,
    Target,
    WakeAt,
)
from flashblocks.rollup_boost.health import PeerHealth, judge_health
from flashblocks.rollup_boost.judging import Finding, inspect
from flashblocks.rollup_boost.rules import Rules
from flashblocks.rollup_boost.selection import ExecutionMode, asks_builder
from flashblocks.rollup_boost.situation import Situation
from flashblocks.wire.flashblock import Flashblock
from flashblocks.wire.frames import FlashblockFrame

EARLY_FRAMES_MAX = 1024


class Core:
    """See the module's docstring."""

    def __init__(self, rules: Rules) -> None:
        self.situation = Situation(rules, rules.mode)
        self.health = judge_health(rules.mode, self.situation.execution, self.situation.builder)
        self.streamed = (-1, -1)
        self._answering = Answering(self.situation)
        self._early: list[tuple[FlashblockFrame, Flashblock]] = []

    @property
    def mode(self) -> ExecutionMode:
        """What the builder is used for."""
        return self.situation.mode

    @property
    def leading(self) -> bool:
        """Whether this group leads."""
        return self.situation.leading

    @property
    def epoch(self) -> int:
        """The epoch of the last word about leadership."""
        return self.situation.epoch

    @property
    def blocks(self) -> Blocks:
        """The blocks that are known."""
        return self.situation.blocks

    def peer(self, target: Target) -> PeerHealth:
        """What is known of a client."""
        return self.situation.peer(target)

    def block(self, client_id: bytes) -> Block | None:
        """The block that a client or we ourselves know by this payload id."""
        return self.blocks.find(client_id)

    def step(self, fact: Fact, now: float) -> list[Decision]:
        """Take in one fact at this time (seconds) and say what to do, in order."""
        situation = self.situation
        situation.out, situation.now = [], now
        if situation.untold_since_s is None:
            situation.untold_since_s = now
        match fact:
            case Forkchoice():
                self._forkchoice(fact)
            case PayloadIdAnswered():
                self._payload_id_answered(fact)
            case FlashblockArrived():
                self._flashblock_arrived(fact.frame, fact.flashblock)
            case GarbageArrived():
                situation.accuse(self.blocks.of_now, "garbage", fact.detail)
            case Applied():
                executing.applied(situation, fact)
            case StoodIn():
                standing_in.stood_in(situation, fact)
            case Committed():
                self._committed(fact.frame)
            case Refused():
                self._refused(fact)
            case Sealed():
                self._sealed(fact.number)
            case Leadership():
                self._leadership(fact.epoch, fact.leading, told=True)
            case ConductorLost():
                self._leadership(self.epoch, False, told=False)
            case PayloadAsked():
                self._answering.asked(fact)
            case BlocksOffered():
                self._answering.offered(fact)
            case ModeSet():
                situation.mode = fact.mode
            case Called() | Linked() | HeadSeen():
                executing.peer_news(situation, fact)
        self._advance()
        return situation.out

    def check(self) -> None:
        """Assert what must hold between any two steps."""
        self.blocks.check()
        assert len(self._early) <= EARLY_FRAMES_MAX

    # Blocks and their ids

    def _forkchoice(self, fact: Forkchoice) -> None:
        situation, blocks = self.situation, self.blocks
        if fact.attributes is None:
            situation.out.append(Forward(fact.token, to_builder=self.mode is not ExecutionMode.DISABLED))
            return
        builder_ok, ignore_unhealthy = not situation.builder.fault, situation.rules.ignore_unhealthy_builders
        to_builder = asks_builder(self.mode, fact.attributes.no_tx_pool, builder_ok, ignore_unhealthy)
        previous = blocks.of_now
        if previous is not None and fact.payload_id != blocks.current and not previous.promised:
            previous.done = True
        blocks.current = fact.payload_id
        block = blocks.open(fact.payload_id, fact.head, self.mode, situation.now)
        if block.attributes is None:
            # Later updates with the same attributes change nothing: the block goes on (upstream resets it).
            block.attributes, block.mode = fact.attributes, self.mode
            block.opened_s = block.grown_s = situation.now
            block.decode()  # of a block that another leader began
            self._early.clear()
        block.builder_asked = block.builder_asked or to_builder
        situation.out.append(Forward(fact.token, to_builder))

    def _payload_id_answered(self, fact: PayloadIdAnswered) -> None:
        block = self.blocks.get(fact.payload_id)
        if block is None or fact.client_id is None:
            return
        self.blocks.alias(fact.client_id, fact.payload_id)
        if fact.target is Target.EXECUTION:
            block.execution_asked = True
            return
        block.builder_confirmed = True
        self.blocks.named_by_builder(fact.payload_id, fact.client_id)
        early, self._early = self._early, []
        for frame, flashblock in sorted(early, key=lambda pair: pair[0].index):
            if frame.payload_id == fact.client_id:
                self._flashblock_arrived(frame, flashblock)
            else:
                self.situation.count("pending_flashblocks_dropped", "payload_id", f"0x{frame.payload_id.hex()}")

    # The builder's flashblocks

    def _flashblock_arrived(self, frame: FlashblockFrame, flashblock: Flashblock) -> None:
        situation = self.situation
        situation.count("messages_processed")
        block = self.blocks.find(frame.payload_id)
        if block is None:
            self._unknown_payload(frame, flashblock)
            return
        if block.done or block.payload_id != self.blocks.current:
            situation.count("flashblocks_late", "late", f"block {frame.number} index {frame.index}")
            return
        inspection = inspect(block, frame, flashblock)
        match inspection.finding:
            case Finding.ACCEPT:
                block.arrive(frame, flashblock, situation.now)
                held = block.held.pop(len(block.pieces), None)
                if held is not None:
                    self._flashblock_arrived(*held)
            case Finding.HOLD:
                block.held[frame.index] = (frame, flashblock)
                situation.count("extend_payload_errors", inspection.reason, inspection.detail)
                if block.resend_asked_at != len(block.pieces):
                    block.resend_asked_at = len(block.pieces)
                    situation.out.append(RequestResend())
            case Finding.DUPLICATE | Finding.LATE:
                situation.count("flashblocks_late", inspection.reason, inspection.detail)
            case Finding.REFUSE:
                situation.accuse(block, inspection.reason, inspection.detail)

    def _unknown_payload(self, frame: FlashblockFrame, flashblock: Flashblock) -> None:
        block = self.blocks.of_now
        reply_in_flight = block is not None and block.builder_asked and not block.builder_confirmed
        if reply_in_flight and len(self._early) < EARLY_FRAMES_MAX:
            self._early.append((frame, flashblock))
            self.situation.count("pending_flashblocks_buffered")
        else:
            self.situation.count("current_payload_id_mismatch", "payload_id", f"0x{frame.payload_id.hex()}")

    # What the conductor says

    def _committed(self, frame: FlashblockFrame) -> None:
        situation, blocks = self.situation, self.blocks
        block = blocks.find(frame.payload_id)
        if block is None:
            block = blocks.open(frame.payload_id, frame.parent_hash, self.mode, situation.now)
        for other in blocks:
            if other is not block and other.number is not None and other.number <= frame.number:
                other.done = True
        if not block.commit(frame, situation.now):
            situation.count("committed_flashblock_gap", "", f"block {frame.number} index {frame.index}")
            return
        block.offers_paused = False
        if block.attributes is not None:
            block.decode()  # it may be asked for here; a mere follower need not
        current = blocks.of_now
        if not block.done and (current is None or current.done):
            # Restarted in the middle of a led block there was no forkchoice update here: the ledger tells what is open.
            blocks.current = block.payload_id
        self._stream(frame)

    def _stream(self, frame: FlashblockFrame) -> None:
        if frame.key > self.streamed:
            self.streamed = frame.key
            self.situation.out.append(Stream(frame))

    def _refused(self, fact: Refused) -> None:
        block = self.blocks.find(fact.payload_id)
        self.situation.count("flashblocks_refused_by_ledger", "refused", fact.reason)
        if block is not None:
            block.offers_paused = True
            block.withdraw()

    def _sealed(self, number: int) -> None:
        for block in self.blocks:
            if block.number is not None and block.number <= number:
                block.done = True

    def _leadership(self, epoch: int, leading: bool, *, told: bool) -> None:
        # Whatever was on offer over the old link or epoch may be lost: it is offered again (the ledger knows repeats).
        situation = self.situation
        if situation.told and not told:
            situation.untold_since_s = situation.now
        situation.epoch, situation.leading, situation.told = epoch, leading, told
        for block in self.blocks:
            block.offers_paused = False
            block.withdraw()

    # What has become possible

    def _advance(self) -> None:
        situation = self.situation
        wake: list[float | None] = []
        for block in self.blocks:
            if block.done:
                continue
            self._promise(block)
            executing.resume_builder(situation, block)
            wake += [executing.execute(situation, target, block) for target in Target]
            wake.append(standing_in.stand_in(situation, block))
        wake.append(self._answering.answer())
        wake.append(situation.builder.remember(situation.now))
        health = judge_health(self.mode, situation.execution, situation.builder)
        if health != self.health:
            self.health = health
            situation.out.append(SetHealth(health))
        times = [at_s for at_s in wake if at_s is not None]
        if times:
            situation.out.append(WakeAt(min(times)))

    def _promise(self, block: Block) -> None:
        """Offer what is judged; where no commit is required, promise it at once."""
        current = block.payload_id == self.blocks.current
        if (block.asked and not block.closed_by_l2) or not current or not self.situation.may_offer(block):
            return
        for piece in block.pieces:
            if piece.progress is Progress.ARRIVED:
                return
            if piece.progress is not Progress.JUDGED:
                continue
            if self.situation.rules.commit_required:
                piece.progress = Progress.OFFERED
                self.situation.out.append(Offering(piece.frame))
            else:
                piece.progress = Progress.PROMISED
                self._stream(piece.frame)
