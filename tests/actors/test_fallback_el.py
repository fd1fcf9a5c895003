"""The fallback EL on real sockets: driven over the Engine API, judging flashblocks."""

import os
from pathlib import Path
from typing import Any

import msgpack
import msgspec
import pytest

from actors import plain_payloads
from actors.plain_payloads import BUILDS_MAX
from actors.rpc_client import RpcClient, RpcRefused
from flashblocks.execution import chain as chain_module
from flashblocks.execution.accounts import TEST_ACCOUNTS
from flashblocks.execution.errors import InvalidBlock
from flashblocks.execution.payloads import block_of, envelope_of
from flashblocks.execution.signing import address_of, sign_transaction
from flashblocks.execution.transaction import decode_transaction
from flashblocks.wire.assembly import assemble, attributes_of
from flashblocks.wire.engine import Envelope
from flashblocks.wire.flashblock import decode_body
from flashblocks.wire.frames import PAYLOAD_PATH, decode_frame
from flashblocks.wire.hexadecimal import data, to_bytes
from flashblocks.wire.payload_id import payload_id
from tests.actors.execution_driver import running
from tests.actors.group_under_test import until
from tests.execution.forge import Forge
from tracing import names
from tracing.context import parse_frame_context, transaction_root
from tracing.reading import read_files

replace = msgspec.structs.replace
FORGE = Forge()
GENESIS_HASH = FORGE.block.hash


async def test_blocks_with_real_transactions(tmp_path: Path) -> None:
    async with running(tmp_path, FORGE) as (component, driver):
        for number in range(4):
            hashes = await driver.send(FORGE.transfer(0, number), FORGE.transfer(1, number, tip=5 * 10**6))
            envelope = await driver.make_block()
            assert envelope.payload.block_number == number + 1
            included = [data(decode_transaction(raw).hash) for raw in envelope.payload.transactions]
            assert included[1:] == [hashes[1], hashes[0]], "the better tip first, after the deposit"
            receipt = await driver.rpc.call("eth_getTransactionReceipt", hashes[0])
            assert (receipt["status"], receipt["gasUsed"]) == ("0x1", "0x5208")
        assert await driver.rpc.call("txpool_status") == {"pending": "0x0", "queued": "0x0"}
        assert await driver.rpc.call("eth_getTransactionCount", data(TEST_ACCOUNTS[0].address)) == "0x4"
        assert component.status()["number"] == 4


async def test_no_tx_pool_means_the_forced_transactions_alone(tmp_path: Path) -> None:
    async with running(tmp_path, FORGE) as (_, driver):
        await driver.send(FORGE.transfer(0, 0))
        assert len((await driver.make_block(no_tx_pool=True)).payload.transactions) == 1
        assert len((await driver.make_block()).payload.transactions) == 2


@pytest.mark.parametrize(("transfers", "indices"), [(0, [0]), (3, [0, 1])])
async def test_a_payload_can_be_had_as_flashblocks(tmp_path: Path, transfers: int, indices: list[int]) -> None:
    async with running(tmp_path, FORGE) as (_, driver):
        for nonce in range(transfers):
            await driver.send(FORGE.transfer(0, nonce))
        head, attributes = await driver.next_attributes()
        begun = await driver.choose(head, attributes)
        identifier = to_bytes(begun["payloadId"])
        raw = await driver.engine.post_binary(PAYLOAD_PATH, identifier)
        frames = [decode_frame(frame) for frame in msgpack.unpackb(raw)]
        made = [decode_body(frame.body) for frame in frames]
        assert [one.index for one in made] == indices
        assert payload_id(head, attributes_of(made[0])) == identifier, "a new leader can go on from here"
        assert assemble(made) == await driver.payload(begun["payloadId"])
        assert len(made[-1].metadata.receipts) == (transfers or 1)
        with pytest.raises(RpcRefused) as caught:
            await driver.engine.post_binary(PAYLOAD_PATH, b"\0" * 8)
        assert caught.value.code == 404


