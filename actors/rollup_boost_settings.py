"""What an operator can set of a rollup-boost."""

from __future__ import annotations

from pathlib import Path

import msgspec

from flashblocks.rollup_boost.rules import FLASHBLOCK_TIME_S_DEFAULT, MAX_UNSAFE_INTERVAL_S_DEFAULT, Rules
from flashblocks.rollup_boost.selection import ExecutionMode, Policy
from flashblocks.wire.jwt import read_secret


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every option of rollup-boost; URLs are complete.  Without any JWT secret there is no token on either side."""

    name: str = "sequencer-0"
    group: int = 0
    host: str = "127.0.0.1"
    data_dir: str = ""
    log_level: str = "info"
    jwt_secret_path: str = ""
    """The secret of all sides: what op-node must show, and what the two clients behind us are shown."""
    l2_jwt_path: str = ""
    l2_jwt_token: str = ""
    """The execution client's own secret, in a file or in hex; the token wins. Op-node's where there is no other."""
    builder_jwt_path: str = ""
    builder_jwt_token: str = ""
    engine_port: int = 8081
    debug_host: str = ""
    """Where the debug API listens; empty: on `host`."""
    debug_port: int = 5555
    ws_host: str = ""
    """Where the flashblocks go out; empty: on `host`."""
    ws_port: int = 1112
    metrics_host: str = "127.0.0.1"
    metrics_port: int = 0
    """Health, metrics and status, read-only, for those who may not reach the other ports; 0 is none."""
    l2_url: str = "http://127.0.0.1:8551"
    builder_url: str = "http://127.0.0.1:8552"
    builder_ws_url: str = "ws://127.0.0.1:1111"
    l2_timeout_ms: int = 1000
    builder_timeout_ms: int = 1000
    execution_mode: str = "enabled"
    block_selection_policy: str = ""
    commit_required: bool = True
    flashblock_time_ms: int = round(FLASHBLOCK_TIME_S_DEFAULT * 1000)
    """How often the execution client makes a flashblock where the builder does not."""
    ignore_unhealthy_builders: bool = False
    health_check_interval_s: float = 2.0
    max_unsafe_interval_s: float = MAX_UNSAFE_INTERVAL_S_DEFAULT
    builder_ws_initial_reconnect_ms: int = 10
    builder_ws_max_reconnect_ms: int = 500  # upstream's 5000 costs a block and a half
    builder_ws_connect_timeout_ms: int = 5000
    builder_ws_ping_interval_ms: int = 500
    builder_ws_pong_timeout_ms: int = 3000  # upstream's 1500 closes healthy links on a busy machine


def rules_of(settings: Settings) -> Rules:
    """The rules that the operator chose; raises ValueError for a mode or policy that there is not."""
    return Rules(
        commit_required=settings.commit_required,
        mode=ExecutionMode.parse(settings.execution_mode),
        policy=Policy(settings.block_selection_policy or "builder"),
        ignore_unhealthy_builders=settings.ignore_unhealthy_builders,
        max_unsafe_interval_s=settings.max_unsafe_interval_s,
        flashblock_time_s=settings.flashblock_time_ms / 1000,
    )


class Secrets(msgspec.Struct, frozen=True):
    """The JWT secrets: what callers must show, and what the two clients are shown; None is no token."""

    inbound: bytes | None
    l2: bytes | None
    builder: bytes | None


def secrets_of(settings: Settings) -> Secrets:
    """Read the secrets; raises OSError, ValueError."""
    common = _secret("", settings.jwt_secret_path)
    l2 = _secret(settings.l2_jwt_token, settings.l2_jwt_path) or common
    return Secrets(common or l2, l2, _secret(settings.builder_jwt_token, settings.builder_jwt_path) or common)


def _secret(token: str, path: str) -> bytes | None:
    if token:
        return read_secret(token)
    return read_secret(Path(path).read_text()) if path else None
