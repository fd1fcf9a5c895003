"""Open-loop load: transactions at a fixed rate, whatever the chain does, and when each was seen and sealed.

Latencies count from the moment a transaction was *due*, so a stall shows in all that were due during it. What a
subscriber sees comes from the public stream; what is sealed comes from the RPC.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.typing import Subprotocol

from actors.fanout import LinkClientConnection
from actors.rpc_client import RpcClient, RpcRefused, RpcUnknown
from chaos import erc20
from chaos.history import Acknowledged, Event, Included, Preconfirmed, Sent
from chaos.senders import Senders
from flashblocks.wire.flashblock import decode_body
from flashblocks.wire.frames import FRAME_SIZE_BYTES_MAX, SUBPROTOCOL, FlashblockFrame, decode_frame
from flashblocks.wire.keccak import keccak256

TRANSFER, ERC20 = "transfer", "erc20"
MIXES = (TRANSFER, ERC20)
SENDS_AT_ONCE_MAX = 4_096
CONNECTIONS_MAX = 128
SEND_S_MAX = 5.0
ASK_TRIES_MAX = 40
RETRY_S = 0.25
SEALED_POLL_S = 0.2
RECONNECT_S = 0.1
SETTLE_S_MAX = 15.0
DEPLOY_S_MAX = 30.0
POLL_RECEIPT_S = 0.05
KNOWN_ALREADY = ("already known", "already imported", "nonce too low")


class LoadError(RuntimeError):
    """The load cannot be made; the text says why."""


class LoadOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How much of what for how long; `duration_s` 0 means until cancelled."""

    tps: float
    duration_s: float = 0.0
    mix: tuple[str, ...] = (TRANSFER,)


class Trace(msgspec.Struct):
    """The life of one transaction, in seconds since the epoch; 0 for what has not happened."""

    due: float
    sent: float = 0.0
    seen: float = 0.0
    sealed: float = 0.0
    number: int = 0


