"""Starts a cluster on many hosts: joins a running Ray, lays the cluster out, hands the order to a keeper, and leaves.

    python -m actors.join NAME

Started by `actors.joined_starter`.  It writes the events of the start to ``progress.jsonl`` in the run directory, and
at its end ``endpoints.json`` and ``state.json``; then nothing of the cluster runs here because of us.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any

import msgspec
import orjson

from actors import joined_cluster
from actors.data_directory import write_atomically, write_private
from actors.join_order import ORDER_FILE, REQUEST_FILE, JoinOrder, JoinRequest
from actors.placement import Host, PlacementError, missing, place, read_hosts
from actors.progress import Progress
from actors.run_directory import RunDirectory

POLL_S = 0.2
HOSTS_POLL_S = 1.0
KEEPER_ANSWER_S_MAX = 120.0


class AlreadyThere(Exception):
    """Ray already holds actors of a cluster of that name."""


def hosts_for(request: JoinRequest, progress: Progress) -> list[Host]:
    """The hosts there are – once none is missing any more, or patience has ended."""
    deadline = time.monotonic() + request.wait_s
    told = ""
    while True:
        hosts = read_hosts(joined_cluster.nodes())
        lacking = missing(hosts, groups=request.options.groups)
        if not lacking or time.monotonic() >= deadline:
            return hosts
        if lacking != told:
            told = lacking
            progress.tell("waiting", lacking=lacking)
        time.sleep(HOSTS_POLL_S)


def order_for(request: JoinRequest, directory: RunDirectory, hosts: Sequence[Host]) -> JoinOrder:
    """The order that carries out *request* on *hosts*; raises `PlacementError`."""
    options = request.options
    placement = place(
        hosts,
        groups=options.groups,
        proxies=options.proxies,
        rpc_nodes=options.rpc_nodes,
        ingresses=options.ingresses,
    )
    return JoinOrder(
        marker=request.marker,
        options=options,
        placement=placement,
        port_offset=request.port_offset,
        run_dir=str(directory.path),
        data_dir=request.data_dir,
        temporary_data=request.temporary_data,
        ray_address=joined_cluster.gcs_address(),
        command_at=request.command_at,
        otlp_url=request.otlp_url,
    )


def join(directory: RunDirectory, progress: Progress) -> bool:
    """Do it; whether the whole cluster serves."""
    request = msgspec.json.decode((directory.path / REQUEST_FILE).read_bytes(), type=JoinRequest)
    progress.tell("joining", address=request.address)
    joined_cluster.connect(request.address, request.options.name)
    if joined_cluster.actors_of(request.options.name):
        raise AlreadyThere(
            f"this Ray cluster holds actors of a cluster named {request.options.name!r} already; "
            f"end it with: flashblocks down --name {request.options.name} --address {request.address}"
        )
    order = order_for(request, directory, hosts_for(request, progress))
    placement = order.placement
    progress.tell("placed", hosts=list(placement.hosts()), remarks=list(placement.remarks))
    write_private(directory.path / ORDER_FILE, msgspec.json.encode(order))
    write_atomically(directory.state, msgspec.json.encode(order.state()))
    settings = {"order": msgspec.to_builtins(order), "data_dir": order.data_dir, "log_level": order.options.log_level}
    keeper = joined_cluster.JoinedCluster(order).ensure_keeper(settings)
    return follow(keeper, directory, progress)


def follow(keeper: Any, directory: RunDirectory, progress: Progress) -> bool:
    """Pass the keeper's events on until it is ready, or has failed."""
    seen = 0
    while True:
        status = joined_cluster.result(keeper.info.remote(), KEEPER_ANSWER_S_MAX)["status"]
        for event in status["events"][seen:] if status else []:
            seen += 1
            if event["event"] == "ready":
                write_private(directory.endpoints, status["endpoints"].encode())
            progress.pass_on(event)
            if event["event"] in ("ready", "failed"):
                return bool(event["event"] == "ready")
        time.sleep(POLL_S)


def main(arguments: list[str]) -> int:
    """Join for the cluster NAME; see the module."""
    directory = RunDirectory(arguments[0])
    request = orjson.loads((directory.path / REQUEST_FILE).read_bytes())
    progress = Progress(directory.progress, request["command_at"])
    try:
        return 0 if join(directory, progress) else 1
    except (AlreadyThere, PlacementError) as error:
        progress.tell("failed", error=str(error))
        return 1
    except Exception as error:
        progress.tell("failed", error=f"{type(error).__name__}: {error}")
        raise
    finally:
        joined_cluster.disconnect()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
