"""The fallback EL as a process of its own, killed and started again."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from actors.rpc_client import RpcUnknown
from flashblocks.execution.accounts import TEST_ACCOUNTS
from flashblocks.wire.hexadecimal import data
from tests.actors.execution_driver import Driver, write_files
from tests.actors.group_under_test import free_ports
from tests.execution.forge import Forge

FORGE = Forge()
GENESIS_HASH = FORGE.block.hash


@contextmanager
def process(directory: Path, ports: list[int]) -> Iterator["subprocess.Popen[bytes]"]:
    """A fallback EL as its own process with a data directory."""
    values = {
        "name": "sequencer-0",
        "engine_port": ports[0],
        "rpc_port": ports[1],
        "data_dir": str(directory),
        **write_files(directory, FORGE),
    }
    script = (
        "import json, sys; from actors.process import run_component;"
        "sys.exit(run_component('fallback-el', json.loads(sys.argv[1])))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, json.dumps(values)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(each for each in sys.path if each)},
        stderr=subprocess.DEVNULL,
    ) as running_process:
        try:
            yield running_process
        finally:
            running_process.kill()


async def serving(driver: Driver) -> dict[str, Any]:
    for _ in range(300):
        try:
            return await driver.head()
        except Exception:
            await asyncio.sleep(0.1)
    raise AssertionError("the process does not serve")


async def test_killed_and_started_again_it_stands_where_it_stood(tmp_path: Path) -> None:
    ports = free_ports(2)
    driver = Driver(FORGE, f"http://127.0.0.1:{ports[0]}", f"http://127.0.0.1:{ports[1]}")
    try:
        with process(tmp_path, ports) as first:
            await serving(driver)
            for number in range(3):
                await driver.send(FORGE.transfer(0, number))
                envelope = await driver.make_block()
            first.send_signal(signal.SIGKILL)
            await asyncio.to_thread(first.wait)
        with process(tmp_path, ports) as second:
            head = await serving(driver)
            assert (head["number"], head["hash"]) == ("0x3", data(envelope.payload.block_hash))
            account = data(TEST_ACCOUNTS[0].address)
            assert await driver.rpc.call("eth_getTransactionCount", account) == "0x3"
            await driver.send(FORGE.transfer(0, 3))
            assert len((await driver.make_block()).payload.transactions) == 2
            second.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(second.wait) == 0
    finally:
        await driver.close()


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(3))
async def test_a_kill_at_any_instant_loses_no_block_that_was_answered_valid(tmp_path: Path, seed: int) -> None:
    ports = free_ports(2)
    driver = Driver(FORGE, f"http://127.0.0.1:{ports[0]}", f"http://127.0.0.1:{ports[1]}")
    valid = [data(GENESIS_HASH)]
    rng = random.Random(seed)
    try:
        for _ in range(3):
            with process(tmp_path, ports) as running_process:
                assert (await serving(driver))["hash"] in valid[-2:]
                killer = asyncio.get_running_loop().call_later(rng.uniform(0.05, 0.6), running_process.kill)
                try:
                    while True:
                        head, attributes = await driver.next_attributes()
                        begun = await driver.choose(head, attributes)
                        envelope = await driver.payload(begun["payloadId"])
                        assert (await driver.insert(envelope))["status"] == "VALID"
                        valid.append(data(envelope.payload.block_hash))
                        await driver.choose(envelope.payload.block_hash)
                except RpcUnknown:
                    killer.cancel()
        with process(tmp_path, ports):
            assert (await serving(driver))["hash"] in valid[-2:]
            last = await driver.rpc.call("eth_getBlockByHash", valid[-1], False)
            assert last is not None and int(last["number"], 16) == len(valid) - 1
    finally:
        await driver.close()