class LoadReport(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the load; latencies in milliseconds from the moment a transaction was due."""

    due: int
    sent: int
    refused: int
    unknown: int
    not_sent_in_time: int
    preconfirmed: int
    sealed: int
    tps_wanted: float
    tps_sealed: float
    accepted_ms: dict[str, float]
    preconfirmed_ms: dict[str, float]
    sealed_ms: dict[str, float]
    errors: dict[str, int]


class Load:
    """One run of load against a cluster; `record` gets the events a drill's checker reads."""

    def __init__(
        self, endpoints: Mapping[str, Any], options: LoadOptions, record: Callable[[Event], None] | None = None
    ) -> None:
        if endpoints["rpc"] is None:
            raise LoadError("the cluster has no rpc-node to send to")
        unknown = set(options.mix) - set(MIXES)
        if unknown or not options.mix:
            raise LoadError(f"--mix: choose from {', '.join(MIXES)}")
        if options.tps <= 0:
            raise LoadError("--tps must be more than 0")
        self._options = options
        self._record = record
        self._streams: Sequence[str] = endpoints["stream"]
        self._rpc = RpcClient(endpoints["rpc"]["http"], timeout_s=SEND_S_MAX, connections_max=CONNECTIONS_MAX)
        self._senders = Senders(endpoints["chain_id"], endpoints["accounts"])
        self._traces: dict[bytes, Trace] = {}
        self._counts: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._token: bytes | None = None
        self._sealed_up_to = 0

    async def run(self) -> LoadReport:
        """Send until the time is over (or for ever), wait for what is under way, and report."""
        watchers = []
        try:
            await self._prepare()
            watchers = [asyncio.create_task(self._watch_stream(url)) for url in self._streams]
            watchers.append(asyncio.create_task(self._watch_sealed()))
            took_s = await self._send_all()
            await self._settle()
            return self._report(took_s)
        finally:
            for task in (*watchers, *self._tasks):
                task.cancel()
            await asyncio.gather(*watchers, *self._tasks, return_exceptions=True)
            await self._rpc.close()

    async def _prepare(self) -> None:
        """Learn the nonces; for ERC-20 load deploy a token and give every account some."""
        self._sealed_up_to = int(await self._persist(lambda: self._rpc.call("eth_blockNumber")), 16)
        for sender in self._senders.all:
            ask = partial(self._rpc.call, "eth_getTransactionCount", sender.address, "pending")
            sender.nonce = int(await self._persist(ask), 16)
        if ERC20 in self._options.mix:
            self._token = await self._deploy_token()

    async def _persist(self, call: Callable[[], Awaitable[Any]]) -> Any:
        """Ask until answered: a drill starts its load while a cluster is being hurt."""
        for _ in range(ASK_TRIES_MAX):
            with contextlib.suppress(RpcUnknown, RpcRefused):
                return await call()
            await asyncio.sleep(RETRY_S)
        raise LoadError(f"the RPC at {self._rpc.url} does not answer")

    async def _deploy_token(self) -> bytes:
        first = self._senders.all[0]
        raw, _ = first.sign(to=None, data=erc20.deployment_code(), gas_limit=erc20.DEPLOY_GAS)
        receipt = await self._send_and_wait(raw)
        token = bytes.fromhex(receipt["contractAddress"][2:])
        share = erc20.SUPPLY // len(self._senders.all)
        for other in self._senders.all[1:]:
            data = erc20.transfer_data(bytes.fromhex(other.address[2:]), share)
            raw, _ = first.sign(to=token, data=data, gas_limit=erc20.TRANSFER_GAS)
            await self._send_and_wait(raw)
        return token

    async def _send_and_wait(self, raw: bytes) -> dict[str, Any]:
        await self._persist(lambda: self._hand_in(raw))
        deadline = time.monotonic() + DEPLOY_S_MAX
        while time.monotonic() < deadline:
            receipt = await self._persist(lambda: self._rpc.call("eth_getTransactionReceipt", _hex(keccak256(raw))))
            if receipt is not None:
                if int(receipt["status"], 16) != 1:
                    raise LoadError("preparing the ERC-20 token failed: its transaction was reverted")
                return dict(receipt)
            await asyncio.sleep(POLL_RECEIPT_S)
        raise LoadError(f"no receipt within {DEPLOY_S_MAX:.0f} s while preparing the ERC-20 token")

    async def _hand_in(self, raw: bytes) -> None:
        """Send once; a transaction that is already there is sent."""
        try:
            await self._rpc.call("eth_sendRawTransaction", _hex(raw))
        except RpcRefused as error:
            if not any(text in str(error) for text in KNOWN_ALREADY):
                raise

    async def _send_all(self) -> float:
        """Start one sending per due moment, without waiting for any; returns how long it took, in seconds."""
        began = time.time()
        count = round(self._options.tps * self._options.duration_s) if self._options.duration_s else None
        number = 0
        while count is None or number < count:
            due = began + number / self._options.tps
            await asyncio.sleep(max(0.0, due - time.time()))
            self._start_sending(number, due)
            number += 1
        return time.time() - began

    def _start_sending(self, number: int, due: float) -> None:
        self._counts["due"] += 1
        if len(self._tasks) >= SENDS_AT_ONCE_MAX:
            self._counts["not_sent_in_time"] += 1
            return
        task = asyncio.create_task(self._send(number, due))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send(self, number: int, due: float) -> None:
        sender, other = self._senders.pair(number)
        if self._token is not None and self._options.mix[number % len(self._options.mix)] == ERC20:
            data = erc20.transfer_data(bytes.fromhex(other.address[2:]), 1)
            raw, nonce = sender.sign(to=self._token, data=data, gas_limit=erc20.TRANSFER_GAS)
        else:
            raw, nonce = sender.sign(to=bytes.fromhex(other.address[2:]), value=1)
        transaction = keccak256(raw)
        trace = self._traces[transaction] = Trace(due)
        self._tell(Sent(time.time(), _hex(transaction)))
        while True:
            try:
                await self._hand_in(raw)
            except RpcUnknown as error:  # there or not: the same bytes again, or all later ones of the account wait
                self._errors[_short(error)] += 1
                await asyncio.sleep(RETRY_S)
                continue
            except RpcRefused as error:
                self._counts["refused"] += 1
                self._errors[_short(error)] += 1
                sender.give_back(nonce)
                return
            trace.sent = time.time()
            self._counts["sent"] += 1
            self._tell(Acknowledged(trace.sent, _hex(transaction)))
            return

    def _tell(self, event: Event) -> None:
        if self._record is not None:
            self._record(event)

    async def _watch_stream(self, url: str) -> None:
        while True:
            try:
                async with connect(
                    url,
                    subprotocols=[Subprotocol(SUBPROTOCOL)],
                    compression=None,
                    create_connection=LinkClientConnection,
                    max_size=4 * FRAME_SIZE_BYTES_MAX,
                ) as connection:
                    async for message in connection:
                        if isinstance(message, bytes):
                            self._on_message(message, time.time())
            except (OSError, ConnectionClosed, InvalidHandshake, TimeoutError):
                pass
            await asyncio.sleep(RECONNECT_S)

    def _on_message(self, message: bytes, at: float) -> None:
        frame = decode_frame(message)
        if not isinstance(frame, FlashblockFrame):
            return
        for raw in decode_body(frame.body).diff.transactions:
            transaction = keccak256(raw)
            trace = self._traces.get(transaction)
            if trace is not None and not trace.seen:
                trace.seen = at
                if self._record is not None:
                    task = asyncio.create_task(self._ask_for_receipt(transaction, frame.number))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)

    async def _ask_for_receipt(self, transaction: bytes, number: int) -> None:
        """What a wallet would do: note the receipt the RPC gives before the block is sealed."""
        while self._sealed_up_to < number:
            with contextlib.suppress(RpcUnknown, RpcRefused):
                if await self._rpc.call("eth_getTransactionReceipt", _hex(transaction)) is not None:
                    self._tell(Preconfirmed(time.time(), _hex(transaction), number))
                    return
            await asyncio.sleep(POLL_RECEIPT_S)

    async def _watch_sealed(self) -> None:
        while True:
            with contextlib.suppress(RpcUnknown, RpcRefused):
                block = await self._rpc.call("eth_getBlockByNumber", hex(self._sealed_up_to + 1), False)
                if block is not None:
                    self._on_sealed(block, time.time())
                    continue
            await asyncio.sleep(SEALED_POLL_S)

    def _on_sealed(self, block: Mapping[str, Any], at: float) -> None:
        self._sealed_up_to = int(block["number"], 16)
        for text in block["transactions"]:
            trace = self._traces.get(bytes.fromhex(text[2:]))
            if trace is not None:
                self._counts["sealed"] += 1
                trace.sealed, trace.number = at, self._sealed_up_to
                self._tell(Included(at, text, self._sealed_up_to))

    async def _settle(self) -> None:
        """Wait until all that was sent is sealed, or until nothing more of it was for SETTLE_S_MAX."""
        sealed, deadline = self._counts["sealed"], time.monotonic() + SETTLE_S_MAX
        while time.monotonic() < deadline:
            if not self._tasks and all(trace.sealed for trace in self._traces.values() if trace.sent):
                return
            if self._counts["sealed"] > sealed:
                sealed, deadline = self._counts["sealed"], time.monotonic() + SETTLE_S_MAX
            await asyncio.sleep(SEALED_POLL_S)

    def _report(self, took_s: float) -> LoadReport:
        traces = list(self._traces.values())
        sealed = [trace for trace in traces if trace.sealed]
        seen = [trace for trace in traces if trace.seen]
        return LoadReport(
            due=self._counts["due"],
            sent=self._counts["sent"],
            refused=self._counts["refused"],
            unknown=self._counts["due"] - sum(self._counts[fate] for fate in ("sent", "refused", "not_sent_in_time")),
            not_sent_in_time=self._counts["not_sent_in_time"],
            preconfirmed=len(seen),
            sealed=len(sealed),
            tps_wanted=self._options.tps,
            tps_sealed=round(len(sealed) / took_s, 2) if took_s else 0.0,
            accepted_ms=quantiles([(trace.sent - trace.due) * 1000 for trace in traces if trace.sent]),
            preconfirmed_ms=quantiles([(trace.seen - trace.due) * 1000 for trace in seen]),
            sealed_ms=quantiles([(trace.sealed - trace.due) * 1000 for trace in sealed]),
            errors=dict(self._errors.most_common(10)),
        )


def quantiles(values: Sequence[float]) -> dict[str, float]:
    """p50, p90, p99 and the maximum (nearest rank), rounded to a tenth; empty for no values."""
    if not values:
        return {}
    ordered = sorted(values)
    ranks = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
    return {name: round(ordered[math.ceil(len(ordered) * rank) - 1], 1) for name, rank in ranks.items()}


def _hex(value: bytes) -> str:
    return "0x" + value.hex()


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:120]


async def drill_load(endpoints: Mapping[str, Any], tps: float, record: Callable[[Event], None]) -> None:
    """Transfers at *tps* until cancelled, every event told to *record*; 0 tps sends nothing."""
    if tps == 0:
        await asyncio.Event().wait()
    await Load(endpoints, LoadOptions(tps=tps), record).run()
