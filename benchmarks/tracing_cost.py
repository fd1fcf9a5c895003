"""What tracing costs: per span, in per cent of a core at 100 transactions a second, and on a whole cluster.

    python benchmarks/tracing_cost.py
    python benchmarks/tracing_cost.py --cluster [--rounds 3] [--seconds 30]

Spans go to the OTLP-JSON file, exporting included. First the share of all components together, in one process: under
the usual bound of traced transactions per flashblock, and after a failover, when all of them are traced. With
`--cluster` then the real thing: the processor time of every component of a cluster under load, tracing on and off in
turn. Processor time hardly minds what else the machine does, but not entirely: look at the spread of the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tracing import names
from tracing.building import BuildTrace
from tracing.context import transaction_root
from tracing.sending import SendTrace
from tracing.stages import Stages
from tracing.tracer import Tracer, make_tracer

TRANSACTIONS = 2_000
TPS = 100
FLASHBLOCKS_PER_S = 5
PROXIES = 2
SPANS = 20_000
CHAIN_ID = 901

NAME = "tracing-cost"
COMMAND_S_MAX = 300.0
WARM_UP_S = 10
FLASHBLOCKS = Path(sys.executable).with_name("flashblocks")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def cost_per_span_us(tracer: Tracer) -> float:
    """Processor time of one span with four attributes, in microseconds, its export included."""
    trace = transaction_root(b"\1" * 32)
    began = time.process_time()
    for number in range(SPANS):
        tracer.span(trace, names.JUDGE, 1.0, 2.0, {"block.number": number, "flashblock.index": 1, "a": "b", "c": 3})
        if number % 4_000 == 0:
            tracer.flush()
    tracer.flush()
    return (time.process_time() - began) / SPANS * 1e6


def cost_per_second_ms(tracer: Tracer, *, all_traced: bool) -> float:
    """Processor time of all that is recorded in a second at TPS, in milliseconds."""
    stages = Stages(tracer)
    builder, node, ingress = BuildTrace(stages, CHAIN_ID), SendTrace(stages, names.SEND), SendTrace(stages, names.ADMIT)
    hashes = [number.to_bytes(32, "big") for number in range(TRANSACTIONS)]
    per_flashblock = TPS // FLASHBLOCKS_PER_S
    payload_id, now = b"\1" * 8, time.time()
    began = time.process_time()
    for index, first in enumerate(range(0, TRANSACTIONS, per_flashblock), 1):
        own = hashes[first : first + per_flashblock]
        for tx_hash in own:
            node.took(tx_hash, now, now, "")
            ingress.took(tx_hash, now, now, transaction_root(tx_hash).traceparent)
            builder.arrived(tx_hash, now)
        if all_traced:
            builder.took_over()
        text = builder.built(payload_id, 1, index, now, now, own)
        builder.published(payload_id, 1, index, own, now)
        for stage in (names.JUDGE, names.COMMIT, names.PUBLISH, *[names.FAN_OUT] * PROXIES, names.PENDING):
            stages.flashblock(text, stage, now, now, number=1, index=index, payload_id=payload_id)
        ingress.seen(text, 1, index, own, now, now)
        node.seen(text, 1, index, own, now, now)
        if index % 10 == 0:
            tracer.flush()
    tracer.flush()
    return (time.process_time() - began) / (TRANSACTIONS / TPS) * 1000


class Cluster:
    """A cluster of its own, with tracing or without."""

    def __init__(self, directory: Path, groups: int, *, traced: bool) -> None:
        self._environment = {**os.environ, "FLASHBLOCKS_RUN_ROOT": str(directory)}
        if not traced:
            self._environment["OTEL_SDK_DISABLED"] = "true"
        self._groups = groups

    def __enter__(self) -> Cluster:
        self.run("up", "--groups", str(self._groups), "--detach", "--json")
        return self

    def __exit__(self, *_: object) -> None:
        self.run("down")

    def run(self, *words: str) -> str:
        """One command; its output."""
        done = subprocess.run(
            [FLASHBLOCKS, *words, "--name", NAME],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=COMMAND_S_MAX,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"flashblocks {' '.join(words)}: {done.stdout}{done.stderr}")
        return done.stdout

    def load(self, seconds: int) -> int:
        """Send at TPS; how many transactions were sealed."""
        report = json.loads(self.run("load", "--tps", str(TPS), "--duration", str(seconds), "--json"))
        return int(report["sealed"])

    def processor_s(self) -> float:
        """What all components have used so far, in user and kernel, with all their threads."""
        status = json.loads(self.run("status", "--json"))
        return sum(_processor_s(pid) for pid in set(_pids(status)))


def _pids(obj: Any) -> Iterator[int]:
    if isinstance(obj, dict):
        if "component" in obj and "pid" in obj:
            yield obj["pid"]
        for value in obj.values():
            yield from _pids(value)
    elif isinstance(obj, list):
        for value in obj:
            yield from _pids(value)


def _processor_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def share_of_a_core(directory: Path, groups: int, seconds: int, *, traced: bool) -> float:
    """What a whole cluster uses while TPS transactions a second go through it, in cores."""
    with Cluster(directory, groups, traced=traced) as cluster:
        cluster.load(WARM_UP_S)
        before, began = cluster.processor_s(), time.monotonic()
        sealed = cluster.load(seconds)
        used, took = cluster.processor_s() - before, time.monotonic() - began
        if sealed < TPS * seconds:
            print(f"  only {sealed} of {TPS * seconds} transactions were sealed")
        return used / took


def compare_clusters(groups: int, seconds: int, rounds: int) -> None:
    """Tracing on and off in turn; the difference of each round, and their median."""
    differences = []
    with tempfile.TemporaryDirectory(prefix="fb-", dir="/tmp") as directory:  # short: Ray's socket paths are
        for number in range(rounds):
            used = {}
            for traced in (True, False) if number % 2 else (False, True):  # what drifts, drifts both ways
                used[traced] = share_of_a_core(Path(directory), groups, seconds, traced=traced)
            differences.append(100 * (used[True] - used[False]))
            text = f"round {number + 1}: on {used[True]:.3f}, off {used[False]:.3f} cores"
            print(f"{text}, difference {differences[-1]:+.1f} % of a core")
    spread = f"{min(differences):+.1f} to {max(differences):+.1f}"
    print(f"whole cluster, {groups} groups, {TPS} tx/s    {statistics.median(differences):+.1f} % of a core ({spread})")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cluster", action="store_true", help="compare whole clusters, tracing on and off")
    parser.add_argument("--groups", type=int, default=5, help="groups of that cluster")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured")
    parser.add_argument("--seconds", type=int, default=30, help="how long each is loaded")
    options = parser.parse_args()
    compare_in_one_process()
    if options.cluster:
        compare_clusters(options.groups, options.seconds, options.rounds)


def compare_in_one_process() -> None:
    """The cost of a span, and of all that is recorded in a second."""
    with tempfile.TemporaryDirectory() as directory:
        tracer = make_tracer("benchmark", "0", Path(directory), {})
        cost_per_span_us(tracer)
        print(f"one span, exported            {cost_per_span_us(tracer):8.1f} µs")
        for all_traced, text in ((False, "usual bound"), (True, "all traced ")):
            per_second_ms = cost_per_second_ms(tracer, all_traced=all_traced)
            print(f"{TPS} tx/s, {text}         {per_second_ms / 10:8.2f} % of a core, all components together")
        tracer.close()
    off = Tracer("benchmark", "0", None)
    print(f"one span, tracing off         {cost_per_span_us(off):8.2f} µs")


if __name__ == "__main__":
    main()
