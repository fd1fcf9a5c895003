import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from flashblocks.sequencing.attributes import next_attributes
from flashblocks.sequencing.driver import (
    COMMIT_REFUSALS_MAX,
    PREFIX_RESEALS_MAX,
    AskOpenBlock,
    Commit,
    Insert,
    OpenBlock,
    SealBlock,
    SequencerDriver,
    StartBuild,
    StartRefused,
)
from flashblocks.sequencing.origin import select_origin
from flashblocks.sequencing.references import reference_of_payload
from flashblocks.wire.payload_id import payload_id
from tests.sequencing.chain import CONFIG, GENESIS, GENESIS_TIME, L1, envelope

NOW = float(GENESIS_TIME)


def started(now: float = NOW) -> SequencerDriver:
    driver = SequencerDriver(CONFIG, L1)
    driver.on_head(now, GENESIS)
    driver.start(now, GENESIS.hash)
    return driver


def expect(driver: SequencerDriver, now: float, kind: type):
    step = driver.next(now)
    assert isinstance(step, kind), step
    driver.check()
    return step


def to_build(driver: SequencerDriver, now: float, open_block: OpenBlock | None = None) -> StartBuild:
    ask = expect(driver, now, AskOpenBlock)
    driver.on_open_block(now, ask.job, open_block)
    return expect(driver, now, StartBuild)


def to_commit(driver: SequencerDriver, now: float = NOW) -> Commit:
    build = to_build(driver, now)
    driver.on_build_started(now, build.job, payload_id(build.head.hash, build.attributes))
    seal = expect(driver, max(now, build.attributes.timestamp - 0.05), SealBlock)
    driver.on_sealed(now, seal.job, envelope(build.head, build.attributes))
    return expect(driver, now, Commit)


def inserted(driver: SequencerDriver, now: float, commit: Commit):
    driver.on_committed(now, commit.job)
    insert = expect(driver, now, Insert)
    head = reference_of_payload(insert.envelope.payload)
    driver.on_inserted(now, insert.job, head)
    return head


def test_nothing_happens_before_start() -> None:
    driver = SequencerDriver(CONFIG, L1)
    driver.on_head(NOW, GENESIS)
    assert driver.next(NOW) is None
    assert driver.wake_at is None


def test_a_block_goes_through_its_five_steps() -> None:
    driver = started()
    build = to_build(driver, NOW)
    assert build.head == GENESIS and build.attributes.timestamp == GENESIS_TIME + 2
    driver.on_build_started(NOW + 0.01, build.job, b"\4" * 8)
    assert driver.building == b"\4" * 8
    assert driver.wake_at == pytest.approx(NOW + 1.95)
    assert driver.next(NOW + 1.9) is None
    seal = expect(driver, NOW + 1.95, SealBlock)
    assert seal.payload_id == b"\4" * 8
    driver.on_sealed(NOW + 1.96, seal.job, envelope(GENESIS, build.attributes))
    commit = expect(driver, NOW + 1.96, Commit)
    head = inserted(driver, NOW + 1.97, commit)
    assert driver.head == head
    assert driver.next(NOW + 1.98) is None, "the next build waits for its slot"
    assert driver.wake_at == pytest.approx(NOW + 2)
    following = expect(driver, NOW + 2, StartBuild)
    assert following.head == head


def test_one_step_at_a_time() -> None:
    driver = started()
    expect(driver, NOW, AskOpenBlock)
    assert driver.next(NOW + 10) is None
    assert driver.wake_at is None


def test_a_late_chain_builds_and_seals_back_to_back() -> None:
    late = NOW + 100
    driver = started(late)
    head = inserted(driver, late, to_commit(driver, late))
    for _ in range(3):
        build = expect(driver, late, StartBuild)
        driver.on_build_started(late, build.job, b"\4" * 8)
        seal = expect(driver, late, SealBlock)
        driver.on_sealed(late, seal.job, envelope(head, build.attributes))
        head = inserted(driver, late, expect(driver, late, Commit))
    assert head.number == 4


