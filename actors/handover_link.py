"""A kept WebSocket on which one of ours hands transactions over to another, many per message, each answered by number.

An HTTP request per transaction and target costs more than everything the pools do with it. Whatever is handed over
within one turn of the loop goes as one message. The link is also a lifeline: when the peer dies its kernel closes it,
and `on_change` is told. A peer that has no such path (a builder of others) is simply never connected; whoever hands
over then falls back to `eth_sendRawTransaction`.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Awaitable, Callable, Sequence

import aiohttp
from aiohttp import WSCloseCode, WSMsgType, web

from actors.backoff import Backoff
from actors.rpc_client import RpcUnknown
from flashblocks.ingress.handover import (
    MESSAGE_BYTES_MAX,
    MESSAGE_TRANSACTIONS_MAX,
    PATH,
    Handed,
    Outcome,
    decode_handed,
    decode_outcomes,
    encode,
)
from flashblocks.wire.hexadecimal import WireError
from flashblocks.wire.jsonrpc import LIMIT_EXCEEDED
from flashblocks.wire.jwt import TokenError, check_token, make_token

CONNECT_S_MAX = 5.0
CLOSE_S_MAX = 0.5
RETRY_S_FIRST = 0.05
RETRY_S_MAX = 0.5
STEADY_AFTER_S = 1.0
UNANSWERED_MAX = 8_192  # per link, at either end
UNANSWERED = Outcome(0)
BUSY = f"busy: {UNANSWERED_MAX} transactions of this link are not answered yet"

Transfer = tuple[bytes, bytes, str, bool]
"""The bytes of a transaction, its sender where known, the wallet's address where known, whether it is traced."""

Take = Callable[[tuple[Handed, ...], bool, Callable[[Sequence[Outcome]], None]], Awaitable[None]]
"""Takes one message: the transactions, whether claimed senders may be believed, and where to answer (bounded by what
was asked). It returns when it has begun with all of them, in order."""


class _Asked:
    """Transactions that were handed over together, until the last of them is answered."""

    __slots__ = ("answered", "left", "outcomes")

    def __init__(self, count: int) -> None:
        self.left = count
        self.outcomes: list[Outcome] = [UNANSWERED] * count
        self.answered: asyncio.Future[list[Outcome]] = asyncio.get_running_loop().create_future()

    def answer(self, position: int, outcome: Outcome) -> None:
        self.outcomes[position] = outcome
        self.left -= 1
        if not self.left and not self.answered.done():
            self.answered.set_result(self.outcomes)

    def lose(self, reason: str) -> None:
        if not self.answered.done():
            self.answered.set_exception(RpcUnknown(reason))
            self.answered.exception()  # nobody need be waiting any more


