"""The transport under the consensus library: one authenticated link to every other member.

It offers the interface that PySyncObj expects of a transport (hence the camel case) and replaces the one it ships:
messages are MessagePack maps instead of pickles, links are sealed (`channel.py`), silent links are kept alive, and
a broken link is told apart from a silent one, which makes the election after a leader's death fast. Everything
here runs on the Raft thread.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import threading
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from typing import Any, Final, Protocol

import msgspec

from raft.channel import NONCE_BYTES, Channel
from raft.link import ERROR, KEEPALIVE, READ, Link, Poller
from raft.settings import RaftSettings, split_address

LISTEN_BACKLOG: Final = 64
STRANGERS_MAX: Final = 32
"""Accepted connections that have not introduced themselves yet; further ones are closed at once."""
GUESTS_MAX: Final = 8
"""Nodes that hold the secret and are no members by this node's log: it may not have heard yet that they are."""
DIAL_ANYWAY_S: Final = 1.0
"""The member whose turn it is to dial may not know of this one yet: after so long this one dials."""
KEEPALIVES_PER_TIMEOUT: Final = 4
UPKEEP_PERIOD_S: Final = 0.02
STALL_S: Final = 0.15
"""If upkeep comes this late, the silence of the others may be our own fault: nobody is judged this time."""

Message = dict[str, Any]


class Peer(Protocol):
    """A member as the consensus library knows it; its id is the member's name."""

    address: str
    """Where it listens: "host:port"."""

    @property
    def id(self) -> str:
        """The member's name."""


class Introduction(msgspec.Struct, frozen=True, array_like=True, tag="hi"):
    """First sealed message of either side: who speaks, to whom it believes to speak, and who it believes the members
    are, by which version of the membership."""

    node: str
    to: str
    members: list[str]
    version: int


_encode = msgspec.msgpack.Encoder().encode
_decode_message = msgspec.msgpack.Decoder(Message).decode
_decode_introduction = msgspec.msgpack.Decoder(Introduction).decode


