"""A functional Merkle-Patricia trie (yellow paper, appendix D): an update returns a new root, old roots stay valid.

Nodes never change once built, so a sub-block, a fork or a reorg is a pointer to another root, and the memory of a
state that nobody points to any more is freed. Paths are strings of hexadecimal digits, so that slicing and prefix
tests run in C. A batch of changes visits, encodes and hashes each touched node once.

A child may also be a reference (`bytes`) to a node that is not in memory: it is read through `load(hash) -> rlp` when
it is first needed. States that live wholly in memory never meet one.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol, cast

from flashblocks.execution.errors import MissingState
from flashblocks.execution.keccak import keccak256
from flashblocks.execution.rlp import encode_bytes, encode_uint, split_list, string_payload, wrap_list

EMPTY_ROOT = bytes.fromhex("56e81f171bcc55a6ff8345e692c0f86e5b48e01b996cadc001622fb5e363b421")
NO_CHILD = b"\x80"
HASH_REFERENCE_HEAD = 0xA0
INLINE_NODE_LIMIT_BYTES = 32

_DIGITS = "0123456789abcdef"
_DIGIT_VALUE = {digit: value for value, digit in enumerate(_DIGITS)}


class Encodable(Protocol):
    """A leaf value that knows its own RLP."""

    def rlp(self) -> bytes:
        """The bytes that are stored in the leaf."""


Value = bytes | int | Encodable
Load = Callable[[bytes], bytes]
Change = tuple[str, Value | None]


def no_load(reference: bytes) -> bytes:
    """The loader of a state that is wholly in memory."""
    raise MissingState(f"trie node {reference.hex()} is not in memory")


class Leaf:
    """The end of a path; `key` is the whole path from the root, so that a leaf can move without being read again."""

    __slots__ = ("key", "ref", "value")

    def __init__(self, key: str, value: Value, depth: int) -> None:
        self.key = key
        self.value = value
        kind = type(value)
        payload = value if kind is bytes else encode_uint(value) if kind is int else value.rlp()  # type: ignore
        self.ref = _reference(encode_bytes(_compact(key[depth:], "2", "3")) + encode_bytes(cast(bytes, payload)))


class Extension:
    """A stretch of path without a branch; its child is always a branch."""

    __slots__ = ("child", "path", "ref")

    def __init__(self, path: str, child: "Node") -> None:
        self.path = path
        self.child = child
        below: bytes = child if isinstance(child, bytes) else child.ref  # type: ignore[has-type]
        self.ref: bytes = _reference(encode_bytes(_compact(path, "0", "1")) + below)


class Branch:
    """Sixteen possible next digits; keys have one length in every trie here, so a branch has no value of its own."""

    __slots__ = ("children", "ref")

    def __init__(self, children: "list[Node | None]") -> None:
        self.children = children
        self.ref = _reference(
            b"".join([NO_CHILD if c is None else c if type(c) is bytes else c.ref for c in children])  # type: ignore
            + NO_CHILD
        )


Node = Leaf | Extension | Branch | bytes


def _compact(path: str, even: str, odd: str) -> bytes:
    return bytes.fromhex(odd + path if len(path) & 1 else even + "0" + path)


def _common_digits(a: str, b: str) -> int:
    """How many leading digits two paths share."""
    if a == b:
        return len(a)
    shared = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        shared += 1
    return shared


def _reference(payload: bytes) -> bytes:
    """What a parent stores for a node: the node itself when it is shorter than a hash, else its encoded hash."""
    encoded = wrap_list(payload)
    return encoded if len(encoded) < INLINE_NODE_LIMIT_BYTES else b"\xa0" + keccak256(encoded)


def root_hash(root: Node | None) -> bytes:
    """The 32-byte root of a trie."""
    if root is None:
        return EMPTY_ROOT
    ref = root if isinstance(root, bytes) else root.ref
    return ref[1:] if len(ref) == 33 and ref[0] == HASH_REFERENCE_HEAD else keccak256(ref)


def root_reference(hashed: bytes) -> Node | None:
    """An unread root, from its hash."""
    return None if hashed == EMPTY_ROOT else b"\xa0" + hashed


def get(root: Node | None, key: str, load: Load = no_load) -> Value | None:
    """The value at `key`; a value that came through `load` is still RLP (bytes)."""
    node = root
    depth = 0
    while node is not None:
        kind = type(node)
        if kind is Branch:
            node = node.children[_DIGIT_VALUE[key[depth]]]  # type: ignore
            depth += 1
        elif kind is Leaf:
            return node.value if node.key == key else None  # type: ignore
        elif kind is Extension:
            if not key.startswith(node.path, depth):  # type: ignore
                return None
            depth += len(node.path)  # type: ignore
            node = node.child  # type: ignore
        else:
            node = _resolve(cast(bytes, node), key[:depth], load)
    return None


def proof(root: Node | None, key: str, load: Load = no_load) -> list[bytes]:
    """The encoded nodes from the root towards `key`, as far as the trie goes: they prove its value, or its absence.

    Nodes shorter than a hash lie inside their parents and are not listed, but for the root (eth_getProof, EIP-1186).
    """
    found: list[bytes] = []
    below, depth = root, 0
    while below is not None:
        node = cast(Leaf | Extension | Branch, _resolve(below, key[:depth], load) if type(below) is bytes else below)
        if depth == 0 or len(node.ref) > INLINE_NODE_LIMIT_BYTES:
            found.append(_encoded(node, depth))
        if isinstance(node, Branch):
            below = node.children[_DIGIT_VALUE[key[depth]]]
            depth += 1
        elif isinstance(node, Extension) and key.startswith(node.path, depth):
            depth += len(node.path)
            below = node.child
        else:
            return found
    return found


def _encoded(node: Leaf | Extension | Branch, depth: int) -> bytes:
    """The RLP of a node that stands at `depth`."""
    if isinstance(node, Leaf):
        value = node.value
        payload = value if isinstance(value, bytes) else encode_uint(value) if isinstance(value, int) else value.rlp()
        return wrap_list(encode_bytes(_compact(node.key[depth:], "2", "3")) + encode_bytes(payload))
    if isinstance(node, Extension):
        return wrap_list(encode_bytes(_compact(node.path, "0", "1")) + _reference_of(node.child))
    return wrap_list(b"".join([NO_CHILD if c is None else _reference_of(c) for c in node.children]) + NO_CHILD)


def _reference_of(node: Node) -> bytes:
    return node if isinstance(node, bytes) else node.ref


def update(root: Node | None, changes: Mapping[str, Value | None], load: Load = no_load) -> Node | None:
    """The root after writing `changes`; None deletes a key, and so does the integer zero (an empty storage slot)."""
    if not changes:
        return root
    return _updated(root, 0, [(key, None if value == 0 else value) for key, value in changes.items()], load)


def items(root: Node | None, load: Load = no_load) -> Iterator[tuple[str, Value]]:
    """Every (key, value) in the order of the keys."""
    yield from _items(root, "", load)


def _items(node: Node | None, prefix: str, load: Load) -> Iterator[tuple[str, Value]]:
    if isinstance(node, bytes):
        node = _resolve(node, prefix, load)
    if isinstance(node, Leaf):
        yield node.key, node.value
    elif isinstance(node, Extension):
        yield from _items(node.child, prefix + node.path, load)
    elif isinstance(node, Branch):
        for digit, child in zip(_DIGITS, node.children, strict=True):
            if child is not None:
                yield from _items(child, prefix + digit, load)


Differences = dict[str, tuple[Value | None, Value | None]]  # key → (old, new)


def difference(old: Node | None, new: Node | None, load: Load = no_load) -> Differences:
    """Keys whose value differs, with (old, new); parts that the two tries share are not visited."""
    found: Differences = {}
    _compare(old, new, "", load, found)
    return found


def _compare(
    old: Node | None, new: Node | None, prefix: str, load: Load, found: dict[str, tuple[Value | None, Value | None]]
) -> None:
    if old is new or _same_reference(old, new):
        return
    if isinstance(old, bytes):
        old = _resolve(old, prefix, load)
    if isinstance(new, bytes):
        new = _resolve(new, prefix, load)
    if isinstance(old, Branch) and isinstance(new, Branch):
        for digit, before, after in zip(_DIGITS, old.children, new.children, strict=True):
            _compare(before, after, prefix + digit, load, found)
        return
    if isinstance(old, Extension) and isinstance(new, Extension) and old.path == new.path:
        _compare(old.child, new.child, prefix + old.path, load, found)
        return
    # The shapes differ: a branch appeared or vanished here. Both sides are read; one of them is small.
    left = dict(_items(old, prefix, load))
    for key, value in _items(new, prefix, load):
        was = left.pop(key, None)
        if was != value:
            found[key] = (was, value)
    for key, gone in left.items():
        found[key] = (gone, None)


def _same_reference(old: Node | None, new: Node | None) -> bool:
    if old is None or new is None:
        return False
    a = old if isinstance(old, bytes) else old.ref
    b = new if isinstance(new, bytes) else new.ref
    return a == b and len(a) == 33  # a short inline node may stand at another depth with another meaning


def ordered_changes(values: list[bytes], first: int = 0) -> dict[str, Value | None]:
    """Changes that append `values` to a trie of rlp(index) → value, starting at index `first`."""
    return {encode_uint(first + i).hex(): value for i, value in enumerate(values)}


def ordered_root(values: list[bytes]) -> bytes:
    """The root of the trie rlp(index) → value: the form of transactions, receipts and withdrawals in a header."""
    return root_hash(update(None, ordered_changes(values)))


def _resolve(reference: bytes, prefix: str, load: Load) -> Node:
    """Read the node behind a reference; a short node is inside the reference itself."""
    hashed = len(reference) == 33 and reference[0] == HASH_REFERENCE_HEAD
    parts = split_list(load(reference[1:]) if hashed else reference)
    if len(parts) == 17:
        branch = Branch.__new__(Branch)
        branch.children = [None if part == NO_CHILD else part for part in parts[:16]]
        branch.ref = reference
        return branch
    compact = string_payload(parts[0]).hex()
    path = compact[1:] if compact[0] in "13" else compact[2:]
    if compact[0] in "23":
        leaf = Leaf.__new__(Leaf)
        leaf.key = prefix + path
        leaf.value = string_payload(parts[1])
        leaf.ref = reference
        return leaf
    extension = Extension.__new__(Extension)
    extension.path = path
    extension.child = parts[1]
    extension.ref = reference
    return extension


def _build(entries: list[tuple[str, Value]], depth: int) -> Node:
    """A new subtree of distinct keys that share their first `depth` digits."""
    if len(entries) == 1:
        return Leaf(entries[0][0], entries[0][1], depth)
    keys = [key for key, _ in entries]
    low = min(keys)
    fork = _common_digits(low, max(keys))
    groups: dict[str, list[tuple[str, Value]]] = {}
    for entry in entries:
        groups.setdefault(entry[0][fork], []).append(entry)
    children: list[Node | None] = [None] * 16
    for digit, group in groups.items():
        children[_DIGIT_VALUE[digit]] = _build(group, fork + 1)
    branch = Branch(children)
    return branch if fork == depth else Extension(low[depth:fork], branch)


def _build_live(changes: list[Change], depth: int) -> Node | None:
    live = [(key, value) for key, value in changes if value is not None]
    return _build(live, depth) if live else None


def _updated(node: Node | None, depth: int, changes: list[Change], load: Load) -> Node | None:
    if type(node) is bytes:
        node = _resolve(node, changes[0][0][:depth], load)
    if type(node) is Branch:
        return _update_branch(node, depth, changes, load)
    if type(node) is Leaf:
        return _update_leaf(node, depth, changes)
    if type(node) is Extension:
        return _update_extension(node, depth, changes, load)
    return _build_live(changes, depth)


def _update_branch(node: Branch, depth: int, changes: list[Change], load: Load) -> Node | None:
    children = node.children.copy()
    if len(changes) == 1:
        groups = {changes[0][0][depth]: changes}
    else:
        groups = {}
        for change in changes:
            digit = change[0][depth]
            if digit in groups:
                groups[digit].append(change)
            else:
                groups[digit] = [change]
    changed = emptied = False
    for digit, group in groups.items():
        index = _DIGIT_VALUE[digit]
        before = children[index]
        after = _updated(before, depth + 1, group, load)
        if after is not before:
            children[index] = after
            changed = True
            emptied = emptied or after is None
    if not changed:
        return node
    if emptied:
        left = [index for index in range(16) if children[index] is not None]
        if not left:
            return None
        if len(left) == 1:
            return _prepend(_DIGITS[left[0]], cast(Node, children[left[0]]), changes[0][0][:depth], depth, load)
    return Branch(children)


def _update_leaf(node: Leaf, depth: int, changes: list[Change]) -> Node | None:
    key = node.key
    if len(changes) == 1 and changes[0][0] == key:
        value = changes[0][1]
        if value is None:
            return None
        return node if value == node.value else Leaf(key, value, depth)
    live = [change for change in changes if change[1] is not None]
    if not any(change[0] == key for change in changes):
        if not live:
            return node
        live.append((key, node.value))
    return _build_live(live, depth)


def _update_extension(node: Extension, depth: int, changes: list[Change], load: Load) -> Node | None:
    path = node.path
    end = depth + len(path)
    inside = [change for change in changes if change[0].startswith(path, depth)]
    outside = [change for change in changes if change[1] is not None and not change[0].startswith(path, depth)]
    prefix = changes[0][0][:depth]
    child: Node | None = _updated(node.child, end, inside, load) if inside else node.child
    if not outside:
        if child is node.child:
            return node
        return None if child is None else _prepend(path, child, prefix, depth, load)
    if child is None:
        return _build_live(outside, depth)
    # The extension splits where the first of the outside keys leaves it.
    fork = min(_common_digits(change[0][depth:end], path) for change in outside)
    rest = path[fork + 1 :]
    children: list[Node | None] = [None] * 16
    if not rest:
        below = child
    elif isinstance(child, bytes):
        below = Extension(rest, child)  # an unread child of an extension is a branch: there is nothing to swallow
    else:
        below = _prepend(rest, child, prefix + path[: fork + 1], depth + fork + 1, load)
    children[_DIGIT_VALUE[path[fork]]] = below
    groups: dict[str, list[Change]] = {}
    for change in outside:
        groups.setdefault(change[0][depth + fork], []).append(change)
    for digit, group in groups.items():
        index = _DIGIT_VALUE[digit]
        children[index] = _updated(children[index], depth + fork + 1, group, load)
    branch = Branch(children)
    return branch if fork == 0 else Extension(path[:fork], branch)


def _prepend(path: str, child: Node, prefix: str, depth: int, load: Load) -> Node:
    """The node at `depth` from which `path` leads to `child`; leaves and extensions swallow the path."""
    if isinstance(child, bytes):
        child = _resolve(child, prefix + path, load)
    if isinstance(child, Leaf):
        return Leaf(child.key, child.value, depth)
    if isinstance(child, Extension):
        return Extension(path + child.path, child.child)
    return Extension(path, child)
