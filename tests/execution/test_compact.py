"""The compact indexes behave as the dictionaries they stand for, and are as small as they say."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashblocks.execution.compact import CanonicalHashes, HashPlaces


def test_places_of_many_hashes() -> None:
    chance = random.Random(1)
    hashes = [chance.randbytes(32) for _ in range(20_000)]
    index = HashPlaces(hashes.__getitem__)
    for place, block_hash in enumerate(hashes):
        assert block_hash not in index
        index.add(block_hash, place)
    assert len(index) == 20_000
    assert all(index.get(block_hash) == place for place, block_hash in enumerate(hashes))
    assert all(index.get(chance.randbytes(32)) is None for _ in range(2_000))
    assert 24 <= index.size_bytes / 20_000 <= 48


@given(st.lists(st.binary(min_size=1, max_size=1), max_size=40), st.integers(0, 1))
def test_hashes_with_one_beginning_are_told_apart(endings: list[bytes], same: int) -> None:
    hashes = list(dict.fromkeys((b"\0" * 31 if same else end * 31) + end for end in endings))
    index = HashPlaces(hashes.__getitem__)
    for place, block_hash in enumerate(hashes):
        index.add(block_hash, place)
    assert [index.get(block_hash) for block_hash in hashes] == list(range(len(hashes)))
    assert index.get(b"\1" + b"\2" * 31) is None


def named(number: int, branch: int = 0) -> bytes:
    return number.to_bytes(31, "big") + bytes((branch,))


def test_a_chain_grows_is_cut_and_learns_its_past() -> None:
    chain = CanonicalHashes(5, named(5))
    for number in range(6, 10):
        chain.append(number, named(number))
    chain.cut_to(6)
    chain.append(7, named(7, 1))
    chain.prepend([(number, named(number)) for number in (4, 3, 2)])
    assert chain.last == 7
    expected = [None, None, named(2), named(3), named(4), named(5), named(6), named(7, 1), None]
    assert [chain.get(number) for number in range(9)] == expected
    chain.append(8, named(8))
    assert chain.get(8) == named(8)
    with pytest.raises(AssertionError):
        chain.append(10, named(10))
    with pytest.raises(AssertionError):
        chain.prepend([(0, named(0))])
