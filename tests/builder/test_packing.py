from collections import defaultdict
from itertools import count

from hypothesis import given
from hypothesis import strategies as st

from flashblocks.builder.budget import Limits, Usage, budget
from flashblocks.builder.limiter import Rate, SenderLimits
from flashblocks.builder.offers import Candidate, CandidateQueue
from flashblocks.builder.packing import Executed, Packing, Unexecutable

NEVER = bool
ARRIVALS = count()


def candidate(sender: int, nonce: int, tip: int, gas: int = 100, **more: object) -> Candidate:
    arrival = next(ARRIVALS)
    fields = {"da_bytes": 10, "size_bytes": 20, "transaction": None, **more}
    return Candidate(arrival.to_bytes(32, "big"), bytes([sender]), nonce, tip, arrival, gas, **fields)  # type: ignore[arg-type]


class Ledger:
    """A bench that executes by the rules of nonces alone: enough of a state to see the packer's order."""

    def __init__(
        self, nonces: dict[int, int] | None = None, reverting: tuple[Candidate, ...] = (), use: int = 100
    ) -> None:
        self.nonces = defaultdict(int, {bytes([sender]): nonce for sender, nonce in (nonces or {}).items()})
        self.reverting = reverting
        self.use = use
        self.done: list[Candidate] = []

    def execute(self, candidate: Candidate) -> Executed | Unexecutable:
        expected = self.nonces[candidate.sender]
        if candidate.nonce != expected:
            return Unexecutable("nonce", stale=candidate.nonce < expected)
        self.nonces[candidate.sender] += 1
        self.done.append(candidate)
        return Executed(min(self.use, candidate.gas_limit), candidate in self.reverting)

    def undo(self) -> None:
        self.nonces[self.done.pop().sender] -= 1

    def back_to(self, count: int) -> None:
        while len(self.done) > count:
            self.undo()


def pack(
    bench: Ledger, pool: list[Candidate], index: int = 1, gas: int = 10_000, shares: int = 1, **limits: int
) -> Packing:
    packing = Packing(
        index,
        budget(Limits(gas_limit=gas, **limits), index if shares > 1 else 1, shares),
        Usage(),
        CandidateQueue(pool),
        bench,
    )
    assert packing.run(NEVER)
    return packing


def test_highest_tip_first_ties_by_arrival_each_sender_by_nonce() -> None:
    low0, high1 = candidate(1, 0, tip=1), candidate(1, 1, tip=9)
    middle, tie = candidate(2, 0, tip=5), candidate(3, 0, tip=5)
    assert pack(Ledger(), [high1, tie, low0, middle]).included == [middle, tie, low0, high1]


def test_what_does_not_fit_now_is_put_aside_with_its_descendants_and_fits_later() -> None:
    big, child, other = candidate(1, 0, tip=9, gas=800), candidate(1, 1, tip=9), candidate(2, 0, tip=1)
    bench = Ledger()
    first = pack(bench, [big, child, other], index=1, gas=1000, shares=2)
    assert first.included == [other]
    assert first.counts["block_gas_limit_exceeded_total"] == 1
    second = Packing(2, budget(Limits(gas_limit=1000), 2, 2), first.usage, CandidateQueue([big, child]), bench)
    assert second.run(NEVER)
    assert second.included == [big, child]


def test_used_gas_counts_not_the_limit() -> None:
    bench = Ledger(use=10)
    pool = [candidate(sender, 0, tip=1, gas=600) for sender in range(4)]
    assert len(pack(bench, pool, gas=640).included) == 4


def test_stale_nonces_are_stepped_over_and_a_gap_ends_the_sender() -> None:
    stale, fits, after_gap = candidate(1, 0, tip=5), candidate(1, 1, tip=5), candidate(1, 3, tip=5)
    packing = pack(Ledger({1: 1}), [stale, fits, after_gap])
    assert packing.included == [fits]
    assert packing.counts["payload_num_tx_simulated_fail"] == 2


def test_time_up_ends_at_once_and_can_be_resumed() -> None:
    pool = [candidate(sender, 0, tip=1) for sender in range(5)]
    packing = Packing(1, budget(Limits(gas_limit=10_000), 1, 1), Usage(), CandidateQueue(pool), Ledger())
    answers = iter((False, False, True))
    assert not packing.run(lambda: next(answers))
    assert len(packing.included) == 2
    assert packing.run(NEVER)
    assert len(packing.included) == 5


