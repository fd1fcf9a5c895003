from types import SimpleNamespace
from typing import Any, TypeVar

import pytest

from flashblocks.rollup_boost.assembly import APPLY_FAILURES_MAX, Progress
from flashblocks.rollup_boost.core import BLOCKS_KEPT_MAX, L2_BLOCK_COMMIT_S_MAX, OFFER_WAIT_S_MAX, Core
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
    Tick,
    WakeAt,
)
from flashblocks.rollup_boost.health import OFFENCE_REMEMBERED_S
from flashblocks.rollup_boost.rules import Rules
from flashblocks.rollup_boost.selection import ExecutionMode, Offer, Policy, Source
from flashblocks.wire.assembly import assemble
from flashblocks.wire.payload_id import payload_id

D = TypeVar("D", bound=Decision)
T0 = 1_700_000_000.0
EL, BUILDER = Target.EXECUTION, Target.BUILDER


class Rig:
    """The core with a clock and a memory of everything it decided."""

    def __init__(self, samples: SimpleNamespace, **rules: Any) -> None:
        self.core, self.samples, self.now = Core(Rules(**rules)), samples, T0
        self.log: list[Decision] = []

    def tell(self, *facts: Fact, after: float = 0.0) -> list[Decision]:
        self.now += after
        decided: list[Decision] = []
        for fact in facts:
            decided += self.core.step(fact, self.now)
            self.core.check()
        self.log += decided
        return decided

    def open(self, leading: bool = True, **changes: Any) -> bytes:
        if leading:
            self.tell(Leadership(1, True))
        attributes = self.samples.attributes(**changes)
        identifier = payload_id(self.samples.head, attributes)
        self.tell(Forkchoice(1, self.samples.head, attributes, identifier))
        return identifier

    def arrive(self, index: int, **how: Any) -> list[Decision]:
        made = self.samples.flashblock(index, **how)
        return self.tell(FlashblockArrived(self.samples.frame(made), made))

    def judge(self, index: int, status: Status = Status.VALID, salt: str = "", **more: Any) -> list[Decision]:
        frame = self.frame(index, salt)
        return self.tell(Applied(EL, self.samples.payload_id, index, frame.digest, status, **more))

    def commit(self, index: int, salt: str = "", epoch: int = 1) -> list[Decision]:
        return self.tell(Committed(self.frame(index, salt, epoch)))

    def frame(self, index: int, salt: str = "", epoch: int = 0) -> Any:
        return self.samples.frame(self.samples.flashblock(index, salt), epoch)

    def through(self, *indices: int) -> None:
        for index in indices:
            self.arrive(index)
            self.judge(index)
            self.commit(index)

    def ask(self, token: int = 9, **wait: float) -> list[Decision]:
        return self.tell(PayloadAsked(token, self.samples.payload_id), **wait)

    def envelope(self, *salts: str) -> Any:
        return assemble([self.samples.flashblock(index, salt) for index, salt in enumerate(salts)])


@pytest.fixture
def rig(samples: SimpleNamespace) -> Rig:
    return Rig(samples)


def of(decisions: list[Decision], kind: type[D]) -> list[D]:
    return [decision for decision in decisions if isinstance(decision, kind)]


def reasons(decisions: list[Decision]) -> list[tuple[str, str]]:
    return [(count.metric, count.reason) for count in of(decisions, Count) if count.metric != "messages_processed"]


# The good case


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


# getPayload


def test_get_payload_waits_briefly_for_an_offer_on_its_way(rig: Rig) -> None:
    rig.open()
    rig.through(0)
    rig.arrive(1)
    rig.judge(1)
    asked = rig.ask()
    assert of(asked, AnswerEnvelope) == []
    assert of(asked, WakeAt) == [WakeAt(rig.now + OFFER_WAIT_S_MAX)]
    assert of(rig.commit(1), AnswerEnvelope) == [AnswerEnvelope(9, rig.envelope("", ""), 2)]


