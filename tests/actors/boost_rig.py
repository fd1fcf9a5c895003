"""A rollup-boost on real sockets between a real fallback EL and a builder, with a one-node ledger and a driver.

The builder is the real one, or a client whose flashblocks are distorted by a script before they are streamed.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import structlog
from websockets.asyncio.client import connect

from actors.builder import Builder
from actors.builder import Settings as BuilderSettings
from actors.engine_client import EngineClient
from actors.execution_client import ClientOptions, ExecutionClient
from actors.fallback_el import FallbackEl
from actors.fallback_el import Settings as ElSettings
from actors.frame_link import FrameClient, FrameServer
from actors.payload_source import UnknownPayload
from actors.rollup_boost import RollupBoost
from actors.rollup_boost import Settings as BoostSettings
from actors.rpc_client import RpcClient
from flashblocks.builder.budget import Limits, budget
from flashblocks.builder.building import Building, Made, build_opening
from flashblocks.builder.bundles import BundlePool
from flashblocks.execution.accounts import TEST_ACCOUNTS
from flashblocks.execution.genesis import default_genesis, load_genesis
from flashblocks.execution.header import Header
from flashblocks.execution.open_block import OpenBlock
from flashblocks.execution.signing import sign_transaction
from flashblocks.execution.transaction import encode_deposit
from flashblocks.rollup_boost.facts import Target
from flashblocks.wire.assembly import assemble
from flashblocks.wire.engine import Envelope, ForkchoiceState, PayloadAttributes
from flashblocks.wire.flashblock import Flashblock, decode_body, encode_body
from flashblocks.wire.flashblock_json import decode_json
from flashblocks.wire.frames import (
    CommittedFrame,
    FlashblockFrame,
    Frame,
    HealthFrame,
    LeadershipFrame,
    RefusedFrame,
    SealedFrame,
    frame_of,
)

BLOCK_TIME_S = 1
FLASHBLOCKS_PER_BLOCK = 5
GAS_LIMIT = 140_000_000
CHAIN_ID = 901
PATIENCE_S = 10.0

Script = Callable[[list[FlashblockFrame]], list[Frame]]


def quiet_log() -> Any:
    """A logger that says nothing; what matters is asserted."""
    return structlog.wrap_logger(structlog.ReturnLogger())


async def until(condition: Callable[[], Any], what: str) -> None:
    """Wait, as long as it takes but not for ever, until a condition holds."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, f"never happened: {what}"
        await asyncio.sleep(0.005)


def redone(frame: FlashblockFrame, change: Callable[[Flashblock], Flashblock]) -> FlashblockFrame:
    """The frame of a changed flashblock, consistent in itself."""
    changed = change(decode_body(frame.body))
    return frame_of(changed, encode_body(changed), frame.parent_hash)


class OneNodeLedger:
    """The conductor's end of rollup-boost's stream, with a ledger of one node: commits whatever comes next."""

    def __init__(self, url: str) -> None:
        self.epoch, self.leading, self.answers = 1, True, True
        self.open: list[FlashblockFrame] = []
        self.offers: list[FlashblockFrame] = []
        self.health: list[int] = []
        self.link = FrameClient(url, self._receive, self._changed)

    def _changed(self, up: bool) -> None:
        if up:
            self.lead(self.leading)
            for frame in self.open:
                self.link.send(CommittedFrame(frame))

    def lead(self, leading: bool) -> None:
        self.leading = leading
        self.link.send(LeadershipFrame(self.epoch, leading))

    def commit(self, frame: FlashblockFrame) -> None:
        committed = FlashblockFrame(
            self.epoch,
            frame.number,
            frame.index,
            frame.payload_id,
            frame.parent_hash,
            frame.block_hash,
            frame.digest,
            frame.traceparent,
            frame.body,
        )
        self.open.append(committed)
        self.link.send(CommittedFrame(committed))

    def seal(self, envelope: Envelope) -> None:
        self.open.clear()
        self.link.send(SealedFrame(envelope.payload.block_number, envelope.payload.block_hash))

    def _receive(self, frame: Frame) -> None:
        if isinstance(frame, HealthFrame):
            self.health.append(frame.status)
        if isinstance(frame, FlashblockFrame):
            self.offers.append(frame)
            if not self.answers:
                return
            if any(frame.digest == known.digest for known in self.open):
                self.link.send(CommittedFrame(frame))
            elif frame.index == len(self.open) and (not self.open or frame.payload_id == self.open[0].payload_id):
                self.commit(frame)
            else:
                self.link.send(RefusedFrame(frame.number, frame.index, frame.payload_id, "out of order"))