class Transport:
    """Links to all other members. Of two members, the one whose name sorts later connects, the other one listens.

    A node that is not a member by our log is let in as a guest: members may have changed without our having heard of
    it, and an election may need our vote all the same (Raft dissertation, section 4.1).
    """

    ready = True

    def __init__(self, settings: RaftSettings, poller: Poller, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._poller = poller
        self._clock = clock
        self._self_id = settings.node_id
        self._context = cluster_context(settings)
        self._peers: dict[str, Peer] = {}
        self._links: dict[str, Link] = {}
        self._dialling: dict[str, Link] = {}
        self._strangers: set[Link] = set()
        self._guests: dict[str, Peer] = {}
        self._missing_since: dict[str, float] = {}
        self._members: list[str] = sorted(settings.peers)
        self._version = 1
        self._dialled_at: dict[str, float] = {}
        self._addresses: dict[str, tuple[int, Any]] = {}
        self._resolving: set[str] = set()
        self._listener: socket.socket | None = None
        self._upkeep_at = 0.0
        self._encoded: tuple[object, bytes] = (None, b"")
        self._message_callback: Callable[[Peer, Message], None] | None = None
        self._connected_callback: Callable[[Peer], None] | None = None
        self._disconnected_callback: Callable[[Peer], None] | None = None
        self.on_peer_death: Callable[[Peer], None] | None = None
        """Called after the disconnected callback if the peer's side ended the connection."""
        self.make_guest: Callable[[str], Peer] | None = None
        """How a node that is no member looks to the library; without it there are no guests."""
        self.rejected = 0
        """Connections ended because the other side was no authenticated member."""

    def introduce_as(self, members: list[str], version: int) -> None:
        """Tell new links who the members are, in order, and by which version of the membership."""
        self._members, self._version = members, version

    def listen(self) -> None:
        """Bind and listen; raises OSError. Called once, before the Raft thread starts."""
        own = self._settings.listen or self._settings.peers[self._self_id]
        family, address = resolve(own, of=self._self_id)
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._tune(listener)
            listener.setblocking(False)
            listener.bind(address)
            listener.listen(LISTEN_BACKLOG)
        except OSError:
            listener.close()
            raise
        self._listener = listener
        self._poller.subscribe(listener.fileno(), self._on_accept, READ | ERROR)

    @property
    def port(self) -> int:
        """The port listened on."""
        assert self._listener is not None
        return int(self._listener.getsockname()[1])

    def connected(self) -> set[str]:
        """Names of the members with an open, authenticated link."""
        return set(self._links)

    def backlog_bytes(self, node: str) -> int:
        """Bytes not yet taken by the socket towards `node`; 0 where there is no link."""
        link = self._links.get(node)
        return link.backlog_bytes if link is not None else 0

    def send(self, node: Peer, message: Message) -> bool:
        """Send one message; False if there is no open link. Arrival is not promised."""
        link = self._links.get(node.id)
        if link is None:
            return False
        link.send(self._encode(message), self._clock())
        return link.alive

    def _encode(self, message: Message) -> bytes:
        """The leader sends the same entries to each follower: encode them once.

        Log entries with equal index and term are equal, so the key below identifies the message's bytes.
        """
        entries = message.get("entries")
        if not entries:
            return _encode(message)
        head = {name: value for name, value in message.items() if name != "entries"}
        key = (head, entries[0][1], entries[0][2], entries[-1][1], entries[-1][2])
        if self._encoded[0] != key:
            self._encoded = (key, _encode(message))
        return self._encoded[1]

    def upkeep(self) -> None:
        """Dial missing members, keep silent links alive, end dead ones; called on every tick."""
        now = self._clock()
        if now - self._upkeep_at < UPKEEP_PERIOD_S:
            return
        stalled = now - self._upkeep_at > STALL_S
        self._upkeep_at = now
        self._encoded = (None, b"")
        for name in self._peers:
            self._dial_if_needed(name, now)
        for link in [*self._links.values()]:
            if stalled:
                link.received_at = now
            elif now - link.received_at > self._settings.connection_timeout_s:
                link.end(f"silent for {now - link.received_at:.2f} s")
            if now - link.sent_at > self._settings.connection_timeout_s / KEEPALIVES_PER_TIMEOUT:
                link.send(KEEPALIVE, now)
        for link in [*self._strangers, *self._dialling.values()]:
            if now - link.opened_at > self._settings.handshake_timeout_s:
                link.end("no introduction in time")

    def _dial_if_needed(self, name: str, now: float) -> None:
        if name in self._links or name in self._dialling:
            self._missing_since.pop(name, None)
            return
        if self._self_id < name and now - self._missing_since.setdefault(name, now) < DIAL_ANYWAY_S:
            return
        if now - self._dialled_at.get(name, -1e9) < self._settings.connection_retry_s:
            return
        self._dialled_at[name] = now
        address = self._addresses.get(name)
        if address is not None:
            self._dial(name, *address, now)
        elif name not in self._resolving:
            self._resolving.add(name)
            threading.Thread(target=self._resolve, args=(name,), name=f"raft-resolve-{name}", daemon=True).start()

    def _resolve(self, name: str) -> None:
        """Look a member's address up beside the Raft thread: a slow name server must not cost the leader."""
        try:
            peer = self._peers[name]
            found = resolve(peer.address, of=name)
            if self._peers.get(name) is peer:
                self._addresses[name] = found
        except (OSError, KeyError):
            pass
        finally:
            self._resolving.discard(name)

    def _dial(self, name: str, family: int, address: Any, now: float) -> None:
        sock = socket.socket(family, socket.SOCK_STREAM)
        self._tune(sock)
        sock.setblocking(False)
        try:
            sock.connect(address)
        except BlockingIOError:
            pass
        except OSError:
            sock.close()
            return
        link = self._new_link(sock, now, initiator=True)
        self._dialling[name] = link
        link.send(self._introduction(name), now)

    def _on_accept(self, _descriptor: int, _events: int) -> None:
        assert self._listener is not None
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            if len(self._strangers) >= STRANGERS_MAX:
                sock.close()
                continue
            self._tune(sock)
            sock.setblocking(False)
            self._strangers.add(self._new_link(sock, self._clock(), initiator=False))

    def _new_link(self, sock: socket.socket, now: float, initiator: bool) -> Link:
        channel = Channel(self._settings.password, self._context, os.urandom(NONCE_BYTES), initiator)
        backlog = self._settings.link_backlog_bytes_max
        return Link(
            self._poller,
            sock,
            channel,
            self._on_message,
            self._on_end,
            now=now,
            connecting=initiator,
            backlog_bytes_max=backlog,
        )

    def _tune(self, sock: socket.socket) -> None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._settings.socket_buffer_bytes)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._settings.socket_buffer_bytes)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _on_message(self, link: Link, data: bytes) -> None:
        now = self._clock()
        link.received_at = now
        if link.peer is None:
            self._introduce(link, data, now)
            return
        if data == KEEPALIVE:
            return
        try:
            message = _decode_message(data)
        except msgspec.MsgspecError as error:
            link.end(f"message cannot be decoded: {error}")
            return
        if self._message_callback is not None:
            self._message_callback(self._peer(link.peer), message)

    def _peer(self, name: str) -> Peer:
        return self._peers.get(name) or self._guests[name]

    def _introduction(self, to: str) -> bytes:
        return _encode(Introduction(self._self_id, to, self._members, self._version))

    def _introduce(self, link: Link, data: bytes, now: float) -> None:
        try:
            introduction = _decode_introduction(data)
        except msgspec.MsgspecError as error:
            link.end(f"no introduction: {error}")
            return
        name = introduction.node
        if introduction.to != self._self_id or not self._expected(link, name) or not self._welcome(name):
            link.end(f"introduction of {name!r} to {introduction.to!r} is not expected here")
            return
        if introduction.version == self._version and introduction.members != self._members:
            # One of the two was configured with other members: with two ideas of a majority nothing is safe.
            link.end(f"{name!r} believes the members to be {introduction.members}")
            return
        link.peer = name
        if link in self._strangers:
            self._strangers.discard(link)
            link.send(self._introduction(name), now)
            if name in self._dialling:
                self._dialling.pop(name).end("the other side dialled, too")
        else:
            del self._dialling[name]
        former = self._links.pop(name, None)
        if former is not None:
            former.end("replaced by a newer connection")
        self._links[name] = link
        if self._connected_callback is not None:
            self._connected_callback(self._peer(name))

    def _expected(self, link: Link, name: str) -> bool:
        """Of two that dial each other, the call of the one whose name sorts later counts."""
        if link not in self._strangers:
            return self._dialling.get(name) is link
        return name > self._self_id or (name != self._self_id and name not in self._dialling)

    def _welcome(self, name: str) -> bool:
        if name in self._peers or name in self._guests:
            return True
        if self.make_guest is None or len(self._guests) >= GUESTS_MAX:
            return False
        self._guests[name] = self.make_guest(name)
        return True

    def _on_end(self, link: Link, peer_closed: bool) -> None:
        if link.peer is None:
            if link in self._strangers:
                self._strangers.discard(link)
                self.rejected += 1
            for name, dialled in list(self._dialling.items()):
                if dialled is link:
                    del self._dialling[name]
                    peer = self._peers.get(name)
                    if peer is not None and not is_numeric(peer.address, of=name):
                        self._addresses.pop(name, None)  # the name may stand for another machine by now
            return
        if self._links.get(link.peer) is link:
            del self._links[link.peer]
            self._guests.pop(link.peer, None)
        peer = self._peers.get(link.peer)
        if peer is None:
            return
        if self._disconnected_callback is not None:
            self._disconnected_callback(peer)
        if peer_closed and self.on_peer_death is not None:
            self.on_peer_death(peer)

    # The rest is the interface PySyncObj calls.

    def setOnMessageReceivedCallback(self, callback: Callable[[Peer, Message], None] | None) -> None:
        """Whom to hand received messages."""
        self._message_callback = callback

    def setOnNodeConnectedCallback(self, callback: Callable[[Peer], None] | None) -> None:
        """Whom to tell of a new link."""
        self._connected_callback = callback

    def setOnNodeDisconnectedCallback(self, callback: Callable[[Peer], None] | None) -> None:
        """Whom to tell of a lost link."""
        self._disconnected_callback = callback

    def setOnReadonlyNodeConnectedCallback(self, callback: object) -> None:
        """There are no read-only members."""

    def setOnReadonlyNodeDisconnectedCallback(self, callback: object) -> None:
        """There are no read-only members."""

    def setOnUtilityMessageCallback(self, message: str, callback: object) -> None:
        """Status, transfer and membership requests from the network are not offered."""

    def tryGetReady(self) -> None:
        """The port is bound by `listen`."""

    def waitReady(self) -> None:
        """The port is bound by `listen`."""

    def addNode(self, node: Peer) -> None:
        """Keep a link to this member; a guest that becomes one keeps the link it has."""
        self._peers[node.id] = node
        if self._guests.pop(node.id, None) is not None and self._connected_callback is not None:
            self._connected_callback(node)
        if is_numeric(node.address, of=node.id):
            self._addresses[node.id] = resolve(node.address, of=node.id)

    def dropNode(self, node: Peer) -> None:
        """Forget this member."""
        self._peers.pop(node.id, None)
        self._addresses.pop(node.id, None)
        for link in (self._links.pop(node.id, None), self._dialling.get(node.id)):
            if link is not None:
                link.end("member dropped")

    def destroy(self) -> None:
        """Close the port and all links; no callback is called any more."""
        self._message_callback = self._connected_callback = self._disconnected_callback = self.on_peer_death = None
        if self._listener is not None:
            self._poller.unsubscribe(self._listener.fileno())
            self._listener.close()
            self._listener = None
        for link in [*self._links.values(), *self._dialling.values(), *self._strangers]:
            link.end("shutting down")


