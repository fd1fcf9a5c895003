"""For programs that listen: the stream as an async iterator that survives reconnects, and a wait for one transaction.

from contextlib import aclosing
from flashblocks.client import preconfirmed, stream

async with aclosing(stream("ws://127.0.0.1:8550/ws")) as flashblocks:
    async for flashblock in flashblocks:
        print(flashblock.number, flashblock.index)

print(await preconfirmed("ws://127.0.0.1:8550/ws", tx_hash, timeout_s=5))
"""

import asyncio
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from urllib.parse import urlencode, urlsplit

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from actors.backoff import Backoff
from actors.fanout import LinkClientConnection
from actors.frame_link import frame_subprotocol, message_bytes_max, retry_first_s, retry_growth, steady_after_s
from flashblocks.proxy.foreign import Foreign, ForeignStream, ours
from flashblocks.proxy.ordering import Announce, Arrival, Deliver, Ordering
from flashblocks.wire.flashblock import Flashblock, FlashblockReceipt, decode_body
from flashblocks.wire.frames import AnnounceGapFrame, FlashblockFrame, decode_frame
from flashblocks.wire.hexadecimal import WireError, to_bytes
from flashblocks.wire.keccak import keccak256

retry_max_s = 0.5
open_timeout_s = 5.0
ping_interval_s = 2.0
pong_timeout_s = 10.0
close_timeout_s = 1.0
lookback_blocks = 2
"""How many blocks before the open one `preconfirmed` looks at, for a transaction that was quicker than the caller."""

Gap = Callable[[int, int, int], None]


class StreamRefused(Exception):
    """The server does not want this client: `status` is its HTTP status, the text its message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"HTTP {status}: {message}")
        self.status = status


class Preconfirmation(msgspec.Struct, frozen=True):
    """Where a transaction was first seen. `receipt` is None on streams whose metadata has none."""

    transaction_hash: bytes
    number: int
    index: int
    receipt: FlashblockReceipt | None


async def stream(
    url: str, from_: tuple[int, int] | None = None, *, on_gap: Gap | None = None
) -> AsyncGenerator[Flashblock, None]:
    """Yield every flashblock once and in order, over any number of reconnects.

    `from_` is the first (block number, index) wanted; without it the open block comes first, from index 0. What the
    server no longer has after a long absence is told to `on_gap(number, index_from, index_to)`, both ends inclusive.
    A consumer that is slower than the stream loses nothing that the server still keeps. Raises `StreamRefused` when
    the server refuses for good (an invalid key, a wrong path); being down, or full (429), is waited out.
    """
    loop = asyncio.get_running_loop()
    ordering = Ordering(start=from_)
    ordering.upstream_up(0, False)
    backoff = Backoff(
        retry_first_s, retry_max_s, growth=retry_growth, steady_after_s=steady_after_s, chance=random.Random()
    )
    while True:
        began = loop.time()
        try:
            async with _connect(url, ordering.wanted) as connection:
                reader = _Reader(connection, ordering, on_gap)
                async for message in connection:
                    for flashblock in reader.read(message, loop.time()):
                        yield flashblock
        except InvalidStatus as error:
            status = error.response.status_code
            if 400 <= status < 500 and status != 429:
                raise StreamRefused(status, error.response.body.decode(errors="replace")) from None
        except (OSError, TimeoutError, InvalidHandshake, ConnectionClosed, EOFError):
            pass
        await asyncio.sleep(backoff.pause_s(loop.time() - began))


async def preconfirmed(
    url: str, tx_hash: bytes | str, timeout_s: float = 30.0, *, lookback_blocks: int = lookback_blocks
) -> Preconfirmation:
    """Wait until a transaction is in the stream and say where; raises TimeoutError after `timeout_s`.

    The open block and `lookback_blocks` before it count too, so it may be called after the transaction was sent.
    """
    wanted = to_bytes(tx_hash, 32, "tx_hash") if isinstance(tx_hash, str) else tx_hash
    async with asyncio.timeout(timeout_s):
        async with aclosing(stream(url)) as flashblocks:
            first = await anext(flashblocks)
        async with aclosing(stream(url, (max(0, first.number - lookback_blocks), 0))) as flashblocks:
            async for flashblock in flashblocks:
                found = _find(flashblock, wanted)
                if found is not None:
                    return found
    raise AssertionError("a stream has no end")


def _find(flashblock: Flashblock, wanted: bytes) -> Preconfirmation | None:
    receipt = flashblock.metadata.receipts.get(wanted)
    if receipt is None and all(keccak256(raw) != wanted for raw in flashblock.diff.transactions):
        return None
    return Preconfirmation(wanted, flashblock.number, flashblock.index, receipt)


def _connect(url: str, start: tuple[int, int] | None) -> connect:
    if start is not None:
        joint = "&" if urlsplit(url).query else "?"
        url = f"{url}{joint}{urlencode({'from': f'{start[0]}.{start[1]}'})}"
    return connect(
        url,
        subprotocols=[frame_subprotocol],
        compression=None,
        open_timeout=open_timeout_s,
        ping_interval=ping_interval_s,
        ping_timeout=pong_timeout_s,
        close_timeout=close_timeout_s,
        max_size=message_bytes_max,
        create_connection=LinkClientConnection,
    )


class _Reader:
    """Reads the messages of one connection, ours or a foreign server's, into the one ordering."""

    def __init__(self, connection: ClientConnection, ordering: Ordering, on_gap: Gap | None) -> None:
        self._speaks_frames = connection.subprotocol == frame_subprotocol
        self._foreign = ForeignStream(0)
        self._ordering = ordering
        self._on_gap = on_gap

    def read(self, message: str | bytes, now: float) -> list[Flashblock]:
        try:
            arrival = self._arrival(message)
        except WireError:
            return []  # an index that does not come leaves a gap, and gaps are told
        flashblocks: list[Flashblock] = []
        for decision in self._ordering.arrive(arrival, now) if arrival is not None else ():
            if isinstance(decision, Deliver):
                item: FlashblockFrame | Foreign = decision.arrival.item
                frame = item.frame if isinstance(item, Foreign) else item
                flashblocks.append(decode_body(frame.body))
            elif isinstance(decision, Announce):
                self._tell(decision.number, decision.index_from, decision.index_to)
        return flashblocks

    def _arrival(self, message: str | bytes) -> Arrival | None:
        if not self._speaks_frames or isinstance(message, str):
            return self._foreign.read(message) if message else None
        frame = decode_frame(message)
        if isinstance(frame, FlashblockFrame):
            return ours(0, frame)
        if isinstance(frame, AnnounceGapFrame) and self._ordering.last is None:
            self._tell(frame.number, frame.index_from, frame.index_to)
        return None  # later gaps show in the order of the flashblocks themselves

    def _tell(self, number: int, index_from: int, index_to: int) -> None:
        if self._on_gap is not None:
            self._on_gap(number, index_from, index_to)
