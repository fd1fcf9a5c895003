"""Dropping what is stuck: at an execution client, at an ingress with all its pools, and through an rpc-node."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog

from actors.ingress import Ingress, Settings
from actors.rpc_client import RpcClient, RpcRefused
from actors.rpc_node import RpcNode
from actors.rpc_node import Settings as RpcNodeSettings
from flashblocks.execution.accounts import TEST_ACCOUNTS
from flashblocks.execution.keccak import keccak256
from flashblocks.wire.hexadecimal import data, to_bytes
from tests.actors.execution_driver import SECRET, running
from tests.actors.small_client import SmallClient, until
from tests.execution.forge import Forge

FORGE = Forge()
LOG = structlog.get_logger()
ALICE = data(TEST_ACCOUNTS[0].address)


@asynccontextmanager
async def operator_of(url: str) -> AsyncIterator[RpcClient]:
    client = RpcClient(url, jwt_secret=SECRET, timeout_s=20)
    yield client
    await client.close()


async def test_a_client_drops_for_whoever_has_the_token(tmp_path: Path) -> None:
    async with running(tmp_path, FORGE) as (component, driver):
        pool = component.client.pool
        first, second, other = await driver.send(FORGE.transfer(0, 0), FORGE.transfer(0, 1), FORGE.transfer(1, 0))
        for method, parameter in (("admin_dropTransaction", first), ("admin_dropSenderTransactions", ALICE)):
            with pytest.raises(RpcRefused, match=f"{method} is for operators: missing token"):
                await driver.rpc.call(method, parameter)
        assert len(pool) == 3
        async with operator_of(component.client.rpc_server.url) as operator:
            with pytest.raises(RpcRefused, match="wrong number of arguments for admin_clearTxpool"):
                await operator.call("admin_clearTxpool", 1)
            assert await operator.call("admin_dropTransaction", second) is True
            assert await operator.call("admin_dropTransaction", second) is False
        assert await driver.engine.call("admin_dropSenderTransactions", ALICE) == [first]
        assert await driver.engine.call("admin_clearTxpool") == 1
        assert len(pool) == 0 and other is not None
        with pytest.raises(RpcRefused) as refused:
            await driver.engine.call("admin_dropTransaction", "0x12")
        assert refused.value.code == -32602


async def test_what_a_flashblock_shows_is_not_dropped(tmp_path: Path) -> None:
    shown, waiting = FORGE.transfer(0, 0), FORGE.transfer(0, 1)
    made = FORGE.flashblocks(FORGE.block.header, FORGE.state, [[shown]])
    async with running(tmp_path, FORGE) as (_, driver):
        hashes = await driver.send(shown, waiting)
        await driver.apply_all(made, FORGE.block.hash)
        assert await driver.engine.call("admin_dropTransaction", hashes[0]) is False
        assert await driver.engine.call("admin_dropSenderTransactions", ALICE) == [hashes[1]]
        assert await driver.engine.call("admin_clearTxpool") == 0
        assert await driver.rpc.call("eth_getTransactionByHash", hashes[0]) is not None


@asynccontextmanager
async def ingress_before(
    directory: Path, *urls: str, secret: bool = True, name: str = "ingress-0"
) -> AsyncIterator[Ingress]:
    settings = Settings(
        name=name,
        port=0,
        data_dir=str(directory / name),
        target_urls=list(urls),
        execution_urls=list(urls[:1]),
        jwt_secret_path=str(directory / "jwt.hex") if secret else "",
        resend_after_ms=100,
    )
    made = Ingress(settings, LOG)
    await made.start()
    task = asyncio.create_task(made.run())
    try:
        yield made
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await made.close()


async def test_one_call_at_the_ingress_drops_everywhere_and_for_good(tmp_path: Path) -> None:
    async with running(tmp_path, FORGE) as (component, driver):
        pool, url = component.client.pool, component.client.rpc_server.url
        async with ingress_before(tmp_path, url) as ingress, operator_of(ingress.server.url) as operator:
            raws = [data(FORGE.transfer(account, nonce)) for account, nonce in ((0, 0), (0, 1), (1, 0), (2, 0))]
            hashes = [await operator.call("eth_sendRawTransaction", raw) for raw in raws]
            alone = (await driver.send(FORGE.transfer(0, 2)))[0]  # the ingress knows nothing of this one
            assert await operator.call("admin_dropTransaction", hashes[0]) is True
            assert await operator.call("admin_dropTransaction", hashes[0]) is False
            assert await operator.call("admin_dropSenderTransactions", ALICE) == [hashes[1], alone]
            assert await operator.call("ingress_nextNonce", ALICE, "0x0") == "0x0"
            stranger = RpcClient(ingress.server.url)
            with pytest.raises(RpcRefused, match="admin_clearTxpool is for operators: missing token"):
                await stranger.call("admin_clearTxpool")
            await stranger.close()
            await driver.engine.call("admin_dropTransaction", hashes[2])
            await until(lambda: to_bytes(hashes[2]) in pool, "what is dropped in one pool alone is sent again")
        assert {data(tx.hash) for tx in pool.transactions()} == set(hashes[2:])
        async with ingress_before(tmp_path, url) as again, operator_of(again.server.url) as operator:
            assert again.status()["held"] == 2, "a restart does not bring back what was dropped"
            assert await operator.call("admin_clearTxpool") == 2
            assert again.status()["held"] == len(pool) == 0
        async with ingress_before(tmp_path, url) as again:
            assert again.status()["held"] == 0


async def test_a_pool_that_cannot_drop_is_named(tmp_path: Path) -> None:
    foreign = SmallClient()
    await foreign.server.start()
    async with (
        running(tmp_path, FORGE) as (component, _),
        ingress_before(tmp_path, component.client.rpc_server.url, foreign.server.url) as ingress,
        operator_of(ingress.server.url) as operator,
    ):
        tx_hash = await operator.call("eth_sendRawTransaction", data(FORGE.transfer(0, 0)))
        with pytest.raises(RpcRefused, match=f"dropped here and in 1 of 2 pools; not in {foreign.server.url}"):
            await operator.call("admin_dropTransaction", tx_hash)
        assert ingress.status()["held"] == len(component.client.pool) == 0
    await foreign.server.close()


async def test_without_a_secret_an_ingress_has_no_such_methods(tmp_path: Path) -> None:
    async with ingress_before(tmp_path, "http://127.0.0.1:1", secret=False) as ingress:
        wallet = RpcClient(ingress.server.url)
        with pytest.raises(RpcRefused, match="does not exist"):
            await wallet.call("admin_clearTxpool")
        await wallet.close()


@asynccontextmanager
async def node_before(directory: Path, execution_url: str, *ingress_urls: str) -> AsyncIterator[RpcNode]:
    settings: dict[str, Any] = {"execution_urls": [execution_url], "ingress_urls": list(ingress_urls)}
    node = RpcNode(
        RpcNodeSettings(name="rpc-0", port=0, genesis_path=str(directory / "genesis.json"), stream_urls=[], **settings),
        LOG,
    )
    await node.start()
    task = asyncio.create_task(node.run())
    try:
        yield node
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await node.close()


@pytest.mark.parametrize("through", ["an ingress", "the clients"])
async def test_through_an_rpc_node_the_nonce_is_free_again(tmp_path: Path, through: str) -> None:
    async with running(tmp_path, FORGE) as (component, _):
        url = component.client.rpc_server.url
        async with ingress_before(tmp_path, url) as ingress:
            doors = [ingress.server.url] if through == "an ingress" else []
            async with node_before(tmp_path, url, *doors) as node, operator_of(node.server.url) as operator:
                raws = [data(FORGE.transfer(0, nonce)) for nonce in range(3)]
                hashes = [await operator.call("eth_sendRawTransaction", raw) for raw in raws]
                stranger = RpcClient(node.server.url)
                with pytest.raises(RpcRefused, match="is for operators"):
                    await stranger.call("admin_dropTransaction", hashes[0])
                assert await stranger.call("eth_getTransactionCount", ALICE, "pending") == "0x3"
                assert (await stranger.call("eth_getTransactionByHash", hashes[0]))["hash"] == hashes[0]
                assert await operator.call("admin_dropTransaction", hashes[2]) is True
                assert await stranger.call("eth_getTransactionCount", ALICE, "pending") == "0x2"
                assert await stranger.call("eth_getTransactionByHash", hashes[2]) is None
                assert await operator.call("admin_dropSenderTransactions", ALICE) == hashes[:2]
                assert await stranger.call("eth_getTransactionCount", ALICE, "pending") == "0x0"
                await operator.call("eth_sendRawTransaction", raws[0])
                assert await operator.call("admin_clearTxpool") == 1
                assert await stranger.call("eth_getTransactionCount", ALICE, "pending") == "0x0"
                await stranger.close()
        assert len(component.client.pool) == 0


async def test_what_waits_is_known_to_every_rpc_node(tmp_path: Path) -> None:
    async with running(tmp_path, FORGE) as (component, _):
        url = component.client.rpc_server.url
        async with (
            ingress_before(tmp_path, url) as ingress,
            node_before(tmp_path, url, ingress.server.url) as one,
            node_before(tmp_path, url, ingress.server.url) as other,
        ):
            raw = data(FORGE.transfer(0, 0))
            here, there = RpcClient(one.server.url), RpcClient(other.server.url)
            tx_hash = await here.call("eth_sendRawTransaction", raw)
            known = await there.call("eth_getTransactionByHash", tx_hash)
            assert (known["hash"], known["blockNumber"]) == (tx_hash, None)
            assert await there.call("eth_getRawTransactionByHash", tx_hash) == raw
            assert await there.call("eth_getTransactionByHash", "0x" + "11" * 32) is None
            assert await there.call("base_transactionStatus", tx_hash) == {"status": "Known"}
            await asyncio.gather(here.close(), there.close())


async def test_nonces_that_wait_at_several_ingresses_are_counted_together(tmp_path: Path) -> None:
    async with running(tmp_path, FORGE) as (component, _):
        url = component.client.rpc_server.url
        async with (
            ingress_before(tmp_path, url) as first,
            ingress_before(tmp_path, url, name="ingress-1") as second,
            node_before(tmp_path, url, "http://127.0.0.1:1", first.server.url, second.server.url) as node,
        ):
            for nonce, ingress in enumerate((first, first, second)):
                sender = RpcClient(ingress.server.url)
                await sender.call("eth_sendRawTransaction", data(FORGE.transfer(0, nonce)))
                await sender.close()
            wallet = RpcClient(node.server.url)
            assert await wallet.call("eth_getTransactionCount", ALICE, "pending") == "0x3"
            last = await wallet.call("eth_getTransactionByHash", data(keccak256(FORGE.transfer(0, 2))))
            assert last["nonce"] == "0x2"
            await wallet.close()
