import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog

from actors.op_node import OpNode, Settings
from actors.rpc_client import RpcClient, RpcRefused
from actors.rpc_server import RpcServer
from flashblocks.sequencing.attributes import next_attributes
from flashblocks.sequencing.deposits import encode_user_deposit
from flashblocks.sequencing.l1 import L1_BLOCK_TIME_S
from flashblocks.sequencing.origin import select_origin
from flashblocks.wire.engine import Envelope
from flashblocks.wire.hexadecimal import data
from flashblocks.wire.jsonrpc import RpcError
from tests.actors.group_under_test import Running, free_ports, until
from tests.actors.scripted_boost import ScriptedBoost
from tracing.logs import get_logger

GENESIS_HASH = b"\xaa" * 32


class ScriptedConductor:
    """Says who leads and commits payloads; what it answers can be set."""

    def __init__(self) -> None:
        self.leads = True
        self.answers: list[Any] = []
        self.committed: list[Envelope] = []
        self.offered: list[Envelope] = []
        self.open_block: Any = None
        self.server = RpcServer(
            "127.0.0.1",
            0,
            {
                "conductor_leader": self.leader,
                "conductor_commitUnsafePayload": self.commit,
                "flashblocks_openBlock": self.ask_open_block,
            },
            name="scripted-conductor",
            log=structlog.get_logger(),
        )

    async def leader(self) -> bool:
        return self.leads

    async def ask_open_block(self) -> Any:
        return self.open_block

    async def commit(self, obj: Any) -> None:
        envelope = Envelope.from_json(obj)
        self.offered.append(envelope)
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, str):
            raise RpcError(-32000, answer)
        if isinstance(answer, float):
            await asyncio.sleep(answer)
        if isinstance(answer, asyncio.Event):
            await answer.wait()
        self.committed.append(envelope)


class Rig:
    """One op-node between a scripted engine and a scripted conductor."""

    def __init__(self, directory: Path, genesis_time: int, **more: Any) -> None:
        self.directory, self.genesis_time, self.more = directory, genesis_time, more
        self.log = more.pop("log", None) or structlog.get_logger()
        self.engine = ScriptedBoost(GENESIS_HASH, genesis_time, log=self.log)
        self.conductor = ScriptedConductor()
        self.port = more.pop("rpc_port", 0) or free_ports(1)[0]
        self.running: Running | None = None
        self.rpc = RpcClient(f"http://127.0.0.1:{self.port}")

    @property
    def node(self) -> OpNode:
        return self.running.component

    async def start(self) -> None:
        genesis = {"config": {"chainId": 901}, "gasLimit": "0x8583b00", "timestamp": hex(self.genesis_time)}
        (self.directory / "genesis.json").write_text(json.dumps(genesis))
        settings = Settings(
            name="sequencer-0",
            data_dir=str(self.directory / "data"),
            genesis_path=str(self.directory / "genesis.json"),
            genesis_hash=data(GENESIS_HASH),
            rpc_port=self.port,
            engine_url=self.engine.url,
            conductor_url=self.conductor.server.url,
            block_time_s=1,
            **self.more,
        )
        self.running = Running(OpNode(settings, self.log))
        await self.running.start()

    async def stop(self) -> None:
        if self.running is not None:
            running, self.running = self.running, None
            await running.stop()

    async def ready(self) -> None:
        await until(lambda: self.node.chain.head, "the head is known")

    async def sequence(self) -> None:
        await self.ready()
        await self.rpc.call("admin_startSequencer", data(self.node.chain.head.hash))


@asynccontextmanager
async def rig(directory: Path, behind_s: int = 0, **more: Any) -> AsyncIterator[Rig]:
    os.makedirs(directory, exist_ok=True)
    made = Rig(directory, int(time.time()) - behind_s, **more)
    await made.engine.start()
    await made.conductor.server.start()
    await made.start()
    try:
        yield made
    finally:
        await made.rpc.close()
        await made.stop()
        await made.engine.close()
        await made.conductor.server.close()


