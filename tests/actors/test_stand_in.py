"""The fallback EL makes single flashblocks, on whatever it has followed."""

from pathlib import Path

import msgpack
import pytest

from actors.rpc_client import RpcRefused
from flashblocks.execution.chain import Chain, ChainBlock
from flashblocks.execution.follow import PayloadFollower
from flashblocks.execution.genesis import load_genesis
from flashblocks.execution.transaction import decode_transaction
from flashblocks.wire.assembly import assemble, attributes_of
from flashblocks.wire.flashblock import Flashblock, decode_body
from flashblocks.wire.frames import STAND_IN_PATH, FlashblockFrame, decode_frame
from flashblocks.wire.hexadecimal import to_bytes
from flashblocks.wire.payload_id import payload_id
from tests.actors.execution_driver import Driver, running
from tests.execution.forge import Forge

FORGE = Forge()


async def make(driver: Driver, identifier: bytes, index: int) -> Flashblock:
    frame = decode_frame(await driver.engine.post_binary(STAND_IN_PATH, msgpack.packb((identifier, index))))
    assert isinstance(frame, FlashblockFrame)
    assert (frame.payload_id, frame.index, frame.epoch) == (identifier, index, 0)
    return decode_body(frame.body)


def judge() -> PayloadFollower:
    spec, block, state = load_genesis(FORGE.genesis)
    return PayloadFollower(Chain(spec, ChainBlock(block.header, (), (), state)))


async def test_a_whole_block_flashblock_by_flashblock(tmp_path: Path) -> None:
    async with running(tmp_path, FORGE) as (_, driver):
        head, attributes = await driver.next_attributes()
        begun = await driver.choose(head, attributes)
        identifier = to_bytes(begun["payloadId"])
        made = [await make(driver, identifier, 0)]
        assert made[0].diff.transactions == attributes.transactions, "the forced ones and nothing else"
        assert payload_id(head, attributes_of(made[0])) == identifier
        await driver.send(FORGE.transfer(0, 0), FORGE.transfer(1, 0, tip=5 * 10**6))
        made.append(await make(driver, identifier, 1))
        tips = [decode_transaction(raw).max_priority_fee_per_gas for raw in made[1].diff.transactions]
        assert len(tips) == 2
        assert tips == sorted(tips, reverse=True)
        made.append(await make(driver, identifier, 2))
        assert made[2].diff.transactions == ()
        follower = judge()
        assert [follower.apply(one).status for one in made] == ["VALID"] * 3
        envelope = assemble(made)
        assert (await driver.insert(envelope))["status"] == "VALID"
        assert (await driver.choose(envelope.payload.block_hash))["payloadStatus"]["status"] == "VALID"


async def test_it_goes_on_behind_another_s_flashblocks_and_knows_its_own_when_they_are_committed(
    tmp_path: Path,
) -> None:
    async with running(tmp_path, FORGE) as (_, driver):
        head, attributes = await driver.next_attributes()
        begun = await driver.choose(head, attributes)
        identifier = to_bytes(begun["payloadId"])
        theirs = FORGE.flashblocks(FORGE.block.header, FORGE.state, [[FORGE.transfer(0, 0)]])
        assert theirs[0].payload_id == identifier
        await driver.apply_all(theirs, head)
        await driver.send(FORGE.transfer(1, 0))
        own = await make(driver, identifier, len(theirs))
        assert len(own.diff.transactions) == 1
        answer = await driver.apply(own, head, epoch=3)
        assert answer["status"] == "DUPLICATE"
        follower = judge()
        assert [follower.apply(one).status for one in (*theirs, own)] == ["VALID"] * (len(theirs) + 1)


@pytest.mark.parametrize("why", ["unknown payload", "not the next", "nonsense", "made already"])
async def test_what_cannot_be_made_is_refused_and_changes_nothing(tmp_path: Path, why: str) -> None:
    async with running(tmp_path, FORGE) as (component, driver):
        head, attributes = await driver.next_attributes()
        begun = await driver.choose(head, attributes)
        identifier = to_bytes(begun["payloadId"])
        await make(driver, identifier, 0)
        body = {
            "unknown payload": msgpack.packb((b"\x09" * 8, 0)),
            "not the next": msgpack.packb((identifier, 2)),
            "made already": msgpack.packb((identifier, 0)),
            "nonsense": b"\xc1",
        }[why]
        with pytest.raises(RpcRefused) as caught:
            await driver.engine.post_binary(STAND_IN_PATH, body)
        assert caught.value.code == 404
        followed = component.client.follower.open(identifier)
        assert followed is not None
        assert followed.last_index == 0