async def test_what_it_makes_in_a_builders_place_is_traced_as_a_builders_is(tmp_path: Path) -> None:
    async with running(tmp_path, FORGE, data_dir=str(tmp_path / "data")) as (_, driver):
        traced, untraced = FORGE.transfer(0, 0), FORGE.transfer(1, 0)
        tx_hash = decode_transaction(traced).hash
        headers = {"traceparent": transaction_root(tx_hash).traceparent}
        await driver.rpc.call("eth_sendRawTransaction", data(traced), headers=headers)
        await driver.send(untraced)
        head, attributes = await driver.next_attributes()
        begun = await driver.choose(head, attributes)
        raw = await driver.engine.post_binary(PAYLOAD_PATH, to_bytes(begun["payloadId"]))
        frames = [decode_frame(frame) for frame in msgpack.unpackb(raw)]
    context = parse_frame_context(frames[1].traceparent)
    assert context is not None and context.transactions == (tx_hash,)
    spans = read_files(tmp_path / "data")
    own = {span.name: span for span in spans if span.trace_id == f"{transaction_root(tx_hash).trace_id:032x}"}
    assert own.keys() == {names.POOL, names.INCLUDE}
    assert own[names.INCLUDE].service == "fallback-el"
    assert own[names.INCLUDE].links == ((f"{context.build.trace_id:032x}", f"{context.build.span_id:016x}"),)
    builds = [span for span in spans if span.name == names.BUILD]
    assert [span.attributes[names.FLASHBLOCK_INDEX] for span in builds] == [0, 1]


async def test_a_payload_asked_for_twice_is_the_same(tmp_path: Path) -> None:
    async with running(tmp_path, FORGE) as (_, driver):
        head, attributes = await driver.next_attributes()
        begun = await driver.choose(head, attributes)
        first = await driver.payload(begun["payloadId"])
        await driver.send(FORGE.transfer(0, 0))
        again = await driver.choose(head, attributes)
        assert again["payloadId"] == begun["payloadId"]
        assert await driver.payload(begun["payloadId"]) == first


async def test_a_build_that_waits_takes_what_comes_in(tmp_path: Path) -> None:
    async with running(tmp_path, FORGE) as (component, driver):
        head, attributes = await driver.next_attributes()
        begun = await driver.choose(head, attributes)
        await driver.send(FORGE.transfer(0, 0))
        build = component.client.source._builds[to_bytes(begun["payloadId"])]
        await until(lambda: build.block.transaction_count == 2, "filling in the background")
        await driver.send(FORGE.transfer(0, 1))
        assert len((await driver.payload(begun["payloadId"])).payload.transactions) == 3


async def test_only_so_many_builds_go_on_at_once(tmp_path: Path) -> None:
    async with running(tmp_path, FORGE) as (_, driver):
        head, attributes = await driver.next_attributes()
        begun = [
            (await driver.choose(head, replace(attributes, timestamp=attributes.timestamp + later)))["payloadId"]
            for later in range(BUILDS_MAX + 1)
        ]
        assert len(set(begun)) == len(begun)
        with pytest.raises(RpcRefused, match="Unknown payload"):
            await driver.payload(begun[0])
        for name in begun[1:]:
            await driver.payload(name)


async def test_nothing_is_filled_twice_while_flashblocks_come_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The builder's transactions would be executed once more, for a payload that nobody will ask for."""
    looks = []
    monkeypatch.setattr(plain_payloads, "FILL_PAUSE_S", 0.001)
    made = FORGE.flashblocks(FORGE.block.header, FORGE.state, [[FORGE.transfer(0, 0)]])
    async with running(tmp_path, FORGE) as (component, driver):
        begun = await driver.choose(GENESIS_HASH, FORGE.attributes(FORGE.block.header))
        assert begun["payloadId"] == data(made[0].payload_id)
        await driver.apply_all(made, GENESIS_HASH)
        await driver.send(FORGE.transfer(1, 0))
        build = component.client.source._builds[made[0].payload_id]
        find = component.client.follower.open
        monkeypatch.setattr(component.client.follower, "open", lambda name: looks.append(name) or find(name))
        await until(lambda: len(looks) > 3, "the build looks whether it should fill")
        assert build.block.transaction_count == 1
        envelope = await driver.payload(begun["payloadId"])
        assert len(envelope.payload.transactions) == 2, "asked for all the same, it is filled at once"


