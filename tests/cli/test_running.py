"""Which cluster a command means."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.run_directory import ROOT_VARIABLE, Claim, claim
from cli.output import CommandError
from cli.running import endpoints, find


@pytest.fixture
def claims(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Claim]]:
    monkeypatch.setenv(ROOT_VARIABLE, f"/tmp/fbn{os.getpid()}")
    taken = {name: claim(name) for name in ("default", "one", "two")}
    yield taken
    for each in taken.values():
        each.directory.remove()
    assert not Path(f"/tmp/fbn{os.getpid()}").exists()


def end(each: Claim) -> None:
    each.release()


def test_the_default_one_is_meant_unless_a_name_is_given(claims: dict[str, Claim]) -> None:
    assert find(None).name == "default"
    assert find("two").name == "two"
    for each in claims.values():
        end(each)


def test_the_only_one_is_meant_without_a_name(claims: dict[str, Claim]) -> None:
    end(claims["default"])
    with pytest.raises(CommandError, match="several clusters are running; say which with --name: one, two"):
        find(None)
    end(claims["one"])
    assert find(None).name == "two"
    with pytest.raises(CommandError, match="no cluster named 'one' is running; running: two"):
        find("one")
    end(claims["two"])


def test_endpoints_of_a_cluster_that_is_starting(claims: dict[str, Claim]) -> None:
    with pytest.raises(CommandError, match="still starting"):
        endpoints(find("one"))
    claims["one"].directory.endpoints.write_text('{"name": "one"}')
    assert endpoints(find("one")) == {"name": "one"}
    for each in claims.values():
        end(each)
