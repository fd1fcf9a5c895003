"""The journal's bytes: golden, round trip, torn ends are dropped, any altered bit is noticed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raft.records import (
    RECORD_OVERHEAD_BYTES,
    SEGMENT_HEADER_BYTES,
    DamagedBytes,
    Kind,
    encode_record,
    read_segment,
    segment_header,
)

ENTRIES = [(2, 1, b"first"), (3, 1, b""), (4, 2, b"third entry")]


def segment(entries=ENTRIES, sequence=5, size=400) -> bytes:
    written = segment_header(sequence, size) + b"".join(
        b"".join(encode_record(Kind.ENTRY, index, term, payload)) for index, term, payload in entries
    )
    return written + bytes(size - len(written))


def read(data: bytes, sequence=5, last=True) -> list[tuple[int, int, bytes]]:
    return [(record.index, record.term, record.payload) for record in read_segment(data, sequence, last)]


def test_the_bytes_of_a_segment_do_not_change():
    assert segment_header(1, 400).hex() == "4642524c4f4700010000000000000001" + "0000000000000190" + "64e78277"
    record = b"".join(encode_record(Kind.ENTRY, 2, 1, b"x"))
    assert record.hex() == "010000000100000000000000020000000000000001" + "00899546" + "78" + "13637bb3" + "e71ec0de"
    assert len(record) == RECORD_OVERHEAD_BYTES + 1


def test_records_are_read_back_in_order():
    assert read(segment()) == ENTRIES
    assert read(segment([])) == []


@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.binary(max_size=50)), max_size=5))
def test_whatever_is_written_is_read(entries):
    assert read(segment(entries, size=1000)) == entries


def test_every_single_altered_bit_is_noticed_or_harmless():
    data = segment()
    noticed = 0
    for bit in range(len(data) * 8):
        altered = bytearray(data)
        altered[bit // 8] ^= 1 << bit % 8
        try:
            entries = read(bytes(altered))
        except DamagedBytes:
            noticed += 1
        else:
            assert entries == ENTRIES, f"bit {bit} altered what is read"
    used_bits = 8 * (SEGMENT_HEADER_BYTES + sum(RECORD_OVERHEAD_BYTES + len(entry[2]) for entry in ENTRIES))
    assert noticed >= used_bits


def test_a_record_cut_short_anywhere_is_dropped_as_torn():
    data = segment()
    start = len(segment(ENTRIES[:2]).rstrip(b"\x00"))
    end = len(data.rstrip(b"\x00"))
    for cut in range(start, end):
        torn = data[:cut] + bytes(len(data) - cut)
        assert read(torn) == ENTRIES[:2], f"cut at {cut}"


def test_a_torn_record_is_damage_where_another_segment_follows():
    data = segment()
    torn = data[: len(data.rstrip(b"\x00")) - 6]
    torn += bytes(len(data) - len(torn))
    assert read(torn, last=True) == ENTRIES[:2]
    with pytest.raises(DamagedBytes):
        read(torn, last=False)


def test_a_hole_in_the_middle_is_damage():
    data = bytearray(segment())
    start = SEGMENT_HEADER_BYTES
    data[start : start + RECORD_OVERHEAD_BYTES + 5] = bytes(RECORD_OVERHEAD_BYTES + 5)
    with pytest.raises(DamagedBytes):
        read(bytes(data))


def test_a_file_that_became_shorter_or_longer_is_damage():
    data = segment()
    for length in range(len(data)):
        with pytest.raises(DamagedBytes):
            read(data[:length])
    with pytest.raises(DamagedBytes):
        read(data + bytes(1))


def test_a_segment_of_another_sequence_is_damage():
    with pytest.raises(DamagedBytes):
        read(segment(sequence=6), sequence=5)


def test_an_unknown_kind_is_damage():
    record = b"".join(encode_record(9, 1, 1))
    with pytest.raises(DamagedBytes, match="unknown kind"):
        read(segment([], size=SEGMENT_HEADER_BYTES + RECORD_OVERHEAD_BYTES)[:SEGMENT_HEADER_BYTES] + record)
