from typing import Any

import pytest

from flashblocks.rollup_boost.facts import (
    AnswerEnvelope,
    Applied,
    Apply,
    Committed,
    FlashblockArrived,
    Forkchoice,
    GarbageArrived,
    Offering,
    PayloadAsked,
    PayloadIdAnswered,
    RequestResend,
    SetHealth,
    Status,
    Tick,
)
from flashblocks.rollup_boost.health import OFFENCE_REMEMBERED_S
from tests.rollup_boost.core_rig import BUILDER, EL, Rig, of, reasons


@pytest.mark.parametrize(
    ("arrivals", "reason"),
    [
        ([(1, "", {})], "missing_flashblock"),
        ([(0, "", {"base": {"gas_limit": 1}})], "base_mismatch"),
        ([(0, "", {}), (0, "other", {})], "equivocation"),
        ([(0, "", {}), (0, "", {"base": {"gas_limit": 1}})], "equivocation"),
        ([(0, "", {"identifier": b"\x09" * 8})], "payload_id"),
        ([(0, "", {}), (0, "", {})], "duplicate"),
        ([(0, "", {}), (1, "", {"number": 101})], "frame_mismatch"),
    ],
)
def test_each_offence_is_counted_and_the_next_block_is_none_the_worse(
    rig: Rig, arrivals: list[tuple[int, str, dict[str, Any]]], reason: str
) -> None:
    rig.open()
    rig.tell(PayloadIdAnswered(BUILDER, rig.samples.payload_id, rig.samples.payload_id))
    decided = [decision for index, salt, more in arrivals for decision in rig.arrive(index, salt=salt, **more)]
    assert reason in {found for _, found in reasons(decided)}
    next_id = rig.open(timestamp=1_700_000_004)
    made = rig.samples.flashblock(0, "next", 101, next_id, {"timestamp": 1_700_000_004})
    assert len(of(rig.tell(FlashblockArrived(rig.samples.frame(made), made)), Apply)) <= 1
    rig.tell(Applied(EL, next_id, 0, rig.samples.frame(made).digest, Status.VALID))
    rig.tell(PayloadAsked(8, next_id), after=1)
    assert rig.core.health.status == 200


def test_what_the_execution_client_refuses_is_not_offered_and_the_block_stays_the_good_prefix(rig: Rig) -> None:
    rig.open()
    rig.through(0, 1)
    rig.arrive(2)
    decided = rig.judge(2, Status.INVALID, error="state root differs")
    assert of(decided, Offering) == []
    assert reasons(decided) == [("extend_payload_errors", "invalid")]
    assert of(decided, SetHealth)[0].health.status == 206
    assert reasons(rig.arrive(3)) == [("flashblocks_late", "distrusted")]
    assert of(rig.ask(), AnswerEnvelope) == [AnswerEnvelope(9, rig.envelope("", ""), 2)]


def test_a_builder_that_lies_in_every_block_never_looks_healthy_in_between(rig: Rig) -> None:
    rig.open()
    rig.through(0)
    rig.arrive(1)
    rig.judge(1, Status.INVALID, error="root")
    rig.ask()
    rig.commit(0)
    next_id = rig.open(timestamp=1_700_000_004)
    made = rig.samples.flashblock(0, "next", 101, next_id, {"timestamp": 1_700_000_004})
    frame = rig.samples.frame(made)
    rig.tell(FlashblockArrived(frame, made), Applied(EL, next_id, 0, frame.digest, Status.VALID), Committed(frame))
    assert rig.core.health.status == 206
    rig.tell(Tick(), after=OFFENCE_REMEMBERED_S)
    assert rig.core.health.status == 200, "after a while without an accusation"


def test_a_silent_builder_is_noticed_at_the_end_of_its_block(rig: Rig) -> None:
    rig.open()
    decided = rig.ask(after=1.9)
    assert ("extend_payload_errors", "silent") in reasons(decided)
    assert rig.core.health.status == 206


def test_a_builder_is_not_called_silent_when_it_had_no_time(rig: Rig) -> None:
    rig.open()
    rig.ask(after=0.02)
    assert rig.core.health.status == 200


def test_garbage_is_counted_and_shown_but_does_not_end_the_block(rig: Rig) -> None:
    rig.open()
    rig.through(0)
    assert reasons(rig.tell(GarbageArrived("not JSON"))) == [("extend_payload_errors", "garbage")]
    assert rig.core.health.status == 206
    rig.through(1)
    assert of(rig.ask(), AnswerEnvelope)[0].flashblocks == 2


def test_a_hole_is_asked_for_once_and_filled_in_order(rig: Rig) -> None:
    rig.open()
    rig.through(0)
    assert len(of(rig.arrive(2), RequestResend)) == 1
    assert of(rig.arrive(3), RequestResend) == []
    rig.arrive(1)
    for index in (1, 2, 3):
        rig.judge(index)
    assert [offer.frame.index for offer in of(rig.log, Offering)] == [0, 1, 2, 3]
    assert rig.core.health.status == 200


def test_a_hole_that_stays_is_held_against_the_builder(rig: Rig) -> None:
    rig.open()
    rig.through(0)
    rig.arrive(2)
    assert ("extend_payload_errors", "missing_flashblock") in reasons(rig.ask(after=1.9))
    assert rig.core.health.status == 206


def test_a_flashblock_of_the_previous_block_is_late(rig: Rig) -> None:
    rig.open()
    rig.through(0)
    rig.open(timestamp=1_700_000_004)
    assert reasons(rig.arrive(1)) == [("flashblocks_late", "late")]


def test_the_same_update_again_changes_nothing(rig: Rig) -> None:
    identifier = rig.open()
    rig.through(0, 1)
    rig.tell(Forkchoice(2, rig.samples.head, rig.samples.attributes(), identifier))
    rig.through(2)
    assert of(rig.ask(), AnswerEnvelope)[0].flashblocks == 3