async def test_engine_errors_have_the_codes_of_the_specification(tmp_path: Path) -> None:
    async with running(tmp_path, FORGE) as (_, driver):
        head, attributes = await driver.next_attributes()
        cases: list[tuple[int, Any]] = [
            (-38001, driver.engine.call("engine_getPayloadV4", "0x0400000000000001")),
            (-38003, driver.choose(head, replace(attributes, timestamp=1))),
            (-38003, driver.choose(head, replace(attributes, eip1559_params=bytes(4) + b"\0\0\0\1"))),
            (-38003, driver.choose(head, replace(attributes, transactions=(b"\x7e\xc0",)))),
            (-38002, driver.choose(head, safe=b"\x01" * 32)),
            (-32602, driver.engine.call("engine_forkchoiceUpdatedV3", {"headBlockHash": "0x12"})),
            (-32602, driver.engine.call("engine_newPayloadV4", {}, [], data(bytes(32)), [])),
            (-32601, driver.engine.call("engine_newPayloadV9")),
        ]
        for code, calling in cases:
            with pytest.raises(RpcRefused) as refused:
                await calling
            assert refused.value.code == code, refused.value
        envelope = await driver.make_block()
        root = data(envelope.parent_beacon_block_root)
        for method, arguments, code in [
            ("engine_newPayloadV3", [envelope.payload.to_json(), [], root], -38005),
            ("engine_newPayloadV4", [envelope.payload.to_json(), [], root, ["0x01"]], -32602),
            ("engine_newPayloadV4", [envelope.payload.to_json(), [root], root, []], -32602),
        ]:
            with pytest.raises(RpcRefused) as refused:
                await driver.engine.call(method, *arguments)
            assert refused.value.code == code
        begun = await driver.choose(envelope.payload.block_hash, (await driver.next_attributes())[1])
        with pytest.raises(RpcRefused, match="Unsupported fork"):
            await driver.engine.call("engine_getPayloadV3", begun["payloadId"])
        assert "engine_newPayloadV4" in await driver.engine.call("engine_exchangeCapabilities", [])


async def test_the_engine_port_wants_the_token(tmp_path: Path) -> None:
    async with running(tmp_path, FORGE) as (component, driver):
        for secret in (None, b"\1" * 32):
            stranger = RpcClient(component.client.engine_server.url, jwt_secret=secret)
            with pytest.raises(RpcRefused) as refused:
                await stranger.call("eth_blockNumber")
            assert refused.value.code == 401
            await stranger.close()
        assert await driver.engine.call("eth_blockNumber") == "0x0", "the engine port serves eth too"


async def test_payload_statuses(tmp_path: Path) -> None:
    async with running(tmp_path, FORGE) as (_, driver):
        envelope = await driver.make_block()
        good = envelope.payload
        wrong_hash = Envelope(envelope.parent_beacon_block_root, replace(good, gas_used=1))
        status = await driver.insert(wrong_hash)
        assert status["status"] == "INVALID" and "blockhash mismatch" in status["validationError"]

        bad = forged(FORGE, envelope, gas_used=1)
        status = await driver.insert(bad)
        assert (status["status"], status["latestValidHash"]) == ("INVALID", data(GENESIS_HASH))
        assert "gas_used" in status["validationError"]
        child = forged(FORGE, envelope, parent_hash=bad.payload.block_hash, block_number=2)
        assert (await driver.insert(child))["latestValidHash"] == data(GENESIS_HASH)
        chosen = await driver.choose(bad.payload.block_hash)
        assert chosen["payloadStatus"]["status"] == "INVALID" and chosen["payloadId"] is None

        orphan = forged(FORGE, envelope, parent_hash=b"\x07" * 32)
        assert (await driver.insert(orphan))["status"] == "SYNCING"
        assert (await driver.choose(b"\x08" * 32))["payloadStatus"]["status"] == "SYNCING"
        assert (await driver.head())["hash"] == data(good.block_hash)


def forged(forge: Forge, envelope: Envelope, **fields: Any) -> Envelope:
    """A payload with other fields and the hash that fits them."""
    payload = replace(envelope.payload, **fields)
    try:
        block_of(forge.spec, Envelope(envelope.parent_beacon_block_root, payload))
    except InvalidBlock as error:
        named = str(error).rsplit("0x", 1)[1]
        payload = replace(payload, block_hash=bytes.fromhex(named))
    return Envelope(envelope.parent_beacon_block_root, payload)


