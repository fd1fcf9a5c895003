"""The table cell by cell, the loop around it, and transcripts of failovers."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from flashblocks.conductor.candidates import Candidate
from flashblocks.conductor.control import (
    RECOVERY_WAIT_S_MAX,
    RETRY_S_FIRST,
    RETRY_S_MAX,
    START_FAILURES_MAX,
    TRANSFER_COOLDOWN_S,
    Action,
    Control,
    Decision,
    Facts,
    decide,
)
from flashblocks.conductor.health import READINESS_OF, Health, Readiness, Sickness

F, T = False, True
ROWS = [
    # leader, healthy, active, what else holds, action
    (F, F, F, {}, Action.NOTHING),
    (F, F, F, {"successor": T}, Action.NOTHING),
    (F, F, T, {}, Action.STOP),
    (F, T, F, {}, Action.NOTHING),
    (F, T, T, {}, Action.STOP),
    (T, F, F, {"sickness": Sickness.CHAIN_STALLED}, Action.START),
    (T, F, F, {"sickness": Sickness.ROLLUP_BOOST_PARTIAL}, Action.START),
    (T, F, F, {"sickness": Sickness.ROLLUP_BOOST_PARTIAL, "successor": T}, Action.TRANSFER),
    (T, F, F, {"sickness": Sickness.CONNECTION_DOWN}, Action.WAIT),
    (T, F, F, {"sickness": Sickness.CONNECTION_DOWN, "successor": T}, Action.TRANSFER),
    (T, F, F, {"sickness": Sickness.STARTING}, Action.WAIT),
    (T, F, F, {"sickness": Sickness.STARTING, "successor": T}, Action.TRANSFER),
    (T, F, F, {"sickness": Sickness.CHAIN_STALLED, "claimed": F}, Action.WAIT),
    (T, F, F, {"sickness": Sickness.CHAIN_STALLED, "start_failed": T}, Action.START),
    (T, F, T, {"sickness": Sickness.CHAIN_STALLED, "recovering": T}, Action.WAIT),
    (T, F, T, {"sickness": Sickness.CHAIN_STALLED, "recovering": T, "successor": T}, Action.WAIT),
    (T, F, T, {"sickness": Sickness.CHAIN_STALLED, "successor": T}, Action.STOP_AND_TRANSFER),
    (T, F, T, {"sickness": Sickness.CONNECTION_DOWN, "recovering": T, "successor": T}, Action.STOP_AND_TRANSFER),
    (T, F, T, {"sickness": Sickness.ROLLUP_BOOST_PARTIAL, "recovering": T, "successor": T}, Action.STOP_AND_TRANSFER),
    (T, F, T, {"sickness": Sickness.ROLLUP_BOOST_UNHEALTHY}, Action.WAIT),
    (T, F, T, {"sickness": Sickness.NO_PROGRESS, "successor": T}, Action.STOP_AND_TRANSFER),
    (T, T, F, {}, Action.START),
    (T, T, F, {"successor": T}, Action.START),
    (T, T, F, {"claimed": F}, Action.WAIT),
    (T, T, F, {"start_failed": T}, Action.START),
    (T, T, F, {"start_failed": T, "successor": T}, Action.TRANSFER),
    (T, T, T, {}, Action.NOTHING),
    (T, T, T, {"successor": T}, Action.NOTHING),
]


@pytest.mark.parametrize(("leader", "healthy", "active", "more", "action"), ROWS)
def test_every_cell_of_the_table(leader, healthy, active, more, action) -> None:
    assert decide(Facts(leader=leader, healthy=healthy, active=active, **more)) is action


def health(sickness: Sickness = Sickness.NONE) -> Health:
    return Health(sickness, READINESS_OF[sickness])


READY = Candidate("b", Readiness.READY, 10, 0)
NO_BUILDER = Candidate("b", Readiness.WITHOUT_BUILDER, 10, 0)
UNHEARD = Candidate("b", Readiness.UNKNOWN, -1, 0)


def leader(sickness: Sickness = Sickness.NONE, active: bool = True) -> Control:
    control = Control()
    control.on_health(health(sickness))
    control.on_leadership(True)
    control.on_claimed()
    control.on_active(active)
    return control


def test_one_action_at_a_time() -> None:
    control = leader(active=False)
    assert control.next(0.0, []) == Decision(Action.START)
    control.on_leadership(False)
    assert control.next(0.1, []) is None
    control.on_done(0.2, ok=True)
    assert control.next(0.2, []) == Decision(Action.STOP), "the start succeeded after leadership was gone"


def test_a_paused_conductor_does_nothing_and_offers_itself_to_nobody() -> None:
    control = Control(paused=True)
    control.on_health(health())
    control.on_leadership(True)
    control.on_claimed()
    assert control.next(0.0, []) is None
    assert control.readiness is Readiness.UNABLE
    control.paused = False
    assert control.readiness is Readiness.READY
    assert control.next(0.0, []) == Decision(Action.START)


def test_leadership_that_comes_to_a_paused_conductor_is_handed_on() -> None:
    control = Control(paused=True)
    control.on_health(health())
    control.on_leadership(True)
    assert control.next(0.0, [Candidate("b", Readiness.UNABLE, 10, 0)]) is None, "it is paused too"
    assert control.next(0.1, [READY]) == Decision(Action.TRANSFER, "b")
    control.on_done(0.2, ok=True)
    assert control.next(0.3, [READY]) is None


def test_what_a_paused_leader_began_is_left_to_the_operator() -> None:
    control = leader(active=False)
    assert control.next(0.0, [READY]) == Decision(Action.START)
    control.on_done(0.1, ok=True)
    control.paused = True
    control.on_active(False)  # stopped by hand
    assert control.next(1.0, [READY]) is None


def test_a_stopped_conductor_only_gives_leadership_away() -> None:
    control = leader(active=False)
    control.stopped = True
    assert control.next(0.0, []) is None
    assert control.next(0.0, [READY]) == Decision(Action.TRANSFER, "b")


def test_no_start_before_the_claim_is_committed() -> None:
    control = Control()
    control.on_health(health())
    control.on_leadership(True)
    assert control.next(0.0, []) is None
    control.on_claimed()
    assert control.next(0.0, []) == Decision(Action.START)


def test_a_new_leadership_needs_a_new_claim() -> None:
    control = leader(active=False)
    control.on_leadership(False)
    control.on_leadership(True)
    assert control.next(0.0, []) is None


def test_failing_starts_back_off_and_are_then_handed_on() -> None:
    control, now = leader(active=False), 0.0
    for _ in range(START_FAILURES_MAX):
        assert control.next(now, [UNHEARD]) == Decision(Action.START)
        control.on_done(now, ok=False)
        assert control.next(now + 0.01, [UNHEARD]) is None
        now += RETRY_S_MAX
    assert control.next(now, [UNHEARD]) == Decision(Action.TRANSFER, "b")


def test_a_start_that_nobody_answers_is_handed_on_at_once_where_somebody_can_take_it() -> None:
    control = leader(active=False)
    assert control.next(0.0, [UNHEARD]) == Decision(Action.START)
    control.on_done(0.5, ok=False, silent=True)
    assert control.next(0.5 + RETRY_S_FIRST, [UNHEARD]) == Decision(Action.TRANSFER, "b")
    alone = leader(active=False)
    alone.next(0.0, [])
    alone.on_done(0.5, ok=False, silent=True)
    assert alone.next(0.5 + RETRY_S_FIRST, []) == Decision(Action.START)


def test_leadership_that_came_back_during_a_transfer_is_kept() -> None:
    control = leader(Sickness.CONNECTION_DOWN)
    assert control.next(0.0, [READY]) == Decision(Action.STOP_AND_TRANSFER, "b")
    control.on_leadership(False)
    control.on_leadership(True)
    control.on_done(0.1, ok=True)
    assert control.leader


def test_the_back_off_has_a_cap_and_a_jitter() -> None:
    control, now = leader(active=False), 0.0
    for _ in range(12):
        assert control.next(now, []) is not None
        control.on_done(now, ok=False, jitter=1.0)
        assert control.next(now + 0.01, []) is None
        now += RETRY_S_MAX
    assert control.next(now, []) is not None
    control.on_done(now, ok=False, jitter=0.0)
    assert control.next(now + RETRY_S_MAX / 2, []) is not None


def test_news_cut_a_back_off_short() -> None:
    control = leader(active=False)
    control.next(0.0, [])
    control.on_done(0.0, ok=False)
    assert control.next(0.001, []) is None
    control.on_health(health(Sickness.ROLLUP_BOOST_PARTIAL))
    assert control.next(0.001, [READY]) == Decision(Action.TRANSFER, "b")


@pytest.mark.parametrize(
    ("sickness", "candidate", "handed"),
    [
        (Sickness.ROLLUP_BOOST_PARTIAL, READY, True),
        (Sickness.ROLLUP_BOOST_PARTIAL, NO_BUILDER, False),
        (Sickness.ROLLUP_BOOST_PARTIAL, UNHEARD, False),
        (Sickness.ROLLUP_BOOST_UNHEALTHY, NO_BUILDER, True),
        (Sickness.ROLLUP_BOOST_UNHEALTHY, UNHEARD, True),
        (Sickness.CONNECTION_DOWN, UNHEARD, True),
        (Sickness.LAGGING, UNHEARD, True),
        (Sickness.NONE, READY, False),
    ],
)
def test_leadership_goes_to_a_fitter_voter_only(sickness, candidate, handed) -> None:
    decision = leader(sickness).next(0.0, [candidate])
    assert (decision == Decision(Action.STOP_AND_TRANSFER, "b")) is handed


def test_two_groups_with_stale_reports_of_each_other_do_not_play_ping_pong() -> None:
    control = leader(Sickness.ROLLUP_BOOST_PARTIAL)
    assert control.next(0.0, [READY]) == Decision(Action.STOP_AND_TRANSFER, "b")
    control.on_active(False)
    control.on_done(0.01, ok=True)
    control.on_leadership(False)
    control.on_leadership(True)
    control.on_claimed()
    assert control.next(0.02, [READY]) == Decision(Action.START)
    control.on_done(0.03, ok=True)
    assert control.next(TRANSFER_COOLDOWN_S - 0.1, [READY]) is None
    assert control.next(TRANSFER_COOLDOWN_S + 0.1, [READY]) == Decision(Action.STOP_AND_TRANSFER, "b")


def test_a_target_that_did_not_take_is_not_asked_again_soon() -> None:
    control = leader(Sickness.CONNECTION_DOWN)
    other = Candidate("c", Readiness.UNKNOWN, 3, 0)
    assert control.next(0.0, [READY, other]) == Decision(Action.STOP_AND_TRANSFER, "b")
    control.on_done(0.1, ok=False)
    assert control.next(0.5, [READY, other]) == Decision(Action.STOP_AND_TRANSFER, "c")


def test_a_stalled_chain_is_given_time_but_not_for_ever() -> None:
    control = leader(Sickness.CHAIN_STALLED, active=False)
    assert control.next(0.0, [READY]) == Decision(Action.START), "somebody has to begin"
    control.on_done(0.1, ok=True)
    assert control.next(RECOVERY_WAIT_S_MAX, [READY]) is None
    assert control.next(RECOVERY_WAIT_S_MAX + 0.2, [READY]) == Decision(Action.STOP_AND_TRANSFER, "b")


def test_a_sick_leader_that_nobody_can_relieve_goes_on() -> None:
    control = leader(Sickness.ROLLUP_BOOST_PARTIAL)
    assert control.next(0.0, []) is None
    assert control.active


TRANSCRIPTS = {
    "the leader's conductor dies, we are elected": """
        leadership on             -
        claimed                   start sequencer
        done                      -
        health NONE               -
    """,
    "the op-node of the leader dies": """
        leadership on             -
        claimed                   start sequencer
        done                      -
        health CONNECTION_DOWN    stop sequencer and transfer leadership b
        active off                -
        done                      -
        leadership off            -
        health NONE               -
    """,
    "the builder of the leader dies": """
        leadership on             -
        claimed                   start sequencer
        done                      -
        health ROLLUP_BOOST_PARTIAL   stop sequencer and transfer leadership b
        active off                -
        done                      -
        leadership off            -
    """,
    "leadership is handed to a node that is not ready": """
        health ROLLUP_BOOST_UNHEALTHY  -
        leadership on             transfer leadership b
        done                      -
        leadership off            -
    """,
    "a partition takes leadership while we sequence": """
        leadership on             -
        claimed                   start sequencer
        done                      -
        leadership off            stop sequencer
        done                      -
    """,
    "stopping fails first": """
        leadership on             -
        claimed                   start sequencer
        done                      -
        leadership off            stop sequencer
        failed                    -
        wait 3                    stop sequencer
        done                      -
    """,
    "the conductor restarts while its node goes on": """
        active on                 stop sequencer
        done                      -
    """,
    "the watchdog bites": """
        leadership on             -
        claimed                   start sequencer
        done                      -
        health NO_PROGRESS        stop sequencer and transfer leadership b
        leadership off            -
        done                      stop sequencer
        failed                    -
        wait 3                    stop sequencer
        done                      -
    """,
}


@pytest.mark.parametrize("name", TRANSCRIPTS)
def test_failovers_as_transcripts(name: str) -> None:
    control, now = Control(), 0.0
    control.on_health(health())
    replayed = []
    for line in TRANSCRIPTS[name].strip().splitlines():
        event = line.strip().split("  ")[0].strip()
        match event.split():
            case ["leadership", state]:
                control.on_leadership(state == "on")
            case ["active", state]:
                control.on_active(state == "on")
            case ["claimed"]:
                control.on_claimed()
            case ["done"]:
                control.on_done(now, ok=True)
            case ["failed"]:
                control.on_done(now, ok=False)
            case ["health", reason]:
                control.on_health(health(Sickness[reason]))
            case ["wait", seconds]:
                now += float(seconds)
        decision = control.next(now, [READY])
        shown = "-" if decision is None else " ".join(filter(None, (decision.action.value, decision.target)))
        replayed.append(f"{event}|{shown}")
    expected = [
        "|".join(part.strip() for part in line.strip().split("  ", 1))
        for line in TRANSCRIPTS[name].strip().splitlines()
    ]
    assert replayed == expected


class AnyOrder(RuleBasedStateMachine):
    """Whatever happens in whatever order: no start without leadership and claim, no transfer to nobody, no dead end."""

    def __init__(self) -> None:
        super().__init__()
        self.control, self.now = Control(), 0.0

    @rule(leading=st.booleans())
    def leadership(self, leading: bool) -> None:
        self.control.on_leadership(leading)

    @rule()
    def claimed(self) -> None:
        if self.control.leader:
            self.control.on_claimed()

    @rule(sickness=st.sampled_from(Sickness))
    def health(self, sickness: Sickness) -> None:
        self.control.on_health(health(sickness))

    @rule(active=st.booleans())
    def active(self, active: bool) -> None:
        self.control.on_active(active)

    @rule(seconds=st.sampled_from([0.0, 0.01, 0.3, 6.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.control.busy is None)
    @rule(readiness=st.sampled_from(Readiness), known=st.booleans())
    def step(self, readiness: Readiness, known: bool) -> None:
        decision = self.control.next(self.now, [Candidate("b", readiness, 1, 0)] if known else [])
        if decision is None:
            return
        if decision.action is Action.START:
            assert self.control.leader and self.control.claimed and not self.control.active
        elif decision.action is Action.STOP:
            assert not self.control.leader and self.control.active
        else:
            assert self.control.leader and decision.target == "b" and known

    @precondition(lambda self: self.control.busy is not None)
    @rule(ok=st.booleans())
    def end(self, ok: bool) -> None:
        self.control.on_done(self.now, ok)

    @invariant()
    def a_healthy_claimed_leader_starts_in_bounded_time(self) -> None:
        control = self.control
        if (
            control.busy is None
            and control.leader
            and control.claimed
            and not control.active
            and control.health.healthy
        ):
            assert control._not_before <= self.now + RETRY_S_MAX


AnyOrder.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
TestAnyOrder = AnyOrder.TestCase
