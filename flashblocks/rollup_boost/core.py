"""rollup-boost's core: one door, facts in, decisions out.

A flashblock of the builder is inspected, executed by the execution client, offered to the conductor, and, once the
ledger has committed it, promised.  getPayload answers what is promised, whatever has happened to the builder, the mode
or the rest of the block: nothing is added to it silently and it is never replaced.  Committed flashblocks of another
leader take the same way from the middle on, so that both execution clients here stand where the chain stands.

Every fact ends in ``_advance``, which looks at all blocks and does whatever has become possible (level-triggered).
"""

from flashblocks.rollup_boost.assembly import Block, Cursor, Progress, Waiting
from flashblocks.rollup_boost.facts import (
    AnswerEnvelope,
    AnswerFrom,
    Applied,
    Apply,
    AskForBlocks,
    BlocksOffered,
    Called,
    Committed,
    ConductorLost,
    Count,
    Decision,
    EndBuilderJob,
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
    ResumeBuilder,
    Sealed,
    SetHealth,
    Status,
    Stream,
    Target,
    WakeAt,
)
from flashblocks.rollup_boost.health import PeerHealth, judge_health
from flashblocks.rollup_boost.judging import Finding, inspect
from flashblocks.rollup_boost.rules import Rules
from flashblocks.rollup_boost.selection import ExecutionMode, Source, asks_builder, choose, streams
from flashblocks.wire.flashblock import Flashblock
from flashblocks.wire.frames import FlashblockFrame

OFFER_WAIT_S_MAX = 0.008
L2_BLOCK_COMMIT_S_MAX = 0.5  # for the flashblocks of a fallback block; then it is answered whole
FAILURES_IN_A_ROW_TO_SHOW = 2  # one time-out on a busy machine is not an outage; a dead process shows by its lifeline
BUILDER_PATIENCE_S = 0.5
BLOCKS_KEPT_MAX = 8
EARLY_FRAMES_MAX = 1024