async def test_a_finalized_block_that_is_long_past_is_read_from_disk_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Finality is some minutes behind, and each forkchoice update names it: that must cost no walk through the log."""
    monkeypatch.setattr(chain_module, "STATES_IN_MEMORY_MAX", 2)
    monkeypatch.setattr(chain_module, "BLOCKS_IN_MEMORY_MAX", 3)
    async with running(tmp_path, FORGE, data_dir=str(tmp_path / "data")) as (component, driver):
        hashes = [(await driver.make_block()).payload.block_hash for _ in range(8)]
        keeper, read = component.client.keeper, []
        find = keeper.find
        monkeypatch.setattr(keeper, "find", lambda block_hash: read.append(block_hash) or find(block_hash))
        for _ in range(3):
            answer = await driver.choose(hashes[7], safe=hashes[1])
            assert answer["payloadStatus"]["status"] == "VALID"
        assert read == [hashes[1]]
        with pytest.raises(RpcRefused) as refused:
            await driver.choose(hashes[6], safe=hashes[7])
        assert refused.value.data == "safe block not in canonical chain"


async def test_a_reorganisation_by_forkchoice_gives_transactions_back(tmp_path: Path) -> None:
    async with running(tmp_path, FORGE) as (_, driver):
        (tx_hash,) = await driver.send(FORGE.transfer(0, 0))
        ours = await driver.make_block()
        assert len(ours.payload.transactions) == 2
        other = FORGE.seal(FORGE.block.header, FORGE.state, randao=99)
        assert (await driver.insert(envelope_of(other.block)))["status"] == "VALID"
        assert (await driver.choose(other.header.hash))["payloadStatus"]["status"] == "VALID"
        assert await driver.rpc.call("eth_getTransactionReceipt", tx_hash) is None
        assert (await driver.rpc.call("eth_getTransactionByHash", tx_hash))["blockHash"] is None
        assert await driver.rpc.call("txpool_status") == {"pending": "0x1", "queued": "0x0"}
        assert (await driver.choose(ours.payload.block_hash))["payloadStatus"]["status"] == "VALID"
        assert (await driver.rpc.call("eth_getTransactionReceipt", tx_hash))["blockNumber"] == "0x1"


async def test_flashblocks_are_judged_and_their_block_is_known(tmp_path: Path) -> None:
    made = FORGE.flashblocks(FORGE.block.header, FORGE.state, [[FORGE.transfer(0, 0)], [FORGE.transfer(1, 0)]])
    async with running(tmp_path, FORGE) as (component, driver):
        assert (await driver.apply(made[1], GENESIS_HASH))["status"] == "GAP"
        await driver.apply_all(made[:2], GENESIS_HASH)
        lie = replace(made[2], diff=replace(made[2].diff, gas_used=1))
        judged = await driver.apply(lie, GENESIS_HASH)
        assert (judged["status"], judged["expected_index"]) == ("INVALID", 2)
        assert "diff.gas_used" in judged["error"]
        judged = await driver.apply(made[2], GENESIS_HASH, epoch=3)
        assert (judged["status"], judged["block_hash"]) == ("VALID", made[2].diff.block_hash)
        assert judged["execution_us"] > 0
        assert (await driver.apply(made[2], GENESIS_HASH))["status"] == "DUPLICATE"
        envelope = assemble(made)
        assert (await driver.insert(envelope))["status"] == "VALID"
        assert (await driver.choose(envelope.payload.block_hash))["payloadStatus"]["status"] == "VALID"
        assert component.client.chain.head.hash == made[2].diff.block_hash
        bad_base = replace(made[0], base=replace(made[0].base, parent_hash=b"\x03" * 32))  # type: ignore[type-var]
        assert (await driver.apply(bad_base, b"\x03" * 32))["status"] == "UNKNOWN_PARENT"
        with pytest.raises(RpcRefused) as refused:
            await driver.engine.post_binary("/flashblocks/v1/apply", b"no frame")
        assert refused.value.code == 400


async def test_money_from_a_flashblock_can_be_spent_at_once(tmp_path: Path) -> None:
    poor = b"\x31" * 32
    gift = sign_transaction(
        TEST_ACCOUNTS[0].private_key, chain_id=901, nonce=0, to=address_of(poor), value=10**18, max_fee_per_gas=10**10
    )
    spend = sign_transaction(poor, chain_id=901, nonce=0, to=TEST_ACCOUNTS[1].address, value=1, max_fee_per_gas=10**10)
    made = FORGE.flashblocks(FORGE.block.header, FORGE.state, [[gift]])
    async with running(tmp_path, FORGE) as (_, driver):
        with pytest.raises(RpcRefused, match="insufficient funds"):
            await driver.send(spend)
        await driver.apply_all(made, GENESIS_HASH, epoch=1)
        await driver.send(spend)


async def test_a_full_disk_stops_blocks_with_a_clear_error_and_room_lets_them_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, FORGE, data_dir=str(tmp_path)) as (component, driver):
        await driver.make_block()
        head, attributes = await driver.next_attributes()
        envelope = await driver.payload((await driver.choose(head, attributes))["payloadId"])
        with monkeypatch.context() as patched:
            patched.setattr(os, "pwrite", no_space)
            with pytest.raises(RpcRefused, match="no space left on the disk") as refused:
                await driver.insert(envelope)
            assert refused.value.code == -32000
            status, text = await driver.rpc.get("/readyz")
            assert status == 503 and b"no space left" in text
            assert (await driver.head())["number"] == "0x1", "what was sealed is served"
            assert (await driver.choose(envelope.payload.block_hash))["payloadStatus"]["status"] == "SYNCING"
        assert (await driver.insert(envelope))["status"] == "VALID"
        assert (await driver.choose(envelope.payload.block_hash))["payloadStatus"]["status"] == "VALID"
        assert (await driver.rpc.get("/readyz"))[0] == 200
        assert component.client.status()["health"] == "ok"


def no_space(*_: Any) -> int:
    raise OSError(28, "No space left on device")


async def test_a_client_that_is_behind_fetches_what_it_misses(tmp_path: Path) -> None:
    directories = [tmp_path / "a", tmp_path / "b"]
    for directory in directories:
        directory.mkdir()
    async with (
        running(directories[0], FORGE) as (first, ahead),
        running(directories[1], FORGE, peers=[first.client.rpc_server.url]) as (second, behind),
    ):
        for number in range(100):  # deeper than one walk back by parent hashes
            await ahead.send(FORGE.transfer(0, number))
            envelope = await ahead.make_block()
        head = envelope.payload.block_hash
        assert (await behind.choose(head))["payloadStatus"]["status"] == "SYNCING"
        await until(lambda: second.client.chain.head.hash == head, "backfill")
        assert (await behind.choose(head))["payloadStatus"]["status"] == "VALID"
        assert await behind.rpc.call("eth_getTransactionCount", data(TEST_ACCOUNTS[0].address)) == "0x64"
        assert await behind.rpc.call("eth_syncing") is False

        latest = await ahead.make_block()
        assert (await behind.insert(forged(FORGE, latest)))["status"] == "VALID"


async def test_refused_attributes_do_not_keep_the_head_from_moving(tmp_path: Path) -> None:
    async with running(tmp_path, FORGE) as (_, driver):
        envelope = await driver.make_block()
        await driver.choose(GENESIS_HASH)
        state = {name: data(envelope.payload.block_hash) for name in ("headBlockHash", "safeBlockHash")}
        with pytest.raises(RpcRefused) as refused:
            await driver.engine.call(
                "engine_forkchoiceUpdatedV3", {**state, "finalizedBlockHash": data(bytes(32))}, {"timestamp": "0x1"}
            )
        assert refused.value.code == -38003
        assert (await driver.head())["number"] == "0x1"


async def test_a_long_branch_of_our_own_is_left_where_it_parts_from_the_peers(tmp_path: Path) -> None:
    directories = [tmp_path / "a", tmp_path / "b"]
    for directory in directories:
        directory.mkdir()
    async with (
        running(directories[0], FORGE) as (first, ahead),
        running(directories[1], FORGE, peers=[first.client.rpc_server.url]) as (second, behind),
    ):
        shared = [await ahead.make_block() for _ in range(3)]
        for envelope in shared:
            await behind.insert(envelope)
        await behind.choose(shared[-1].payload.block_hash)
        await behind.send(FORGE.transfer(1, 0))
        for _ in range(5):
            await behind.make_block()
        for _ in range(80):  # too deep for a walk by parent hashes alone
            envelope = await ahead.make_block()
        await behind.choose(envelope.payload.block_hash)
        await until(lambda: second.client.chain.head.hash == envelope.payload.block_hash, "backfill")
        assert len(second.client.pool) == 1


async def test_an_uncommitted_branch_does_not_stop_a_backfill(tmp_path: Path) -> None:
    """The client's own head is on a branch that its peers never had."""
    directories = [tmp_path / "a", tmp_path / "b"]
    for directory in directories:
        directory.mkdir()
    async with (
        running(directories[0], FORGE) as (first, ahead),
        running(directories[1], FORGE, peers=[first.client.rpc_server.url]) as (second, behind),
    ):
        await behind.send(FORGE.transfer(1, 0))
        await behind.make_block()
        for _ in range(3):
            envelope = await ahead.make_block()
        await behind.choose(envelope.payload.block_hash)
        await until(lambda: second.client.chain.head.hash == envelope.payload.block_hash, "backfill")
        assert len(second.client.pool) == 1, "the transaction of the lost branch is back in the pool"
