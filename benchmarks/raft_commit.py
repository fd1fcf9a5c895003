"""What a quorum commit costs on five processes, and how long a killed leader is missed.

    python benchmarks/raft_commit.py [--seconds 4] [--kills 20] [--json]

Three groups run side by side and take turns, so that their ratio means something on a busy machine: one with the
product's authenticated channel (AES-256-GCM), one with PySyncObj's own kind of encryption (Fernet), and one with none
at all – which exists only here. Digits depend on the machine; the ratios and the shape do not.
"""

import argparse
import asyncio
import base64
import hashlib
import json
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import msgspec

from raft import transport
from raft.channel import HELLO_BYTES, LENGTH_BYTES, MAGIC, NONCE_BYTES
from raft.local_cluster import LocalCluster
from raft.member import Load, Member, MemberConfig

# (bytes per flashblock, seconds between two): the last is 1 MB at full cadence.
PACES = ((1_000, 0.02), (10_000, 0.02), (200_000, 0.05), (1_000_000, 0.2))
CHANNELS = ("sealed", "fernet", "plain")
SLICE_S = 1.0
COMMIT_TIMEOUT_S = 20.0
ELECTION_SETTLE_S = 0.5


class PlainChannel:
    """The product channel's interface without any protection; for comparison only."""

    def __init__(self, secret: bytes, context: bytes, nonce: bytes, initiator: bool) -> None:
        self._nonce = nonce
        self._buffer = bytearray()
        self._space = bytearray(256 * 1024)
        self.keyed = self.proven = False

    def hello(self) -> bytes:
        return MAGIC + self._nonce

    def seal(self, message: bytes) -> tuple[bytes, bytes]:
        sealed = self.protect(message)
        return len(sealed).to_bytes(LENGTH_BYTES, "big"), sealed

    def space(self) -> memoryview:
        return memoryview(self._space)

    def advance(self, count: int) -> list[bytes]:
        self._buffer += memoryview(self._space)[:count]
        if not self.keyed:
            if len(self._buffer) < HELLO_BYTES:
                return []
            del self._buffer[: len(MAGIC) + NONCE_BYTES]
            self.keyed = self.proven = True
        messages = []
        while len(self._buffer) >= LENGTH_BYTES:
            end = LENGTH_BYTES + int.from_bytes(self._buffer[:LENGTH_BYTES], "big")
            if len(self._buffer) < end:
                break
            messages.append(self.expose(bytes(memoryview(self._buffer)[LENGTH_BYTES:end])))
            del self._buffer[:end]
        return messages

    def protect(self, message: bytes) -> bytes:
        return message

    def expose(self, sealed: bytes) -> bytes:
        return sealed


class FernetChannel(PlainChannel):
    """The cipher PySyncObj would use (AES-128-CBC, HMAC-SHA256, base64)."""

    def __init__(self, secret: bytes, context: bytes, nonce: bytes, initiator: bool) -> None:
        from cryptography.fernet import Fernet

        super().__init__(secret, context, nonce, initiator)
        fernet = Fernet(base64.urlsafe_b64encode(hashlib.sha256(secret).digest()))
        self.protect, self.expose = fernet.encrypt, fernet.decrypt


def run_member(channel: str, config_path: Path) -> None:
    replacement = {"plain": PlainChannel, "fernet": FernetChannel}.get(channel)
    if replacement is not None:
        transport.Channel = replacement
    asyncio.run(Member(msgspec.json.decode(config_path.read_bytes(), type=MemberConfig)).run())


def quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


def elections(cluster: LocalCluster) -> int:
    return sum(fact.get("leading") is True for member in cluster.members.values() for fact in member.facts)


async def measure_slice(cluster: LocalCluster, body_bytes: int, interval_s: float) -> list[float]:
    """Latencies in ms of one slice of load, without its first moments."""
    await cluster.set_load(Load(body_bytes, interval_s, leads=True))
    await cluster.acked_after(cluster.acked[-1][1]["at"] if cluster.acked else 0.0, COMMIT_TIMEOUT_S)
    await asyncio.sleep(0.2)
    start = len(cluster.acked)
    await asyncio.sleep(SLICE_S)
    latencies = [fact["latency_s"] * 1000 for _, fact in cluster.acked[start:]]
    await cluster.set_load(Load(body_bytes, interval_s, leads=False))
    await asyncio.sleep(0.05)
    return latencies


async def measure_commits(clusters: dict[str, LocalCluster], seconds: float) -> list[dict]:
    rows = []
    for body_bytes, interval_s in PACES:
        latencies: dict[str, list[float]] = {name: [] for name in clusters}
        before = {name: elections(cluster) for name, cluster in clusters.items()}
        for _ in range(max(1, round(seconds / SLICE_S))):
            for name, cluster in clusters.items():
                latencies[name] += await measure_slice(cluster, body_bytes, interval_s)
        plain = quantile(latencies["plain"], 0.5)
        for name, cluster in clusters.items():
            rows.append(
                {
                    "body_bytes": body_bytes,
                    "per_second": round(1 / interval_s),
                    "channel": name,
                    "commits": len(latencies[name]),
                    "p50_ms": round(quantile(latencies[name], 0.5), 2),
                    "p99_ms": round(quantile(latencies[name], 0.99), 2),
                    "p50_to_plain": round(quantile(latencies[name], 0.5) / plain, 2),
                    "elections": elections(cluster) - before[name],
                }
            )
            show(rows[-1])
    return rows


async def measure_kills(cluster: LocalCluster, kills: int) -> list[float]:
    """SIGKILL of the leader → next commit acknowledged, in ms."""
    await cluster.set_load(Load(10_000, 0.02, leads=True))
    gaps = []
    for _ in range(kills):
        await cluster.acked_after(cluster.acked[-1][1]["at"], COMMIT_TIMEOUT_S)
        leader = cluster.acked[-1][0]
        killed_at = await cluster.kill(leader)
        _, fact = await cluster.acked_after(killed_at, COMMIT_TIMEOUT_S, but=leader)
        gaps.append((fact["at"] - killed_at) * 1000)
        await cluster.start(leader)
        await asyncio.sleep(ELECTION_SETTLE_S)
    return gaps


def show(row: dict) -> None:
    print("  ".join(f"{name} {value}" for name, value in row.items()), file=sys.stderr, flush=True)


async def main(seconds: float, kills: int, as_json: bool) -> None:
    with tempfile.TemporaryDirectory(prefix="raft-commit-") as directory:
        clusters = {
            name: LocalCluster(Path(directory) / name, program=(__file__, "--member", name), leads=False)
            for name in CHANNELS
        }
        async with clusters["sealed"], clusters["fernet"], clusters["plain"]:
            rows = await measure_commits(clusters, seconds)
        async with LocalCluster(Path(directory) / "kills") as cluster:
            await cluster.acked_after(0.0, COMMIT_TIMEOUT_S)
            gaps = await measure_kills(cluster, kills)
    summary = {
        "kills": kills,
        "p50_ms": quantile(gaps, 0.5),
        "p99_ms": quantile(gaps, 0.99),
        "max_ms": max(gaps, default=0),
    }
    summary = {name: round(value, 1) for name, value in summary.items()}
    if as_json:
        print(json.dumps({"load_average": os.getloadavg()[0], "commits": rows, "kill_to_commit": summary}))
    else:
        print(f"kill -9 of the leader → next commit: {summary}  (load average {os.getloadavg()[0]:.1f})")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--member"]:
        run_member(sys.argv[2], Path(sys.argv[3]))
        sys.exit()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4.0, help="of load per size and channel")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    asyncio.run(main(arguments.seconds, arguments.kills, arguments.json))
