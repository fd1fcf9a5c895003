from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from flashblocks.builder.job import (
    EXTRA_DEADLINE_S_DEFAULT,
    Attributes,
    Build,
    BuildOpening,
    Built,
    Cancel,
    Cancellation,
    Committed,
    Decision,
    Failed,
    Job,
    PayloadAsked,
    Phase,
    Publish,
    Tick,
    WakeAt,
)
from flashblocks.builder.schedule import Timing

A, B = b"\x04" * 8, b"\x05" * 8
T0 = 1_700_000_000


def drive(job: Job, decisions: list[Decision], now: float, until: float) -> list[Decision]:
    """Play the shell: have a candidate at once, wake when asked; return everything decided."""
    log, pending, wake = [], list(decisions), None
    while True:
        while pending:
            decision = pending.pop(0)
            log.append(decision)
            if isinstance(decision, BuildOpening):
                pending += job.step(Built(decision.payload_id, 0), now)
            elif isinstance(decision, Build):
                pending += job.step(Built(decision.payload_id, decision.index), now)
            elif isinstance(decision, WakeAt):
                wake = decision.at_s
            job.check()
        if wake is None or wake > until:
            return log
        now, wake = max(now, wake), None
        pending = job.step(Tick(), now)


def publishes(log: list[Decision]) -> list[int]:
    return [decision.index for decision in log if isinstance(decision, Publish)]


def test_an_on_time_block_streams_the_opening_and_ten_flashblocks_on_their_triggers() -> None:
    job = Job(Timing())
    log = drive(job, job.step(Attributes(A, T0 + 2), T0), T0, T0 + 2)
    assert publishes(log) == list(range(11))
    assert all(decision.late_s < 1e-6 for decision in log if isinstance(decision, Publish))
    builds = [decision for decision in log if isinstance(decision, Build)]
    assert [(build.share, build.shares) for build in builds] == [(k, 10) for k in range(1, 11)]
    assert [build.last for build in builds] == [False] * 9 + [True]
    assert [round((build.due_s - T0) * 1000) for build in builds] == list(range(90, 2000, 200))
    assert job.phase is Phase.COMPLETE


def test_a_late_update_gets_fewer_and_larger_flashblocks() -> None:
    job = Job(Timing())
    log = drive(job, job.step(Attributes(A, T0 + 2), T0 + 1.2), T0 + 1.2, T0 + 2)
    builds = [decision for decision in log if isinstance(decision, Build)]
    assert [(build.index, build.share, build.shares) for build in builds] == [(k, k, 4) for k in range(1, 5)]


def test_no_tx_pool_builds_the_opening_and_streams_nothing() -> None:
    job = Job(Timing())
    log = drive(job, job.step(Attributes(A, T0 + 2, no_tx_pool=True), T0), T0, T0 + 2)
    assert log == [BuildOpening(A), WakeAt(T0 + 2 + EXTRA_DEADLINE_S_DEFAULT)]
    assert job.phase is Phase.COMPLETE


def test_a_payload_that_nobody_asks_for_ends_with_its_deadline() -> None:
    job = Job(Timing(), extra_deadline_s=5)
    drive(job, job.step(Attributes(A, T0 + 2), T0), T0, T0 + 2)
    assert job.step(Tick(), T0 + 6.9) == []
    assert job.step(Tick(), T0 + 7) == [Cancel(A, Cancellation.DEADLINE, unpublished=False)]
    assert job.step(Attributes(A, T0 + 2, followed_index=10), T0 + 8) == [], "it does not begin anew"


def test_the_same_update_again_changes_nothing() -> None:
    job = Job(Timing())
    drive(job, job.step(Attributes(A, T0 + 2), T0), T0, T0 + 0.5)
    before = (job.phase, job.index, job.triggers, job.used_triggers)
    assert job.step(Attributes(A, T0 + 2), T0 + 0.5) == []
    assert (job.phase, job.index, job.triggers, job.used_triggers) == before


def test_a_new_update_cancels_the_running_job() -> None:
    job = Job(Timing())
    drive(job, job.step(Attributes(A, T0 + 2), T0), T0, T0 + 0.5)
    decisions = job.step(Attributes(B, T0 + 2), T0 + 0.5)
    assert decisions == [Cancel(A, Cancellation.NEW_FCU, unpublished=True), BuildOpening(B)]


def test_get_payload_stops_the_stream_for_good() -> None:
    job = Job(Timing())
    drive(job, job.step(Attributes(A, T0 + 2), T0), T0, T0 + 0.5)
    assert job.step(PayloadAsked(B), T0 + 0.5) == []
    assert job.step(PayloadAsked(A), T0 + 0.5) == [Cancel(A, Cancellation.RESOLVED, unpublished=True)]
    assert job.step(Tick(), T0 + 0.7) == []
    assert job.step(Built(A, 3), T0 + 0.7) == []
    assert job.step(Attributes(A, T0 + 2), T0 + 0.7) == []


def test_a_flashblock_is_begun_when_the_one_before_it_is_published_and_published_at_its_trigger() -> None:
    job = Job(Timing())
    drive(job, job.step(Attributes(A, T0 + 2), T0), T0, T0 + 0.07)
    assert (job.phase, job.index, job.ready) == (Phase.BUILDING, 1, True)
    due = job.triggers[0]
    published, build, wake = job.step(Tick(), due + 0.001)
    assert isinstance(published, Publish)
    assert (published.index, round(published.late_s, 6), published.waited) == (1, 0.001, False)
    assert build == Build(A, 2, 2, 10, job.triggers[1])
    assert wake == WakeAt(job.triggers[1])


