"""The JSON-RPC server and client on real sockets, and the lifeline between them."""

import asyncio
import secrets
import time

import aiohttp
import orjson
import pytest
import structlog

from actors import rpc_server
from actors.lifeline import Lifeline
from actors.rpc_client import RpcClient, RpcRefused, RpcUnknown
from actors.rpc_server import Probes, RpcServer
from flashblocks.wire.hexadecimal import to_int
from flashblocks.wire.jsonrpc import RpcError
from flashblocks.wire.jwt import make_token

LOG = structlog.get_logger()


async def add(a, b):
    return to_int(a) + to_int(b)


async def fail():
    raise RuntimeError("our bug")


async def refuse():
    raise RpcError(-32000, "nonce too low", {"nonce": 3})


async def subscribe(session, kind):
    session.notify("eth_subscription", {"subscription": "0x1", "result": kind})
    return "0x1"


@pytest.fixture
async def server():
    methods = {"add": add, "fail": fail, "refuse": refuse}
    server = RpcServer("127.0.0.1", 0, methods, name="test", log=LOG, session_methods={"subscribe": subscribe})
    await server.start()
    yield server
    await server.close()


@pytest.fixture
async def client(server):
    client = RpcClient(server.url, timeout_s=5)
    yield client
    await client.close()


async def post(server, body):
    async with aiohttp.ClientSession() as session, session.post(server.url, data=body) as response:
        return await response.json(), response.status


async def test_a_call_is_answered(client):
    assert await client.call("add", "0x1", 2) == 3


async def test_the_peers_error_comes_back_with_code_and_data(client):
    with pytest.raises(RpcRefused) as caught:
        await client.call("refuse")
    assert (caught.value.code, caught.value.message, caught.value.data) == (-32000, "nonce too low", {"nonce": 3})


@pytest.mark.parametrize(
    ("method", "params", "code"),
    [("nothing", [], -32601), ("add", [], -32602), ("add", ["0x1", "zz"], -32602), ("fail", [], -32603)],
)
async def test_each_fault_has_its_code(client, method, params, code):
    with pytest.raises(RpcRefused) as caught:
        await client.call(method, *params)
    assert caught.value.code == code


async def test_garbage_is_a_parse_error_and_counted(server):
    obj, status = await post(server, b"{")
    assert (status, obj["error"]["code"]) == (200, -32700)
    async with aiohttp.ClientSession() as session, session.get(server.url + "/metrics") as response:
        assert 'flashblocks_rpc_errors_total{code="-32700"} 1.0' in await response.text()


async def test_a_batch_is_answered_in_order_without_its_notifications(server):
    calls = [
        {"jsonrpc": "2.0", "id": 1, "method": "add", "params": [1, 1]},
        {"jsonrpc": "2.0", "method": "add", "params": [1, 1]},
        {"jsonrpc": "2.0", "id": "x", "method": "nothing"},
    ]
    answers, _ = await post(server, orjson.dumps(calls))
    assert [one["id"] for one in answers] == [1, "x"]
    empty, _ = await post(server, b"[]")
    assert empty["error"]["code"] == -32600


class GivesUp:
    """A link whose peer is gone by the time it is answered."""

    def refuse(self, request):
        request.transport.abort()

    async def serve(self, websocket, request):
        raise AssertionError("nobody is there")


async def test_a_peer_that_gives_up_before_the_upgrade_is_no_error(caplog):
    server = RpcServer("127.0.0.1", 0, {"add": add}, name="test", log=LOG, links={"/link": GivesUp()})
    await server.start()
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientError):
            await session.ws_connect(server.url + "/link")
    client = RpcClient(server.url, timeout_s=5)
    assert await client.call("add", "0x1", 2) == 3
    await client.close()
    await server.close()
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def test_neighbours_in_a_batch_run_side_by_side_where_they_may():
    running, most, order = 0, 0, []

    async def meet(name):
        nonlocal running, most
        running += 1
        most = max(most, running)
        order.append(name)
        for _ in range(3):
            await asyncio.sleep(0)
        running -= 1
        return name

    async def alone(name):
        assert running == 0
        order.append(name)
        return name

    methods = {"meet": meet, "alone": alone}
    server = RpcServer("127.0.0.1", 0, methods, name="test", log=LOG, side_by_side=frozenset({"meet"}))
    await server.start()
    names = [("alone", "a"), ("meet", "b"), ("meet", "c"), ("meet", "d"), ("alone", "e"), ("meet", "f")]
    calls = [{"jsonrpc": "2.0", "id": n, "method": method, "params": [name]} for n, (method, name) in enumerate(names)]
    del calls[3]["id"]  # a notification among them gets no answer
    body, _ = await post(server, orjson.dumps(calls))
    assert [(each["id"], each["result"]) for each in body] == [(0, "a"), (1, "b"), (2, "c"), (4, "e"), (5, "f")]
    assert (most, order) == (3, list("abcdef"))
    await server.close()


