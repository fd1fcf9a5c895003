"""``flashblocks leader``: who leads, and handing the lead over."""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Mapping
from typing import Any

from cli.output import CommandError, say, say_json
from cli.running import add_name, endpoints, find

TRANSFER_S_MAX = 15.0
POLL_S = 0.05


def configure(parser: argparse.ArgumentParser, _: list[str]) -> None:
    """Add the options."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="show|transfer")
    show = verbs.add_parser("show", help="the leading group and its epoch")
    transfer = verbs.add_parser("transfer", help="hand the lead to another group")
    transfer.add_argument("--to", metavar="NAME", help="the group that shall lead (default: the ledger's choice)")
    for each in (show, transfer):
        add_name(each)
        each.add_argument("--json", action="store_true", help="machine-readable")


def run(options: argparse.Namespace) -> int:
    """Show or transfer."""
    found = endpoints(find(options.name))
    if options.verb == "show":
        leader = asyncio.run(_leader(found))
        if leader is None:
            raise CommandError("no group leads at the moment")
        return _tell(leader, options.json, "leads")
    return _tell(asyncio.run(_transfer(found, options.to)), options.json, "leads now")


def _tell(leader: Mapping[str, Any], as_json: bool, verb: str) -> int:
    if as_json:
        say_json(leader)
    else:
        took = f", {leader['took_ms']:.0f} ms after the request" if "took_ms" in leader else ""
        active = "" if leader["active"] else " (its op-node does not sequence yet)"
        say(f"{leader['group']} {verb}, epoch {leader['epoch']}{active}{took}")
    return 0


async def _leader(found: Mapping[str, Any]) -> dict[str, Any] | None:
    from cli.snapshot import Asker, leader_of

    asker = Asker()
    try:
        return leader_of(await _conductors(asker, found))
    finally:
        await asker.close()


async def _conductors(asker: Any, found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The groups with only their conductors and what these say."""
    doors = [(group["name"], group["actors"]["conductor"]) for group in found["groups"]]
    statuses = await asyncio.gather(*(asker.status(entry["rpc"]) for _, entry in doors))
    return [
        {"name": name, "actors": {"conductor": {**entry, "status": status}}}
        for (name, entry), status in zip(doors, statuses, strict=True)
    ]


async def _transfer(found: Mapping[str, Any], wanted: str | None) -> dict[str, Any]:
    from actors.rpc_client import RpcClient, RpcRefused, RpcUnknown
    from cli.snapshot import Asker, leader_of

    doors = {group["name"]: group["actors"]["conductor"]["rpc"] for group in found["groups"]}
    if wanted is not None and wanted not in doors:
        raise CommandError(f"--to {wanted}: no such group; groups: {', '.join(doors)}")
    asker = Asker()
    try:
        old = leader_of(await _conductors(asker, found))
        if old is None:
            raise CommandError("no group leads at the moment")
        if old["group"] == wanted:
            return {**old, "took_ms": 0.0}
        conductor = RpcClient(doors[old["group"]])
        started = time.monotonic()
        try:
            await _ask_for_transfer(conductor, wanted)
        except (RpcRefused, RpcUnknown) as error:
            raise CommandError(f"{old['group']} did not hand over: {error}") from None
        finally:
            await conductor.close()
        while time.monotonic() - started < TRANSFER_S_MAX:
            new = leader_of(await _conductors(asker, found))
            if new is not None and new["epoch"] > old["epoch"] and new["active"]:
                return {**new, "took_ms": (time.monotonic() - started) * 1000}
            await asyncio.sleep(POLL_S)
        raise CommandError(f"no new active leader within {TRANSFER_S_MAX:.0f} s; look at: flashblocks status")
    finally:
        await asker.close()


async def _ask_for_transfer(conductor: Any, wanted: str | None) -> None:
    if wanted is None:
        await conductor.call("conductor_transferLeader")
        return
    membership = await conductor.call("conductor_clusterMembership")
    address = next((each["addr"] for each in membership["servers"] if each["id"] == wanted), None)
    if address is None:
        raise CommandError(f"{wanted} is no member of the Raft cluster")
    await conductor.call("conductor_transferLeaderToServer", wanted, address)
