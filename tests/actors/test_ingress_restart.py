"""An ingress that is killed right after it has answered: what it had taken in is included all the same."""

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from actors.rpc_client import RpcClient, RpcUnknown
from flashblocks.wire.hexadecimal import to_bytes
from tests.actors.small_client import SmallClient, raw, until

RUN = "import sys, json; from actors.process import run_component; run_component('ingress', json.loads(sys.argv[1]))"
START_S_MAX = 30.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def ingress_process(directory: Path, port: int, target_urls: list[str]) -> AsyncIterator[subprocess.Popen[bytes]]:
    settings = {
        "name": "ingress-0",
        "port": port,
        "data_dir": str(directory),
        "target_urls": target_urls,
        "log_level": "error",
    }
    process = subprocess.Popen([sys.executable, "-c", RUN, json.dumps(settings)])  # noqa: ASYNC220 – returns at once
    try:
        probe = RpcClient(f"http://127.0.0.1:{port}", timeout_s=2)
        async with asyncio.timeout(START_S_MAX):
            while True:
                try:
                    await probe.get("/livez")
                    break
                except RpcUnknown:
                    await asyncio.sleep(0.05)
        await probe.close()
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.cluster
async def test_what_was_answered_survives_the_ingress_and_the_only_pool_that_had_it(tmp_path: Path) -> None:
    first, late_port, port = SmallClient(), free_port(), free_port()
    await first.server.start()
    urls = [first.server.url, f"http://127.0.0.1:{late_port}"]
    async with ingress_process(tmp_path, port, urls) as process:
        wallet = RpcClient(f"http://127.0.0.1:{port}", timeout_s=10)
        hashes = [to_bytes(await wallet.call("eth_sendRawTransaction", raw(nonce))) for nonce in range(3)]
        process.kill()
        process.wait()
        await wallet.close()
    assert all(tx_hash in first.pool for tx_hash in hashes)
    await first.server.close()

    late = SmallClient(late_port)
    await late.server.start()
    async with ingress_process(tmp_path, port, urls):
        await until(lambda: all(tx_hash in late.pool for tx_hash in hashes), "the other pool has them")
        wallet = RpcClient(f"http://127.0.0.1:{port}", timeout_s=10)
        assert (await wallet.call("flashblocks_status"))["held"] == 3
        late.blocks.append(["0x" + tx_hash.hex() for tx_hash in hashes])
        async with asyncio.timeout(10):
            while (await wallet.call("flashblocks_status"))["held"]:  # noqa: ASYNC110 – a fact of another process
                await asyncio.sleep(0.05)
        await wallet.close()
    await late.server.close()
