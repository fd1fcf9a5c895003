"""The rpc-node on real sockets: real execution, a real fallback EL with its pool, a stream that the test directs."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from actors.follower_metrics import COUNTERS
from actors.rpc_client import RpcClient, RpcRefused
from actors.rpc_node import RpcNode
from flashblocks.execution.accounts import TEST_ACCOUNTS
from flashblocks.execution.genesis import default_genesis, load_genesis
from flashblocks.execution.header import Header
from flashblocks.execution.keccak import keccak256
from flashblocks.wire.engine import PayloadAttributes
from flashblocks.wire.hexadecimal import data
from tests.actors import one_sequencer
from tests.actors.one_sequencer import OneSequencer, node_behind, until
from tests.execution.forge import Forge

ALICE, BOB = TEST_ACCOUNTS[0], TEST_ACCOUNTS[9]
ZERO_HASH = "0x" + "00" * 32


@pytest.fixture
async def sequencer(tmp_path: Path) -> AsyncIterator[OneSequencer]:
    made = OneSequencer(tmp_path)
    await made.start()
    yield made
    await made.close()


@pytest.fixture
async def node(sequencer: OneSequencer) -> AsyncIterator[RpcNode]:
    async with node_behind(sequencer, stale_after_ms=60_000) as made:
        yield made


@pytest.fixture
async def wallet(node: RpcNode) -> AsyncIterator[RpcClient]:
    client = RpcClient(node.server.url, timeout_s=10)
    yield client
    await client.close()


async def shown(node: RpcNode, number: int, index: int) -> None:
    await until(
        lambda: (s := node.follower.pending()) is not None and (s.number, s.index) == (number, index),
        f"flashblock {number}.{index} is pending",
    )


async def test_before_any_flashblock_pending_is_latest(wallet: RpcClient, sequencer: OneSequencer) -> None:
    latest = await wallet.call("eth_getBlockByNumber", "latest", False)
    assert await wallet.call("eth_getBlockByNumber", "pending", False) == latest
    assert latest["hash"] == data(sequencer.el.client.chain.head.hash)
    assert (await wallet.get("/readyz"))[0] == 503
    assert (await wallet.get("/healthz"))[0] == 200
    assert int(await wallet.call("eth_getBalance", data(ALICE.address), "pending"), 16) == 10_000 * 10**18


async def test_a_flashblock_is_pending_everywhere_at_once(
    node: RpcNode, wallet: RpcClient, sequencer: OneSequencer
) -> None:
    sequencer.begin()
    raw = sequencer.forge.transfer(0, 0, to=9, value=77)
    frame = sequencer.flashblock(raw)
    await shown(node, 1, 1)
    pending = await wallet.call("eth_getBlockByNumber", "pending", False)
    assert (pending["number"], pending["hash"], len(pending["transactions"])) == ("0x1", ZERO_HASH, 2)
    tx_hash = pending["transactions"][1]
    receipt = await wallet.call("eth_getTransactionReceipt", tx_hash)
    assert (receipt["status"], receipt["blockNumber"], receipt["blockHash"]) == ("0x1", "0x1", ZERO_HASH)
    transaction = await wallet.call("eth_getTransactionByHash", tx_hash)
    assert (transaction["blockHash"], transaction["transactionIndex"]) == (None, "0x1")
    assert int(await wallet.call("eth_getBalance", data(BOB.address), "pending"), 16) == 10_000 * 10**18 + 77
    assert int(await wallet.call("eth_getBalance", data(BOB.address), "latest"), 16) == 10_000 * 10**18
    assert await wallet.call("eth_getTransactionCount", data(ALICE.address), "pending") == "0x1"
    assert await wallet.call("eth_getTransactionCount", data(ALICE.address), "latest") == "0x0"
    assert await wallet.call("eth_getBlockTransactionCountByNumber", "pending") == "0x2"
    assert await wallet.call("eth_blockNumber") == "0x0"
    by_hash = await wallet.call("eth_getBlockByHash", data(frame.block_hash), True)
    assert (by_hash["hash"], by_hash["transactions"][1]["hash"]) == (data(frame.block_hash), tx_hash)
    receipts = await wallet.call("eth_getBlockReceipts", "pending")
    assert receipts[1] == receipt
    assert (await wallet.get("/readyz"))[0] == 200


async def test_the_next_block_seals_what_was_followed(
    node: RpcNode, wallet: RpcClient, sequencer: OneSequencer
) -> None:
    sequencer.begin()
    sequencer.flashblock(sequencer.forge.transfer(0, 0))
    sealed = await sequencer.seal()
    sequencer.begin()
    await shown(node, 2, 0)
    assert await wallet.call("eth_blockNumber") == "0x1"
    block = await wallet.call("eth_getBlockByNumber", "latest", True)
    assert block["hash"] == data(sealed.header.hash)
    receipt = await wallet.call("eth_getTransactionReceipt", block["transactions"][1]["hash"])
    assert receipt["blockHash"] == data(sealed.header.hash)
    await until(lambda: node.follower.machine.unconfirmed_blocks == 0, "the client confirms the sealed block")


async def test_metrics_have_the_upstream_nodes_names_and_count(
    node: RpcNode, wallet: RpcClient, sequencer: OneSequencer
) -> None:
    async def metrics() -> dict[str, float]:
        lines = (await wallet.get("/metrics"))[1].decode().splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if line.startswith("reth_flashblocks_"))
        return {name.removeprefix("reth_flashblocks_"): float(value) for name, value in pairs}

    assert {*COUNTERS, "reconnect_attempts", "pending_snapshot_height", "flashblocks_in_block_count"} <= set(
        await metrics()
    )
    sequencer.begin()
    sequencer.flashblock(sequencer.forge.transfer(0, 0))
    await shown(node, 1, 1)
    await sequencer.seal()
    sequencer.begin()
    await shown(node, 2, 0)
    sequencer.flashblock(sequencer.forge.transfer(0, 1))
    await shown(node, 2, 1)
    await wallet.call("eth_getBalance", data(ALICE.address), "pending")
    await wallet.call("eth_call", {"to": data(BOB.address)})
    counted = await metrics()
    assert (counted["upstream_messages"], counted["upstream_errors"], counted["rpc_get_balance"]) == (4, 0, 1)
    assert (counted["rpc_call"], counted["flashblocks_in_block_sum"], counted["flashblocks_in_block_count"]) == (
        1,
        2,
        1,
    )
    assert (counted["pending_snapshot_height"], counted["pending_snapshot_fb_index"]) == (2, 1)


async def test_a_gap_is_asked_for_and_filled(node: RpcNode, sequencer: OneSequencer) -> None:
    sequencer.withheld.add((1, 1))
    sequencer.begin()
    sequencer.flashblock(sequencer.forge.transfer(0, 0))
    sequencer.flashblock(sequencer.forge.transfer(0, 1))
    await shown(node, 1, 2)


async def test_joining_mid_block_and_behind_starts_without_a_restart(sequencer: OneSequencer, tmp_path: Path) -> None:
    for turn in range(3):
        sequencer.begin()
        sequencer.flashblock(sequencer.forge.transfer(0, turn))
        await sequencer.seal()
    sequencer.frames.clear()  # nobody can resend the old blocks: they come from the client
    sequencer.begin()
    sequencer.flashblock(sequencer.forge.transfer(0, 3))
    async with node_behind(sequencer, stale_after_ms=60_000) as node:
        sequencer.flashblock(sequencer.forge.transfer(0, 4))
        await shown(node, 4, 2)
        assert node.follower.chain.head.number == 3


async def test_a_missing_tail_comes_from_the_sealed_block(node: RpcNode, sequencer: OneSequencer) -> None:
    sequencer.begin()
    sequencer.flashblock(sequencer.forge.transfer(0, 0))
    sequencer.withheld.add((1, 2))
    sequencer.resendable = False
    sequencer.flashblock(sequencer.forge.transfer(0, 1))
    await sequencer.seal()
    sequencer.begin()
    await shown(node, 2, 0)
    assert node.follower.metrics.divergences._value.get() == 0
    assert node.follower.metrics.upstream.value("pending_clear_catchup") == 1


async def test_divergence_is_counted_and_the_chain_goes_on(
    node: RpcNode, wallet: RpcClient, sequencer: OneSequencer
) -> None:
    header, state = sequencer.parent()
    other = sequencer.forge.seal(header, state, [sequencer.forge.transfer(1, 0)])
    sequencer.begin()
    sequencer.flashblock(sequencer.forge.transfer(0, 0))
    await shown(node, 1, 1)
    lost = (await wallet.call("eth_getBlockByNumber", "pending", False))["transactions"][1]
    await sequencer.seal_instead(other)
    sequencer.begin()
    await shown(node, 2, 0)
    assert node.follower.metrics.divergences._value.get() == 1
    assert await wallet.call("eth_getTransactionReceipt", lost) is None
    assert (await wallet.call("eth_getBlockByNumber", "latest", False))["hash"] == data(other.header.hash)


async def test_a_stale_stream_falls_through_to_latest_and_recovers(sequencer: OneSequencer) -> None:
    async with node_behind(sequencer, stale_after_ms=300) as node:
        client = RpcClient(node.server.url, timeout_s=10)
        sequencer.begin()
        sequencer.flashblock(sequencer.forge.transfer(0, 0, value=5))
        await until(lambda: node.follower.pending() is not None, "pending")
        await until(lambda: node.follower.pending() is None, "stale")
        status, text = await client.get("/readyz")
        assert status == 503
        assert b"stream age" in text
        assert b"\nflashblocks_pending_is_latest 1.0\n" in (await client.get("/metrics"))[1]
        assert (await client.call("eth_getBlockByNumber", "pending", False))["number"] == "0x0"
        await sequencer.seal()
        await until(lambda: node.follower.chain.head.number == 1, "the block comes from the client")
        sequencer.begin()
        await until(lambda: node.follower.pending() is not None, "the stream is back")
        await client.close()


async def test_a_restart_finds_its_chain_on_disk(sequencer: OneSequencer, tmp_path: Path) -> None:
    directory = str(tmp_path / "rpc")
    async with node_behind(sequencer, data_dir=directory) as node:
        for turn in range(3):
            sequencer.begin()
            sequencer.flashblock(sequencer.forge.transfer(0, turn))
            await sequencer.seal()
        await until(lambda: node.follower.chain.head.number == 3, "followed")
        head = node.follower.chain.head.hash
    async with node_behind(sequencer, data_dir=directory, execution_urls=[]) as node:
        assert node.follower.chain.head.hash == head
        client = RpcClient(node.server.url)
        assert len((await client.call("eth_getBlockByNumber", "0x2", False))["transactions"]) == 2
        assert await client.call("eth_getTransactionCount", data(ALICE.address), "pending") == "0x3"
        await client.close()
    log = next((tmp_path / "rpc" / "chain").glob("blocks-*.log"))
    log.write_bytes(b"damage" + log.read_bytes()[6:])
    async with node_behind(sequencer, data_dir=directory) as node:
        await until(lambda: node.follower.chain.head.hash == head, "fetched again after the disk was damaged")


async def test_with_a_dead_ingress_the_clients_get_the_transaction(sequencer: OneSequencer) -> None:
    async with node_behind(sequencer, ingress_urls=["http://127.0.0.1:1"]) as node:
        client = RpcClient(node.server.url, timeout_s=10)
        tx_hash = await client.call("eth_sendRawTransaction", data(sequencer.forge.transfer(0, 0)))
        assert bytes.fromhex(tx_hash[2:]) in sequencer.el.client.pool
        await client.close()


async def test_simulation_on_pending_sees_what_is_preconfirmed(
    node: RpcNode, wallet: RpcClient, sequencer: OneSequencer
) -> None:
    sequencer.begin()
    sequencer.flashblock(sequencer.forge.transfer(0, 0, to=9, value=5))
    await shown(node, 1, 1)
    spend = {"from": data(BOB.address), "to": data(ALICE.address), "value": hex(10_000 * 10**18 + 5)}
    (block,) = await wallet.call("eth_simulateV1", {"blockStateCalls": [{"calls": [spend]}]}, "pending")
    assert (block["number"], block["calls"][0]["status"]) == ("0x2", "0x1")
    with pytest.raises(RpcRefused) as poor:
        await wallet.call("eth_simulateV1", {"blockStateCalls": [{"calls": [spend]}]}, "latest")
    assert poor.value.code == -38014


async def test_eth_call_on_pending_runs_in_the_pending_block(
    node: RpcNode, wallet: RpcClient, sequencer: OneSequencer
) -> None:
    """Code that returns NUMBER and TIMESTAMP sees those of the pending block, not of an older one."""
    sequencer.begin()
    await shown(node, 1, 0)
    probe = "0x435f5242602052" + "60405ff3"  # NUMBER at 0, TIMESTAMP at 32
    where = "0x" + "77" * 20
    out = await wallet.call("eth_call", {"to": where}, "pending", {where: {"code": probe}})
    pending = await wallet.call("eth_getBlockByNumber", "pending", False)
    assert int(out[2:66], 16) == 1
    assert int(out[66:], 16) == int(pending["timestamp"], 16)
    pretended = {"number": "0x1234", "time": hex(2**33)}
    out = await wallet.call("eth_call", {"to": where}, "pending", {where: {"code": probe}}, pretended)
    assert (int(out[2:66], 16), int(out[66:], 16)) == (0x1234, 2**33)
    spends = {"to": where, "gas": "0xffff"}
    early = "0x42" + "630000ffff" + "11" + "600b57" + "00" + "5b5f5ffd"  # reverts while TIMESTAMP < 0xffff
    for method in ("eth_call", "eth_estimateGas"):
        assert await wallet.call(method, spends, "pending", {where: {"code": early}})
        with pytest.raises(RpcRefused, match="execution reverted"):
            await wallet.call(method, spends, "pending", {where: {"code": early}}, {"time": "0x1"})
    with pytest.raises(RpcRefused, match="withdrawals is not supported"):
        await wallet.call("eth_call", spends, "pending", None, {"withdrawals": []})
    assert int(await wallet.call("eth_estimateGas", {"to": where, "value": "0x0"}), 16) == 21_000
    sequencer.flashblock(sequencer.forge.transfer(0, 0))
    await shown(node, 1, 1)
    for tag in ([], ["pending"], ["latest"]):
        spend = {"from": data(ALICE.address), "to": where, "value": "0x1"}
        assert int(await wallet.call("eth_estimateGas", spend, *tag), 16) == 21_000
    with pytest.raises(RpcRefused) as reverted:
        await wallet.call("eth_call", {"to": where}, "pending", {where: {"code": "0x5f5ffd"}})
    assert reverted.value.code == 3


async def test_proofs_and_access_lists_are_of_the_pending_state(
    node: RpcNode, wallet: RpcClient, sequencer: OneSequencer
) -> None:
    sequencer.begin()
    sequencer.flashblock(sequencer.forge.transfer(0, 0, to=9, value=5))
    await shown(node, 1, 1)
    pending = await wallet.call("eth_getBlockByNumber", "pending", False)
    proof = await wallet.call("eth_getProof", data(BOB.address), ["0x0"], "pending")
    assert int(proof["balance"], 16) == 10_000 * 10**18 + 5
    assert data(keccak256(bytes.fromhex(proof["accountProof"][0][2:]))) == pending["stateRoot"]
    assert [(each["key"], each["value"]) for each in proof["storageProof"]] == [("0x0", "0x0")]
    where = "0x" + "77" * 20
    reads_slot_1 = {where: {"code": "0x600154"}}
    made = await wallet.call("eth_createAccessList", {"to": where}, "pending", reads_slot_1)
    assert made["accessList"] == [{"address": where, "storageKeys": ["0x" + "00" * 31 + "01"]}]


async def test_metering(node: RpcNode, wallet: RpcClient, sequencer: OneSequencer) -> None:
    sequencer.begin()
    sequencer.flashblock(sequencer.forge.transfer(0, 0))
    await shown(node, 1, 1)
    bundle = {"txs": [data(sequencer.forge.transfer(0, nonce, value=7)) for nonce in (1, 2)], "blockNumber": "0x1"}
    metered = await wallet.call("base_meterBundle", bundle)
    assert (metered["stateBlockNumber"], metered["stateFlashblockIndex"], metered["totalGasUsed"]) == (1, 1, 42_000)
    assert [each["value"] for each in metered["results"]] == ["0x7", "0x7"]
    assert metered["totalExecutionTimeUs"] == pytest.approx(
        sum(each["executionTimeUs"] for each in metered["results"]), abs=2
    )
    with pytest.raises(RpcRefused, match="Bundle metering failed: nonce too high"):
        await wallet.call("base_meterBundle", {"txs": [data(sequencer.forge.transfer(0, 5))]})
    with pytest.raises(RpcRefused) as refused:
        await wallet.call("base_meterBundle", {"txs": "0x"})
    assert refused.value.code == -32602
    sealed = await sequencer.seal()
    sequencer.begin()
    await shown(node, 2, 0)
    by_number = await wallet.call("base_meterBlockByNumber", "0x1")
    by_hash = await wallet.call("base_meterBlockByHash", data(sealed.header.hash))
    for block in (by_number, by_hash):
        assert (block["blockHash"], block["blockNumber"]) == (data(sealed.header.hash), 1)
        assert sum(each["gasUsed"] for each in block["transactions"]) == sealed.header.gas_used
        assert block["totalTimeUs"] == sum(
            block[f"{part}TimeUs"] for part in ("signerRecovery", "execution", "stateRoot")
        )
    for unknown in ("0x99", "pending"):
        with pytest.raises(RpcRefused, match="Block not found"):
            await wallet.call("base_meterBlockByNumber", unknown)


async def test_the_metered_priority_fee_counts_flashblocks_and_sealed_blocks(
    node: RpcNode, wallet: RpcClient, sequencer: OneSequencer
) -> None:
    bundle = {"txs": [data(sequencer.forge.transfer(0, 3, value=7))]}
    with pytest.raises(RpcRefused, match="no block to take fees from yet"):
        await wallet.call("base_meteredPriorityFeePerGas", bundle)
    sequencer.begin()
    sequencer.flashblock(sequencer.forge.transfer(0, 0, tip=50), sequencer.forge.transfer(0, 1, tip=70))
    await shown(node, 1, 1)
    await sequencer.seal()
    sequencer.begin()
    sequencer.flashblock(sequencer.forge.transfer(0, 2))
    await shown(node, 2, 1)
    answer = await wallet.call("base_meteredPriorityFeePerGas", bundle)
    assert (answer["totalGasUsed"], answer["stateBlockNumber"], answer["stateFlashblockIndex"]) == (21_000, 2, 1)
    assert (answer["priorityFee"], answer["blocksSampled"]) == ("0x1", 2)
    assert answer["resourceEstimates"] == [
        {
            "resource": "gasUsed",
            "thresholdPriorityFee": "0x1",
            "recommendedPriorityFee": "0x1",
            "cumulativeUsage": hex(21_000),  # of the open block: the median of two is the upper one
            "thresholdTxCount": 1,
            "totalTransactions": 1,
        }
    ]
    with pytest.raises(RpcRefused, match="Bundle metering failed: nonce too high"):
        await wallet.call("base_meteredPriorityFeePerGas", {"txs": [data(sequencer.forge.transfer(0, 9))]})


class JovianForge(Forge):
    """The little sequencer on a chain whose blocks price data, too."""

    def __init__(self) -> None:
        super().__init__()
        self.genesis = default_genesis(jovian_time=0)
        self.spec, self.block, self.state = load_genesis(self.genesis)

    def attributes(self, parent: Header, *, seconds: int = 2, randao: int = 7) -> PayloadAttributes:
        made = super().attributes(parent, seconds=seconds, randao=randao)
        return msgspec.structs.replace(made, min_base_fee=0)


async def test_since_jovian_the_priority_fee_is_of_data_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_sequencer, "Forge", JovianForge)
    sequencer = OneSequencer(tmp_path)
    await sequencer.start()
    async with node_behind(sequencer, stale_after_ms=60_000) as node:
        wallet = RpcClient(node.server.url, timeout_s=10)
        sequencer.begin()
        sequencer.flashblock(sequencer.forge.transfer(0, 0))
        await shown(node, 1, 1)
        footprint = (await wallet.call("eth_getBlockReceipts", "pending"))[1]["blobGasUsed"]
        answer = await wallet.call("base_meteredPriorityFeePerGas", {"txs": [data(sequencer.forge.transfer(0, 1))]})
        gas, da = answer["resourceEstimates"]
        assert (gas["resource"], gas["cumulativeUsage"]) == ("gasUsed", hex(21_000))
        assert (da["resource"], da["cumulativeUsage"], da["totalTransactions"]) == ("dataAvailability", footprint, 1)
        assert int(footprint, 16) == 100 * 400, "the least size of a transaction, at the scalar's default"
        await wallet.close()
    await sequencer.close()


async def test_sending_without_an_ingress_reaches_the_clients_pool(
    node: RpcNode, wallet: RpcClient, sequencer: OneSequencer
) -> None:
    sequencer.begin()
    await shown(node, 1, 0)
    tx_hash = await wallet.call("eth_sendRawTransaction", data(sequencer.forge.transfer(0, 0)))
    assert bytes.fromhex(tx_hash[2:]) in sequencer.el.client.pool
    assert await wallet.call("eth_getTransactionCount", data(ALICE.address), "pending") == "0x1"
    waiting = await wallet.call("eth_getTransactionByHash", tx_hash)
    assert (waiting["blockHash"], waiting["blockNumber"]) == (None, None)
    assert await wallet.call("base_transactionStatus", tx_hash) == {"status": "Known"}
    assert await wallet.call("base_transactionStatus", ZERO_HASH) == {"status": "Unknown"}
    sequencer.flashblock()
    await shown(node, 1, 1)
    assert (await wallet.call("eth_getTransactionReceipt", tx_hash))["status"] == "0x1"
    with pytest.raises(RpcRefused, match="insufficient funds"):
        await wallet.call("eth_sendRawTransaction", data(sequencer.forge.transfer(0, 0, value=10**30)))


@pytest.mark.parametrize(
    ("method", "params", "answer"),
    [
        ("eth_chainId", [], "0x385"),
        ("net_version", [], "901"),
        ("op_supportedCapabilities", [], ["flashblocksv1"]),
        ("eth_syncing", [], False),
        ("eth_accounts", [], []),
        ("web3_sha3", ["0x"], "0xc5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"),
        ("eth_getTransactionReceipt", [ZERO_HASH], None),
        ("eth_getTransactionByHash", [ZERO_HASH], None),
        ("eth_getBlockByHash", [ZERO_HASH, False], None),
        ("eth_getBlockByNumber", ["0x63", False], None),
        ("eth_getUncleCountByBlockNumber", ["latest"], "0x0"),
        ("eth_getCode", ["0x" + "11" * 20, "pending"], "0x"),
        ("eth_getStorageAt", ["0x" + "11" * 20, "0x0", "pending"], ZERO_HASH),
        ("eth_getLogs", [{"fromBlock": "0x0", "toBlock": "pending"}], []),
        ("eth_maxPriorityFeePerGas", [], "0xf4240"),
        ("eth_blobBaseFee", [], "0x1"),
        ("eth_getHeaderByNumber", ["0x63"], None),
        ("eth_getHeaderByHash", [ZERO_HASH], None),
        ("eth_getBlockTransactionCountByHash", [ZERO_HASH], None),
        ("eth_getTransactionByBlockNumberAndIndex", ["latest", "0x0"], None),
        ("eth_getTransactionByBlockHashAndIndex", [ZERO_HASH, "0x0"], None),
        ("eth_getRawTransactionByHash", [ZERO_HASH], None),
        ("net_listening", [], True),
        ("net_peerCount", [], "0x0"),
        ("txpool_status", [], {"pending": "0x0", "queued": "0x0"}),
    ],
)
async def test_answers(wallet: RpcClient, method: str, params: list[Any], answer: Any) -> None:
    assert await wallet.call(method, *params) == answer


@pytest.mark.parametrize(
    ("method", "params", "code"),
    [
        ("eth_nothing", [], -32601),
        ("eth_getBalance", ["0x12", "latest"], -32602),
        ("eth_getBalance", [], -32602),
        ("eth_getBlockByNumber", ["newest", False], -32602),
        ("eth_getBalance", ["0x" + "11" * 20, "0x99"], -32000),
        ("eth_getBlockByNumber", ["finalized", False], -39001),
        ("eth_sendRawTransaction", ["0x02"], -32000),
        ("eth_sendRawTransactionSync", ["0x02", 6001], -32602),
        ("eth_getFilterChanges", ["0x1"], -32000),
        ("eth_getLogs", [{"fromBlock": "0x5", "toBlock": "0x1"}], -32602),
        ("eth_feeHistory", ["0x1", "latest", [50, 10]], -32602),
    ],
)
async def test_errors_have_the_right_codes(wallet: RpcClient, method: str, params: list[Any], code: int) -> None:
    with pytest.raises(RpcRefused) as refused:
        await wallet.call(method, *params)
    assert refused.value.code == code


async def test_fee_history(node: RpcNode, wallet: RpcClient, sequencer: OneSequencer) -> None:
    sequencer.begin()
    sequencer.flashblock(sequencer.forge.transfer(0, 0, tip=5_000))
    await sequencer.seal()
    sequencer.begin()
    await shown(node, 2, 0)
    history = await wallet.call("eth_feeHistory", "0x5", "latest", [10, 90])
    assert history["oldestBlock"] == "0x0"
    assert len(history["baseFeePerGas"]) == 3
    assert history["reward"][1] == ["0x1388", "0x1388"]
    sequencer.flashblock(sequencer.forge.transfer(0, 1, tip=7_000))
    await shown(node, 2, 1)
    open_block = await wallet.call("eth_getBlockByNumber", "pending", False)
    history = await wallet.call("eth_feeHistory", 2, "pending", [50])
    assert (history["oldestBlock"], history["reward"]) == ("0x1", [["0x1388"], ["0x1b58"]])
    assert history["baseFeePerGas"][1] == open_block["baseFeePerGas"]
    assert history["gasUsedRatio"][1] == int(open_block["gasUsed"], 16) / int(open_block["gasLimit"], 16)
    assert await wallet.call("eth_feeHistory", 0, "latest") == {"oldestBlock": "0x0", "gasUsedRatio": None}
    assert int(await wallet.call("eth_gasPrice"), 16) > 1_000_000