class Core:
    """See the module's docstring."""

    def __init__(self, rules: Rules) -> None:
        self.rules, self._now = rules, 0.0
        self.mode = rules.mode
        self.peers = {Target.EXECUTION: PeerHealth(), Target.BUILDER: PeerHealth()}
        self.health = judge_health(self.mode, self.peers[Target.EXECUTION], self.peers[Target.BUILDER])
        self.leading = False
        self.epoch = 0
        self.blocks: dict[bytes, Block] = {}
        self.current = b""
        self.streamed = (-1, -1)
        self._aliases: dict[bytes, bytes] = {}
        self._builder_ids: dict[bytes, bytes] = {}
        self._opened_at: dict[bytes, float] = {}
        self._early: list[tuple[FlashblockFrame, Flashblock]] = []
        self._waiting: list[Waiting] = []
        self._out: list[Decision] = []

    def step(self, fact: Fact, now: float) -> list[Decision]:
        """Take in one fact at this time (seconds) and say what to do, in order."""
        self._out, self._now = [], now
        match fact:
            case Forkchoice():
                self._forkchoice(fact, now)
            case PayloadIdAnswered():
                self._payload_id_answered(fact)
            case FlashblockArrived():
                self._flashblock_arrived(fact.frame, fact.flashblock)
            case GarbageArrived():
                self._accuse(self.blocks.get(self.current), "garbage", fact.detail)
            case Applied():
                self._applied(fact, now)
            case Committed():
                self._committed(fact.frame)
            case Refused():
                self._refused(fact)
            case Sealed():
                self._sealed(fact.number)
            case Leadership():
                self._leadership(fact.epoch, fact.leading)
            case ConductorLost():
                self._leadership(self.epoch, False)
            case PayloadAsked():
                self._payload_asked(fact, now)
            case BlocksOffered():
                self._blocks_offered(fact)
            case ModeSet():
                self.mode = fact.mode
            case Called() | Linked() | HeadSeen():
                self._peer_news(fact, now)
        self._advance(now)
        return self._out

    def check(self) -> None:
        """Assert what must hold between any two steps."""
        for block in self.blocks.values():
            block.check()
        assert len(self.blocks) <= BLOCKS_KEPT_MAX
        assert len(self._early) <= EARLY_FRAMES_MAX
        open_numbers = [block.number for block in self.blocks.values() if block.promised and not block.done]
        assert len(open_numbers) == len(set(open_numbers)), "two open blocks of one height are promised"

    def block(self, client_id: bytes) -> Block | None:
        """The block that a client or we ourselves know by this payload id."""
        return self.blocks.get(self._aliases.get(client_id, client_id))

    # Blocks and their ids

    def _open(self, payload_id: bytes, parent_hash: bytes) -> Block:
        block = self.blocks.get(payload_id)
        if block is None:
            block = self.blocks[payload_id] = Block(payload_id, parent_hash, mode=self.mode)
            for old in [key for key in self.blocks if key not in (payload_id, self.current)]:
                if len(self.blocks) > BLOCKS_KEPT_MAX:
                    self._forget(old)
        return block

    def _forget(self, payload_id: bytes) -> None:
        del self.blocks[payload_id]
        self._opened_at.pop(payload_id, None)
        self._builder_ids.pop(payload_id, None)
        self._aliases = {alias: ours for alias, ours in self._aliases.items() if ours != payload_id}

    def _forkchoice(self, fact: Forkchoice, now: float) -> None:
        if fact.attributes is None:
            self._out.append(Forward(fact.token, to_builder=self.mode is not ExecutionMode.DISABLED))
            return
        builder_ok, ignore_unhealthy = not self.peers[Target.BUILDER].fault, self.rules.ignore_unhealthy_builders
        to_builder = asks_builder(self.mode, fact.attributes.no_tx_pool, builder_ok, ignore_unhealthy)
        previous = self.blocks.get(self.current)
        if previous is not None and fact.payload_id != self.current and not previous.promised:
            previous.done = True
        self.current = fact.payload_id
        block = self._open(fact.payload_id, fact.head)
        if block.attributes is None:
            # Later updates with the same attributes change nothing: the block goes on (upstream resets it).
            block.attributes, block.mode = fact.attributes, self.mode
            self._opened_at[fact.payload_id] = now
            self._early.clear()
        block.builder_asked = block.builder_asked or to_builder
        self._out.append(Forward(fact.token, to_builder))

    def _payload_id_answered(self, fact: PayloadIdAnswered) -> None:
        block = self.blocks.get(fact.payload_id)
        if block is None or fact.client_id is None:
            return
        self._aliases[fact.client_id] = fact.payload_id
        if fact.target is Target.BUILDER:
            block.builder_confirmed = True
            self._builder_ids[fact.payload_id] = fact.client_id
            early, self._early = self._early, []
            for frame, flashblock in sorted(early, key=lambda pair: pair[0].index):
                if frame.payload_id == fact.client_id:
                    self._flashblock_arrived(frame, flashblock)
                else:
                    self._out.append(Count("pending_flashblocks_dropped", "payload_id", f"0x{frame.payload_id.hex()}"))

    # The builder's flashblocks

    def _flashblock_arrived(self, frame: FlashblockFrame, flashblock: Flashblock) -> None:
        self._out.append(Count("messages_processed"))
        block = self.block(frame.payload_id)
        if block is None:
            self._unknown_payload(frame, flashblock)
            return
        if block.done or block.payload_id != self.current:
            self._out.append(Count("flashblocks_late", "late", f"block {frame.number} index {frame.index}"))
            return
        inspection = inspect(block, frame, flashblock)
        match inspection.finding:
            case Finding.ACCEPT:
                block.arrive(frame, flashblock)
                held = block.held.pop(len(block.pieces), None)
                if held is not None:
                    self._flashblock_arrived(*held)
            case Finding.HOLD:
                block.held[frame.index] = (frame, flashblock)
                self._out.append(Count("extend_payload_errors", inspection.reason, inspection.detail))
                if block.resend_asked_at != len(block.pieces):
                    block.resend_asked_at = len(block.pieces)
                    self._out.append(RequestResend())
            case Finding.DUPLICATE | Finding.LATE:
                self._out.append(Count("flashblocks_late", inspection.reason, inspection.detail))
            case Finding.REFUSE:
                self._accuse(block, inspection.reason, inspection.detail)

    def _unknown_payload(self, frame: FlashblockFrame, flashblock: Flashblock) -> None:
        block = self.blocks.get(self.current)
        reply_in_flight = block is not None and block.builder_asked and not block.builder_confirmed
        if reply_in_flight and len(self._early) < EARLY_FRAMES_MAX:
            self._early.append((frame, flashblock))
            self._out.append(Count("pending_flashblocks_buffered"))
        else:
            self._out.append(Count("current_payload_id_mismatch", "payload_id", f"0x{frame.payload_id.hex()}"))

    def _accuse(self, block: Block | None, reason: str, detail: str) -> None:
        """The builder did something wrong: count it, show it, and end its part in this block."""
        self._out.append(Count("extend_payload_errors", reason, detail))
        self.peers[Target.BUILDER].accuse(block.payload_id if block else b"", f"{reason}: {detail}", self._now)
        if block is not None and reason != "garbage":
            block.distrusted = reason
            block.held.clear()

    # What the execution clients say

    def _applied(self, fact: Applied, now: float) -> None:
        peer = self.peers[fact.target]
        block = self.blocks.get(fact.payload_id)
        if block is None:
            return
        cursor = block.execution if fact.target is Target.EXECUTION else block.builder
        cursor.busy_with = b""
        if fact.status is not Status.UNREACHABLE:
            peer.called()
        if fact.index >= len(block.pieces) or block.pieces[fact.index].frame.digest != fact.digest:
            return  # the ledger has put another flashblock there meanwhile
        match fact.status:
            case Status.VALID | Status.DUPLICATE:
                self._executed(fact, block, cursor)
            case Status.INVALID:
                self._invalid(fact, block, cursor)
            case Status.GAP:
                cursor.next_index = min(fact.expected_index, fact.index)
                cursor.retry(now, at_once=fact.expected_index < fact.index)
            case Status.UNKNOWN_PARENT | Status.UNREACHABLE:
                cursor.retry(now)
                unreachable = fact.status is Status.UNREACHABLE and cursor.failures >= FAILURES_IN_A_ROW_TO_SHOW
                if unreachable or cursor.given_up:
                    peer.called(fact.error or "does not know the block's parent")

    def _executed(self, fact: Applied, block: Block, cursor: Cursor) -> None:
        cursor.failures = 0
        if cursor.next_index == fact.index:
            cursor.next_index += 1
        piece = block.pieces[fact.index]
        if fact.target is Target.EXECUTION and piece.progress is Progress.ARRIVED:
            piece.progress = Progress.JUDGED

    def _invalid(self, fact: Applied, block: Block, cursor: Cursor) -> None:
        if fact.target is Target.EXECUTION and block.pieces[fact.index].progress is Progress.ARRIVED:
            block.drop_from(fact.index)
            self._accuse(block, "invalid", fact.error)
            return
        # What a majority holds was found invalid here: this client is broken, and it must not look healthy.
        cursor.given_up = True
        self.peers[fact.target].called(f"refuses a committed flashblock: {fact.error}")
        self._out.append(Count("committed_flashblock_invalid", fact.target.value, fact.error))

    def _peer_news(self, fact: Called | Linked | HeadSeen, now: float) -> None:
        peer = self.peers[fact.target]
        if isinstance(fact, Linked):
            peer.link(fact.up)
            if fact.up:
                self._reset_cursors(fact.target, from_start=True)
                for block in self.blocks.values():
                    block.builder_returned = block.builder_returned or fact.target is Target.BUILDER
            return
        if isinstance(fact, HeadSeen):
            peer.looked(fact.failure)
            if not fact.failure:
                peer.head(now - fact.timestamp_s, self.rules.max_unsafe_interval_s)
            return
        peer.called(fact.failure)
        if not fact.failure:
            # A block or a head went through: a parent that was unknown may be known now.
            self._reset_cursors(fact.target, from_start=False)

    def _reset_cursors(self, target: Target, *, from_start: bool) -> None:
        for block in self.blocks.values():
            cursor = block.execution if target is Target.EXECUTION else block.builder
            cursor.hope()
            if from_start:
                cursor.next_index = 0

    # What the conductor says

    def _committed(self, frame: FlashblockFrame) -> None:
        block = self.block(frame.payload_id)
        if block is None:
            block = self._open(frame.payload_id, frame.parent_hash)
        for other in self.blocks.values():
            if other is not block and other.number is not None and other.number <= frame.number:
                other.done = True
        if not block.commit(frame):
            self._out.append(Count("committed_flashblock_gap", "", f"block {frame.number} index {frame.index}"))
            return
        block.offers_paused = False
        current = self.blocks.get(self.current)
        if not block.done and (current is None or current.done):
            # Restarted in the middle of a led block there was no forkchoice update here: the ledger tells what is open.
            self.current = block.payload_id
        self._stream(frame)

    def _stream(self, frame: FlashblockFrame) -> None:
        if frame.key > self.streamed:
            self.streamed = frame.key
            self._out.append(Stream(frame))

    def _refused(self, fact: Refused) -> None:
        block = self.block(fact.payload_id)
        self._out.append(Count("flashblocks_refused_by_ledger", "refused", fact.reason))
        if block is not None:
            block.offers_paused = True
            block.withdraw()

    def _sealed(self, number: int) -> None:
        for block in self.blocks.values():
            if block.number is not None and block.number <= number:
                block.done = True

    def _leadership(self, epoch: int, leading: bool) -> None:
        # Whatever was on offer over the old link or epoch may be lost: it is offered again (the ledger knows repeats).
        self.epoch, self.leading = epoch, leading
        for block in self.blocks.values():
            block.offers_paused = False
            block.withdraw()

    # getPayload

    def _payload_asked(self, fact: PayloadAsked, now: float) -> None:
        block = self.block(fact.client_id)
        if block is None:
            self._out.append(AskForBlocks(fact.token, fact.client_id, None))
            return
        first = not block.asked
        block.asked = True
        if first:
            self._assess_builder(block, now)
        until_s = now + OFFER_WAIT_S_MAX if self._awaits_commit(block) else now
        self._waiting.append(Waiting(fact.token, fact.client_id, block.payload_id, until_s))
        if first and block.builder_asked and self._own_block(block) is None:
            self._out.append(EndBuilderJob(self._builder_ids.get(block.payload_id, block.payload_id)))

    def _awaits_commit(self, block: Block) -> bool:
        return self.rules.commit_required and self.leading and block.outstanding

    def _assess_builder(self, block: Block, now: float) -> None:
        """At the end of its block: say so if the builder was silent or left a hole."""
        waited_s = now - self._opened_at.get(block.payload_id, now)
        if block.held:
            self._accuse(block, "missing_flashblock", f"index {len(block.pieces)} never came")
        elif block.builder_asked and not block.pieces and waited_s >= BUILDER_PATIENCE_S:
            self._accuse(block, "silent", "no flashblock for this payload")
        elif not block.distrusted and any(piece.own and piece.progress > Progress.ARRIVED for piece in block.pieces):
            self.peers[Target.BUILDER].behaved(block.payload_id)

    def _own_block(self, block: Block) -> bytes | None:
        """The builder's id under which its complete block may be asked for: only where nothing is ever committed."""
        if self.rules.commit_required or block.promised or not block.builder_confirmed or block.distrusted:
            return None
        return self._builder_ids.get(block.payload_id)

    def _answer_waiting(self, now: float) -> None:
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            block = self.blocks.get(one.payload_id)
            if block is not None and self._awaits_commit(block) and now < one.until_s:
                self._waiting.append(one)
            elif block is not None and block.promised:
                self._answer(one.token, block)
            else:
                own = None if block is None else self._own_block(block)
                as_flashblocks = block is not None and self._may_stream_l2(block)
                self._out.append(AskForBlocks(one.token, one.client_id, own, as_flashblocks))

    def _answer(self, token: int, block: Block) -> None:
        self._out.append(AnswerEnvelope(token, block.envelope(), block.promised))

    def _blocks_offered(self, fact: BlocksOffered) -> None:
        block = self.block(fact.client_id)
        # Asked again here: a flashblock may have been committed while the clients were asked for their blocks.
        promised = block is not None and block.promised > 0
        mode = self.mode if block is None else block.mode
        source = choose(promised, mode, self.rules.policy, fact.builder, fact.l2)
        if source is Source.FLASHBLOCKS and block is not None:
            self._answer(fact.token, block)
            return
        if source is Source.L2 and block is not None and fact.l2_flashblocks and self._may_stream_l2(block):
            # A block without flashblocks would be a hole in the stream: the fallback block takes their way as well.
            block.close_with(fact.l2_flashblocks)
            until_s = self._now + L2_BLOCK_COMMIT_S_MAX
            self._waiting.append(Waiting(fact.token, fact.client_id, block.payload_id, until_s))
            return
        if fact.l2 is None:
            self.peers[Target.EXECUTION].called("getPayload failed")
        if fact.builder is not None and not fact.builder.valid and block is not None:
            self._accuse(block, "invalid", "the execution client refused its block")
        self._out.append(AnswerFrom(fact.token, source))

    def _may_stream_l2(self, block: Block) -> bool:
        """Whether the execution client's own block may be offered as flashblocks; once per block."""
        if block.attributes is None or block.attributes.no_tx_pool or block.closed_by_l2 or block.promised:
            return False
        return self.rules.commit_required and block.payload_id == self.current and self._may_offer(block)

    # What has become possible

    def _advance(self, now: float) -> None:
        wake: list[float] = []
        for block in self.blocks.values():
            if block.done:
                continue
            self._promise(block)
            self._resume_builder(block)
            wake += [at_s for target in Target if (at_s := self._execute(target, block, now)) is not None]
        self._answer_waiting(now)
        wake += [one.until_s for one in self._waiting]
        forgiven_at_s = self.peers[Target.BUILDER].remember(now)
        wake += [] if forgiven_at_s is None else [forgiven_at_s]
        health = judge_health(self.mode, self.peers[Target.EXECUTION], self.peers[Target.BUILDER])
        if health != self.health:
            self.health = health
            self._out.append(SetHealth(health))
        if wake:
            self._out.append(WakeAt(min(wake)))

    def _execute(self, target: Target, block: Block, now: float) -> float | None:
        """Give a client the next flashblock it has not executed, one at a time and in order; when to look again.

        The execution client judges what arrives; the builder is only told what is promised.
        """
        execution = target is Target.EXECUTION
        cursor = block.execution if execution else block.builder
        if (
            cursor.busy_with
            or cursor.given_up
            or cursor.next_index >= (len(block.pieces) if execution else block.promised)
        ):
            return None
        if self.peers[target].linked is False or (not execution and self.mode is ExecutionMode.DISABLED):
            return None
        piece = block.pieces[cursor.next_index]
        if block.asked and piece.progress is Progress.ARRIVED:
            return None  # too late to be part of the block: nobody needs the verdict
        if now < cursor.not_before_s:
            return cursor.not_before_s
        cursor.busy_with = piece.frame.digest
        self._out.append(Apply(target, block.payload_id, piece.frame))
        return None

    def _resume_builder(self, block: Block) -> None:
        """A builder that came back goes on with the block, once all of it is promised and the builder has executed it.

        Before that it would build other flashblocks in the place of those that are still on their way.
        """
        if not block.builder_returned or not block.builder_asked or block.asked or block.distrusted:
            return
        if block.payload_id == self.current and block.builder.next_index == block.promised == len(block.pieces):
            block.builder_returned = False
            self._out.append(ResumeBuilder(block.payload_id))

    def _may_offer(self, block: Block) -> bool:
        if not (streams(self.mode) and streams(block.mode)) or block.done:
            return False
        return not self.rules.commit_required or (self.leading and not block.offers_paused)

    def _promise(self, block: Block) -> None:
        """Offer what is judged; where no commit is required, promise it at once."""
        if (block.asked and not block.closed_by_l2) or block.payload_id != self.current or not self._may_offer(block):
            return
        for piece in block.pieces:
            if piece.progress is Progress.ARRIVED:
                return
            if piece.progress is not Progress.JUDGED:
                continue
            if self.rules.commit_required:
                piece.progress = Progress.OFFERED
                self._out.append(Offering(piece.frame))
            else:
                piece.progress = Progress.PROMISED
                self._stream(piece.frame)
