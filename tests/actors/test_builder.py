"""The builder on real sockets, driven by the Engine API and watched by subscribers of both kinds."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect

from actors.builder import Builder, Settings
from actors.engine_client import EngineClient, EngineRefused
from actors.frame_link import FrameClient
from actors.rpc_client import RpcClient, RpcRefused
from flashblocks.execution.accounts import TEST_ACCOUNTS
from flashblocks.execution.chain import Chain, ChainBlock
from flashblocks.execution.claims import flashblock_from
from flashblocks.execution.follow import PayloadFollower
from flashblocks.execution.genesis import load_genesis
from flashblocks.execution.open_block import OpenBlock
from flashblocks.execution.signing import sign_transaction
from flashblocks.wire.assembly import assemble
from flashblocks.wire.engine import ForkchoiceState, PayloadAttributes
from flashblocks.wire.flashblock import Flashblock, decode_body, encode_body
from flashblocks.wire.flashblock_json import decode_json
from flashblocks.wire.frames import FlashblockFrame, Frame, encode_frame, frame_of
from flashblocks.wire.payload_id import payload_id
from tests.actors.boost_rig import Files, quiet_log, until

NOWHERE = bytes(32)


class Driver:
    """A builder, an op-node's calls to it, and its stream as ours and as a foreign tool's."""

    def __init__(self, files: Files, **settings: Any) -> None:
        self.files = files
        fields = {"engine_port": 0, "rpc_port": 0, "ws_port": 0, "block_time_s": 1, **settings}
        self.builder = Builder(Settings(genesis_path=files.genesis, jwt_secret_path=files.jwt, **fields), quiet_log())
        self.spec, genesis, self.state = load_genesis(files.document)
        self.head = genesis.header
        self.frames: list[Flashblock] = []
        self.text: list[Flashblock] = []
        self.nonces = dict.fromkeys(range(10), 0)

    async def start(self) -> None:
        await self.builder.start()
        self._running = asyncio.create_task(self.builder.run())
        self.ws_url = f"ws://127.0.0.1:{self.builder.stream.port}"
        self.link = FrameClient(self.ws_url, self._frame)
        await self.link.start()
        self._reader = asyncio.create_task(self._read_text())
        self.engine = EngineClient(self.builder.client.engine_server.url, self.files.secret)
        self.rpc = RpcClient(self.builder.client.rpc_server.url)
        self.authenticated = RpcClient(self.builder.client.engine_server.url, jwt_secret=self.files.secret)
        await until(lambda: len(self.builder.stream.peers) == 2, "both subscribers are connected")

    async def close(self) -> None:
        for task in (self._reader, self._running):
            task.cancel()
        await asyncio.wait([self._reader, self._running])
        await self.link.close()
        await self.engine.close()
        await self.rpc.close()
        await self.authenticated.close()
        await self.builder.close()

    def _frame(self, frame: Frame) -> None:
        assert isinstance(frame, FlashblockFrame)
        self.frames.append(decode_body(frame.body))

    async def _read_text(self) -> None:
        async with connect(self.ws_url) as subscriber:
            async for message in subscriber:
                self.text.append(decode_json(message))

    def attributes(self, **changes: Any) -> PayloadAttributes:
        fields: dict[str, Any] = {
            "timestamp": int(time.time()) + 1,
            "prev_randao": bytes(32),
            "fee_recipient": bytes(20),
            "parent_beacon_block_root": bytes(32),
            "gas_limit": self.head.gas_limit,
            "eip1559_params": (250).to_bytes(4, "big") + (6).to_bytes(4, "big"),
            **changes,
        }
        return PayloadAttributes(**fields)

    async def build(self, attributes: PayloadAttributes | None = None) -> bytes:
        state = ForkchoiceState(self.head.hash, NOWHERE, NOWHERE)
        return await self.engine.start_build(state, attributes or self.attributes())

    async def on_time(self) -> PayloadAttributes:
        """Attributes of a block that begins now."""
        now = time.time()
        await asyncio.sleep(int(now) + 1 - now)
        return self.attributes(timestamp=round(time.time()) + 1)

    def transfer(self, account: int, *, tip: int = 10**6, to: bytes = b"\x99" * 20) -> bytes:
        nonce = self.nonces[account]
        self.nonces[account] += 1
        return sign_transaction(
            TEST_ACCOUNTS[account].private_key,
            chain_id=self.spec.chain_id,
            nonce=nonce,
            to=to,
            value=1,
            max_fee_per_gas=10**10,
            max_priority_fee_per_gas=tip,
        )

    async def send(self, account: int, **how: Any) -> bytes:
        raw = self.transfer(account, **how)
        await self.rpc.call("eth_sendRawTransaction", "0x" + raw.hex())
        return raw

    def judge(self) -> PayloadFollower:
        return PayloadFollower(Chain(self.spec, ChainBlock(self.head, (), (), self.state)))

    def elsewhere(self, attributes: PayloadAttributes, *pieces: list[bytes]) -> list[FlashblockFrame]:
        """Committed frames of the same payload as another leader's builder made them."""
        block = OpenBlock.start(self.spec, self.head, self.state, attributes)
        identifier, frames = payload_id(self.head.hash, attributes), []
        for index, piece in enumerate((list(attributes.transactions), *pieces)):
            before = block.transaction_count
            for raw in piece:
                block.append(raw)
            made = flashblock_from(identifier, index, block.seal(), block.new_account_balances(), before)
            frames.append(frame_of(made, encode_body(made), self.head.hash, epoch=3))
        return frames

    async def apply(self, frame: FlashblockFrame) -> None:
        await self.authenticated.post_binary("/flashblocks/v1/apply", encode_frame(frame))


