"""The ingress on real sockets, in front of small execution clients that have the product's own pool."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
import structlog
from eth_account import Account

from actors.frame_link import FrameServer
from actors.handover_link import HandoverPort
from actors.ingress import Ingress, Settings
from actors.pool_intake import PoolIntake
from actors.rpc_client import RpcClient, RpcRefused
from actors.rpc_server import RpcServer
from flashblocks.execution.accounts import TEST_ACCOUNTS
from flashblocks.execution.errors import InvalidTransaction
from flashblocks.execution.genesis import default_genesis, load_genesis
from flashblocks.execution.pool import TransactionPool
from flashblocks.execution.pool_rules import PoolHead, decode_for_pool
from flashblocks.execution.transaction import Transaction, recover_sender
from flashblocks.ingress import handover
from flashblocks.wire.flashblock import (
    Flashblock,
    FlashblockDiff,
    FlashblockMetadata,
    FlashblockReceipt,
    encode_body,
)
from flashblocks.wire.frames import frame_of
from flashblocks.wire.hexadecimal import data, quantity, to_bytes
from flashblocks.wire.jsonrpc import RpcError

LOG = structlog.get_logger()
KEY = TEST_ACCOUNTS[0].private_key


def raw(nonce: int = 0, **changes: Any) -> str:
    fields = {
        "chainId": 901,
        "nonce": nonce,
        "gas": 21_000,
        "maxFeePerGas": 10**9,
        "maxPriorityFeePerGas": 1_000,
        "to": "0x" + "22" * 20,
        "value": 5,
        "type": 2,
    } | changes
    return data(bytes(Account.sign_transaction(fields, KEY).raw_transaction))


class SmallClient:
    """An execution client as the ingress sees one: a pool, accounts at the genesis block, sealed blocks by number."""

    def __init__(self, port: int = 0, *, linked: bool = True, secret: bytes | None = None) -> None:
        self.spec, self.genesis, self.state = load_genesis(default_genesis())
        self.pool = TransactionPool(self.spec, PoolHead.of(self.spec, self.genesis.header, self.state))
        self.recovered = 0
        intake = PoolIntake(self.pool, self.recover, lambda tx_hash: None, believes=secret is not None)
        self.blocks: list[list[str]] = [[]]
        self.server = RpcServer(
            "127.0.0.1",
            port,
            {
                "eth_chainId": self.chain_id,
                "eth_getBlockByNumber": self.block,
                "eth_getTransactionCount": self.nonce,
                "eth_getBalance": self.balance,
                "eth_sendRawTransaction": self.send,
            },
            name="small client",
            log=LOG,
            links={handover.PATH: HandoverPort(intake.take, secret)} if linked else {},
        )

    async def recover(self, transactions: Sequence[Transaction]) -> None:
        self.recovered += len(transactions)
        for transaction in transactions:
            recover_sender(transaction)

    async def chain_id(self) -> str:
        return quantity(self.spec.chain_id)

    async def block(self, tag: str, full: bool) -> dict[str, Any] | None:
        number = len(self.blocks) - 1 if tag == "latest" else int(tag, 16)
        header = self.genesis.header
        return {
            "number": quantity(number),
            "gasLimit": quantity(header.gas_limit),
            "baseFeePerGas": quantity(header.base_fee_per_gas),
            "transactions": self.blocks[number],
        }

    async def nonce(self, address: str, tag: str) -> str:
        return quantity(self.state.nonce(to_bytes(address)))

    async def balance(self, address: str, tag: str) -> str:
        return quantity(self.state.balance(to_bytes(address)))

    async def send(self, encoded: str) -> str:
        try:
            transaction = decode_for_pool(to_bytes(encoded))
            self.pool.add(transaction, time.monotonic())
        except InvalidTransaction as error:
            raise RpcError(-32000, str(error)) from None
        return data(transaction.hash)


async def until(condition: Any, what: str) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 – facts of a real process, there is no event
            await asyncio.sleep(0.01)
    assert condition(), what


@pytest.fixture(params=[True, False], ids=["linked", "plain"])
def linked(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
async def clients(linked: bool) -> AsyncIterator[list[SmallClient]]:
    made = [SmallClient(linked=linked), SmallClient(linked=linked)]
    for client in made:
        await client.server.start()
    yield made
    for client in made:
        await client.server.close()


@pytest.fixture
async def stream() -> AsyncIterator[FrameServer]:
    server = FrameServer("127.0.0.1", 0, "/ws")
    await server.start()
    yield server
    await server.close()


@pytest.fixture
async def ingress(clients: list[SmallClient], stream: FrameServer, linked: bool) -> AsyncIterator[Ingress]:
    urls = [client.server.url for client in clients]
    settings = Settings(
        name="ingress-0",
        port=0,
        target_urls=urls,
        stream_urls=[f"ws://127.0.0.1:{stream.port}/ws"],
        execution_urls=urls,
        resend_after_ms=300,
        per_sender_burst=50,
        per_sender_rate=0.001,
    )
    made = Ingress(settings, LOG)
    await made.start()
    running = asyncio.create_task(made.run())
    await until(lambda: stream.peers, "the ingress follows the stream")
    if linked:
        await until(lambda: all(target["up"] for target in made.status()["targets"].values()), "the links are there")
    yield made
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await made.close()


@pytest.fixture
async def wallet(ingress: Ingress) -> AsyncIterator[RpcClient]:
    client = RpcClient(ingress.server.url, timeout_s=5)
    yield client
    await client.close()


async def test_a_transaction_reaches_every_pool(wallet: RpcClient, clients: list[SmallClient]) -> None:
    tx_hash = await wallet.call("eth_sendRawTransaction", raw())
    await until(lambda: all(to_bytes(tx_hash) in client.pool for client in clients), "every pool has it")
    assert await wallet.call("eth_chainId") == "0x385"
    assert await wallet.call("net_version") == "901"
    assert await wallet.call("ingress_nextNonce", data(TEST_ACCOUNTS[0].address), "0x0") == "0x1"
    assert await wallet.call("ingress_getTransaction", tx_hash) == raw()


@pytest.mark.parametrize(
    ("encoded", "code", "text"),
    [
        ("0x02", -32000, "rlp"),
        ("rubbish", -32602, ""),
        (raw(chainId=1), -32000, "invalid chain id for signer: have 1 want 901"),
        (raw(value=10**30), -32000, "insufficient funds for gas * price + value: balance"),
        (raw(nonce=5_000), -32000, "nonce too high"),
        (raw(maxFeePerGas=1, maxPriorityFeePerGas=1), -32000, "max fee per gas less than block base fee"),
        (raw(gas=20_000), -32000, "intrinsic gas too low: gas 20000, minimum needed 21000"),
    ],
)
async def test_what_is_wrong_is_said_in_a_clients_words(
    wallet: RpcClient, clients: list[SmallClient], encoded: str, code: int, text: str
) -> None:
    with pytest.raises(RpcRefused) as refused:
        await wallet.call("eth_sendRawTransaction", encoded)
    assert refused.value.code == code
    assert text in refused.value.message
    assert all(len(client.pool) == 0 for client in clients)


async def test_the_same_again_is_already_known(wallet: RpcClient) -> None:
    await wallet.call("eth_sendRawTransaction", raw())
    with pytest.raises(RpcRefused, match="already known"):
        await wallet.call("eth_sendRawTransaction", raw())


async def test_one_dead_target_delays_nobody(wallet: RpcClient, clients: list[SmallClient]) -> None:
    await clients[0].server.close()
    tx_hash = await wallet.call("eth_sendRawTransaction", raw())
    assert to_bytes(tx_hash) in clients[1].pool


async def test_a_restarted_pool_gets_everything_again(
    wallet: RpcClient, ingress: Ingress, clients: list[SmallClient], linked: bool
) -> None:
    hashes = [await wallet.call("eth_sendRawTransaction", raw(nonce)) for nonce in range(5)]
    port = clients[0].server.port
    await clients[0].server.close()
    await until(lambda: not ingress.status()["targets"][f"http://127.0.0.1:{port}"]["up"], "the death is noticed")
    clients[0] = SmallClient(port, linked=linked)
    await clients[0].server.start()
    await until(lambda: all(to_bytes(tx_hash) in clients[0].pool for tx_hash in hashes), "the new pool has all five")


async def test_shown_by_the_stream_it_is_sent_no_more_and_sealed_it_is_forgotten(
    wallet: RpcClient, ingress: Ingress, clients: list[SmallClient], stream: FrameServer
) -> None:
    tx_hash = await wallet.call("eth_sendRawTransaction", raw())
    diff = FlashblockDiff(bytes(32), bytes(32), bytes(256), 21_000, bytes(32), (to_bytes(raw()),), bytes(32))
    metadata = FlashblockMetadata(
        1, {TEST_ACCOUNTS[0].address: 7}, {to_bytes(tx_hash): FlashblockReceipt(2, 1, 21_000)}
    )
    flashblock = Flashblock(bytes(8), 1, None, diff, metadata)
    stream.publish(frame_of(flashblock, encode_body(flashblock), bytes(32), epoch=1))
    await until(lambda: ingress.status()["number"] == 1, "the flashblock is seen")
    with pytest.raises(RpcRefused, match="nonce too low: next nonce 1, tx nonce 0"):
        await wallet.call("eth_sendRawTransaction", raw(value=6))
    with pytest.raises(RpcRefused, match="insufficient funds for gas \\* price \\+ value: balance 7"):
        await wallet.call("eth_sendRawTransaction", raw(1))
    for client in clients:
        client.blocks.append([tx_hash])
    await until(lambda: ingress.status()["held"] == 0, "the sealed block ends it")


async def test_what_no_block_takes_is_sent_again(
    wallet: RpcClient, ingress: Ingress, clients: list[SmallClient]
) -> None:
    tx_hash = to_bytes(await wallet.call("eth_sendRawTransaction", raw()))
    await until(lambda: all(tx_hash in client.pool for client in clients), "the pools have it")
    for client in clients:
        client.pool.remove(tx_hash)
    await until(lambda: all(tx_hash in client.pool for client in clients), "the pools have it again")


async def test_limits_per_sender_answer_with_their_own_code(wallet: RpcClient) -> None:
    for nonce in range(50):
        await wallet.call("eth_sendRawTransaction", raw(nonce))
    with pytest.raises(RpcRefused) as refused:
        await wallet.call("eth_sendRawTransaction", raw(50))
    assert refused.value.code == -32005


async def test_ready_only_with_a_target(wallet: RpcClient, ingress: Ingress, clients: list[SmallClient]) -> None:
    await wallet.call("eth_sendRawTransaction", raw())
    await until(lambda: ingress.status()["health"] == "ready", "ready")
    assert (await wallet.get("/readyz"))[0] == 200
    for client in clients:
        await client.server.close()
    await until(lambda: ingress.status()["health"] == "not ready", "not ready")
    assert (await wallet.get("/readyz"))[0] == 503
