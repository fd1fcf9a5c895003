"""What an rpc-node's follower counts; names as the upstream node's where it has one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from actors.upstream_metrics import UpstreamMetrics

if TYPE_CHECKING:
    from actors.preconf_follower import PreconfFollower

PREFIX = "reth_flashblocks_"
RPC_COUNTERS = {
    "eth_getTransactionCount": "rpc_get_transaction_count",
    "eth_getTransactionReceipt": "rpc_get_transaction_receipt",
    "eth_getTransactionByHash": "rpc_get_transaction_by_hash",
    "eth_getBalance": "rpc_get_balance",
    "eth_getBlockByNumber": "rpc_get_block_by_number",
    "eth_call": "rpc_call",
    "eth_estimateGas": "rpc_estimate_gas",
    "eth_simulateV1": "rpc_simulate_v1",
    "eth_getLogs": "rpc_get_logs",
    "eth_getBlockTransactionCountByNumber": "rpc_get_block_transaction_count_by_number",
}
COUNTERS = (
    "upstream_messages",
    "upstream_errors",
    "unexpected_block_order",
    "block_processing_error",
    "pending_clear_catchup",
    "pending_clear_reorg",
    *RPC_COUNTERS.values(),
)


class FollowerMetrics:
    """Counters and gauges of one follower. `upstream` are those with the upstream node's very names."""

    def __init__(self, registry: CollectorRegistry, follower: PreconfFollower) -> None:
        self.upstream = UpstreamMetrics(PREFIX)
        self.upstream.declare(counters=COUNTERS, summaries=("flashblocks_in_block",))
        registry.register(self.upstream)
        self.processing = Histogram(
            PREFIX + "block_processing_duration",
            "Seconds to execute a flashblock",
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0),
            registry=registry,
        )
        self.divergences = Counter(
            "flashblocks_divergence", "Blocks sealed with other content than was streamed", registry=registry
        )
        self.lost = Counter(
            "flashblocks_preconfirmations_lost", "Transactions shown that the sealed block lacks", registry=registry
        )
        self.resends = Counter("flashblocks_resends", "Times missing flashblocks were asked for", registry=registry)
        age = Gauge("flashblocks_stream_age_seconds", "Seconds since the last flashblock", registry=registry)
        age.set_function(lambda: _number(follower.stream_age_s()))
        index = Gauge(PREFIX + "pending_snapshot_fb_index", "Index of the pending flashblock", registry=registry)
        index.set_function(lambda: follower._snapshot.index if follower._snapshot else -1)
        height = Gauge(PREFIX + "pending_snapshot_height", "Height of the pending block", registry=registry)
        height.set_function(lambda: follower._snapshot.number if follower._snapshot else -1)
        again = Gauge(PREFIX + "reconnect_attempts", "Times a proxy was tried again", registry=registry)
        again.set_function(follower.reconnects)
        latest = Gauge("flashblocks_pending_is_latest", "1 while there is no fresh flashblock", registry=registry)
        latest.set_function(lambda: int(follower.pending() is None))
        ahead = Gauge("flashblocks_unconfirmed_blocks", "Blocks no execution client confirmed", registry=registry)
        ahead.set_function(lambda: follower.machine.unconfirmed_blocks)

    def called(self, method: str) -> None:
        """Count a call, where the upstream node does."""
        name = RPC_COUNTERS.get(method)
        if name is not None:
            self.upstream.count(name)


def _number(value: float | None) -> float:
    return float("nan") if value is None else value