async def test_nothing_is_inserted_that_was_not_committed(tmp_path: Path) -> None:
    async with rig(tmp_path, behind_s=5) as made:
        await made.sequence()
        await until(lambda: made.node.chain.head.number >= 6, "blocks")
        inserted = {envelope.payload.block_hash for envelope in made.engine.blocks.values() if envelope is not None}
        assert inserted <= {envelope.payload.block_hash for envelope in made.conductor.committed}
        numbers = [envelope.payload.block_number for envelope in made.conductor.committed]
        assert numbers == list(range(1, len(numbers) + 1))


async def test_a_late_chain_is_caught_up_back_to_back(tmp_path: Path) -> None:
    async with rig(tmp_path, behind_s=60) as made:
        await made.sequence()
        began = time.monotonic()
        await until(lambda: made.node.chain.head.number >= 40, "forty late blocks")
        assert time.monotonic() - began < 40, "one block a second would be on time, not late"


@pytest.mark.parametrize(
    ("set_up", "block_hash", "text"),
    [
        ("not leading", GENESIS_HASH, "sequencer is not the leader, aborting"),
        ("no conductor", GENESIS_HASH, "sequencer leader check failed"),
        ("", b"\x01" * 32, "block hash does not match: head 0xaaaa"),
        ("running", GENESIS_HASH, "sequencer already running"),
    ],
)
async def test_start_is_refused_with_op_nodes_words(tmp_path: Path, set_up: str, block_hash: bytes, text: str) -> None:
    async with rig(tmp_path) as made:
        await made.ready()
        made.conductor.leads = set_up != "not leading"
        if set_up == "no conductor":
            await made.conductor.server.close()
        if set_up == "running":
            await made.sequence()
        with pytest.raises(RpcRefused, match=text):
            await made.rpc.call("admin_startSequencer", data(block_hash))


