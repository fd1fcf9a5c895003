"""web3.py as a user runs it, against an edge that works by the clock."""

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest
from web3 import AsyncWeb3, Web3, WebSocketProvider
from web3.exceptions import Web3RPCError

from tests.clients.first_transaction import Walk, first_transactions
from tests.clients.live_edge import LiveEdge, live_edge

SECOND_KEY = "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d"
THIRD_KEY = "0x5de4111afa1a4b94908f83103eb1f1706367c2e68ca870fc3fb9a804cdab365a"


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveEdge]:
    with live_edge(tmp_path_factory.mktemp("edge")) as made:
        yield made


def test_a_new_users_first_transactions(edge: LiveEdge) -> None:
    report = first_transactions(edge.url, count=8)
    print(report)
    assert report["chain_id"] == 901
    assert report["sealed_blocks"] >= 1


def test_everything_web3_asks_of_a_node(edge: LiveEdge) -> None:
    web3 = Web3(Web3.HTTPProvider(edge.url))
    assert web3.client_version.startswith("flashblocks/")
    assert web3.net.version == "901"
    assert web3.eth.syncing is False
    history = web3.eth.fee_history(4, "latest", [10, 50, 90])
    assert len(history["baseFeePerGas"]) == len(history["gasUsedRatio"]) + 1
    block = web3.eth.get_block("pending", full_transactions=True)
    assert block["number"] == web3.eth.block_number + 1 or block["number"] == web3.eth.block_number
    head = web3.eth.get_block("latest")
    assert web3.eth.get_block(head["hash"])["number"] == head["number"]
    deposit = web3.eth.get_transaction_by_block(head["number"], 0)
    assert deposit["type"] == 0x7E
    assert web3.eth.get_transaction_receipt(deposit["hash"])["blockHash"] == head["hash"]
    assert web3.eth.get_logs({"fromBlock": 0, "toBlock": "pending"}) is not None


def test_errors_are_those_of_other_nodes(edge: LiveEdge) -> None:
    web3 = Web3(Web3.HTTPProvider(edge.url))
    account = web3.eth.account.from_key(THIRD_KEY)
    transaction = {"to": account.address, "value": 10**30, "gas": 21_000, "nonce": 0, "chainId": 901, "gasPrice": 10**9}
    with pytest.raises(Web3RPCError, match="insufficient funds for gas"):
        web3.eth.send_raw_transaction(account.sign_transaction(transaction).raw_transaction)
    with pytest.raises(Web3RPCError, match="invalid chain id"):
        signed = account.sign_transaction(transaction | {"chainId": 1, "value": 1})
        web3.eth.send_raw_transaction(signed.raw_transaction)


def test_a_dying_leader_is_not_noticed_by_a_wallet(edge: LiveEdge) -> None:
    """For a second nothing is shown, then the next leader goes on in the same block: no error, nothing lost."""
    walk = Walk(edge.url, SECOND_KEY)
    edge.pause(1.0)
    seconds = [took for _ in range(4) for took in walk.transfers(2)]
    walk.check_sealed()
    assert len(seconds) == 8


async def test_subscriptions_over_a_websocket(edge: LiveEdge) -> None:
    seen: list[Any] = []
    async with AsyncWeb3(WebSocketProvider(edge.ws_url)) as web3:
        await web3.eth.subscribe("newHeads")
        deadline = time.monotonic() + 15
        async for message in web3.socket.process_subscriptions():
            seen.append(message["result"]["number"])
            if len(seen) == 2 or time.monotonic() > deadline:
                break
    assert seen[1] == seen[0] + 1
    await asyncio.sleep(0)
