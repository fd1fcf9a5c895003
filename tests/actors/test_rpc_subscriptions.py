"""Subscriptions, filters and synchronous sending of the rpc-node, over a real WebSocket."""

import asyncio
import io
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
import websockets

from actors.rpc_client import RpcClient, RpcRefused
from actors.rpc_node import RpcNode
from chaos.erc20 import DEPLOY_GAS, deployment_code, transfer_data
from flashblocks.execution.accounts import TEST_ACCOUNTS
from flashblocks.execution.signing import sign_transaction
from flashblocks.wire.hexadecimal import data
from flashblocks.wire.keccak import keccak256
from tests.actors.one_sequencer import OneSequencer, node_behind, until

ALICE = TEST_ACCOUNTS[0]
TRANSFER_TOPIC = data(keccak256(b"Transfer(address,address,uint256)"))
TOKEN = bytes.fromhex("5fbdb2315678afecb367f032d93f642f64180aa3")  # Alice's first contract


class Socket:
    """A WebSocket client: calls, and notifications by subscription."""

    def __init__(self, connection: websockets.ClientConnection) -> None:
        self._connection = connection
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self.notified: dict[str, list[Any]] = defaultdict(list)
        self._reader = asyncio.create_task(self._read())
        self._next = 0

    async def _read(self) -> None:
        async for message in self._connection:
            obj = orjson.loads(message)
            if "id" in obj:
                self._answers.pop(obj["id"]).set_result(obj)
            else:
                self.notified[obj["params"]["subscription"]].append(obj["params"]["result"])

    async def call(self, method: str, *params: Any) -> Any:
        self._next += 1
        answer = self._answers[self._next] = asyncio.get_running_loop().create_future()
        await self._connection.send(
            orjson.dumps({"jsonrpc": "2.0", "id": self._next, "method": method, "params": params}).decode()
        )
        obj = await answer
        if "error" in obj:
            raise RpcRefused(obj["error"]["code"], obj["error"]["message"], obj["error"].get("data"))
        return obj["result"]

    async def close(self) -> None:
        await self._connection.close()
        await self._reader


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
async def socket(node: RpcNode) -> AsyncIterator[Socket]:
    made = Socket(await websockets.connect(f"ws://127.0.0.1:{node.server.port}"))
    yield made
    await made.close()


def deployment() -> bytes:
    return sign_transaction(
        ALICE.private_key,
        chain_id=901,
        nonce=0,
        to=None,
        data=deployment_code(),
        gas_limit=DEPLOY_GAS,
        max_fee_per_gas=10**10,
        max_priority_fee_per_gas=10**6,
    )


def token_transfer(nonce: int, amount: int) -> bytes:
    return sign_transaction(
        ALICE.private_key,
        chain_id=901,
        nonce=nonce,
        to=TOKEN,
        data=transfer_data(TEST_ACCOUNTS[9].address, amount),
        gas_limit=90_000,
        max_fee_per_gas=10**10,
        max_priority_fee_per_gas=10**6,
    )


async def test_every_kind_emits_what_it_says(socket: Socket, sequencer: OneSequencer) -> None:
    kinds = {
        "heads": ("newHeads",),
        "logs": ("logs", {"address": data(TOKEN), "topics": [TRANSFER_TOPIC]}),
        "pool": ("newPendingTransactions",),
        "blocks": ("newFlashblocks",),
        "pending logs": ("pendingLogs", {"topics": [TRANSFER_TOPIC]}),
        "other logs": ("pendingLogs", {"topics": ["0x" + "11" * 32]}),
        "hashes": ("newFlashblockTransactions",),
        "full": ("newFlashblockTransactions", True),
    }
    ids = {name: await socket.call("eth_subscribe", *arguments) for name, arguments in kinds.items()}

    def got(name: str) -> list[Any]:
        return socket.notified[ids[name]]

    sequencer.begin()
    sequencer.flashblock(deployment(), token_transfer(1, 10))
    sequencer.flashblock(token_transfer(2, 20))
    await until(lambda: len(got("blocks")) == 3, "three flashblocks")
    assert [len(block["transactions"]) for block in got("blocks")] == [1, 3, 4]
    assert all(isinstance(transaction, dict) for transaction in got("blocks")[-1]["transactions"])
    assert [int(log["data"], 16) for log in got("pending logs")] == [10, 20]
    assert [log["logIndex"] for log in got("pending logs")] == ["0x0", "0x1"]
    assert got("other logs") == []
    assert len(got("hashes")) == 4
    assert [transaction["hash"] for transaction in got("full")] == got("hashes")
    assert len(got("full")[2]["logs"]) == 1
    assert got("pool") == got("hashes")[1:]  # the deposit was never pending
    assert got("heads") == []
    sealed = await sequencer.seal()
    sequencer.begin()
    await until(lambda: len(got("heads")) == 1, "a head")
    assert got("heads")[0]["hash"] == data(sealed.header.hash)
    assert [int(log["data"], 16) for log in got("logs")] == [10, 20]
    assert got("logs")[0]["blockHash"] == data(sealed.header.hash)


