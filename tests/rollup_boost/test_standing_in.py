from typing import Any

import pytest

from flashblocks.rollup_boost.assembly import Maker
from flashblocks.rollup_boost.facts import (
    AnswerEnvelope,
    Apply,
    BlocksOffered,
    Called,
    Decision,
    FlashblockArrived,
    Forkchoice,
    Leadership,
    Linked,
    ModeSet,
    Offering,
    PayloadIdAnswered,
    SetHealth,
    StandIn,
    Status,
    StoodIn,
    Stream,
    Tick,
    WakeAt,
)
from flashblocks.rollup_boost.rules import Rules
from flashblocks.rollup_boost.selection import ExecutionMode, Offer
from flashblocks.rollup_boost.standing_in import FAILURES_MAX, QUIET_END_S, RETRY_S, SILENCE_FLASHBLOCKS
from tests.rollup_boost.core_rig import BUILDER, EL, T0, Rig, of, reasons

INTERVAL_S = 0.2
SILENCE_S = SILENCE_FLASHBLOCKS * INTERVAL_S
END_S = T0 + 2 - QUIET_END_S  # the sample block's timestamp is T0 + 2


def begin(rig: Rig, *, builder: bool = True, **changes: Any) -> bytes:
    """A led block whose payload the execution client has begun; with or without a builder."""
    rig.tell(Linked(EL, True), Linked(BUILDER, builder))
    identifier = rig.open(**changes)
    rig.tell(PayloadIdAnswered(EL, identifier, identifier))
    return identifier


def asked(decisions: list[Decision]) -> list[int]:
    return [one.index for one in of(decisions, StandIn)]


def make(rig: Rig, index: int, salt: str = "el") -> list[Decision]:
    made = rig.samples.flashblock(index, salt)
    return rig.tell(StoodIn(rig.samples.payload_id, index, rig.samples.frame(made), made))


def play_out(rig: Rig, decisions: list[Decision]) -> list[float]:
    """Answer and commit every StandIn, wake when asked, until the end of the block; when each was asked for."""
    times = []
    while True:
        wake = None
        for decision in decisions:
            if isinstance(decision, StandIn):
                times.append(round(rig.now - T0, 3))
                decisions = make(rig, decision.index) + rig.commit(decision.index, "el")
                break
            if isinstance(decision, WakeAt):
                wake = decision.at_s
        else:
            if wake is None or wake > T0 + 2:
                return times
            decisions = rig.tell(Tick(), after=wake - rig.now)


def test_without_a_builder_the_whole_block_is_made_at_the_usual_cadence(rig: Rig) -> None:
    begin(rig, builder=False)
    assert asked(rig.log) == [0], "the forced transactions, at once"
    times = play_out(rig, make(rig, 0) + rig.commit(0, "el"))
    assert times == pytest.approx([0.09 + 0.2 * each for each in range(10)], abs=0.002)
    answer = of(rig.ask(), AnswerEnvelope)
    assert [one.flashblocks for one in answer] == [11], "from memory, at once"
    assert [stream.frame.index for stream in of(rig.log, Stream)] == list(range(11))


def test_nothing_is_asked_for_before_the_execution_client_has_begun_the_payload(rig: Rig) -> None:
    rig.tell(Linked(EL, True), Linked(BUILDER, False))
    rig.open()
    assert asked(rig.tell(Tick(), after=0.5)) == []


def test_after_a_lie_the_block_goes_on_from_its_last_good_prefix(rig: Rig) -> None:
    begin(rig)
    rig.through(0, 1)
    rig.arrive(2)
    decided = rig.judge(2, Status.INVALID, error="state root differs")
    assert of(decided, SetHealth)[0].health.status == 206
    assert asked(decided) == []
    assert asked(rig.tell(Tick(), after=INTERVAL_S)) == [2]
    decided = make(rig, 2)
    assert of(decided, Offering) == [Offering(rig.frame(2, "el"))], "judged by him who made it"
    assert of(decided, Apply) == []
    assert of(rig.commit(2, "el"), Stream) == [Stream(rig.frame(2, "el", epoch=1))]
    assert of(rig.ask(), AnswerEnvelope) == [AnswerEnvelope(9, rig.envelope("", "", "el"), 3)]


def test_what_is_being_judged_is_waited_for(rig: Rig) -> None:
    begin(rig)
    rig.through(0)
    rig.arrive(1)
    rig.arrive(0, salt="other")  # equivocation: the builder is out
    assert asked(rig.tell(Tick(), after=INTERVAL_S)) == []
    assert asked(rig.judge(1)) == [2]


def test_a_builder_that_hangs_is_stood_in_for_after_a_while_and_then_at_the_cadence(rig: Rig) -> None:
    begin(rig)
    rig.through(0, 1)
    assert asked(rig.tell(Tick(), after=SILENCE_S - 0.01)) == []
    assert asked(rig.tell(Tick(), after=0.011)) == [2]
    make(rig, 2)
    assert asked(rig.tell(Tick(), after=INTERVAL_S)) == [3]
    assert rig.core.health.status == 200, "being late is no offence"


def test_a_builder_that_comes_to_again_has_its_place_back(rig: Rig) -> None:
    begin(rig)
    rig.through(0)
    rig.tell(Tick(), after=SILENCE_S)
    make(rig, 1)
    rig.commit(1, "el")
    assert ("flashblocks_late", "superseded") in reasons(rig.arrive(1)), "it has not heard of the other one"
    rig.through(2)
    assert asked(rig.tell(Tick(), after=INTERVAL_S)) == []
    assert asked(rig.tell(Tick(), after=SILENCE_S)) == [3]


