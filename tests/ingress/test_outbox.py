"""The outbox by stories: an accepted transaction reaches every pool until a block holds it, whatever dies meanwhile."""

from functools import cache

from eth_account import Account
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from flashblocks.execution.transaction import Transaction
from flashblocks.ingress.admission import read
from flashblocks.ingress.outbox import BATCH_TRANSACTIONS_MAX, Decision, Forgotten, Outbox, Refusal, Send, Settled

TARGETS = ("builder-0", "el-0", "el-1")
KEYS = [bytes([index + 1]) * 32 for index in range(3)]


@cache
def transaction(key: int, nonce: int, tip: int = 1) -> Transaction:
    signed = Account.sign_transaction(
        {
            "chainId": 901,
            "nonce": nonce,
            "gas": 21_000,
            "maxFeePerGas": 10**9 + tip,
            "maxPriorityFeePerGas": tip,
            "to": "0x" + "22" * 20,
            "value": 5,
            "type": 2,
        },
        KEYS[key],
    )
    return read(bytes(signed.raw_transaction))


def sends(decisions: list[Decision]) -> dict[str, tuple[bytes, ...]]:
    return {decision.target: decision.hashes for decision in decisions if isinstance(decision, Send)}


def settled(decisions: list[Decision]) -> list[Settled]:
    return [decision for decision in decisions if isinstance(decision, Settled)]


def test_goes_to_every_target_and_settles_with_the_first_acceptance() -> None:
    outbox, tx = Outbox(TARGETS, pace_s=0.0), transaction(0, 0)
    assert sends(outbox.accept(0.0, tx)) == dict.fromkeys(TARGETS, (tx.hash,))
    assert settled(outbox.answered(0.1, "el-0", {tx.hash: None})) == [Settled(tx.hash, None)]
    assert settled(outbox.answered(0.1, "builder-0", {tx.hash: Refusal(-32000, "nonce too low")})) == []
    assert len(outbox) == 1


def test_a_refusal_by_all_is_the_answer_in_the_words_of_the_first() -> None:
    outbox, tx = Outbox(TARGETS, pace_s=0.0), transaction(0, 0)
    outbox.accept(0.0, tx)
    first, other = Refusal(-32000, "insufficient funds"), Refusal(-32000, "other")
    assert outbox.answered(0.1, "el-1", {tx.hash: first}) == []
    assert outbox.answered(0.1, "el-0", {tx.hash: other}) == []
    assert outbox.answered(0.1, "builder-0", {tx.hash: other}) == [
        Settled(tx.hash, first),
        Forgotten(tx.hash, "refused"),
    ]
    assert len(outbox) == 0


def test_already_known_is_an_acceptance() -> None:
    outbox, tx = Outbox(TARGETS, pace_s=0.0), transaction(0, 0)
    outbox.accept(0.0, tx)
    answers = {tx.hash: Refusal(-32000, "already known")}
    assert settled(outbox.answered(0.1, "el-0", answers)) == [Settled(tx.hash, None)]


def test_no_answer_is_unknown_and_the_batch_is_sent_again_in_its_order() -> None:
    outbox = Outbox(TARGETS, pace_s=0.0)
    one, two = transaction(0, 0), transaction(0, 1)
    outbox.accept(0.0, one)
    outbox.accept(0.0, two)
    assert "el-0" not in sends(outbox.unanswered(0.1, "el-0"))
    assert sends(outbox.tick(0.35)) == {"el-0": (one.hash, two.hash)}


def test_a_restarted_target_gets_everything_again_at_once() -> None:
    outbox = Outbox(TARGETS, pace_s=0.0)
    one, two, three = (transaction(0, nonce) for nonce in range(3))
    for tx in (one, two):
        outbox.accept(0.0, tx)
        for target in TARGETS:
            outbox.answered(0.0, target, {tx.hash: None})
    outbox.included(7, [one.hash])
    outbox.accept(0.5, three)
    outbox.unanswered(0.6, "builder-0")
    assert sends(outbox.target_up(0.61, "builder-0")) == {"builder-0": (two.hash, three.hash)}


def test_what_no_block_takes_is_sent_again_and_expires() -> None:
    outbox = Outbox(TARGETS, pace_s=0.0, resend_after_s=4.0, lifetime_s=10.0)
    tx = transaction(0, 0)
    outbox.accept(0.0, tx)
    for target in TARGETS:
        outbox.answered(0.0, target, {tx.hash: None})
    assert outbox.tick(3.9) == []
    assert sends(outbox.tick(4.0)) == dict.fromkeys(TARGETS, (tx.hash,))
    for target in TARGETS:
        outbox.answered(4.0, target, {tx.hash: Refusal(-32000, "already known")})
    assert outbox.tick(10.0) == [Forgotten(tx.hash, "expired")]


