"""When a keeper goes on though hosts are silent: with the secrets, and with the order or a majority of the groups."""

import math

import msgspec
import pytest

from actors.host_agent import DATA_FILES
from actors.keeper_start import ORDER_KNOWN_S, ORDER_UNKNOWN_S, newest_held, patience_s
from tests.actors.test_join_order import order

GROUPS = order().placement.groups
EDGE = order().placement.keepers[0]
DATA = dict.fromkeys(DATA_FILES, b"x")
WITHOUT_PASSWORD = {name: b"x" for name in DATA_FILES if name != "raft-password"}


def holding(version: int, marker: str = "00ff") -> dict[str, bytes]:
    return {"order.json": msgspec.json.encode(order(version=version, marker=marker))}


@pytest.mark.parametrize(
    ("held", "expected"),
    [
        ({}, math.inf),
        ({key: {} for key in GROUPS}, math.inf),  # a first start: secrets made now might differ from a silent host's
        (dict.fromkeys(GROUPS, WITHOUT_PASSWORD), math.inf),
        ({EDGE: {**WITHOUT_PASSWORD, **holding(1)}}, math.inf),
        ({GROUPS[0]: {**DATA, **holding(1)}}, ORDER_KNOWN_S),
        ({GROUPS[0]: DATA, EDGE: {**WITHOUT_PASSWORD, **holding(2)}}, ORDER_KNOWN_S),
        ({key: {**DATA, **holding(1, marker="another run")} for key in GROUPS[:2]}, math.inf),
        (dict.fromkeys((*GROUPS[:2], EDGE), DATA), math.inf),
        (dict.fromkeys(GROUPS[:3], DATA), ORDER_UNKNOWN_S),
    ],
)
def test_how_long_the_silent_ones_are_waited_for(held: dict[str, dict[str, bytes]], expected: float) -> None:
    assert patience_s(held, order()) == expected


def test_the_newest_order_of_this_run_is_taken_from_whoever_holds_it() -> None:
    held = {GROUPS[0]: holding(1), GROUPS[1]: holding(3), EDGE: holding(7, marker="another run"), GROUPS[2]: {}}
    found = newest_held(held, "00ff")
    assert found is not None
    assert found.version == 3
    assert newest_held({}, "00ff") is None