def test_a_builder_s_flashblock_that_comes_while_one_is_being_made_is_taken(rig: Rig) -> None:
    begin(rig)
    rig.through(0)
    assert asked(rig.tell(Tick(), after=SILENCE_S)) == [1]
    rig.arrive(1)
    assert of(make(rig, 1), Offering) == []
    assert of(rig.judge(1), Offering) == [Offering(rig.frame(1))]


def test_a_builder_that_was_restarted_is_waited_for(rig: Rig) -> None:
    begin(rig, builder=False)
    make(rig, 0)
    rig.commit(0, "el")
    rig.tell(Linked(BUILDER, True))
    assert asked(rig.tell(Tick(), after=INTERVAL_S)) == []
    assert asked(rig.tell(Tick(), after=SILENCE_S)) == [1]


def test_a_hole_is_closed_and_held_against_the_builder(rig: Rig) -> None:
    begin(rig)
    rig.through(0)
    rig.arrive(2)
    decided = rig.tell(Tick(), after=SILENCE_S)
    assert asked(decided) == [1]
    assert ("extend_payload_errors", "missing_flashblock") in reasons(decided)
    make(rig, 1)
    block = rig.core.block(rig.samples.payload_id)
    assert block is not None
    assert (len(block.pieces), block.held) == (2, {}), "what stood on the missing one is void"


def test_a_builder_that_made_nothing_of_the_block_is_called_silent(rig: Rig) -> None:
    begin(rig)
    rig.tell(Tick(), after=SILENCE_S)
    make(rig, 0)
    rig.commit(0, "el")
    assert ("extend_payload_errors", "silent") in reasons(rig.ask(after=1.0))
    assert rig.core.health.status == 206


@pytest.mark.parametrize("why", ["follower", "dry run", "no pool", "asked", "ledger refused", "no client", "no ledger"])
def test_where_nothing_may_be_streamed_nothing_is_made(rig: Rig, why: str) -> None:
    if why == "no ledger":
        rig.core.situation.rules = Rules(commit_required=False)
    begin(rig, no_tx_pool=why == "no pool") if why == "no pool" else begin(rig)
    if why == "follower":
        rig.tell(Leadership(2, False))
    if why == "dry run":
        rig.tell(ModeSet(ExecutionMode.DRY_RUN))
    if why == "asked":
        rig.ask()
    if why == "no client":
        rig.tell(Linked(EL, False))
    if why == "ledger refused":
        block = rig.core.block(rig.samples.payload_id)
        assert block is not None
        block.offers_paused = True
    rig.log.clear()
    for _ in range(10):
        rig.tell(Tick(), after=INTERVAL_S)
    assert asked(rig.log) == []


def test_a_block_that_is_late_is_not_begun(rig: Rig) -> None:
    rig.now = END_S + 0.05
    begin(rig, builder=False)
    assert asked(rig.log) == []


def test_a_client_that_cannot_is_asked_a_few_times_and_the_block_is_its_prefix(rig: Rig) -> None:
    begin(rig)
    rig.through(0)
    rig.tell(Linked(BUILDER, False))
    tried = 0
    for _ in range(40):
        if asked(rig.tell(Tick(), after=RETRY_S / 2)):
            tried += 1
            decided = rig.tell(StoodIn(rig.samples.payload_id, 1, error="404"))
            assert ("stand_in_failures", "") in reasons(decided)
    assert tried == FAILURES_MAX + 1
    assert [one.flashblocks for one in of(rig.ask(), AnswerEnvelope)] == [1]


def test_an_answer_nobody_waits_for_changes_nothing(rig: Rig) -> None:
    begin(rig)
    rig.through(0)
    make(rig, 1)
    block = rig.core.block(rig.samples.payload_id)
    assert block is not None
    assert len(block.pieces) == 1
    rig.tell(StoodIn(b"\x09" * 8, 1))


def test_another_leader_s_flashblocks_are_gone_on_from(rig: Rig) -> None:
    """The new leader's builder is dead: the execution client, which has followed, goes on."""
    rig.tell(Linked(EL, True), Linked(BUILDER, False))
    for index in (0, 1):
        rig.commit(index, epoch=1)
        rig.judge(index, Status.VALID)
    rig.tell(Leadership(2, True))
    attributes, identifier = rig.samples.attributes(), rig.samples.payload_id
    rig.tell(Forkchoice(1, rig.samples.head, attributes, identifier), PayloadIdAnswered(EL, identifier, identifier))
    assert asked(rig.tell(Tick(), after=INTERVAL_S)) == [2]
    make(rig, 2)
    block = rig.core.block(identifier)
    assert block is not None
    assert [piece.maker for piece in block.pieces] == [Maker.ELSEWHERE, Maker.ELSEWHERE, Maker.EXECUTION]


def test_what_was_made_too_late_is_not_offered_and_the_fallback_block_is_still_possible(rig: Rig) -> None:
    begin(rig, builder=False)
    rig.ask()
    assert of(make(rig, 0), Offering) == []
    made = rig.samples.flashblock(0, "l2")
    own = ((rig.samples.frame(made), made),)
    assert of(rig.tell(BlocksOffered(9, rig.samples.payload_id, Offer(5), None, own)), Offering) == [
        Offering(rig.frame(0, "l2"))
    ]


def test_a_good_builder_is_never_stood_in_for(rig: Rig) -> None:
    begin(rig)
    for index in range(10):
        made = rig.samples.flashblock(index)
        rig.tell(FlashblockArrived(rig.samples.frame(made), made), after=0 if index == 0 else INTERVAL_S)
        rig.judge(index)
        rig.commit(index)
    rig.tell(Called(EL), after=0.01)
    assert asked(rig.log) == []
