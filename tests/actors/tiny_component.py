"""The smallest real component: an HTTP server that says who it is.  Workers and processes host it in tests."""

import asyncio
import os
from typing import Any

import msgspec


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    port: int
    name: str = "tiny"
    group: int = 0
    host: str = "127.0.0.1"
    data_dir: str = ""
    log_level: str = "info"


class Tiny:
    """Answers every connection with its pid; the request ``BUG`` makes ``run`` raise."""

    def __init__(self, settings: Settings, log: Any) -> None:
        self.settings = settings
        self.log = log
        self.bug = asyncio.Event()
        self.server: asyncio.Server | None = None

    async def start(self) -> None:
        self.server = await asyncio.start_server(self._answer, self.settings.host, self.settings.port)

    async def run(self) -> None:
        await self.bug.wait()
        raise RuntimeError("this is our own bug")

    async def close(self) -> None:
        if self.server is not None:
            self.server.close()

    def status(self) -> dict[str, Any]:
        return {"component": "tiny", "pid": os.getpid()}

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = await reader.readline()
        if line.strip() == b"BUG":
            self.bug.set()
        writer.write(b"%d\n" % os.getpid())
        await writer.drain()
        writer.close()