class ScriptedSource:
    """Builds a block of real flashblocks at once, streams what the script makes of them, and answers getPayload."""

    def __init__(self, client: ExecutionClient, stream: FrameServer) -> None:
        self.client, self.stream = client, stream
        self.script: Script = list
        self.made: list[FlashblockFrame] = []
        self.asked: list[bytes] = []
        self.whole = False

    def start(self, payload_id: bytes, parent: Header, attributes: PayloadAttributes) -> None:
        found = self.client.follower.parent_of(parent.hash)
        assert found is not None
        block = OpenBlock.start(self.client.spec, *found, attributes)
        made: list[Made] = [build_opening(block, payload_id, attributes.transactions)]
        everything = budget(Limits(gas_limit=21_000 * 3 * 5), 1, 1)
        for index in range(1, FLASHBLOCKS_PER_BLOCK + 1):
            block = made[-1].working or block
            share = budget(everything.limits, index, FLASHBLOCKS_PER_BLOCK)
            building = Building(payload_id, index, block.fork(), self.client.pool, BundlePool(), share, time.time)
            building.look()
            building.run(float("inf"), float("inf"))
            made.append(building.seal())
        self.made = [frame_of(one.flashblock, encode_body(one.flashblock), parent.hash) for one in made]
        for frame in self.script(self.made):
            self.stream.publish(frame)

    async def get(self, payload_id: bytes) -> Envelope:
        self.asked.append(payload_id)
        if self.whole:
            return assemble([decode_body(frame.body) for frame in self.made])
        raise UnknownPayload(payload_id.hex())

    async def close(self) -> None:
        pass


class ScriptedBuilder:
    """A builder that executes honestly and streams what its script says."""

    def __init__(self, files: Files) -> None:
        self.stream = FrameServer("127.0.0.1", 0, None)
        self.client = ExecutionClient(
            ClientOptions(
                component="builder",
                name="scripted",
                group=0,
                host="127.0.0.1",
                engine_port=0,
                rpc_port=0,
                genesis_path=files.genesis,
                data_dir="",
                jwt_secret_path=files.jwt,
                peer_urls=[],
            ),
            quiet_log(),
            lambda client: ScriptedSource(client, self.stream),
        )

    @property
    def source(self) -> ScriptedSource:
        source = self.client.source
        assert isinstance(source, ScriptedSource)
        return source

    async def start(self) -> None:
        await self.stream.start()
        await self.client.start()

    async def run(self) -> None:
        await self.client.run()

    async def close(self) -> None:
        await self.client.close()
        await self.stream.close()


class Files:
    """Genesis and secret of one test chain, whose first block is due about now."""

    def __init__(self, directory: Path) -> None:
        self.genesis, self.jwt = str(directory / "genesis.json"), str(directory / "jwt.hex")
        self.document = default_genesis(timestamp=int(time.time()) - 1)
        Path(self.genesis).write_bytes(orjson.dumps(self.document))
        self.secret = secrets.token_bytes(32)
        Path(self.jwt).write_text(self.secret.hex())


