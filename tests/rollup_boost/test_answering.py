from types import SimpleNamespace

import pytest

from flashblocks.rollup_boost.answering import (
    CONDUCTOR_ABSENCE_S_MAX,
    CONDUCTOR_WAIT_S_MAX,
    L2_BLOCK_COMMIT_S_MAX,
    OFFER_WAIT_S_MAX,
)
from flashblocks.rollup_boost.facts import (
    AnswerEnvelope,
    AnswerFrom,
    AskForBlocks,
    BlocksOffered,
    ConductorLost,
    EndBuilderJob,
    Fact,
    Leadership,
    ModeSet,
    Offering,
    PayloadAsked,
    PayloadIdAnswered,
    Refused,
    SetHealth,
    Stream,
    Tick,
    WakeAt,
)
from flashblocks.rollup_boost.rules import Rules
from flashblocks.rollup_boost.selection import ExecutionMode, Offer, Policy, Source
from tests.rollup_boost.core_rig import BUILDER, Rig, of, reasons


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
        rig.core.situation.rules = Rules(commit_required=False)
    if reason == "follower":
        rig.tell(Leadership(1, False))
    if reason == "dry run":
        rig.tell(ModeSet(ExecutionMode.DRY_RUN))
    identifier = rig.open(leading=reason != "follower", no_tx_pool=reason == "no pool")
    asked = of(rig.tell(PayloadAsked(9, identifier)), AskForBlocks)
    assert [one.flashblocks for one in asked] == [False]


def test_where_the_conductor_s_link_is_just_coming_up_its_word_is_waited_for(rig: Rig) -> None:
    identifier = rig.open(leading=False)
    assert of(rig.ask(), AskForBlocks) == []
    told = rig.tell(Leadership(3, True), after=0.05)
    assert of(told, AskForBlocks) == [AskForBlocks(9, identifier, None, flashblocks=True)]
    offered = rig.tell(own_of_l2(rig, 0))
    assert of(offered, Offering) == [Offering(rig.frame(0, "l2"))]


@pytest.mark.parametrize("lost", [False, True])
def test_a_conductor_that_does_not_come_is_not_waited_for_long(rig: Rig, lost: bool) -> None:
    identifier = rig.open(leading=lost)
    if lost:
        rig.tell(ConductorLost())
    assert of(rig.ask(), WakeAt) == [WakeAt(rig.now + CONDUCTOR_WAIT_S_MAX)]
    decided = rig.tell(Tick(), after=CONDUCTOR_WAIT_S_MAX)
    assert of(decided, AskForBlocks) == [AskForBlocks(9, identifier, None, flashblocks=False)]


@pytest.mark.parametrize("lost", [False, True])
def test_where_there_is_no_conductor_at_all_nobody_is_kept_waiting(rig: Rig, lost: bool) -> None:
    rig.open(leading=lost)
    if lost:
        rig.tell(ConductorLost(), after=60)
    assert len(of(rig.ask(after=CONDUCTOR_ABSENCE_S_MAX + 1), AskForBlocks)) == 1


def test_what_is_promised_is_answered_without_any_conductor(rig: Rig) -> None:
    rig.open()
    rig.through(0)
    rig.tell(ConductorLost())
    assert len(of(rig.ask(), AnswerEnvelope)) == 1


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
