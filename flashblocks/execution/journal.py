"""The state of a block under construction: what its transactions wrote over a `WorldState`, with an undo journal.

Method names and arguments are those that py-evm's opcodes call on their `computation.state`, so this object stands in
for py-evm's own state and account database. One list of (container, key, old value) undoes everything – accounts,
storage (its container is the address), transient storage, warm sets – so a checkpoint is the length of that list.
"""

from typing import Any

from flashblocks.execution import trie
from flashblocks.execution.code import NO_CODE, Code
from flashblocks.execution.keccak import hashed_address, hashed_slot
from flashblocks.execution.state import Account, WorldState

Record = tuple[int, int, Code]  # nonce, balance in wei, code

EMPTY_RECORD: Record = (0, 0, NO_CODE)
_UNREAD: Any = object()

# A transaction that writes one slot in a loop leaves an undo entry per write; from this length on, only the oldest
# entry per slot is kept when the transaction ends.
COMPACT_ABOVE_ENTRIES = 256


class Journal:
    """Everything written since the block began, readable at once and undoable back to any checkpoint."""

    def __init__(self, base: WorldState) -> None:
        self.base = base
        self.accounts: dict[bytes, Record | None] = {}
        self.storage: dict[bytes, dict[int, int]] = {}
        self.transient: dict[tuple[bytes, int], bytes] = {}
        self.warm: set[Any] = set()  # addresses and (address, slot): EIP-2929
        self.undo: list[tuple[Any, Any, Any]] = []
        self.original: dict[tuple[bytes, int], int] = {}  # storage as it was before this transaction: EIP-2200
        self._base_accounts: dict[bytes, Account | None] = {}
        self._transaction_start = 0
        self._touched_before: frozenset[bytes] = frozenset()  # by the blocks that this one was forked from
        self._touched: set[bytes] = set()
        self._touched_upto = 0  # how much of the undo list `_touched` covers
        # The trie as of the last `world()`, and what was written since.
        self._sealed = base
        self._dirty_accounts: set[bytes] = set()
        self._dirty_slots: dict[bytes, set[int]] = {}
        self._storage_nodes: dict[bytes, trie.Node | None] = {}

    # -- transactions

    def begin_transaction(self, warm: frozenset[bytes]) -> None:
        """Forget what belongs to one transaction only; `warm` are the addresses that are warm from the start."""
        self.end_transaction()
        self.warm = set(warm)
        self.original = {}
        self.transient = {}

    def end_transaction(self) -> None:
        """Keep of the finished transaction's undo entries what is needed to take back whole transactions."""
        start = self._transaction_start
        undo = self.undo
        if len(undo) > start:
            lasting = []
            seen = set()
            compact = len(undo) - start > COMPACT_ABOVE_ENTRIES
            warm, transient = self.warm, self.transient
            for entry in undo[start:]:
                container = entry[0]
                if container is warm or container is transient:
                    continue
                if compact:
                    place = (container if type(container) is bytes else b"", entry[1])
                    if place in seen:
                        continue
                    seen.add(place)
                lasting.append(entry)
            undo[start:] = lasting
        self._transaction_start = len(undo)

    def written_accounts(self) -> set[bytes]:
        """Addresses whose record was written by the current transaction and not undone."""
        accounts = self.accounts
        return {key for container, key, _ in self.undo[self._transaction_start :] if container is accounts}

    def snapshot(self) -> int:
        """A checkpoint inside the current transaction, or between transactions."""
        return len(self.undo)

    def revert(self, checkpoint: int) -> None:
        """Take back everything written since `checkpoint`.

        What is restored counts as written: the value taken back may already be in the sealed trie.
        """
        undo = self.undo
        while len(undo) > checkpoint:
            container, key, old = undo.pop()
            if type(container) is bytes:
                self.storage[container][key] = old
                self._mark_slot(container, key)
            elif type(container) is set:
                container.discard(key)
            else:
                container[key] = old
                if container is self.accounts:
                    self._dirty_accounts.add(key)
        if checkpoint < self._touched_upto:
            self._touched, self._touched_upto = set(), 0
        if checkpoint < self._transaction_start:
            self._transaction_start = checkpoint
            self.warm = set()
            self.transient = {}
            self.original = {}

    def commit(self, checkpoint: int) -> None:
        """Nothing: what is not reverted stays."""

    # -- accounts

    def record(self, address: bytes) -> Record | None:
        """Nonce, balance and code, or None where there is no account."""
        found = self.accounts.get(address, _UNREAD)
        if found is _UNREAD:
            account = self._base_account(address)
            found = self.accounts[address] = None if account is None else (account[0], account[1], account[2])
        return found  # type: ignore

    def _base_account(self, address: bytes) -> Account | None:
        found = self._base_accounts.get(address, _UNREAD)
        if found is _UNREAD:
            found = self._base_accounts[address] = self.base.account(address)
        return found  # type: ignore

    def write(self, address: bytes, record: Record | None) -> None:
        """Replace an account's record."""
        accounts = self.accounts
        old = accounts.get(address, _UNREAD)
        if old is _UNREAD:
            old = self.record(address)
        self.undo.append((accounts, address, old))
        accounts[address] = record
        self._dirty_accounts.add(address)

    def get_balance(self, address: bytes) -> int:
        """Wei."""
        record = self.record(address)
        return record[1] if record else 0

    def set_balance(self, address: bytes, balance: int) -> None:
        """Set the balance in wei."""
        nonce, _, code = self.record(address) or EMPTY_RECORD
        self.write(address, (nonce, balance, code))

    def delta_balance(self, address: bytes, delta: int) -> None:
        """Add wei (or take them: negative)."""
        nonce, balance, code = self.record(address) or EMPTY_RECORD
        self.write(address, (nonce, balance + delta, code))

    def credit(self, address: bytes, amount: int) -> None:
        """Add wei; adding none only touches the account (EIP-161)."""
        if amount:
            self.delta_balance(address, amount)
        else:
            self.touch_account(address)

    def get_nonce(self, address: bytes) -> int:
        """The next nonce."""
        record = self.record(address)
        return record[0] if record else 0

    def set_nonce(self, address: bytes, nonce: int) -> None:
        """Set the next nonce."""
        _, balance, code = self.record(address) or EMPTY_RECORD
        self.write(address, (nonce, balance, code))

    def increment_nonce(self, address: bytes) -> None:
        """Use up one nonce."""
        nonce, balance, code = self.record(address) or EMPTY_RECORD
        self.write(address, (nonce + 1, balance, code))

    def code_of(self, address: bytes) -> Code:
        """The code object (empty where there is no account)."""
        record = self.record(address)
        return record[2] if record else NO_CODE

    def get_code(self, address: bytes) -> bytes:
        """The code bytes."""
        return self.code_of(address).raw

    def get_code_hash(self, address: bytes) -> bytes:
        """The hash of the code."""
        return self.code_of(address).hash

    def set_code(self, address: bytes, code: bytes) -> None:
        """Install code."""
        nonce, balance, _ = self.record(address) or EMPTY_RECORD
        self.write(address, (nonce, balance, Code.of(code)))

    def account_exists(self, address: bytes) -> bool:
        """Whether there is a record at all (an empty one counts)."""
        return self.record(address) is not None

    def account_is_empty(self, address: bytes) -> bool:
        """EIP-161: no nonce, no balance, no code."""
        record = self.record(address)
        return record is None or record == EMPTY_RECORD

    def has_code_or_nonce(self, address: bytes) -> bool:
        """Whether a contract cannot be created here (EIP-684, EIP-7610: storage counts too)."""
        record = self.record(address)
        if record is None:
            return False
        if record[0] or record[2] is not NO_CODE:
            return True
        account = self._base_account(address)
        return account is not None and account.storage is not None

    def touch_account(self, address: bytes) -> None:
        """EIP-161: an existing empty account that is touched is removed when the transaction ends."""
        record = self.record(address)
        if record is not None and record == EMPTY_RECORD:
            self.write(address, record)

    def delete_account(self, address: bytes) -> None:
        """Remove an account that this transaction created, or an empty one (EIP-6780, EIP-161)."""
        self.delete_storage(address)
        self.write(address, None)

    # -- storage

    def get_storage(self, address: bytes, slot: int, from_journal: bool = True) -> int:
        """A storage word; with `from_journal=False`, as it was before this transaction (EIP-2200)."""
        if not from_journal:
            original = self.original.get((address, slot))
            if original is not None:
                return original
        slots = self.storage.get(address)
        if slots is None:
            slots = self.storage[address] = {}
        value = slots.get(slot)
        if value is None:
            account = self._base_account(address)
            value = slots[slot] = 0 if account is None else self.base.slot_of(account, slot)
        return value

    def set_storage(self, address: bytes, slot: int, value: int) -> None:
        """Write a storage word."""
        current = self.get_storage(address, slot)
        place = (address, slot)
        if place not in self.original:
            self.original[place] = current
        slots = self.storage[address]
        self.undo.append((address, slot, current))
        slots[slot] = value
        self._mark_slot(address, slot)

    def _mark_slot(self, address: bytes, slot: int) -> None:
        dirty = self._dirty_slots.get(address)
        if dirty is None:
            self._dirty_slots[address] = {slot}
        else:
            dirty.add(slot)

    def replace_storage(self, address: bytes, slots: dict[int, int]) -> None:
        """Pretend that the account's storage is exactly `slots`. Cannot be undone: for throw-away states only."""
        account = self._base_account(address)
        if account is not None:
            self._base_accounts[address] = account._replace(storage=None)
        self.storage[address] = {}
        for slot, value in slots.items():
            self.set_storage(address, slot, value)

    def delete_storage(self, address: bytes) -> None:
        """Clear what this transaction wrote.

        Only accounts created in the current transaction get here, and an address with older storage is never created
        on (`has_code_or_nonce`), so there is nothing underneath.
        """
        for slot, value in list(self.storage.get(address, {}).items()):
            if value:
                self.set_storage(address, slot, 0)

    def get_transient_storage(self, address: bytes, slot: int) -> bytes:
        """EIP-1153."""
        return self.transient.get((address, slot), b"")

    def set_transient_storage(self, address: bytes, slot: int, value: bytes) -> None:
        """EIP-1153."""
        place = (address, slot)
        self.undo.append((self.transient, place, self.transient.get(place, b"")))
        self.transient[place] = value

    # -- warm sets (EIP-2929)

    def is_address_warm(self, address: bytes) -> bool:
        """Whether the address was used before in this transaction."""
        return address in self.warm

    def mark_address_warm(self, address: bytes) -> None:
        """From now on the address is warm."""
        if address not in self.warm:
            self.warm.add(address)
            self.undo.append((self.warm, address, None))

    def is_storage_warm(self, address: bytes, slot: int) -> bool:
        """Whether the slot was used before in this transaction."""
        return (address, slot) in self.warm

    def mark_storage_warm(self, address: bytes, slot: int) -> None:
        """From now on the slot is warm."""
        place = (address, slot)
        if place not in self.warm:
            self.warm.add(place)
            self.undo.append((self.warm, place, None))

    # -- the state after what has been written so far

    def world(self) -> WorldState:
        """The state of the prefix so far. Only what changed since the last call is hashed again."""
        if not self._dirty_accounts and not self._dirty_slots:
            return self._sealed
        load = self.base.load
        for address, slots in self._dirty_slots.items():
            values = self.storage[address]
            before = self._storage_node(address)
            changes = {hashed_slot(slot): values[slot] for slot in slots}
            self._storage_nodes[address] = trie.update(before, changes, load)
            self._dirty_accounts.add(address)
        accounts: dict[str, Account | None] = {}
        for address in self._dirty_accounts:
            record = self.record(address)
            accounts[hashed_address(address)] = (
                None if record is None else Account(record[0], record[1], record[2], self._storage_node(address))
            )
        self._sealed = self._sealed.with_accounts(accounts)
        self._dirty_accounts.clear()
        self._dirty_slots.clear()
        return self._sealed

    def _storage_node(self, address: bytes) -> trie.Node | None:
        if address in self._storage_nodes:
            return self._storage_nodes[address]
        account = self._base_account(address)
        return account.storage if account else None

    def touched_addresses(self) -> set[bytes]:
        """Every account that the block has written or whose storage it has written, so far (between transactions)."""
        self.end_transaction()
        accounts, touched = self.accounts, self._touched
        for container, key, _ in self.undo[self._touched_upto :]:
            touched.add(key if container is accounts else container)
        self._touched_upto = len(self.undo)
        return touched | self._touched_before