def test_an_open_block_is_resumed_with_its_own_attributes() -> None:
    origin = select_origin(CONFIG, L1, GENESIS, NOW)
    attributes = next_attributes(CONFIG, L1, GENESIS, origin)
    import msgspec

    attributes = msgspec.structs.replace(attributes, gas_limit=77)
    open_block = OpenBlock(1, b"\4" * 8, GENESIS.hash, attributes, 4)
    build = to_build(started(NOW + 1.5), NOW + 1.5, open_block)
    assert build.attributes.gas_limit == 77


def test_an_open_block_is_resumed_at_once_even_before_its_slot() -> None:
    origin = select_origin(CONFIG, L1, GENESIS, NOW)
    open_block = OpenBlock(1, b"\4" * 8, GENESIS.hash, next_attributes(CONFIG, L1, GENESIS, origin), 4)
    to_build(started(NOW - 5), NOW - 5, open_block)


def test_an_open_block_ahead_of_the_head_is_waited_for() -> None:
    driver = started()
    ask = expect(driver, NOW, AskOpenBlock)
    origin = select_origin(CONFIG, L1, GENESIS, NOW)
    attributes = next_attributes(CONFIG, L1, GENESIS, origin)
    driver.on_open_block(NOW, ask.job, OpenBlock(3, b"\4" * 8, b"\x07" * 32, attributes, 4))
    assert driver.next(NOW) is None
    expect(driver, NOW + 0.05, AskOpenBlock)


def test_a_prefix_mismatch_is_sealed_again_at_once() -> None:
    driver = started()
    commit = to_commit(driver)
    driver.on_commit_refused(NOW + 2, commit.job, "prefix mismatch: seal names index 3, committed is 4")
    seal = expect(driver, NOW + 2, SealBlock)
    driver.on_sealed(
        NOW + 2,
        seal.job,
        envelope(GENESIS, next_attributes(CONFIG, L1, GENESIS, select_origin(CONFIG, L1, GENESIS, NOW)), b"x"),
    )
    assert expect(driver, NOW + 2, Commit).envelope != commit.envelope


def test_seals_that_keep_missing_the_prefix_end_in_a_new_build() -> None:
    driver = started()
    commit = to_commit(driver)
    for _ in range(PREFIX_RESEALS_MAX):
        driver.on_commit_refused(NOW + 2, commit.job, "prefix mismatch: x")
        seal = expect(driver, NOW + 2, SealBlock)
        driver.on_sealed(NOW + 2, seal.job, commit.envelope)
        commit = expect(driver, NOW + 2, Commit)
    driver.on_commit_refused(NOW + 2, commit.job, "prefix mismatch: x")
    assert driver.next(NOW + 2) is None
    expect(driver, NOW + 2.1, AskOpenBlock)


def test_an_unknown_commit_repeats_the_same_payload() -> None:
    driver = started()
    commit = to_commit(driver)
    for n in range(20):
        driver.on_commit_unknown(NOW + n, commit.job)
        assert driver.next(NOW + n + 0.05) is None
        again = expect(driver, NOW + n + 0.11, Commit)
        assert again.envelope is commit.envelope


def test_a_refused_payload_is_given_up_after_some_tries() -> None:
    driver = started()
    commit = to_commit(driver)
    now = NOW + 2
    for _ in range(COMMIT_REFUSALS_MAX - 1):
        driver.on_commit_refused(now, commit.job, "node is not the leader")
        now += 1
        commit = expect(driver, now, Commit)
    driver.on_commit_refused(now, commit.job, "node is not the leader")
    expect(driver, now + 1, AskOpenBlock)


def test_failures_are_retried_later_and_later_up_to_a_second() -> None:
    driver, now, waits = started(), NOW, []
    for _ in range(7):
        step = driver.next(now)
        assert isinstance(step, AskOpenBlock)
        driver.on_failed(now, step.job)
        assert driver.wake_at is not None
        waits.append(round(driver.wake_at - now, 3))
        now = driver.wake_at
    assert waits == [0.05, 0.1, 0.25, 0.5, 1.0, 1.0, 1.0]


