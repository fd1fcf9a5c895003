"""One host of a cluster on many hosts: its files, the notes of its actors, its processes.

A Ray actor without a component, pinned to its host.  The keeper delivers through it what the host needs – genesis,
secrets, the order – and learns from it what runs there.  The order lies beside the chain too, so a host that was booted
has everything it needs without asking anybody.  It decides nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import signal
import stat
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from actors.data_directory import CHAIN_FILE, write_private
from actors.endpoints import ENDPOINTS_FILE
from actors.free_ports import is_free
from actors.host_book import HostReport
from actors.join_order import ORDER_FILE, JoinOrder, newest
from actors.plan import GENESIS_FILE, JWT_FILE, LOG_DIRECTORY, RAFT_PASSWORD_FILE
from actors.reaper import remove_path
from actors.run_directory import RunState
from actors.shell import read_note

DATA_FILES = (GENESIS_FILE, CHAIN_FILE, JWT_FILE, RAFT_PASSWORD_FILE)
STATE_FILE = "state.json"
RUN_FILES = (ORDER_FILE, STATE_FILE, ENDPOINTS_FILE)
NOTES_DIRECTORY = "notes"
DELIVERED_PREFIX = "delivered-"
NOTES_POLL_S = 0.1
PRIVATE_DIRECTORY_MODE = 0o700


class HostAgent:
    """The agent of one host; made a Ray actor by `actors.joined_cluster`."""

    def __init__(self, run_dir: str, data_dir: str, marker: str) -> None:
        self._run_dir = Path(run_dir)
        self._data_dir = Path(data_dir)
        self._marker = marker
        self._order: JoinOrder | None = self._read_order()
        self._restore()

    def prepare(self) -> str:
        """Make room for this run of the cluster; returns why that cannot be, or nothing.

        What an earlier run of that name left is removed; the data of one with a data directory of its own stay.
        """
        try:
            state = self._read_state()
            if state is not None and not state.ray_address and state.marker != self._marker:
                return f"a cluster named {state.name!r} runs on this host by itself; end it there: flashblocks down"
            if state is not None and state.marker != self._marker:
                remove_path(str(self._run_dir))
            own = (self._run_dir.parent, self._run_dir, self._run_dir / NOTES_DIRECTORY, self._data_dir)
            for path in own:
                path.mkdir(parents=True, exist_ok=True)
                if path.lstat().st_uid != os.getuid() or not stat.S_ISDIR(path.lstat().st_mode):
                    return f"{path} must be a directory of user {os.getuid()}"
                path.chmod(PRIVATE_DIRECTORY_MODE)  # a log may have been here first, and have made it readable
            (self._data_dir / LOG_DIRECTORY).mkdir(exist_ok=True)
        except OSError as error:
            return str(error)
        return ""

    def fetch(self) -> dict[str, bytes]:
        """What the host has of the files every host needs, by name."""
        found = {}
        for name in DATA_FILES:
            try:
                found[name] = (self._data_dir / name).read_bytes()
            except OSError:
                continue
        if self._order is not None:
            found[ORDER_FILE] = msgspec.json.encode(self._order)
        return found

    def deliver(self, files: Mapping[str, bytes]) -> None:
        """Write the files, readable by their owner only, and say that they are there.

        Raises `RuntimeError` where that cannot be; a chain that lies here is never replaced by another one.
        """
        reason = self.prepare() or self._other_chain(files)
        if reason:
            raise RuntimeError(reason)
        for name, content in files.items():
            write_private((self._run_dir if name in RUN_FILES else self._data_dir) / name, content)
        if ORDER_FILE in files:
            # A boot empties /tmp: whoever has the chain shall know what to run, even when no other host comes back.
            write_private(self._data_dir / ORDER_FILE, files[ORDER_FILE])
            self._order = self._read_order()
        self._delivered.touch()

    def write_endpoints(self, content: bytes) -> None:
        """The newest ``endpoints.json``, so that commands work on every host of the cluster."""
        write_private(self._run_dir / ENDPOINTS_FILE, content)

    def busy(self, addresses: Sequence[tuple[str, int]]) -> list[str]:
        """Those of *addresses* on which nobody can listen any more."""
        return [f"{host}:{port}" for host, port in addresses if not is_free(host, port)]

    async def look(self, known: str, patience_s: float) -> tuple[str, bytes]:
        """The digest and the `HostReport` (JSON) as soon as it differs from *known*; at the latest after a while."""
        deadline = time.monotonic() + patience_s
        while True:
            report = self._report()
            digest = digest_of(report)
            if digest != known or time.monotonic() >= deadline:
                return digest, msgspec.json.encode(report)
            await asyncio.sleep(NOTES_POLL_S)

    def send_signal(self, pid: int, number: int) -> bool:
        """Send a signal to the process of one of our actors; False when *pid* is none of them (any more)."""
        if pid not in {found for found, _ in self._report().actors.values()}:
            return False
        os.kill(pid, signal.Signals(number))
        return True

    def remove(self) -> None:
        """Remove everything of this run; data in a directory of their own, and its logs, stay."""
        state = self._read_state()
        if state is not None and state.marker == self._marker:
            if not state.temporary_data:
                for name in (ENDPOINTS_FILE, ORDER_FILE):
                    (self._data_dir / name).unlink(missing_ok=True)
            remove_path(str(self._run_dir))
            self._order = None

    @property
    def _delivered(self) -> Path:
        return self._run_dir / delivered_name(self._marker)

    def _report(self) -> HostReport:
        actors = {}
        for path in sorted((self._run_dir / NOTES_DIRECTORY).glob("[!.]*")):
            note = read_note(path)
            if note is not None:
                pid, serving = note
                alive = is_alive(pid)
                actors[path.name] = (pid if alive else 0, serving and alive)
        return HostReport(
            agent_pid=os.getpid(),
            delivered=self._delivered.exists(),
            order_version=self._order.version if self._order is not None else 0,
            actors=actors,
        )

    def _other_chain(self, files: Mapping[str, bytes]) -> str:
        for name in (GENESIS_FILE, CHAIN_FILE):
            path = self._data_dir / name
            if name in files and path.exists() and path.read_bytes() != files[name]:
                return f"{path} is of another chain"
        return ""

    def _restore(self) -> None:
        """After a boot: the run directory again, out of what lies beside the chain; nothing where that is not whole.

        So the groups of a host go on when its agent does, be the keeper's own host back or not.
        """
        order = self._order
        with contextlib.suppress(OSError, RuntimeError):  # then the keeper delivers, and says what is wrong
            is_whole = all((self._data_dir / name).exists() for name in (GENESIS_FILE, CHAIN_FILE, JWT_FILE))
            if order is not None and is_whole and not self._delivered.exists():
                self.deliver({ORDER_FILE: msgspec.json.encode(order), STATE_FILE: msgspec.json.encode(order.state())})

    def _read_order(self) -> JoinOrder | None:
        """The newest version of the order of this run that this host holds."""
        found = []
        for directory in (self._run_dir, self._data_dir):
            try:
                found.append(msgspec.json.decode((directory / ORDER_FILE).read_bytes(), type=JoinOrder))
            except (OSError, msgspec.DecodeError):
                continue
        return newest(found, self._marker)

    def _read_state(self) -> RunState | None:
        try:
            return msgspec.json.decode((self._run_dir / STATE_FILE).read_bytes(), type=RunState)
        except (OSError, msgspec.DecodeError):
            return None


def digest_of(report: HostReport) -> str:
    """Changes with whatever is reported."""
    return hashlib.sha256(msgspec.json.encode(report, order="sorted")).hexdigest()


def delivered_name(marker: str) -> str:
    """The file in the run directory for which the actors of a host wait."""
    return DELIVERED_PREFIX + marker


def is_alive(pid: int) -> bool:
    """Whether *pid* is a process that has not ended; a zombie has."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except OSError:
        return False
