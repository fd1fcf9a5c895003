"""One TCP connection between two members: a non-blocking socket around a `Channel`, driven by the Raft thread."""

from __future__ import annotations

import errno
import socket
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from raft.channel import Channel, ChannelError

READ: Final = 1
WRITE: Final = 2
ERROR: Final = 4
"""Event bits of the poller."""

READ_BYTES_MAX: Final = 4 * 1024 * 1024
"""Most bytes taken from one link before another one gets its turn."""
JOIN_BYTES_MAX: Final = 256 * 1024
"""Smaller frames are sent with their length in one call."""
KEEPALIVE: Final = b""
"""The empty message: it only says that the sender lives."""

_WOULD_BLOCK: Final = (errno.EAGAIN, errno.EWOULDBLOCK, errno.EINPROGRESS)


class Poller(Protocol):
    """What a link needs of the consensus library's poller: callbacks by file descriptor."""

    def subscribe(self, descr: int, callback: Callable[[int, int], None], eventMask: int) -> None:
        """Watch `descr` for the events of the mask; replaces an earlier subscription."""

    def unsubscribe(self, descr: int) -> None:
        """Stop watching `descr`."""


class Link:
    """A connection that is connecting, shaking hands, or open. It reports every message and, once, its end.

    `on_end(link, peer_closed)`: `peer_closed` is True if the other side closed or reset an established
    connection (its process most likely died), False for anything that this side decided.
    """

    def __init__(
        self,
        poller: Poller,
        sock: socket.socket,
        channel: Channel,
        on_message: Callable[[Link, bytes], None],
        on_end: Callable[[Link, bool], None],
        *,
        now: float,
        connecting: bool,
        backlog_bytes_max: int,
    ) -> None:
        self._poller = poller
        self._socket: socket.socket | None = sock
        self._descriptor = sock.fileno()
        self._channel = channel
        self._on_message = on_message
        self._on_end = on_end
        self._connecting = connecting
        self._backlog_bytes_max = backlog_bytes_max
        self._backlog: deque[memoryview] = deque()
        self._waiting_for_keys: list[bytes] = []
        self.backlog_bytes = 0
        self.opened_at = now
        self.received_at = now
        self.sent_at = now
        self.peer: str | None = None
        """The member at the other end, once it introduced itself."""
        self.failure = ""
        if connecting:
            poller.subscribe(self._descriptor, self._on_ready, READ | WRITE | ERROR)
        else:
            poller.subscribe(self._descriptor, self._on_ready, READ | ERROR)
            self._write(channel.hello())

    @property
    def alive(self) -> bool:
        """Whether the socket is still open."""
        return self._socket is not None

    def send(self, message: bytes, now: float) -> None:
        """Seal and send, or keep for later what the socket does not take now."""
        if self._socket is None:
            return
        self.sent_at = now
        if not self._channel.keyed:
            self._waiting_for_keys.append(message)
            return
        length, sealed = self._channel.seal(message)
        if len(sealed) < JOIN_BYTES_MAX:
            self._write(length + sealed)
        else:
            self._write(length, sealed)

    def end(self, failure: str, peer_closed: bool = False) -> None:
        """Close the socket and report it; nothing happens the second time."""
        if self._socket is None:
            return
        self._poller.unsubscribe(self._descriptor)
        self._socket.close()
        self._socket = None
        self._backlog.clear()
        self.backlog_bytes = 0
        self.failure = failure
        self._on_end(self, peer_closed)

    def _write(self, *buffers: bytes) -> None:
        for buffer in buffers:
            self._backlog.append(memoryview(buffer))
            self.backlog_bytes += len(buffer)
        if self.backlog_bytes > self._backlog_bytes_max:
            self.end(f"{self.backlog_bytes} bytes unsent, at most {self._backlog_bytes_max} allowed")
            return
        if not self._connecting:
            self._flush()

    def _flush(self) -> None:
        waited = bool(self._backlog) and self._socket is not None
        while self._backlog and self._socket is not None:
            try:
                sent = self._socket.send(self._backlog[0])
            except OSError as error:
                if error.errno not in _WOULD_BLOCK:
                    self.end(f"cannot send: {error.strerror}", peer_closed=True)
                break
            self.backlog_bytes -= sent
            if sent == len(self._backlog[0]):
                self._backlog.popleft()
            else:
                self._backlog[0] = self._backlog[0][sent:]
        if waited and self._socket is not None:
            mask = READ | ERROR | (WRITE if self._backlog else 0)
            self._poller.subscribe(self._descriptor, self._on_ready, mask)

    def _on_ready(self, _descriptor: int, events: int) -> None:
        if self._socket is None:
            return
        if self._connecting and not self._connected():
            return
        if events & WRITE:
            self._flush()
        if events & (READ | ERROR):
            self._receive()

    def _connected(self) -> bool:
        assert self._socket is not None
        code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self.end(f"cannot connect: {errno.errorcode.get(code, code)}")
            return False
        self._connecting = False
        self._write(self._channel.hello())
        return self._socket is not None

    def _receive(self) -> None:
        taken = 0
        while self._socket is not None and taken < READ_BYTES_MAX:
            space = self._channel.space()
            try:
                count = self._socket.recv_into(space)
            except OSError as error:
                if error.errno not in _WOULD_BLOCK:
                    self.end(f"cannot receive: {error.strerror}", peer_closed=True)
                return
            if count == 0:
                self.end("closed by the peer", peer_closed=True)
                return
            taken += count
            self._deliver(count)
            if count < len(space):
                return

    def _deliver(self, count: int) -> None:
        try:
            messages = self._channel.advance(count)
        except ChannelError as error:
            self.end(str(error))
            return
        if self._waiting_for_keys and self._channel.keyed:
            waiting, self._waiting_for_keys = self._waiting_for_keys, []
            for message in waiting:
                self.send(message, self.sent_at)
        for message in messages:
            if self._socket is not None:
                self._on_message(self, message)
