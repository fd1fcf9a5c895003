"""``op-conductor-ops.toml``: the cluster as the operator tool op-conductor-ops wants it described.

The file's shape is that tool's: ``[networks.NAME] sequencers = […]`` and one ``[sequencers.ID]`` each. The ids are the
members' Raft ids, so that ``transfer-leader NAME ID`` names what ``conductor_clusterMembership`` answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

OPERATOR_CONFIG_FILE = "op-conductor-ops.toml"


def operator_config(endpoints: Mapping[str, Any]) -> str:
    """The content, from what ``endpoints.json`` says; TOML."""
    groups = endpoints["groups"]
    names = [group["name"] for group in groups]
    return "\n".join(
        [
            _table(f"networks.{_text(endpoints['name'])}", {"sequencers": names}),
            *(_table(f"sequencers.{_text(group['name'])}", _sequencer(group["actors"])) for group in groups),
        ]
    )


def _sequencer(actors: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "raft_addr": actors["conductor"]["raft"],
        "conductor_rpc_url": actors["conductor"]["rpc"],
        "node_rpc_url": actors["op-node"]["rpc"],
        "rollup_boost_rpc_url": actors["rollup-boost"]["debug"],
        "voting": True,
    }


def _table(name: str, values: Mapping[str, Any]) -> str:
    return "\n".join([f"[{name}]", *(f"{key} = {_text(value)}" for key, value in values.items()), ""])


def _text(value: Any) -> str:
    """A TOML value; strings, booleans and lists of strings are spelled as in JSON."""
    return orjson.dumps(value).decode()
