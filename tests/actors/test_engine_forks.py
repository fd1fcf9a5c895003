"""The Engine API of one client while its chain goes from Holocene over Isthmus to Jovian."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from actors.rpc_client import RpcRefused
from flashblocks.execution.genesis import default_genesis, load_genesis
from flashblocks.wire.engine import PayloadAttributes
from flashblocks.wire.hexadecimal import data, to_bytes
from tests.actors.execution_driver import Driver, running
from tests.execution.forge import Forge

START_S = 1_735_689_600
ISTHMUS_S, JOVIAN_S = START_S + 4, START_S + 8
MIN_BASE_FEE_WEI = 3_000_000


class YoungForge(Forge):
    """A chain whose forks lie ahead."""

    def __init__(self) -> None:
        self.genesis = default_genesis(timestamp=START_S, jovian_time=JOVIAN_S)
        self.genesis["config"]["isthmusTime"] = self.genesis["config"]["pragueTime"] = ISTHMUS_S
        self.spec, self.block, self.state = load_genesis(self.genesis)

    def attributes_at(self, number: int, timestamp: int, **fields: Any) -> PayloadAttributes:
        attributes = super().attributes_at(number, timestamp, **fields)
        minimum = MIN_BASE_FEE_WEI if timestamp >= JOVIAN_S else None
        return msgspec.structs.replace(attributes, min_base_fee=minimum, no_tx_pool=timestamp == JOVIAN_S)


async def refused(driver: Driver, code: int, method: str, *arguments: Any) -> None:
    with pytest.raises(RpcRefused) as error:
        await driver.engine.call(method, *arguments)
    assert error.value.code == code


async def next_block(driver: Driver, isthmus: bool) -> dict[str, Any]:
    """One block through the methods of its fork; the other fork's methods are refused."""
    mine, other = ("V4", "V3") if isthmus else ("V3", "V4")
    head, attributes = await driver.next_attributes()
    begun = await driver.choose(head, attributes)
    await refused(driver, -38005, f"engine_getPayload{other}", begun["payloadId"])
    answer = await driver.engine.call(f"engine_getPayload{mine}", begun["payloadId"])
    payload = answer["executionPayload"]
    assert ("withdrawalsRoot" in payload) == ("executionRequests" in answer) == isthmus
    requests: dict[str, list[Any]] = {"V3": [], "V4": [[]]}
    root = answer["parentBeaconBlockRoot"]
    await refused(driver, -38005, f"engine_newPayload{other}", payload, [], root, *requests[other])
    status = await driver.engine.call(f"engine_newPayload{mine}", payload, [], root, *requests[mine])
    assert status["status"] == "VALID"
    await driver.choose(to_bytes(payload["blockHash"], 32))
    return payload  # type: ignore[no-any-return]


async def test_every_fork_has_its_methods_and_fields(tmp_path: Path) -> None:
    forge = YoungForge()
    async with running(tmp_path, forge, data_dir=str(tmp_path / "data")) as (_, driver):
        payloads = []
        for number in range(1, 7):
            await driver.send(forge.transfer(0, number - 1))
            payloads.append(await next_block(driver, isthmus=number >= 2))
        assert [len(to_bytes(payload["extraData"])) for payload in payloads] == [9] * 3 + [17] * 3
        # The transfer sent before Jovian's first block waits for the one after it.
        assert [len(payload["transactions"]) for payload in payloads] == [2, 2, 2, 1, 3, 2]
        assert int(payloads[4]["baseFeePerGas"], 16) == int(payloads[5]["baseFeePerGas"], 16) == MIN_BASE_FEE_WEI
        assert [int(payload["blobGasUsed"], 16) for payload in payloads] == [0, 0, 0, 0, 80_000, 40_000]
        block = await driver.rpc.call("eth_getBlockByNumber", "0x6", False)
        assert block["blobGasUsed"] == data(b"\x9c\x40") == payloads[5]["blobGasUsed"]
    async with running(tmp_path, forge, data_dir=str(tmp_path / "data")) as (_, driver):
        assert (await driver.head())["hash"] == payloads[-1]["blockHash"]


async def test_the_value_of_a_block_is_its_priority_fees(tmp_path: Path) -> None:
    forge = Forge()
    async with running(tmp_path, forge) as (_, driver):
        await driver.send(forge.transfer(0, 0, tip=3_000_000), forge.transfer(1, 0, tip=5_000_000))
        head, attributes = await driver.next_attributes()
        begun = await driver.choose(head, attributes)
        answer = await driver.engine.call("engine_getPayloadV4", begun["payloadId"])
        assert int(answer["blockValue"], 16) == 21_000 * 8_000_000


async def test_attributes_must_be_those_of_the_block_s_fork(tmp_path: Path) -> None:
    forge = YoungForge()
    async with running(tmp_path, forge) as (_, driver):
        for number in range(1, 6):
            head, attributes = await driver.next_attributes()
            wrong = msgspec.structs.replace(
                attributes, min_base_fee=1 if attributes.min_base_fee is None else None
            ).to_json()
            state = {
                "headBlockHash": data(head),
                "safeBlockHash": data(bytes(32)),
                "finalizedBlockHash": data(bytes(32)),
            }
            await refused(driver, -38003, "engine_forkchoiceUpdatedV3", state, wrong)
            await next_block(driver, isthmus=number >= 2)
