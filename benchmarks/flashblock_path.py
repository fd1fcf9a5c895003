"""From the trigger to the offer: how late flashblocks are published, how long judging takes, how fast getPayload is.

    python benchmarks/flashblock_path.py --tps 100 --blocks 15

Builder, fallback EL and rollup-boost run as three processes.  This one plays op-node (forkchoice updates on time,
getPayload 50 ms before the timestamp), a ledger of one node, and the wallets (open-loop transfers to both pools).
Publish delay: arrival at a subscriber of the builder after the trigger that the schedule gives.  Judging: from there
until rollup-boost offers the flashblock.  Everything crosses sockets; times are wall-clock on one machine.
"""

import argparse
import asyncio
import json
import secrets
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec
import orjson

from actors.engine_client import EngineClient
from actors.frame_link import FrameClient
from actors.rpc_client import RpcClient, RpcRefused, RpcUnknown
from flashblocks.builder.schedule import Timing, triggers_ms
from flashblocks.execution.accounts import TEST_ACCOUNTS
from flashblocks.execution.genesis import default_genesis, load_genesis
from flashblocks.execution.signing import sign_transaction
from flashblocks.execution.transaction import encode_deposit
from flashblocks.wire.engine import ForkchoiceState, PayloadAttributes
from flashblocks.wire.frames import CommittedFrame, FlashblockFrame, Frame, LeadershipFrame, SealedFrame

run_one = (
    "import sys, json; from actors.process import run_component; run_component(sys.argv[1], json.loads(sys.argv[2]))"
)
timing = Timing()
block_time_s = timing.block_time_ms // 1000
seal_before_s = 0.050
start_s_max = 30.0
stop_s_max = 10.0
warm_up_blocks = 2


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


