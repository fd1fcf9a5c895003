"""The kept link on which transactions are handed over, both ends on real sockets."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Sequence

import aiohttp
import pytest
import structlog

from actors.handover_link import UNANSWERED_MAX, HandoverClient, HandoverPort, Transfer
from actors.rpc_client import RpcUnknown
from actors.rpc_server import RpcServer
from flashblocks.ingress.handover import PATH, Handed, Outcome
from flashblocks.wire.jsonrpc import LIMIT_EXCEEDED

LOG = structlog.get_logger()
SECRET = secrets.token_bytes(32)


def transfer(raw: bytes = b"raw") -> Transfer:
    return raw, b"\x11" * 20, "", False


class Taker:
    """Takes what is handed over; answers at once, or when told to."""

    def __init__(self, *, at_once: bool = True) -> None:
        self.messages: list[tuple[Handed, ...]] = []
        self.trusted: list[bool] = []
        self.late: list[Callable[[], None]] = []
        self._at_once = at_once

    async def take(
        self, handed: tuple[Handed, ...], trusted: bool, answer: Callable[[Sequence[Outcome]], None]
    ) -> None:
        self.messages.append(handed)
        self.trusted.append(trusted)
        outcomes = [
            Outcome(each.number, -32000, "bad") if each.raw == b"bad" else Outcome(each.number) for each in handed
        ]
        if self._at_once:
            answer(outcomes)
        else:
            self.late.append(lambda: answer(outcomes))

    def count(self) -> int:
        return sum(len(message) for message in self.messages)


async def serving(taker: Taker, secret: bytes | None = SECRET, port: int = 0) -> RpcServer:
    server = RpcServer("127.0.0.1", port, {}, name="taker", log=LOG, links={PATH: HandoverPort(taker.take, secret)})
    await server.start()
    return server


@pytest.fixture
async def taker() -> Taker:
    return Taker()


@pytest.fixture
async def server(taker: Taker) -> AsyncIterator[RpcServer]:
    made = await serving(taker)
    yield made
    await made.close()


class Giver:
    """A client, and what it was told of its link."""

    def __init__(self, url: str, secret: bytes | None = SECRET) -> None:
        self.changes: asyncio.Queue[bool] = asyncio.Queue()
        self.client = HandoverClient(url, self.changes.put_nowait, secret=secret)

    async def __aenter__(self) -> "Giver":
        self.client.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.close()

    async def told(self, up: bool) -> None:
        async with asyncio.timeout(10):
            assert await self.changes.get() is up


async def test_what_is_handed_over_in_one_turn_is_one_message_each_answered(server: RpcServer, taker: Taker) -> None:
    async with Giver(server.url) as giver:
        await giver.told(True)
        asked = [
            giver.client.hand_over([transfer(b"one"), transfer(b"bad")]),
            giver.client.hand_over([transfer(b"three")]),
        ]
        first, last = await asyncio.wait_for(asyncio.gather(*asked), 10)
        outcomes = [*first, *last]
    assert [(each.code, each.message) for each in outcomes] == [(0, ""), (-32000, "bad"), (0, "")]
    assert [[each.raw for each in message] for message in taker.messages] == [[b"one", b"bad", b"three"]]
    assert taker.trusted == [True]


@pytest.mark.parametrize("secret", [None, SECRET])
async def test_senders_are_believed_only_where_the_token_is_right(secret: bytes | None) -> None:
    taker = Taker()
    server = await serving(taker, secret)
    async with Giver(server.url, None if secret else SECRET) as giver:
        await giver.told(True)
        await asyncio.wait_for(giver.client.hand_over([transfer()]), 10)
    assert taker.trusted == [False]
    await server.close()


async def test_a_wrong_token_is_answered_401(server: RpcServer) -> None:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await session.ws_connect(server.url + PATH, headers={"Authorization": "Bearer nonsense"})
    assert refused.value.status == 401


async def test_a_message_that_is_none_ends_the_link(server: RpcServer, taker: Taker) -> None:
    async with aiohttp.ClientSession() as session, session.ws_connect(server.url + PATH) as websocket:
        await websocket.send_str("text is read and dropped")
        await websocket.send_bytes(b"\xff")
        message = await asyncio.wait_for(websocket.receive(), 10)
    assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 1007)
    assert not taker.messages


async def test_when_the_peer_dies_what_is_not_answered_is_unknown_and_the_link_comes_back() -> None:
    taker = Taker(at_once=False)
    server = await serving(taker)
    async with Giver(server.url) as giver:
        await giver.told(True)
        asked = giver.client.hand_over([transfer()])
        async with asyncio.timeout(10):
            while not taker.messages:  # noqa: ASYNC110 – a fact of the other end, there is no event
                await asyncio.sleep(0.01)
        await server.close()
        with pytest.raises(RpcUnknown, match="link lost"):
            await asyncio.wait_for(asked, 10)
        await giver.told(False)
        with pytest.raises(RpcUnknown, match="no link"):
            giver.client.hand_over([transfer()])
        again = await serving(Taker(), port=server.port)
        await giver.told(True)
        assert [each.code for each in await asyncio.wait_for(giver.client.hand_over([transfer()]), 10)] == [0]
    await again.close()


async def test_a_peer_without_the_path_is_never_connected() -> None:
    server = RpcServer("127.0.0.1", 0, {}, name="plain", log=LOG)
    await server.start()
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await session.ws_connect(server.url + PATH)
    assert refused.value.status == 404
    async with Giver(server.url) as giver:
        assert not giver.client.connected
        with pytest.raises(RpcUnknown, match="no link"):
            giver.client.hand_over([transfer()])
    await server.close()


async def test_at_most_so_many_are_unanswered_at_either_end() -> None:
    taker = Taker(at_once=False)
    server = await serving(taker)
    async with Giver(server.url) as giver:
        await giver.told(True)
        asked = [giver.client.hand_over([transfer()]) for _ in range(UNANSWERED_MAX)]
        with pytest.raises(RpcUnknown, match="busy"):
            giver.client.hand_over([transfer(b"one too many")])
        async with asyncio.timeout(20):
            while taker.count() < UNANSWERED_MAX:  # noqa: ASYNC110 – a fact of the other end, there is no event
                await asyncio.sleep(0.01)
        # A giver that keeps to no bound is refused at the other end.
        giver.client._unanswered = dict(list(giver.client._unanswered.items())[1:])
        beyond = giver.client.hand_over([transfer(b"one too many")])
        assert (await asyncio.wait_for(beyond, 10))[0].code == LIMIT_EXCEEDED
        for answer in taker.late:
            answer()
        outcomes = await asyncio.wait_for(asyncio.gather(*asked[1:]), 20)
    assert {each.code for (each,) in outcomes} == {0}
    await server.close()
