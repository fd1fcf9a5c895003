"""When the execution client makes the flashblocks, in the builder's place.

The builder may be dead, hang, or have been caught lying in the middle of a block.  The block then goes on from its last
good prefix: the execution client, which has executed all of it, makes one flashblock after another from its own pool.
They take the way of all flashblocks – offered, committed, streamed – so the stream has no hole, and what getPayload is
asked for at the end is in memory.  As soon as the builder gets a flashblock in, it has its place back.
"""

import math

from flashblocks.rollup_boost.assembly import Block, Progress
from flashblocks.rollup_boost.facts import StandIn, StoodIn
from flashblocks.rollup_boost.situation import Situation

SILENCE_FLASHBLOCKS = 3  # a builder that is connected and not accused of anything may be this late
QUIET_END_S = 0.110  # nothing is begun later than this before the timestamp, as the builder's own default offset has it
FAILURES_MAX = 3
RETRY_S = 0.1
LATE_S_TOLERATED = 0.03
EARLY_SHARE = 4  # the first one after another's comes at least a quarter of the interval later


def stand_in(situation: Situation, block: Block) -> float | None:
    """Ask for the next flashblock if it is time; when to look again, or None."""
    at_s = due_s(situation, block)
    if at_s is None or situation.now < at_s:
        return at_s
    if block.held:
        situation.accuse(block, "missing_flashblock", f"index {len(block.pieces)} never came")
    block.stand_in_asked = len(block.pieces)
    situation.out.append(StandIn(block.payload_id, len(block.pieces)))
    return None


def due_s(situation: Situation, block: Block) -> float | None:
    """When the execution client shall make the block's next flashblock as things stand; None: it shall not."""
    if not _may(situation, block) or not _level(block):
        return None
    assert block.attributes is not None
    last_s = block.attributes.timestamp - QUIET_END_S
    interval_s = situation.rules.flashblock_time_s
    if not _builder_is_out(situation, block):
        at_s = block.grown_s + SILENCE_FLASHBLOCKS * interval_s
    elif not block.pieces:
        at_s = block.opened_s
    else:
        # At the times at which a builder publishes: a whole number of intervals before the last one.
        earliest_s = block.grown_s + interval_s / EARLY_SHARE
        at_s = last_s - math.floor((last_s - earliest_s) / interval_s) * interval_s
    at_s = max(at_s, block.stand_in_not_before_s)
    in_time = at_s <= last_s and situation.now <= last_s + LATE_S_TOLERATED
    return at_s if in_time else None


def stood_in(situation: Situation, fact: StoodIn) -> None:
    """Take what the execution client made, unless somebody else's flashblock has come in between."""
    block = situation.blocks.get(fact.payload_id)
    if block is None or block.stand_in_asked != fact.index:
        return
    block.stand_in_asked = -1
    if fact.frame is None or fact.flashblock is None:
        block.stand_in_failures += 1
        block.stand_in_not_before_s = situation.now + RETRY_S * block.stand_in_failures
        situation.count("stand_in_failures", "", fact.error)
        return
    if block.asked or block.done or fact.index != len(block.pieces) or fact.frame.parent_hash != block.parent_hash:
        return
    block.stand_in(fact.frame, fact.flashblock, situation.now)
    block.stand_in_failures = 0
    situation.count("stand_in_flashblocks")


def _may(situation: Situation, block: Block) -> bool:
    if block.attributes is None or block.attributes.no_tx_pool or not block.execution_asked:
        return False
    if block.asked or block.closed_by_l2 or block.stand_in_asked >= 0 or block.stand_in_failures > FAILURES_MAX:
        return False
    # Without a ledger a builder may have nothing but a whole block to offer, at the end.
    led = situation.rules.commit_required and block.payload_id == situation.blocks.current
    return led and situation.execution.linked is not False and situation.may_offer(block)


def _level(block: Block) -> bool:
    """Whether the execution client has executed all there is."""
    judged = not block.pieces or block.pieces[-1].progress is not Progress.ARRIVED
    return judged and not block.execution.busy_with and block.execution.next_index == len(block.pieces)


def _builder_is_out(situation: Situation, block: Block) -> bool:
    """Whether nothing is to be expected of the builder in this block."""
    gone = situation.builder.linked is False or not block.builder_asked
    return bool(block.distrusted) or gone or block.stands_in
