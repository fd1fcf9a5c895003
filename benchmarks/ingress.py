"""What it costs to take a transaction in: wallets → rpc-node → ingress → every pool, on real sockets and processes.

    python benchmarks/ingress.py                                 # 1,000 tx/s for three seconds, ten pools
    python benchmarks/ingress.py --tps 200 --seconds 10
    python benchmarks/ingress.py --straight                      # wallets call the ingress, without an rpc-node
    python benchmarks/ingress.py --plain                         # no pool believes the ingress

Half of the pools are builders, which believe the senders that the ingress recovered, half fallback ELs, which do not.
No blocks are made, so everything that is sent stays in the pools and can be counted there. Transfers and ERC-20 calls
(to an account without code: pools do not execute) are signed before and sent when due, each in a request of its own on
kept connections, whatever became of those before.

Processor time is what the kernel charged to each process between the first send and the moment every pool has
everything, per transaction, without what the process uses when idle. One HTTP request with a JSON-RPC answer, client
and server together, is measured in the same run as the yardstick.
"""

import argparse
import asyncio
import json
import secrets
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import orjson
from beside import quantiles
from flashblock_path import free_ports, run_one

from actors.rpc_client import RpcClient, RpcRefused, RpcUnknown
from chaos.erc20 import TRANSFER_GAS, transfer_data
from flashblocks.execution.accounts import TEST_ACCOUNTS
from flashblocks.execution.genesis import default_genesis
from flashblocks.execution.signing import sign_transaction

CHAIN_ID = 901
START_S_MAX = 60.0
ARRIVE_S_MAX = 60.0
SETTLE_S = 1.0
IDLE_S = 4.0
STOP_S_MAX = 10.0
CONNECTIONS = 64
YARDSTICK_CALLS = 2_000


def signed(count: int) -> list[str]:
    """Transactions of the ten test accounts in turn: transfers and ERC-20 calls alternate."""
    raws = []
    for number in range(count):
        account = TEST_ACCOUNTS[number % len(TEST_ACCOUNTS)]
        token = number // len(TEST_ACCOUNTS) % 2 == 1
        raw = sign_transaction(
            account.private_key,
            chain_id=CHAIN_ID,
            nonce=number // len(TEST_ACCOUNTS),
            to=b"\x22" * 20,
            value=0 if token else 1,
            data=transfer_data(secrets.token_bytes(20), 1) if token else b"",
            gas_limit=TRANSFER_GAS if token else 21_000,
            max_fee_per_gas=10**10,
            max_priority_fee_per_gas=10**6,
        )
        raws.append("0x" + raw.hex())
    return raws


class Bench:
    def __init__(self, directory: Path, pools: int, plain: bool, straight: bool) -> None:
        self.directory, self.plain = directory, plain
        self.genesis, self.jwt = directory / "genesis.json", directory / "jwt.hex"
        self.genesis.write_bytes(orjson.dumps(default_genesis(timestamp=int(time.time()))))
        self.jwt.write_text(secrets.token_hex(32))
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        # All at once: a port that is given back may be given out again before its new owner has bound it.
        self.ports = iter(free_ports(3 * pools + 2))
        self.pool_urls = [self.start_pool(index) for index in range(pools)]
        port = next(self.ports)
        self.ingress = self.start(
            "ingress",
            "ingress",
            port,
            {
                "name": "ingress",
                "port": port,
                "target_urls": self.pool_urls,
                "jwt_secret_path": "" if plain else str(self.jwt),
                "per_ip_rate": 0.0,
                "per_sender_rate": 0.0,
            },
        )
        self.door = self.ingress if straight else self.start_rpc_node()

    def start_pool(self, index: int) -> str:
        builder = index % 2 == 0
        engine, rpc, ws = next(self.ports), next(self.ports), next(self.ports)
        settings = {
            "name": f"pool-{index}",
            "engine_port": engine,
            "rpc_port": rpc,
            "genesis_path": str(self.genesis),
            "jwt_secret_path": str(self.jwt),
        }
        component = "builder" if builder else "fallback-el"
        return self.start(f"{component} {index}", component, rpc, settings | ({"ws_port": ws} if builder else {}))

    def start_rpc_node(self) -> str:
        port = next(self.ports)
        settings = {
            "name": "rpc-node",
            "port": port,
            "genesis_path": str(self.genesis),
            "stream_urls": [],
            "execution_urls": self.pool_urls,
            "ingress_urls": [self.ingress],
        }
        return self.start("rpc-node", "rpc-node", port, settings)

    def start(self, name: str, component: str, port: int, settings: dict[str, object]) -> str:
        settings = settings | {"data_dir": "", "log_level": "error"}
        command = [sys.executable, "-c", run_one, component, json.dumps(settings)]
        self.processes[name] = subprocess.Popen(command)
        return f"http://127.0.0.1:{port}"

    def stop(self) -> None:
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(timeout=STOP_S_MAX)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def cpu_s(self) -> dict[str, float]:
        """Processor time of every process so far, user and system, and of this one."""
        used = {name: time.clock_gettime(~process.pid << 3 | 2) for name, process in self.processes.items()}
        return {**used, "wallets": time.process_time()}  # Linux: the clock of another process (sched, per process)

    async def ready(self) -> None:
        deadline = time.monotonic() + START_S_MAX
        for url in [*self.pool_urls, self.ingress, self.door]:
            rpc = RpcClient(url, timeout_s=2)
            while True:
                try:
                    await rpc.call("eth_chainId")
                    break
                except (RpcUnknown, RpcRefused):
                    if time.monotonic() > deadline:
                        raise SystemExit(f"{url} does not answer") from None
                    await asyncio.sleep(0.05)
            await rpc.close()
        await asyncio.sleep(SETTLE_S)  # links come up, caches fill

    async def arrived(self, count: int) -> float:
        """Wait until every pool has all; when that was (monotonic), or end with what is missing."""
        rpcs = [RpcClient(url, timeout_s=5) for url in self.pool_urls]
        deadline = time.monotonic() + ARRIVE_S_MAX
        held: list[int] = []
        while time.monotonic() < deadline:
            held = []
            for rpc in rpcs:
                status = await rpc.call("txpool_status")
                held.append(int(status["pending"], 16) + int(status["queued"], 16))
            if min(held) >= count:
                break
            await asyncio.sleep(0.05)
        done = time.monotonic()
        await asyncio.gather(*(rpc.close() for rpc in rpcs))
        print(f"in the pools: {min(held)} of {count} (fewest), {max(held)} (most): ", end="")
        print("nothing lost" if min(held) >= count else f"{count - min(held)} LOST")
        return done