def test_better_candidates_change_nothing_until_the_trigger() -> None:
    job = Job(Timing())
    drive(job, job.step(Attributes(A, T0 + 2), T0), T0, T0 + 0.01)
    for _ in range(3):
        assert job.step(Built(A, 1), T0 + 0.05) == [WakeAt(job.triggers[0])]


def test_a_candidate_not_yet_due_is_suppressed_by_get_payload() -> None:
    job = Job(Timing())
    drive(job, job.step(Attributes(A, T0 + 2), T0), T0, T0 + 0.07)
    assert job.step(PayloadAsked(A), T0 + 0.08) == [Cancel(A, Cancellation.RESOLVED, unpublished=True)]


def test_a_new_leader_s_builder_continues_after_what_it_followed() -> None:
    job = Job(Timing())
    log = drive(job, job.step(Attributes(A, T0 + 2, followed_index=4), T0 + 1.0), T0 + 1.0, T0 + 2)
    builds = [decision for decision in log if isinstance(decision, Build)]
    assert [build.index for build in builds] == [5, 6, 7, 8, 9]
    assert [(build.share, build.shares) for build in builds] == [(5, 9), (6, 9), (7, 9), (8, 9), (9, 9)]
    assert publishes(log) == [5, 6, 7, 8, 9]


def test_a_foreign_commit_moves_the_job_behind_it_and_voids_what_was_built() -> None:
    job = Job(Timing())
    drive(job, job.step(Attributes(A, T0 + 2), T0), T0, T0 + 0.28)
    assert (job.ready, job.index) == (True, 2)
    decisions = job.step(Committed(A, 5, foreign=True), T0 + 0.28)
    assert (job.ready, job.index) == (False, 6)
    log = drive(job, decisions, T0 + 0.28, T0 + 0.6)
    assert publishes(log) == [6, 7]


def test_one_s_own_commit_coming_back_changes_nothing() -> None:
    job = Job(Timing())
    drive(job, job.step(Attributes(A, T0 + 2), T0), T0, T0 + 0.1)
    assert job.step(Committed(A, 1, foreign=False), T0 + 0.11) == []
    assert job.step(Committed(B, 1, foreign=True), T0 + 0.11) == []
    assert job.index == 2


def test_without_a_candidate_at_its_trigger_the_first_is_published_and_skipped_shares_are_not_lost() -> None:
    job = Job(Timing())
    job.step(Attributes(A, T0 + 2), T0)
    job.step(Built(A, 0), T0 + 0.07)
    assert job.step(Tick(), T0 + 0.09) == []
    published, following, _ = job.step(Built(A, 1), T0 + 0.6)
    assert isinstance(published, Publish)
    assert (round(published.late_s, 3), published.waited) == (0.51, True)
    # 290 and 490 ms are past; the next flashblock is due at 690 ms and has the share of the skipped two as well.
    assert isinstance(following, Build)
    assert (following.index, following.share, round(following.due_s - T0, 3)) == (2, 4, 0.69)


def test_a_failed_opening_ends_the_job_and_a_failed_flashblock_only_costs_its_slot() -> None:
    job = Job(Timing())
    job.step(Attributes(A, T0 + 2), T0)
    assert job.step(Failed(A, 0), T0 + 0.01) == [Cancel(A, Cancellation.ERROR, unpublished=True)]
    job.step(Attributes(B, T0 + 2), T0)
    job.step(Built(B, 0), T0 + 0.07)
    assert job.step(Failed(B, 1), T0 + 0.08) == [WakeAt(job.triggers[0])]
    again, wake = job.step(Tick(), T0 + 0.091)
    assert again == Build(B, 1, 2, 10, job.triggers[1])
    assert wake == WakeAt(job.triggers[1])


class Anything(RuleBasedStateMachine):
    """Whatever arrives in whatever order: indices of a payload are published once each, without a hole."""

    def __init__(self) -> None:
        super().__init__()
        self.job = Job(Timing())
        self.now = float(T0)
        self.next: dict[bytes, int] = {}
        self.stopped: set[bytes] = set()

    def take(self, decisions: list[Decision]) -> None:
        for decision in decisions:
            if isinstance(decision, Publish):
                assert decision.payload_id not in self.stopped
                assert decision.index == self.next.get(decision.payload_id, 0)
                self.next[decision.payload_id] = decision.index + 1
            if isinstance(decision, Cancel) and decision.reason is Cancellation.RESOLVED:
                self.stopped.add(decision.payload_id)

    @rule(which=st.sampled_from([A, B]), late=st.floats(0, 2.5), no_tx_pool=st.booleans())
    def update(self, which: bytes, late: float, no_tx_pool: bool) -> None:
        followed = self.next.get(which)
        last = None if not followed else followed - 1
        self.take(self.job.step(Attributes(which, int(self.now + 2 - late), no_tx_pool, last), self.now))

    @rule(took=st.floats(0, 0.6))
    def built(self, took: float) -> None:
        self.now += took
        self.take(self.job.step(Built(self.job.payload_id, self.job.index), self.now))

    @rule()
    def failed(self) -> None:
        self.take(self.job.step(Failed(self.job.payload_id, self.job.index), self.now))

    @rule(wait=st.floats(0, 0.5))
    def tick(self, wait: float) -> None:
        self.now += wait
        self.take(self.job.step(Tick(), self.now))

    @rule(ahead=st.integers(0, 3))
    def foreign(self, ahead: int) -> None:
        if self.job.payload_id:
            index = self.next.get(self.job.payload_id, 0) + ahead
            self.next[self.job.payload_id] = index + 1
            self.take(self.job.step(Committed(self.job.payload_id, index, foreign=True), self.now))

    @rule()
    def asked(self) -> None:
        self.take(self.job.step(PayloadAsked(self.job.payload_id), self.now))

    @invariant()
    def sound(self) -> None:
        self.job.check()


TestAnything = Anything.TestCase
TestAnything.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