def test_get_payload_answers_the_committed_prefix_when_the_wait_is_over(rig: Rig) -> None:
    rig.open()
    rig.through(0)
    rig.arrive(1)
    rig.judge(1)
    rig.ask()
    assert of(rig.tell(Tick(), after=OFFER_WAIT_S_MAX), AnswerEnvelope) == [AnswerEnvelope(9, rig.envelope(""), 1)]
    # The ledger had taken it all the same: the conductor refuses the short block, the second call gets the long one.
    rig.commit(1)
    assert of(rig.ask(10), AnswerEnvelope) == [AnswerEnvelope(10, rig.envelope("", ""), 2)]


def test_a_refused_offer_ends_the_wait(rig: Rig) -> None:
    rig.open()
    rig.through(0)
    rig.arrive(1)
    rig.judge(1)
    rig.ask()
    assert len(of(rig.tell(Refused(rig.samples.payload_id, 1, "stale epoch")), AnswerEnvelope)) == 1


def test_nothing_is_offered_after_the_payload_was_asked_for(rig: Rig) -> None:
    rig.open()
    rig.through(0)
    rig.arrive(1)
    rig.ask()
    assert of(rig.judge(1), Offering) == []
    assert reasons(rig.arrive(2)) == [("flashblocks_late", "tail")]
    assert of(rig.tell(Leadership(2, True)), Offering) == []


def test_without_a_promise_the_execution_client_s_block_is_the_answer(rig: Rig) -> None:
    rig.open()
    assert of(rig.ask(), AskForBlocks) == [AskForBlocks(9, rig.samples.payload_id, None, flashblocks=True)]
    assert of(rig.tell(BlocksOffered(9, rig.samples.payload_id, Offer(5), None)), AnswerFrom) == [
        AnswerFrom(9, Source.L2)
    ]


# The execution client's own block, as flashblocks


def own_of_l2(rig: Rig, *indices: int) -> BlocksOffered:
    made = [rig.samples.flashblock(index, "l2") for index in indices]
    flashblocks = tuple((rig.samples.frame(one), one) for one in made)
    return BlocksOffered(9, rig.samples.payload_id, Offer(5), None, flashblocks)


def test_a_fallback_block_is_committed_as_flashblocks_before_it_is_answered(rig: Rig) -> None:
    rig.open()
    rig.ask()
    offered = rig.tell(own_of_l2(rig, 0, 1))
    assert of(offered, Offering) == [Offering(rig.frame(0, "l2")), Offering(rig.frame(1, "l2"))]
    assert of(offered, AnswerFrom) == []
    assert of(rig.commit(0, "l2"), AnswerEnvelope) == []
    committed = rig.commit(1, "l2")
    assert of(committed, AnswerEnvelope) == [AnswerEnvelope(9, rig.envelope("l2", "l2"), 2)]
    assert of(committed, Stream) == [Stream(rig.frame(1, "l2", epoch=1))]


def test_a_fallback_block_replaces_what_the_builder_had_merely_sent(rig: Rig) -> None:
    rig.open()
    rig.arrive(0)
    rig.ask()
    rig.tell(own_of_l2(rig, 0))
    assert reasons(rig.arrive(1)) == [("flashblocks_late", "tail")]
    assert of(rig.commit(0, "l2"), AnswerEnvelope) == [AnswerEnvelope(9, rig.envelope("l2"), 1)]


@pytest.mark.parametrize("end", [Refused(b"", 0, "stale_epoch"), Tick()])
def test_a_fallback_block_that_is_not_committed_is_answered_whole(rig: Rig, end: Fact) -> None:
    identifier = rig.open()
    rig.ask()
    rig.tell(own_of_l2(rig, 0))
    if isinstance(end, Refused):
        end = Refused(identifier, 0, end.reason)
    decided = rig.tell(end, after=L2_BLOCK_COMMIT_S_MAX)
    assert of(decided, AskForBlocks) == [AskForBlocks(9, identifier, None, flashblocks=False)]
    assert of(rig.tell(own_of_l2(rig, 0)), AnswerFrom) == [AnswerFrom(9, Source.L2)]


