"""The book of processes: starts, ends and silences of hosts become events, each told once."""

from actors.host_book import HostBook, HostReport
from actors.plan import ComponentPlan


def component(name: str, host: str) -> ComponentPlan:
    return ComponentPlan(component=name, instance="g", group=0, settings={}, addresses={}, host=host)


PLAN = [component("conductor", "a"), component("builder", "a"), component("ingress", "b")]


def report(**actors: tuple[int, bool]) -> HostReport:
    return HostReport(agent_pid=1, delivered=True, actors={f"g.{name}": found for name, found in actors.items()})


def whole() -> HostBook:
    book = HostBook(PLAN)
    book.report("a", report(conductor=(10, True), builder=(11, True)))
    book.report("b", report(ingress=(12, True)))
    return book


def events(told: list) -> list[str]:  # type: ignore[type-arg]
    return [" ".join([each.event, str(each.details.get("component", each.details.get("address")))]) for each in told]


def test_a_start_is_told_component_by_component() -> None:
    book = HostBook(PLAN)
    assert events(book.report("a", report(conductor=(10, False)))) == ["host-answers a"]
    assert events(book.report("a", report(conductor=(10, True), builder=(11, True)))) == [
        "component-up g/conductor",
        "component-up g/builder",
    ]
    assert not book.is_complete
    assert events(book.report("b", report(ingress=(12, True)))) == ["host-answers b", "component-up g/ingress"]
    assert book.is_complete
    assert book.is_whole
    assert book.restarts == {"g/conductor": 0, "g/builder": 0, "g/ingress": 0}


def test_nothing_new_is_not_told() -> None:
    assert whole().report("b", report(ingress=(12, True))) == []


def test_a_killed_component_is_counted_when_it_is_back() -> None:
    book = whole()
    assert events(book.report("b", report(ingress=(0, False)))) == ["component-ended g/ingress"]
    assert book.pids["g/ingress"] == 0
    assert not book.is_whole
    assert book.report("b", report(ingress=(13, False))) == []
    assert events(book.report("b", report(ingress=(13, True)))) == ["component-up g/ingress"]
    assert book.restarts["g/ingress"] == 1


def test_a_restart_between_two_reports_is_seen_too() -> None:
    book = whole()
    assert events(book.report("b", report(ingress=(13, True)))) == [
        "component-ended g/ingress",
        "component-up g/ingress",
    ]
    assert book.restarts["g/ingress"] == 1


def test_a_silent_host_is_told_once_and_nothing_runs_there() -> None:
    book = whole()
    assert events(book.silence("a", "gone")) == ["host-silent a"]
    assert book.silence("a", "gone") == []
    assert book.pids["g/conductor"] == book.pids["g/builder"] == 0
    assert book.answering == {"b"}


def test_who_only_was_not_heard_of_was_not_restarted() -> None:
    book = whole()
    book.silence("a", "cut off")
    told = book.report("a", report(conductor=(10, True), builder=(20, True)))
    assert events(told) == ["host-answers a", "component-up g/conductor", "component-up g/builder"]
    assert book.restarts == {"g/conductor": 0, "g/builder": 1, "g/ingress": 0}


def test_what_is_started_anew_has_to_serve_again() -> None:
    book = whole()
    book.expect(PLAN[:2])
    assert book.serving == {"g/ingress"}
    assert events(book.report("a", report(conductor=(10, True), builder=(0, False)))) == ["component-up g/conductor"]