async def test_a_withdrawn_preconfirmation_is_told(socket: Socket, node: RpcNode, sequencer: OneSequencer) -> None:
    logs = await socket.call("eth_subscribe", "pendingLogs")
    full = await socket.call("eth_subscribe", "newFlashblockTransactions", True)
    gone = await socket.call("eth_subscribe", "flashblockInvalidations")
    header, state = sequencer.parent()
    empty = sequencer.forge.seal(header, state)
    sequencer.begin()
    sequencer.flashblock(deployment(), token_transfer(1, 10))
    await until(lambda: socket.notified[logs], "the log is shown")
    await sequencer.seal_instead(empty)
    sequencer.begin()
    await until(lambda: socket.notified[gone], "the withdrawal is told")
    (told,) = socket.notified[gone]
    assert (told["blockNumber"], told["divergent"], told["sealedHash"]) == ("0x1", True, data(empty.header.hash))
    assert told["transactions"] == [data(keccak256(deployment())), data(keccak256(token_transfer(1, 10)))]
    await until(lambda: len(socket.notified[logs]) == 2, "the log is removed")
    assert [log["removed"] for log in socket.notified[logs]] == [False, True]
    removed = [transaction["hash"] for transaction in socket.notified[full] if transaction.get("removed")]
    assert removed == told["transactions"]


async def test_unsubscribing_and_leaving_end_a_subscription(node: RpcNode, socket: Socket) -> None:
    name = await socket.call("eth_subscribe", "newHeads")
    assert await socket.call("eth_unsubscribe", name) is True
    assert await socket.call("eth_unsubscribe", name) is False
    other = Socket(await websockets.connect(f"ws://127.0.0.1:{node.server.port}"))
    await other.call("eth_subscribe", "newHeads")
    assert node._subscriber._count == 1
    await other.close()
    await until(lambda: node._subscriber._count == 0, "the session's subscriptions end with it")
    assert node._subscriber._shared == {}


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("nothing",), -32601),
        (("logs", {"address": "0x12"}), -32602),
        (("newFlashblockTransactions", "yes"), -32602),
    ],
)
async def test_a_wrong_subscription_is_refused(socket: Socket, arguments: tuple[Any, ...], code: int) -> None:
    with pytest.raises(RpcRefused) as refused:
        await socket.call("eth_subscribe", *arguments)
    assert refused.value.code == code


async def test_subscribing_needs_a_websocket(node: RpcNode) -> None:
    client = RpcClient(node.server.url)
    with pytest.raises(RpcRefused) as refused:
        await client.call("eth_subscribe", "newHeads")
    assert refused.value.code == -32601
    await client.close()


async def test_sending_and_waiting_answers_with_the_preconfirmed_receipt(
    node: RpcNode, sequencer: OneSequencer
) -> None:
    client = RpcClient(node.server.url, timeout_s=10)
    sequencer.begin()
    raw = data(sequencer.forge.transfer(0, 0))
    waiting = asyncio.create_task(client.call("eth_sendRawTransactionSync", raw))
    await until(lambda: len(sequencer.el.client.pool), "the pool has it")
    sequencer.flashblock()
    receipt = await waiting
    assert (receipt["blockNumber"], receipt["status"]) == ("0x1", "0x1")
    again = await client.call("eth_sendRawTransactionSync", raw, 1)
    assert again == receipt
    await client.close()


async def test_sending_and_waiting_in_vain_has_the_codes_of_the_eip(node: RpcNode, sequencer: OneSequencer) -> None:
    client = RpcClient(node.server.url, timeout_s=10)
    sequencer.begin()
    raw = sequencer.forge.transfer(0, 0)
    with pytest.raises(RpcRefused, match=r"wasn't processed in 0\.05s") as timed_out:
        await client.call("eth_sendRawTransactionSync", data(raw), "0x32")
    assert (timed_out.value.code, timed_out.value.data) == (4, data(keccak256(raw)))
    gap = sequencer.forge.transfer(0, 5)
    with pytest.raises(RpcRefused, match="nonce 1 is missing") as not_ready:
        await client.call("eth_sendRawTransactionSync", data(gap))
    assert (not_ready.value.code, not_ready.value.data) == (5, data(keccak256(gap)))
    await client.close()


