"""A scripted op-node and builder for one execution client on real sockets: what drives it in tests."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgpack
import structlog

from actors.fallback_el import FallbackEl, Settings
from actors.rpc_client import RpcClient
from flashblocks.wire.engine import Envelope, ExecutionPayload, ForkchoiceState, PayloadAttributes
from flashblocks.wire.flashblock import Flashblock, encode_body
from flashblocks.wire.frames import encode_frame, frame_of
from flashblocks.wire.hexadecimal import data, to_bytes
from tests.execution.forge import Forge

SECRET = b"\x5a" * 32


class Driver:
    """Speaks to one client: Engine API with the JWT, flashblock frames, plain RPC."""

    def __init__(self, forge: Forge, engine_url: str, rpc_url: str) -> None:
        self.forge = forge
        self.engine = RpcClient(engine_url, jwt_secret=SECRET)
        self.rpc = RpcClient(rpc_url)

    async def close(self) -> None:
        await asyncio.gather(self.engine.close(), self.rpc.close())

    async def head(self) -> dict[str, Any]:
        head: dict[str, Any] = await self.rpc.call("eth_getBlockByNumber", "latest", False)
        return head

    async def choose(self, head: bytes, attributes: PayloadAttributes | None = None, safe: bytes = bytes(32)) -> Any:
        """engine_forkchoiceUpdatedV3."""
        state = ForkchoiceState(head, safe, bytes(32))
        return await self.engine.call(
            "engine_forkchoiceUpdatedV3", state.to_json(), None if attributes is None else attributes.to_json()
        )

    async def insert(self, envelope: Envelope) -> dict[str, Any]:
        """engine_newPayloadV4."""
        status: dict[str, Any] = await self.engine.call(
            "engine_newPayloadV4", envelope.payload.to_json(), [], data(envelope.parent_beacon_block_root), []
        )
        return status

    async def payload(self, payload_id: str) -> Envelope:
        """engine_getPayloadV4."""
        answer = await self.engine.call("engine_getPayloadV4", payload_id)
        root = to_bytes(answer["parentBeaconBlockRoot"], 32)
        return Envelope(root, ExecutionPayload.from_json(answer["executionPayload"]))

    async def send(self, *raws: bytes) -> list[str]:
        """eth_sendRawTransaction, in order."""
        return [await self.rpc.call("eth_sendRawTransaction", data(raw)) for raw in raws]

    async def next_attributes(self, *, no_tx_pool: bool = False) -> tuple[bytes, PayloadAttributes]:
        """The head's hash and what the op-node would ask for on it."""
        head = await self.head()
        number, timestamp = int(head["number"], 16), int(head["timestamp"], 16)
        attributes = self.forge.attributes_at(number + 1, timestamp + 2, no_tx_pool=no_tx_pool)
        return to_bytes(head["hash"], 32), attributes

    async def make_block(self, *, no_tx_pool: bool = False) -> Envelope:
        """One whole block as an op-node makes it."""
        head, attributes = await self.next_attributes(no_tx_pool=no_tx_pool)
        begun = await self.choose(head, attributes)
        assert begun["payloadStatus"]["status"] == "VALID", begun
        envelope = await self.payload(begun["payloadId"])
        assert (await self.insert(envelope))["status"] == "VALID"
        assert (await self.choose(envelope.payload.block_hash))["payloadStatus"]["status"] == "VALID"
        return envelope

    async def apply(self, flashblock: Flashblock, parent_hash: bytes, epoch: int = 0) -> dict[str, Any]:
        """POST /flashblocks/v1/apply."""
        frame = frame_of(flashblock, encode_body(flashblock), parent_hash, epoch)
        answer: dict[str, Any] = msgpack.unpackb(
            await self.engine.post_binary("/flashblocks/v1/apply", encode_frame(frame))
        )
        return answer

    async def apply_all(self, flashblocks: Sequence[Flashblock], parent_hash: bytes, epoch: int = 0) -> None:
        for flashblock in flashblocks:
            answer = await self.apply(flashblock, parent_hash, epoch)
            assert answer["status"] == "VALID", answer


def write_files(directory: Path, forge: Forge) -> dict[str, str]:
    """Genesis and secret on disk, as settings."""
    genesis, secret = directory / "genesis.json", directory / "jwt.hex"
    genesis.write_text(json.dumps(forge.genesis))
    secret.write_text(SECRET.hex())
    return {"genesis_path": str(genesis), "jwt_secret_path": str(secret)}


@asynccontextmanager
async def running(
    directory: Path, forge: Forge, *, data_dir: str = "", peers: Sequence[str] = ()
) -> AsyncIterator[tuple[FallbackEl, Driver]]:
    """A fallback EL in this process, on free ports."""
    settings = Settings(
        name="sequencer-0",
        engine_port=0,
        rpc_port=0,
        data_dir=data_dir,
        peer_urls=list(peers),
        **write_files(directory, forge),
    )
    component = FallbackEl(settings, structlog.get_logger())
    await component.start()
    task = asyncio.create_task(component.run())
    driver = Driver(forge, component.client.engine_server.url, component.client.rpc_server.url)
    try:
        yield component, driver
    finally:
        await driver.close()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await component.close()
