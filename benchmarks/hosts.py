"""What distance costs: five sequencer hosts, an edge and a head on one machine, joined by a switch that delays frames.

    sudo python benchmarks/hosts.py [--delays 0 5 50] [--seconds 30] [--kills 10] [--pulls 5] [--members-only] [--json]

For each one-way delay between every two hosts: how long a commit takes (the leader's own histogram), how long from a
transaction's due time until a subscriber beside the edge host sees it, and how long the public stream is silent when
the leader's conductor is killed (its sockets close) and when its host's wire is pulled (nothing closes, time-outs
count). Before that the same with five bare Raft members, which takes a minute and needs no Ray. Needs what
`tests/hosts` needs: root, iproute2, OpenSSH's server. Digits depend on the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from actors.rpc_client import RpcClient
from chaos.drill import Scene
from chaos.faults import Fault
from chaos.judgement import Result, percentile
from chaos.load import Load, LoadOptions
from chaos.target import Target
from tests.hosts.deployment import EDGE, HEAD, SEQUENCERS, Deployment, deployed
from tests.hosts.drilling import drilled
from tests.hosts.host_faults import KilledThere, Partitioned
from tests.hosts.machines import Machines, missing
from tests.hosts.raft_on_hosts import HostedCluster
from tracing import names
from tracing.stages import METRIC

DELAYS_MS = (0.0, 5.0, 50.0)
TPS = 10.0
PULL_S = 3.0  # shorter than Ray needs to take the host for dead
SETTLE_S_MAX = 60.0
MEMBERS_SETTLE_S = 1.0
BUCKET = re.compile(rf'^{METRIC}_bucket\{{le="([^"]+)",stage="{names.COMMIT}"\}} (\S+)', re.MULTILINE)


async def commit_buckets(deployment: Deployment) -> dict[float, float]:
    """Commits so far by upper bound in seconds, over all conductors, cumulative."""
    total: dict[float, float] = {}
    for group in deployment.endpoints["groups"]:
        client = RpcClient(group["actors"]["conductor"]["rpc"], timeout_s=5.0)
        try:
            _, text = await client.get("/metrics")
        finally:
            await client.close()
        for bound, count in BUCKET.findall(text.decode()):
            total[float(bound)] = total.get(float(bound), 0.0) + float(count)
    return total


def bucket_quantile(before: dict[float, float], after: dict[float, float], share: float) -> float:
    """The quantile in milliseconds, linear within its bucket, as Prometheus' histogram_quantile has it."""
    grown = {bound: after[bound] - before.get(bound, 0.0) for bound in sorted(after)}
    count = max(grown.values(), default=0.0)
    lower, below = 0.0, 0.0
    for bound, upto in grown.items():
        if count and upto >= share * count:
            if bound == float("inf"):
                return lower * 1000
            return (lower + (bound - lower) * (share * count - below) / max(upto - below, 1e-9)) * 1000
        lower, below = bound, upto
    return float("nan")


async def steady(deployment: Deployment, seconds: float) -> dict[str, Any]:
    """Commits and transactions under load while nothing is hurt; `epochs` is how often leadership moved."""
    target = Target(deployment.endpoints_path)
    try:
        _, status = await target.wait_for_leader(SETTLE_S_MAX)
        before = await commit_buckets(deployment)
        report = await Load(target.endpoints(), LoadOptions(tps=TPS, duration_s=seconds)).run()
        after = await commit_buckets(deployment)
        _, status_after = await target.wait_for_leader(SETTLE_S_MAX)
    finally:
        await target.close()
    return {
        "commit_ms": {name: round(bucket_quantile(before, after, share), 1) for name, share in QUANTILES.items()},
        "preconfirmed_ms": {name: report.preconfirmed_ms.get(name, float("nan")) for name in QUANTILES},
        "sent": report.sent,
        "preconfirmed": report.preconfirmed,
        "epochs": status_after["epoch"] - status["epoch"],
    }


QUANTILES = {"p50": 0.5, "p99": 0.99}


def failover(deployment: Deployment, name: str, count: int, fault: Callable[[Scene], Fault]) -> dict[str, Any]:
    """Do something to the leader `count` times; how long until the next flashblock, and the checker's verdict."""
    result: Result = asyncio.run(drilled(deployment, name, fault, count=count, tps=TPS))
    gaps = sorted(run.gap_ms for run in result.runs)
    return {
        "p50": percentile(gaps, 50),
        "p99": percentile(gaps, 99),
        "count": len(gaps),
        "verdict": result.verdict,
        "violations": result.violations[:5],
    }


