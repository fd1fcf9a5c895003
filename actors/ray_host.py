"""How Ray is started on a host of many: its ports pinned, its token asked for, node death noticed as we want it.

Pure: command line and environment out of options.  `actors.ray_guard` runs them and keeps Ray running.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

import msgspec

from actors.placement import EDGE, SEQUENCER
from actors.ray_environment import PYTHON_MATCH

GCS_PORT = 6379
NODE_MANAGER_PORT = 6380
OBJECT_MANAGER_PORT = 6381
RUNTIME_ENV_AGENT_PORT = 6382
AGENT_GRPC_PORT = 6383
AGENT_HTTP_PORT = 6384
METRICS_PORT = 6385
CLIENT_PORT = 6386
AUTOSCALER_METRICS_PORT = 44217  # Ray's own, fixed
WORKER_PORT_FIRST = 20_000
WORKER_PORT_LAST = 20_999
OBJECT_STORE_BYTES = 80 * 1024 * 1024  # Ray's own minimum: no data of ours goes through it
REDIS_PASSWORD_FLAG = "--redis-password="  # Ray takes it in no other way, and so does its GCS
CPUS = 1  # so many workers are started ahead; our actors ask for none

# A killed raylet is noticed after FAILURES · PERIOD = 20 s, a silent host after FAILURES · (PERIOD + TIMEOUT) = 60 s.
# Sooner would not move anything sooner – a group waits for its own host – but every partition that lasts longer makes
# Ray end all actors of the hosts that were cut off from the head; if the head itself was, of all of them.
HEALTH_CHECK_INITIAL_DELAY_MS = 5_000
HEALTH_CHECK_PERIOD_MS = 2_000
HEALTH_CHECK_TIMEOUT_MS = 4_000
HEALTH_CHECK_FAILURES = 10
# For so long a host and its actors go on without Ray's head; Ray's own 60 s would end every actor of the cluster.
HEAD_ABSENT_S_MAX = 7 * 24 * 3600

LOG_BYTES_MAX = 50 * 1024 * 1024
LOG_BACKUPS = 2


class RayOptionsError(ValueError):
    """The options contradict each other; the text says which."""


class RayOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What differs from host to host."""

    address: str  # of this host
    head: bool = False
    head_address: str = ""  # host or host:port; empty on the head
    resources: dict[str, float] = {}
    autoscaling_config: str = ""
    gcs_storage: str = ""  # "rocksdb:PATH" or "redis://HOST:PORT", head only; empty: memory
    redis_password: str = ""
    temporary: str = ""  # Ray's own directory; empty: Ray's default
    port_offset: int = 0

    def check(self) -> None:
        """Raise `RayOptionsError` for what cannot be."""
        if self.head == bool(self.head_address):
            raise RayOptionsError("say either --head or --head-address HOST")
        if self.gcs_storage and not self.head:
            raise RayOptionsError("--gcs-storage is the head's")
        if self.gcs_storage and not self.gcs_storage.startswith(("rocksdb:/", "redis://", "rediss://")):
            raise RayOptionsError(f"--gcs-storage {self.gcs_storage}: use rocksdb:/ABSOLUTE/PATH or redis://HOST:PORT")


class RayPort(NamedTuple):
    """One of Ray's ports on a host."""

    port: str
    flag: str
    where: str
    what: str


def ports(offset: int = 0) -> list[RayPort]:
    """Every port Ray listens on, for the firewall."""

    def one(port: int, flag: str, where: str, what: str) -> RayPort:
        return RayPort(str(port + offset), flag, where, what)

    autoscaler = RayPort(str(AUTOSCALER_METRICS_PORT), "", "head", "the launcher's metrics; nobody needs it")
    workers = f"{WORKER_PORT_FIRST + offset}-{WORKER_PORT_LAST + offset}"
    return [
        one(GCS_PORT, "port", "head", "GCS: the cluster's directory, for all hosts"),
        one(CLIENT_PORT, "ray-client-server-port", "head", "Ray Client; nobody needs it"),
        autoscaler,
        one(NODE_MANAGER_PORT, "node-manager-port", "every host", "raylet, for all hosts"),
        one(OBJECT_MANAGER_PORT, "object-manager-port", "every host", "object transfer, for all hosts"),
        one(RUNTIME_ENV_AGENT_PORT, "runtime-env-agent-port", "every host", "runtime environments, used on the host"),
        one(
            AGENT_GRPC_PORT, "dashboard-agent-grpc-port", "every host", "Ray's agent, used on the host and by the head"
        ),
        one(AGENT_HTTP_PORT, "dashboard-agent-listen-port", "every host", "Ray's agent, used on the host"),
        one(METRICS_PORT, "metrics-export-port", "every host", "Ray's own metrics, for Prometheus"),
        RayPort(workers, "min-worker-port/max-worker-port", "every host", "actor processes, for all hosts"),
    ]


