"""Ends a cluster on many hosts: its actors, its placement groups, its files on every host that answers.  Ray stays.

    python -m actors.leave NAME ADDRESS

Prints one JSON object: how many actors were ended, which hosts were cleaned, which did not answer.
"""

from __future__ import annotations

import sys
from typing import Any

import orjson

from actors import joined_cluster
from actors.join_order import KEEPER
from actors.joined_cluster import AGENT_PREFIX

STOP_S_MAX = 6.0


def leave(name: str) -> dict[str, Any]:
    """End everything of the cluster *name*; returns what was done."""
    actors = joined_cluster.actors_of(name)
    agents = {actor: handle for actor, handle in actors.items() if actor.startswith(AGENT_PREFIX)}
    components = {actor: handle for actor, handle in actors.items() if actor not in agents and actor != KEEPER}
    if KEEPER in actors:  # before anything else: it would start again what we end
        joined_cluster.end_actor(actors[KEEPER])
    ended = joined_cluster.answers({each: handle.stop.remote() for each, handle in components.items()}, STOP_S_MAX)
    for handle in components.values():
        joined_cluster.end_actor(handle)
    joined_cluster.remove_groups(name)
    joined_cluster.wait_until_gone(name, components)
    cleaned = joined_cluster.answers(
        {each: handle.remove.remote() for each, handle in agents.items()}, joined_cluster.REMOVE_S_MAX
    )
    for handle in agents.values():
        joined_cluster.end_actor(handle)
    joined_cluster.wait_until_gone(name, actors)
    return {
        "actors": len(actors),
        "ended_cleanly": sum(1 for answer in ended.values() if answer),
        "cleaned": sorted(each.removeprefix(AGENT_PREFIX) for each in cleaned),
        "silent": sorted(each.removeprefix(AGENT_PREFIX) for each in agents if each not in cleaned),
    }


def main(arguments: list[str]) -> int:
    """Leave for the cluster NAME in the Ray at ADDRESS; see the module."""
    name, address = arguments
    joined_cluster.connect(address, name)
    try:
        print(orjson.dumps(leave(name)).decode(), flush=True)
    finally:
        joined_cluster.disconnect()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
