"""What Ray reads from the environment when it starts; kept apart from Ray so that the starter need not import it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

GCS_ABSENT_S_MAX = 7 * 24 * 3600
TOKEN_PATH_DEFAULT = "~/.ray/auth_token"  # Ray's own

# Hosts and pods differ in the last number of their Python (3.11.2, 3.11.9); Ray would refuse them for that.
PYTHON_MATCH = {"RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL": "minor"}


def joining_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of a program that joins a running Ray: what is set, and token authentication unless refused."""
    return {"RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0", **PYTHON_MATCH, **environment}


def ray_environment(workers: int, token_path: Path) -> dict[str, str]:
    """The environment Ray reads when it starts, for the supervisor's process.

    Workers are all started at once and before they are asked for; only holders of the token may speak to this Ray.
    """
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_path),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_maximum_startup_concurrency": str(workers),
        "RAY_num_prestart_python_workers": str(workers),
        "RAY_enable_worker_prestart": "1",
        "RAY_DEDUP_LOGS": "0",
        "RAY_gcs_server_port_wait_time_s": "90",  # a busy machine is no reason to give up
        # Ray's own 60 s would end every actor with the GCS, which is not on the data path.
        "RAY_gcs_rpc_server_reconnect_timeout_s": str(GCS_ABSENT_S_MAX),
        # Ray runs workers at nice 15; a sequencer that yields to every other process misses its slots.
        "RAY_worker_niceness": "0",
    }
