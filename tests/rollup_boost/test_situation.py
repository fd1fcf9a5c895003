from types import SimpleNamespace

import pytest

from flashblocks.rollup_boost.assembly import Block
from flashblocks.rollup_boost.facts import Count, Target
from flashblocks.rollup_boost.rules import Rules
from flashblocks.rollup_boost.selection import ExecutionMode
from flashblocks.rollup_boost.situation import Situation

ENABLED, DRY_RUN = ExecutionMode.ENABLED, ExecutionMode.DRY_RUN


@pytest.mark.parametrize(
    ("mode", "block_mode", "done", "leading", "paused", "commit_required", "expected"),
    [
        (ENABLED, ENABLED, False, True, False, True, True),
        (DRY_RUN, ENABLED, False, True, False, True, False),  # the operator has stopped the stream
        (ENABLED, DRY_RUN, False, True, False, True, False),  # the block began without one
        (ENABLED, ENABLED, True, True, False, True, False),  # sealed, or overtaken
        (ENABLED, ENABLED, False, False, False, True, False),  # another group leads
        (ENABLED, ENABLED, False, True, True, True, False),  # the ledger has refused
        (ENABLED, ENABLED, False, False, True, False, True),  # nobody is asked
    ],
)
def test_who_may_offer(
    samples: SimpleNamespace,
    mode: ExecutionMode,
    block_mode: ExecutionMode,
    done: bool,
    leading: bool,
    paused: bool,
    commit_required: bool,
    expected: bool,
) -> None:
    situation = Situation(Rules(commit_required=commit_required), mode, leading=leading)
    block = Block(samples.payload_id, samples.head, mode=block_mode, done=done, offers_paused=paused)
    assert situation.may_offer(block) is expected


def test_an_accusation_is_counted_shown_and_ends_the_builder_s_part_in_the_block(samples: SimpleNamespace) -> None:
    situation, block = Situation(Rules(), ENABLED, now=5.0), Block(samples.payload_id, samples.head)
    situation.accuse(block, "garbage", "not JSON")
    assert block.distrusted == "", "noise on the wire says nothing about its flashblocks"
    situation.accuse(block, "invalid", "root")
    assert block.distrusted == "invalid"
    assert situation.peer(Target.BUILDER).fault == "garbage: not JSON", "the first offence of a block is kept"
    assert situation.out == [
        Count("extend_payload_errors", "garbage", "not JSON"),
        Count("extend_payload_errors", "invalid", "root"),
    ]
