from flashblocks.conductor.candidates import (
    REPORT_AGE_S_MAX,
    TARGET_COOLDOWN_S,
    Candidate,
    Report,
    Successors,
    Voter,
    candidates,
)
from flashblocks.conductor.health import Readiness


def report(node: str, readiness: Readiness, head: int = 10, paused: bool = False, at: float = 0.0) -> Report:
    return Report(node=node, readiness=readiness, head_number=head, paused=paused, received_at=at)


def voter(node: str, connected: bool = True, lag: int | None = 0) -> Voter:
    return Voter(node=node, connected=connected, lag_entries=lag)


def test_a_builder_comes_first_then_the_newest_head_then_the_shortest_lag() -> None:
    voters = [voter(name) for name in "abcd"] + [voter("e", lag=3), voter("f", lag=1)]
    reports = [
        report("a", Readiness.UNABLE),
        report("b", Readiness.WITHOUT_BUILDER),
        report("c", Readiness.READY, head=9),
        report("d", Readiness.READY, head=11),
        report("e", Readiness.READY),
        report("f", Readiness.READY),
    ]
    assert [one.node for one in candidates(0.0, voters, reports)] == ["d", "f", "e", "c", "b", "a"]


def test_who_is_not_in_contact_is_no_candidate() -> None:
    assert candidates(0.0, [voter("a", connected=False)], [report("a", Readiness.READY)]) == []


def test_old_reports_say_nothing() -> None:
    judged = candidates(REPORT_AGE_S_MAX + 0.1, [voter("a")], [report("a", Readiness.READY)])
    assert judged == [Candidate("a", Readiness.UNKNOWN, -1, 0)]


def test_a_paused_conductor_does_not_want_to_lead() -> None:
    assert candidates(0.0, [voter("a")], [report("a", Readiness.READY, paused=True)])[0].readiness is Readiness.UNABLE


def test_only_a_strictly_fitter_one_is_chosen() -> None:
    judged = [Candidate("a", Readiness.WITHOUT_BUILDER, 10, 0)]
    successors = Successors()
    assert successors.choose(0.0, Readiness.UNKNOWN, judged) == judged[0]
    assert successors.choose(0.0, Readiness.WITHOUT_BUILDER, judged) is None


def test_who_was_tried_rests() -> None:
    judged = [Candidate("a", Readiness.READY, 10, 0), Candidate("b", Readiness.READY, 9, 0)]
    successors = Successors()
    successors.on_tried(0.0, "a")
    assert successors.choose(1.0, Readiness.UNABLE, judged) == judged[1]
    assert successors.choose(TARGET_COOLDOWN_S, Readiness.UNABLE, judged) == judged[0]