class Bench:
    def __init__(self, directory: Path, tps: float) -> None:
        self.tps, self.directory = tps, directory
        document = default_genesis(timestamp=int(time.time()))
        self.genesis_path, self.jwt_path = directory / "genesis.json", directory / "jwt.hex"
        self.genesis_path.write_bytes(orjson.dumps(document))
        self.secret = secrets.token_bytes(32)
        self.jwt_path.write_text(self.secret.hex())
        self.spec, block, _ = load_genesis(document)
        self.head, self.gas_limit = block.hash, block.header.gas_limit
        names = ("el_engine", "el_rpc", "builder_engine", "builder_rpc", "builder_ws", "boost", "debug", "boost_ws")
        self.ports = dict(zip(names, free_ports(len(names)), strict=True))
        self.processes: list[subprocess.Popen[bytes]] = []
        self.published: dict[tuple[int, int], float] = {}
        self.offered: dict[tuple[int, int], float] = {}
        self.due: dict[tuple[int, int], float] = {}
        self.get_payload_ms: list[float] = []
        self.transactions = self.sent = 0

    def start(self) -> None:
        ports, common = self.ports, {"data_dir": "", "jwt_secret_path": str(self.jwt_path), "log_level": "error"}
        execution = {**common, "genesis_path": str(self.genesis_path)}
        url = "http://127.0.0.1:{}".format
        for component, settings in (
            (
                "fallback-el",
                {"name": "el", "engine_port": ports["el_engine"], "rpc_port": ports["el_rpc"], **execution},
            ),
            (
                "builder",
                {
                    "engine_port": ports["builder_engine"],
                    "rpc_port": ports["builder_rpc"],
                    "ws_port": ports["builder_ws"],
                    **execution,
                },
            ),
            (
                "rollup-boost",
                {
                    "engine_port": ports["boost"],
                    "debug_port": ports["debug"],
                    "ws_port": ports["boost_ws"],
                    "l2_url": url(ports["el_engine"]),
                    "builder_url": url(ports["builder_engine"]),
                    "builder_ws_url": f"ws://127.0.0.1:{ports['builder_ws']}",
                    **common,
                },
            ),
        ):
            command = [sys.executable, "-c", run_one, component, json.dumps(settings)]
            self.processes.append(subprocess.Popen(command))

    def stop(self) -> None:
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            try:
                process.wait(timeout=stop_s_max)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def from_builder(self, frame: Frame) -> None:
        if isinstance(frame, FlashblockFrame):
            self.published.setdefault(frame.key, time.time())

    def from_boost(self, frame: Frame) -> None:
        if isinstance(frame, FlashblockFrame):
            self.offered.setdefault(frame.key, time.time())
            self.ledger.send(CommittedFrame(msgspec.structs.replace(frame, epoch=1)))

    def lead(self, up: bool) -> None:
        if up:
            self.ledger.send(LeadershipFrame(1, True))

    async def run(self, blocks: int) -> None:
        self.engine = EngineClient(f"http://127.0.0.1:{self.ports['boost']}", self.secret)
        builder = FrameClient(f"ws://127.0.0.1:{self.ports['builder_ws']}", self.from_builder)
        self.ledger = FrameClient(f"ws://127.0.0.1:{self.ports['boost_ws']}", self.from_boost, self.lead)
        links = (builder, self.ledger)
        for link in links:
            await link.start()
        end = time.monotonic() + start_s_max
        while not all(link.connected for link in links):
            assert time.monotonic() < end, "the components did not start"
            await asyncio.sleep(0.05)
        await asyncio.sleep(1)
        load = asyncio.create_task(self.load())
        slot = int(time.time()) + 1
        await asyncio.sleep(slot - time.time())
        for number in range(1, blocks + warm_up_blocks + 1):
            slot += block_time_s
            await self.block(number, slot)
        load.cancel()
        await asyncio.wait([load])
        for link in links:
            await link.close()
        await self.engine.close()

    async def block(self, number: int, timestamp: int) -> None:
        deposit = encode_deposit(
            source_hash=number.to_bytes(32, "big"),
            sender=bytes.fromhex("deaddeaddeaddeaddeaddeaddeaddeaddead0001"),
            to=bytes.fromhex("4200000000000000000000000000000000000015"),
            mint=0,
            value=0,
            gas_limit=1_000_000,
            data=b"",
        )
        attributes = PayloadAttributes(
            timestamp=timestamp,
            prev_randao=bytes(32),
            fee_recipient=bytes.fromhex("4200000000000000000000000000000000000011"),
            parent_beacon_block_root=bytes(32),
            transactions=(deposit,),
            gas_limit=self.gas_limit,
            eip1559_params=(250).to_bytes(4, "big") + (6).to_bytes(4, "big"),
        )
        if number > warm_up_blocks:
            begins = timestamp - block_time_s
            for index, trigger in enumerate(triggers_ms(timing, timing.block_time_ms), 1):
                self.due[number, index] = begins + trigger / 1000
        payload_id = await self.engine.start_build(ForkchoiceState(self.head, bytes(32), bytes(32)), attributes)
        await asyncio.sleep(max(0.0, timestamp - seal_before_s - time.time()))
        began = time.perf_counter()
        envelope = await self.engine.get_payload(payload_id)
        if number > warm_up_blocks:
            self.get_payload_ms.append((time.perf_counter() - began) * 1000)
            self.transactions += len(envelope.payload.transactions) - 1
        self.ledger.send(SealedFrame(number, envelope.payload.block_hash))
        await self.engine.new_payload(envelope)
        self.head = envelope.payload.block_hash
        await self.engine.set_head(ForkchoiceState(self.head, bytes(32), bytes(32)))
        await asyncio.sleep(max(0.0, timestamp - time.time()))

    async def load(self) -> None:
        rpcs = [RpcClient(f"http://127.0.0.1:{self.ports[name]}") for name in ("builder_rpc", "el_rpc")]
        nonces = [0] * len(TEST_ACCOUNTS)
        began, sending = time.perf_counter(), set[asyncio.Task[Any]]()
        try:
            while self.tps:
                await asyncio.sleep(max(0.0, began + self.sent / self.tps - time.perf_counter()))
                account = self.sent % len(TEST_ACCOUNTS)
                raw = sign_transaction(
                    TEST_ACCOUNTS[account].private_key,
                    chain_id=self.spec.chain_id,
                    nonce=nonces[account],
                    to=secrets.token_bytes(20),
                    value=1,
                    max_fee_per_gas=10**10,
                    max_priority_fee_per_gas=10**6,
                )
                nonces[account] += 1
                self.sent += 1
                for rpc in rpcs:
                    task = asyncio.create_task(self.send(rpc, raw))
                    sending.add(task)
                    task.add_done_callback(sending.discard)
        finally:
            for rpc in rpcs:
                await rpc.close()

    async def send(self, rpc: RpcClient, raw: bytes) -> None:
        try:
            await rpc.call("eth_sendRawTransaction", "0x" + raw.hex())
        except (RpcRefused, RpcUnknown):
            pass

    def report(self) -> dict[str, Any]:
        keys = [key for key in self.due if key in self.published]
        publish = [(self.published[key] - self.due[key]) * 1000 for key in keys]
        judge = [(self.offered[key] - self.published[key]) * 1000 for key in keys if key in self.offered]
        return {
            "tps": self.tps,
            "transactions_included": self.transactions,
            "flashblocks_due": len(self.due),
            "flashblocks_published": len(keys),
            "flashblocks_offered": len(judge),
            "publish_delay_ms": quantiles(publish),
            "judge_and_offer_ms": quantiles(judge),
            "get_payload_ms": quantiles(self.get_payload_ms),
        }


def quantiles(values: list[float]) -> dict[str, float]:
    if len(values) < 2:
        return {}
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return {
        "p50": round(cuts[49], 1),
        "p90": round(cuts[89], 1),
        "p99": round(cuts[98], 1),
        "max": round(max(values), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tps", type=float, default=100)
    parser.add_argument("--blocks", type=int, default=15)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        bench = Bench(Path(directory), options.tps)
        bench.start()
        try:
            asyncio.run(bench.run(options.blocks))
        finally:
            bench.stop()
        print(json.dumps(bench.report(), indent=2))


if __name__ == "__main__":
    main()
