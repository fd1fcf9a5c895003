"""Links between members on real sockets, driven by hand: introductions, keep-alives, silence, death, replacement."""

import select
import socket
import time
from types import SimpleNamespace

import pytest

from raft.channel import HELLO_BYTES, Channel
from raft.link import ERROR, READ, WRITE
from raft.local_cluster import free_ports
from raft.settings import RaftSettings
from raft.transport import STRANGERS_MAX, Introduction, Transport, _encode, cluster_context

WAIT_S = 5.0


class HandPoller:
    """The poller's two methods, and `poll` for the test."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._callbacks = {}

    def subscribe(self, descr, callback, eventMask) -> None:
        self._callbacks[descr] = callback
        bits = ((READ, select.POLLIN), (WRITE, select.POLLOUT), (ERROR, select.POLLERR | select.POLLHUP))
        self._poll.register(descr, sum(bit for mask, bit in bits if eventMask & mask))

    def unsubscribe(self, descr) -> None:
        self._callbacks.pop(descr, None)
        self._poll.unregister(descr)

    def poll(self) -> None:
        for descr, event in self._poll.poll(5):
            mask = READ * bool(event & select.POLLIN) | WRITE * bool(event & select.POLLOUT)
            mask |= ERROR * bool(event & (select.POLLERR | select.POLLHUP))
            if descr in self._callbacks:
                self._callbacks[descr](descr, mask)


class Clock:
    """Time that passes only when told, so that no silence is accidental."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class End:
    """One member's transport with everything it reported."""

    def __init__(self, settings: RaftSettings, clock: Clock) -> None:
        self.poller = HandPoller()
        self.transport = Transport(settings, self.poller, clock)
        self.messages, self.events = [], []
        self.transport.setOnMessageReceivedCallback(lambda node, message: self.messages.append((node.id, message)))
        self.transport.setOnNodeConnectedCallback(lambda node: self.events.append(("up", node.id)))
        self.transport.setOnNodeDisconnectedCallback(lambda node: self.events.append(("down", node.id)))
        self.transport.on_peer_death = lambda node: self.events.append(("dead", node.id))
        for name in settings.peers:
            if name != settings.node_id:
                self.transport.addNode(SimpleNamespace(id=name, address=settings.peers[name]))


class Bench:
    def __init__(self, directory) -> None:
        self.clock = Clock()
        self.peers = {name: f"127.0.0.1:{port}" for name, port in zip("ab", free_ports(2), strict=True)}
        self.directory = directory
        self.ends = {}

    def settings(self, name: str, **changes) -> RaftSettings:
        fields = {
            "node_id": name,
            "peers": self.peers,
            "data_dir": self.directory,
            "password": b"p" * 32,
            "genesis_number": 0,
            "genesis_hash": bytes(32),
        }
        return RaftSettings(**{**fields, **changes})

    def open(self, name: str, **changes) -> End:
        end = self.ends[name] = End(self.settings(name, **changes), self.clock)
        end.transport.listen()
        return end

    def close(self, name: str) -> None:
        self.ends.pop(name).transport.destroy()

    def until(self, condition, *, passing_s: float = 0.0) -> None:
        deadline = time.monotonic() + WAIT_S
        while not condition():
            assert time.monotonic() < deadline
            self.clock.now += passing_s
            for end in self.ends.values():
                end.transport.upkeep()
                end.poller.poll()

    def connect(self) -> tuple[End, End]:
        a, b = self.open("a"), self.open("b")
        self.until(lambda: a.transport.connected() == {"b"} and b.transport.connected() == {"a"}, passing_s=0.03)
        return a, b


@pytest.fixture
def bench(tmp_path):
    bench = Bench(tmp_path)
    yield bench
    for name in list(bench.ends):
        bench.close(name)


A, B = SimpleNamespace(id="a"), SimpleNamespace(id="b")


def test_members_find_each_other_and_exchange_messages(bench):
    a, b = bench.connect()
    assert (a.events, b.events) == ([("up", "b")], [("up", "a")])
    assert a.transport.send(B, {"type": "x", "term": 1})
    assert b.transport.send(A, {"type": "y", "data": b"\x00\xff"})
    bench.until(lambda: a.messages and b.messages)
    assert b.messages == [("a", {"type": "x", "term": 1})]
    assert a.messages == [("b", {"type": "y", "data": b"\x00\xff"})]


def test_large_messages_arrive_whole_although_the_socket_takes_them_in_pieces(bench):
    a, b = bench.connect()
    large = {"type": "x", "data": bytes(20_000_000)}
    assert a.transport.send(B, large)
    assert a.transport.backlog_bytes("b") > 0
    bench.until(lambda: b.messages)
    assert b.messages == [("a", large)]
    assert a.transport.backlog_bytes("b") == 0


def test_the_same_entries_to_several_members_are_encoded_once_and_others_anew(bench):
    transport = bench.open("a").transport
    entries = [(b"command", 5, 2)]
    message = {"type": "append_entries", "term": 2, "commit_index": 4, "entries": entries}
    first = transport._encode(message)
    assert transport._encode({**message, "entries": list(entries)}) is first
    assert transport._encode({**message, "commit_index": 5}) != first
    assert transport._encode({**message, "entries": [(b"command", 6, 2)]}) != first