def test_what_is_taken_back_frees_its_budget_and_may_come_again() -> None:
    pool = [candidate(sender, 0, tip=9 - 2 * sender) for sender in range(3)]
    packing = pack(Ledger(), pool, gas=300)
    assert packing.usage.gas == 300
    packing.back_to(1)
    assert (packing.included, packing.usage.gas) == (pool[:1], 100)
    better = candidate(7, 0, tip=8)
    packing.best = CandidateQueue([*pool[1:], better])
    assert packing.run(NEVER)
    assert packing.included == [pool[0], better, pool[1]]
    packing.back_to(3)
    assert len(packing.included) == 3


def test_what_was_executed_to_no_avail_is_not_executed_again_in_the_same_flashblock() -> None:
    bundle = candidate(2, 0, tip=5, revert_protected=True)
    packing = pack(Ledger(reverting=(bundle,)), [bundle])
    packing.best = CandidateQueue([bundle])
    assert packing.run(NEVER)
    assert packing.counts["payload_num_tx_simulated"] == 1
    assert packing.dropped == [(bundle, "bundle reverted")]


def test_a_reverting_transaction_is_included_but_a_protected_one_is_dropped() -> None:
    plain, bundle = candidate(1, 0, tip=5), candidate(2, 0, tip=5, revert_protected=True)
    after = candidate(2, 1, tip=5)
    packing = pack(Ledger(reverting=(plain, bundle)), [plain, bundle, after])
    assert packing.included == [plain]
    assert packing.dropped == [(bundle, "bundle reverted")]
    assert packing.counts["bundles_reverted"] == 1


def test_max_gas_per_transaction_is_judged_by_gas_used() -> None:
    bench = Ledger(use=500)
    heavy, light = candidate(1, 0, tip=9, gas=900), candidate(2, 0, tip=1, gas=300)
    packing = pack(bench, [heavy, light], gas_per_transaction=400)
    assert packing.included == [light]
    assert bench.done == [light]
    assert packing.usage.gas == 300


def test_a_sender_that_used_up_its_share_is_passed_over_and_charged_once_per_flashblock() -> None:
    first, second, other = candidate(1, 0, tip=9), candidate(1, 1, tip=9), candidate(2, 0, tip=1)
    limits = SenderLimits(gas=Rate(most=90, refill_per_block=10, cleanup_blocks=10))
    packing = Packing(
        1, budget(Limits(gas_limit=10_000), 1, 1), Usage(), CandidateQueue([first, second, other]), Ledger(), limits
    )
    assert packing.run(NEVER)
    assert packing.included == [first, other]
    assert packing.counts["tx_sender_limited_total"] == 1
    limits.new_block()
    assert not limits.refuses(first.sender)
    packing.back_to(0)
    packing.best = CandidateQueue([first])
    assert packing.run(NEVER)
    assert not limits.refuses(first.sender), "put in again, but not charged again"


def test_flashblock_ranges_of_bundles() -> None:
    early, late = candidate(1, 0, tip=9, index_max=2), candidate(2, 0, tip=9, index_min=4)
    inside = candidate(3, 0, tip=9, index_min=3, index_max=3)
    assert pack(Ledger(), [early, late, inside], index=3, gas=10_000).included == [inside]


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 5), st.integers(0, 20), st.integers(21, 400)), max_size=40),
    st.integers(100, 3000),
)
def test_packing_never_exceeds_the_budget_and_keeps_nonce_order(
    rows: list[tuple[int, int, int, int]], gas: int
) -> None:
    unique = {(sender, nonce): (sender, nonce, tip, limit) for sender, nonce, tip, limit in rows}
    pool = [candidate(sender, nonce, tip, gas=limit) for sender, nonce, tip, limit in unique.values()]
    bench = Ledger(use=10**9)
    packing = pack(bench, pool, gas=gas)
    assert packing.usage.gas <= gas
    assert packing.included == bench.done
    by_sender: defaultdict[bytes, list[int]] = defaultdict(list)
    for included in packing.included:
        by_sender[included.sender].append(included.nonce)
    assert all(nonces == list(range(len(nonces))) for nonces in by_sender.values())