async def test_polled_filters(node: RpcNode, sequencer: OneSequencer) -> None:
    client = RpcClient(node.server.url, timeout_s=10)
    blocks = await client.call("eth_newBlockFilter")
    logs = await client.call("eth_newFilter", {"address": data(TOKEN)})
    pending = await client.call("eth_newFilter", {"address": data(TOKEN), "toBlock": "pending"})
    pool = await client.call("eth_newPendingTransactionFilter")
    sequencer.begin()
    sequencer.flashblock(deployment(), token_transfer(1, 10))
    await until(lambda: (s := node.follower.pending()) and s.index == 1, "pending")
    assert len(await client.call("eth_getFilterChanges", pending)) == 1
    assert len(await client.call("eth_getFilterChanges", pool)) == 2
    assert await client.call("eth_getFilterChanges", logs) == []
    sealed = await sequencer.seal()
    sequencer.begin()
    await until(lambda: node.follower.chain.head.number == 1, "sealed")
    assert await client.call("eth_getFilterChanges", blocks) == [data(sealed.header.hash)]
    assert await client.call("eth_getFilterChanges", blocks) == []
    assert len(await client.call("eth_getFilterChanges", logs)) == 1
    assert len(await client.call("eth_getFilterLogs", logs)) == 1
    assert await client.call("eth_uninstallFilter", blocks) is True
    with pytest.raises(RpcRefused, match="filter not found"):
        await client.call("eth_getFilterChanges", blocks)
    await client.close()


async def test_logs_from_pending_on_are_those_of_the_open_block_alone(node: RpcNode, sequencer: OneSequencer) -> None:
    client = RpcClient(node.server.url, timeout_s=10)
    sequencer.begin()
    sequencer.flashblock(deployment(), token_transfer(1, 10))
    await sequencer.seal()
    sequencer.begin()
    sequencer.flashblock(token_transfer(2, 20))
    await until(lambda: (s := node.follower.pending()) and (s.number, s.index) == (2, 1), "pending")

    async def amounts(**criteria: str) -> list[int]:
        return [int(log["data"], 16) for log in await client.call("eth_getLogs", criteria)]

    assert await amounts(fromBlock="0x0", toBlock="pending") == [10, 20]
    assert await amounts(fromBlock="0x0") == [10]
    assert await amounts(fromBlock="pending", toBlock="pending") == await amounts(fromBlock="pending") == [20]
    with pytest.raises(RpcRefused, match="invalid block range"):
        await amounts(fromBlock="pending", toBlock="latest")
    filtered = await client.call("eth_newFilter", {"fromBlock": "pending"})
    sequencer.flashblock(token_transfer(3, 30))
    await until(lambda: (s := node.follower.pending()) and s.index == 2, "pending again")
    assert [int(log["data"], 16) for log in await client.call("eth_getFilterChanges", filtered)] == [30]
    await client.close()


async def test_http_manners(node: RpcNode) -> None:
    """Batches, CORS, sizes and parse errors as browsers and libraries expect them."""
    async with aiohttp.ClientSession() as session:
        batch = [{"jsonrpc": "2.0", "id": n, "method": "eth_chainId", "params": []} for n in range(3)]
        async with session.post(node.server.url, json=batch) as answer:
            assert [each["id"] for each in await answer.json()] == [0, 1, 2]
            assert answer.headers["Access-Control-Allow-Origin"] == "*"
        async with session.options(node.server.url) as preflight:
            assert preflight.status == 204
            assert "Content-Type" in preflight.headers["Access-Control-Allow-Headers"]
        async with session.post(node.server.url, data=b"{") as broken:
            assert (await broken.json())["error"]["code"] == -32700
        async with session.post(node.server.url, data=io.BytesIO(bytes(6 * 1024 * 1024))) as large:
            assert large.status == 413


async def test_too_many_calls_from_one_address_are_refused(sequencer: OneSequencer) -> None:
    async with node_behind(sequencer, per_ip_rate=0.001, per_ip_burst=3) as node:
        client = RpcClient(node.server.url)
        for _ in range(3):
            await client.call("eth_chainId")
        with pytest.raises(RpcRefused) as refused:
            await client.call("eth_chainId")
        assert refused.value.code == -32005
        await client.close()


@pytest.mark.parametrize("trusted", [True, False])
async def test_who_calls_is_what_a_trusted_hop_says_and_no_other(sequencer: OneSequencer, trusted: bool) -> None:
    hops = ("127.0.0.1",) if trusted else ("10.0.0.9",)
    async with node_behind(sequencer, per_ip_rate=0.001, per_ip_burst=1, trusted_proxy_addresses=hops) as node:
        client = RpcClient(node.server.url)
        refused = 0
        for said in ("10.0.0.1", "1.1.1.1, 10.0.0.2", "10.0.0.2"):
            try:
                await client.call("eth_chainId", headers={"X-Forwarded-For": said})
            except RpcRefused:
                refused += 1
        assert refused == (1 if trusted else 2)
        await client.close()