def test_a_used_up_nonce_ends_the_resending() -> None:
    outbox, tx = Outbox(TARGETS, pace_s=0.0), transaction(0, 0)
    outbox.accept(0.0, tx)
    for target in TARGETS:
        outbox.answered(0.0, target, {tx.hash: None})
    outbox.tick(4.0)
    gone = [outbox.answered(4.0, target, {tx.hash: Refusal(-32000, "nonce too low")}) for target in TARGETS]
    assert gone[-1] == [Forgotten(tx.hash, "refused")]


def test_shown_then_sealed_is_done_and_shown_but_not_sealed_goes_again() -> None:
    outbox = Outbox(TARGETS, pace_s=0.0)
    one, two = transaction(0, 0), transaction(1, 0)
    for tx in (one, two):
        outbox.accept(0.0, tx)
    for target in TARGETS:
        outbox.answered(0.0, target, {one.hash: None})
        outbox.answered(0.0, target, {two.hash: None})
    assert outbox.included(7, [one.hash, two.hash]) == []
    assert outbox.tick(5.0) == []
    decisions = outbox.sealed(6.0, 7, [one.hash])
    assert decisions[0] == Forgotten(one.hash, "included")
    assert sends(decisions) == dict.fromkeys(TARGETS, (two.hash,))


def test_without_any_answer_the_transaction_is_kept_and_the_sender_told_so() -> None:
    outbox, tx = Outbox(TARGETS, pace_s=0.0), transaction(0, 0)
    outbox.accept(0.0, tx)
    assert outbox.waited_enough(tx.hash) == [Settled(tx.hash, None)]
    assert len(outbox) == 1
    assert outbox.waited_enough(tx.hash) == []


def test_with_only_refusals_in_time_the_refusal_is_the_answer() -> None:
    outbox, tx = Outbox(TARGETS, pace_s=0.0), transaction(0, 0)
    outbox.accept(0.0, tx)
    refusal = Refusal(-32000, "exceeds block gas limit")
    outbox.answered(0.1, "el-0", {tx.hash: refusal})
    assert outbox.waited_enough(tx.hash) == [Settled(tx.hash, refusal), Forgotten(tx.hash, "refused")]


def test_batches_have_a_bound_and_one_is_on_its_way() -> None:
    outbox = Outbox(("only",), pace_s=0.0, per_sender_max=1_000)
    first = outbox.accept(0.0, transaction(0, 0))
    assert sends(first) == {"only": (transaction(0, 0).hash,)}
    for nonce in range(1, BATCH_TRANSACTIONS_MAX + 31):
        assert outbox.accept(0.0, transaction(0, nonce)) == []
    batch = sends(outbox.answered(0.1, "only", {transaction(0, 0).hash: None}))["only"]
    assert batch == tuple(transaction(0, nonce).hash for nonce in range(1, BATCH_TRANSACTIONS_MAX + 1))


def test_under_load_batches_wait_for_their_pace_and_grow() -> None:
    outbox = Outbox(("only",), pace_s=0.02)
    first, *more = (transaction(0, nonce) for nonce in range(4))
    assert sends(outbox.accept(0.0, first)) == {"only": (first.hash,)}
    assert outbox.answered(0.005, "only", {first.hash: None}) == [Settled(first.hash, None)]
    for tx in more:
        assert outbox.accept(0.01, tx) == []
    assert outbox.next_flush() == 0.02
    assert outbox.flush(0.019) == []
    assert sends(outbox.flush(0.02)) == {"only": tuple(tx.hash for tx in more)}
    assert outbox.next_flush() is None


def test_replacements_and_bounds() -> None:
    outbox = Outbox(TARGETS, pace_s=0.0, per_sender_max=2, transactions_max=3)
    cheap, dear = transaction(0, 0, tip=1), transaction(0, 0, tip=2 * 10**9)
    outbox.accept(0.0, cheap)
    assert outbox.room_for(cheap) == Refusal(-32000, "already known")
    assert outbox.room_for(transaction(0, 0, tip=2)) == Refusal(-32000, "replacement transaction underpriced")
    assert outbox.room_for(dear) is None
    assert outbox.accept(0.1, dear)[0] == Forgotten(cheap.hash, "replaced")
    outbox.accept(0.1, transaction(0, 1))
    limited = outbox.room_for(transaction(0, 2))
    assert limited is not None and limited.message.startswith("account limit exceeded")
    outbox.accept(0.1, transaction(1, 0))
    assert outbox.room_for(transaction(2, 0)) == Refusal(-32000, "txpool is full")
    assert outbox.next_nonce(dear.sender, 0) == 2
    assert outbox.queued_cost(dear.sender, 1) == 21_000 * dear.max_fee_per_gas + 5


