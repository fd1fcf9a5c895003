"""What an rpc-node's follower counts; names as the upstream node's where it has one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

if TYPE_CHECKING:
    from actors.preconf_follower import PreconfFollower


class FollowerMetrics:
    """Counters and gauges of one follower."""

    def __init__(self, registry: CollectorRegistry, follower: PreconfFollower) -> None:
        prefix = "reth_flashblocks_"
        self.messages = Counter(prefix + "upstream_messages", "Flashblocks received", registry=registry)
        self.errors = Counter(prefix + "upstream_errors", "Unreadable messages", registry=registry)
        self.dropped = Counter(
            prefix + "unexpected_block_order", "Flashblocks not used, by reason", ["reason"], registry=registry
        )
        self.processing = Histogram(
            prefix + "block_processing_duration",
            "Seconds to execute a flashblock",
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0),
            registry=registry,
        )
        self.reorgs = Counter(prefix + "pending_clear_reorg", "Heads replaced by another block", registry=registry)
        self.divergences = Counter(
            "flashblocks_divergence", "Blocks sealed with other content than was streamed", registry=registry
        )
        self.lost = Counter(
            "flashblocks_preconfirmations_lost", "Transactions shown that the sealed block lacks", registry=registry
        )
        self.resends = Counter("flashblocks_resends", "Times missing flashblocks were asked for", registry=registry)
        age = Gauge("flashblocks_stream_age_seconds", "Seconds since the last flashblock", registry=registry)
        age.set_function(lambda: _number(follower.stream_age_s()))
        index = Gauge(prefix + "pending_snapshot_fb_index", "Index of the pending flashblock", registry=registry)
        index.set_function(lambda: follower._snapshot.index if follower._snapshot else -1)
        height = Gauge(prefix + "pending_snapshot_height", "Height of the pending block", registry=registry)
        height.set_function(lambda: follower._snapshot.number if follower._snapshot else -1)
        ahead = Gauge("flashblocks_unconfirmed_blocks", "Blocks no execution client confirmed", registry=registry)
        ahead.set_function(lambda: follower.machine.unconfirmed_blocks)


def _number(value: float | None) -> float:
    return float("nan") if value is None else value
