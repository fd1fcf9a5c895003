import pytest

from flashblocks.rollup_boost.assembly import Progress
from flashblocks.rollup_boost.facts import (
    AnswerEnvelope,
    Applied,
    Apply,
    AskForBlocks,
    ConductorLost,
    EndBuilderJob,
    Fact,
    Forkchoice,
    Forward,
    Leadership,
    Linked,
    ModeSet,
    Offering,
    Refused,
    Sealed,
    Status,
    Stream,
)
from flashblocks.rollup_boost.selection import ExecutionMode
from tests.rollup_boost.core_rig import BUILDER, EL, Rig, of


def test_a_flashblock_is_judged_then_offered_then_streamed_when_committed(rig: Rig) -> None:
    rig.open()
    assert of(rig.arrive(0), Apply) == [Apply(EL, rig.samples.payload_id, rig.frame(0))]
    assert rig.judge(0) == [Offering(rig.frame(0))]
    assert rig.commit(0) == [Stream(rig.frame(0, epoch=1))]
    assert rig.ask() == [
        EndBuilderJob(rig.samples.payload_id),
        AnswerEnvelope(9, rig.envelope(""), 1),
    ]


def test_judging_is_one_at_a_time_and_in_order_while_offers_are_pipelined(rig: Rig) -> None:
    rig.open()
    assert len(of(rig.arrive(0), Apply)) == 1
    assert of(rig.arrive(1), Apply) == []
    decided = rig.judge(0)
    assert of(decided, Offering) == [Offering(rig.frame(0))]
    assert of(decided, Apply) == [Apply(EL, rig.samples.payload_id, rig.frame(1))]
    assert of(rig.judge(1), Offering) == [Offering(rig.frame(1))]


def test_own_flashblocks_are_not_sent_back_to_the_builder_when_committed(rig: Rig) -> None:
    rig.open()
    rig.through(0, 1, 2)
    assert [apply.target for apply in of(rig.log, Apply)] == [EL] * 3


# Leadership and the ledger


def test_nothing_is_offered_without_leadership_and_everything_judged_is_with_it(rig: Rig) -> None:
    rig.open(leading=False)
    rig.arrive(0)
    assert rig.judge(0) == []
    assert of(rig.tell(Leadership(4, True)), Offering) == [Offering(rig.frame(0))]


@pytest.mark.parametrize("loss", [ConductorLost(), Leadership(5, False)])
def test_an_offer_whose_answer_was_lost_is_made_again(rig: Rig, loss: Fact) -> None:
    rig.open()
    rig.arrive(0)
    rig.judge(0)
    assert of(rig.tell(loss), Offering) == []
    assert of(rig.tell(Leadership(6, True)), Offering) == [Offering(rig.frame(0))]


def test_after_a_refusal_offers_rest_until_the_ledger_speaks_again(rig: Rig) -> None:
    rig.open()
    rig.arrive(0)
    rig.judge(0)
    rig.tell(Refused(rig.samples.payload_id, 0, "stale epoch"))
    rig.arrive(1)
    assert of(rig.judge(1), Offering) == []
    assert [offer.frame.index for offer in of(rig.tell(Leadership(2, True)), Offering)] == [0, 1]


def test_a_follower_hands_committed_flashblocks_to_both_clients_in_order(rig: Rig) -> None:
    identifier = rig.samples.payload_id
    decided = rig.commit(0, epoch=3)
    assert of(decided, Apply) == [
        Apply(EL, identifier, rig.frame(0, epoch=3)),
        Apply(BUILDER, identifier, rig.frame(0, epoch=3)),
    ]
    assert of(rig.commit(1, epoch=3), Apply) == []
    digest = rig.frame(0).digest
    for target in (BUILDER, EL):
        decided = rig.tell(Applied(target, identifier, 0, digest, Status.VALID))
        assert of(decided, Apply) == [Apply(target, identifier, rig.frame(1, epoch=3))]
    assert of(rig.log, Offering) == []


def test_a_new_leader_continues_the_open_block_behind_what_is_committed(rig: Rig) -> None:
    for index in range(3):
        rig.commit(index)
        for target in (EL, BUILDER):
            rig.tell(Applied(target, rig.samples.payload_id, index, rig.frame(index).digest, Status.VALID))
    rig.open()
    rig.arrive(3)
    assert of(rig.judge(3), Offering) == [Offering(rig.frame(3))]
    rig.commit(3, epoch=2)
    assert of(rig.ask(), AnswerEnvelope) == [AnswerEnvelope(9, rig.envelope("", "", "", ""), 4)]


def test_a_new_leader_s_builder_may_die_and_the_block_is_still_the_committed_one(rig: Rig) -> None:
    rig.tell(Linked(BUILDER, True), Linked(BUILDER, False))
    rig.commit(0)
    rig.commit(1)
    rig.open()
    assert of(rig.ask(after=1.0), AnswerEnvelope) == [AnswerEnvelope(9, rig.envelope("", ""), 2)]
    assert rig.core.health.status == 206


def test_the_ledger_overrides_what_was_judged_here(rig: Rig) -> None:
    rig.open()
    rig.through(0)
    rig.arrive(1)
    rig.judge(1)
    rig.arrive(2)
    rig.judge(2)
    decided = rig.commit(1, "elsewhere", epoch=9)
    replaced = rig.frame(1, "elsewhere", 9)
    assert of(decided, Apply) == [
        Apply(EL, rig.samples.payload_id, replaced),
        Apply(BUILDER, rig.samples.payload_id, replaced),
    ]
    assert of(rig.ask(), AnswerEnvelope) == [AnswerEnvelope(9, rig.envelope("", "elsewhere"), 2)]


def test_a_verdict_on_a_flashblock_that_was_replaced_meanwhile_is_void(rig: Rig) -> None:
    rig.open()
    rig.arrive(0)
    rig.commit(0, "elsewhere")
    rig.judge(0, Status.INVALID)
    block = rig.core.block(rig.samples.payload_id)
    assert block is not None and block.promised == 1
    assert rig.core.health.status == 200


def test_a_sealed_block_is_finished(rig: Rig) -> None:
    rig.commit(0)
    rig.tell(Sealed(100))
    assert of(rig.tell(Linked(EL, True), Linked(BUILDER, True)), Apply) == []


# Modes


def test_dry_run_judges_but_promises_nothing(rig: Rig) -> None:
    rig.tell(ModeSet(ExecutionMode.DRY_RUN))
    rig.open()
    rig.arrive(0)
    assert of(rig.judge(0), Offering) == []
    assert len(of(rig.ask(), AskForBlocks)) == 1


def test_a_mode_set_in_the_middle_ends_the_stream_but_not_the_promise(rig: Rig) -> None:
    rig.open()
    rig.through(0)
    rig.tell(ModeSet(ExecutionMode.DISABLED))
    rig.arrive(1)
    assert of(rig.judge(1), Offering) == []
    assert of(rig.ask(), AnswerEnvelope)[0].flashblocks == 1


def test_disabled_leaves_the_builder_alone(rig: Rig) -> None:
    rig.tell(ModeSet(ExecutionMode.DISABLED))
    rig.open()
    rig.tell(Forkchoice(2, rig.samples.head, None, b""))
    assert [forward.to_builder for forward in of(rig.log, Forward)] == [False, False]


def test_progress_is_visible_in_the_block(rig: Rig) -> None:
    rig.open()
    rig.arrive(0)
    rig.judge(0)
    rig.arrive(1)
    block = rig.core.block(rig.samples.payload_id)
    assert block is not None
    assert [piece.progress for piece in block.pieces] == [Progress.OFFERED, Progress.ARRIVED]
