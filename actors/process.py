"""Hosts one component: finds it by name, runs it, and ends it cleanly – in a plain process or inside a Ray worker."""

from __future__ import annotations

import asyncio
import gc
import importlib
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import msgspec

from actors import settings as settings_loader
from tracing.logs import Logger, forward_standard_library, get_logger

CLOSE_S_MAX = 3.0
CANCEL_S_MAX = 1.0

# What each component is made of; "module:Class", imported only where it runs.
COMPONENTS: Mapping[str, str] = {
    "op-node": "actors.op_node:OpNode",
    "conductor": "actors.conductor:Conductor",
    "rollup-boost": "actors.rollup_boost:RollupBoost",
    "builder": "actors.builder:Builder",
    "fallback-el": "actors.fallback_el:FallbackEl",
    "websocket-proxy": "actors.websocket_proxy:WebsocketProxy",
    "rpc-node": "actors.rpc_node:RpcNode",
    "ingress": "actors.ingress:Ingress",
}


class Component(Protocol):
    """What every actor of the system offers to its host."""

    async def start(self) -> None:
        """Bind the sockets; returns when it serves."""

    async def run(self) -> None:
        """Work until cancelled; an exception is our own bug."""

    async def close(self) -> None:
        """Let go of everything, in bounded time, any number of times."""

    def status(self) -> dict[str, Any]:
        """What ``flashblocks status`` shows, as JSON values."""


class ComponentEnded(RuntimeError):
    """``run()`` returned although nobody asked it to."""


def settings_type(component: str) -> type[msgspec.Struct]:
    """The Settings struct of *component*; raises `KeyError` for an unknown component."""
    module, _ = _split(component)
    found: type[msgspec.Struct] = importlib.import_module(module).Settings
    return found


def make_component(component: str, values: Mapping[str, Any], log: Logger) -> Component:
    """Build *component* from its settings table; raises `actors.settings.SettingsError`."""
    module, name = _split(component)
    settings = settings_loader.load(settings_type(component), values)
    made: Component = getattr(importlib.import_module(module), name)(settings, log)
    return made


def _split(component: str) -> tuple[str, str]:
    """The module and class of a component name; ``module:Class`` names one that is not in the table."""
    target = component if ":" in component else COMPONENTS[component]
    module, _, name = target.partition(":")
    return module, name


def module_of(component: str) -> str:
    """The module *component* lives in."""
    return _split(component)[0]


def display_name(component: str) -> str:
    """The name used in logs: the component's own, or the class of one outside the table."""
    return component.rpartition(":")[2]


async def host(component: Component, stopping: asyncio.Event, on_started: Callable[[], None]) -> None:
    """Start *component*, run it until *stopping* is set, and close it.

    Whatever ``start`` or ``run`` raises comes out after ``close``.
    """
    runner: asyncio.Task[None] | None = None
    waiter = asyncio.create_task(stopping.wait())
    try:
        await component.start()
        on_started()
        runner = asyncio.create_task(component.run())
        await asyncio.wait({runner, waiter}, return_when=asyncio.FIRST_COMPLETED)
        if runner.done():
            runner.result()
            raise ComponentEnded("run() returned")
    finally:
        waiter.cancel()
        if runner is not None:
            runner.cancel()
            await asyncio.wait({runner}, timeout=CANCEL_S_MAX)
        async with asyncio.timeout(CLOSE_S_MAX):
            await component.close()


def run_component(component: str, values: Mapping[str, Any]) -> int:
    """Run *component* in this process until SIGTERM or SIGINT; returns the exit status.

    Raises `actors.settings.SettingsError` before anything is started.
    """
    data_dir = values.get("data_dir")
    log = get_logger(
        display_name(component),
        int(values.get("group", 0)),
        log_dir=Path(data_dir) / "logs" if data_dir else None,
        level=values.get("log_level", "info"),
        stderr=True,
    )
    made = make_component(component, values, log)
    forward_standard_library(log)
    return asyncio.run(_run_until_signal(made, log))


def _serving(log: Logger) -> None:
    # What is alive now (the modules) stays: without this every full collection would walk it, in the middle of a call.
    gc.collect()
    gc.freeze()
    log.info("serving", pid=os.getpid())


async def _run_until_signal(component: Component, log: Logger) -> int:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    try:
        await host(component, stopping, lambda: _serving(log))
    except Exception:
        log.error("the component failed", exc_info=True)
        return 1
    log.info("ended")
    return 0
