"""Anything at all may happen to the pending machine – forks, lies, lost places, old epochs –: its invariants hold."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from flashblocks.preconf.facts import (
    Appended,
    Arrival,
    Backfill,
    BlockRef,
    CanonicalBlock,
    Decision,
    Execute,
    Invalidated,
    Seal,
)
from flashblocks.preconf.pending import PendingMachine
from tests.preconf.story import HEAD, flashblock, name

NUMBERS = st.integers(98, 106)
FORKS = st.sampled_from(["", "b"])
INDICES = st.integers(0, 4)


def hash_of(number: int, fork: str) -> bytes:
    """Two chains that part at every height; a block's hash is that of its flashblock 4."""
    return HEAD.hash if number == 100 else name(f"{number}.4{fork}")


def block(number: int, fork: str, parent_fork: str) -> CanonicalBlock:
    transactions = tuple(name(f"tx{number}.{index}{fork}0") for index in range(5))
    return CanonicalBlock(number, hash_of(number, fork), hash_of(number - 1, parent_fork), transactions)


class PendingModel(RuleBasedStateMachine):
    """Random facts; what is shown is remembered and compared with what is announced."""

    def __init__(self) -> None:
        super().__init__()
        self.machine = PendingMachine(HEAD, max_unconfirmed_blocks=3)
        self.now = 0.0
        self.executing: Arrival | None = None
        self.shown: list[tuple[int, int, bytes]] = []
        self.withdrawn: set[int] = set()

    def take(self, decisions: list[Decision]) -> None:
        for decision in decisions:
            match decision:
                case Execute(arrival):
                    assert self.executing is None, "one at a time"
                    self.executing = arrival
                case Appended(arrival):
                    self.append(arrival)
                case Invalidated(number, _, _, _, _, _):
                    self.withdrawn.add(number)
                    self.shown = [place for place in self.shown if place[0] != number]
                case Seal(sealed, _, index):
                    indices = [place[1] for place in self.shown if place[0] == sealed.number]
                    assert indices == list(range(index + 1)), "only what was shown is sealed"

    def append(self, arrival: Arrival) -> None:
        same_block = [place for place in self.shown if place[0] == arrival.number]
        assert [place[1] for place in same_block] == list(range(arrival.index)), "each index once, in order"
        assert all(place[2] == arrival.payload_id for place in same_block), "payloads are never mixed"
        self.shown.append((arrival.number, arrival.index, arrival.payload_id))

    @rule(number=NUMBERS, index=INDICES, fork=FORKS, parent=FORKS, epoch=st.integers(0, 3))
    def streamed(self, number: int, index: int, fork: str, parent: str, epoch: int) -> None:
        arrival = flashblock(number, index, parent=hash_of(number - 1, parent), payload=fork, epoch=epoch)
        self.take(self.machine.streamed(self.now, arrival))

    @precondition(lambda self: self.executing is not None)
    @rule(outcome=st.sampled_from(["VALID", "VALID", "VALID", "VALID", "INVALID", "GAP", "UNKNOWN_PARENT"]))
    def executed(self, outcome: str) -> None:
        arrival, self.executing = self.executing, None
        assert arrival is not None
        self.take(self.machine.executed(self.now, arrival, outcome))  # type: ignore[arg-type]

    @rule(number=NUMBERS, fork=FORKS, parent=FORKS)
    def canonical(self, number: int, fork: str, parent: str) -> None:
        self.take(self.machine.canonical(self.now, block(number, fork, parent)))

    @rule(number=NUMBERS, fork=FORKS, source=st.sampled_from(["a", "b"]))
    def observed(self, number: int, fork: str, source: str) -> None:
        self.take(self.machine.observed(self.now, source, BlockRef(number, hash_of(number, fork))))

    @rule(number=NUMBERS, fork=FORKS)
    def sealed(self, number: int, fork: str) -> None:
        self.take(self.machine.sealed(self.now, BlockRef(number, hash_of(number, fork))))

    @rule(number=NUMBERS, index=INDICES)
    def gap(self, number: int, index: int) -> None:
        self.take(self.machine.gap_announced(self.now, number, index))

    @rule(seconds=st.sampled_from([0.01, 0.1, 1.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.take(self.machine.tick(self.now))

    @invariant()
    def holds(self) -> None:
        self.machine.check()
        view = self.machine.view(self.now)
        if view.source == "flashblocks":
            assert self.machine.open is not None
            assert (self.machine.open.number, view.index) == (
                self.machine.head.number + 1,
                self.machine.open.next_index - 1,
            )


PendingModel.TestCase.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
TestPendingModel = PendingModel.TestCase


def test_a_block_beyond_the_open_one_asks_for_the_one_between() -> None:
    machine = PendingMachine(HEAD, max_unconfirmed_blocks=3)
    number = HEAD.number + 1
    first = flashblock(number, 0, parent=HEAD.hash, payload="a")
    machine.streamed(0.0, first)
    machine.executed(0.0, first, "VALID")
    beyond = block(number + 1, "a", "a")
    assert machine.canonical(0.0, beyond) == [Backfill(number, number + 1, beyond.hash)]
    machine.check()