def measure(deployment: Deployment, delay_ms: float, options: argparse.Namespace) -> dict[str, Any]:
    """One row: the hosts are `delay_ms` apart, the user is beside the edge host."""
    network = deployment.machines.network
    hosts = (HEAD, *SEQUENCERS, EDGE)

    def apart() -> None:
        network.heal()
        for host in hosts:
            network.slow([host], [other for other in hosts if other != host], delay_s=delay_ms / 1000, both=False)

    class Pulled(Partitioned):
        """Healing takes the delay away too; put it back at once."""

        def abandon(self) -> None:
            apart()

    apart()
    row = {"delay_ms": delay_ms, "began": time.time(), **asyncio.run(steady(deployment, options.seconds))}
    if options.kills:
        row["killed"] = failover(
            deployment,
            f"conductor killed, {delay_ms:.0f} ms",
            options.kills,
            lambda scene: KilledThere(deployment, scene, scene.leader, ["conductor"]),
        )
    if options.pulls:
        row["pulled"] = failover(
            deployment,
            f"wire pulled, {delay_ms:.0f} ms",
            options.pulls,
            lambda scene: Pulled(deployment, scene, scene.leader, hold_s=PULL_S),
        )
    return row


async def members_apart(machines: Machines, delay_ms: float, options: argparse.Namespace) -> dict[str, Any]:
    """One row of the members' table: commits of 10 KB as the leader counts them, and the leader killed."""
    machines.network.heal()
    machines.network.slow_everywhere(delay_ms / 1000)
    async with HostedCluster(machines, leads=True, body_bytes=10_000, interval_s=0.05) as cluster:
        leader, _ = await cluster.acked_after(0.0, SETTLE_S_MAX)
        await asyncio.sleep(MEMBERS_SETTLE_S)
        first = len(cluster.acked)
        await asyncio.sleep(options.seconds / 3)
        commits = sorted(fact["latency_s"] * 1000 for _, fact in cluster.acked[first:])
        gaps = []
        for _ in range(options.kills):
            killed_at = await cluster.kill(leader)
            successor, fact = await cluster.acked_after(killed_at, SETTLE_S_MAX, but=leader)
            gaps.append((fact["at"] - killed_at) * 1000)
            await cluster.start(leader)
            leader = successor
            await asyncio.sleep(MEMBERS_SETTLE_S)
    gaps.sort()
    return {
        "delay_ms": delay_ms,
        "commit_ms": {name: percentile(commits, share * 100) for name, share in QUANTILES.items()},
        "killed": {name: percentile(gaps, share * 100) for name, share in QUANTILES.items()},
    }


def members_table(rows: list[dict[str, Any]]) -> str:
    """The members' rows as Markdown; times are p50 / p99 in milliseconds."""
    lines = ["| one-way delay | commit of 10 KB | leader killed |", "|---|---|---|"]
    for row in rows:
        lines.append(f"| {row['delay_ms']:.0f} ms | {pair(row['commit_ms'])} ms | {pair(row['killed'])} ms |")
    return "\n".join(lines)


def pair(values: dict[str, Any] | None) -> str:
    """p50 / p99, whole milliseconds above ten."""
    if values is None:
        return "–"
    return " / ".join(f"{values[name]:.{0 if values[name] >= 10 else 1}f}" for name in QUANTILES)


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown, for docs/benchmarks.md; times are p50 / p99 in milliseconds."""

    heads = (
        "one-way delay",
        "commit",
        "due → seen",
        "conductor killed",
        "wire pulled",
        "elections of its own",
        "verdict",
    )
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in rows:
        verdicts = {row[kind]["verdict"] for kind in ("killed", "pulled") if kind in row}
        lines.append(
            f"| {row['delay_ms']:.0f} ms | {pair(row['commit_ms'])} ms | {pair(row['preconfirmed_ms'])} ms "
            f"| {pair(row.get('killed'))} ms | {pair(row.get('pulled'))} ms | {row['epochs']} "
            f"| {', '.join(sorted(verdicts)) or '–'} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--delays", type=float, nargs="+", default=DELAYS_MS, help="one-way, milliseconds")
    parser.add_argument("--seconds", type=float, default=30.0, help="of load per delay")
    parser.add_argument("--kills", type=int, default=10, help="of the leader's conductor per delay")
    parser.add_argument("--pulls", type=int, default=5, help="of the leader's host's wire per delay")
    parser.add_argument("--members-only", action="store_true", help="bare Raft members, no Ray")
    parser.add_argument("--up", nargs="*", default=[], metavar="WORD", help="further words for `flashblocks up`")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON too")
    options = parser.parse_args()
    if (reason := missing()) is not None:
        print(f"hosts: not measured: {reason}")
        return
    members = []
    with Machines(SEQUENCERS) as machines:
        for delay_ms in options.delays:
            members.append(asyncio.run(members_apart(machines, delay_ms, options)))
    print(members_table(members), flush=True)
    if options.members_only:
        return
    rows = []
    with deployed(*options.up) as deployment:
        for delay_ms in options.delays:
            rows.append(measure(deployment, delay_ms, options))
            print(table(rows[-1:]).splitlines()[-1], flush=True)
    print(table(rows))
    if options.json:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
