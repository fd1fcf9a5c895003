"""FastLZ sizes: figures of op-geth's and the specification's tests, and edges."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashblocks.execution.fastlz import fastlz_size


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (b"", 0),
        (b"\1", 2),
        (b"\1" * 1000, 21),
        (bytes(1000), 21),
    ],
)
def test_known_sizes(data: bytes, size: int) -> None:
    assert fastlz_size(data) == size


@given(st.binary(max_size=600))
def test_never_much_larger_than_the_data(data: bytes) -> None:
    assert fastlz_size(data) <= len(data) + len(data) // 32 + 1


@given(st.binary(min_size=20, max_size=60))
def test_repetition_is_cheap(data: bytes) -> None:
    assert fastlz_size(data * 8) <= fastlz_size(data) + 8 * 13