def test_what_the_operator_drops_is_sent_no_more_and_who_waits_for_it_is_told() -> None:
    outbox = Outbox(TARGETS, pace_s=0.0)
    settled_one, waiting, shown = (transaction(0, nonce) for nonce in range(3))
    for each in (settled_one, waiting, shown):
        outbox.accept(0.0, each)
    outbox.answered(0.1, "el-0", {settled_one.hash: None})
    outbox.included(1, (shown.hash,))
    assert outbox.queue(waiting.sender) == [settled_one.hash, waiting.hash, shown.hash]
    assert outbox.drop((settled_one.hash, waiting.hash, shown.hash, b"unknown")) == [
        Forgotten(settled_one.hash, "dropped"),
        Settled(waiting.hash, Refusal(-32000, "dropped by the operator")),
        Forgotten(waiting.hash, "dropped"),
    ]
    outbox.check()
    assert outbox.next_nonce(waiting.sender, 0) == 0
    assert sends(outbox.unanswered(5.0, "el-1")) == {}
    assert sends(outbox.target_up(5.0, "builder-0")) == {}
    assert sends(outbox.sealed(6.0, 1, ())) == {"el-1": (shown.hash,)}, "it was promised"


class OutboxMachine(RuleBasedStateMachine):
    """Random senders, answers, restarts, blocks: the invariants hold; in the end every pool got every transaction."""

    def __init__(self) -> None:
        super().__init__()
        self.outbox = Outbox(TARGETS, per_sender_max=6)
        self.now = 0.0
        self.pools: dict[str, set[bytes]] = {target: set() for target in TARGETS}
        self.on_the_way: dict[str, tuple[bytes, ...]] = {}
        self.block = 1

    def take(self, decisions: list[Decision]) -> None:
        for decision in decisions:
            if isinstance(decision, Send):
                assert decision.target not in self.on_the_way
                self.on_the_way[decision.target] = decision.hashes

    @rule(key=st.integers(0, 2), nonce=st.integers(0, 5), tip=st.sampled_from([1, 2 * 10**9]))
    def accept(self, key: int, nonce: int, tip: int) -> None:
        tx = transaction(key, nonce, tip)
        if self.outbox.room_for(tx) is None:
            self.take(self.outbox.accept(self.now, tx))

    @precondition(lambda self: self.on_the_way)
    @rule(data=st.data(), lost=st.booleans())
    def answer(self, data: st.DataObject, lost: bool) -> None:
        target = data.draw(st.sampled_from(sorted(self.on_the_way)))
        hashes = self.on_the_way.pop(target)
        if lost:
            self.take(self.outbox.unanswered(self.now, target))
        else:
            self.pools[target].update(hashes)
            self.take(self.outbox.answered(self.now, target, dict.fromkeys(hashes)))

    @rule(name=st.sampled_from(TARGETS))
    def restart(self, name: str) -> None:
        target = name
        if target in self.on_the_way:
            del self.on_the_way[target]
            self.take(self.outbox.unanswered(self.now, target))
        self.pools[target].clear()
        self.take(self.outbox.target_up(self.now, target))

    @rule(data=st.data(), shown=st.booleans(), sealed=st.booleans())
    def block_comes(self, data: st.DataObject, shown: bool, sealed: bool) -> None:
        known = sorted(self.outbox._entries)
        chosen = data.draw(st.sets(st.sampled_from(known))) if known else set()
        if shown:
            self.take(self.outbox.included(self.block, chosen))
        if sealed:
            self.take(self.outbox.sealed(self.now, self.block, chosen))
        self.block += 1

    @rule(data=st.data())
    def operator_drops(self, data: st.DataObject) -> None:
        known = sorted(self.outbox._entries)
        chosen = data.draw(st.sets(st.sampled_from(known))) if known else set()
        self.take(self.outbox.drop(chosen))
        assert all(
            self.outbox._entries[tx_hash].included_in is not None
            for tx_hash in chosen & set(known) & set(self.outbox._entries)
        )

    @rule(seconds=st.sampled_from([0.05, 0.3, 4.5]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.take(self.outbox.tick(self.now))

    @invariant()
    def holds(self) -> None:
        self.outbox.check()

    def teardown(self) -> None:
        for _ in range(20):
            self.now += 0.3
            self.take(self.outbox.tick(self.now))
            for target in list(self.on_the_way):
                hashes = self.on_the_way.pop(target)
                self.pools[target].update(hashes)
                self.take(self.outbox.answered(self.now, target, dict.fromkeys(hashes)))
        for tx_hash, entry in self.outbox._entries.items():
            if entry.included_in is None:
                assert all(tx_hash in pool for pool in self.pools.values())


OutboxMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
TestOutboxMachine = OutboxMachine.TestCase