class Watcher(Protocol):
    """Who sees every message and every new link before the library does."""

    def outgoing(self, message: Message) -> Message:
        """What to send instead of `message`."""

    def incoming(self, deliver: Callable[[Peer, Message], None], node: Peer, message: Message) -> None:
        """Deliver a received message, another one, or none."""

    def connected(self, deliver: Callable[[Peer], None], node: Peer) -> None:
        """Deliver the news of a link."""


class Watched:
    """What the library takes for its transport: ours, with a watcher in between."""

    def __init__(self, transport: Transport, watcher: Watcher) -> None:
        self._transport = transport
        self._watcher = watcher

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def send(self, node: Peer, message: Message) -> bool:
        """See `Transport.send`."""
        return self._transport.send(node, self._watcher.outgoing(message))

    def setOnMessageReceivedCallback(self, callback: Callable[[Peer, Message], None]) -> None:
        """Whom to hand received messages, after the watcher."""
        self._transport.setOnMessageReceivedCallback(partial(self._watcher.incoming, callback))

    def setOnNodeConnectedCallback(self, callback: Callable[[Peer], None]) -> None:
        """Whom to tell of a new link, after the watcher."""
        self._transport.setOnNodeConnectedCallback(partial(self._watcher.connected, callback))


def cluster_context(settings: RaftSettings) -> bytes:
    """What all members must agree on to talk at all, beside the secret: the genesis block."""
    text = f"flashblocks raft\n{settings.genesis_number}"
    return sha256(text.encode() + settings.genesis_hash).digest()


def is_numeric(address: str, of: str) -> bool:
    """Whether an address names an IP directly, so that resolving it asks nobody."""
    try:
        ipaddress.ip_address(split_address(address, of)[0])
    except ValueError:
        return False
    return True


def resolve(address: str, of: str) -> tuple[int, Any]:
    """ "host:port" → (address family, socket address); raises OSError if the name does not resolve."""
    host, port = split_address(address, of)
    family, _, _, _, found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    return family, found
