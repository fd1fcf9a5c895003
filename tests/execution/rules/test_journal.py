"""The journal against a plain model: any order of writes, reverts, seals and forks gives the same root."""

import copy
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from flashblocks.execution.block_state import BlockState, Environment
from flashblocks.execution.chain_spec import ISTHMUS
from flashblocks.execution.code import NO_CODE, Code
from flashblocks.execution.journal import Journal
from flashblocks.execution.keccak import hashed_address, hashed_slot
from flashblocks.execution.state import Account, WorldState
from flashblocks.execution.trie import update

ADDRESSES = st.sampled_from([bytes([n]) * 20 for n in range(1, 7)])
SLOTS = st.integers(0, 5)
VALUES = st.integers(0, 4)
ENVIRONMENT = Environment(901, 1, 1, bytes(20), 1, 1, bytes(32), ISTHMUS, lambda number: None)

Model = dict[bytes, tuple[int, int, bytes, dict[int, int]]]


def world_of(model: Model) -> WorldState:
    accounts = {}
    for address, (nonce, balance, code, storage) in model.items():
        slots = update(None, {hashed_slot(slot): value for slot, value in storage.items() if value})
        accounts[hashed_address(address)] = Account(nonce, balance, Code.of(code) if code else NO_CODE, slots)
    return WorldState().with_accounts(accounts)


class JournalMachine(RuleBasedStateMachine):
    journal: Journal
    model: Model

    @initialize(storage=st.dictionaries(SLOTS, st.integers(1, 4)))
    def start(self, storage: dict[int, int]) -> None:
        self.model = {bytes([1]) * 20: (1, 5, b"\x60", dict(storage)), bytes([2]) * 20: (0, 7, b"", {})}
        self.journal = BlockState(world_of(self.model), ENVIRONMENT)
        self.journal.begin_transaction(frozenset())
        self.inner: list[tuple[int, Model]] = []
        self.marks: list[tuple[int, Model]] = []
        self.before: Model = copy.deepcopy(self.model)

    def entry(self, address: bytes) -> tuple[int, int, bytes, dict[int, int]]:
        return self.model.get(address, (0, 0, b"", {}))

    @rule(address=ADDRESSES, amount=st.integers(1, 9))
    def pay(self, address: bytes, amount: int) -> None:
        nonce, balance, code, storage = self.entry(address)
        self.model[address] = (nonce, balance + amount, code, storage)
        self.journal.delta_balance(address, amount)

    @rule(address=ADDRESSES)
    def use_nonce(self, address: bytes) -> None:
        nonce, balance, code, storage = self.entry(address)
        self.model[address] = (nonce + 1, balance, code, storage)
        self.journal.increment_nonce(address)

    @rule(address=ADDRESSES, slot=SLOTS, value=VALUES)
    def store(self, address: bytes, slot: int, value: int) -> None:
        if address in self.model:
            self.model[address][3][slot] = value
            self.journal.set_storage(address, slot, value)

    @rule(address=ADDRESSES, code=st.sampled_from([b"\x60\x01", b"\x60\x02"]))
    def deploy(self, address: bytes, code: bytes) -> None:
        nonce, balance, _, storage = self.entry(address)
        self.model[address] = (nonce + 1, balance, code, storage)
        self.journal.increment_nonce(address)
        self.journal.set_code(address, code)

    @rule()
    def enter_call(self) -> None:
        self.inner.append((self.journal.snapshot(), copy.deepcopy(self.model)))

    @precondition(lambda self: self.inner)
    @rule()
    def revert_call(self) -> None:
        checkpoint, self.model = self.inner.pop()
        self.journal.revert(checkpoint)

    @rule()
    def next_transaction(self) -> None:
        self.inner.clear()
        self.journal.begin_transaction(frozenset())
        self.before = copy.deepcopy(self.model)

    @rule()
    def mark(self) -> None:
        self.next_transaction()
        self.marks.append((self.journal.snapshot(), copy.deepcopy(self.model)))

    @precondition(lambda self: self.marks)
    @rule(data=st.data())
    def roll_back(self, data: Any) -> None:
        self.journal.end_transaction()
        index = data.draw(st.integers(0, len(self.marks) - 1))
        checkpoint, self.model = self.marks[index]
        self.model = copy.deepcopy(self.model)
        del self.marks[index + 1 :]
        self.journal.revert(checkpoint)
        self.next_transaction()

    @rule()
    def seal(self) -> None:
        self.next_transaction()
        assert self.journal.world().root == world_of(self.model).root

    @rule()
    def fork(self) -> None:
        self.next_transaction()
        assert isinstance(self.journal, BlockState)
        original = self.journal
        self.journal = original.fork()
        original.delta_balance(b"\x09" * 20, 1)  # what the original does is nothing to the fork
        self.marks.clear()
        self.journal.begin_transaction(frozenset())

    @invariant()
    def reads_agree(self) -> None:
        if not hasattr(self, "journal"):
            return
        for number in range(1, 7):
            address = bytes([number]) * 20
            nonce, balance, code, storage = self.entry(address)
            assert self.journal.get_nonce(address) == nonce
            assert self.journal.get_balance(address) == balance
            assert self.journal.get_code(address) == code
            before = self.before.get(address, (0, 0, b"", {}))[3]
            for slot in range(6):
                assert self.journal.get_storage(address, slot) == storage.get(slot, 0)
                if address in self.model:
                    assert self.journal.get_storage(address, slot, from_journal=False) == before.get(slot, 0)

    def teardown(self) -> None:
        if hasattr(self, "journal"):
            self.seal()


JournalMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestJournal = JournalMachine.TestCase


def test_long_transactions_are_compacted_and_still_taken_back() -> None:
    model: Model = {bytes([1]) * 20: (1, 5, b"\x60", {0: 3})}
    journal = BlockState(world_of(model), ENVIRONMENT)
    journal.begin_transaction(frozenset())
    mark = journal.snapshot()
    for n in range(10_000):
        journal.set_storage(bytes([1]) * 20, n % 3, n)
        journal.mark_storage_warm(bytes([1]) * 20, n)
    journal.begin_transaction(frozenset())
    assert len(journal.undo) == 3
    journal.world()
    journal.revert(mark)
    assert journal.world().root == world_of(model).root
