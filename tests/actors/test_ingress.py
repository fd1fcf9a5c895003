"""The ingress on real sockets, in front of small execution clients that have the product's own pool."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import structlog

from actors.frame_link import FrameServer
from actors.handover_link import HandoverClient
from actors.ingress import Ingress, Settings
from actors.rpc_client import RpcClient, RpcRefused
from flashblocks.execution.accounts import TEST_ACCOUNTS
from flashblocks.wire.flashblock import (
    Flashblock,
    FlashblockDiff,
    FlashblockMetadata,
    FlashblockReceipt,
    encode_body,
)
from flashblocks.wire.frames import frame_of
from flashblocks.wire.hexadecimal import data, to_bytes
from tests.actors.small_client import SmallClient, raw, until

LOG = structlog.get_logger()


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


async def test_what_is_being_taken_in_at_once_is_bounded(clients: list[SmallClient]) -> None:
    deaf = asyncio.Event()

    async def hang(*_: Any) -> None:
        await deaf.wait()

    for client in clients:
        client.server.methods["eth_getTransactionCount"] = hang
    settings = Settings(
        name="ingress-0", port=0, target_urls=[client.server.url for client in clients], admissions_max=1
    )
    ingress = Ingress(settings, LOG)
    await ingress.start()
    running = asyncio.create_task(ingress.run())
    wallet = RpcClient(ingress.server.url, timeout_s=20)
    first = asyncio.create_task(wallet.call("eth_sendRawTransaction", raw()))
    await until(lambda: ingress.admitting == 1, "the first is being taken in")
    with pytest.raises(RpcRefused, match="the ingress is busy: 1 transactions are being taken in") as refused:
        await wallet.call("eth_sendRawTransaction", raw(1))
    assert refused.value.code == -32005
    deaf.set()
    assert await first, "nothing is known of the account, so the pools judge"
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await wallet.close()
    await ingress.close()


async def test_over_a_link_each_wallet_has_its_own_limit(clients: list[SmallClient]) -> None:
    settings = Settings(
        name="ingress-0",
        port=0,
        target_urls=[client.server.url for client in clients],
        per_ip_rate=0.001,
        per_ip_burst=1,
    )
    ingress = Ingress(settings, LOG)
    await ingress.start()
    running = asyncio.create_task(ingress.run())
    up = asyncio.Event()
    link = HandoverClient(ingress.server.url, lambda _: up.set())
    link.start()
    await asyncio.wait_for(up.wait(), 10)
    wallets = ["10.0.0.1", "10.0.0.2", "10.0.0.1"]
    asked = link.hand_over([(to_bytes(raw(nonce)), b"", wallet, True) for nonce, wallet in enumerate(wallets)])
    outcomes = await asyncio.wait_for(asked, 20)
    assert [outcome.code for outcome in outcomes] == [0, 0, -32005]
    assert "too many transactions from this address" in outcomes[2].message
    await link.close()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await ingress.close()
