"""One look at a whole cluster: what every component says of itself, asked over HTTP at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from actors.rpc_client import RpcClient, RpcRefused, RpcUnknown

STATUS_S_MAX = 1.0
HTTP_OK = 200
OF_MANY_HOSTS = ("hosts", "keeper", "listens", "remarks", "ray_address")
# Where each component of a group answers `flashblocks_status` (rollup-boost: its engine port wants a JWT).
STATUS_DOOR = {"op-node": "rpc", "conductor": "rpc", "rollup-boost": "debug", "builder": "rpc", "fallback-el": "rpc"}


class Asker:
    """Keeps one connection per component for repeated looks."""

    def __init__(self) -> None:
        self._clients: dict[str, RpcClient] = {}

    async def look(self, endpoints: Mapping[str, Any]) -> dict[str, Any]:
        """The endpoints with a ``status`` beside every component (None where it does not answer), and the leader."""
        entries = list(components(endpoints))
        statuses = await asyncio.gather(*(self.status(url, component) for _, component, _, url in entries))
        answered = iter(statuses)
        groups = [
            {
                "name": group["name"],
                "actors": {
                    component: {**entry, "status": next(answered)} for component, entry in group["actors"].items()
                },
            }
            for group in endpoints["groups"]
        ]
        rest = {
            key: [{**entry, "status": next(answered)} for entry in endpoints[key]]
            for key in ("proxies", "rpc_nodes", "ingress")
        }
        return {
            "name": endpoints["name"],
            "chain_id": endpoints["chain_id"],
            "leader": leader_of(groups),
            "groups": groups,
            **rest,
            "data_dir": endpoints["data_dir"],
            **{key: endpoints[key] for key in OF_MANY_HOSTS if key in endpoints},
        }

    async def status(self, url: str, component: str = "") -> dict[str, Any] | None:
        """What the component at *url* says of itself, None when it does not answer in time."""
        client = self._clients.setdefault(url, RpcClient(url, timeout_s=STATUS_S_MAX))
        try:
            if component == "websocket-proxy":  # it has no JSON-RPC
                code, body = await client.get("/status")
                found = orjson.loads(body) if code == HTTP_OK else None
            else:
                found = await client.call("flashblocks_status")
        except (RpcRefused, RpcUnknown):
            return None
        return found if isinstance(found, dict) else None

    async def close(self) -> None:
        """Close every connection."""
        await asyncio.gather(*(client.close() for client in self._clients.values()))


def components(endpoints: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any], str]]:
    """Every component as (instance, component, entry, url of its status), groups first, in a fixed order."""
    for group in endpoints["groups"]:
        for component, entry in group["actors"].items():
            # On many hosts rollup-boost's own doors are on its host's loopback; there it has one for looking only.
            yield group["name"], component, entry, entry.get("metrics") or entry[STATUS_DOOR[component]]
    kinds = {"proxies": "websocket-proxy", "rpc_nodes": "rpc-node", "ingress": "ingress"}
    for key, component in kinds.items():
        for entry in endpoints[key]:
            yield entry["name"], component, entry, entry["http"]


def leader_of(groups: list[dict[str, Any]]) -> dict[str, Any] | None:
    """``{group, epoch, active}`` of the conductor that leads, if by an operator's override; the higher epoch of two."""
    claims = []
    for group in groups:
        status = group["actors"].get("conductor", {}).get("status")
        if status and status.get("role") in ("leader", "overridden"):
            claim = {"group": group["name"], "epoch": status.get("epoch") or 0, "active": bool(status.get("active"))}
            claims.append(claim)
    return max(claims, key=lambda claim: claim["epoch"], default=None)


async def look_once(endpoints: Mapping[str, Any]) -> dict[str, Any]:
    """One look, with connections of its own."""
    asker = Asker()
    try:
        return await asker.look(endpoints)
    finally:
        await asker.close()
