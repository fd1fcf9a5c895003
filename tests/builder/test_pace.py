import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flashblocks.builder.pace import (
    ALLOWANCE_S_MIN,
    FILL_S_MIN,
    FIRST_LOOK_S,
    LATE_S_TOLERATED,
    MARGIN_S,
    PAUSE_S_MIN,
    SEAL_EVERY_S,
    SLICE_S,
    Allowance,
    Costs,
    Done,
    Fill,
    Pace,
    Rest,
    Seal,
    Work,
)
from flashblocks.builder.schedule import Timing

DUE = 0.2
ALLOWANCE = 0.1


class Shell:
    """Plays the shell with costs of its own: a transaction, a look and a sealing take this long."""

    def __init__(
        self, pace: Pace, transaction_s: float = 0.0005, seal_s: float = 0.004, look_s: float = 0.0001
    ) -> None:
        self.pace, self.transaction_s, self.seal_s, self.look_s = pace, transaction_s, seal_s, look_s
        self.now = 0.0
        self.arrived = self.included = self.sealed = 0
        self.on_offer = 0
        self.log: list[Work] = []

    def run(self, arrivals: list[float]) -> float:
        """Until Done; returns when that was."""
        arrivals = list(arrivals)
        while True:
            while arrivals and arrivals[0] <= self.now:
                arrivals.pop(0)
                self.arrived += 1
            work = self.pace.next(self.now, self.arrived)
            self.log.append(work)
            match work:
                case Fill():
                    self.fill(work)
                case Seal():
                    began = self.now
                    self.now += self.seal_s
                    self.sealed = self.included
                    self.pace.sealed(began, self.now)
                case Rest(until):
                    assert until > self.now, "it never spins"
                    self.now = until
                case Done():
                    return self.now

    def fill(self, work: Fill) -> None:
        began = self.now
        if work.renew:
            self.on_offer = self.arrived
            self.now += self.look_s
            self.pace.looked(began, self.now, self.arrived)
        before = self.now
        while self.included < self.on_offer and self.now < work.until_s:
            self.included += 1
            self.now += self.transaction_s
        exhausted = self.included == self.on_offer
        self.pace.filled(self.now - before, exhausted=exhausted, unsealed=self.included != self.sealed)


def pace(due_s: float = DUE, allowance_s: float = ALLOWANCE, last: bool = False) -> Pace:
    return Pace(0.0, due_s, allowance_s, Costs(), last=last)


def test_what_arrives_in_between_is_in_the_candidate_which_is_sealed_when_the_trigger_comes() -> None:
    shell = Shell(pace())
    ended = shell.run([0.01 * each for each in range(18)])
    assert shell.sealed == shell.included == 18
    assert DUE - 0.008 < ended < DUE


def test_without_transactions_there_is_one_candidate_and_hardly_any_work() -> None:
    shell = Shell(pace())
    shell.run([])
    assert sum(isinstance(work, Seal) for work in shell.log) == 1
    assert len(shell.log) < 20


def test_there_is_a_candidate_long_before_the_trigger() -> None:
    shell = Shell(pace())
    shell.run([0.0])
    first = next(at for at, work in enumerate(shell.log) if isinstance(work, Seal))
    assert first < len(shell.log) - 1
    assert shell.pace.sealed_any


def test_the_judge_has_the_processor_first() -> None:
    work = pace().next(0.0, 1)
    assert isinstance(work, Rest)
    assert work.until_s == pytest.approx(FIRST_LOOK_S)


def test_work_comes_in_slices_and_looks_have_pauses() -> None:
    one = pace()
    work = one.next(0.05, 1)
    assert work == Fill(0.05 + SLICE_S, one.freeze_s, renew=True)
    one.looked(0.05, 0.051, 1)
    one.filled(0.003, exhausted=True, unsealed=True)
    resting = one.next(0.055, 2)
    assert isinstance(resting, Rest)
    assert resting.until_s == pytest.approx(0.051 + PAUSE_S_MIN)


def test_an_expensive_look_is_repeated_less_often() -> None:
    one = pace(due_s=2.0)
    one.looked(0.05, 0.07, 1)
    one.filled(0.0, exhausted=True, unsealed=False)
    resting = one.next(0.08, 2)
    assert isinstance(resting, Rest)
    assert resting.until_s == pytest.approx(min(0.07 + 4 * 0.02, SEAL_EVERY_S))


