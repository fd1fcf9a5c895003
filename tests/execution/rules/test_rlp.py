"""RLP: every value has one encoding, and every other byte string is refused."""

import pytest
import rlp as oracle
from hypothesis import given
from hypothesis import strategies as st

from flashblocks.execution import rlp
from flashblocks.execution.errors import InvalidEncoding

NESTED = st.recursive(st.binary(max_size=80), lambda inner: st.lists(inner, max_size=5), max_leaves=20)


@given(NESTED)
def test_encoding_agrees_with_pyrlp_and_decodes_back(item: object) -> None:
    encoded = rlp.encode(item)  # type: ignore[arg-type]
    assert encoded == oracle.encode(item)
    try:
        assert rlp.decode(encoded) == item
    except InvalidEncoding as error:
        assert "nested too deeply" in str(error)


@given(st.binary(max_size=60))
def test_a_decoded_string_is_canonical(data: bytes) -> None:
    try:
        item = rlp.decode(data)
    except InvalidEncoding:
        return
    assert rlp.encode(item) == data


@given(st.integers(min_value=0, max_value=2**256))
def test_integers(value: int) -> None:
    assert rlp.encode_uint(value) == oracle.encode(value)
    assert rlp.minimal_bytes(value).lstrip(b"\0") == rlp.minimal_bytes(value)


@pytest.mark.parametrize("size", [0, 1, 55, 56, 255, 256, 65_535, 65_536, 1 << 24])
def test_sizes(size: int) -> None:
    data = b"\xaa" * size
    assert rlp.encode_bytes(data) == oracle.encode(data)
    assert rlp.decode(rlp.encode_bytes(data)) == data
    assert rlp.string_payload(rlp.encode_bytes(data)) == data
    assert rlp.split_list(rlp.encode([data, b"x"])) == [rlp.encode_bytes(data), b"x"]


@pytest.mark.parametrize(
    "encoded",
    [
        "",
        "81",
        "8100",
        "b800",
        "b801aa",
        "b90001aa",
        "c1",
        "f800",
        "c28100",
        "0000",
        "b8",
        "bf",
        "ff" * 9,
        "b838" + "00" * 55,
    ],
)
def test_refused(encoded: str) -> None:
    with pytest.raises(InvalidEncoding):
        rlp.decode(bytes.fromhex(encoded))


def test_deep_nesting_is_refused_before_the_stack_is() -> None:
    with pytest.raises(InvalidEncoding, match="deeply"):
        rlp.decode(oracle.encode([[[[[[[[[[]]]]]]]]]]))
    with pytest.raises(InvalidEncoding):
        rlp.decode(b"\xc1" * 100_000)
