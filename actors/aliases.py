"""What operators of the original components would write, and which of our settings it means.

Keys are upstream flag names without the dashes; the environment name is the flag in upper case with underscores,
behind the component's prefix.  Values are our field names, with a conversion where the units differ.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec


def _same(text: str) -> Any:
    return text


def _milliseconds_to_seconds(text: str) -> Any:
    return str(int(text) // 1000)


def _seconds_to_milliseconds(text: str) -> Any:
    return str(round(float(text) * 1000))


def _duration_to_milliseconds(text: str) -> Any:
    """Go's ``50ms`` or ``1s``, or a plain number of milliseconds."""
    if text.endswith("ms"):
        return text[:-2]
    return str(round(float(text[:-1]) * 1000)) if text.endswith("s") else text


def _duration_to_seconds(text: str) -> Any:
    """Go's ``1m``, ``5s`` or ``500ms``, or a plain number of seconds."""
    for unit, seconds in (("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0)):
        if text.endswith(unit):
            return f"{float(text.removesuffix(unit)) * seconds:g}"
    return text


def _port_of(text: str) -> Any:
    return text.rpartition(":")[2]


def _host_of(text: str) -> Any:
    return text.rpartition(":")[0].removeprefix("[").removesuffix("]") or "0.0.0.0"


class Alias(msgspec.Struct, frozen=True):
    """One of our fields, and how an upstream value becomes its value; `also` another that the same value sets."""

    field: str
    convert: Callable[[str], Any] = _same
    also: Alias | None = None

    def values(self, text: str) -> dict[str, Any]:
        """Field → value of everything that the text sets."""
        return {self.field: self.convert(text), **({} if self.also is None else self.also.values(text))}


ENVIRONMENT_PREFIXES: Mapping[str, str] = {"op-node": "OP_NODE_", "conductor": "OP_CONDUCTOR_"}

_LOG_LEVEL = {"log-level": Alias("log_level"), "log.level": Alias("log_level")}

_ALIASES: Mapping[str, Mapping[str, Alias]] = {
    "op-node": {
        "rpc.addr": Alias("host"),
        "rpc.port": Alias("rpc_port"),
        "l2": Alias("engine_url"),
        "l2.engine.rpc": Alias("engine_url"),
        "l2.jwt-secret": Alias("jwt_secret_path"),
        "l2.engine.auth": Alias("jwt_secret_path"),
        "conductor.rpc": Alias("conductor_url"),
        "conductor.rpc-timeout": Alias("conductor_rpc_timeout_ms", _duration_to_milliseconds),
        "conductor.enabled": Alias("conductor_enabled"),
        "sequencer.stopped": Alias("sequencer_stopped"),
        "sequencer.sealing-duration": Alias("sealing_duration_ms", _duration_to_milliseconds),
        **_LOG_LEVEL,
    },
    "conductor": {
        "rpc.addr": Alias("host"),
        "rpc.port": Alias("rpc_port"),
        "websocket.server-port": Alias("ws_port"),
        "rpc.enable-proxy": Alias("rpc_enable_proxy"),
        "consensus.addr": Alias("raft_host"),
        "consensus.port": Alias("raft_port"),
        "raft.server.id": Alias("name"),
        "raft.storage.dir": Alias("data_dir"),
        "node.rpc": Alias("op_node_url"),
        "execution.rpc": Alias("execution_url"),
        "rollupboost.ws-url": Alias("rollup_boost_ws_url"),
        "healthcheck.interval": Alias("healthcheck_interval_s"),
        "healthcheck.unsafe-interval": Alias("healthcheck_unsafe_interval_s"),
        "healthcheck.min-peer-count": Alias("healthcheck_min_peer_count"),
        "healthcheck.safe-enabled": Alias("healthcheck_safe_enabled"),
        "healthcheck.safe-interval": Alias("healthcheck_safe_interval_s"),
        "rollup-boost.healthcheck-timeout": Alias("rollup_boost_healthcheck_timeout_s", _duration_to_seconds),
        "healthcheck.rollup-boost-partial-healthiness-tolerance-limit": Alias(
            "healthcheck_rollup_boost_partial_healthiness_tolerance_limit"
        ),
        "healthcheck.rollup-boost-partial-healthiness-tolerance-interval-seconds": Alias(
            "healthcheck_rollup_boost_partial_healthiness_tolerance_interval_s"
        ),
        "paused": Alias("paused"),
        **_LOG_LEVEL,
    },
    "rollup-boost": {
        "rpc-host": Alias("host"),
        "rpc-port": Alias("engine_port"),
        "debug-host": Alias("debug_host"),
        "debug-server-port": Alias("debug_port"),
        "flashblocks-host": Alias("ws_host"),
        "flashblocks-port": Alias("ws_port"),
        "metrics-host": Alias("metrics_host"),
        "metrics-port": Alias("metrics_port"),
        "l2-url": Alias("l2_url"),
        "l2-timeout": Alias("l2_timeout_ms"),
        "l2-jwt-path": Alias("l2_jwt_path"),
        "l2-jwt-token": Alias("l2_jwt_token"),
        "builder-url": Alias("builder_url"),
        "builder-timeout": Alias("builder_timeout_ms"),
        "builder-jwt-path": Alias("builder_jwt_path"),
        "builder-jwt-token": Alias("builder_jwt_token"),
        "flashblocks-builder-url": Alias("builder_ws_url"),
        "flashblock-builder-ws-initial-reconnect-ms": Alias("builder_ws_initial_reconnect_ms"),
        "flashblock-builder-ws-max-reconnect-ms": Alias("builder_ws_max_reconnect_ms"),
        "flashblock-builder-ws-connect-timeout-ms": Alias("builder_ws_connect_timeout_ms"),
        "flashblock-builder-ws-ping-interval-ms": Alias("builder_ws_ping_interval_ms"),
        "flashblock-builder-ws-pong-timeout-ms": Alias("builder_ws_pong_timeout_ms"),
        "execution-mode": Alias("execution_mode"),
        "block-selection-policy": Alias("block_selection_policy"),
        "ignore-unhealthy-builders": Alias("ignore_unhealthy_builders"),
        "health-check-interval": Alias("health_check_interval_s"),
        "max-unsafe-interval": Alias("max_unsafe_interval_s"),
        **_LOG_LEVEL,
    },
    "builder": {
        "flashblocks.port": Alias("ws_port"),
        "flashblocks-ws-port": Alias("ws_port"),
        "flashblocks.addr": Alias("host"),
        "flashblocks.block-time": Alias("flashblock_time_ms"),
        "flashblock-block-time": Alias("flashblock_time_ms"),
        "rollup.chain-block-time": Alias("block_time_s", _milliseconds_to_seconds),
        "chain-block-time": Alias("block_time_s", _milliseconds_to_seconds),
        "flashblocks.send-offset-ms": Alias("send_offset_ms"),
        "flashblock-send-offset-ms": Alias("send_offset_ms"),
        "flashblocks.end-buffer-ms": Alias("end_buffer_ms"),
        "flashblock-end-buffer-ms": Alias("end_buffer_ms"),
        "flashblocks.ws-subscriber-limit": Alias("ws_subscriber_limit"),
        "flashblock-ws-subscriber-limit": Alias("ws_subscriber_limit"),
        "builder.max_gas_per_txn": Alias("max_gas_per_txn"),
        "builder.extra-block-deadline-secs": Alias("extra_block_deadline_secs"),
        "builder.max-uncompressed-block-size": Alias("max_uncompressed_block_size"),
        "builder.enable-revert-protection": Alias("enable_revert_protection"),
        "backruns.enabled": Alias("backruns_enabled"),
        "backruns.max_considered_backruns_per_block": Alias("backruns_max_considered_per_block"),
        "backruns.max_landed_backruns_per_block": Alias("backruns_max_landed_per_block"),
        "backruns.max_considered_backruns_per_transaction": Alias("backruns_max_considered_per_target"),
        "backruns.max_landed_backruns_per_transaction": Alias("backruns_max_landed_per_target"),
        "backruns.max_considered_backruns_per_target": Alias("backruns_max_considered_per_target"),
        "backruns.max_landed_backruns_per_target": Alias("backruns_max_landed_per_target"),
        "gas-limiter.enabled": Alias("gas_limiter_enabled"),
        "gas-limiter.max-gas-per-address": Alias("gas_limiter_max_gas_per_address"),
        "gas-limiter.refill-rate-per-block": Alias("gas_limiter_refill_rate_per_block"),
        "gas-limiter.cleanup-interval": Alias("gas_limiter_cleanup_interval"),
        "compute-limiter.enabled": Alias("compute_limiter_enabled"),
        "compute-limiter.max-time-us-per-address": Alias("compute_limiter_max_time_us_per_address"),
        "compute-limiter.refill-rate-us-per-block": Alias("compute_limiter_refill_rate_us_per_block"),
        "compute-limiter.cleanup-interval": Alias("compute_limiter_cleanup_interval"),
        "flashblocks-ws-addr": Alias("host"),
        "authrpc.port": Alias("engine_port"),
        "authrpc.jwtsecret": Alias("jwt_secret_path"),
        "http.port": Alias("rpc_port"),
        **_LOG_LEVEL,
    },
    "fallback-el": {
        "authrpc.port": Alias("engine_port"),
        "authrpc.jwtsecret": Alias("jwt_secret_path"),
        "http.port": Alias("rpc_port"),
        "datadir": Alias("data_dir"),
        **_LOG_LEVEL,
    },
    "websocket-proxy": {
        "listen-addr": Alias("port", _port_of, Alias("host", _host_of)),
        "upstream-ws": Alias("upstream_ws"),
        "message-buffer-size": Alias("message_buffer_size"),
        "instance-connection-limit": Alias("instance_connection_limit"),
        "per-ip-connection-limit": Alias("per_ip_connection_limit"),
        # Operators know them in the plural too, and the first one as global.
        "instance-connections-limit": Alias("instance_connection_limit"),
        "global-connection-limit": Alias("instance_connection_limit"),
        "global-connections-limit": Alias("instance_connection_limit"),
        "per-ip-connections-limit": Alias("per_ip_connection_limit"),
        "enable-compression": Alias("enable_compression"),
        "ip-addr-http-header": Alias("ip_addr_http_header"),
        "api-keys": Alias("api_keys"),
        "public-access-enabled": Alias("public_access_enabled"),
        "subscriber-max-interval-ms": Alias("subscriber_max_interval_ms"),
        "subscriber-max-interval": Alias("subscriber_max_interval_ms", _seconds_to_milliseconds),
        "subscriber-ping-interval-ms": Alias("subscriber_ping_interval_ms"),
        "subscriber-pong-timeout-ms": Alias("subscriber_pong_timeout_ms"),
        "client-ping-enabled": Alias("client_ping_enabled"),
        "client-ping-interval-ms": Alias("client_ping_interval_ms"),
        "client-pong-timeout-ms": Alias("client_pong_timeout_ms"),
        "client-send-timeout-ms": Alias("client_send_timeout_ms"),
        "metrics": Alias("metrics"),
        "metrics-addr": Alias("metrics_addr"),
        "metrics-global-labels": Alias("metrics_global_labels"),
        "metrics-host-label": Alias("metrics_host_label"),
        **_LOG_LEVEL,
    },
    "rpc-node": {
        "flashblocks-url": Alias("stream_urls"),
        "websocket-url": Alias("stream_urls"),
        "http.addr": Alias("host"),
        "http.port": Alias("port"),
        "http.corsdomain": Alias("cors_origins"),
        **_LOG_LEVEL,
    },
    "ingress": {
        "builder-rpc-urls": Alias("target_urls"),
        "tx-forwarding-resend-after-ms": Alias("resend_after_ms"),
        **_LOG_LEVEL,
    },
}


_RAFT_LOG = "the journal is compacted by its own rules, by entries, bytes and time"
_RAFT_TIME = "Raft's time-outs were measured for neighbours, and grow with --round-trip-ms"
_EXECUTION_PEERS = "execution clients have no peers here: blocks come through the conductors"
_ALWAYS_CHECKED = "rollup-boost is always checked, at --rollup-boost-url"
_METRICS_PLACE = "metrics are always served, at /metrics of the RPC port"
_NO_PPROF = "a Python process has no pprof"
_CHAIN = "the chain is that of the genesis file (--genesis-path)"

_WITHOUT_EFFECT: Mapping[str, Mapping[str, str]] = {
    "conductor": {
        "consensus.advertised": "the others find this node by its entry in --raft-peers",
        "raft.bootstrap": "the members are those of --raft-peers; there is nothing to bootstrap",
        "raft.snapshot-interval": _RAFT_LOG,
        "raft.snapshot-threshold": _RAFT_LOG,
        "raft.trailing-logs": _RAFT_LOG,
        "raft.heartbeat-timeout": _RAFT_TIME,
        "raft.lease-timeout": _RAFT_TIME,
        "raft.round-robin-leader-transfer": "leadership is handed to the fittest voter",
        "supervisor.rpc": "there is no interop here, so there is no supervisor to ask",
        "healthcheck.execution-p2p-enabled": _EXECUTION_PEERS,
        "healthcheck.execution-p2p-min-peer-count": _EXECUTION_PEERS,
        "healthcheck.execution-p2p-rpc-url": _EXECUTION_PEERS,
        "healthcheck.execution-p2p-check-api": _EXECUTION_PEERS,
        "rollup-boost.enabled": _ALWAYS_CHECKED,
        "rollup-boost.next-enabled": _ALWAYS_CHECKED,
        "rollup-boost.next-healthcheck-url": _ALWAYS_CHECKED,
        "rpc.enable-admin": "a conductor has no admin methods of its own",
        "rpc.http-body-limit-mb": "payloads travel in the ledger; the RPC's own limit is above every one of them",
        "metrics.enabled": _METRICS_PLACE,
        "metrics.addr": _METRICS_PLACE,
        "metrics.port": _METRICS_PLACE,
        "pprof.enabled": _NO_PPROF,
        "pprof.addr": _NO_PPROF,
        "pprof.port": _NO_PPROF,
        "pprof.path": _NO_PPROF,
        "pprof.type": _NO_PPROF,
        "log.format": "logs are JSON",
        "log.color": "logs are JSON",
        "log.pid": "every log line says which process wrote it",
        "network": _CHAIN,
        "rollup.config": _CHAIN,
    },
    "rollup-boost": {
        "flashblocks": "flashblocks are always on",
        "metrics": "metrics are always served, on the engine port and on --metrics-port",
        "tracing": "traces are kept where a data directory is set",
        "otlp-endpoint": "traces go to the cluster's collector",
        "log-format": "logs are JSON",
        "log-file": "logs go to standard error and into the data directory",
    },
    "builder": {
        "flashblocks.enabled": "flashblocks are always on",
        "enable-flashblocks": "flashblocks are always on",
        "flashblocks.continuous-build": "candidates are always built continuously",
        "flashblocks.enable-incremental-state-root": "state roots are always incremental",
        "builder.exclude-reverts-between-flashblocks": "a bundle that reverted is dropped for good",
        "builder.log-pool-transactions": "the pool's transactions are traced, not logged",
    },
    "rpc-node": {
        "http": "HTTP is always on",
        "ws": "WebSocket is always on, on the HTTP port",
        "enable-metering": "metering is always on",
        "enable-tx-forwarding": "transactions always go on, to --ingress-urls",
        "enable-transaction-tracing": "traces are kept where a data directory is set",
        "enable-transaction-tracing-logs": "traces are kept where a data directory is set",
        "max-pending-blocks-depth": "pending is one block on this node's own head, however far the stream is ahead",
        "flashblocks.cached-execution": "what was followed is never executed again",
    },
    "ingress": {
        "enable-tx-forwarding": "forwarding is all that an ingress does",
        "tx-forwarding-batch-size": "what waits goes together, up to 256 transactions",
        "tx-forwarding-max-rps": "the pace is one message every 20 ms and pool, however much is in it",
    },
    "websocket-proxy": {
        "log-format": "logs are JSON",
        "redis-url": "limits are kept per proxy: give each its share of the whole",
        "redis-key-prefix": "limits are kept per proxy: give each its share of the whole",
    },
}
"""Flags of the originals that people have in their scripts, and why they need not be said here."""


def without_effect(component: str) -> Mapping[str, str]:
    """The upstream flags of *component* that are accepted and change nothing: flag → why."""
    return _WITHOUT_EFFECT.get(component, {})


def aliases_of(component: str) -> Mapping[str, Alias]:
    """The upstream flags of *component* that mean one of our settings."""
    return _ALIASES.get(component, {})