def test_a_broken_connection_is_a_death_and_is_dialled_again(bench):
    a, b = bench.connect()
    bench.close("a")
    bench.until(lambda: ("dead", "a") in b.events)
    assert b.events == [("up", "a"), ("down", "a"), ("dead", "a")]
    assert not b.transport.send(A, {"type": "x"})
    a = bench.open("a")
    bench.until(lambda: a.transport.connected() == {"b"}, passing_s=0.05)
    bench.until(lambda: b.transport.connected() == {"a"}, passing_s=0.05)
    assert b.events[-1] == ("up", "a")


def test_silence_ends_a_link_but_is_no_death(bench):
    _, b = bench.connect()
    silent = bench.ends.pop("a")
    try:
        bench.until(lambda: ("down", "a") in b.events, passing_s=0.05)
        assert ("dead", "a") not in b.events
    finally:
        silent.transport.destroy()


def test_idle_links_are_kept_alive(bench):
    a, b = bench.connect()
    began = bench.clock.now
    bench.until(lambda: bench.clock.now > began + 3.0, passing_s=0.03)
    assert (a.events, b.events) == ([("up", "b")], [("up", "a")])
    assert a.messages == b.messages == []


def test_after_an_absence_of_its_own_a_member_judges_nobody(bench):
    _, b = bench.connect()
    bench.clock.now += 10.0
    b.transport.upkeep()
    assert b.events == [("up", "a")]


def test_a_backlog_above_its_bound_ends_the_link(bench):
    bench.open("a", link_backlog_bytes_max=10_000_000)
    b = bench.open("b")
    a = bench.ends["a"]
    bench.until(lambda: a.transport.connected() and b.transport.connected(), passing_s=0.03)
    while a.transport.send(B, {"type": "x", "data": bytes(3_000_000)}):
        pass
    assert a.events[-1] == ("down", "b")


def dial(bench: Bench, name: str = "a") -> socket.socket:
    host, port = bench.peers[name].split(":")
    sock = socket.create_connection((host, int(port)))
    sock.settimeout(WAIT_S)
    return sock


def introduction(node: str, to: str, members: list[str] | None = None, version: int = 1) -> bytes:
    return _encode(Introduction(node, to, members or ["a", "b"], version))


def introduced(bench: Bench, said: bytes, **changes) -> tuple[socket.socket, Channel]:
    """A hand-made member that says hello and introduces itself somehow."""
    sock = dial(bench)
    bench.until(lambda: bool(select.select([sock], [], [], 0)[0]))
    channel = Channel(b"p" * 32, cluster_context(bench.settings("b", **changes)), b"n" * 32, initiator=True)
    channel.feed(sock.recv(HELLO_BYTES))
    sock.sendall(channel.hello() + b"".join(channel.seal(said)))
    return sock, channel


@pytest.mark.parametrize(
    "said",
    [
        introduction("stranger", "a"),
        introduction("b", "c"),
        introduction("a", "a"),
        introduction("b", "a", members=["a", "b", "c"]),
        b"\x80\x05cos\nsystem\n(S'true'\ntR.",
        b"",
    ],
)
def test_a_wrong_introduction_ends_the_connection(bench, said):
    a = bench.open("a")
    sock, _ = introduced(bench, said)
    bench.until(lambda: a.transport.rejected == 1)
    assert a.transport.connected() == set()
    assert sock.recv(1) == b""
    sock.close()


def test_a_member_that_knows_a_later_or_earlier_change_is_let_in(bench):
    a = bench.open("a")
    sock, _ = introduced(bench, introduction("b", "a", members=["a", "b", "c"], version=2))
    bench.until(lambda: a.transport.connected() == {"b"})
    sock.close()


def test_a_message_that_cannot_be_decoded_ends_the_link(bench):
    a = bench.open("a")
    sock, channel = introduced(bench, introduction("b", "a"))
    bench.until(lambda: a.transport.connected() == {"b"})
    sock.sendall(b"".join(channel.seal(b"\xc1 is no message")))
    bench.until(lambda: a.transport.connected() == set())
    assert a.messages == []
    sock.close()


def test_a_newer_connection_replaces_the_old_one_without_a_death(bench):
    a = bench.open("a")
    old, _ = introduced(bench, introduction("b", "a"))
    bench.until(lambda: a.transport.connected() == {"b"})
    new, channel = introduced(bench, introduction("b", "a"))
    bench.until(lambda: a.events == [("up", "b"), ("down", "b"), ("up", "b")])
    new.sendall(b"".join(channel.seal(_encode({"type": "x"}))))
    bench.until(lambda: a.messages == [("b", {"type": "x"})])
    assert old.recv(HELLO_BYTES + 100) is not None
    old.close()
    new.close()


def test_strangers_that_say_nothing_are_bounded_in_number_and_time(bench):
    a = bench.open("a")
    sockets = [dial(bench) for _ in range(STRANGERS_MAX + 5)]
    bench.until(lambda: len(a.transport._strangers) == STRANGERS_MAX)
    bench.until(lambda: a.transport.rejected == STRANGERS_MAX, passing_s=0.05)
    assert not a.transport._strangers
    for sock in sockets:
        sock.close()


def test_the_port_is_an_error_if_taken_and_free_after_destroy(bench):
    bench.open("a")
    with pytest.raises(OSError, match="in use"):
        End(bench.settings("a"), bench.clock).transport.listen()
    bench.close("a")
    bench.open("a")
