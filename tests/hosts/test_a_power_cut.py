"""Every host loses its power at once, one sequencer host and at first the keeper's stay dead: the chain goes on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import pytest

from actors.rpc_client import RpcClient, RpcRefused, RpcUnknown
from chaos.target import Target
from tests.clients.first_transaction import first_transactions
from tests.hosts.deployment import EDGE, FIGURES, HEAD, SEQUENCERS, Deployment
from tests.hosts.host_faults import boot_and_join

pytestmark = [pytest.mark.hosts, pytest.mark.slow, pytest.mark.timeout(900)]

BACK_S_MAX = 300.0
ANSWER_S_MAX = 2.0
POLL_S = 0.5


async def head_number(url: str) -> int:
    """The newest block of an Ethereum RPC; -1 when it does not answer."""
    client = RpcClient(url, timeout_s=ANSWER_S_MAX)
    try:
        return int(str(await client.call("eth_blockNumber")), 16)
    except (RpcUnknown, RpcRefused):
        return -1
    finally:
        await client.close()


async def newest(urls: Sequence[str]) -> int:
    """The newest block any of them has."""
    return max(await asyncio.gather(*(head_number(url) for url in urls)))


async def wait_until_beyond(urls: Sequence[str], number: int) -> None:
    """Wait until one of them has a block after *number*."""
    deadline = time.monotonic() + BACK_S_MAX
    while (found := await newest(urls)) <= number:
        assert time.monotonic() < deadline, f"the newest block is {found}, it was {number}"
        await asyncio.sleep(POLL_S)


async def wait_until_written(deployment: Deployment) -> None:
    """Wait until the keeper has written endpoints.json again."""
    deadline = time.monotonic() + BACK_S_MAX
    while not deployment.endpoints_path.exists():
        assert time.monotonic() < deadline, "no keeper writes endpoints.json"
        await asyncio.sleep(POLL_S)


async def test_the_chain_goes_on_when_every_host_was_off_and_one_stays_off(deployment: Deployment) -> None:
    machines, endpoints = deployment.machines, deployment.endpoints  # the file is lost with the edge host's /tmp
    rpc = endpoints["rpc"]["http"]
    first_transactions(rpc, count=5)
    target = Target(deployment.endpoints_path)
    try:
        leader, _ = await target.wait_for_leader(BACK_S_MAX)
        missing = deployment.host_of(leader["name"])
        urls = {
            deployment.host_of(group["name"]).name: group["actors"]["builder"]["rpc"] for group in endpoints["groups"]
        }
        sealed = await newest([*urls.values()])
        assert sealed > 0
        for name in (HEAD, *SEQUENCERS, EDGE):
            machines[name].kill()

        began = time.monotonic()
        back = [name for name in SEQUENCERS if name != missing.name]
        await boot_and_join(deployment, machines[HEAD])
        await asyncio.gather(*(boot_and_join(deployment, machines[name]) for name in back))
        joined_s = time.monotonic() - began
        await wait_until_beyond([urls[name] for name in back], sealed)  # the keeper's host is off: nobody delivers
        flows_s = time.monotonic() - began

        await boot_and_join(deployment, machines[EDGE])
        await wait_until_beyond([rpc], sealed)
        await wait_until_written(deployment)
        await target.wait_for_leader(BACK_S_MAX)
        assert first_transactions(rpc, count=5)["transfers"] == 5

        await boot_and_join(deployment, missing)
        for actor in ("conductor", "op-node", "rollup-boost", "builder", "fallback-el"):
            await target.wait_for_actor(leader["name"], actor, 0, BACK_S_MAX)
        FIGURES.append(f"every host off, four groups back: joined after {joined_s:.0f} s, next block {flows_s:.0f} s")
    finally:
        await target.close()
