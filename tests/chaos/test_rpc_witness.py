"""The witness at an rpc-node, against a small server that answers as one does."""

import asyncio

import orjson
import pytest
from aiohttp import web

from chaos.history import Invalidated, Link, PendingRead
from chaos.rpc_witness import RpcWitness

WAIT_S_MAX = 20.0


@pytest.fixture
async def node():
    """(http address, websocket address, what the node answers for `pending`)."""
    answers = {"pending": {"number": "0x8", "transactions": ["0xaa"]}}

    async def on_request(request):
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await subscribe(request)
        results = {"eth_blockNumber": "0x7", "eth_getBlockByNumber": answers["pending"]}
        calls = orjson.loads(await request.read())
        if answers["pending"] == "refuse":
            error = {"code": -32000, "message": "not ready"}
            return web.json_response([{"jsonrpc": "2.0", "id": one["id"], "error": error} for one in calls])
        return web.json_response(
            [{"jsonrpc": "2.0", "id": one["id"], "result": results[one["method"]]} for one in calls]
        )

    async def subscribe(request):
        websocket = web.WebSocketResponse()
        await websocket.prepare(request)
        asked = orjson.loads((await websocket.receive()).data)
        assert asked["params"] == ["flashblockInvalidations"]
        await websocket.send_str('{"jsonrpc":"2.0","id":1,"result":"0x1"}')
        gone = {"blockNumber": "0x9", "transactions": ["0xbb"]}
        note = {"jsonrpc": "2.0", "method": "eth_subscription", "params": {"subscription": "0x1", "result": gone}}
        await websocket.send_str(orjson.dumps(note).decode())
        await websocket.receive()
        return websocket

    application = web.Application()
    application.router.add_route("*", "/", on_request)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0]
    yield f"http://{host}:{port}", f"ws://{host}:{port}/", answers
    await runner.cleanup()


async def witnessed(node, wanted):
    """Let a witness run until its events satisfy `wanted`; returns them."""
    events = []
    task = asyncio.create_task(RpcWitness("rpc-0", node[0], node[1], events.append).run())
    try:
        async with asyncio.timeout(WAIT_S_MAX):
            while not wanted(events):  # noqa: ASYNC110 – events is filled by a task
                await asyncio.sleep(0.01)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    return events


def of(kind, events):
    return [event for event in events if isinstance(event, kind)]


async def test_pending_is_read_with_the_latest_before_it(node):
    events = await witnessed(node, lambda events: len(of(PendingRead, events)) >= 2)
    read = of(PendingRead, events)[0]
    assert (read.source, read.latest, read.number, read.transactions) == ("rpc-0", 7, 8, ("0xaa",))


async def test_null_is_written_down_as_such(node):
    node[2]["pending"] = None
    events = await witnessed(node, lambda events: of(PendingRead, events))
    assert of(PendingRead, events)[0].number is None


async def test_a_refusal_is_no_answer_and_what_is_taken_back_is_heard(node):
    node[2]["pending"] = "refuse"
    events = await witnessed(node, lambda events: of(Invalidated, events))
    assert of(PendingRead, events) == []
    taken = of(Invalidated, events)[0]
    assert (taken.source, taken.number, taken.transactions) == ("rpc-0", 9, ("0xbb",))
    assert of(Link, events)[0].up


async def test_a_node_that_is_not_there_is_asked_again(node):
    events = await witnessed(("http://127.0.0.1:1", "ws://127.0.0.1:1/"), lambda events: len(of(Link, events)) >= 2)
    assert not any(link.up for link in of(Link, events))