@pytest.mark.parametrize("reason", ["follower", "dry run", "no pool", "no commits"])
def test_where_nothing_may_be_streamed_the_fallback_block_is_answered_as_it_is(rig: Rig, reason: str) -> None:
    if reason == "no commits":
        rig.core.rules = Rules(commit_required=False)
    if reason == "dry run":
        rig.tell(ModeSet(ExecutionMode.DRY_RUN))
    identifier = rig.open(leading=reason != "follower", no_tx_pool=reason == "no pool")
    asked = of(rig.tell(PayloadAsked(9, identifier)), AskForBlocks)
    assert [one.flashblocks for one in asked] == [False]


def test_a_commit_while_the_client_is_asked_for_its_block_wins(rig: Rig) -> None:
    rig.open()
    rig.arrive(0)
    rig.judge(0)
    rig.ask()
    assert len(of(rig.tell(Tick(), after=OFFER_WAIT_S_MAX), AskForBlocks)) == 1
    rig.commit(0)
    answered = rig.tell(BlocksOffered(9, rig.samples.payload_id, Offer(5), None))
    assert of(answered, AnswerEnvelope) == [AnswerEnvelope(9, rig.envelope(""), 1)]


def test_an_execution_client_without_a_block_makes_the_call_fail_and_shows(rig: Rig) -> None:
    rig.open()
    rig.ask()
    decided = rig.tell(BlocksOffered(9, rig.samples.payload_id, None, None))
    assert of(decided, AnswerFrom) == [AnswerFrom(9, None)]
    assert of(decided, SetHealth)[0].health.status == 503


def test_an_unknown_payload_is_the_client_s_business(rig: Rig) -> None:
    assert rig.tell(PayloadAsked(3, b"\x09" * 8)) == [AskForBlocks(3, b"\x09" * 8, None)]


# The builder misbehaves


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


# Ids of other clients


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


def test_only_so_many_blocks_are_kept(rig: Rig) -> None:
    for number in range(100, 130):
        made = rig.samples.flashblock(0, number=number, identifier=number.to_bytes(8, "big"))
        rig.tell(Committed(rig.samples.frame(made)))
    assert len(rig.core.blocks) == BLOCKS_KEPT_MAX


# The execution clients


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
    assert rig.core.blocks[rig.samples.payload_id].promised == 1


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


# Without a conductor: as upstream, but judged


def test_without_required_commits_what_is_judged_is_streamed_and_promised(samples: SimpleNamespace) -> None:
    rig = Rig(samples, commit_required=False)
    rig.open(leading=False)
    rig.arrive(0)
    assert rig.judge(0) == [Stream(rig.frame(0))]
    assert of(rig.ask(), AnswerEnvelope)[0].flashblocks == 1


def test_without_flashblocks_the_builder_s_whole_block_may_be_chosen(samples: SimpleNamespace) -> None:
    rig = Rig(samples, commit_required=False, policy=Policy.GAS_USED)
    identifier = rig.open(leading=False)
    rig.tell(PayloadIdAnswered(BUILDER, identifier, b"\x03" * 8))
    assert of(rig.ask(), AskForBlocks) == [AskForBlocks(9, identifier, b"\x03" * 8)]
    assert of(rig.log, EndBuilderJob) == []
    decided = rig.tell(BlocksOffered(9, identifier, Offer(100), Offer(50)))
    assert of(decided, AnswerFrom) == [AnswerFrom(9, Source.BUILDER)]
    rig.ask(10)
    decided = rig.tell(BlocksOffered(10, identifier, Offer(100), Offer(50, valid=False)))
    assert of(decided, AnswerFrom) == [AnswerFrom(10, Source.L2)]
    assert rig.core.health.status == 206


def test_progress_is_visible_in_the_block(rig: Rig) -> None:
    rig.open()
    rig.arrive(0)
    rig.judge(0)
    rig.arrive(1)
    block = rig.core.block(rig.samples.payload_id)
    assert block is not None
    assert [piece.progress for piece in block.pieces] == [Progress.OFFERED, Progress.ARRIVED]
