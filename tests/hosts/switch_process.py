"""The switch as a process: a TAP device per port, the rules of `switch` between them, orders from the tests.

Run by `network.Network` as `python -m tests.hosts.switch_process CONTROL_FD SEED`. Orders and answers are JSON, one per
message of the socket. When the other end is closed the process ends, and with it every device it made.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import socket
import struct
import sys
import time
from random import Random

import msgspec

from tests.hosts.switch import Condition, Delivery, Switch

TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI = 0x0002, 0x1000
FRAME_BYTES_MAX = 1_600  # MTU 1500, Ethernet header, room for a VLAN tag
FRAMES_PER_TURN_MAX = 64  # of one port, so that a busy one does not starve the others
ORDER_BYTES_MAX = 64 * 1024
IDLE_S = 1.0
REALTIME_PRIORITY = 1
GONE = (errno.EBADF, errno.EBADFD, errno.ENODEV)  # the host was killed, and its network namespace went with it


class Link(msgspec.Struct, frozen=True):
    """One direction and what holds there."""

    source: str
    to: str
    condition: Condition


class Plug(msgspec.Struct, frozen=True, tag="plug"):
    """Make a TAP device `device` for a port; it appears in this process's network namespace."""

    port: str
    device: str


class Unplug(msgspec.Struct, frozen=True, tag="unplug"):
    """Remove a port and its device."""

    port: str


class Conditions(msgspec.Struct, frozen=True, tag="conditions"):
    """Replace all conditions."""

    links: tuple[Link, ...]


class Counts(msgspec.Struct, frozen=True, tag="counts"):
    """Ask how many frames passed, were cut, lost, or found no room, and how much CPU that took."""


class Answer(msgspec.Struct, frozen=True):
    """What the process says to an order: counts, or why it failed."""

    counts: dict[str, float]
    error: str = ""


Order = Plug | Unplug | Conditions | Counts


class SwitchProcess:
    """The shell around one `Switch`: reads devices, writes devices, obeys orders."""

    def __init__(self, control: socket.socket, switch: Switch) -> None:
        self._control = control
        self._switch = switch
        self._devices: dict[str, int] = {}  # port to file descriptor
        self._ports: dict[int, str] = {}
        self._decoder = msgspec.json.Decoder(Order)

    def run(self) -> None:
        """Carry frames until the tests hang up."""
        while True:
            due = self._switch.next_due()
            wait_s = IDLE_S if due is None else max(0.0, due - time.monotonic())
            # select and not poll or epoll: their time-outs are whole milliseconds
            ready, _, _ = select.select([self._control.fileno(), *self._ports], [], [], wait_s)
            self._deliver(self._switch.due(time.monotonic()))
            for each in ready:
                if each != self._control.fileno():
                    self._carry(each)
                elif not self._obey():
                    return

    def _carry(self, device: int) -> None:
        port = self._ports.get(device)
        for _ in range(FRAMES_PER_TURN_MAX):
            if port is None:
                return
            try:
                frame = os.read(device, FRAME_BYTES_MAX)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno not in GONE:
                    raise
                self._unplug(port)
                return
            self._deliver(self._switch.arrived(port, frame, time.monotonic()))

    def _deliver(self, deliveries: list[Delivery]) -> None:
        for to, frame in deliveries:
            try:
                os.write(self._devices[to], frame)
            except OSError:  # not up yet, its queue full, or gone: a wire loses such a frame too
                self._switch.counts["refused"] += 1

    def _obey(self) -> bool:
        message = self._control.recv(ORDER_BYTES_MAX)
        if not message:
            return False
        try:
            answer = self._carried_out(self._decoder.decode(message))
        except OSError as error:
            answer = Answer({}, str(error))
        self._control.send(msgspec.json.encode(answer))
        return True

    def _carried_out(self, order: Order) -> Answer:
        if isinstance(order, Plug):
            self._plug(order)
        elif isinstance(order, Unplug):
            self._unplug(order.port)
        elif isinstance(order, Conditions):
            self._switch.set_conditions({(link.source, link.to): link.condition for link in order.links})
        return Answer({**self._switch.counts, "cpu_s": time.process_time()})

    def _plug(self, order: Plug) -> None:
        self._unplug(order.port)
        device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        try:
            fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", order.device.encode(), IFF_TAP | IFF_NO_PI))
        except OSError:
            os.close(device)
            raise
        self._devices[order.port] = device
        self._ports[device] = order.port
        self._switch.plug(order.port)

    def _unplug(self, port: str) -> None:
        device = self._devices.pop(port, None)
        if device is not None:
            del self._ports[device]
            os.close(device)
        self._switch.unplug(port)


def main() -> None:
    """Serve the control socket whose number and the seed are the arguments."""
    try:  # the machine is full of the hosts' processes; the wire between them must not wait for a turn
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(REALTIME_PRIORITY))
    except PermissionError:
        os.setpriority(os.PRIO_PROCESS, 0, -15)
    with socket.socket(fileno=int(sys.argv[1])) as control:
        SwitchProcess(control, Switch(Random(int(sys.argv[2])))).run()


if __name__ == "__main__":
    main()
