"""rollup-boost's metrics under upstream's names, all of them there from the start."""

from __future__ import annotations

from actors.upstream_metrics import UpstreamMetrics

METRICS_PREFIX = "rollup_boost_"

SERVICE = "flashblocks_service_"
COUNTERS = (
    *(
        SERVICE + name
        for name in (
            "current_payload_id_mismatch",
            "extend_payload_errors",
            "flashblocks_counter",
            "flashblocks_missing_counter",
            "messages_processed",
            "pending_flashblocks_buffered",
            "pending_flashblocks_dropped",
        )
    ),
    "flashblocks_ws_inbound_messages_received",
    "flashblocks_ws_inbound_reconnect_attempts",
)
GAUGES = (
    SERVICE + "flashblocks_gauge",
    SERVICE + "flashblocks_missing_gauge",
    "execution_mode",
    "flashblocks_ws_inbound_connection_status",
)
SPANS = (
    "exchange_capabilities",
    "flashblocks_fork_choice_updated_v3",
    "fork_choice_updated_v3",
    "forward",
    "get_payload_v3",
    "get_payload_v4",
    "get_payload_v5",
    "new_payload_v3",
    "new_payload_v4",
)
SUMMARIES = (
    SERVICE + "flashblocks_missing_histogram",
    "block_building_gas_delta",
    "block_building_tx_count_delta",
    *(f"{span}_duration" for span in SPANS),
)
BLOCK_SOURCES = ("builder", "l2")


def boost_metrics() -> UpstreamMetrics:
    """Metrics with every name declared."""
    metrics = UpstreamMetrics(METRICS_PREFIX)
    metrics.declare(counters=COUNTERS, gauges=GAUGES, summaries=SUMMARIES)
    for source in BLOCK_SOURCES:
        metrics.count("rpc_blocks_created", 0, source=source)
    return metrics


class MissingFlashblocks:
    """Upstream's measure: how many fewer a block has than the fullest block so far."""

    def __init__(self, metrics: UpstreamMetrics) -> None:
        self._metrics, self._most = metrics, 0

    def note(self, flashblocks: int) -> None:
        """A block of so many flashblocks was answered."""
        self._most = max(self._most, flashblocks)
        missing = self._most - flashblocks
        self._metrics.observe(SERVICE + "flashblocks_missing_histogram", missing)
        self._metrics.gauge(SERVICE + "flashblocks_missing_gauge", missing)
        self._metrics.count(SERVICE + "flashblocks_missing_counter", missing)