@asynccontextmanager
async def driving(directory: Path, **settings: Any) -> AsyncIterator[Driver]:
    driver = Driver(Files(directory), **settings)
    await driver.start()
    try:
        yield driver
    finally:
        await driver.close()


async def test_a_block_in_flashblocks_every_prefix_valid(tmp_path: Path) -> None:
    async with driving(tmp_path) as driver:
        raw = await driver.send(0)
        identifier = await driver.build(await driver.on_time())
        await until(lambda: len(driver.frames) >= 3, "three flashblocks are streamed")
        late = await driver.send(1)
        await until(
            lambda: any(late in one.diff.transactions for one in driver.frames), "the later one is in a later one"
        )
        envelope = await driver.engine.get_payload(identifier)
        await until(lambda: len(driver.text) == len(driver.frames), "both subscribers have the same")
        assert driver.text == driver.frames
        assert driver.frames[0].diff.transactions == ()
        assert raw in driver.frames[1].diff.transactions
        judge = driver.judge()
        assert {judge.apply(one).status for one in driver.frames} == {"VALID"}
        assert envelope == assemble(driver.frames), "getPayload is what was streamed"


@pytest.mark.parametrize(("flashblock_time_ms", "expected"), [(200, 5), (250, 4)])
async def test_an_on_time_block_has_its_full_number_of_flashblocks(
    tmp_path: Path, flashblock_time_ms: int, expected: int
) -> None:
    async with driving(tmp_path, flashblock_time_ms=flashblock_time_ms) as driver:
        await driver.build(await driver.on_time())
        await until(lambda: driver.builder.source.job.phase.value == "complete", "the last trigger has passed")
        job = driver.builder.source.job
        # A busy machine may skip triggers; none may be added, and the last share is always used.
        assert len(job.triggers) == job.used_triggers == expected
        assert 1 < len(driver.frames) <= expected + 1
        assert [one.index for one in driver.frames] == list(range(len(driver.frames)))


async def test_get_payload_ends_the_stream_and_a_repeated_update_does_not_begin_it_again(tmp_path: Path) -> None:
    async with driving(tmp_path) as driver:
        attributes = await driver.on_time()
        identifier = await driver.build(attributes)
        await until(lambda: len(driver.frames) >= 2, "two are streamed")
        assert await driver.build(attributes) == identifier
        envelope = await driver.engine.get_payload(identifier)
        streamed = len(driver.frames)
        assert await driver.build(attributes) == identifier
        assert driver.builder.source.job.phase.value == "idle"
        assert await driver.engine.get_payload(identifier) == envelope
        assert len(driver.frames) == streamed


async def test_a_new_update_cancels_the_old_job(tmp_path: Path) -> None:
    async with driving(tmp_path) as driver:
        attributes = await driver.on_time()
        first = await driver.build(attributes)
        other = driver.attributes(timestamp=attributes.timestamp, prev_randao=b"\1" * 32)
        second = await driver.build(other)
        await until(
            lambda: [one.index for one in driver.frames if one.payload_id == second] >= [0, 1], "the new one goes on"
        )
        assert [one.index for one in driver.frames if one.payload_id == first] == [0]
        assert driver.builder.metrics.value("payload_job_cancellation_new_fcu") == 1


