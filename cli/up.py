"""``flashblocks up``: starts a cluster, shows its start, then shows it live until Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import orjson

from actors import joined_starter
from actors.join_order import ORDER_FILE, JoinOrder
from actors.joined_starter import Joined, NoToken
from actors.plan import LOG_LEVELS, ClusterOptions, OptionsError
from actors.ports import NoFreePorts
from actors.run_directory import AlreadyRunning, RunDirectory
from actors.starter import Started, start
from cli.output import CommandError, note, say, say_json
from cli.running import read_endpoints
from cli.start_progress import StartProgress, events

READY_S_MAX = 200.0
FIRST_FLASHBLOCK_S_MAX = 60.0
LOOK_EVERY_S = 1.0
DRAW_EVERY_S = 0.2
PLAIN_EVERY_S = 5.0
LOG_TAIL_BYTES = 2000
OTLP_VARIABLE = "OTEL_EXPORTER_OTLP_ENDPOINT"


def configure(parser: argparse.ArgumentParser, _: list[str]) -> None:
    """Add the options; their defaults are those of `ClusterOptions`."""
    defaults = ClusterOptions()
    parser.add_argument("--name", default=defaults.name, help="name of the cluster; several can run side by side")
    parser.add_argument("--groups", type=int, default=defaults.groups, help="sequencer groups")
    parser.add_argument("--proxies", type=int, default=defaults.proxies, help="websocket-proxies")
    parser.add_argument("--rpc-nodes", type=int, default=defaults.rpc_nodes, help="Flashblocks-aware RPC nodes")
    parser.add_argument("--ingresses", type=int, default=defaults.ingresses, help="transaction ingresses")
    parser.add_argument("--block-time", type=int, default=defaults.block_time_s, help="seconds per block")
    parser.add_argument(
        "--flashblock-time", type=int, default=defaults.flashblock_time_ms, help="milliseconds per flashblock"
    )
    parser.add_argument(
        "--round-trip",
        type=int,
        default=defaults.round_trip_ms,
        metavar="MS",
        help="longest round trip between two sequencer hosts; Raft's time-outs grow with it",
    )
    parser.add_argument(
        "--raft-fsync",
        action="store_true",
        help="conductors force entries to the disk before they acknowledge them: a power cut of all forgets none",
    )
    parser.add_argument("--chain-id", type=int, default=defaults.chain_id, help="chain id of a new chain")
    parser.add_argument("--host", default=defaults.host, help="address every server binds to")
    parser.add_argument(
        "--data-dir", type=Path, default=None, help="keep the chain here; without it the chain ends with the cluster"
    )
    parser.add_argument("--log-level", choices=LOG_LEVELS, default=defaults.log_level, help="how much the actors log")
    parser.add_argument(
        "--otlp", metavar="URL", default=None, help="send traces to this OTLP collector, http://127.0.0.1:4318 say"
    )
    parser.add_argument(
        "--detach", action="store_true", help="return when the chain runs; end it with: flashblocks down"
    )
    parser.add_argument(
        "--address",
        metavar="RAY",
        default=None,
        help="start on the hosts of a running Ray cluster ('auto' on one of them), not on this machine alone",
    )
    parser.add_argument(
        "--port-offset", type=int, default=0, help="with --address: added to every port, for a second cluster"
    )
    parser.add_argument(
        "--wait",
        type=int,
        default=0,
        metavar="S",
        help="with --address: wait so long for a host per group and one for the edge, then take what is there",
    )
    parser.add_argument("--json", action="store_true", help="print endpoints.json when the chain runs, nothing else")


def run(options: argparse.Namespace) -> int:
    """Start, show, and – unless detached – end the cluster."""
    command_at = _process_started_at()
    wanted = ClusterOptions(
        name=options.name,
        groups=options.groups,
        proxies=options.proxies,
        rpc_nodes=options.rpc_nodes,
        ingresses=options.ingresses,
        block_time_s=options.block_time,
        flashblock_time_ms=options.flashblock_time,
        round_trip_ms=options.round_trip,
        raft_fsync=options.raft_fsync,
        host=options.host,
        chain_id=options.chain_id,
        log_level=options.log_level,
    )
    if options.otlp is not None:
        os.environ[OTLP_VARIABLE] = options.otlp  # every actor's process inherits it
    try:
        started = _start(wanted, options, command_at)
    except (OptionsError, AlreadyRunning, NoFreePorts, NoToken, PermissionError) as error:
        raise CommandError(str(error)) from None
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        return asyncio.run(_live(started, options, command_at))
    except KeyboardInterrupt:
        note("ending the cluster …")
        return 0
    finally:
        if not started.detached:
            started.stop()


def _start(wanted: ClusterOptions, options: argparse.Namespace, command_at: float) -> Started | Joined:
    if options.address is None:
        return start(wanted, options.data_dir, command_at)
    return joined_starter.start(
        wanted,
        options.data_dir,
        command_at,
        address=options.address,
        port_offset=options.port_offset,
        wait_s=options.wait,
        otlp_url=options.otlp or "",
    )


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def _process_started_at() -> float:
    """When this process began, so that our own imports count as part of the start."""
    with open("/proc/self/stat", "rb") as file:
        ticks = int(file.read().rpartition(b")")[2].split()[19])
    with open("/proc/uptime", "rb") as file:
        uptime_s = float(file.read().split()[0])
    return time.time() - (uptime_s - ticks / os.sysconf("SC_CLK_TCK"))


async def _live(started: Started | Joined, options: argparse.Namespace, command_at: float) -> int:
    from cli.stream import follow
    from cli.view import StreamView

    stream = StreamView()
    show = note if options.json else say
    first_at = await _until_first_flashblock(started, stream, show, options.wait)
    endpoints = read_endpoints(started.directory)
    if endpoints is None:
        raise CommandError("the cluster serves but wrote no endpoints.json; see its supervisor.log")
    if options.json:
        say_json(endpoints)
    else:
        from cli.snippets import introduction

        say("\n" + introduction(endpoints) + "\n")
        for line in hosts_words(endpoints):
            say(line)
    show(f"first flashblock {first_at - command_at:.1f} s after the command")
    if options.detach:
        started.detach()
        show(f"detached; end it with: flashblocks down --name {options.name}")
        return 0
    following = asyncio.create_task(_follow(follow(endpoints["stream"]), stream))
    try:
        return await _show_until_the_end(started, stream, command_at, plainly=options.json)
    finally:
        following.cancel()


async def _until_first_flashblock(started: Started | Joined, stream: Any, show: Any, wait_s: int) -> float:
    """Show the progress until every component serves and a flashblock was seen; returns when that was."""
    from cli.stream import SeenFlashblock, follow

    directory = started.directory
    first: asyncio.Task[float] | None = None

    async def first_flashblock(urls: list[str]) -> float:
        async for event in follow(urls):
            stream.add(event)
            if isinstance(event, SeenFlashblock):
                return event.at
        raise AssertionError("the stream never ends")

    progress = StartProgress(show)
    is_ready = False
    try:
        async with asyncio.timeout(READY_S_MAX + wait_s):
            async for event in events(started):
                progress.add(event)
                if event["event"] == "actors-created":
                    first = asyncio.create_task(first_flashblock(_stream_urls(directory)))
                if event["event"] == "failed":
                    raise CommandError(f"the start failed: {event['error']}\n{_log_tail(directory)}")
                if event["event"] == "ready":
                    break
        is_ready = True
        assert first is not None
        async with asyncio.timeout(FIRST_FLASHBLOCK_S_MAX):
            return await first
    except TimeoutError:
        if is_ready and isinstance(started, Joined):
            started.detach()  # whole as its own hosts see it: what this one cannot reach is no reason to end it
            raise CommandError(unreached_words(directory.name, _stream_urls(directory))) from None
        raise CommandError(f"no flashblock in time; {progress.summary()}; logs: {_log_dir(directory)}") from None
    finally:
        if first is not None:
            first.cancel()


def _stream_urls(directory: RunDirectory) -> list[str]:
    if directory.is_joined():
        order = msgspec.json.decode((directory.path / ORDER_FILE).read_bytes(), type=JoinOrder)
        return [each.addresses["ws"] for each in order.plan() if each.component == "websocket-proxy"]
    plan = orjson.loads(directory.options.read_bytes())["plan"]
    return [each["addresses"]["ws"] for each in plan if each["component"] == "websocket-proxy"]


def _log_dir(directory: RunDirectory) -> str:
    state = directory.read_state()
    return f"{state.data_dir}/logs" if state is not None else "gone"


def _log_tail(directory: RunDirectory) -> str:
    try:
        return directory.supervisor_log.read_text(errors="replace")[-LOG_TAIL_BYTES:]
    except OSError:
        return ""


def unreached_words(name: str, urls: list[str]) -> str:
    """What to say where every component of a system on many hosts serves, and no flashblock has come to this one."""
    return (
        f"every component serves, but within {FIRST_FLASHBLOCK_S_MAX:.0f} s no flashblock came to this host from "
        f"{' or '.join(urls)}: does a firewall hold them back? The system goes on; look at it on one of its hosts: "
        f"flashblocks status --name {name}; end it with: flashblocks down --name {name}"
    )


def hosts_words(endpoints: Mapping[str, Any]) -> list[str]:
    """On many hosts: what runs where, and what of it other hosts can reach."""
    lines = []
    for host in endpoints.get("hosts", ()):
        reached = sorted({str(each["port"]) for each in endpoints["listens"] if each["address"] == host["address"]})
        instances = ", ".join(host["instances"]) or "the keeper"
        lines.append(f"{host['address']:<16} {instances}; beyond loopback: {' '.join(reached)}")
    return lines


async def _follow(events: AsyncIterator[Any], stream: Any) -> None:
    async for event in events:
        stream.add(event)


async def _show_until_the_end(started: Started | Joined, stream: Any, command_at: float, *, plainly: bool) -> int:
    """The live view on a terminal, a line now and then elsewhere; returns when the cluster has ended by itself."""
    from cli.snapshot import Asker
    from cli.view import live, plain

    asker = Asker()
    looked: dict[str, Any] = {}

    async def look() -> None:
        while True:
            endpoints = read_endpoints(started.directory)
            if endpoints is not None:
                looked["snapshot"] = await asker.look(endpoints)
            await asyncio.sleep(LOOK_EVERY_S)

    async def read_failures() -> None:
        async for event in events(started):
            if event["event"] == "failed":
                failures.append(event["error"])

    failures: list[str] = []
    looking, reading = asyncio.create_task(look()), asyncio.create_task(read_failures())
    try:
        if plainly or not sys.stdout.isatty():
            next_line_at = time.monotonic() + PLAIN_EVERY_S
            while not started.has_ended():
                await asyncio.sleep(DRAW_EVERY_S)
                if time.monotonic() >= next_line_at:
                    next_line_at += PLAIN_EVERY_S
                    (note if plainly else say)(plain(looked.get("snapshot"), stream, time.time()))
        else:
            from rich.live import Live

            with Live(auto_refresh=False, screen=False) as screen:
                while not started.has_ended():
                    screen.update(live(looked.get("snapshot"), stream, command_at, time.time()), refresh=True)
                    await asyncio.sleep(DRAW_EVERY_S)
    finally:
        for task in (looking, reading):
            task.cancel()
        await asyncio.gather(looking, reading, return_exceptions=True)
        await asker.close()
    if failures:
        raise CommandError(f"the cluster failed: {failures[0]}")
    note("the cluster was ended from elsewhere")
    return 0