def test_a_failed_seal_begins_the_block_anew() -> None:
    driver = started()
    build = to_build(driver, NOW)
    driver.on_build_started(NOW, build.job, b"\4" * 8)
    seal = expect(driver, NOW + 2, SealBlock)
    driver.on_failed(NOW + 2, seal.job)
    assert driver.building is None
    expect(driver, NOW + 3, AskOpenBlock)


def test_a_committed_block_is_inserted_until_it_is_in() -> None:
    driver = started()
    commit = to_commit(driver)
    driver.on_committed(NOW, commit.job)
    now = NOW
    for _ in range(8):
        insert = expect(driver, now, Insert)
        driver.on_failed(now, insert.job)
        now += 1.01
    assert expect(driver, now, Insert).envelope == commit.envelope


@pytest.mark.parametrize("steps", [0, 1, 2, 3])
def test_stop_before_the_commit_is_immediate(steps: int) -> None:
    driver = started()
    if steps:
        step = driver.next(NOW)
        assert step is not None
    if steps > 1:
        driver.on_open_block(NOW, step.job, None)
        step = driver.next(NOW)
    if steps > 2:
        driver.on_build_started(NOW, step.job, b"\4" * 8)
        step = driver.next(NOW + 2)
    assert driver.stop()
    assert not driver.active
    driver.check()
    assert driver.stop(), "idempotent"


def test_stop_waits_for_a_commit_and_returns_the_committed_head() -> None:
    driver = started()
    commit = to_commit(driver)
    assert not driver.stop()
    assert not driver.stop(), "idempotent"
    head = inserted(driver, NOW, commit)
    assert not driver.active
    assert driver.head == head


@pytest.mark.parametrize("how", ["refused", "unknown"])
def test_stop_gives_a_commit_up_that_fails(how: str) -> None:
    driver = started()
    commit = to_commit(driver)
    driver.stop()
    if how == "refused":
        driver.on_commit_refused(NOW, commit.job, "prefix mismatch")
    else:
        driver.on_commit_unknown(NOW, commit.job)
    assert not driver.active
    assert driver.head == GENESIS


def test_reports_after_abandon_change_nothing() -> None:
    driver = started()
    commit = to_commit(driver)
    driver.stop()
    driver.abandon()
    driver.on_committed(NOW, commit.job)
    assert driver.next(NOW) is None
    driver.start(NOW, GENESIS.hash)
    driver.on_committed(NOW, commit.job)
    expect(driver, NOW, AskOpenBlock)


def test_start_refuses_with_op_nodes_words() -> None:
    driver = SequencerDriver(CONFIG, L1)
    with pytest.raises(StartRefused, match="no prestate, cannot determine if sequencer start at 0x0707"):
        driver.start(NOW, b"\7" * 32)
    driver.on_head(NOW, GENESIS)
    with pytest.raises(StartRefused, match=r"block hash does not match: head 0xaaaa.*, received 0x0707"):
        driver.start(NOW, b"\7" * 32)
    driver.start(NOW, GENESIS.hash)
    with pytest.raises(StartRefused, match="sequencer already running"):
        driver.start(NOW, GENESIS.hash)


def test_an_imported_head_drops_the_build_on_the_old_one() -> None:
    driver = started()
    commit = to_commit(driver)
    head = reference_of_payload(commit.envelope.payload)
    driver.on_head(NOW, head)
    driver.on_committed(NOW, commit.job)
    assert to_build(driver, NOW + 2).head == head


def test_recover_mode_takes_nothing_from_the_pool() -> None:
    driver = started()
    driver.recover_mode = True
    assert to_build(driver, NOW).attributes.no_tx_pool


