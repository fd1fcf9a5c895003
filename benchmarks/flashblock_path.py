"""From the trigger to the offer: how late flashblocks are published, how long judging takes, how fast getPayload is.

    python benchmarks/flashblock_path.py --tps 100 --blocks 15
    python benchmarks/flashblock_path.py --fault hung     # the builder stops answering half-way (or: dead)

Builder, fallback EL and rollup-boost run as three processes.  This one plays op-node (forkchoice updates on time,
getPayload 50 ms before the timestamp) and a ledger of one node; the wallets (open-loop transfers to both pools) and a
control clock run beside it.  Everything crosses sockets; times are wall-clock on one machine.

Publish delay: arrival at a subscriber of the builder after the schedule's trigger before it; a trigger that passed
without a flashblock shows as one published fewer.  ``own`` is the delay the builder itself saw, before the socket.
``control`` is how late a process that does nothing else woke at the same triggers: the machine's noise; ``quiet``
counts only triggers at which that was under 2 ms.  Judging: from publication until rollup-boost offers the flashblock.
getPayload: as called, and (``own``) inside rollup-boost.  Figures are ms; processor time is ms per transaction.
"""

import argparse
import asyncio
import json
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from bisect import bisect
from pathlib import Path
from typing import Any

import msgspec
import orjson
from beside import ControlClock, Wallets, cpu_s, quantiles

from actors.engine_client import EngineClient
from actors.frame_link import FrameClient
from actors.rpc_client import RpcClient, RpcUnknown
from flashblocks.builder.schedule import Timing, triggers_ms
from flashblocks.execution.genesis import default_genesis, load_genesis
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
quiet_s = 0.002
components = ("fallback-el", "builder", "rollup-boost")


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


class Bench:
    def __init__(self, directory: Path, tps: float, fault: str) -> None:
        self.tps, self.directory, self.fault = tps, directory, fault
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
        self.transactions = 0
        self.control = ControlClock()
        self.cpu_from: dict[str, float] = {}
        self.cpu_ms: dict[str, float] = {}
        self.own_ms: dict[str, float] = {}

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
            process.send_signal(signal.SIGCONT)
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
        self.control.start()
        url = "http://127.0.0.1:{}".format
        pools = [url(self.ports[name]) for name in ("builder_rpc", "el_rpc")]
        wallets = Wallets(pools, self.secret, self.spec.chain_id, self.tps)
        if self.tps:
            wallets.start()
        slot = int(time.time()) + 2
        await asyncio.sleep(slot - time.time())
        for number in range(1, blocks + warm_up_blocks + 1):
            slot += block_time_s
            if number == warm_up_blocks + 1:
                self.cpu_from = self.cpu()
            if self.fault and number == warm_up_blocks + blocks // 2 + 1:
                sign = signal.SIGKILL if self.fault == "dead" else signal.SIGSTOP
                asyncio.get_running_loop().call_later(block_time_s / 2, self.processes[1].send_signal, sign)
            await self.block(number, slot)
        self.cpu_ms = {name: 1000 * (used - self.cpu_from[name]) for name, used in self.cpu().items()}
        if self.tps:
            wallets.stop()
        self.own_ms = await self.own_figures()
        for link in links:
            await link.close()
        await self.engine.close()

    def cpu(self) -> dict[str, float]:
        return {name: cpu_s(process.pid) for name, process in zip(components, self.processes, strict=True)}

    async def own_figures(self) -> dict[str, float]:
        """What builder and rollup-boost measured themselves: the worst quantiles of their summaries, in ms."""
        found: dict[str, float] = {}
        for port, name, factor in (
            ("builder_engine", "op_rbuilder_flashblock_publish_timing_milliseconds", 1),
            ("boost", "rollup_boost_get_payload_v4_duration", 1000),
        ):
            rpc = RpcClient(f"http://127.0.0.1:{self.ports[port]}", jwt_secret=self.secret)
            try:
                text = (await rpc.get("/metrics"))[1].decode()
            except RpcUnknown:
                continue  # the builder was killed
            finally:
                await rpc.close()
            for line in text.splitlines():
                if line.startswith(name + "{") and 'quantile="' in line:
                    quantile = line.partition('quantile="')[2].partition('"')[0]
                    key = f"{name.partition('_')[2]}.{quantile}"
                    found[key] = max(found.get(key, 0.0), round(float(line.split()[-1]) * factor, 1))
        return found

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
            due = [begins + trigger / 1000 for trigger in triggers_ms(timing, timing.block_time_ms)]
            self.due |= {(number, index): due_s for index, due_s in enumerate(due, 1)}
            self.control.note(due)
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

    def report(self) -> dict[str, Any]:
        control = self.control.stop()
        keys = [key for key in self.due if key in self.published]
        triggers = sorted(self.due.values())
        publish = {key: (at - triggers[bisect(triggers, at) - 1]) * 1000 for key in keys if (at := self.published[key])}
        judge = [(self.offered[key] - self.published[key]) * 1000 for key in keys if key in self.offered]
        quiet = [publish[key] for key in keys if control[self.due[key]] < quiet_s]
        transactions = max(1, self.transactions)
        return {
            "tps": self.tps,
            "fault": self.fault,
            "transactions_included": self.transactions,
            "flashblocks_due": len(self.due),
            "flashblocks_published": len(keys),
            "flashblocks_offered": len(judge),
            "publish_delay": quantiles(list(publish.values())),
            "publish_delay_control": quantiles([late_s * 1000 for late_s in control.values()]),
            "publish_delay_quiet": {**quantiles(quiet), "count": len(quiet)},
            "judge_and_offer": quantiles(judge),
            "get_payload": quantiles(self.get_payload_ms),
            "own": self.own_ms,
            "cpu_per_transaction": {name: round(used / transactions, 2) for name, used in self.cpu_ms.items()},
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tps", type=float, default=100)
    parser.add_argument("--blocks", type=int, default=15)
    parser.add_argument(
        "--fault", choices=("", "dead", "hung"), default="", help="what becomes of the builder half-way"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        bench = Bench(Path(directory), options.tps, options.fault)
        bench.start()
        try:
            asyncio.run(bench.run(options.blocks))
        finally:
            bench.stop()
        print(json.dumps(bench.report(), indent=2))


if __name__ == "__main__":
    main()