def command(options: RayOptions, ray: str) -> list[str]:
    """The ``ray start`` command line of a host; *ray* is the program's path."""
    options.check()
    offset = options.port_offset
    head = [
        "--head",
        f"--port={GCS_PORT + offset}",
        "--include-dashboard=false",
        f"--ray-client-server-port={CLIENT_PORT + offset}",  # Ray opens it in any case
        *([f"--autoscaling-config={options.autoscaling_config}"] if options.autoscaling_config else []),
        *([REDIS_PASSWORD_FLAG + options.redis_password] if options.redis_password else []),
        *([f"--temp-dir={options.temporary}"] if options.temporary else []),
    ]
    joining = [f"--address={gcs_address(options.head_address, offset)}"]
    return [
        *(ray, "start", *(head if options.head else joining)),
        f"--node-ip-address={options.address}",
        f"--node-manager-port={NODE_MANAGER_PORT + offset}",
        f"--object-manager-port={OBJECT_MANAGER_PORT + offset}",
        f"--runtime-env-agent-port={RUNTIME_ENV_AGENT_PORT + offset}",
        f"--dashboard-agent-grpc-port={AGENT_GRPC_PORT + offset}",
        f"--dashboard-agent-listen-port={AGENT_HTTP_PORT + offset}",
        f"--metrics-export-port={METRICS_PORT + offset}",
        f"--min-worker-port={WORKER_PORT_FIRST + offset}",
        f"--max-worker-port={WORKER_PORT_LAST + offset}",
        f"--num-cpus={0 if options.head else CPUS}",
        "--num-gpus=0",
        f"--object-store-memory={OBJECT_STORE_BYTES}",
        f"--resources={json.dumps(options.resources, sort_keys=True)}",
        "--disable-usage-stats",
    ]


def shown(words: Sequence[str]) -> str:
    """A command line for logs and eyes, without the password in it."""
    return shlex.join(REDIS_PASSWORD_FLAG + "***" if word.startswith(REDIS_PASSWORD_FLAG) else word for word in words)


def gcs_address(head_address: str, offset: int = 0) -> str:
    """``host:port`` of the head, the port being the pinned one where none is given."""
    return head_address if ":" in head_address else f"{head_address}:{GCS_PORT + offset}"


def environment(options: RayOptions) -> dict[str, str]:
    """What Ray reads from the environment, for `command`."""
    found = {
        "RAY_AUTH_MODE": "token",
        "RAY_USAGE_STATS_ENABLED": "0",
        # The second version, which ray up asks for, takes the head for one of the workers it has to start.
        "RAY_enable_autoscaler_v2": "0",
        "RAY_health_check_initial_delay_ms": str(HEALTH_CHECK_INITIAL_DELAY_MS),
        "RAY_health_check_period_ms": str(HEALTH_CHECK_PERIOD_MS),
        "RAY_health_check_timeout_ms": str(HEALTH_CHECK_TIMEOUT_MS),
        "RAY_health_check_failure_threshold": str(HEALTH_CHECK_FAILURES),
        "RAY_gcs_rpc_server_reconnect_timeout_s": str(HEAD_ABSENT_S_MAX),
        # Ray runs workers at nice 15; a sequencer that yields to every other process misses its slots.
        "RAY_worker_niceness": "0",
        "RAY_DEDUP_LOGS": "0",
        # Ray's own logs, per process: it keeps the last 150 MB of each instead of 3 GB.
        "RAY_ROTATION_MAX_BYTES": str(LOG_BYTES_MAX),
        "RAY_ROTATION_BACKUP_COUNT": str(LOG_BACKUPS),
        **PYTHON_MATCH,
    }
    kind, _, rest = options.gcs_storage.partition(":")
    if kind == "rocksdb":
        found |= {"RAY_gcs_storage": "rocksdb", "RAY_gcs_storage_path": rest}
    elif kind:
        found["RAY_REDIS_ADDRESS"] = options.gcs_storage if kind == "rediss" else urlsplit(options.gcs_storage).netloc
    return found


def resources_of(own_addresses: Collection[str], edge_addresses: Collection[str]) -> Mapping[str, float]:
    """What a host is for, by its addresses: an edge where it is named as one, else a sequencer."""
    return {EDGE: 1.0} if set(own_addresses) & set(edge_addresses) else {SEQUENCER: 1.0}
