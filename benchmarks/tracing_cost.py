"""What tracing costs: per span, and in per cent of a core at 100 transactions a second.

    python benchmarks/tracing_cost.py

Spans go to the OTLP-JSON file, exporting included; the share is the processor time of all components together.
Twice: under the usual bound of traced transactions per flashblock, and after a failover, when all of them are traced.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

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


def main() -> None:
    """Measure and print."""
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
