"""One host: its own network, processes, mounts, name and IPC, an sshd, a private HOME and private /tmp, /run, /dev/shm.

Everything else of this machine's disk is there to read and cannot be written, so no two hosts share a file by accident.
A host ends with its first process: killing that is pulling the plug. It ends by itself when the test's process dies.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

from tests.hosts.network import REPOSITORY, Network

HOME = "/root"  # sshd takes it from /etc/passwd
COVERED = (HOME, "/tmp", "/run", "/var/tmp")  # a host has its own
EMPTIED_BY_A_BOOT = ("/tmp", "/run", "/var/tmp")
SHOWN = (Path(sys.prefix), Path(sys.base_prefix), REPOSITORY)  # readable also where they lie below one of those
SHARED_MEMORY = "512m"
SSH_PORT = 22
BOOT_S_MAX = 30.0
COMMAND_S_MAX = 240.0
POLL_S = 0.02
SEARCH_PATH = f"{sys.prefix}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
STAND_INS = REPOSITORY / "tests" / "hosts" / "stand_ins"

SSHD_CONFIG = """
Port {port}
ListenAddress {address}
HostKey /run/sshd_host_key
PidFile none
PermitRootLogin prohibit-password
PasswordAuthentication no
UsePAM no
StrictModes no
AuthorizedKeysFile {home}/.ssh/authorized_keys
AcceptEnv LANG LC_*
SetEnv PATH={path}
Subsystem sftp internal-sftp
MaxStartups 100
MaxSessions 100
"""


class MachineError(RuntimeError):
    """A host did not start, or a command on it failed; carries what it printed."""


class Machine:
    """A host named `name` at `address` (10.77.x.y); `private` is the folder of what is its own."""

    def __init__(self, name: str, address: str, device: str, private: Path, network: Network) -> None:
        self.name, self.address = name, address
        self.private = private
        self._device = device
        self._network = network
        self._outer: subprocess.Popen[str] | None = None
        self._first_pid = 0

    @property
    def is_up(self) -> bool:
        """Whether its first process lives."""
        return self._outer is not None and self._outer.poll() is None

    def prepare(self, key: Path, names: dict[str, str]) -> None:
        """Lay out its disk: the operator's public key, its own host key, the names of all hosts."""
        for directory in COVERED:
            self._own(directory).mkdir(parents=True, exist_ok=True)
        ssh = self._own(HOME) / ".ssh"
        ssh.mkdir(mode=0o700)
        shutil.copy(key.with_suffix(".pub"), ssh / "authorized_keys")
        for file in (".profile", ".bashrc"):
            (self._own(HOME) / file).write_text(f"export PATH={SEARCH_PATH}{_stand_ins()}\n")
        generate_key(self.private / "sshd_host_key")
        lines = ["127.0.0.1 localhost", *(f"{address} {name}" for name, address in names.items())]
        (self.private / "hosts").write_text("\n".join(lines) + "\n")
        (self.private / "resolv.conf").write_text("")  # nobody to ask, so that no look-up waits

    def boot(self) -> None:
        """Start it and wait until its sshd answers; raises MachineError. What it had in HOME is still there."""
        for directory in EMPTIED_BY_A_BOOT:
            _empty(self._own(directory))
        self._write_boot_files()
        with (self.private / "console.log").open("a") as console:
            self._outer = subprocess.Popen(
                [
                    *("setpriv", "--pdeathsig", "KILL"),
                    *("unshare", "--net", "--pid", "--mount", "--uts", "--ipc", "--fork", "--kill-child=SIGKILL"),
                    *("sh", str(self.private / "boot.sh")),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=console,
                text=True,
                env={"PATH": SEARCH_PATH},
                start_new_session=True,
            )
        assert self._outer.stdin is not None and self._outer.stdout is not None
        told = self._outer.stdout.readline()
        if not told:
            raise MachineError(f"{self.name} did not start: {self.console()}")
        self._first_pid = int(told)
        self._network.plug(self.name, self._device, self._first_pid, f"{self.address}/24")
        self._outer.stdin.write("go\n")
        self._outer.stdin.flush()
        self._await_sshd()

    def kill(self) -> None:
        """Pull the plug: every process of the host is gone when this returns, and so are its network and mounts."""
        if self._outer is None:
            return
        if self._outer.poll() is None:
            os.kill(self._first_pid or self._outer.pid, signal.SIGKILL)
            try:
                self._outer.wait(BOOT_S_MAX)
            except subprocess.TimeoutExpired:
                self._outer.kill()
        for pipe in (self._outer.stdin, self._outer.stdout):
            if pipe is not None:
                _close(pipe)
        self._outer.wait()
        self._outer, self._first_pid = None, 0
        self._network.unplug(self.name)

    def run(
        self, *words: str, check: bool = True, timeout_s: float = COMMAND_S_MAX, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command there as root in HOME, not over the network; raises MachineError when it fails and `check`."""
        done = subprocess.run(
            self.inside(*words, **environment), capture_output=True, text=True, timeout=timeout_s, check=False
        )
        if check and done.returncode:
            raise MachineError(f"{self.name}: {' '.join(words)}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def inside(self, *words: str, **environment: str) -> list[str]:
        """The words that run a command there, for `subprocess`."""
        if not self.is_up:
            raise MachineError(f"{self.name} is down")
        variables = {
            "PATH": SEARCH_PATH + _stand_ins(),
            "HOME": HOME,
            "USER": "root",
            "SHELL": "/bin/bash",
            "LANG": "C.UTF-8",
            "TERM": "dumb",
            **environment,
        }
        return [
            *("nsenter", "--target", str(self._first_pid), "--net", "--pid", "--mount", "--uts", "--ipc"),
            *("env", "--ignore-environment", f"--chdir={HOME}"),
            *(f"{name}={text}" for name, text in variables.items()),
            *words,
        ]

    def file(self, path: str) -> Path:
        """Where a file of its HOME, /tmp, /run or /var/tmp lies for us; it need not exist."""
        for directory in COVERED:
            if path == directory or path.startswith(f"{directory}/"):
                return self._own(directory) / path[len(directory) + 1 :]
        raise MachineError(f"{path} is not {self.name}'s own")

    def console(self) -> str:
        """What its first process printed."""
        try:
            return (self.private / "console.log").read_text()
        except OSError:
            return ""

    def _own(self, directory: str) -> Path:
        return self.private / "disk" / directory.strip("/").replace("/", "-")

    def _write_boot_files(self) -> None:
        run = self._own("/run")
        (run / "sshd").mkdir(mode=0o755)
        shutil.copy(self.private / "sshd_host_key", run / "sshd_host_key")
        (run / "sshd_config").write_text(
            SSHD_CONFIG.format(port=SSH_PORT, address=self.address, home=HOME, path=SEARCH_PATH + _stand_ins())
        )
        (self.private / "boot.sh").write_text(self._boot_script())

    def _boot_script(self) -> str:
        """What its first process does before it becomes sshd."""
        lines = [
            "set -e",
            "mount --make-rprivate /",
            "read -r pid rest < /proc/self/stat",  # still the outer /proc: the pid as we see it
            "echo $pid",
            "read -r go",  # the wire is plugged in
            f"hostname {self.name}",
            "ip link set lo up",
            "mount -t tmpfs -o size=" + SHARED_MEMORY + " tmpfs /dev/shm",
            "mount -t devpts -o newinstance,ptmxmode=0666,mode=0620 devpts /dev/pts",
        ]
        lines += [f"mount --bind {self.private / name} /etc/{name}" for name in ("hosts", "resolv.conf")]
        for path in SHOWN:
            for directory in COVERED:
                if str(path).startswith(f"{directory}/"):
                    place = self._own(directory) / path.relative_to(directory)
                    place.mkdir(parents=True, exist_ok=True)
                    lines += [f"mount --bind {path} {place}", f"mount -o remount,bind,ro {place}"]
        order = sorted(COVERED, key=lambda directory: str(self.private).startswith(f"{directory}/"))
        lines += [f"mount --rbind {self._own(directory)} {directory}" for directory in order]  # the one we lie in last
        lines += ["mount -t proc proc /proc", "mount -o remount,bind,ro /"]  # what is mounted above stays writable
        lines += ["exec /usr/sbin/sshd -D -e -f /run/sshd_config < /dev/null"]
        return "\n".join(lines) + "\n"

    def _await_sshd(self) -> None:
        deadline = time.monotonic() + BOOT_S_MAX
        while True:
            try:
                with socket.create_connection((self.address, SSH_PORT), timeout=1.0) as connection:
                    if connection.recv(4) == b"SSH-":
                        return
            except OSError:
                pass
            if not self.is_up or time.monotonic() > deadline:
                raise MachineError(f"{self.name}'s sshd does not answer: {self.console()}")
            time.sleep(POLL_S)


def generate_key(path: Path) -> None:
    """Make an SSH key pair without a passphrase: `path` and `path`.pub."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "flashblocks-test", "-f", path], check=True)


def _stand_ins() -> str:
    """A folder for the search path with what `ray up` needs and this machine lacks; empty when it lacks nothing."""
    return "" if shutil.which("rsync") else f":{STAND_INS}"


def _empty(directory: Path) -> None:
    for path in directory.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _close(pipe: IO[str]) -> None:
    try:
        pipe.close()
    except BrokenPipeError:
        pass