async def yardstick(url: str) -> float:
    """Processor time of one HTTP request and its answer at a client of ours, in microseconds."""
    rpc = RpcClient(url)
    await rpc.call("eth_chainId")
    began = time.process_time()
    for _ in range(YARDSTICK_CALLS):
        await rpc.call("eth_chainId")
    took = time.process_time() - began
    await rpc.close()
    return took / YARDSTICK_CALLS * 1e6


async def run(bench: Bench, tps: float, seconds: float) -> None:
    raws = signed(round(tps * seconds))
    await bench.ready()
    before = bench.cpu_s()
    one_request_us = await yardstick(bench.pool_urls[0])
    served = (bench.cpu_s()[next(iter(bench.processes))] - before[next(iter(bench.processes))]) / YARDSTICK_CALLS * 1e6
    idle_from, idle_at = bench.cpu_s(), time.monotonic()
    await asyncio.sleep(IDLE_S)
    idle_to, idle_s = bench.cpu_s(), time.monotonic() - idle_at
    idle = {name: (idle_to[name] - idle_from[name]) / idle_s for name in idle_to}

    rpc = RpcClient(bench.door, timeout_s=30, connections_max=CONNECTIONS)
    took_ms: list[float] = []
    errors: list[str] = []

    async def send(raw: str, due: float) -> None:
        try:
            await rpc.call("eth_sendRawTransaction", raw)
            took_ms.append((time.monotonic() - due) * 1000)
        except (RpcUnknown, RpcRefused) as error:
            errors.append(str(error))

    cpu_from, began = bench.cpu_s(), time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        for number, raw in enumerate(raws):
            due = began + number / tps
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            tasks.create_task(send(raw, due))
    accepted_s = time.monotonic() - began
    arrived_s = await bench.arrived(len(took_ms)) - began
    cpu_to = bench.cpu_s()
    await rpc.close()

    print(
        f"accepted: {len(took_ms)} of {len(raws)} in {accepted_s:.2f} s = {len(took_ms) / accepted_s:.0f}/s, ", end=""
    )
    print(f"everywhere after {arrived_s:.2f} s = {len(took_ms) / arrived_s:.0f}/s")
    print(f"due → accepted, ms: {quantiles(took_ms)}")
    for error in sorted(set(errors))[:5]:
        print(f"  {errors.count(error)} × {error}")
    print(f"yardstick: an HTTP request costs its client {one_request_us:.0f} and its server {served:.0f} µs")
    total = 0.0
    kinds: dict[str, list[float]] = {}
    for name in cpu_to:
        used_us = (cpu_to[name] - cpu_from[name] - idle[name] * arrived_s) / max(1, len(took_ms)) * 1e6
        kinds.setdefault(name.split()[0], []).append(used_us)
        total += used_us
    print("processor time per transaction, µs:")
    for kind, values in kinds.items():
        each = f" ({len(values)} of them, {sum(values) / len(values):.0f} each)" if len(values) > 1 else ""
        print(f"  {kind:<12} {sum(values):6.0f}{each}")
    print(f"  {'together':<12} {total:6.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tps", type=float, default=1_000.0, help="transactions per second")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--pools", type=int, default=10, help="half of them builders, half fallback ELs")
    parser.add_argument("--straight", action="store_true", help="wallets call the ingress")
    parser.add_argument("--plain", action="store_true", help="senders are not believed: the ingress has no JWT")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ingress-") as directory:
        bench = Bench(Path(directory), options.pools, options.plain, options.straight)
        try:
            asyncio.run(run(bench, options.tps, options.seconds))
        finally:
            bench.stop()


if __name__ == "__main__":
    main()
