"""Keeping both execution clients level with the block: one flashblock at a time each, in order, and again where needed.

The execution client judges what arrives; the builder is only told what is promised.
"""

from flashblocks.rollup_boost.assembly import Block, Cursor, Progress
from flashblocks.rollup_boost.facts import (
    Applied,
    Apply,
    Called,
    Count,
    HeadSeen,
    Linked,
    ResumeBuilder,
    Status,
    Target,
)
from flashblocks.rollup_boost.selection import ExecutionMode
from flashblocks.rollup_boost.situation import Situation

FAILURES_IN_A_ROW_TO_SHOW = 2  # one time-out on a busy machine is not an outage; a dead process shows by its lifeline


def execute(situation: Situation, target: Target, block: Block) -> float | None:
    """Give a client the next flashblock it has not executed; when to look again, or None."""
    execution, now = target is Target.EXECUTION, situation.now
    cursor = _cursor(block, target)
    end = len(block.pieces) if execution else block.promised
    if cursor.busy_with or cursor.given_up or cursor.next_index >= end:
        return None
    if situation.peer(target).linked is False or (not execution and situation.mode is ExecutionMode.DISABLED):
        return None
    piece = block.pieces[cursor.next_index]
    if block.asked and piece.progress is Progress.ARRIVED:
        return None  # too late to be part of the block: nobody needs the verdict
    if now < cursor.not_before_s:
        return cursor.not_before_s
    cursor.busy_with = piece.frame.digest
    situation.out.append(Apply(target, block.payload_id, piece.frame))
    return None


def resume_builder(situation: Situation, block: Block) -> None:
    """A builder that came back goes on with the block, once all of it is promised and the builder has executed it.

    Before that it would build other flashblocks in the place of those that are still on their way.
    """
    if not block.builder_returned or not block.builder_asked or block.asked or block.distrusted:
        return
    level = block.builder.next_index == block.promised == len(block.pieces)
    if block.payload_id == situation.blocks.current and level:
        block.builder_returned = False
        situation.out.append(ResumeBuilder(block.payload_id))


def applied(situation: Situation, fact: Applied) -> None:
    """A client answered."""
    peer, block, now = situation.peer(fact.target), situation.blocks.get(fact.payload_id), situation.now
    if block is None:
        return
    cursor = _cursor(block, fact.target)
    cursor.busy_with = b""
    if fact.status is not Status.UNREACHABLE:
        peer.called()
    if fact.index >= len(block.pieces) or block.pieces[fact.index].frame.digest != fact.digest:
        return  # the ledger has put another flashblock there meanwhile
    match fact.status:
        case Status.VALID | Status.DUPLICATE:
            _executed(fact, block, cursor)
        case Status.INVALID:
            _invalid(situation, fact, block, cursor)
        case Status.GAP:
            cursor.next_index = min(fact.expected_index, fact.index)
            cursor.retry(now, at_once=fact.expected_index < fact.index)
        case Status.UNKNOWN_PARENT | Status.UNREACHABLE:
            cursor.retry(now)
            unreachable = fact.status is Status.UNREACHABLE and cursor.failures >= FAILURES_IN_A_ROW_TO_SHOW
            if unreachable or cursor.given_up:
                peer.called(fact.error or "does not know the block's parent")


def peer_news(situation: Situation, fact: Called | Linked | HeadSeen) -> None:
    """What was learned about a client otherwise than by a flashblock."""
    peer = situation.peer(fact.target)
    match fact:
        case Linked(target, up):
            peer.link(up)
            if up:
                _reset_cursors(situation, target, from_start=True)
                for block in situation.blocks:
                    if target is Target.BUILDER:
                        block.builder_returned, block.stands_in = True, False
        case HeadSeen():
            peer.looked(fact.failure)
            if not fact.failure:
                peer.head(situation.now - fact.timestamp_s, situation.rules.max_unsafe_interval_s)
        case Called():
            peer.called(fact.failure)
            if not fact.failure:
                # A block or a head went through: a parent that was unknown may be known now.
                _reset_cursors(situation, fact.target, from_start=False)


def _executed(fact: Applied, block: Block, cursor: Cursor) -> None:
    cursor.failures = 0
    if cursor.next_index == fact.index:
        cursor.next_index += 1
    piece = block.pieces[fact.index]
    if fact.target is Target.EXECUTION and piece.progress is Progress.ARRIVED:
        piece.progress = Progress.JUDGED


def _invalid(situation: Situation, fact: Applied, block: Block, cursor: Cursor) -> None:
    if fact.target is Target.EXECUTION and block.pieces[fact.index].progress is Progress.ARRIVED:
        block.drop_from(fact.index)
        situation.accuse(block, "invalid", fact.error)
        return
    # What a majority holds was found invalid here: this client is broken, and it must not look healthy.
    cursor.given_up = True
    situation.peer(fact.target).called(f"refuses a committed flashblock: {fact.error}")
    situation.out.append(Count("committed_flashblock_invalid", fact.target.value, fact.error))


def _reset_cursors(situation: Situation, target: Target, *, from_start: bool) -> None:
    for block in situation.blocks:
        cursor = _cursor(block, target)
        cursor.hope()
        if from_start:
            cursor.next_index = 0


def _cursor(block: Block, target: Target) -> Cursor:
    return block.execution if target is Target.EXECUTION else block.builder
