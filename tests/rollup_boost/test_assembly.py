from types import SimpleNamespace

import pytest

from flashblocks.rollup_boost.assembly import Block, Progress
from flashblocks.wire.assembly import assemble
from flashblocks.wire.hexadecimal import WireError


@pytest.fixture
def block(samples: SimpleNamespace) -> Block:
    opened = Block(samples.payload_id, samples.head, samples.attributes())
    for index in range(4):
        made = samples.flashblock(index)
        opened.arrive(samples.frame(made), made, 0.0)
    return opened


def test_only_the_promised_prefix_is_the_block(samples: SimpleNamespace, block: Block) -> None:
    with pytest.raises(WireError):
        block.envelope()
    for index in range(3):
        assert block.commit(samples.frame(samples.flashblock(index), epoch=1), 0.0)
        block.check()
    assert block.promised == 3
    assert block.envelope() == assemble([samples.flashblock(index) for index in range(3)])


def test_a_commit_of_what_is_here_keeps_what_follows(samples: SimpleNamespace, block: Block) -> None:
    assert block.commit(samples.frame(samples.flashblock(0), epoch=7), 0.0)
    assert len(block.pieces) == 4
    assert block.pieces[0].frame.epoch == 7
    assert block.builder.next_index == 4


def test_a_commit_of_something_else_replaces_it_and_all_that_stood_on_it(
    samples: SimpleNamespace, block: Block
) -> None:
    block.execution.next_index = 4
    for index in range(2):
        block.commit(samples.frame(samples.flashblock(index)), 0.0)
    block.held[6] = (samples.frame(samples.flashblock(6)), samples.flashblock(6))
    assert block.commit(samples.frame(samples.flashblock(2, "elsewhere")), 0.0)
    block.check()
    assert [piece.own for piece in block.pieces] == [True, True, False]
    assert (block.execution.next_index, block.builder.next_index, block.held) == (2, 2, {})


def test_a_commit_with_a_hole_before_it_cannot_be_placed(samples: SimpleNamespace, block: Block) -> None:
    assert not block.commit(samples.frame(samples.flashblock(5)), 0.0)
    assert len(block.pieces) == 4


def test_outstanding_offers(samples: SimpleNamespace, block: Block) -> None:
    assert not block.outstanding
    block.pieces[0].progress = Progress.OFFERED
    assert block.outstanding
    block.commit(samples.frame(samples.flashblock(0)), 0.0)
    assert not block.outstanding
