import pytest

import flashblocks.conductor.catch_up as module
from flashblocks.conductor.catch_up import Ahead, Level, Push, envelope_of, plan
from flashblocks.wire.hexadecimal import WireError
from raft.ledger import Ledger
from tests.conductor.ledgers import GENESIS, Chain


def chain(blocks: int) -> Chain:
    made = Chain()
    made.blocks(blocks)
    return made


def numbers(todo) -> list[int]:
    assert isinstance(todo, Push)
    return [block.number for block in todo.blocks]


def test_level() -> None:
    made = chain(3)
    assert plan(*made.ledger.head, made.ledger.view) == Level()
    assert plan(0, GENESIS, Ledger(0, GENESIS).view) == Level()


@pytest.mark.parametrize("gap", [1, 2, 5, 16])
def test_a_gap_of_any_size_is_closed_in_order(gap: int) -> None:
    made = chain(gap + 2)
    own = made.ledger.sealed(2)
    todo = plan(2, own.block_hash, made.ledger.view)
    assert numbers(todo) == list(range(3, gap + 3)) and not todo.backfill


def test_a_large_gap_is_closed_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CATCH_UP_BATCH_BLOCKS", 4)
    made = chain(10)
    assert numbers(plan(0, GENESIS, made.ledger.view)) == [1, 2, 3, 4]


def test_below_the_window_the_op_node_has_to_fetch_for_itself() -> None:
    import msgspec

    made = chain(6)
    view = msgspec.structs.replace(made.ledger.view, sealed_blocks=made.ledger.view.sealed_blocks[3:])
    todo = plan(1, made.ledger.sealed(1).block_hash, view)
    assert numbers(todo) == [4] and todo.backfill


def test_a_head_that_is_not_the_committed_block_is_replaced() -> None:
    made = chain(4)
    assert numbers(plan(3, b"\x66" * 32, made.ledger.view)) == [3, 4]
    assert numbers(plan(4, b"\x66" * 32, made.ledger.view)) == [4]


def test_more_than_the_head_can_be_replaced() -> None:
    made = chain(6)
    assert numbers(plan(5, b"\x66" * 32, made.ledger.view, back=2)) == [3, 4, 5, 6]
    assert numbers(plan(5, b"\x66" * 32, made.ledger.view, back=99)) == [1, 2, 3, 4, 5, 6]
    own = made.ledger.sealed(5)
    assert numbers(plan(5, own.block_hash, made.ledger.view, back=2)) == [6], "the head is the committed block"


def test_ahead_of_the_ledger() -> None:
    made = chain(2)
    assert plan(3, b"\x01" * 32, made.ledger.view) == Ahead()
    assert plan(0, b"\x66" * 32, Ledger(0, GENESIS).view) == Ahead(), "another genesis"


def test_a_sealed_block_gives_its_payload_back() -> None:
    made = chain(1)
    made.fallback()
    for number in (1, 2):
        assert envelope_of(made.ledger.sealed(number)) == made.envelopes[number]


def test_a_block_that_is_not_its_flashblocks_is_not_handed_out() -> None:
    import msgspec

    wrong = msgspec.structs.replace(chain(1).ledger.sealed(1), block_hash=b"\x66" * 32)
    with pytest.raises(WireError, match="not the block of its flashblocks"):
        envelope_of(wrong)
