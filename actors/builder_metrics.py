"""The builder's metrics under op-rbuilder's names, all of them there from the start; what each is measured by here."""

from __future__ import annotations

from collections.abc import Mapping

from actors.upstream_metrics import UpstreamMetrics
from flashblocks.builder.building import Made, Ran
from flashblocks.builder.job import Cancellation

METRICS_PREFIX = "op_rbuilder_"

COUNTERS = (
    "block_built_success",
    "block_synced_success",
    "block_da_size_exceeded_total",
    "block_gas_limit_exceeded_total",
    "block_uncompressed_size_exceeded_total",
    "bundle_requests",
    "bundles_reverted",
    "continuous_candidates_evaluated",
    "continuous_candidates_improved",
    "continuous_trigger_miss_total",
    "continuous_trigger_ready_total",
    "da_footprint_exceeded_total",
    "engine_feedback_lagged",
    "failed_bundles",
    "fanout_no_subscribers",
    "flashblock_publish_suppressed_total",
    "invalid_built_blocks_count",
    "invalid_synced_blocks_count",
    "messages_sent_count",
    "missing_flashblocks_count",
    "p2p_forward_lagged",
    "tx_da_size_exceeded_total",
    "valid_bundles",
    "ws_publish_lagged",
    *(f"payload_job_cancellation_{reason.value}" for reason in Cancellation),
)
SUMMARIES = (
    "block_uncompressed_size",
    "bundle_receive_duration",
    "continuous_build_duration",
    "continuous_fee_improvement",
    "continuous_trigger_fallback_wait_duration",
    "fcu_arrival_delay",
    "flashblock_build_duration",
    "flashblock_byte_size_histogram",
    "flashblock_count",
    "flashblock_num_tx_histogram",
    "flashblock_sync_duration",
    "reverted_tx_gas_used",
    "successful_tx_gas_used",
    "tx_byte_size",
    "tx_simulation_duration",
)
GAUGES = ("payload_reverted_tx_gas_used", "reduced_flashblocks_number", "ws_connections_active")
WITH_GAUGE = (
    "backrun_transaction_processing_duration",
    "payload_byte_size",
    "payload_num_backruns_considered",
    "payload_num_backruns_successful",
    "payload_num_tx",
    "payload_num_tx_considered",
    "payload_num_tx_simulated",
    "payload_num_tx_simulated_fail",
    "payload_num_tx_simulated_success",
    "payload_transaction_simulation_duration",
    "sequencer_tx_duration",
    "state_root_calculation_duration",
    "state_transition_merge_duration",
    "total_block_built_duration",
    "transaction_pool_fetch_duration",
)
"""Summaries that have a gauge of the last value beside them."""
# `engine_feedback_lagged` and `p2p_forward_lagged` are of things that are not here: they stay at zero.


def builder_metrics(flags: Mapping[str, float]) -> UpstreamMetrics:
    """Metrics with every name declared; ``flags`` are shown as ``op_rbuilder_flags_…``."""
    metrics = UpstreamMetrics(METRICS_PREFIX)
    gauges = (*GAUGES, *(f"{name}_gauge" for name in WITH_GAUGE))
    metrics.declare(counters=COUNTERS, gauges=gauges, summaries=(*SUMMARIES, *WITH_GAUGE))
    for name, value in flags.items():
        metrics.gauge(f"flags_{name}", value)
    return metrics


def note(metrics: UpstreamMetrics, name: str, value: float) -> None:
    """Observe a value of a summary that has a gauge."""
    metrics.observe(name, value)
    metrics.gauge(f"{name}_gauge", value)


def note_flashblock(metrics: UpstreamMetrics, made: Made, ran: list[Ran], took_s: float, execution_s: float) -> None:
    """A flashblock that was published: what was tried for it, and what it took (seconds)."""
    metrics.observe("flashblock_build_duration", took_s)
    note(metrics, "payload_transaction_simulation_duration", execution_s)
    for name, amount in made.counts.items():
        if name in WITH_GAUGE:
            note(metrics, name, amount)
        else:
            metrics.count(name, amount)
    reverted = 0
    for one in ran:
        reverted += one.gas_used if one.reverted else 0
        metrics.observe("reverted_tx_gas_used" if one.reverted else "successful_tx_gas_used", one.gas_used)
        metrics.observe("tx_simulation_duration", one.took_s)
        metrics.observe("tx_byte_size", one.size_bytes)
    metrics.gauge("payload_reverted_tx_gas_used", reverted)


def note_block(
    metrics: UpstreamMetrics,
    transactions: tuple[bytes, ...],
    flashblocks: int,
    scheduled: int,
    usual: int,
    took_s: float,
) -> None:
    """A block that was taken: its flashblocks beyond index 0, of how many scheduled, and how many there usually are."""
    size = sum(len(raw) for raw in transactions)
    metrics.count("block_built_success")
    note(metrics, "total_block_built_duration", took_s)
    metrics.observe("flashblock_count", flashblocks)
    metrics.gauge("reduced_flashblocks_number", usual - scheduled)
    metrics.count("missing_flashblocks_count", max(0, scheduled - flashblocks))
    note(metrics, "payload_num_tx", len(transactions))
    note(metrics, "payload_byte_size", size)
    metrics.observe("block_uncompressed_size", size)
