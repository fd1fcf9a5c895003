"""Hosts for the tests of this folder, where this machine can make them; elsewhere the tests say why they do not run."""

from collections.abc import Iterator

import pytest

from tests.hosts.deployment import FIGURES, Deployment, deployed
from tests.hosts.machines import missing


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs hosts where there can be none."""
    marked = [item for item in items if item.get_closest_marker("hosts") is not None]
    reason = missing() if marked else None
    if reason is not None:
        for item in marked:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def no_process_is_left_behind() -> Iterator[None]:
    """Hosts live longer than one test and may be booted in one; `test_machines` checks that all of them end."""
    yield


@pytest.fixture(scope="session")
def deployment() -> Iterator[Deployment]:
    """The whole system on seven hosts, for all tests of this folder that need it; nothing of it is left."""
    with deployed() as deployment:
        yield deployment


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was measured: a passed test would keep it to itself."""
    for line in FIGURES:
        terminalreporter.write_line(f"hosts: {line}")