def test_under_any_load_execution_stays_within_the_allowance_and_the_candidate_is_on_time() -> None:
    shell = Shell(pace())
    ended = shell.run([0.0] * 5000)
    assert shell.pace.executed_s <= ALLOWANCE + SLICE_S
    assert shell.sealed == shell.included == pytest.approx(ALLOWANCE / 0.0005, rel=0.05)
    assert ended < DUE


@given(
    arrivals=st.lists(st.floats(0, DUE), max_size=60),
    transaction_s=st.floats(0.0001, 0.02),
    seal_s=st.floats(0.0005, 0.03),
    look_s=st.floats(0.00005, 0.01),
    last=st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_whatever_things_cost_there_is_a_candidate_and_it_is_late_by_no_more_than_one_step(
    arrivals: list[float], transaction_s: float, seal_s: float, look_s: float, last: bool
) -> None:
    shell = Shell(pace(allowance_s=0.04 if last else ALLOWANCE, last=last), transaction_s, seal_s, look_s)
    ended = shell.run(sorted(arrivals))
    assert shell.pace.sealed_any
    assert ended <= DUE + max(seal_s, look_s + transaction_s) + LATE_S_TOLERATED
    assert shell.pace.executed_s <= (0.04 if last else ALLOWANCE) + SLICE_S + transaction_s
    assert len(shell.log) < 400, "it never spins"


def test_when_sealing_again_would_be_late_the_older_candidate_stands() -> None:
    one = pace()
    one.looked(0.08, 0.08, 0)
    assert one.next(SEAL_EVERY_S, 0) == Seal()
    one.sealed(SEAL_EVERY_S, SEAL_EVERY_S + 0.004)
    one.looked(0.15, 0.15, 1)
    one.filled(0.001, exhausted=True, unsealed=True)
    assert one.next(DUE - 0.006, 1) == Seal()
    assert one.next(DUE + 0.001, 1) == Done()


@pytest.mark.parametrize("due_s", [-1.0, 0.0, 0.005])
def test_a_block_that_is_begun_late_is_not_empty_and_hardly_later(due_s: float) -> None:
    shell = Shell(pace(due_s=due_s))
    ended = shell.run([0.0] * 100)
    assert shell.sealed == shell.included > 8
    assert ended < FILL_S_MIN + 0.006


def test_without_any_candidate_there_will_be_one_however_late() -> None:
    assert pace().next(DUE + 1.0, 0) == Seal()


def test_a_dearer_sealing_is_begun_earlier_and_slowly_forgotten() -> None:
    costs = Costs()
    costs.sealed(0.030)
    assert Pace(0.0, DUE, ALLOWANCE, costs).freeze_s == pytest.approx(DUE - 0.030 - MARGIN_S)
    costs.sealed(0.001)
    assert Pace(0.0, DUE, ALLOWANCE, costs).freeze_s == pytest.approx(DUE - 0.027 - MARGIN_S)


def test_a_long_transaction_may_run_until_the_freeze_but_not_in_the_last_flashblock() -> None:
    one = pace(allowance_s=0.05)
    work = one.next(0.05, 1)
    assert isinstance(work, Fill)
    assert work.deadline_s == one.freeze_s
    work = pace(allowance_s=0.05, last=True).next(0.05, 1)
    assert isinstance(work, Fill)
    assert work.deadline_s == pytest.approx(0.1)


def test_the_allowance_halves_when_blocks_come_back_short_and_recovers() -> None:
    allowance = Allowance(Timing())
    assert allowance.of(last=False) == pytest.approx(0.1)
    assert allowance.of(last=True) == pytest.approx(0.04), "60 ms until the payload is asked for, 20 for the commit"
    allowance.block_came_back(whole=False)
    assert allowance.of(last=False) == pytest.approx(0.05)
    for _ in range(10):
        allowance.block_came_back(whole=False)
    assert allowance.of(last=False) == allowance.of(last=True) == ALLOWANCE_S_MIN
    for _ in range(20):
        allowance.block_came_back(whole=True)
    assert allowance.of(last=False) == pytest.approx(0.1)


def test_without_room_before_get_payload_the_last_flashblock_is_small() -> None:
    assert Allowance(Timing(send_offset_ms=0)).of(last=True) == pytest.approx(ALLOWANCE_S_MIN)
