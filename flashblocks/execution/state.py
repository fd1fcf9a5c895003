"""The state of the chain after a block: an immutable handle on functional tries.

A `WorldState` is two words: the root of the account trie and, for a partial state, a loader. Blocks, sub-blocks, forks
and reorgs are different handles that share every unchanged node; dropping a handle frees what only it used.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import msgspec

from flashblocks.execution import trie
from flashblocks.execution.code import NO_CODE, Code
from flashblocks.execution.errors import ExecutionError, MissingState
from flashblocks.execution.keccak import hashed_address, hashed_slot, keccak256
from flashblocks.execution.rlp import encode_uint, split_list, string_payload, wrap_list


class Account(NamedTuple):
    """One account as the state trie holds it; `storage` is the root node of its storage trie."""

    nonce: int
    balance: int  # wei
    code: Code
    storage: trie.Node | None

    def rlp(self) -> bytes:
        """The account as a leaf of the state trie (yellow paper §4.1)."""
        return wrap_list(
            encode_uint(self.nonce)
            + encode_uint(self.balance)
            + b"\xa0"
            + trie.root_hash(self.storage)
            + b"\xa0"
            + self.code.hash
        )


class AccountDiff(msgspec.Struct, frozen=True, array_like=True):
    """One changed account, named by the hash of its address; `storage` is changed slots only (hash of slot → value)."""

    key: bytes
    exists: bool
    nonce: int = 0
    balance: bytes = b""  # big endian: MessagePack integers end at 64 bits
    code_hash: bytes = b""
    storage: dict[bytes, bytes] = {}


class StateDiff(msgspec.Struct, frozen=True, array_like=True):
    """What leads from one state to another; small, and enough to rebuild the second from the first."""

    parent_root: bytes
    root: bytes
    accounts: tuple[AccountDiff, ...]
    codes: dict[bytes, bytes]  # code hash → code, for every code that a changed account has and its parent had not

    def to_bytes(self) -> bytes:
        """The form for a disk or a wire (MessagePack)."""
        return msgspec.msgpack.encode(self)

    @staticmethod
    def from_bytes(encoded: bytes) -> "StateDiff":
        """Read `to_bytes`; raises ExecutionError for anything else."""
        try:
            return msgspec.msgpack.decode(encoded, type=StateDiff)
        except msgspec.DecodeError as error:
            raise ExecutionError(f"state diff: {error}") from error


class WorldState:
    """All accounts at one moment. Never changes; build the next one with a block or with `apply_diff`."""

    __slots__ = ("_codes", "_load", "node")

    def __init__(
        self,
        node: trie.Node | None = None,
        load: trie.Load = trie.no_load,
        codes: Callable[[bytes], bytes] | None = None,
    ) -> None:
        self.node = node
        self._load = load
        self._codes = codes

    @staticmethod
    def from_witness(root: bytes, nodes: Mapping[bytes, bytes]) -> "WorldState":
        """A partial state: `nodes` maps a hash to the trie node or the contract code behind it.

        Reading what the witness does not contain raises MissingState.
        """

        def load(hashed: bytes) -> bytes:
            try:
                return nodes[hashed]
            except KeyError:
                raise MissingState(f"the witness has nothing under {hashed.hex()}") from None

        return WorldState(trie.root_reference(root), load, load)

    @property
    def root(self) -> bytes:
        """The state root that a header carries."""
        return trie.root_hash(self.node)

    @property
    def load(self) -> trie.Load:
        """How nodes that are not in memory are read."""
        return self._load

    def account(self, address: bytes) -> Account | None:
        """The account, or None where there is none."""
        return self._account_at(hashed_address(address))

    def _account_at(self, key: str) -> Account | None:
        value = trie.get(self.node, key, self._load)
        if value is None or type(value) is Account:
            return value
        return self._decode(value)

    def _decode(self, value: trie.Value) -> Account:
        if isinstance(value, Account):
            return value
        assert isinstance(value, bytes)
        nonce, balance, storage_root, code_hash = (string_payload(part) for part in split_list(value))
        if code_hash == NO_CODE.hash:
            code = NO_CODE
        elif self._codes is None:
            raise MissingState(f"contract code {code_hash.hex()} is not in memory")
        else:
            code = Code.deferred(code_hash, self._codes)
        return Account(
            int.from_bytes(nonce, "big"), int.from_bytes(balance, "big"), code, trie.root_reference(storage_root)
        )

    def balance(self, address: bytes) -> int:
        """Wei."""
        account = self.account(address)
        return account.balance if account else 0

    def nonce(self, address: bytes) -> int:
        """The next nonce of the account."""
        account = self.account(address)
        return account.nonce if account else 0

    def code(self, address: bytes) -> bytes:
        """The contract code, empty where there is none."""
        account = self.account(address)
        return account.code.raw if account else b""

    def storage(self, address: bytes, slot: int) -> int:
        """A storage word as an integer."""
        account = self.account(address)
        return self.slot_of(account, slot) if account else 0

    def slot_of(self, account: Account, slot: int) -> int:
        """A storage word of an account that was already read."""
        if account.storage is None:
            return 0
        return slot_value(trie.get(account.storage, hashed_slot(slot), self._load))

    def storage_root(self, address: bytes) -> bytes:
        """The root of the account's storage trie."""
        account = self.account(address)
        return trie.root_hash(account.storage) if account else trie.EMPTY_ROOT

    def with_accounts(self, changes: Mapping[str, Account | None]) -> "WorldState":
        """The state after writing whole accounts, by hashed address (64 hexadecimal digits)."""
        return WorldState(trie.update(self.node, changes, self._load), self._load, self._codes)

    def changed_accounts_since(self, parent: "WorldState", addresses: Iterable[bytes]) -> list[bytes]:
        """Those of `addresses` whose account differs between `parent` and this state (tries know only hashes)."""
        changed = trie.difference(parent.node, self.node, self._load)
        return [address for address in addresses if hashed_address(address) in changed]

    def diff(self, parent: "WorldState") -> StateDiff:
        """What leads from `parent` to this state. Costs time in proportion to the change, not to the state.

        `diff(WorldState())` is a whole snapshot.
        """
        accounts = []
        codes: dict[bytes, bytes] = {}
        for key, (before, after) in trie.difference(parent.node, self.node, self._load).items():
            old = None if before is None else parent._decode(before)
            new = None if after is None else self._decode(after)
            accounts.append(_account_diff(key, old, new, self._load))
            if new is not None and new.code is not NO_CODE and (old is None or old.code.hash != new.code.hash):
                codes[new.code.hash] = new.code.raw
        return StateDiff(parent.root, self.root, tuple(accounts), codes)

    def apply_diff(self, diff: StateDiff) -> "WorldState":
        """The state that `diff` leads to; raises ExecutionError when it does not start here or does not arrive."""
        if diff.parent_root != self.root:
            raise ExecutionError(f"state diff starts at {diff.parent_root.hex()}, this state is {self.root.hex()}")
        codes = {keccak256(raw): raw for raw in diff.codes.values()}
        changes = {change.key.hex(): self._apply_account(change, codes) for change in diff.accounts}
        after = self.with_accounts(changes)
        if after.root != diff.root:
            raise ExecutionError(f"state diff leads to {after.root.hex()}, not to {diff.root.hex()}")
        return after

    def _apply_account(self, change: AccountDiff, codes: Mapping[bytes, bytes]) -> Account | None:
        if not change.exists:
            return None
        old = self._account_at(change.key.hex())
        if old is not None and old.code.hash == change.code_hash:
            code = old.code
        elif change.code_hash == NO_CODE.hash:
            code = NO_CODE
        elif change.code_hash in codes:
            code = Code.of(codes[change.code_hash])
        else:
            raise ExecutionError(f"state diff lacks the code {change.code_hash.hex()}")
        slots = {key.hex(): int.from_bytes(value, "big") for key, value in change.storage.items()}
        storage = trie.update(old.storage if old else None, slots, self._load)
        return Account(change.nonce, int.from_bytes(change.balance, "big"), code, storage)


def slot_value(value: trie.Value | None) -> int:
    """A leaf of a storage trie as an integer, whether it was written here or loaded."""
    if value is None:
        return 0
    if isinstance(value, int):
        return value
    assert isinstance(value, bytes)
    return int.from_bytes(string_payload(value), "big")


def _account_diff(key: str, old: Account | None, new: Account | None, load: trie.Load) -> AccountDiff:
    if new is None:
        return AccountDiff(bytes.fromhex(key), False)
    changed = trie.difference(old.storage if old else None, new.storage, load)
    storage = {
        bytes.fromhex(slot): slot_value(after).to_bytes(32, "big").lstrip(b"\0") for slot, (_, after) in changed.items()
    }
    balance = new.balance.to_bytes(32, "big").lstrip(b"\0")
    return AccountDiff(bytes.fromhex(key), True, new.nonce, balance, new.code.hash, storage)
