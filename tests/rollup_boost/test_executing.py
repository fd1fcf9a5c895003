import pytest

from flashblocks.rollup_boost.assembly import APPLY_FAILURES_MAX
from flashblocks.rollup_boost.facts import (
    AnswerEnvelope,
    Applied,
    Apply,
    Called,
    HeadSeen,
    Leadership,
    Linked,
    Offering,
    ResumeBuilder,
    Sealed,
    Status,
    Tick,
    WakeAt,
)
from tests.rollup_boost.core_rig import BUILDER, EL, Rig, of, reasons


def test_a_client_that_lost_its_place_gets_what_it_misses(rig: Rig) -> None:
    rig.open()
    rig.through(0, 1)
    rig.arrive(2)
    decided = rig.judge(2, Status.GAP, expected_index=1)
    assert [apply.frame.index for apply in of(decided, Apply)] == [1]
    assert [apply.frame.index for apply in of(rig.judge(1), Apply)] == [2]
    assert [offer.frame.index for offer in of(rig.judge(2), Offering)] == [2]


def test_a_restarted_client_gets_the_open_block_again(rig: Rig) -> None:
    rig.open()
    rig.through(0, 1)
    assert [apply.frame.index for apply in of(rig.tell(Linked(BUILDER, True)), Apply)] == [0]
    assert [apply.frame.index for apply in of(rig.tell(Linked(EL, True)), Apply)] == [0]


def test_a_builder_that_comes_back_goes_on_once_it_has_executed_what_is_promised(rig: Rig) -> None:
    identifier = rig.open()
    rig.through(0)
    rig.arrive(1)
    rig.judge(1)
    rig.tell(Linked(BUILDER, True), Linked(BUILDER, False))
    assert of(rig.tell(Linked(BUILDER, True)), ResumeBuilder) == [], "index 1 is still on its way"
    frames = [rig.frame(0), rig.frame(1)]
    assert of(rig.commit(1), ResumeBuilder) == []
    assert of(rig.tell(Applied(BUILDER, identifier, 0, frames[0].digest, Status.VALID)), ResumeBuilder) == []
    decided = rig.tell(Applied(BUILDER, identifier, 1, frames[1].digest, Status.VALID))
    assert of(decided, ResumeBuilder) == [ResumeBuilder(identifier)]
    assert of(rig.tell(Tick()), ResumeBuilder) == [], "once is enough"


@pytest.mark.parametrize("why", ["asked", "distrusted", "sealed"])
def test_a_builder_that_comes_back_too_late_is_left_alone(rig: Rig, why: str) -> None:
    rig.open()
    rig.through(0)
    if why == "asked":
        rig.ask()
    elif why == "sealed":
        rig.tell(Sealed(100))
    else:
        rig.arrive(0, salt="other")
    rig.tell(Linked(BUILDER, True))
    decided = rig.tell(Applied(BUILDER, rig.samples.payload_id, 0, rig.frame(0).digest, Status.VALID))
    assert of(decided, ResumeBuilder) == []


def test_an_unknown_parent_is_tried_again_when_a_block_went_through(rig: Rig) -> None:
    rig.commit(0)
    decided = rig.judge(0, Status.UNKNOWN_PARENT)
    assert of(decided, Apply) == [] and len(of(decided, WakeAt)) == 1
    assert [apply.target for apply in of(rig.tell(Called(EL)), Apply)] == [EL]


def test_retries_are_bounded_and_end_in_503(rig: Rig) -> None:
    rig.commit(0)
    for _ in range(APPLY_FAILURES_MAX + 1):
        rig.judge(0, Status.UNKNOWN_PARENT)
        rig.tell(Tick(), after=1)
    assert of(rig.tell(Tick(), after=1), Apply) == []
    assert rig.core.health.status == 503


def test_a_judge_that_does_not_answer_is_asked_again_and_shows_the_second_time(rig: Rig) -> None:
    rig.open()
    rig.arrive(0)
    rig.judge(0, Status.UNREACHABLE, error="timed out")
    assert rig.core.health.status == 200
    assert len(of(rig.tell(Tick(), after=1), Apply)) == 1
    rig.judge(0, Status.UNREACHABLE, error="timed out")
    assert rig.core.health.status == 503
    rig.tell(Tick(), after=1)
    assert len(of(rig.judge(0), Offering)) == 1
    assert rig.core.health.status == 200


def test_restarted_in_the_middle_of_a_led_block_it_goes_on_with_what_the_ledger_tells(rig: Rig) -> None:
    rig.tell(Leadership(1, True))
    rig.commit(0)
    rig.commit(1)
    assert reasons(rig.arrive(0)) == [("flashblocks_late", "duplicate")]
    rig.judge(0)
    rig.judge(1)
    rig.arrive(2)
    assert of(rig.judge(2), Offering) == [Offering(rig.frame(2))]
    rig.commit(2)
    assert of(rig.ask(), AnswerEnvelope)[0].flashblocks == 3


def test_a_client_that_refuses_what_a_majority_holds_is_broken(rig: Rig) -> None:
    rig.commit(0)
    decided = rig.judge(0, Status.INVALID, error="state root")
    assert ("committed_flashblock_invalid", "l2") in reasons(decided)
    assert rig.core.health.status == 503
    block = rig.core.block(rig.samples.payload_id)
    assert block is not None
    assert block.promised == 1


def test_without_the_judge_nothing_is_offered(rig: Rig) -> None:
    rig.tell(Linked(EL, True), Linked(EL, False))
    assert rig.core.health.status == 503
    rig.open()
    assert of(rig.arrive(0), Apply) == []
    assert [apply.frame.index for apply in of(rig.tell(Linked(EL, True)), Apply)] == [0]


def test_stale_heads_show_after_the_limit(rig: Rig) -> None:
    rig.tell(HeadSeen(EL, int(rig.now)))
    rig.tell(HeadSeen(EL, int(rig.now)), after=11)
    assert rig.core.health.status == 503
    rig.tell(HeadSeen(EL, int(rig.now)))
    assert rig.core.health.status == 200
    rig.tell(HeadSeen(BUILDER, failure="timed out"))
    assert rig.core.health.status == 200, "once is nothing"
    rig.tell(HeadSeen(BUILDER, failure="timed out"))
    assert rig.core.health.status == 206
    rig.tell(HeadSeen(BUILDER, int(rig.now)))
    assert rig.core.health.status == 200