async def test_an_op_node_serves_before_its_engine_does(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        await made.engine.server.close()
        await made.stop()
        await made.start()
        assert (await made.rpc.get("/readyz"))[0] == 503
        with pytest.raises(RpcRefused, match="not known yet"):
            await made.rpc.call("optimism_syncStatus")
        with pytest.raises(RpcRefused, match="no prestate, cannot determine"):
            await made.rpc.call("admin_startSequencer", data(GENESIS_HASH))
        await made.engine.server.start()
        await made.ready()
        assert (await made.rpc.get("/readyz"))[0] == 200


async def test_a_prefix_mismatch_is_sealed_again(tmp_path: Path) -> None:
    async with rig(tmp_path, behind_s=3) as made:
        made.conductor.answers = ["prefix mismatch: seal names index 3, committed is 4"] * 2
        await made.sequence()
        await until(lambda: made.conductor.committed, "a commit")
        assert made.engine.calls.count("getPayload") >= 3
        assert len(made.conductor.offered) >= 3


async def test_an_unknown_commit_repeats_the_same_payload(tmp_path: Path) -> None:
    async with rig(tmp_path, behind_s=3, conductor_rpc_timeout_ms=100) as made:
        made.conductor.answers = [0.4]
        await made.sequence()
        await until(lambda: made.node.chain.head.number >= 1, "the block is inserted")
        first, second, *_ = made.conductor.offered
        assert first == second


async def test_the_open_block_is_resumed(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        await made.ready()
        node, head = made.node, made.node.chain.head
        origin = select_origin(node.config, node.l1, head, time.time())
        made.conductor.open_block = {
            "number": "0x1",
            "payloadId": "0x04" + "00" * 7,
            "parentHash": data(GENESIS_HASH),
            "attributes": next_attributes(node.config, node.l1, head, origin).to_json() | {"gasLimit": "0x7b"},
            "lastIndex": "0x3",
        }
        await made.sequence()
        builds = await until(
            lambda: list(made.engine.builds.values()), "a build"
        )  # perhaps the next one's is there, too
        assert builds[0].attributes.gas_limit == 123, "the ledger's attributes are used, not our own"


async def test_stop_returns_the_committed_head_and_is_idempotent(tmp_path: Path) -> None:
    async with rig(tmp_path, behind_s=3) as made:
        with pytest.raises(RpcRefused, match="sequencer not running"):
            await made.rpc.call("admin_stopSequencer")
        made.conductor.answers = [0.2]
        await made.sequence()
        await until(lambda: made.conductor.offered, "a commit under way")
        stopped_at = await made.rpc.call("admin_stopSequencer")
        assert stopped_at == data(made.conductor.offered[0].payload.block_hash)
        assert await made.rpc.call("admin_sequencerActive") is False
        assert len(made.conductor.offered) == 1


async def test_the_level_of_the_log_can_be_changed(tmp_path: Path) -> None:
    log = get_logger("op-node", 0, log_dir=tmp_path / "logs", level="error")
    async with rig(tmp_path, log=log) as made:
        await made.ready()
        made.node.log.info("before")
        assert await made.rpc.call("admin_setLogLevel", "INFO") is None
        made.node.log.info("after")
        with pytest.raises(RpcRefused, match="unknown level"):
            await made.rpc.call("admin_setLogLevel", "loud")
    told = (tmp_path / "logs" / "op-node-0.jsonl").read_text()
    assert '"after"' in told and '"before"' not in told


async def test_stop_is_bounded_when_the_commit_hangs(tmp_path: Path) -> None:
    async with rig(tmp_path, behind_s=3) as made:
        hangs = asyncio.Event()
        made.conductor.answers = [hangs]
        await made.sequence()
        await until(lambda: made.conductor.offered, "a commit under way")
        assert await made.rpc.call("admin_stopSequencer", timeout_s=5.0) == data(GENESIS_HASH)
        assert await made.rpc.call("admin_sequencerActive") is False
        hangs.set()


async def payloads(directory: Path, count: int) -> list[Any]:
    """Payloads of a chain that another op-node made."""
    async with rig(directory, behind_s=30) as other:
        await other.sequence()
        await until(lambda: len(other.conductor.committed) >= count, "payloads")
        made = [envelope.to_json() for envelope in other.conductor.committed[:count]]
        made.append(other.genesis_time)
        return made


async def test_a_follower_takes_payloads_in_any_order_and_any_number_of_times(tmp_path: Path) -> None:
    *blocks, genesis_time = await payloads(tmp_path / "other", 5)
    async with rig(tmp_path, behind_s=int(time.time()) - genesis_time) as made:
        await made.ready()
        for block in (blocks[0], blocks[0], blocks[3], blocks[2], blocks[1], blocks[4], blocks[1]):
            await made.rpc.call("admin_postUnsafePayload", block)
        assert made.node.chain.head.number == 5
        assert data(made.node.chain.head.hash) == blocks[4]["executionPayload"]["blockHash"]


async def test_a_payload_with_a_bad_hash_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    block, genesis_time = await payloads(tmp_path / "other", 1)
    async with rig(tmp_path, behind_s=int(time.time()) - genesis_time) as made:
        await made.ready()
        block["executionPayload"]["blockHash"] = "0x" + "66" * 32
        with pytest.raises(RpcRefused, match="payload has bad block hash"):
            await made.rpc.call("admin_postUnsafePayload", block)
        with pytest.raises(RpcRefused, match="executionPayload"):
            await made.rpc.call("admin_postUnsafePayload", {})
        assert made.node.chain.head.number == 0


async def test_a_sequencer_gives_its_build_up_for_a_committed_block(tmp_path: Path) -> None:
    block, genesis_time = await payloads(tmp_path / "other", 1)
    async with rig(tmp_path, behind_s=int(time.time()) - genesis_time) as made:
        made.conductor.answers = ["node is not the leader"] * 1000
        await made.sequence()
        await made.rpc.call("admin_postUnsafePayload", block)
        assert made.node.chain.head.number == 1
        await until(lambda: any(one.payload.block_number == 2 for one in made.conductor.offered), "it builds on it")


async def test_an_engine_that_forgot_blocks_is_followed_back(tmp_path: Path) -> None:
    async with rig(tmp_path, behind_s=10) as made:
        await made.sequence()
        await until(lambda: made.node.chain.head.number >= 5, "blocks")
        await made.rpc.call("admin_stopSequencer")
        made.engine.head = GENESIS_HASH
        await made.rpc.call("admin_resetDerivationPipeline")
        await until(lambda: made.node.chain.head.number == 0, "the engine's head is believed")
        for envelope in made.conductor.committed[:5]:
            await made.rpc.call("admin_postUnsafePayload", envelope.to_json())
        assert made.node.chain.head.number == 5


async def test_the_rpc_has_op_nodes_shapes(tmp_path: Path) -> None:
    async with rig(tmp_path, behind_s=30) as made:
        await made.sequence()
        await until(lambda: made.node.chain.head.number >= 30, "blocks")
        status = await made.rpc.call("optimism_syncStatus")
        assert set(status) == {
            "current_l1",
            "current_l1_finalized",
            "head_l1",
            "safe_l1",
            "finalized_l1",
            "unsafe_l2",
            "safe_l2",
            "finalized_l2",
            "pending_safe_l2",
            "cross_unsafe_l2",
            "local_safe_l2",
        }
        unsafe = status["unsafe_l2"]
        assert set(unsafe) == {"hash", "number", "parentHash", "timestamp", "l1origin", "sequenceNumber"}
        assert unsafe["timestamp"] == made.genesis_time + unsafe["number"]
        assert unsafe["l1origin"]["number"] == unsafe["number"] // L1_BLOCK_TIME_S
        output = await made.rpc.call("optimism_outputAtBlock", "0x5")
        assert output["blockRef"]["number"] == 5 and output["version"] == "0x" + "00" * 32
        with pytest.raises(RpcRefused, match="not found"):
            await made.rpc.call("optimism_outputAtBlock", "0xffff")
        assert (await made.rpc.call("optimism_rollupConfig"))["l2_chain_id"] == 901
        assert (await made.rpc.call("optimism_version")).startswith("v")
        assert (await made.rpc.call("opp2p_peerStats"))["connected"] == 0
        assert await made.rpc.call("admin_conductorEnabled") is True
        assert (await made.rpc.call("flashblocks_status"))["role"] == "sequencer"


async def test_without_a_conductor_an_op_node_sequences_by_itself(tmp_path: Path) -> None:
    async with rig(tmp_path, behind_s=5, conductor_enabled=False, sequencer_stopped=False) as made:
        await until(lambda: made.node.chain.head and made.node.chain.head.number >= 3, "blocks")
        assert made.conductor.offered == []


async def test_an_injected_deposit_reaches_the_other_op_node_and_the_first_block_of_its_epoch(tmp_path: Path) -> None:
    ports = free_ports(2)
    peers = [f"http://127.0.0.1:{port}" for port in ports]
    behind_s = L1_BLOCK_TIME_S - 5  # the next L1 block is five seconds away: just enough notice
    async with rig(tmp_path, behind_s=behind_s, rpc_port=ports[0], peer_op_node_urls=peers[1:]) as made:
        async with rig(tmp_path / "other", behind_s=behind_s, rpc_port=ports[1], peer_op_node_urls=peers[:1]) as other:
            await until(lambda: made.node.peers_connected and other.node.peers_connected, "the peers know each other")
            sent = {"from": "0x" + "11" * 20, "to": "0x" + "22" * 20, "mint": "0x64", "value": "0x64"}
            told = await made.rpc.call("flashblocks_injectDeposit", sent)
            assert told["peersTold"] == 1
            number = int(told["l1BlockNumber"], 16)
            deposit = other.node.l1.deposits(number)[0]
            assert (deposit.sender, deposit.mint) == (b"\x11" * 20, 100)
            await other.sequence()

            def blocks() -> list[Envelope]:
                wanted = encode_user_deposit(deposit, other.node.l1.block(number).hash, 0)
                return [one for one in other.conductor.committed if wanted in one.payload.transactions]

            await until(blocks, "the deposit is in a block")
            assert len(blocks()) == 1 and len(blocks()[0].payload.transactions) == 2
        await made.stop()
        await made.start()
        assert made.node.l1.deposits(number) == (deposit,), "deposits survive a restart"


async def test_a_deposit_that_is_none_is_refused(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        for bad in ({}, {"from": "0x12"}, "deposit", {"from": "0x" + "11" * 20, "mint": -1}):
            with pytest.raises(RpcRefused):
                await made.rpc.call("flashblocks_injectDeposit", bad)
