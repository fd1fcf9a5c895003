"""The system on hosts of `machines`, from `ray up` on the real cluster.yaml to `ray down`, as an operator does it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.hosts.machine import HOME, Machine, MachineError
from tests.hosts.machines import Machines
from tests.hosts.network import REPOSITORY

CLUSTER_FILE = Path(os.environ.get("FLASHBLOCKS_CLUSTER_YAML", REPOSITORY / "cluster.yaml"))
EDGE_IN_THE_FILE = "192.0.2.31"
NAME = "hosts"
RUN_DIRECTORY = f"/tmp/flashblocks-0/{NAME}"
DATA_DIRECTORY = f"{HOME}/data"  # outlives a boot, as docs/many-hosts.md wants it
OPERATOR, HEAD, EDGE = "operator", "head", "edge"
SPARE = "spare"  # has nothing until a test gives it something
SEQUENCERS = tuple(f"sequencer-{number}" for number in range(5))
HOSTS = (OPERATOR, HEAD, *SEQUENCERS, EDGE, SPARE)
SOURCES = f"{HOME}/sources"
DELIVERED = (
    "flashblocks",
    "raft",
    "tracing",
    "actors",
    "chaos",
    "cli",
    "pyproject.toml",
    "requirements.lock",
    "README.md",
)
NODES_S_MAX = 240.0
RAY_S_MAX = 240.0
UP_S_MAX = 300.0
POLL_S = 1.0


FIGURES: list[str] = []
"""What the tests measured, for the end of their report."""


class Deployment:
    """One system on hosts, and how long each step of its life took."""

    def __init__(self, machines: Machines) -> None:
        self.machines = machines
        self.took_s: dict[str, float] = {}
        self.edge = EDGE
        """The host with the keeper; another one takes its place in a test."""

    @property
    def endpoints_path(self) -> Path:
        """The endpoints.json that the keeper on the edge host writes anew whenever something changes."""
        return self.machines[self.edge].file(f"{RUN_DIRECTORY}/endpoints.json")

    @property
    def endpoints(self) -> dict[str, Any]:
        """The system's own endpoints.json, as it is now."""
        found: dict[str, Any] = json.loads(self.endpoints_path.read_bytes())
        return found

    def ray_up(self) -> None:
        """`ray up` from the operator's host, then wait until Ray knows every host."""
        began = time.monotonic()
        operator = self.machines[OPERATOR]
        key = operator.file(f"{HOME}/.ssh/id_ed25519")
        shutil.copy(self.machines.key, key)
        key.chmod(0o600)
        for name in DELIVERED:
            source, target = REPOSITORY / name, operator.file(f"{SOURCES}/{name}")
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                target.parent.mkdir(exist_ok=True)
                shutil.copy(source, target)
        operator.file(f"{SOURCES}/cluster.yaml").write_text(self._cluster_yaml())
        operator.run("flashblocks", "ray", "token")
        self._operate("ray", "up", "-y", "cluster.yaml")
        self.await_nodes()
        self.took_s["ray up"] = time.monotonic() - began

    def announce(self, old: str, new: str) -> None:
        """Put another address in the place of one in the operator's cluster.yaml, and `ray up` once more."""
        file = self.machines[OPERATOR].file(f"{SOURCES}/cluster.yaml")
        text = file.read_text()
        assert not re.search(rf"\b{re.escape(new)}\b", text), f"{new} is in cluster.yaml already"
        file.write_text(re.sub(rf"\b{re.escape(old)}\b", new, text))
        self._operate("ray", "up", "-y", "cluster.yaml")

    def await_nodes(self) -> None:
        """Wait until Ray's head counts every sequencer and edge host; raises MachineError."""
        deadline = time.monotonic() + NODES_S_MAX
        while True:
            said = self.machines[HEAD].run("ray", "status", check=False, RAY_AUTH_MODE="token")
            if f"/{len(SEQUENCERS)}.0 sequencer" in said.stdout and "/1.0 edge" in said.stdout:
                return
            if time.monotonic() > deadline:
                raise MachineError(f"Ray has not all hosts:\n{said.stdout}{said.stderr}")
            time.sleep(POLL_S)

    def up(self, *options: str) -> None:
        """`flashblocks up --address auto` on Ray's head."""
        began = time.monotonic()
        words = ("flashblocks", "up", "--address", "auto", "--name", NAME, "--detach", "--json")
        kept = ("--data-dir", DATA_DIRECTORY)
        said = self.machines[HEAD].run(*words, *kept, *options, timeout_s=UP_S_MAX)
        assert json.loads(said.stdout)["name"] == NAME
        self.took_s["flashblocks up"] = time.monotonic() - began

    def down(self) -> None:
        """`flashblocks down` where `up` ran; a head that was booted since forgot it, any host of the system did not."""
        began = time.monotonic()
        remembers = self.machines[HEAD].is_up and own_files(self.machines[HEAD])
        self.machines[HEAD if remembers else self.edge].run("flashblocks", "down", "--name", NAME)
        self.took_s["flashblocks down"] = time.monotonic() - began

    def ray_down(self) -> None:
        """End Ray everywhere: `ray down` ends the head's, which would start a worker's again, then each worker's."""
        began = time.monotonic()
        self._operate("ray", "down", "-y", "cluster.yaml")
        stopping = [
            (machine.name, subprocess.Popen(machine.inside("flashblocks", "ray", "stop"), stdout=subprocess.DEVNULL))
            for machine in self.machines
            if machine.name in (*SEQUENCERS, EDGE, SPARE) and machine.is_up
        ]
        failed = [name for name, process in stopping if process.wait(RAY_S_MAX) != 0]
        if failed:
            raise MachineError(f"flashblocks ray stop failed on {', '.join(failed)}")
        self.took_s["ray down"] = time.monotonic() - began

    def host_of(self, group: str) -> Machine:
        """The host a group runs on."""
        found = next(each for each in self.endpoints["groups"] if each["name"] == group)
        return self.machines[self.machines.named(found["actors"]["conductor"]["host"])]

    def start_words(self, machine: Machine) -> list[str]:
        """The command that joins a host to Ray again after a boot, for `subprocess`; see docs/operators.md."""
        config = yaml.safe_load(self._cluster_yaml())
        if machine.name == HEAD:
            command = config["head_start_ray_commands"][-1]
        else:
            command = config["worker_start_ray_commands"][-1]
        return machine.inside("bash", "-l", "-c", command, RAY_HEAD_IP=self.machines.address(HEAD))

    def _operate(self, *words: str) -> None:
        """A command of the operator, in the folder of the sources."""
        self.machines[OPERATOR].run("sh", "-c", f'cd {SOURCES} && exec "$@"', "sh", *words, timeout_s=RAY_S_MAX)

    def _cluster_yaml(self) -> str:
        """The real file with these hosts' addresses, and nothing to install: they see this repository."""
        address = self.machines.address
        config = yaml.safe_load(CLUSTER_FILE.read_text().replace(EDGE_IN_THE_FILE, address(EDGE)))
        workers = [address(name) for name in (*SEQUENCERS, EDGE)]
        config["provider"] = {**config["provider"], "head_ip": address(HEAD), "worker_ips": workers}
        config["auth"] = {"ssh_user": "root", "ssh_private_key": "~/.ssh/id_ed25519"}
        config["min_workers"] = config["max_workers"] = len(workers)
        for words in ("setup_commands", "head_setup_commands", "worker_setup_commands", "initialization_commands"):
            config[words] = []
        return str(yaml.safe_dump(config, sort_keys=False))


