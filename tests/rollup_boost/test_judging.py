from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from flashblocks.rollup_boost.assembly import HELD_FRAMES_MAX, Block, Progress
from flashblocks.rollup_boost.judging import Finding, base_difference, inspect


@pytest.fixture
def block(samples: SimpleNamespace) -> Block:
    opened = Block(samples.payload_id, samples.head, samples.attributes())
    for index in range(2):
        made = samples.flashblock(index)
        opened.arrive(samples.frame(made), made, 0.0)
    return opened


def look(samples: SimpleNamespace, block: Block, made: Any, **changes: Any) -> tuple[Finding, str]:
    frame = msgspec.structs.replace(samples.frame(made), **changes)
    found = inspect(block, frame, made)
    return found.finding, found.reason


def test_the_next_index_is_accepted(samples: SimpleNamespace, block: Block) -> None:
    assert look(samples, block, samples.flashblock(2)) == (Finding.ACCEPT, "")


@pytest.mark.parametrize(
    ("index", "salt", "expected"),
    [
        (1, "", (Finding.DUPLICATE, "duplicate")),
        (0, "", (Finding.DUPLICATE, "duplicate")),
        (1, "other", (Finding.REFUSE, "equivocation")),
        (3, "", (Finding.HOLD, "missing_flashblock")),
        (1001, "", (Finding.REFUSE, "invalid_index")),
    ],
)
def test_indices(samples: SimpleNamespace, block: Block, index: int, salt: str, expected: tuple[Finding, str]) -> None:
    assert look(samples, block, samples.flashblock(index, salt)) == expected


def test_the_same_id_with_a_changed_base_is_an_equivocation(samples: SimpleNamespace, block: Block) -> None:
    changed = samples.flashblock(0, base={"gas_limit": 30_000_000})
    assert look(samples, block, changed) == (Finding.REFUSE, "equivocation")


def test_a_builder_that_has_not_heard_of_a_committed_flashblock_is_late_not_lying(
    samples: SimpleNamespace, block: Block
) -> None:
    assert block.commit(samples.frame(samples.flashblock(1, "elsewhere"), epoch=3), 0.0)
    assert look(samples, block, samples.flashblock(1)) == (Finding.LATE, "superseded")


def test_nothing_is_taken_after_the_payload_was_asked_for(samples: SimpleNamespace, block: Block) -> None:
    block.asked = True
    assert look(samples, block, samples.flashblock(2)) == (Finding.LATE, "tail")


def test_a_builder_caught_once_is_out_for_the_block(samples: SimpleNamespace, block: Block) -> None:
    block.distrusted = "invalid"
    assert look(samples, block, samples.flashblock(2)) == (Finding.LATE, "distrusted")


def test_what_is_held_is_bounded(samples: SimpleNamespace, block: Block) -> None:
    for index in range(3, 3 + HELD_FRAMES_MAX):
        made = samples.flashblock(index)
        block.held[index] = (samples.frame(made), made)
    assert look(samples, block, samples.flashblock(900)) == (Finding.REFUSE, "invalid_index")


@pytest.mark.parametrize(
    "changes",
    [
        {"number": 101},
        {"index": 5},
        {"payload_id": b"\x09" * 8},
        {"parent_hash": b"\x09" * 32},
        {"block_hash": b"\x09" * 32},
    ],
)
def test_what_stands_beside_the_body_must_be_what_is_in_it(
    samples: SimpleNamespace, block: Block, changes: dict[str, Any]
) -> None:
    assert look(samples, block, samples.flashblock(2), **changes) == (Finding.REFUSE, "frame_mismatch")


def test_the_block_number_may_not_change(samples: SimpleNamespace, block: Block) -> None:
    assert look(samples, block, samples.flashblock(2, number=101)) == (Finding.REFUSE, "frame_mismatch")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("timestamp", 1),
        ("prev_randao", b"\1" * 32),
        ("fee_recipient", b"\1" * 20),
        ("gas_limit", 1),
        ("parent_beacon_block_root", b"\1" * 32),
        ("parent_hash", b"\1" * 32),
        ("extra_data", b""),
        ("extra_data", b"\1" + b"\0" * 8),
        ("extra_data", b"\0" + b"\1" * 8),
    ],
)
def test_the_base_must_be_what_was_asked_for(samples: SimpleNamespace, field: str, value: Any) -> None:
    made = samples.flashblock(0, base={field: value})
    assert f"base.{field}" in base_difference(made.base, samples.head, samples.attributes())
    if field != "parent_hash":
        fresh = Block(samples.payload_id, samples.head, samples.attributes())
        assert look(samples, fresh, made) == (Finding.REFUSE, "base_mismatch")


def test_zero_parameters_ask_for_the_chain_s_own(samples: SimpleNamespace) -> None:
    made = samples.flashblock(0)
    assert base_difference(made.base, samples.head, samples.attributes(eip1559_params=b"\0" * 8)) == ""


@pytest.mark.parametrize(("extra", "good"), [(5, True), (6, False)])
def test_jovian_carries_the_minimum_base_fee(samples: SimpleNamespace, extra: int, good: bool) -> None:
    asked = samples.attributes(min_base_fee=5)
    made = samples.flashblock(0, base={"extra_data": b"\1" + asked.eip1559_params + extra.to_bytes(8, "big")})
    assert (base_difference(made.base, samples.head, asked) == "") is good


def test_the_forced_transactions_come_first(samples: SimpleNamespace) -> None:
    fresh = Block(samples.payload_id, samples.head, samples.attributes(transactions=(b"\x7e\x02",)))
    assert look(samples, fresh, samples.flashblock(0)) == (Finding.REFUSE, "base_mismatch")


def test_progress_of_a_resumed_block_is_kept(samples: SimpleNamespace) -> None:
    block = Block(samples.payload_id, samples.head)
    for index in range(3):
        assert block.commit(samples.frame(samples.flashblock(index), epoch=2), 0.0)
    block.attributes = samples.attributes()
    assert look(samples, block, samples.flashblock(3)) == (Finding.ACCEPT, "")
    assert [piece.progress for piece in block.pieces] == [Progress.PROMISED] * 3