async def test_no_tx_pool_streams_nothing_and_takes_nothing(tmp_path: Path) -> None:
    async with driving(tmp_path) as driver:
        await driver.send(0)
        identifier = await driver.build(driver.attributes(no_tx_pool=True))
        envelope = await driver.engine.get_payload(identifier)
        assert envelope.payload.transactions == ()
        assert driver.frames == []


async def test_bad_attributes_are_refused_and_change_nothing(tmp_path: Path) -> None:
    async with driving(tmp_path) as driver:
        with pytest.raises(EngineRefused, match="-38003"):
            await driver.build(driver.attributes(transactions=(b"\x05\x05",)))
        assert driver.builder.source.job.phase.value == "idle"
        await driver.build()
        await until(lambda: driver.frames, "the next build works")


async def test_committed_flashblocks_of_another_builder_are_continued_not_repeated(tmp_path: Path) -> None:
    async with driving(tmp_path) as driver:
        attributes = await driver.on_time()
        theirs = [driver.transfer(0), driver.transfer(1)]
        frames = driver.elsewhere(attributes, [theirs[0]], [theirs[1]])
        for frame in frames:
            await driver.apply(frame)
        ours = await driver.send(2)
        identifier = await driver.build(attributes)
        await until(lambda: driver.frames, "the block goes on")
        assert driver.frames[0].index == 3
        assert ours in driver.frames[0].diff.transactions
        envelope = await driver.engine.get_payload(identifier)
        assert envelope == assemble([*(decode_body(frame.body) for frame in frames), *driver.frames])


async def test_a_commit_from_elsewhere_moves_a_running_job_behind_it(tmp_path: Path) -> None:
    async with driving(tmp_path) as driver:
        attributes = await driver.on_time()
        identifier = await driver.build(attributes)
        frames = driver.elsewhere(attributes, [driver.transfer(0)], [driver.transfer(1)])
        for frame in frames:
            await driver.apply(frame)
        before = len(driver.frames)
        await until(lambda: len(driver.frames) > before, "the job goes on")
        assert driver.frames[before].index == 3
        envelope = await driver.engine.get_payload(identifier)
        committed = [decode_body(frame.body) for frame in frames]
        assert envelope == assemble([*committed, *driver.frames[before:]])


async def test_a_block_of_the_same_height_from_elsewhere_ends_the_job(tmp_path: Path) -> None:
    async with driving(tmp_path) as driver:
        attributes = await driver.on_time()
        await driver.build(attributes)
        frames = driver.elsewhere(driver.attributes(timestamp=attributes.timestamp, prev_randao=b"\5" * 32))
        envelope = assemble([decode_body(frame.body) for frame in frames])
        await driver.engine.new_payload(envelope)
        await driver.engine.set_head(ForkchoiceState(envelope.payload.block_hash, NOWHERE, NOWHERE))
        assert driver.builder.source.job.phase.value == "idle"
        assert driver.builder.client.chain.head.hash == envelope.payload.block_hash


async def test_a_subscriber_that_comes_late_is_greeted_with_the_open_block(tmp_path: Path) -> None:
    async with driving(tmp_path) as driver:
        await driver.build(await driver.on_time())
        await until(lambda: len(driver.frames) >= 2, "two are streamed")
        missed: list[int] = []
        link = FrameClient(driver.ws_url, lambda frame: missed.append(frame.index))  # type: ignore[union-attr]
        await link.start()
        await until(lambda: len(missed) >= len(driver.frames) >= 3, "it has what it missed and what followed")
        await link.close()
        assert missed == list(range(len(missed)))


async def test_operator_limits_throttle_filling(tmp_path: Path) -> None:
    async with driving(tmp_path) as driver:
        await driver.authenticated.call("miner_setGasLimit", hex(5 * 21_000))
        for account in range(8):
            await driver.send(account)
        await driver.build(await driver.on_time())
        await until(lambda: driver.builder.source.job.phase.value == "complete", "the block is full")
        included = [len(one.diff.transactions) for one in driver.frames]
        # On a busy machine a flashblock may be cut short; more than its share it never gets.
        assert 1 <= sum(included) <= 5
        assert included[1] <= 1, "a fifth of the limit in the first flashblock"
        assert driver.frames[0].base is not None
        assert driver.frames[0].base.gas_limit == driver.head.gas_limit, "the header keeps the attributes' limit"


