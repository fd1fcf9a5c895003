"""The network between the hosts as a test sees it: plug hosts in, cut, slow and heal; see `switch_process`."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

import msgspec

from tests.hosts.switch import Condition, Direction
from tests.hosts.switch_process import (
    ORDER_BYTES_MAX,
    Answer,
    Conditions,
    Counts,
    Link,
    Order,
    Plug,
    Unplug,
)

REPOSITORY = Path(__file__).resolve().parents[2]
ANSWER_S_MAX = 10.0
END_S_MAX = 5.0


class NetworkError(RuntimeError):
    """The switch could not carry out an order; says which."""


class Network:
    """One switch process and the conditions it holds; a context manager, because it must be ended."""

    def __init__(self, seed: int = 1) -> None:
        self.hosts: list[str] = []
        """Everybody ever plugged in, by name, the outside too."""
        self._conditions: dict[Direction, Condition] = {}
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control = ours
        self._control.settimeout(ANSWER_S_MAX)
        with theirs:
            # its own session: a Ctrl-C is for the test, which ends the switch after the hosts
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.hosts.switch_process", str(theirs.fileno()), str(seed)],
                pass_fds=[theirs.fileno()],
                cwd=REPOSITORY,
                start_new_session=True,
            )

    def __enter__(self) -> Network:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the switch; its devices vanish with it."""
        self._control.close()
        try:
            self._process.wait(END_S_MAX)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()

    def plug(self, host: str, device: str, pid: int | None, address: str) -> None:
        """Give a host its end of a wire: `eth0` in the network namespace of `pid`, else `device` in ours."""
        self._order(Plug(host, device))
        name = device
        if pid is not None:
            _ip("link", "set", "dev", device, "netns", str(pid))
            name = "eth0"
            _ip("link", "set", "dev", device, "name", name, pid=pid)
        # its own for ever: the others remember it across a boot, as they do a real machine's
        _ip("link", "set", "dev", name, "address", _hardware_address(address), pid=pid)
        _ip("address", "add", address, "dev", name, pid=pid)
        _ip("link", "set", "dev", name, "up", pid=pid)
        if host not in self.hosts:
            self.hosts.append(host)

    def unplug(self, host: str) -> None:
        """Take a host off the network, device and all; conditions on it stay for when it is back."""
        self._order(Unplug(host))

    def cut(self, hosts: Collection[str], others: Collection[str] | None = None, *, both: bool = True) -> None:
        """Let nothing pass from `hosts` to `others` (default: everybody else), nor back when `both`."""
        self._condition(hosts, others, both, cut=True)

    def slow(
        self,
        hosts: Collection[str],
        others: Collection[str] | None = None,
        *,
        delay_s: float,
        loss: float = 0.0,
        both: bool = True,
    ) -> None:
        """Delay frames between two sets of hosts by `delay_s` one way and lose a part of them."""
        self._condition(hosts, others, both, delay_s=delay_s, loss=loss)

    def slow_everywhere(self, delay_s: float, loss: float = 0.0) -> None:
        """Delay and lose between every two hosts."""
        for host in self.hosts:
            self._condition([host], None, False, delay_s=delay_s, loss=loss)

    def heal(self) -> None:
        """Remove every condition."""
        self._conditions = {}
        self._send_conditions()

    def counts(self) -> dict[str, float]:
        """How many frames passed, were cut, lost, …; `cpu_s` is what the switch has used."""
        return self._order(Counts())

    def _condition(
        self, hosts: Collection[str], others: Collection[str] | None, both: bool, **changes: float | bool
    ) -> None:
        for name in [*hosts, *(others or ())]:
            if name not in self.hosts:
                raise NetworkError(f"no host {name!r} is plugged in; there are {', '.join(self.hosts)}")
        far = others if others is not None else [name for name in self.hosts if name not in hosts]
        directions = [(near, other) for near in hosts for other in far if near != other]
        if both:
            directions += [(other, near) for near, other in directions]
        for direction in directions:
            now = self._conditions.get(direction, Condition())
            self._conditions[direction] = msgspec.structs.replace(now, **changes)
        self._send_conditions()

    def _send_conditions(self) -> None:
        links = tuple(Link(source, to, each) for (source, to), each in self._conditions.items())
        self._order(Conditions(links))

    def _order(self, order: Order) -> dict[str, float]:
        self._control.send(msgspec.json.encode(order))
        message = self._control.recv(ORDER_BYTES_MAX)
        if not message:
            raise NetworkError(f"the switch has ended, status {self._process.poll()}")
        answer = msgspec.json.decode(message, type=Answer)
        if answer.error:
            raise NetworkError(f"{order}: {answer.error}")
        return answer.counts


def _ip(*words: str, pid: int | None = None) -> None:
    inside = [] if pid is None else ["nsenter", "--target", str(pid), "--net"]
    done = subprocess.run([*inside, "ip", *words], capture_output=True, text=True, check=False, timeout=ANSWER_S_MAX)
    if done.returncode:
        raise NetworkError(f"ip {' '.join(words)}: {done.stderr.strip()}")


def _hardware_address(address: str) -> str:
    octets = [int(part) for part in address.partition("/")[0].split(".")]
    return ":".join(f"{byte:02x}" for byte in (0x02, 0xFB, *octets))


def free_subnet() -> str:
    """The first of 10.77.0 to 10.77.15 that this machine has no address in; raises NetworkError when all are taken."""
    taken = subprocess.run(["ip", "-o", "-4", "address"], capture_output=True, text=True, check=True).stdout
    for third in range(16):
        if f" 10.77.{third}." not in taken:
            return f"10.77.{third}"
    raise NetworkError("10.77.0.0/24 to 10.77.15.0/24 are all in use on this machine")