class HandoverClient:
    """The giving end. `on_change(up)` is called at every change; it connects again for ever, and at once."""

    def __init__(self, url: str, on_change: Callable[[bool], None], *, secret: bytes | None = None) -> None:
        self.url = url
        self._on_change, self._secret = on_change, secret
        self._numbers = itertools.count(1)
        self._unanswered: dict[int, tuple[_Asked, int]] = {}
        self._queued: list[Handed] = []
        self._websocket: aiohttp.ClientWebSocketResponse | None = None
        self._task: asyncio.Task[None] | None = None
        self._writing: asyncio.Task[None] | None = None

    @property
    def connected(self) -> bool:
        """Whether the peer is there and takes transactions this way."""
        return self._websocket is not None and not self._websocket.closed

    def start(self) -> None:
        """Begin to connect, in a task of the running loop."""
        self._task = asyncio.create_task(self._keep_connected(), name=f"handover {self.url}")

    async def close(self) -> None:
        """Stop; what is not answered becomes unknown."""
        self._on_change = lambda up: None
        tasks = [task for task in (self._task, self._writing) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._task = self._writing = None

    def hand_over(self, transfers: Sequence[Transfer]) -> asyncio.Future[list[Outcome]]:
        """Send with the next message; the outcomes in the same order, or RpcUnknown when the link is lost first.

        Raises RpcUnknown at once when there is no link, or too much on it already.
        """
        if not self.connected:
            raise RpcUnknown(f"{self.url}: no link")
        if len(self._unanswered) + len(transfers) > UNANSWERED_MAX:
            raise RpcUnknown(f"{self.url}: {BUSY}")
        asked = _Asked(len(transfers))
        for position, transfer in enumerate(transfers):
            number = next(self._numbers)
            self._unanswered[number] = (asked, position)
            self._queued.append(Handed(number, *transfer))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write())
        return asked.answered

    async def cut(self) -> None:
        """Give this connection up: its peer does not answer. Another one is made."""
        if self._websocket is not None:
            await self._websocket.close(code=WSCloseCode.TRY_AGAIN_LATER, message=b"no answer")

    async def _write(self) -> None:
        try:
            while self._queued and self._websocket is not None:
                batch, self._queued = (
                    self._queued[:MESSAGE_TRANSACTIONS_MAX],
                    self._queued[MESSAGE_TRANSACTIONS_MAX:],
                )
                await self._websocket.send_bytes(encode(batch))
        except (ConnectionError, aiohttp.ClientError):
            pass  # the reader has noticed too, and says so to all who wait
        finally:
            self._writing = None

    async def _keep_connected(self) -> None:
        backoff = Backoff(RETRY_S_FIRST, RETRY_S_MAX, growth=2.0, steady_after_s=STEADY_AFTER_S, chance=random.Random())
        async with aiohttp.ClientSession() as session:
            while True:
                began = time.monotonic()
                try:
                    await self._live_once(session)
                except (aiohttp.ClientError, OSError, TimeoutError, WireError):
                    pass
                await asyncio.sleep(backoff.pause_s(time.monotonic() - began))

    async def _live_once(self, session: aiohttp.ClientSession) -> None:
        headers = {} if self._secret is None else {"Authorization": f"Bearer {make_token(self._secret, time.time())}"}
        limit = asyncio.timeout(CONNECT_S_MAX)
        async with (
            limit,
            session.ws_connect(
                self.url.rstrip("/") + PATH,
                headers=headers,
                max_msg_size=MESSAGE_BYTES_MAX,
                timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_S_MAX),
            ) as opened,
        ):
            limit.reschedule(None)  # the time-out was for connecting only
            self._websocket = opened
            try:
                self._on_change(True)
                async for message in opened:
                    if message.type is WSMsgType.BINARY:
                        self._answer(decode_outcomes(message.data))
            finally:
                self._websocket, self._queued = None, []
                self._lose_all()
                self._on_change(False)

    def _answer(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            waiting = self._unanswered.pop(outcome.number, None)
            if waiting is not None:
                waiting[0].answer(waiting[1], outcome)

    def _lose_all(self) -> None:
        lost, self._unanswered = self._unanswered, {}
        for asked, _ in lost.values():
            asked.lose(f"{self.url}: link lost")


class HandoverPort:
    """The taking end: the handler of `PATH` in an RpcServer.

    Anybody may connect, as anybody may call `eth_sendRawTransaction`; a giver with a valid token is believed the
    senders it claims. A wrong token is answered 401.
    """

    def __init__(self, take: Take, secret: bytes | None = None) -> None:
        self._take, self._secret = take, secret

    async def serve(self, websocket: web.WebSocketResponse, request: web.Request) -> None:
        """Take until the giver is gone."""
        trusted = self._secret is not None and "Authorization" in request.headers
        answers = _Answers(websocket)
        writer = asyncio.create_task(answers.write())
        try:
            async for message in websocket:
                if message.type is not WSMsgType.BINARY:
                    continue
                try:
                    handed = decode_handed(message.data)
                except WireError as error:
                    await websocket.close(code=WSCloseCode.INVALID_TEXT, message=str(error).encode()[:120])
                    return
                if not answers.expect(handed):
                    continue
                await self._take(handed, trusted, answers.add)
        finally:
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)

    def refuse(self, request: web.Request) -> web.Response | None:
        """The answer to a request whose token is wrong, or None."""
        stated = request.headers.get("Authorization")
        if self._secret is not None and stated is not None:
            try:
                check_token(self._secret, stated, time.time())
            except TokenError as error:
                return web.Response(status=401, text=str(error))
        return None


class _Answers:
    """The answers of one link on their way out: all that are there go together."""

    def __init__(self, websocket: web.WebSocketResponse) -> None:
        self._websocket = websocket
        self._ready: list[Outcome] = []
        self._any = asyncio.Event()
        self._expected = 0

    def expect(self, handed: Sequence[Handed]) -> bool:
        """Whether there is room for these; if not they are refused here."""
        self._expected += len(handed)
        if self._expected > UNANSWERED_MAX:
            self.add([Outcome(each.number, LIMIT_EXCEEDED, BUSY) for each in handed])
            return False
        return True

    def add(self, outcomes: Sequence[Outcome]) -> None:
        self._ready.extend(outcomes)
        self._any.set()

    async def write(self) -> None:
        while True:
            await self._any.wait()
            self._any.clear()
            batch, self._ready = self._ready, []
            try:
                await self._websocket.send_bytes(encode(batch))
            except ConnectionError:
                return
            self._expected -= len(batch)