def test_building_pauses_while_the_safe_head_is_too_far_behind() -> None:
    driver = started()
    driver.max_safe_lag = 2
    head = inserted(driver, NOW, to_commit(driver))
    head = inserted(driver, NOW, finish(driver, head, NOW + 10))
    assert driver.next(NOW + 10) is None and driver.active
    driver.safe_number = 1
    expect(driver, NOW + 20, StartBuild)


def finish(driver: SequencerDriver, head, now: float) -> Commit:
    build = expect(driver, now, StartBuild)
    driver.on_build_started(now, build.job, b"\4" * 8)
    seal = expect(driver, now, SealBlock)
    driver.on_sealed(now, seal.job, envelope(head, build.attributes))
    return expect(driver, now, Commit)


class SequencerOfOneLeader(RuleBasedStateMachine):
    """Random outcomes, stops and imports; the majority's chain is kept beside the driver.

    Never is a block inserted that was not committed, never are two blocks committed at one height.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.driver = SequencerDriver(CONFIG, L1)
        self.driver.on_head(self.now, GENESIS)
        self.step = None
        self.committed = {0: GENESIS.hash}
        self.heads = {GENESIS.hash: GENESIS}

    @rule(seconds=st.sampled_from([0.0, 0.01, 0.2, 2.0, 30.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: not self.driver.active)
    @rule()
    def start(self) -> None:
        assert self.driver.head is not None
        self.driver.start(self.now, self.driver.head.hash)

    @rule()
    def stop(self) -> None:
        if self.driver.stop():
            assert not self.driver.active

    @rule()
    def abandon(self) -> None:
        self.driver.abandon()

    @precondition(lambda self: self.step is None)
    @rule()
    def take(self) -> None:
        self.step = self.driver.next(self.now)

    @precondition(lambda self: self.step is not None)
    @rule(outcome=st.sampled_from(["done", "done", "done", "failed", "unknown", "lost answer"]))
    def report(self, outcome: str) -> None:
        step, self.step = self.step, None
        job, driver, now = step.job, self.driver, self.now
        if isinstance(step, Commit):
            self._commit(step, outcome)
        elif outcome != "done":
            driver.on_failed(now, job)
        elif isinstance(step, AskOpenBlock):
            driver.on_open_block(now, job, None)
        elif isinstance(step, StartBuild):
            self.building = step
            driver.on_build_started(now, job, payload_id(step.head.hash, step.attributes))
        elif isinstance(step, SealBlock):
            driver.on_sealed(now, job, envelope(self.building.head, self.building.attributes))
        else:
            head = reference_of_payload(step.envelope.payload)
            assert self.committed.get(head.number) == head.hash, "inserted what was never committed"
            driver.on_inserted(now, job, head)

    def _commit(self, step: Commit, outcome: str) -> None:
        payload = step.envelope.payload
        fits = self.committed.get(payload.block_number - 1) == payload.parent_hash
        known = self.committed.get(payload.block_number, payload.block_hash)
        if outcome == "failed" or not fits or known != payload.block_hash:
            self.driver.on_commit_refused(self.now, step.job, "node is not the leader")
            return
        if outcome != "unknown":
            self.committed[payload.block_number] = payload.block_hash
            self.heads[payload.block_hash] = reference_of_payload(payload)
        if outcome == "done":
            self.driver.on_committed(self.now, step.job)
        else:
            self.driver.on_commit_unknown(self.now, step.job)

    @rule()
    def conductor_pushes(self) -> None:
        """What was committed comes back as a payload, as it does after a lost answer."""
        assert self.driver.head is not None
        newer = self.committed.get(self.driver.head.number + 1)
        if newer is not None:
            self.driver.on_head(self.now, self.heads[newer])

    @invariant()
    def holds(self) -> None:
        self.driver.check()
        assert self.driver.head is not None
        assert self.committed[self.driver.head.number] == self.driver.head.hash


SequencerOfOneLeader.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestSequencerOfOneLeader = SequencerOfOneLeader.TestCase
