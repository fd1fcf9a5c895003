"""Network faults between groups on one machine: the kernel drops packets of exactly the connections that are to be cut.

Every group is five processes on loopback. Which connections lead from one side to the other is read from the kernel's
own tables; nftables drops what they carry, in both directions or in one, without a reset – as a broken switch does. New
Raft connections are not let through while the cut lasts, and other new ones are found and cut every 100 ms. It needs
root and `nft`; rules live in a table named after this process and go with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import orjson

from chaos.faults import ACTORS, HANG_S, Fault, Victim, all_back, victims
from chaos.history import Event
from chaos.target import DrillError, Target

TABLE = "flashblocks_drill"
ORDER_FILE = "options.json"
NFT_S_MAX = 10.0
LOOK_AGAIN_S = 0.1
ESTABLISHED = 0x01
BOTH, INTO, OUT_OF = "partition", "deaf", "mute"


class Socket(msgspec.Struct, frozen=True):
    """One line of /proc/net/tcp."""

    local_port: int
    remote_port: int
    state: int
    inode: int


def parse_sockets(text: str) -> list[Socket]:
    """The sockets of a /proc/net/tcp."""
    found = []
    for line in text.splitlines()[1:]:
        fields = line.split()
        ports = [int(address.rpartition(":")[2], 16) for address in fields[1:3]]
        found.append(Socket(ports[0], ports[1], int(fields[3], 16), int(fields[9])))
    return found


def crossing(left: Iterable[Socket], right: Iterable[Socket]) -> set[tuple[int, int]]:
    """(left's port, right's port) of every open connection between the two."""
    ends = {(one.remote_port, one.local_port) for one in right if one.state == ESTABLISHED}
    mine = {(one.local_port, one.remote_port) for one in left if one.state == ESTABLISHED}
    return mine & ends


def packets(pairs: Iterable[tuple[int, int]], direction: str) -> set[tuple[int, int]]:
    """(source port, destination port) of what is to be dropped: left may be cut off, deaf or mute."""
    pairs = set(pairs)
    outgoing, incoming = pairs, {(right, left) for left, right in pairs}
    return {BOTH: outgoing | incoming, INTO: incoming, OUT_OF: outgoing}[direction]


def ruleset(table: str, raft_ports: Iterable[int], dropped: Iterable[tuple[int, int]]) -> str:
    """What `nft -f` is given for the beginning of a cut."""
    ports = ", ".join(str(port) for port in sorted(set(raft_ports)))
    lines = [
        f"table inet {table} {{",
        "  set cut { type inet_service . inet_service; }",
        "  chain input {",
        "    type filter hook input priority 0; policy accept;",
        "    tcp sport . tcp dport @cut drop",
    ]
    if ports:
        lines.append(f"    tcp dport {{ {ports} }} tcp flags & (syn | ack) == syn drop")
    lines += ["  }", "}"]
    return "\n".join([*lines, elements(table, dropped)]) + "\n"


def elements(table: str, dropped: Iterable[tuple[int, int]]) -> str:
    """The command that drops more; nothing for nothing."""
    listed = ", ".join(f"{source} . {destination}" for source, destination in sorted(set(dropped)))
    return f"add element inet {table} cut {{ {listed} }}" if listed else ""


class Cut(Fault):
    """Two sides that do not hear each other for `hold_s`; or the left side is deaf, or mute, towards the right."""

    def __init__(
        self,
        target: Target,
        left: Sequence[dict[str, Any]],
        right: Sequence[dict[str, Any]],
        direction: str = BOTH,
        hold_s: float = HANG_S,
    ) -> None:
        self.kind, self.hold_s = direction, hold_s
        self.victims: list[Victim] = victims(left, ["conductor"])
        self._target = target
        self._sides = [[one.pid for one in victims(side, ACTORS)] for side in (left, right)]
        self._groups = [*left, *right]
        self._table = f"{TABLE}_{os.getpid()}"
        self._dropped: set[tuple[int, int]] = set()
        self._looking: asyncio.Task[None] | None = None
        self._up = False

    async def inject(self) -> None:
        """Cut; raises DrillError when nft refuses."""
        remove_left_over()
        self._dropped = self._look()
        self._up = True
        nft(ruleset(self._table, raft_ports(self._target, self._groups), self._dropped))
        self._looking = asyncio.create_task(self._keep_looking())

    async def lift(self) -> None:
        """Heal."""
        if self._looking is not None:
            self._looking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._looking
        self.abandon()

    async def recovered(self, run: int) -> list[Event]:
        """Wait until the left side is level again."""
        return await all_back(self._target, dict.fromkeys(self.victims, 0), run)

    def abandon(self) -> None:
        """Remove the rules."""
        if self._looking is not None:
            self._looking.cancel()
        if self._up:
            self._up = False
            nft(f"delete table inet {self._table}\n")

    def _look(self) -> set[tuple[int, int]]:
        """What has to be dropped of the connections there are now."""
        by_inode = {one.inode: one for one in parse_sockets(Path("/proc/net/tcp").read_text())}
        left, right = ([by_inode[inode] for inode in inodes(pids) if inode in by_inode] for pids in self._sides)
        return packets(crossing(left, right), self.kind)

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(LOOK_AGAIN_S)
            fresh = await asyncio.to_thread(self._look) - self._dropped
            if fresh:
                await asyncio.to_thread(nft, elements(self._table, fresh) + "\n")
                self._dropped |= fresh


class Alone(Cut):
    """Every group hears nobody but itself."""

    def __init__(self, target: Target, groups: Sequence[dict[str, Any]], hold_s: float) -> None:
        super().__init__(target, groups, [], BOTH, hold_s)
        self._machines = [[one.pid for one in victims([group], ACTORS)] for group in groups]

    def _look(self) -> set[tuple[int, int]]:
        by_inode = {one.inode: one for one in parse_sockets(Path("/proc/net/tcp").read_text())}
        machines = [[by_inode[inode] for inode in inodes(pids) if inode in by_inode] for pids in self._machines]
        return {
            packet
            for place, left in enumerate(machines)
            for right in machines[place + 1 :]
            for packet in packets(crossing(left, right), BOTH)
        }


def raft_ports(target: Target, groups: Iterable[dict[str, Any]]) -> list[int]:
    """The port each conductor listens on for the others, from the order the cluster was started with."""
    wanted = {group["name"] for group in groups}
    try:
        order = orjson.loads((target.endpoints_path.parent / ORDER_FILE).read_bytes())
        return [
            int(plan["settings"]["raft_port"])
            for plan in order["plan"]
            if plan["component"] == "conductor" and plan["instance"] in wanted
        ]
    except (OSError, KeyError, ValueError) as error:
        raise DrillError(f"the Raft ports are not known: {error}") from None


def inodes(pids: Iterable[int]) -> set[int]:
    """The sockets that processes hold open; a process that is gone holds none."""
    found = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            for entry in os.scandir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    matched = re.fullmatch(r"socket:\[(\d+)\]", os.readlink(entry.path))
                    if matched is not None:
                        found.add(int(matched[1]))
    return found


def nft(commands: str) -> str:
    """Give nft its commands; raises DrillError with its own words."""
    try:
        done = subprocess.run(
            ["nft", "-f", "-"], input=commands, capture_output=True, text=True, timeout=NFT_S_MAX, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DrillError(f"nft: {error}") from None
    if done.returncode != 0:
        raise DrillError(f"nft: {done.stderr.strip()}")
    return done.stdout


def remove_left_over() -> None:
    """Remove the tables of drills that were killed."""
    listed = subprocess.run(
        ["nft", "list", "tables"], capture_output=True, text=True, timeout=NFT_S_MAX, check=False
    ).stdout
    for name, pid in re.findall(rf"table inet ({TABLE}_(\d+))", listed):
        if not Path(f"/proc/{pid}").exists():
            nft(f"delete table inet {name}\n")


def missing(target: Target) -> str | None:
    """Why no connection can be cut here; None when it can."""
    if os.geteuid() != 0 or shutil.which("nft") is None:
        return "it cuts connections with nftables: it needs root and the program nft (apt-get install nftables)"
    return None
