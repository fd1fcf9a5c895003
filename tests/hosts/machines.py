"""Several hosts on one machine, joined by a switch of ours: `with Machines([...]) as machines:` and all is gone after.

Needs root, iproute2, OpenSSH's server and client, util-linux, and /dev/net/tun. `missing()` says what is not there.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.hosts.machine import Machine, generate_key
from tests.hosts.network import Network, free_subnet

PREFIX = "fbh-"
ROOT = Path("/tmp")  # short: Ray's socket paths end at 107 bytes
OUTSIDE = "outside"
OUTSIDE_NUMBER, FIRST_NUMBER = 1, 11
NEEDED = ("ip", "setpriv", "unshare", "nsenter", "mount", "ssh", "ssh-keygen", "/usr/sbin/sshd")
KEEP = "FLASHBLOCKS_HOSTS_KEEP"  # a folder to copy the hosts' logs to before they are removed


def missing() -> str | None:
    """Why hosts cannot be made here, None when they can."""
    if os.geteuid() != 0:
        return "hosts need root, for network namespaces"
    lacking = [name for name in NEEDED if shutil.which(name) is None]
    if lacking:
        return f"hosts need {', '.join(lacking)} (Debian: iproute2, openssh-server, openssh-client, util-linux)"
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return "hosts need /dev/net/tun"
    tried = subprocess.run(
        ["unshare", "--net", "--pid", "--mount", "--uts", "--ipc", "--fork", "true"], capture_output=True, check=False
    )
    return None if tried.returncode == 0 else f"hosts need namespaces: {tried.stderr.decode().strip()}"


class Machines:
    """The hosts by name and the network between them; `outside` on the network is this process."""

    def __init__(self, names: Sequence[str], seed: int = 1) -> None:
        self.names = list(names)
        self.network: Network
        self.outside_address = ""
        self._seed = seed
        self._machines: dict[str, Machine] = {}
        self._root = Path()
        self._stack = ExitStack()

    def __getitem__(self, name: str) -> Machine:
        return self._machines[name]

    def __iter__(self) -> Iterator[Machine]:
        return iter(self._machines.values())

    @property
    def key(self) -> Path:
        """The private key that every host lets in as root."""
        return self._root / "id_ed25519"

    def __enter__(self) -> Machines:
        _sweep()
        with ExitStack() as stack:
            self._root = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=ROOT))
            stack.callback(shutil.rmtree, self._root)
            stack.callback(self._keep_logs)
            generate_key(self.key)
            self.network = stack.enter_context(Network(self._seed))
            subnet = free_subnet()
            self.outside_address = f"{subnet}.{OUTSIDE_NUMBER}"
            device = "fb" + self._root.name.rpartition("-")[2]  # ten characters no other run has; fifteen are allowed
            self.network.plug(OUTSIDE, f"{device}{OUTSIDE_NUMBER}", None, f"{self.outside_address}/24")
            addresses = {name: f"{subnet}.{FIRST_NUMBER + place}" for place, name in enumerate(self.names)}
            for place, name in enumerate(self.names):
                port = f"{device}{FIRST_NUMBER + place}"
                machine = Machine(name, addresses[name], port, self._root / name, self.network)
                self._machines[name] = machine
                machine.prepare(self.key, addresses)
                stack.callback(machine.kill)
                machine.boot()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def address(self, name: str) -> str:
        """The address of a host."""
        return self._machines[name].address

    def named(self, address: str) -> str:
        """The host at an address; raises KeyError when there is none."""
        return {machine.address: name for name, machine in self._machines.items()}[address]

    def _keep_logs(self) -> None:
        folder = os.environ.get(KEEP)
        if not folder:
            return
        for machine in self._machines.values():
            for path in machine.private.rglob("*"):
                if (
                    path.is_file()
                    and not path.is_symlink()
                    and path.suffix in (".log", ".jsonl", ".out", ".err", ".json")
                ):
                    target = Path(folder) / machine.name / path.relative_to(machine.private)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(path, target)


def _sweep() -> None:
    """Remove the folders of runs that were killed; their processes, devices and mounts went with them."""
    for path in ROOT.glob(f"{PREFIX}*"):
        made_by = re.fullmatch(rf"{PREFIX}(\d+)-.*", path.name)
        if made_by and not Path(f"/proc/{made_by[1]}").exists():
            shutil.rmtree(path, ignore_errors=True)
