"""Whatever the builder, the clients, the ledger and the operator do, the promises hold."""

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from flashblocks.rollup_boost.core import Core
from flashblocks.rollup_boost.facts import (
    AnswerEnvelope,
    Applied,
    Apply,
    AskForBlocks,
    BlocksOffered,
    Called,
    Committed,
    ConductorLost,
    Decision,
    Fact,
    FlashblockArrived,
    Forkchoice,
    Leadership,
    Linked,
    ModeSet,
    Offering,
    PayloadAsked,
    PayloadIdAnswered,
    Refused,
    StandIn,
    Status,
    StoodIn,
    Stream,
    Target,
    Tick,
)
from flashblocks.rollup_boost.rules import Rules
from flashblocks.rollup_boost.selection import ExecutionMode, Offer

SALTS = ("", "other")


def machine(samples: SimpleNamespace, commit_required: bool) -> type[RuleBasedStateMachine]:
    """One block, a ledger that commits at most one flashblock per index, and everything else at random."""

    class Machine(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.core = Core(Rules(commit_required=commit_required))
            self.now = 1_700_000_000.0
            self.ledger: list[Any] = []
            self.streamed: list[Any] = []
            self.applying: list[Apply] = []
            self.offers: list[Any] = []
            self.asks: list[AskForBlocks] = []
            self.stand_ins: list[StandIn] = []
            self.answered = 0
            self.asked = False
            self.judged: set[bytes] = set()
            self.made_by_l2: set[bytes] = set()

        def tell(self, fact: Fact) -> None:
            for decision in self.core.step(fact, self.now):
                self.take(decision)

        def take(self, decision: Decision) -> None:
            match decision:
                case Apply():
                    same = [apply for apply in self.applying if apply.target is decision.target]
                    assert not same, "one at a time"
                    self.applying.append(decision)
                case Offering(frame):
                    assert frame.digest in self.judged, "offered without a verdict"
                    assert not self.asked or frame.digest in self.made_by_l2, "offered after getPayload"
                    self.offers.append(frame)
                case Stream(frame):
                    expected = len(self.streamed)
                    assert frame.index == expected, "the stream is 0, 1, 2, … once each"
                    assert commit_required or frame.digest in self.judged
                    self.streamed.append(frame)
                case AskForBlocks():
                    self.asks.append(decision)
                case StandIn():
                    assert commit_required
                    assert not self.asked, "nothing is made after getPayload"
                    self.stand_ins.append(decision)
                case AnswerEnvelope():
                    assert decision.flashblocks >= self.answered, "an answer never loses what an earlier one had"
                    self.answered = decision.flashblocks
                    if commit_required:
                        hashes = decision.envelope.payload.block_hash, self.ledger[decision.flashblocks - 1].block_hash
                        assert hashes[0] == hashes[1], "the answer is the committed prefix"
                    else:
                        assert decision.envelope.payload.block_hash == self.streamed[-1].block_hash

        @initialize()
        def begin(self) -> None:
            self.tell(Leadership(1, True))
            self.open()

        @rule()
        def open(self) -> None:
            self.tell(Forkchoice(1, samples.head, samples.attributes(), samples.payload_id))
            self.tell(PayloadIdAnswered(Target.EXECUTION, samples.payload_id, samples.payload_id))

        @rule(index=st.integers(0, 4), salt=st.sampled_from(SALTS))
        def arrive(self, index: int, salt: str) -> None:
            made = samples.flashblock(index, salt)
            self.tell(FlashblockArrived(samples.frame(made), made))

        @rule()
        def arrive_next(self) -> None:
            block = self.core.block(samples.payload_id)
            self.arrive(len(block.pieces) if block is not None else 0, "")

        @rule()
        def judge_next(self) -> None:
            for apply in [apply for apply in self.applying if apply.target is Target.EXECUTION]:
                self.applying.remove(apply)
                self.judged.add(apply.frame.digest)
                self.tell(Applied(apply.target, apply.payload_id, apply.frame.index, apply.frame.digest, Status.VALID))

        @rule(data=st.data(), status=st.sampled_from(list(Status)), expected=st.integers(0, 4))
        def verdict(self, data: st.DataObject, status: Status, expected: int) -> None:
            if self.applying:
                apply = self.applying.pop(data.draw(st.integers(0, len(self.applying) - 1)))
                frame = apply.frame
                if apply.target is Target.EXECUTION and status in (Status.VALID, Status.DUPLICATE):
                    self.judged.add(frame.digest)
                self.tell(
                    Applied(
                        apply.target, apply.payload_id, frame.index, frame.digest, status, min(expected, frame.index)
                    )
                )

        @rule(works=st.booleans())
        def stood_in(self, works: bool) -> None:
            if self.stand_ins:
                asked = self.stand_ins.pop(0)
                made = samples.flashblock(asked.index, "stood in")
                frame = samples.frame(made)
                self.judged.add(frame.digest)
                answer = (frame, made) if works else (None, None)
                self.tell(StoodIn(asked.payload_id, asked.index, *answer))

        @rule()
        def commit_an_offer(self) -> None:
            if self.offers:
                frame = self.offers.pop(0)
                if frame.index == len(self.ledger):
                    self.ledger.append(frame)
                    self.tell(Committed(frame))
                else:
                    self.tell(Refused(frame.payload_id, frame.index, "gap"))

        @rule(salt=st.sampled_from(SALTS))
        def commit_from_elsewhere(self, salt: str) -> None:
            if commit_required and len(self.ledger) < 5:
                self.ledger.append(samples.frame(samples.flashblock(len(self.ledger), salt), 5))
                self.tell(Committed(self.ledger[-1]))

        @rule()
        def repeat_commits(self) -> None:
            for frame in self.ledger:
                self.tell(Committed(frame))

        @rule(leading=st.booleans())
        def leadership(self, leading: bool) -> None:
            self.tell(Leadership(1, leading))

        @rule(fact=st.sampled_from([ConductorLost(), Called(Target.EXECUTION), Called(Target.BUILDER, "timed out")]))
        def news(self, fact: Fact) -> None:
            self.tell(fact)

        @rule(who=st.sampled_from(list(Target)), up=st.booleans())
        def link(self, who: Target, up: bool) -> None:
            self.tell(Linked(who, up))

        @rule(mode=st.sampled_from(list(ExecutionMode)))
        def mode(self, mode: ExecutionMode) -> None:
            self.tell(ModeSet(mode))

        @rule(wait=st.floats(0, 0.1))
        def wait(self, wait: float) -> None:
            self.now += wait
            self.tell(Tick())

        @rule()
        def ask(self) -> None:
            if self.core.block(samples.payload_id) is not None:
                self.asked = True
            self.tell(PayloadAsked(7, samples.payload_id))

        @rule(has_l2=st.booleans(), flashblocks=st.integers(0, 2))
        def blocks(self, has_l2: bool, flashblocks: int) -> None:
            if not self.asks:
                return
            asked = self.asks.pop()
            made = [samples.flashblock(index, "l2") for index in range(flashblocks)] if asked.flashblocks else []
            own = tuple((samples.frame(one), one) for one in made)
            if has_l2:
                self.made_by_l2 |= {frame.digest for frame, _ in own}
                self.judged |= self.made_by_l2
            self.tell(BlocksOffered(asked.token, asked.client_id, Offer(1) if has_l2 else None, None, own))

        @invariant()
        def sound(self) -> None:
            self.core.check()
            block = self.core.block(samples.payload_id)
            if commit_required and block is not None:
                assert block.promised == len(self.ledger)

    return Machine


@pytest.mark.parametrize("commit_required", [True, False])
def test_the_promises_hold_whatever_happens(samples: SimpleNamespace, commit_required: bool) -> None:
    run_state_machine_as_test(
        machine(samples, commit_required), settings=settings(max_examples=80, stateful_step_count=40, deadline=None)
    )