@contextmanager
def deployed(*options: str, seed: int = 1) -> Iterator[Deployment]:
    """The whole system up, and everything gone after; raises MachineError when something is left on a host."""
    with Machines(HOSTS, seed) as machines:
        deployment = Deployment(machines)
        deployment.ray_up()
        deployment.up(*options)
        yield deployment
        machines.network.heal()
        deployment.down()
        left = [f"{machine.name}: {path}" for machine in machines for path in own_files(machine) if machine.is_up]
        deployment.ray_down()
        left += [f"{machine.name}: {line}" for machine in machines if machine.is_up for line in ray_processes(machine)]
        FIGURES.append(", ".join(f"{step} {took_s:.0f} s" for step, took_s in deployment.took_s.items()))
        if left:
            raise MachineError("left behind:\n" + "\n".join(left))


def own_files(machine: Machine) -> list[str]:
    """What a host has in our run directory."""
    root = machine.file(RUN_DIRECTORY).parent
    return [str(path.relative_to(root)) for path in root.rglob("*")] if root.exists() else []


def ray_processes(machine: Machine) -> list[str]:
    """The processes of Ray on a host."""
    said = machine.run("ps", "-e", "-o", "pid=,args=").stdout.splitlines()
    return [line[:100] for line in said if "/ray/" in line or "ray::" in line]
