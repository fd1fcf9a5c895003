"""The functional trie against py-trie, with old roots kept, nodes loaded late, and differences taken."""

import random

import pytest
import rlp
from hypothesis import given, settings
from hypothesis import strategies as st
from trie import HexaryTrie

from flashblocks.execution import trie
from flashblocks.execution.errors import MissingState
from flashblocks.execution.rlp import encode_uint

# Few distinct digits make long shared prefixes, and so extensions, splits and collapses.
KEYS = st.text(alphabet="012f", min_size=8, max_size=8)
VALUES = st.one_of(st.none(), st.integers(1, 300), st.binary(min_size=1, max_size=40))


def oracle_of(content: dict[str, object]) -> HexaryTrie:
    tree = HexaryTrie({})
    for key, value in content.items():
        tree[bytes.fromhex(key)] = encode_uint(value) if isinstance(value, int) else value
    return tree


def merged(content: dict[str, object], changes: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in {**content, **changes}.items() if value is not None}


@settings(max_examples=150)
@given(st.lists(st.dictionaries(KEYS, VALUES, max_size=12), max_size=6))
def test_batches_give_the_oracles_root_and_old_roots_stay(batches: list[dict[str, object]]) -> None:
    root: trie.Node | None = None
    content: dict[str, object] = {}
    history = []
    for batch in batches:
        root = trie.update(root, batch)  # type: ignore[arg-type]
        content = merged(content, batch)
        history.append((root, dict(content)))
    for node, expected in history:
        assert trie.root_hash(node) == oracle_of(expected).root_hash
        assert dict(trie.items(node)) == expected
        for key in expected:
            assert trie.get(node, key) == expected[key]
        assert trie.get(node, "33333333") is None


@settings(max_examples=100)
@given(
    st.dictionaries(KEYS, VALUES.filter(lambda v: v is not None), max_size=20),
    st.dictionaries(KEYS, VALUES, max_size=8),
)
def test_a_trie_read_from_its_nodes_updates_the_same(content: dict[str, object], changes: dict[str, object]) -> None:
    tree = oracle_of(content)
    nodes = dict(tree.db)
    root = trie.update(trie.root_reference(tree.root_hash), changes, nodes.__getitem__)  # type: ignore[arg-type]
    assert trie.root_hash(root) == oracle_of(merged(content, changes)).root_hash


@settings(max_examples=100)
@given(st.dictionaries(KEYS, VALUES, max_size=20), st.dictionaries(KEYS, VALUES, max_size=8))
def test_difference_is_what_changed(content: dict[str, object], changes: dict[str, object]) -> None:
    before = merged({}, content)
    after = merged(before, changes)
    old = trie.update(None, before)  # type: ignore[arg-type]
    new = trie.update(old, changes)  # type: ignore[arg-type]
    expected = {k: (before.get(k), after.get(k)) for k in {*before, *after} if before.get(k) != after.get(k)}
    assert trie.difference(old, new) == expected
    rebuilt = trie.update(None, after)  # type: ignore[arg-type]
    assert trie.difference(new, rebuilt) == {}


@pytest.mark.parametrize("count", [0, 1, 2, 127, 128, 129, 300])
def test_ordered_root_in_one_go_and_in_pieces(count: int) -> None:
    values = [bytes([i % 251]) * (i % 60 + 1) for i in range(count)]
    tree = HexaryTrie({})
    for index, value in enumerate(values):
        tree[rlp.encode(index)] = value
    assert trie.ordered_root(values) == tree.root_hash
    root = None
    for first in range(0, count, 7):
        root = trie.update(root, trie.ordered_changes(values[first : first + 7], first))
    assert trie.root_hash(root) == tree.root_hash


def test_nothing_is_rebuilt_for_a_change_to_the_same_value() -> None:
    root = trie.update(None, {f"{i:08x}": i + 1 for i in range(100)})
    assert trie.update(root, {"00000005": 6, "99999999": None}) is root


def test_zero_deletes() -> None:
    root = trie.update(None, {"aa": 1})
    assert trie.update(root, {"aa": 0}) is None


def test_a_missing_node_is_named() -> None:
    with pytest.raises(MissingState, match="aaaa"):
        trie.get(b"\xa0" + b"\xaa" * 32, "00")


def test_random_large() -> None:
    chance = random.Random(5)
    root = None
    content: dict[str, object] = {}
    for _ in range(20):
        batch: dict[str, object] = {}
        for _ in range(50):
            key = chance.randbytes(32).hex() if chance.random() < 0.7 or not content else chance.choice(list(content))
            batch[key] = None if chance.random() < 0.3 else chance.randbytes(chance.randrange(1, 100))
        root = trie.update(root, batch)  # type: ignore[arg-type]
        content = merged(content, batch)
    assert trie.root_hash(root) == oracle_of(content).root_hash
