"""The supervisor of a cluster on many hosts: a component of its own, on an edge host, started again by Ray like others.

It keeps the hosts as the order wants them: every host has an agent and its files, every component an actor with the
settings of the newest order.  It tells where everything is (``endpoints.json``, over HTTP and as a file on every host).
Ray starts actors again without it, and no flashblock waits for it: while it is away only the news are late.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import msgspec
import orjson
from aiohttp import web

from actors import data_directory
from actors.endpoints import describe_hosts
from actors.host_agent import DATA_FILES, STATE_FILE
from actors.host_book import HostBook, HostReport, Told
from actors.join_order import ORDER_FILE, JoinOrder
from actors.keeper_start import newest_held, patience_s
from actors.listening import sockets
from actors.plan import RAFT_PASSWORD_FILE, ComponentPlan
from actors.ports import KEEPER_PORT
from actors.rpc_server import RpcServer
from actors.shell import settings_digest

ENDPOINTS_PATH = "/endpoints.json"
START_S_MAX = 240.0
LOOK_PATIENCE_S = 2.0
SILENT_S_MAX = 5.0  # a host that has not answered for this long is called dead
RETRY_S = 1.0
FIRST_ANSWERS_POLL_S = 1.0
SEND_S_MAX = 2.0
INFO_S_MAX = 10.0
RENEW_S_MAX = 120.0
LEVEL_S = 5.0  # a group that serves again has caught up well within this
FAILED_PAUSE_S = 60.0
ERROR_LENGTH_MAX = 200
EVENTS_MAX = 2_000


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every option of a keeper; `order` is the first version, the hosts may hold a newer one."""

    name: str = "keeper"
    group: int = 0
    data_dir: str = ""
    log_level: str = "info"
    order: JoinOrder


class CannotStart(Exception):
    """The cluster cannot be started as ordered; the text says why."""


class NewerOrder(Exception):
    """A host holds a newer order than the one this keeper keeps; started again it takes that one."""