async def test_max_gas_per_transaction_and_block_size(tmp_path: Path) -> None:
    async with driving(tmp_path, max_gas_per_txn=20_000) as driver:
        await driver.send(0)
        await driver.build(await driver.on_time())
        await until(lambda: driver.builder.source.job.phase.value == "complete", "the block is over")
        assert sum(len(one.diff.transactions) for one in driver.frames) == 0
        assert len(driver.builder.client.pool) == 0


async def test_bundles_land_in_their_flashblocks_or_are_dropped_with_a_word(tmp_path: Path) -> None:
    async with driving(tmp_path) as driver:
        lands, never = driver.transfer(0), driver.transfer(1)
        answer = await driver.rpc.call("eth_sendBundle", {"txs": ["0x" + lands.hex()], "minFlashblockNumber": "0x2"})
        hash_of_never = (
            await driver.rpc.call(
                "eth_sendBundle", {"txs": ["0x" + never.hex()], "minBlockNumber": "0x2", "maxBlockNumber": "0x2"}
            )
        )["bundleHash"]
        assert set(answer) == {"bundleHash"}
        with pytest.raises(RpcRefused) as refused:
            await driver.rpc.call("eth_sendBundle", {"txs": []})
        assert refused.value.code == -32602
        identifier = await driver.build(await driver.on_time())
        await until(lambda: any(lands in one.diff.transactions for one in driver.frames), "it landed")
        assert min(one.index for one in driver.frames if lands in one.diff.transactions) >= 2
        await driver.engine.new_payload(envelope := await driver.engine.get_payload(identifier))
        await driver.engine.set_head(ForkchoiceState(envelope.payload.block_hash, NOWHERE, NOWHERE))
        assert len(driver.builder.bundles) == 1
        assert await driver.rpc.call("eth_getTransactionReceipt", hash_of_never) is None
        assert driver.builder.bundles.expire(2) == [bytes.fromhex(hash_of_never[2:])]
        with pytest.raises(RpcRefused, match="dropped from the pool"):
            await driver.rpc.call("eth_getTransactionReceipt", hash_of_never)


async def test_a_backrun_lands_behind_its_target_and_is_unknown_where_it_is_switched_off(tmp_path: Path) -> None:
    async with driving(tmp_path, backruns_enabled=True) as driver:
        target, backrun = driver.transfer(0), driver.transfer(1, tip=10**7)
        bundle = {"txs": ["0x" + target.hex(), "0x" + backrun.hex()], "blockNumber": "0x1"}
        answer = await driver.rpc.call("eth_sendBackrunBundle", bundle)
        assert set(answer) == {"bundleHash"}
        with pytest.raises(RpcRefused, match="exactly 2"):
            await driver.rpc.call("eth_sendBackrunBundle", {"txs": [], "blockNumber": "0x1"})
        await driver.rpc.call("eth_sendRawTransaction", "0x" + target.hex())
        identifier = await driver.build(await driver.on_time())
        await until(lambda: any(backrun in one.diff.transactions for one in driver.frames), "it landed")
        made = next(one for one in driver.frames if backrun in one.diff.transactions)
        assert made.diff.transactions == (target, backrun)
        await driver.engine.new_payload(envelope := await driver.engine.get_payload(identifier))
        await driver.engine.set_head(ForkchoiceState(envelope.payload.block_hash, NOWHERE, NOWHERE))
        assert len(driver.builder.backruns) == 0, "forgotten with its target"
    async with driving(tmp_path) as driver:
        with pytest.raises(RpcRefused) as refused:
            await driver.rpc.call("eth_sendBackrunBundle", bundle)
        assert refused.value.code == -32601


async def test_metrics_carry_the_names_of_the_original(tmp_path: Path) -> None:
    async with driving(tmp_path) as driver:
        await driver.build(await driver.on_time())
        await until(lambda: len(driver.frames) >= 2, "two are streamed")
        text = (await driver.rpc.get("/metrics"))[1] + (await driver.authenticated.get("/metrics"))[1]
        for name in (
            b"op_rbuilder_messages_sent_count ",
            b"op_rbuilder_flashblock_build_duration_count",
            b"op_rbuilder_flashblock_byte_size_histogram_sum",
            b'op_rbuilder_flashblock_publish_timing_milliseconds{flashblock_index="1",quantile="0.5"}',
            b"op_rbuilder_state_root_calculation_duration_sum",
            b"op_rbuilder_fcu_arrival_delay",
        ):
            assert name in text
