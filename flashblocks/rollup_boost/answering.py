"""What getPayload is answered: the promised prefix, and only where nothing is promised a client's own block."""

from dataclasses import dataclass

from flashblocks.rollup_boost.assembly import Block, Maker, Progress
from flashblocks.rollup_boost.facts import (
    AnswerEnvelope,
    AnswerFrom,
    AskForBlocks,
    BlocksOffered,
    EndBuilderJob,
    PayloadAsked,
)
from flashblocks.rollup_boost.selection import Source, choose, streams
from flashblocks.rollup_boost.situation import Situation

OFFER_WAIT_S_MAX = 0.008
CONDUCTOR_WAIT_S_MAX = 0.2
CONDUCTOR_ABSENCE_S_MAX = 5.0  # a conductor that is away for longer will not come in the next moment either
L2_BLOCK_COMMIT_S_MAX = 0.5  # for the flashblocks of a fallback block; then it is answered whole
BUILDER_PATIENCE_S = 0.5


@dataclass(frozen=True, slots=True)
class Waiting:
    """A caller of getPayload, and until when an outstanding offer may keep it waiting (seconds)."""

    token: int
    client_id: bytes
    payload_id: bytes
    until_s: float


class Answering:
    """The callers of getPayload who have no answer yet."""

    def __init__(self, situation: Situation) -> None:
        self._situation = situation
        self._waiting: list[Waiting] = []

    def asked(self, fact: PayloadAsked) -> None:
        """getPayload came; it closes the block."""
        situation = self._situation
        block, now = situation.blocks.find(fact.client_id), situation.now
        if block is None:
            situation.out.append(AskForBlocks(fact.token, fact.client_id, None))
            return
        first = not block.asked
        block.asked = True
        if first:
            self._assess_builder(block)
        until_s = now + (CONDUCTOR_WAIT_S_MAX if self._awaits_conductor(block) else OFFER_WAIT_S_MAX)
        self._waiting.append(Waiting(fact.token, fact.client_id, block.payload_id, until_s))
        if first and block.builder_asked and self._own_block(block) is None:
            situation.out.append(EndBuilderJob(situation.blocks.builder_id(block.payload_id) or block.payload_id))

    def offered(self, fact: BlocksOffered) -> None:
        """The clients' own blocks are here."""
        situation = self._situation
        block = situation.blocks.find(fact.client_id)
        # Asked again here: a flashblock may have been committed while the clients were asked for their blocks.
        promised = block is not None and block.promised > 0
        mode = situation.mode if block is None else block.mode
        source = choose(promised, mode, situation.rules.policy, fact.builder, fact.l2)
        if source is Source.FLASHBLOCKS and block is not None:
            self._answer(fact.token, block)
            return
        if source is Source.L2 and block is not None and fact.l2_flashblocks and self._may_stream_l2(block):
            # A block without flashblocks would be a hole in the stream: the fallback block takes their way as well.
            block.close_with(fact.l2_flashblocks)
            until_s = situation.now + L2_BLOCK_COMMIT_S_MAX
            self._waiting.append(Waiting(fact.token, fact.client_id, block.payload_id, until_s))
            return
        if fact.l2 is None:
            situation.execution.called("getPayload failed")
        if fact.builder is not None and not fact.builder.valid and block is not None:
            situation.accuse(block, "invalid", "the execution client refused its block")
        situation.out.append(AnswerFrom(fact.token, source))

    def answer(self) -> float | None:
        """Answer everybody who need not wait longer; when to look again, or None."""
        waiting, self._waiting = self._waiting, []
        now, blocks = self._situation.now, self._situation.blocks
        for one in waiting:
            block = blocks.get(one.payload_id)
            if block is not None and self._awaits(block) and now < one.until_s:
                self._waiting.append(one)
            elif block is not None and block.promised:
                self._answer(one.token, block)
            else:
                own = None if block is None else self._own_block(block)
                as_flashblocks = block is not None and self._may_stream_l2(block)
                self._situation.out.append(AskForBlocks(one.token, one.client_id, own, as_flashblocks))
        return min((one.until_s for one in self._waiting), default=None)

    def _answer(self, token: int, block: Block) -> None:
        self._situation.out.append(AnswerEnvelope(token, block.envelope(), block.promised))

    def _awaits(self, block: Block) -> bool:
        return self._awaits_commit(block) or self._awaits_conductor(block)

    def _awaits_conductor(self, block: Block) -> bool:
        """Whether all that is missing is the conductor's word that we lead: its link is about to come up.

        A block answered without it would be a hole in the stream, for none of its flashblocks could be offered.
        """
        situation = self._situation
        away_s = situation.now - (situation.untold_since_s or situation.now)
        if situation.told or away_s > CONDUCTOR_ABSENCE_S_MAX:
            return False
        wanted = block.attributes is not None and not block.attributes.no_tx_pool and not block.promised
        return wanted and situation.rules.commit_required and streams(block.mode)

    def _awaits_commit(self, block: Block) -> bool:
        return self._situation.rules.commit_required and self._situation.leading and block.outstanding

    def _assess_builder(self, block: Block) -> None:
        """At the end of its block: say so if the builder was silent or left a hole."""
        waited_s = self._situation.now - block.opened_s
        opened_here = block.attributes is not None
        replaced = all(piece.maker is Maker.EXECUTION for piece in block.pieces)
        if block.held:
            self._situation.accuse(block, "missing_flashblock", f"index {len(block.pieces)} never came")
        elif (
            block.builder_asked and opened_here and replaced and not block.distrusted and waited_s >= BUILDER_PATIENCE_S
        ):
            self._situation.accuse(block, "silent", "no flashblock for this payload")
        elif not block.distrusted and any(piece.own and piece.progress > Progress.ARRIVED for piece in block.pieces):
            self._situation.builder.behaved(block.payload_id)

    def _own_block(self, block: Block) -> bytes | None:
        """The builder's id under which its complete block may be asked for: only where nothing is ever committed."""
        committed = self._situation.rules.commit_required
        if committed or block.promised or not block.builder_confirmed or block.distrusted:
            return None
        return self._situation.blocks.builder_id(block.payload_id)

    def _may_stream_l2(self, block: Block) -> bool:
        """Whether the execution client's own block may be offered as flashblocks; once per block."""
        if block.attributes is None or block.attributes.no_tx_pool or block.closed_by_l2 or block.promised:
            return False
        situation = self._situation
        current = block.payload_id == situation.blocks.current
        return situation.rules.commit_required and current and situation.may_offer(block)
