"""Replaces a host of a running cluster for good: the next version of its order, handed to every host and the keeper.

    python -m actors.replace_host NAME RAY OLD NEW

Prints the keeper's events as JSON lines, and ends when every component that answers has its new settings.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import msgspec
import orjson

from actors import joined_cluster
from actors.data_directory import write_atomically
from actors.host_agent import STATE_FILE
from actors.join_order import KEEPER, ORDER_FILE, JoinOrder, newest
from actors.joined_cluster import AGENT_PREFIX
from actors.placement import PlacementError, read_hosts
from actors.run_directory import RunDirectory

FETCH_S_MAX = 6.0  # the host that is gone does not answer at all
DELIVER_S_MAX = 6.0
RENEWED_S_MAX = 600.0
POLL_S = 0.5


class CannotReplace(Exception):
    """The host cannot be replaced by that one; the text says why."""


def next_order(name: str, old: str, new: str) -> tuple[JoinOrder, dict[str, Any]]:
    """The order with *new* for *old*, and the agents; raises `CannotReplace` and `PlacementError`."""
    actors = joined_cluster.actors_of(name)
    agents = {actor: handle for actor, handle in actors.items() if actor.startswith(AGENT_PREFIX)}
    held = joined_cluster.answers({each: handle.fetch.remote() for each, handle in agents.items()}, FETCH_S_MAX)
    orders = [msgspec.json.decode(files[ORDER_FILE], type=JoinOrder) for files in held.values() if ORDER_FILE in files]
    current = newest(orders, orders[0].marker) if orders else None
    if current is None or KEEPER not in actors:
        raise CannotReplace(f"no cluster named {name!r} runs in this Ray")
    order = current.replacing(old, new)
    host = next((host for host in read_hosts(joined_cluster.nodes()) if host.address == new), None)
    if host is None:
        raise CannotReplace(f"{new} is no living node of this Ray; start Ray there first: flashblocks ray start …")
    needed = "sequencer" if new in order.placement.groups else "edge"
    if not getattr(host, needed):
        raise CannotReplace(f"{new} is not for that: its Ray must be started with the resource {needed!r}")
    return order, agents


def replace(name: str, old: str, new: str) -> None:
    """Do it, printing what the keeper tells."""
    order, agents = next_order(name, old, new)
    files = {ORDER_FILE: msgspec.json.encode(order), STATE_FILE: msgspec.json.encode(order.state())}
    delivered = joined_cluster.answers(
        {each: handle.deliver.remote(files) for each, handle in agents.items()}, DELIVER_S_MAX
    )
    print(orjson.dumps({"event": "ordered", "version": order.version, "hosts": len(delivered)}).decode(), flush=True)
    directory = RunDirectory(name)
    if directory.is_joined():  # this host may not be one of the cluster's own
        write_atomically(directory.state, msgspec.json.encode(order.state()))
    keeper = joined_cluster.actors_of(name)[KEEPER]
    joined_cluster.restart_actor(keeper)  # it takes the newest order that a host holds
    follow(keeper, order.version)


def follow(keeper: Any, version: int) -> None:
    """Print the events of the keeper of *version* until everything is renewed."""
    seen = 0
    deadline = time.monotonic() + RENEWED_S_MAX
    while time.monotonic() < deadline:
        time.sleep(POLL_S)
        answered = joined_cluster.answers({KEEPER: keeper.info.remote()}, FETCH_S_MAX)
        status = answered[KEEPER]["status"] if answered else None
        if not status or status["order_version"] != version:
            continue
        for event in status["events"][seen:]:
            print(orjson.dumps(event).decode(), flush=True)
        seen = len(status["events"])
        if status["renewed"]:
            return
    raise CannotReplace(f"not everything was renewed within {RENEWED_S_MAX:.0f} s; the keeper goes on")


def main(arguments: list[str]) -> int:
    """Replace OLD by NEW in the cluster NAME; see the module."""
    name, address, old, new = arguments
    joined_cluster.connect(address, name)
    try:
        replace(name, old, new)
    except (CannotReplace, PlacementError) as error:
        print(orjson.dumps({"event": "failed", "error": str(error)}).decode(), flush=True)
        return 1
    finally:
        joined_cluster.disconnect()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
