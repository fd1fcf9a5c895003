"""Every setting of a conductor."""

from __future__ import annotations

import msgspec


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every option of a conductor; `healthcheck_…` are op-conductor's."""

    name: str
    group: int = 0
    host: str = "127.0.0.1"
    data_dir: str
    log_level: str = "info"
    genesis_path: str = ""
    genesis_hash: str = ""  # of the genesis block; read from chain.json beside the genesis file where it is not given
    rpc_port: int = 8547
    ws_port: int = 8546
    raft_host: str = ""  # where Raft listens; empty for `host`
    raft_port: int = 50050
    raft_peers: dict[str, str]
    raft_password_path: str
    raft_fsync: bool = False
    """Force entries and votes to the disk before they are acknowledged: a power cut forgets none; costs its latency."""
    peer_urls: dict[str, str] = {}
    """RPC of the other conductors, by name: asked how fit their groups are to lead."""
    op_node_url: str
    rollup_boost_url: str
    rollup_boost_ws_url: str
    execution_url: str = ""
    block_time_s: int = 2
    flashblock_time_ms: int = 200
    round_trip_ms: int = 0  # the longest between two conductors; Raft's time-outs grow with it
    paused: bool = False
    rpc_enable_proxy: bool = True
    """Serve the op-node's and the execution client's methods as well, while this node leads."""
    traceparent_in_metadata: bool = False
    """Tell those who read the stream as JSON each flashblock's trace: `metadata.traceparent`."""
    healthcheck_interval_s: float = 0.25
    healthcheck_unsafe_interval_s: float = 5.0
    healthcheck_safe_enabled: bool = False
    healthcheck_safe_interval_s: float = 1200.0
    healthcheck_min_peer_count: int = 1
    healthcheck_silence_s_max: float = 0.75
    rollup_boost_healthcheck_timeout_s: float = 0.5
    healthcheck_rollup_boost_partial_healthiness_tolerance_limit: int = 0
    healthcheck_rollup_boost_partial_healthiness_tolerance_interval_s: float = 0.0
