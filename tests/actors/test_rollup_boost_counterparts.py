"""Builders and counterparts that misbehave or are not ours: each refused, counted, survived – or understood."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web
from websockets.asyncio.server import ServerConnection, serve
from websockets.typing import Subprotocol

from flashblocks.execution.follow import PayloadFollower
from flashblocks.rollup_boost.answering import BUILDER_PATIENCE_S
from flashblocks.wire.assembly import assemble
from flashblocks.wire.engine import Envelope
from flashblocks.wire.flashblock import Flashblock, body_digest, decode_body
from flashblocks.wire.flashblock_json import encode_json
from flashblocks.wire.frames import (
    SUBPROTOCOL,
    FlashblockFrame,
    Frame,
    HealthFrame,
)
from tests.actors.boost_rig import FLASHBLOCKS_PER_BLOCK, Files, redone, running, until

Change = Callable[[Flashblock], Flashblock]


def diff(**fields: Any) -> Change:
    return lambda one: msgspec.structs.replace(one, diff=msgspec.structs.replace(one.diff, **fields))


def base(**fields: Any) -> Change:
    def change(one: Flashblock) -> Flashblock:
        assert one.base is not None
        return msgspec.structs.replace(one, base=msgspec.structs.replace(one.base, **fields))

    return change


def prefix(frames: list[FlashblockFrame], count: int) -> Envelope:
    return assemble([decode_body(frame.body) for frame in frames[:count]])


def distorted(index: int, change: Change) -> Callable[[list[FlashblockFrame]], list[Frame]]:
    return lambda frames: [redone(frame, change) if frame.index == index else frame for frame in frames]


def insert_after(
    index: int, *more: Callable[[list[FlashblockFrame]], Frame]
) -> Callable[[list[FlashblockFrame]], list[Frame]]:
    return lambda frames: [*frames[: index + 1], *(one(frames) for one in more), *frames[index + 1 :]]


def garbage_body(frames: list[FlashblockFrame]) -> Frame:
    return msgspec.structs.replace(frames[1], index=2, body=b"garbage", digest=body_digest(b"garbage"))


ZERO_ROOT = b"\0" * 32
NO_STAND_IN_MS = 60_000  # nobody takes a builder's place that is slow on a busy machine


@pytest.mark.parametrize(
    ("script", "good", "reason", "status"),
    [
        pytest.param(distorted(2, diff(state_root=ZERO_ROOT)), 2, "invalid", 206, id="wrong root"),
        pytest.param(distorted(2, diff(gas_used=1)), 2, "invalid", 206, id="wrong gas"),
        pytest.param(distorted(2, diff(block_hash=ZERO_ROOT)), 2, "invalid", 206, id="wrong hash"),
        pytest.param(distorted(2, diff(transactions=(b"\x05\x05",))), 2, "invalid", 206, id="undecodable transaction"),
        pytest.param(distorted(0, base(gas_limit=30_000_000)), 0, "base_mismatch", 206, id="another base"),
        pytest.param(distorted(0, base(base_fee_per_gas=1)), 0, "invalid", 206, id="wrong base fee"),
        pytest.param(lambda frames: [*frames[:2], *frames[3:]], 2, "missing_flashblock", 206, id="skipped index"),
        pytest.param(insert_after(1, lambda frames: frames[1]), 6, "duplicate", 200, id="duplicate"),
        pytest.param(
            insert_after(1, lambda frames: redone(frames[1], diff(gas_used=5))),
            2,
            "equivocation",
            206,
            id="equivocation",
        ),
        pytest.param(
            insert_after(0, lambda frames: redone(frames[0], base(gas_limit=30_000_000))),
            1,
            "equivocation",
            206,
            id="equal id with changed base",
        ),
        pytest.param(
            insert_after(
                0, lambda frames: redone(frames[1], lambda one: msgspec.structs.replace(one, payload_id=b"\x09" * 8))
            ),
            6,
            "payload_id",
            200,
            id="other payload id",
        ),
        pytest.param(insert_after(1, garbage_body), 6, "garbage", 206, id="garbage body"),
        pytest.param(
            insert_after(1, lambda frames: HealthFrame(200, "fine")), 6, "garbage", 206, id="a frame out of place"
        ),
        pytest.param(lambda frames: [], 0, "silent", 206, id="silent"),
        pytest.param(lambda frames: frames[1:], 0, "missing_flashblock", 206, id="no opening"),
    ],
)
async def test_a_misbehaving_builder_is_refused_counted_and_survived(
    tmp_path: Path, script: Callable[[list[FlashblockFrame]], list[Frame]], good: int, reason: str, status: int
) -> None:
    async with running(tmp_path, scripted=True) as rig:
        source = rig.builder.source
        source.script = script
        for account in range(3):
            await rig.send(account, 0)
        payload_id = await rig.open_block()
        await until(lambda: len(rig.ledger.open) >= good, "the good flashblocks are committed")
        await rig.wait_for_seal()
        await asyncio.sleep(BUILDER_PATIENCE_S)
        envelope = await rig.engine.get_payload(payload_id)
        streamed = list(rig.text)
        assert [one.diff for one in streamed[:good]] == [decode_body(one.body).diff for one in source.made[:good]]
        assert [one.index for one in streamed] == list(range(len(streamed))), "the execution client's come after it"
        assert assemble(streamed) == envelope, "what was streamed is the block"
        await rig.insert(envelope)
        assert rig.boost.metrics.value("flashblocks_not_streamed", reason=reason) >= 1
        assert rig.boost.core.health.status == status
        # A builder that behaves again is forgiven with its next block.
        source.script = list
        payload_id = await rig.open_block()
        await until(lambda: len(rig.ledger.open) == FLASHBLOCKS_PER_BLOCK + 1, "the next block is whole")
        await rig.insert(await rig.engine.get_payload(payload_id))
        assert rig.boost.core.health.status == 200


@pytest.mark.parametrize("lie", [distorted(2, diff(state_root=ZERO_ROOT)), distorted(0, base(gas_limit=1)), list])
async def test_a_block_goes_on_with_the_execution_client_after_a_lie_or_in_silence(
    tmp_path: Path, lie: Callable[[list[FlashblockFrame]], list[Frame]]
) -> None:
    """Transactions of after the failure are in the same block, streamed under hashes of valid blocks."""
    async with running(tmp_path, scripted=True, block_time_s=6) as rig:
        rig.builder.source.script = lie
        first = await rig.send(0, 0)
        payload_id = await rig.open_block()
        before = len(rig.text)
        await until(lambda: len(rig.text) > before, "something is streamed")
        late = await rig.send(1, 0)
        await until(
            lambda: any(late in one.diff.transactions for one in rig.text), "what came after the failure is streamed"
        )
        later = await rig.send(2, 0)
        await until(lambda: any(later in one.diff.transactions for one in rig.text), "and it goes on")
        envelope = await rig.engine.get_payload(payload_id)
        assert {first, late, later} <= set(envelope.payload.transactions)
        await until(lambda: assemble(rig.text) == envelope, "what was streamed is the block")
        judge = PayloadFollower(rig.el.client.chain)
        for one in rig.text:
            verdict = judge.apply(one)
            assert (verdict.status, verdict.block_hash) == ("VALID", one.diff.block_hash), "each is a valid block"
        await rig.insert(envelope)


async def test_what_comes_after_get_payload_is_not_streamed(tmp_path: Path) -> None:
    async with running(tmp_path, scripted=True, flashblock_time_ms=NO_STAND_IN_MS) as rig:
        source = rig.builder.source
        source.script = lambda frames: frames[:3]
        payload_id = await rig.open_block()
        await until(lambda: len(rig.ledger.open) == 3, "three are committed")
        envelope = await rig.engine.get_payload(payload_id)
        for frame in source.made[3:]:
            rig.builder.stream.publish(frame)
        await until(lambda: rig.boost.metrics.value("flashblocks_not_streamed", reason="tail"), "the tail arrived")
        assert await rig.engine.get_payload(payload_id) == envelope == prefix(source.made, 3)
        assert len(rig.ledger.offers) == len(rig.text) == 3
        await until(lambda: source.asked, "the builder is told that its block is closed")


async def test_a_flashblock_of_the_block_before_is_late(tmp_path: Path) -> None:
    async with running(tmp_path, scripted=True, flashblock_time_ms=NO_STAND_IN_MS) as rig:
        source = rig.builder.source
        source.script = lambda frames: frames[:2]
        await rig.block(flashblocks=2)
        old = source.made[2]
        source.script = lambda frames: [old, *frames]
        payload_id = await rig.open_block()
        await until(lambda: len(rig.ledger.open) == FLASHBLOCKS_PER_BLOCK + 1, "the new block is whole")
        assert rig.boost.metrics.value("flashblocks_not_streamed", reason="late") == 1
        assert await rig.engine.get_payload(payload_id) == prefix(source.made, FLASHBLOCKS_PER_BLOCK + 1)


async def test_a_missed_flashblock_is_had_again_by_connecting_anew(tmp_path: Path) -> None:
    async with running(tmp_path, scripted=True, flashblock_time_ms=NO_STAND_IN_MS) as rig:
        source = rig.builder.source
        source.script = lambda frames: [*frames[:2], *frames[3:]]
        rig.builder.stream._greet = lambda query: list(source.made)
        payload_id = await rig.open_block()
        await until(lambda: len(rig.ledger.open) == FLASHBLOCKS_PER_BLOCK + 1, "all are committed, the missed one too")
        assert await rig.engine.get_payload(payload_id) == prefix(source.made, FLASHBLOCKS_PER_BLOCK + 1)
        assert rig.boost.core.health.status == 200


@pytest.mark.parametrize("message", [b"\x93garbage", "not JSON", '{"payload_id":"0x01"}', b"\xff" * 100])
async def test_garbage_on_the_wire_is_counted_and_survived(tmp_path: Path, message: bytes | str) -> None:
    """A builder that speaks neither frames nor flashblocks, on the raw socket."""

    async def babble(connection: ServerConnection) -> None:
        await connection.send(message)
        await connection.wait_closed()

    offered = [Subprotocol(SUBPROTOCOL)] if isinstance(message, bytes) else None
    async with (
        serve(babble, "127.0.0.1", 0, subprotocols=offered) as server,
        running(tmp_path, builder_ws_url=f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}") as rig,
    ):
        await until(lambda: rig.boost.metrics.value("flashblocks_not_streamed", reason="garbage"), "it is counted")
        assert rig.boost.core.health.status == 206
        assert (await rig.block()).payload.block_number == 1


async def test_a_foreign_builder_that_streams_json_is_understood(tmp_path: Path) -> None:
    listeners: list[ServerConnection] = []

    async def speak(connection: ServerConnection) -> None:
        listeners.append(connection)
        await connection.wait_closed()

    async with serve(speak, "127.0.0.1", 0) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with running(tmp_path, scripted=True, builder_ws_url=url, flashblock_time_ms=NO_STAND_IN_MS) as rig:
            payload_id = await rig.open_block()
            await until(lambda: rig.builder.source.made, "the builder has built")
            for frame in rig.builder.source.made:
                await listeners[0].send(encode_json(decode_body(frame.body)).decode())
            await until(lambda: len(rig.ledger.open) == FLASHBLOCKS_PER_BLOCK + 1, "all are committed")
            envelope = await rig.engine.get_payload(payload_id)
            assert envelope == prefix(rig.builder.source.made, FLASHBLOCKS_PER_BLOCK + 1)


async def test_a_builder_that_hangs_delays_nothing(tmp_path: Path) -> None:
    """Its ports accept and never answer: calls to it run into their time-out while blocks go on."""
    writers: list[asyncio.StreamWriter] = []
    silent = await asyncio.start_server(lambda reader, writer: writers.append(writer), "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    try:
        hung = {"builder_url": f"http://127.0.0.1:{port}", "builder_ws_url": f"ws://127.0.0.1:{port}"}
        async with running(tmp_path, builder_timeout_ms=60_000, **hung) as rig:
            for number in (1, 2):
                async with asyncio.timeout(10):
                    assert (await rig.block()).payload.block_number == number
            assert rig.boost.core.health.status == 206
    finally:
        silent.close()
        for writer in writers:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)


@pytest.mark.parametrize(("policy", "honest", "expected"), [("", True, 4), ("gas-used", True, 4), ("", False, 1)])
async def test_a_whole_block_of_the_builder_is_answered_only_if_valid(
    tmp_path: Path, policy: str, honest: bool, expected: int
) -> None:
    """Without commits and flashblocks rollup-boost is what it was before flashblocks."""
    async with running(tmp_path, scripted=True, commit_required=False, block_selection_policy=policy) as rig:
        source = rig.builder.source
        source.script, source.whole = (lambda frames: []), True
        for account in range(3):
            await rig.builder.client.submit(rig.transfer(account, 0))
        payload_id = await rig.open_block()
        await until(lambda: source.made, "the builder has built")
        if not honest:
            source.made = [redone(frame, diff(state_root=ZERO_ROOT)) for frame in source.made]
        envelope = await rig.engine.get_payload(payload_id)
        assert len(envelope.payload.transactions) == expected
        assert rig.boost.core.health.status == (200 if honest else 206)
        assert rig.text == []
        await rig.insert(envelope)


@asynccontextmanager
async def without_our_paths(files: Files, target: list[str]) -> AsyncIterator[str]:
    """What a foreign execution client looks like: JSON-RPC on POST /, and nothing else."""

    async def pass_on(request: web.Request) -> web.Response:
        headers = {name: request.headers[name] for name in ("Authorization", "Content-Type")}
        async with session.post(target[0], data=await request.read(), headers=headers) as answer:
            return web.Response(body=await answer.read(), status=answer.status, content_type="application/json")

    app = web.Application()
    app.router.add_post("/", pass_on)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    async with aiohttp.ClientSession() as session:
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()


@pytest.mark.parametrize(("index", "good"), [(9, FLASHBLOCKS_PER_BLOCK + 1), (2, 2)])
async def test_a_foreign_execution_client_judges_the_block_so_far(tmp_path: Path, index: int, good: int) -> None:
    files, target = Files(tmp_path), [""]
    async with (
        without_our_paths(files, target) as url,
        running(tmp_path, scripted=True, files=files, l2_url=url) as rig,
    ):
        target[0] = rig.el.client.engine_server.url
        rig.builder.source.script = distorted(index, diff(state_root=ZERO_ROOT))
        payload_id = await rig.open_block()
        await until(lambda: len(rig.ledger.open) == good, "the good flashblocks are committed")
        await until(lambda: rig.boost.core.health.status == (200 if index == 9 else 206), "the verdict is in")
        envelope = await rig.engine.get_payload(payload_id)
        assert envelope == prefix(rig.builder.source.made, good)
        await rig.insert(envelope)
