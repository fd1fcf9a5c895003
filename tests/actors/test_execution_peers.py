"""Several execution clients as one: the living are asked, the dead avoided, refusals passed on."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import structlog

from actors.execution_peers import ExecutionPeers, call_batch
from actors.rpc_client import RpcRefused, RpcUnknown
from actors.rpc_server import RpcServer
from flashblocks.wire.jsonrpc import RpcError


class Client:
    def __init__(self, name: str) -> None:
        self.asked = 0

        async def who() -> str:
            self.asked += 1
            return name

        async def refuse() -> Any:
            raise RpcError(-39001, "no such block")

        self.server = RpcServer("127.0.0.1", 0, {"who": who, "refuse": refuse}, name=name, log=structlog.get_logger())


@pytest.fixture
async def clients() -> AsyncIterator[list[Client]]:
    made = [Client("a"), Client("b")]
    for client in made:
        await client.server.start()
    yield made
    for client in made:
        await client.server.close()


@pytest.fixture
async def peers(clients: list[Client]) -> AsyncIterator[ExecutionPeers]:
    made = ExecutionPeers([client.server.url for client in clients])
    yield made
    await made.close()


async def test_they_are_asked_in_turn(peers: ExecutionPeers, clients: list[Client]) -> None:
    answers = [await peers.call("who") for _ in range(4)]
    assert sorted(answers) == ["a", "a", "b", "b"]


async def test_a_dead_one_is_passed_over_and_then_avoided(peers: ExecutionPeers, clients: list[Client]) -> None:
    dead = clients[0].server.url
    await clients[0].server.close()
    assert [await peers.call("who") for _ in range(4)] == ["b"] * 4
    assert peers.in_turn()[-1] == dead


async def test_nobody_there_is_unknown_and_a_refusal_is_a_refusal(peers: ExecutionPeers, clients: list[Client]) -> None:
    with pytest.raises(RpcRefused) as refused:
        await peers.call("refuse")
    assert refused.value.code == -39001
    for client in clients:
        await client.server.close()
    with pytest.raises(RpcUnknown):
        await peers.call("who")
    with pytest.raises(RpcUnknown):
        await ExecutionPeers([]).call("who")


async def test_a_batch_answers_call_by_call(peers: ExecutionPeers, clients: list[Client]) -> None:
    answers = await call_batch(peers.client(clients[0].server.url), [("who", ()), ("refuse", ()), ("nothing", ())])
    assert answers[0] == ("a", None)
    codes = [answer[1]["code"] for answer in answers[1:] if answer is not None and answer[1] is not None]
    assert codes == [-39001, -32601]
    assert await peers.call_many([("who", ()), ("who", ())]) in (["a", "a"], ["b", "b"])
