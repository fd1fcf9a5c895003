"""A real Jaeger for tests, where a binary is on the PATH: v1's `jaeger-all-in-one`, or v2's `jaeger`."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from typing import Any

ALL_IN_ONE, JAEGER = "jaeger-all-in-one", "jaeger"
START_S_MAX = 60.0
QUERY_S_MAX = 10.0
WHY_NOT = f"no {ALL_IN_ONE} and no {JAEGER} on the PATH; docs/tracing.md says how to build one"


def binary() -> str | None:
    """The path of a Jaeger, or None."""
    return shutil.which(ALL_IN_ONE) or shutil.which(JAEGER)


class Jaeger:
    """One process with everything in memory: `otlp_url` (HTTP) and `grpc_url` take spans, `url` answers queries."""

    def __init__(self) -> None:
        path = binary()
        assert path is not None
        query, http, grpc, *others = (str(port) for port in _free_ports(10))
        self.url, self.otlp_url = f"http://127.0.0.1:{query}", f"http://127.0.0.1:{http}"
        self.grpc_url = f"http://127.0.0.1:{grpc}"
        options = _v1(query, http, grpc, others) if path.endswith(ALL_IN_ONE) else _v2(query, http, grpc, others)
        self._process = subprocess.Popen([path, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + START_S_MAX
        while not self._answers():
            assert self._process.poll() is None, f"{path} ended with {self._process.returncode}"
            assert time.monotonic() < deadline, f"{path} does not answer at {self.url}"
            time.sleep(0.1)

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait()

    def ask(self, path: str) -> Any:
        """The `data` of an answer of the query API; None where there is no such thing (404)."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=QUERY_S_MAX) as response:
                return json.load(response)["data"]
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 404:
                    return None
            raise

    def _answers(self) -> bool:
        try:
            self.ask("/api/services")
        except OSError:
            return False
        return True


def _v1(query: str, http: str, grpc: str, others: list[str]) -> list[str]:
    ports = {
        "query.http-server": query,
        "collector.otlp.http": http,
        "collector.otlp.grpc": grpc,
        "query.grpc-server": others[0],
        "collector.grpc-server": others[1],
        "collector.http-server": others[2],
        "admin.http": others[3],
        "http-server": others[4],
    }
    agent = ("jaeger-binary.server", "jaeger-compact.server", "zipkin-compact.server")
    return [
        *(f"--{name}.host-port=127.0.0.1:{port}" for name, port in ports.items()),
        *(f"--processor.{name}-host-port=127.0.0.1:0" for name in agent),
    ]


def _v2(query: str, http: str, grpc: str, others: list[str]) -> list[str]:
    places = {
        "extensions.jaeger_query.http.endpoint": query,
        "extensions.jaeger_query.grpc.endpoint": others[0],
        "receivers.otlp.protocols.http.endpoint": http,
        "receivers.otlp.protocols.grpc.endpoint": grpc,
        "receivers.jaeger.protocols.grpc.endpoint": others[1],
        "receivers.jaeger.protocols.thrift_http.endpoint": others[2],
        "receivers.zipkin.endpoint": others[3],
        "extensions.healthcheckv2.http.endpoint": others[4],
        "extensions.remote_sampling.http.endpoint": others[5],
        "extensions.remote_sampling.grpc.endpoint": others[6],
    }
    return [f"--set={name}=127.0.0.1:{port}" for name, port in places.items()]


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