class Keeper:
    """One keeper; see the module."""

    def __init__(self, settings: Settings, log: Any) -> None:
        from actors import joined_cluster

        self._ray = joined_cluster
        self._log = log
        self._order = settings.order
        self._events: list[dict[str, Any]] = []
        self._address = joined_cluster.own_address()
        self._server = self._make_server()
        self._agents: dict[str, Any] = {}
        self._handles: dict[str, Any] = {}
        self._held: dict[str, dict[str, bytes]] = {}  # what the hosts said they hold, by address
        self._files: dict[str, bytes] = {}
        self._chain: dict[str, Any] = {}
        self._plan: list[ComponentPlan] = []
        self._book = HostBook([])
        self._endpoints = b""
        self._sent: dict[str, bytes] = {}  # by host
        self._changed = asyncio.Event()
        self._is_ready = False
        self._renewed = False

    def _make_server(self) -> RpcServer:
        return RpcServer(
            self._address,
            KEEPER_PORT + self._order.port_offset,
            {},
            name="keeper",
            log=self._log,
            routes=[("GET", ENDPOINTS_PATH, self._answer_endpoints)],
        )

    async def start(self) -> None:
        """Serve; the cluster may not be there yet."""
        await self._server.start()

    async def run(self) -> None:
        """Start what is not there, then keep it."""
        try:
            async with asyncio.timeout(START_S_MAX):
                await self._establish()
        except (CannotStart, data_directory.ChainMismatch, TimeoutError) as error:
            text = str(error) or f"not all hosts answered within {START_S_MAX:.0f} s: {self._silent_hosts()}"
            self._tell("failed", error=text)
            await asyncio.sleep(FAILED_PAUSE_S)  # whoever asked for the cluster reads it and ends us
            raise  # else Ray starts us again, and we try again
        async with asyncio.TaskGroup() as tasks:
            for address in self._agents:
                tasks.create_task(self._watch(address))
            tasks.create_task(self._publish())
            if self._order.version > 1:
                tasks.create_task(self._renew())

    async def close(self) -> None:
        """Let go of the port."""
        await self._server.close()

    def status(self) -> dict[str, Any]:
        """The events so far, for whoever shows the start, and what is known now."""
        return {
            "component": "keeper",
            "pid": os.getpid(),
            "address": self._address,
            "order_version": self._order.version,
            "renewed": self._renewed,
            "ready": self._is_ready,
            "hosts": {address: address in self._book.answering for address in self._order.placement.hosts()},
            "events": self._events,
            "endpoints": self._endpoints.decode(),
        }

    # Establishing

    async def _establish(self) -> None:
        """Agents, files, actors: whatever of these is missing."""
        self._agents = await asyncio.to_thread(self._ensure_agents, self._order)
        held = await self._first_answers()
        order = newest_held(held, self._order.marker)
        if order is None:
            await self._check_hosts(held)
        elif order.version > self._order.version:
            self._order = order
            self._agents = await asyncio.to_thread(self._ensure_agents, order)
        self._plan = self._order.plan()
        self._book = HostBook(self._plan)
        self._tell("keeper-up", components=len(self._plan), address=self._address)
        self._files, self._chain = await asyncio.to_thread(complete_files, list(held.values()), self._order)
        self._tell("chain-prepared", **self._chain)
        await asyncio.gather(*(self._deliver(address) for address in held if address in self._agents))
        self._handles = await asyncio.to_thread(self._ray.JoinedCluster(self._order).ensure, self._plan)
        self._tell("actors-created", actors=len(self._plan))

    def _ensure_agents(self, order: JoinOrder) -> dict[str, Any]:
        cluster = self._ray.JoinedCluster(order)
        return {address: cluster.ensure_agent(address) for address in order.placement.hosts()}

    async def _first_answers(self) -> dict[str, dict[str, bytes]]:
        """What the hosts hold, by address.

        All of them must answer before secrets are made.  Where those that answered hold enough, the others may be dead:
        `patience_s`.
        """
        held = self._held
        began = time.monotonic()

        async def ask(address: str) -> None:
            while address not in held:
                try:
                    held[address] = await _answer(self._agents[address].fetch.remote())
                except Exception as error:  # it died while it was asked, say; a host left out here might hold secrets
                    self._log.warning("a host did not say what it holds", host=address, error=repr(error))
                    await asyncio.sleep(RETRY_S)
            self._tell("host-up", address=address)

        asking = [asyncio.create_task(ask(address)) for address in self._agents]
        try:
            waiting: set[asyncio.Task[None]] = set(asking)
            while waiting:
                _, waiting = await asyncio.wait(waiting, timeout=FIRST_ANSWERS_POLL_S)
                if waiting and time.monotonic() - began >= patience_s(held, self._order):
                    self._tell("going-on-without", hosts=sorted(set(self._agents) - set(held)))
                    break
        finally:
            for task in asking:
                task.cancel()
        return held

    async def _check_hosts(self, answered: Collection[str]) -> None:
        """Before the first start: can the hosts that answered be used, are their ports free?"""
        wanted: dict[str, list[tuple[str, int]]] = {address: [] for address in answered}
        for each in self._order.plan():
            if each.host in wanted:
                wanted[each.host] += sockets(each)

        async def check(address: str) -> list[str]:
            agent = self._agents[address]
            reason = await _answer(agent.prepare.remote())
            busy = await _answer(agent.busy.remote(wanted[address]))
            return [*([f"{address}: {reason}"] if reason else []), *(f"{each} is taken" for each in busy)]

        found = await asyncio.gather(*(check(address) for address in wanted))
        problems = [problem for each in found for problem in each]
        if problems:
            raise CannotStart("; ".join(problems) + " (other ports: --port-offset)")

    async def _deliver(self, address: str) -> None:
        """Give a host everything it needs; the Raft password only where Raft runs."""
        files = dict(self._files) if address in self._order.placement.groups else _without_password(self._files)
        files[ORDER_FILE] = msgspec.json.encode(self._order)
        files[STATE_FILE] = msgspec.json.encode(self._order.state())
        await _answer(self._agents[address].deliver.remote(files))
        self._tell("delivered", address=address)

    # Keeping

    async def _watch(self, address: str) -> None:
        """Follow one host for ever: what runs there, whether it has its files, whether it answers at all."""
        agent, known = self._agents[address], ""
        pending: asyncio.Future[Any] | None = None
        while True:
            pending = pending or asyncio.wrap_future(agent.look.remote(known, LOOK_PATIENCE_S).future())
            await asyncio.wait({pending}, timeout=SILENT_S_MAX)
            try:
                if not pending.done():
                    raise TimeoutError("silent")  # the call stays: a host that is back answers it
                answered, pending = pending, None
                known, content = answered.result()
                report = msgspec.json.decode(content, type=HostReport)
                if report.order_version > self._order.version:
                    raise NewerOrder(f"{address} holds version {report.order_version}, this is {self._order.version}")
                if not report.delivered or report.order_version < self._order.version:
                    await self._deliver(address)
                self._on_report(address, report)
                await self._send_endpoints(address)
            except NewerOrder:
                raise
            except Exception as error:
                known = ""
                self._on_silence(address, error)
                await asyncio.sleep(RETRY_S)

    def _on_report(self, address: str, report: HostReport) -> None:
        self._tell_all(self._book.report(address, report))

    def _on_silence(self, address: str, error: Exception) -> None:
        self._sent.pop(address, None)
        self._tell_all(self._book.silence(address, f"{type(error).__name__}: {str(error)[:ERROR_LENGTH_MAX]}"))

    def _tell_all(self, told: list[Told]) -> None:
        for each in told:
            self._tell(each.event, **each.details)
        self._changed.set()

    # A host was replaced

    async def _renew(self) -> None:
        """Give every actor the settings of the newest order, one host after another, and let go of the old host.

        While one group is renewed the others go on, so the majority stays – as long as the hosts that are away are
        no more than one; a host that is away is renewed when it is back.
        """
        waiting = list(self._agents)
        while waiting:
            present = [address for address in waiting if address in self._book.answering]
            if not present:
                await asyncio.sleep(RETRY_S)
                continue
            await self._renew_host(present[0])
            waiting.remove(present[0])
            if not waiting or not self._book.answering & set(waiting):
                await asyncio.to_thread(self._ray.retire, self._order)
                self._renewed = True

    async def _renew_host(self, address: str) -> None:
        own = [each for each in self._plan if each.host == address]
        running = await asyncio.gather(*(self._settings_of(each) for each in own))
        stale = [each for each, digest in zip(own, running, strict=True) if digest != settings_digest(each.settings)]
        if not stale:
            return
        self._tell("renewing", host=address, components=[each.actor_name for each in stale])
        cluster = self._ray.JoinedCluster(self._order)
        self._handles |= await asyncio.to_thread(cluster.renew, stale)
        self._book.expect(stale)
        async with asyncio.timeout(RENEW_S_MAX):
            await asyncio.sleep(LEVEL_S)  # a report may be older than the renewal
            while not all(each.actor_name in self._book.serving for each in own):  # noqa: ASYNC110 – hosts report it
                await asyncio.sleep(LEVEL_S)
        self._tell("renewed", host=address)

    async def _settings_of(self, each: ComponentPlan) -> str:
        """The digest of the settings an actor runs with; empty when it does not run."""
        try:
            call = self._handles[each.actor_name].info.remote()
            found = await asyncio.wait_for(asyncio.wrap_future(call.future()), INFO_S_MAX)
            return str(found["settings"])
        except Exception:
            return ""

    async def _publish(self) -> None:
        """Write ``endpoints.json`` anew after every change."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            if not self._is_ready and not self._book.is_complete:
                continue
            found = describe_hosts(
                self._order,
                self._plan,
                pids=self._book.pids,
                restarts=self._book.restarts,
                chain=self._chain,
                alive=self._book.answering,
            )
            self._endpoints = orjson.dumps(found, option=orjson.OPT_INDENT_2)
            sending = (self._send_endpoints(address) for address in list(self._book.answering))
            await asyncio.gather(*sending, return_exceptions=True)  # to a host that is silent now it is sent later
            if not self._is_ready and self._book.is_whole:
                self._is_ready = True
                self._tell("ready")

    async def _send_endpoints(self, address: str) -> None:
        """Have a host write what it does not have yet; after a restart of its agent, everything."""
        content = self._endpoints
        if content and self._sent.get(address) != content:
            sent = self._agents[address].write_endpoints.remote(content)
            await asyncio.wait_for(asyncio.wrap_future(sent.future()), SEND_S_MAX)
            self._sent[address] = content

    async def _answer_endpoints(self, request: web.Request) -> web.Response:
        if not self._endpoints:
            return web.Response(status=503, text="still starting\n")
        return web.Response(body=self._endpoints, content_type="application/json")

    def _tell(self, event: str, **details: Any) -> None:
        after_s = round(time.time() - self._order.command_at, 3)
        self._events.append({"event": event, "after_s": after_s, **details})
        del self._events[:-EVENTS_MAX]
        self._log.info(event, **details)

    def _silent_hosts(self) -> str:
        return ", ".join(address for address in self._agents if address not in self._held) or "none"


async def _answer(reference: Any) -> Any:
    """The result of a call to an agent, in bounded time once its actor runs."""
    return await asyncio.wait_for(asyncio.wrap_future(reference.future()), START_S_MAX)


def _without_password(files: Mapping[str, bytes]) -> dict[str, bytes]:
    return {name: content for name, content in files.items() if name != RAFT_PASSWORD_FILE}


def complete_files(held: list[Mapping[str, bytes]], order: JoinOrder) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Genesis and secrets: those the hosts hold, made new where none holds them; and the chain they are for.

    Raises `actors.data_directory.ChainMismatch` when two hosts hold different ones.
    """
    with tempfile.TemporaryDirectory(prefix="flashblocks-") as name:
        directory = Path(name)
        for file in DATA_FILES:
            contents = {files[file] for files in held if file in files}
            if len(contents) > 1:
                raise data_directory.ChainMismatch(f"the hosts hold different versions of {file} in {order.data_dir}")
            for content in contents:
                (directory / file).write_bytes(content)
        chain = data_directory.prepare(directory, order.options, int(time.time()))
        return {file: (directory / file).read_bytes() for file in DATA_FILES}, chain
