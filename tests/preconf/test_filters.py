"""Polled filters: what is collected, what is forgotten."""

import itertools
from typing import Any

import pytest

from flashblocks.preconf.events import Event, HeadChanged
from flashblocks.preconf.filters import CHANGES_MAX, FILTERS_MAX, IDLE_S_MAX, Filters
from flashblocks.wire.jsonrpc import RpcError

EVENT = HeadChanged((), ())


def numbered() -> Any:
    counter = itertools.count()
    return lambda event: [next(counter)]


def made() -> Filters:
    ids = itertools.count(1)
    return Filters(lambda: next(ids))


def test_changes_are_those_since_the_last_call() -> None:
    filters = made()
    name = filters.install(numbered(), 0.0, {"address": None})
    for _ in range(3):
        filters.event(EVENT)
    assert filters.changes(name, 1.0) == [0, 1, 2]
    assert filters.changes(name, 1.0) == []
    assert filters.criteria_of(name) == {"address": None}
    assert filters.uninstall(name)
    assert not filters.uninstall(name)


@pytest.mark.parametrize("name", ["0x99", None, 5, ["0x1"]])
def test_an_unknown_filter_is_an_error(name: Any) -> None:
    filters = made()
    with pytest.raises(RpcError, match="filter not found"):
        filters.changes(name, 0.0)
    assert not filters.uninstall(name)


def test_an_idle_filter_is_dropped_and_a_polled_one_stays() -> None:
    filters = made()
    polled, idle = filters.install(numbered(), 0.0), filters.install(numbered(), 0.0)
    filters.changes(polled, IDLE_S_MAX - 1)
    filters.changes(polled, IDLE_S_MAX + 1)
    with pytest.raises(RpcError):
        filters.changes(idle, IDLE_S_MAX + 1)


def test_bounds() -> None:
    filters = made()
    first = filters.install(numbered(), 0.0)
    for turn in range(FILTERS_MAX):
        filters.install(lambda event: [], 0.1 + turn / 10_000)
    assert len(filters) == FILTERS_MAX
    with pytest.raises(RpcError):
        filters.changes(first, 1.0)
    many: Any = lambda event: list(range(CHANGES_MAX + 5))  # noqa: E731
    name = filters.install(many, 1.0)
    filters.event(EVENT)
    assert len(filters.changes(name, 1.0)) == CHANGES_MAX


def test_events_reach_every_filter() -> None:
    filters, seen = made(), list[Event]()

    def emit(event: Event) -> list[Any]:
        seen.append(event)
        return []

    filters.install(emit, 0.0)
    filters.install(emit, 0.0)
    filters.event(EVENT)
    assert seen == [EVENT, EVENT]
