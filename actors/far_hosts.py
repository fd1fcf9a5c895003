"""Processes of other hosts, signalled as if they were here: for drills on a cluster of many hosts.

The agents send the signals; a small program of its own speaks with them through Ray.  A process of another host gets a
number that no process of this machine has – `far_pid` – in a copy of ``endpoints.json`` that follows the keeper's.

    python -P -m actors.far_hosts NAME RAY      reads "ADDRESS PID SIGNAL" lines, answers "1" or "0"
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import orjson

from actors.data_directory import write_atomically
from actors.joined_starter import environment_for_joining
from actors.keeper_client import fetch_first
from actors.run_directory import RunDirectory

FAR_PIDS_PER_HOST = 10_000_000  # Linux has at most 4,194,304 processes
MIRROR_FILE = "far-endpoints.json"
MIRROR_PERIOD_S = 0.1
FETCH_S_MAX = 2.0
SIGNAL_S_MAX = 10.0
READY = "ready"


class FarHosts:
    """The hosts of one cluster; `with FarHosts(directory) as far:` keeps `far.endpoints` up to date."""

    def __init__(self, directory: RunDirectory) -> None:
        state = directory.read_state()
        if state is None or not state.ray_address:
            raise ValueError(f"{directory.name} lives on this machine alone")
        self.endpoints = directory.path / MIRROR_FILE
        self._urls = [f"{url}/endpoints.json" for url in state.keeper_urls]
        self._hosts: list[str] = []
        self._words = [sys.executable, "-P", "-m", "actors.far_hosts", directory.name, state.ray_address]
        self._ended = threading.Event()
        self._turn = threading.Lock()
        self._helper: subprocess.Popen[str]
        self._mirror = threading.Thread(target=self._follow, name="far-endpoints", daemon=True)

    def __enter__(self) -> FarHosts:
        self._helper = subprocess.Popen(
            self._words, env=environment_for_joining(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._helper.stdout is not None
        while (line := self._helper.stdout.readline()).strip() not in (READY, ""):
            pass
        if line.strip() != READY:
            raise ConnectionError("Ray does not answer: the hosts' processes cannot be signalled")
        self._fetch_once()
        self._mirror.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._mirror.join()
        assert self._helper.stdin is not None and self._helper.stdout is not None
        self._helper.stdin.close()
        self._helper.stdout.close()
        self._helper.wait()
        self.endpoints.unlink(missing_ok=True)

    def signal(self, number_of_process: int, number: signal.Signals) -> None:
        """Signal the process that *number_of_process* stands for; raises `ProcessLookupError` when it is not there."""
        index, pid = divmod(number_of_process, FAR_PIDS_PER_HOST)
        assert self._helper.stdin is not None and self._helper.stdout is not None
        with self._turn:
            self._helper.stdin.write(f"{self._hosts[index - 1]} {pid} {int(number)}\n")
            self._helper.stdin.flush()
            while (answered := self._helper.stdout.readline().strip()) not in ("0", "1", ""):
                pass  # Ray has something to say about its nodes
        if answered != "1":
            raise ProcessLookupError(f"no process {pid} of ours on {self._hosts[index - 1]}")

    def _follow(self) -> None:
        while not self._ended.wait(MIRROR_PERIOD_S):
            self._fetch_once()

    def _fetch_once(self) -> None:
        content = asyncio.run(fetch_first(self._urls, FETCH_S_MAX))
        if content is not None:
            found = orjson.loads(content)
            self._hosts = [host["address"] for host in found["hosts"]]
            write_atomically(self.endpoints, orjson.dumps(with_far_pids(found)))


def with_far_pids(endpoints: Mapping[str, Any]) -> dict[str, Any]:
    """``endpoints.json`` with numbers in the place of pids that are unique over all hosts; 0 stays 0."""
    place = {host["address"]: index for index, host in enumerate(endpoints["hosts"], start=1)}

    def renamed(entry: Mapping[str, Any]) -> dict[str, Any]:
        return {**entry, "pid": far_pid(place[entry["host"]], entry["pid"])}

    groups = [
        {**group, "actors": {actor: renamed(entry) for actor, entry in group["actors"].items()}}
        for group in endpoints["groups"]
    ]
    doors = {key: [renamed(entry) for entry in endpoints[key]] for key in ("proxies", "rpc_nodes", "ingress")}
    return {**endpoints, "groups": groups, **doors}


def far_pid(host: int, pid: int) -> int:
    """The number that stands for process *pid* of the *host*-th host, counted from one; 0 for no process."""
    return host * FAR_PIDS_PER_HOST + pid if pid else 0


def is_far(pid: int) -> bool:
    """Whether *pid* stands for a process of another host."""
    return pid >= FAR_PIDS_PER_HOST


def main(arguments: list[str]) -> int:
    """Send signals through the agents until the input ends; see the module."""
    from actors import joined_cluster

    name, address = arguments
    joined_cluster.connect(address, name)
    agents = joined_cluster.agents_of(name)
    print(READY, flush=True)
    for line in sys.stdin:
        host, pid, number = line.split()
        sent = joined_cluster.answers({host: agents[host].send_signal.remote(int(pid), int(number))}, SIGNAL_S_MAX)
        print(int(bool(sent.get(host))), flush=True)
    joined_cluster.disconnect()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