class Rig:
    """Everything of one test, and the op-node's part of the work."""

    def __init__(
        self, directory: Path, *, scripted: bool, files: Files | None, block_time_s: int, boost: dict[str, Any]
    ) -> None:
        self.block_time_s = block_time_s
        self.files = files or Files(directory)
        _, genesis, _ = load_genesis(self.files.document)
        self.head: Header = genesis.header
        self.timestamp = genesis.header.timestamp
        self.el = FallbackEl(
            ElSettings(
                name="el", genesis_path=self.files.genesis, jwt_secret_path=self.files.jwt, engine_port=0, rpc_port=0
            ),
            quiet_log(),
        )
        self.builder: Builder | ScriptedBuilder
        self.builder = ScriptedBuilder(self.files) if scripted else self._new_builder(0, 0)
        self._boost_settings = boost
        self._running: dict[Any, asyncio.Task[None]] = {}
        self.text: list[Flashblock] = []

    async def start(self) -> None:

        await self._begin(self.el)
        await self._begin(self.builder)
        self.boost = self._new_boost()
        await self._begin(self.boost)
        ws_url = f"ws://127.0.0.1:{self.boost.stream.port}"
        self.ledger = OneNodeLedger(ws_url)
        await self.ledger.link.start()
        self._reader = asyncio.create_task(self._read_text(ws_url))
        self.engine = EngineClient(self.boost.engine_server.url, self.files.secret)
        self.rpc = RpcClient(self.boost.engine_server.url, jwt_secret=self.files.secret)
        await until(lambda: len(self.boost.stream.peers) == 2, "the subscribers are connected")
        foreign = {"l2_url": Target.EXECUTION, "builder_ws_url": Target.BUILDER}
        expected = [target for url, target in foreign.items() if url not in self._boost_settings]
        await until(lambda: all(self.boost.core.peer(each).linked for each in expected), "the links are up")

    def _new_builder(self, engine_port: int, ws_port: int) -> Builder:
        return Builder(
            BuilderSettings(
                genesis_path=self.files.genesis,
                jwt_secret_path=self.files.jwt,
                engine_port=engine_port,
                rpc_port=0,
                ws_port=ws_port,
                block_time_s=self.block_time_s,
            ),
            quiet_log(),
        )

    async def restart_builder(self) -> None:
        """End the real builder, and start it anew at the same addresses, without its memory."""
        ports = self.builder.client.engine_server.port, self.builder.stream.port
        await self.end(self.builder)
        await until(lambda: self.boost.core.health.status == 206, "its end is noticed")
        self.builder = self._new_builder(*ports)
        await self._begin(self.builder)

    def _new_boost(self) -> RollupBoost:
        return RollupBoost(
            BoostSettings(
                **{
                    "jwt_secret_path": self.files.jwt,
                    "engine_port": 0,
                    "debug_port": 0,
                    "ws_port": 0,
                    "l2_url": self.el.client.engine_server.url,
                    "builder_url": self.builder.client.engine_server.url,
                    "builder_ws_url": f"ws://127.0.0.1:{self.builder.stream.port}",
                    "health_check_interval_s": 0.2,
                    "l2_timeout_ms": 20_000,
                    "builder_timeout_ms": 20_000,
                    **self._boost_settings,
                }
            ),
            quiet_log(),
        )

    async def restart_boost(self) -> None:
        """End rollup-boost as a kill would, and start it anew at the same addresses, without its memory."""
        ports = {"engine_port": self.boost.engine_server.port, "ws_port": self.boost.stream.port}
        self._boost_settings = {**self._boost_settings, **ports}
        await self.end(self.boost)
        self.boost = self._new_boost()
        await self._begin(self.boost)

    async def _begin(self, component: Any) -> None:
        await component.start()
        self._running[component] = asyncio.create_task(component.run())

    async def end(self, component: Any) -> None:
        """Close a component as its death would: its sockets close."""
        task = self._running.pop(component, None)
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        await component.close()

    async def close(self) -> None:
        self._reader.cancel()
        await asyncio.wait([self._reader])
        await self.ledger.link.close()
        await self.engine.close()
        await self.rpc.close()
        bugs = [task.exception() for task in self._running.values() if task.done() and not task.cancelled()]
        for component in (self.boost, self.builder, self.el):
            await self.end(component)
        assert not any(bugs), bugs

    async def _read_text(self, url: str) -> None:
        async with connect(url) as subscriber:
            async for message in subscriber:
                self.text.append(decode_json(message))

    # What an op-node does

    def attributes(self, **changes: Any) -> PayloadAttributes:
        deposit = encode_deposit(
            source_hash=(self.head.number + 1).to_bytes(32, "big"),
            sender=bytes.fromhex("deaddeaddeaddeaddeaddeaddeaddeaddead0001"),
            to=bytes.fromhex("4200000000000000000000000000000000000015"),
            mint=0,
            value=0,
            gas_limit=1_000_000,
            data=b"",
        )
        fields: dict[str, Any] = {
            "timestamp": self.timestamp,
            "prev_randao": b"\7" * 32,
            "fee_recipient": bytes.fromhex("4200000000000000000000000000000000000011"),
            "parent_beacon_block_root": bytes(32),
            "transactions": (deposit,),
            "gas_limit": GAS_LIMIT,
            "eip1559_params": (250).to_bytes(4, "big") + (6).to_bytes(4, "big"),
            **changes,
        }
        return PayloadAttributes(**fields)

    def next_slot(self) -> None:
        """The next block's timestamp: a whole block time from now, so that it is on time."""
        self.timestamp = max(self.timestamp + self.block_time_s, int(time.time()) + self.block_time_s)

    async def open_block(self, **changes: Any) -> bytes:
        self.next_slot()
        if not changes.pop("at_once", False):
            await asyncio.sleep(max(0.0, self.timestamp - self.block_time_s - time.time()))
        return await self.engine.start_build(
            ForkchoiceState(self.head.hash, bytes(32), bytes(32)), self.attributes(**changes)
        )

    async def insert(self, envelope: Envelope) -> None:
        """What op-node does once its conductor has the block."""
        self.ledger.seal(envelope)
        await self.engine.new_payload(envelope)
        await self.engine.set_head(ForkchoiceState(envelope.payload.block_hash, bytes(32), bytes(32)))
        self.head = self.el.client.chain.head.header
        assert self.head.hash == envelope.payload.block_hash

    async def wait_for_seal(self) -> None:
        await asyncio.sleep(max(0.0, self.timestamp - 0.05 - time.time()))

    async def block(self, *, flashblocks: int = 0) -> Envelope:
        """One block from forkchoice to head, asked for when due and so many flashblocks are committed."""
        payload_id = await self.open_block()
        await self.wait_for_seal()
        await until(lambda: len(self.ledger.open) >= flashblocks, f"{flashblocks} flashblocks are committed")
        envelope = await self.engine.get_payload(payload_id)
        await self.insert(envelope)
        return envelope

    def transfer(self, account: int, nonce: int, *, tip: int = 10**6) -> bytes:
        return sign_transaction(
            TEST_ACCOUNTS[account].private_key,
            chain_id=CHAIN_ID,
            nonce=nonce,
            to=b"\x99" * 20,
            value=1,
            max_fee_per_gas=10**10,
            max_priority_fee_per_gas=tip,
        )

    async def send(self, account: int, nonce: int) -> bytes:
        """Give a transfer to both pools, through rollup-boost as a wallet of old would."""
        raw = self.transfer(account, nonce)
        await self.rpc.call("eth_sendRawTransaction", "0x" + raw.hex())
        return raw

    def call(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        return asyncio.create_task(work)


@asynccontextmanager
async def running(
    directory: Path,
    *,
    scripted: bool = False,
    files: Files | None = None,
    block_time_s: int = BLOCK_TIME_S,
    **boost: Any,
) -> AsyncIterator[Rig]:
    """Start everything, and end it all whatever happens; ``files`` of another rig put this one on the same chain."""
    rig = Rig(directory, scripted=scripted, files=files, block_time_s=block_time_s, boost=boost)
    await rig.start()
    try:
        yield rig
    finally:
        await rig.close()
