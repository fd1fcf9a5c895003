from flashblocks.rollup_boost.blocks import BLOCKS_KEPT_MAX
from flashblocks.rollup_boost.facts import (
    AnswerEnvelope,
    Applied,
    Apply,
    Committed,
    EndBuilderJob,
    Offering,
    PayloadAsked,
    PayloadIdAnswered,
    Status,
)
from tests.rollup_boost.core_rig import BUILDER, EL, Rig, of, reasons


def test_a_builder_with_ids_of_its_own_is_followed_once_it_has_told_them(rig: Rig) -> None:
    rig.open()
    theirs = b"\x03" * 8
    assert reasons(rig.arrive(1, identifier=theirs)) == [("pending_flashblocks_buffered", "")]
    rig.arrive(0, identifier=theirs)
    decided = rig.tell(PayloadIdAnswered(BUILDER, rig.samples.payload_id, theirs))
    assert [apply.frame.payload_id for apply in of(decided, Apply)] == [theirs]
    frame = rig.samples.frame(rig.samples.flashblock(0, identifier=theirs))
    assert of(rig.tell(Applied(EL, rig.samples.payload_id, 0, frame.digest, Status.VALID)), Offering) == [
        Offering(frame)
    ]
    rig.tell(Committed(frame))
    decided = rig.ask()
    assert of(decided, EndBuilderJob) == [EndBuilderJob(theirs)]
    assert of(decided, AnswerEnvelope)[0].flashblocks == 1


def test_the_execution_client_s_id_finds_the_block(rig: Rig) -> None:
    rig.open()
    rig.tell(PayloadIdAnswered(EL, rig.samples.payload_id, b"\x07" * 8))
    rig.through(0)
    assert len(of(rig.tell(PayloadAsked(4, b"\x07" * 8)), AnswerEnvelope)) == 1


def test_only_so_many_blocks_are_kept(rig: Rig) -> None:
    for number in range(100, 130):
        made = rig.samples.flashblock(0, number=number, identifier=number.to_bytes(8, "big"))
        rig.tell(Committed(rig.samples.frame(made)))
    assert len(rig.core.blocks) == BLOCKS_KEPT_MAX
