"""The fallback EL, op-geth's job: an execution client that judges the builder's flashblocks and stands in for it."""

from __future__ import annotations

from typing import Any

import msgspec

from actors.execution_client import ClientOptions, ExecutionClient
from actors.plain_payloads import PlainPayloads
from actors.warm_up import warm_up


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every option of a fallback EL."""

    name: str
    group: int = 0
    host: str = "127.0.0.1"
    engine_host: str = ""
    """Address of the Engine API, which only the own group talks to; empty is `host`."""
    data_dir: str = ""
    """Directory of the chain store and the logs; empty keeps the chain in memory only."""
    log_level: str = "info"
    jwt_secret_path: str = ""
    """File with the Engine API's secret in hex; empty lets everybody in (tests only)."""
    genesis_path: str
    engine_port: int = 8551
    rpc_port: int = 8544
    peer_urls: list[str] = []
    """RPC of other execution clients, for blocks that were missed."""
    sync_every_block: bool = True
    """Force each block to the medium, so that it survives power loss and not only a killed process."""


class FallbackEl:
    """One fallback EL; `start` serves at once, at the head where it was stopped or killed."""

    def __init__(self, settings: Settings, log: Any) -> None:
        self.settings = settings
        options = ClientOptions(
            component="fallback-el",
            name=settings.name,
            group=settings.group,
            host=settings.host,
            engine_host=settings.engine_host,
            engine_port=settings.engine_port,
            rpc_port=settings.rpc_port,
            genesis_path=settings.genesis_path,
            data_dir=settings.data_dir,
            jwt_secret_path=settings.jwt_secret_path,
            peer_urls=settings.peer_urls,
            sync_every_block=settings.sync_every_block,
        )
        self.client = ExecutionClient(options, log, PlainPayloads)

    async def start(self) -> None:
        """Bind the Engine API and the RPC port."""
        warm_up(self.client.chain)
        await self.client.start()

    async def run(self) -> None:
        """Work until cancelled."""
        await self.client.run()

    async def close(self) -> None:
        """Let go of ports and files; idempotent."""
        await self.client.close()

    def status(self) -> dict[str, Any]:
        """What `flashblocks status` shows."""
        return self.client.status()
