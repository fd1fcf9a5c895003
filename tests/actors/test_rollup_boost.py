"""rollup-boost on real sockets, with the real fallback EL as the judge, against builders good and bad."""

import asyncio
import time
from pathlib import Path

import aiohttp
import pytest

from actors.engine_client import EngineRefused
from actors.rollup_boost import RollupBoost, Settings
from actors.rpc_client import RpcClient, RpcRefused
from flashblocks.rollup_boost.facts import Tick
from flashblocks.wire.assembly import assemble
from flashblocks.wire.engine import Envelope, ForkchoiceState
from flashblocks.wire.flashblock import decode_body
from flashblocks.wire.frames import (
    FlashblockFrame,
)
from flashblocks.wire.jwt import make_token
from tests.actors.boost_rig import quiet_log, running, until


def prefix(frames: list[FlashblockFrame], count: int) -> Envelope:
    return assemble([decode_body(frame.body) for frame in frames[:count]])


def prefixes(frames: list[FlashblockFrame], least: int) -> list[Envelope]:
    """Every block that at least so many of them make: a commit may be on its way when the block is asked for."""
    return [prefix(frames, count) for count in range(least, len(frames) + 1)]


# The good case: FCU → flashblocks → judged → offered → committed → getPayload → newPayload


async def test_a_block_from_forkchoice_to_head(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        raws = [await rig.send(account, 0) for account in range(3)]
        first = await rig.block(flashblocks=2)
        second = await rig.block(flashblocks=2)
        assert [envelope.payload.block_number for envelope in (first, second)] == [1, 2]
        assert set(raws) <= {*first.payload.transactions, *second.payload.transactions}
        of_first = [one for one in rig.text if one.number == 1]
        assert [one.index for one in of_first] == list(range(len(of_first)))
        assert len(of_first) > 1
        assert first == assemble(of_first), "the block is exactly what was streamed"
        for client in (rig.el.client, rig.builder.client):
            await until(lambda client=client: client.chain.head.number == 2, "both clients have the block")
        assert rig.boost.core.health.status == 200


async def test_the_stream_holds_committed_flashblocks_only(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        rig.ledger.answers = False
        payload_id = await rig.open_block()
        await until(lambda: rig.ledger.offers, "a flashblock is offered")
        assert rig.text == []
        rig.ledger.commit(rig.ledger.offers[0])
        await until(lambda: rig.text, "the committed one is streamed")
        envelope = await rig.engine.get_payload(payload_id)
        assert envelope == prefix(rig.ledger.offers, 1)


async def test_without_required_commits_judged_flashblocks_are_streamed(tmp_path: Path) -> None:
    async with running(tmp_path, commit_required=False) as rig:
        rig.ledger.lead(False)
        payload_id = await rig.open_block()
        await until(lambda: len(rig.text) >= 2, "two are streamed")
        envelope = await rig.engine.get_payload(payload_id)
        await until(lambda: envelope == assemble(rig.text), "the block is what was streamed, to the last flashblock")
        assert rig.ledger.offers == []


async def test_a_builder_gone_mid_block_leaves_the_committed_prefix_and_the_block_goes_on(tmp_path: Path) -> None:
    async with running(tmp_path, block_time_s=6) as rig:
        payload_id = await rig.open_block()
        await until(lambda: len(rig.ledger.open) >= 2, "two are committed")
        await rig.end(rig.builder)
        await until(lambda: rig.boost.core.health.status == 206, "the builder's end is noticed")
        late = await rig.send(0, 0)
        await until(lambda: any(late in one.diff.transactions for one in rig.text), "the execution client goes on")
        envelope = await rig.engine.get_payload(payload_id)
        assert envelope in prefixes(rig.ledger.open, 2)
        await rig.insert(envelope)
        assert rig.ledger.health[-1] == 206
        assert late in envelope.payload.transactions
        before = len(rig.text)
        await rig.open_block()
        await until(lambda: len(rig.text) >= before + 2, "the next block is streamed without any builder")


async def test_a_builder_that_comes_back_goes_on_with_the_block(tmp_path: Path) -> None:
    async with running(tmp_path, block_time_s=6, flashblock_time_ms=60_000) as rig:  # nobody stands in
        payload_id = await rig.open_block()
        await until(lambda: len(rig.ledger.open) >= 2, "two are committed")
        await rig.restart_builder()
        before = len(rig.ledger.open)
        await until(lambda: len(rig.ledger.open) > before, "the new builder continues the block")
        assert rig.boost.core.health.status == 200
        envelope = await rig.engine.get_payload(payload_id)
        assert envelope in prefixes(rig.ledger.open, before)


async def test_an_execution_client_gone_is_told_at_once_and_the_prefix_still_answered(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        payload_id = await rig.open_block()
        await until(lambda: len(rig.ledger.open) >= 2, "two are committed")
        await rig.end(rig.el)
        await until(lambda: rig.ledger.health[-1:] == [503], "the conductor hears of it")
        envelope = await rig.engine.get_payload(payload_id)
        assert envelope in prefixes(rig.ledger.open, 2)


async def test_a_new_leader_resumes_another_s_open_block_behind_what_is_committed(tmp_path: Path) -> None:
    """The first group's leader dies mid-block; the second one followed, is asked for the same block, and goes on."""
    async with (
        running(tmp_path, block_time_s=4) as first,
        running(tmp_path, files=first.files, block_time_s=4) as second,
    ):
        second.ledger.lead(False)
        raws = [await first.send(0, nonce) for nonce in range(2)]
        payload_id = await first.open_block()
        await until(lambda: len(first.ledger.open) >= 3, "three are committed")
        first.ledger.answers = False
        inherited = list(first.ledger.open)
        for frame in inherited:
            second.ledger.commit(frame)
        for client in (second.el.client, second.builder.client):
            await until(lambda client=client: client.follower.open(payload_id), "the new leader's clients follow")
        second.ledger.epoch = 2
        second.ledger.lead(True)
        second.timestamp = first.timestamp
        late = await second.send(1, 0)
        resumed = await second.engine.start_build(
            ForkchoiceState(second.head.hash, bytes(32), bytes(32)), second.attributes()
        )
        assert resumed == payload_id
        await until(
            lambda: any(late in decode_body(frame.body).diff.transactions for frame in second.ledger.open),
            "the block goes on",
        )
        envelope = await second.engine.get_payload(payload_id)
        await second.insert(envelope)
        indices = [one.index for one in second.text]
        assert indices == list(range(len(indices))), "once each, in order, over both leaders"
        assert envelope == assemble(second.text)
        assert [one.diff for one in second.text[: len(inherited)]] == [decode_body(one.body).diff for one in inherited]
        assert set(raws) <= set(envelope.payload.transactions)
        assert late in envelope.payload.transactions


@pytest.mark.parametrize("count", [1, 3])
async def test_committed_frames_reach_both_clients_of_a_follower(tmp_path: Path, count: int) -> None:
    async with running(tmp_path, scripted=True) as rig:
        rig.ledger.lead(False)
        rig.builder.source.script = lambda frames: []
        await rig.open_block(at_once=True)
        made = rig.builder.source.made[:count]
        assert rig.el.client.follower.blocks() == []
        for frame in made:
            rig.ledger.commit(frame)
        for client in (rig.el.client, rig.builder.client):
            await until(
                lambda client=client: (
                    client.follower.blocks() and client.follower.blocks()[0].committed_index == count - 1
                ),
                "the client has executed them as committed",
            )
        assert [one.index for one in rig.text] == list(range(count))


async def test_restarted_mid_block_it_goes_on_with_the_block(tmp_path: Path) -> None:
    async with running(tmp_path, block_time_s=4) as rig:
        payload_id = await rig.open_block()
        await until(lambda: len(rig.ledger.open) >= 2, "two are committed")
        await rig.restart_boost()
        before = len(rig.ledger.open)
        await until(lambda: len(rig.ledger.open) > before, "the block goes on")
        envelope = await rig.engine.get_payload(payload_id)
        assert envelope in prefixes(rig.ledger.open, 2)
        await rig.insert(envelope)


# The doors: JWT, routing, probes, debug API


async def test_the_engine_port_asks_for_the_token(tmp_path: Path) -> None:
    async with running(tmp_path) as rig, aiohttp.ClientSession() as session:
        url = rig.boost.engine_server.url
        call = {"jsonrpc": "2.0", "id": 1, "method": "eth_chainId", "params": []}
        for headers, status in (
            ({}, 401),
            ({"Authorization": f"Bearer {make_token(b'x' * 32, time.time())}"}, 401),
            ({"Authorization": f"Bearer {make_token(rig.files.secret, time.time() - 120)}"}, 401),
            ({"Authorization": f"Bearer {make_token(rig.files.secret, time.time())}"}, 200),
        ):
            async with session.post(url, json=call, headers=headers) as response:
                assert response.status == status
        for path in ("/healthz", "/readyz", "/livez", "/metrics"):
            async with session.get(url + path) as response:
                assert response.status == 200


async def test_health_speaks_with_its_three_voices(tmp_path: Path) -> None:
    async with running(tmp_path) as rig, aiohttp.ClientSession() as session:

        async def healthz() -> tuple[int, str]:
            async with session.get(rig.boost.engine_server.url + "/healthz") as response:
                return response.status, await response.text()

        assert await healthz() == (200, "OK")
        await rig.end(rig.builder)
        await until(lambda: rig.boost.core.health.status == 206, "the builder is missed")
        assert await healthz() == (206, "Partial Content")
        await rig.end(rig.el)
        await until(lambda: rig.boost.core.health.status == 503, "the execution client is missed")
        assert await healthz() == (503, "Service Unavailable")
        async with session.get(rig.boost.engine_server.url + "/livez") as response:
            assert response.status == 200


async def test_routing(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        assert await rig.rpc.call("eth_chainId") == "0x385"
        assert "engine_newPayloadV4" in await rig.rpc.call("engine_exchangeCapabilities", ["engine_newPayloadV4"])
        for unknown in ("engine_getBlobsV1", "engine_forkchoiceUpdatedV1"):
            with pytest.raises(RpcRefused) as refused:
                await rig.rpc.call(unknown)
            assert refused.value.code == -32601
        await rig.rpc.call("miner_setMaxDASize", "0x100", "0x1000")
        assert rig.el.client.max_da_size == (256, 4096)
        await until(lambda: rig.builder.client.max_da_size == (256, 4096), "the builder has it too")
        raw = await rig.send(0, 0)
        await until(lambda: len(rig.builder.client.pool) == len(rig.el.client.pool) == 1, "both pools have it")
        assert raw in {tx.raw for tx in rig.builder.client.pool.transactions()}


async def test_errors_of_the_engine_are_the_execution_client_s_own(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        with pytest.raises(RpcRefused) as unknown:
            await rig.rpc.call("engine_getPayloadV4", "0x0404040404040404")
        assert unknown.value.code == -38001
        with pytest.raises(RpcRefused) as malformed:
            await rig.rpc.call("engine_getPayloadV4", "0x04")
        assert malformed.value.code == -32602
        state = ForkchoiceState(rig.head.hash, bytes(32), bytes(32)).to_json()
        attributes = {**rig.attributes().to_json(), "timestamp": "0x1"}
        with pytest.raises(RpcRefused) as invalid:
            await rig.rpc.call("engine_forkchoiceUpdatedV3", state, attributes)
        assert invalid.value.code == -38003
        answers = rig.boost.metrics._samples["flashblocks_fork_choice_updated_v3_duration"]
        await until(lambda: any(answers.values()), "the builder, which is not awaited, has answered too")
        assert rig.boost.core.health.status == 200, "a caller's mistake is nobody's ill health"
        with pytest.raises(EngineRefused):
            await rig.engine.start_build(ForkchoiceState(b"\x09" * 32, bytes(32), bytes(32)), rig.attributes())


async def test_execution_modes_by_the_debug_port(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        debug = RpcClient(rig.boost.debug_server.url)
        try:
            assert await debug.call("debug_getExecutionMode") == {"execution_mode": "enabled"}
            for wanted in ("dry_run", {"execution_mode": "dry_run"}):
                assert await debug.call("debug_setExecutionMode", wanted) == {"execution_mode": "dry_run"}
            with pytest.raises(RpcRefused) as refused:
                await debug.call("debug_setExecutionMode", "sometimes")
            assert refused.value.code == -32602
            await rig.send(0, 0)
            assert len((await rig.block()).payload.transactions) == 2, "the execution client's own block"
            assert rig.ledger.offers == rig.text == []
            await debug.call("debug_setExecutionMode", {"execution_mode": "disabled"})
            jobs = rig.builder.client.follower.blocks()
            await rig.block()
            assert rig.builder.client.follower.blocks() == jobs, "the builder is left alone"
            assert b"rollup_boost_execution_mode 1.0" in (await rig.rpc.get("/metrics"))[1]
        finally:
            await debug.close()


async def test_no_tx_pool_is_the_execution_client_s_alone(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        await rig.send(0, 0)
        payload_id = await rig.open_block(no_tx_pool=True, at_once=True)
        envelope = await rig.engine.get_payload(payload_id)
        assert len(envelope.payload.transactions) == 1
        assert rig.ledger.offers == []


async def test_an_unreadable_payload_id_and_a_repeated_update_change_nothing(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        for _ in range(5):  # the first block opens late in its slot: the repeat may come after its last flashblock
            before = len(rig.text)
            payload_id = await rig.open_block()
            await until(lambda: len(rig.ledger.open) >= 2, "two are committed")
            again = await rig.engine.start_build(ForkchoiceState(rig.head.hash, bytes(32), bytes(32)), rig.attributes())
            assert again == payload_id
            committed = len(rig.ledger.open)
            await rig.wait_for_seal()
            await rig.insert(await rig.engine.get_payload(payload_id))
            block = rig.text[before:]
            assert [one.index for one in block] == list(range(len(block)))
            if len(block) > committed:
                break
        assert len(block) > committed, "the block goes on"


async def test_our_own_bug_ends_it_loudly(monkeypatch: pytest.MonkeyPatch) -> None:
    boost = RollupBoost(Settings(engine_port=0, debug_port=0, ws_port=0), quiet_log())
    await boost.start()
    running_boost = asyncio.create_task(boost.run())

    def broken(fact: object, now: float) -> list[object]:
        raise ZeroDivisionError

    monkeypatch.setattr(boost.core, "step", broken)
    with pytest.raises(ZeroDivisionError):
        boost.tell(Tick())
    with pytest.raises(ExceptionGroup) as ended:
        await running_boost
    assert isinstance(ended.value.exceptions[0], ZeroDivisionError)
    await boost.close()