async def test_a_websocket_serves_calls_and_notifications(server):
    async with aiohttp.ClientSession() as session, session.ws_connect(server.url) as websocket:
        await websocket.send_json({"jsonrpc": "2.0", "id": 7, "method": "subscribe", "params": ["logs"]})
        first, second = await websocket.receive_json(), await websocket.receive_json()
        assert first["params"]["result"] == "logs"
        assert second == {"jsonrpc": "2.0", "id": 7, "result": "0x1"}
    plain, _ = await post(server, orjson.dumps({"jsonrpc": "2.0", "id": 1, "method": "subscribe", "params": ["logs"]}))
    assert plain["error"]["code"] == -32601


async def test_a_client_that_has_too_many_bytes_to_read_is_closed(monkeypatch):
    monkeypatch.setattr(rpc_server, "NOTIFICATION_BYTES_QUEUED_MAX", 10_000)

    async def flood(session, count, size):
        for _ in range(count):
            session.send(b"x" * size)
        return True

    server = RpcServer("127.0.0.1", 0, {}, name="test", log=LOG, session_methods={"flood": flood})
    await server.start()
    try:
        async with aiohttp.ClientSession() as session, session.ws_connect(server.url) as websocket:
            await websocket.send_json({"jsonrpc": "2.0", "id": 1, "method": "flood", "params": [4, 2_000]})
            assert [len((await websocket.receive()).data) for _ in range(4)] == [2_000] * 4
            assert (await websocket.receive_json())["result"] is True
            await websocket.send_json({"jsonrpc": "2.0", "id": 2, "method": "flood", "params": [9, 2_000]})
            messages = [message async for message in websocket]
            assert len(messages) <= 6
            assert websocket.close_code == 1013
    finally:
        await server.close()


async def test_a_token_is_asked_for_and_checked():
    secret = secrets.token_bytes(32)
    server = RpcServer("127.0.0.1", 0, {"add": add}, name="test", log=LOG, jwt_secret=secret)
    await server.start()
    good, none, forged = (RpcClient(server.url, jwt_secret=s) for s in (secret, None, secrets.token_bytes(32)))
    try:
        assert await good.call("add", 1, 2) == 3
        for client in (none, forged):
            with pytest.raises(RpcRefused) as caught:
                await client.call("add", 1, 2)
            assert caught.value.code == 401
        async with aiohttp.ClientSession() as session:
            stale = {"Authorization": f"Bearer {make_token(secret, time.time() - 61)}"}
            async with session.post(server.url, data=b"{}", headers=stale) as response:
                assert (response.status, await response.text()) == (401, "stale token")
            async with session.get(server.url + "/healthz") as response:
                assert response.status == 200
    finally:
        await asyncio.gather(good.close(), none.close(), forged.close(), server.close())


async def test_probes_answer_what_the_component_says():
    probes = Probes((206, "Partial Content"), (503, "not ready"))
    server = RpcServer("127.0.0.1", 0, {}, name="test", log=LOG, probes=lambda: probes)
    await server.start()
    client = RpcClient(server.url)
    try:
        assert await client.get("/healthz") == (206, b"Partial Content")
        assert await client.get("/readyz") == (503, b"not ready")
        assert await client.get("/livez") == (200, b"OK")
    finally:
        await client.close()
        await server.close()


async def test_a_taken_port_is_named(server):
    second = RpcServer("127.0.0.1", server.port, {}, name="second", log=LOG)
    with pytest.raises(OSError, match=f"second: cannot listen on 127.0.0.1:{server.port}"):
        await second.start()


async def test_no_answer_is_unknown_not_refused(server):
    port = server.port
    client = RpcClient(f"http://127.0.0.1:{port}", timeout_s=1)
    await server.close()
    with pytest.raises(RpcUnknown):
        await client.call("add", 1, 2)
    await client.close()


async def test_the_lifeline_tells_of_death_and_return():
    changes: asyncio.Queue[bool] = asyncio.Queue()
    server = RpcServer("127.0.0.1", 0, {}, name="test", log=LOG)
    await server.start()
    line = Lifeline(server.url, changes.put_nowait)
    line.start()
    assert await changes.get() is True
    await server.close()
    assert await changes.get() is False
    again = RpcServer("127.0.0.1", server.port, {}, name="test", log=LOG)
    await again.start()
    assert await changes.get() is True
    await line.close()
    await again.close()
    assert changes.empty()


async def test_of_several_origins_the_one_that_asks_is_allowed():
    server = RpcServer("127.0.0.1", 0, {"add": add}, name="test", log=LOG, cors_origins="https://a, https://b")
    await server.start()
    allowed = {}
    try:
        async with aiohttp.ClientSession() as session:
            for origin in ("https://a", "https://b", "https://c"):
                async with session.options(server.url, headers={"Origin": origin}) as answer:
                    assert answer.headers["Vary"] == "Origin"
                    allowed[origin] = answer.headers.get("Access-Control-Allow-Origin")
            async with session.post(server.url, data=b"{}") as answer:
                assert "Access-Control-Allow-Origin" not in answer.headers
    finally:
        await server.close()
    assert allowed == {"https://a": "https://a", "https://b": "https://b", "https://c": None}
