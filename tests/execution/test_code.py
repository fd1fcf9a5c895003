"""Jump destinations: what a jump may lead to, and what they cost in memory."""

from hypothesis import given
from hypothesis import strategies as st

from flashblocks.execution.code import Code

INTERESTING = st.sampled_from([0x5B, 0x5B, 0x5F, 0x60, 0x61, 0x62, 0x7F, 0x00, 0x80, 0xFE])


def destinations_of(raw: bytes) -> set[int]:
    """The yellow paper's definition (9.4.3), step by step."""
    found, at = set(), 0
    while at < len(raw):
        if raw[at] == 0x5B:
            found.add(at)
        at += raw[at] - 0x5F + 1 if 0x60 <= raw[at] <= 0x7F else 1
    return found


@given(st.lists(INTERESTING | st.integers(0, 255), min_size=1, max_size=120))
def test_jump_destinations(code: list[int]) -> None:
    raw = bytes(code)
    valid = Code.of(raw).jump_destinations
    assert len(valid) == len(raw)
    assert {at for at, is_one in enumerate(valid) if is_one} == destinations_of(raw)


def test_a_push_cut_off_by_the_end() -> None:
    for size in range(1, 33):
        for given_bytes in range(size):
            raw = b"\x5b" + bytes((0x5F + size,)) + b"\x5b" * given_bytes
            assert Code.of(raw).jump_destinations == b"\1" + bytes(1 + given_bytes)


def test_the_worst_contract_costs_no_more_than_its_code() -> None:
    raw = b"\x5b" * 24_576
    assert Code.of(raw).jump_destinations == b"\1" * 24_576
