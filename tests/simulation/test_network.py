import pytest

from chaos.simulation.kernel import Clock, Process
from chaos.simulation.network import LINK_SILENCE_S, CallRefused, CallUnknown, Link, Network, Weather


class Echo:
    """A component that answers calls and links."""

    def __init__(self, process, disk):
        self.process, self.disk = process, disk
        self.received, self.peers, self.lost_peers = [], [], 0

    def start(self):
        self.disk["starts"] = self.disk.get("starts", 0) + 1

    def note(self, what):
        self.received.append(what)

    def double(self, number):
        if number < 0:
            raise CallRefused("negative")
        return 2 * number

    async def slowly(self, number):
        await self.process.sleep(1.0)
        return number

    def on_peer(self, peer, start, port):
        self.peers.append(peer)
        peer.to_client(("hello", start))

    def on_peer_frame(self, peer, message):
        self.received.append(message)
        peer.to_client(("echo", message))

    def on_peer_lost(self, peer):
        self.lost_peers += 1


class World:
    def __init__(self):
        self.clock = Clock(3)
        self.network = Network(self.clock)
        self.slot = self.network.add("echo", "far", Echo, {})
        self.slot.start()
        self.caller = Process(self.clock, "caller", "near")
        self.outcomes = []

    @property
    def echo(self):
        return self.slot.component

    def call(self, method, *arguments, timeout_s=5.0):
        async def work():
            try:
                answer = await self.network.call(self.caller, "echo", method, *arguments, timeout_s=timeout_s)
            except (CallRefused, CallUnknown) as error:
                answer = (type(error).__name__, str(error))
            self.outcomes.append((round(self.clock.now, 1), answer))

        self.caller.spawn(work())

    def link(self):
        self.frames, self.changes = [], []
        return Link(self.network, self.caller, "echo", self.frames.append, self.changes.append, start=lambda: "here")


@pytest.fixture
def world():
    return World()


def test_a_call_is_answered_refused_or_unknown(world):
    world.call("double", 4)
    world.call("double", -1)
    world.call("slowly", 7)
    world.call("slowly", 8, timeout_s=0.5)
    world.clock.run(3.0)
    outcomes = sorted(world.outcomes, key=str)
    assert outcomes == [
        (0.0, ("CallRefused", "negative")),
        (0.0, 8),
        (0.5, ("CallUnknown", "timeout")),
        (1.0, 7),
    ]


def test_nobody_there_is_known_at_once_a_death_in_the_middle_as_well_a_cut_only_by_its_silence(world):
    world.call("slowly", 1)
    world.clock.run(0.5)
    world.slot.kill()
    world.clock.run(0.6)
    world.call("double", 1)
    world.clock.run(0.7)
    world.slot.start()
    world.network.cut_path("near", "far")
    world.call("double", 2, timeout_s=2.0)
    world.clock.run(4.0)
    assert [answer for _, answer in world.outcomes] == [
        ("CallUnknown", "connection closed"),
        ("CallUnknown", "connection refused"),
        ("CallUnknown", "timeout"),
    ]
    assert [at for at, _ in world.outcomes] == [0.5, 0.6, 2.7]
    assert world.slot.disk == {"starts": 2}, "what is on the disk outlives the process"


def test_an_answer_that_cannot_come_back_is_unknown_though_it_was_done(world):
    world.network.cut_path("far", "near")
    world.call("double", 2, timeout_s=1.0)
    world.clock.run(2.0)
    assert world.outcomes == [(1.0, ("CallUnknown", "timeout"))]


def test_single_messages_get_lost_doubled_and_out_of_order(world):
    world.network.weather[("near", "far")] = Weather(0.3, 0.3, 0.2)
    for number in range(200):
        world.network.post(world.caller, "echo", "note", number)
    world.clock.run(2.0)
    received = world.echo.received
    assert len(set(received)) < 200
    assert len(received) > len(set(received))
    assert received != sorted(received)
    assert world.network.lost > 20 and world.network.doubled > 20


def test_a_link_keeps_its_order_and_stands_still_while_the_path_is_cut(world):
    link = world.link()
    world.clock.run(1.0)
    assert world.changes == [True] and world.frames == [("hello", "here")]
    for number in range(5):
        link.send(number)
    world.network.cut_path("near", "far")
    for number in range(5, 10):
        link.send(number)
    world.clock.run(2.0)
    assert world.echo.received == []
    world.network.mend_path("near", "far")
    world.clock.run(3.0)
    assert world.echo.received == list(range(10))
    assert world.frames[1:] == [("echo", number) for number in range(10)]
    assert world.changes == [True]


def test_a_link_breaks_after_a_long_silence_and_comes_back(world):
    world.link()
    world.clock.run(1.0)
    world.network.cut_path("far", "near")
    world.clock.run(1.0 + LINK_SILENCE_S + 0.1)
    assert world.changes == [True, False] and world.echo.lost_peers == 1
    world.network.mend_all()
    world.clock.run(7.0)
    assert world.changes == [True, False, True]


def test_a_link_breaks_at_once_when_the_process_dies_and_late_when_it_hangs(world):
    world.link()
    world.clock.run(1.0)
    world.slot.kill()
    world.clock.run(1.1)
    assert world.changes == [True, False]
    world.slot.start()
    world.clock.run(3.0)
    world.slot.pause()
    world.clock.run(4.0)
    assert world.changes == [True, False, True]
    world.clock.run(3.0 + LINK_SILENCE_S + 0.1)
    assert world.changes == [True, False, True, False]
    world.slot.wake()
    world.clock.run(10.0)
    assert world.changes[-1] is True


def test_a_lifeline_tells_of_death_and_return_but_not_of_a_hang(world):
    news = []
    world.network.watch(world.caller, "echo", lambda up: news.append((round(world.clock.now, 1), up)))
    world.clock.run(1.0)
    world.slot.pause()
    world.clock.run(2.0)
    world.slot.wake()
    world.slot.kill()
    world.clock.run(3.0)
    world.slot.start()
    world.clock.run(4.0)
    assert [up for _, up in news] == [True, False, True]
    assert news[1][0] == 2.0


def test_what_a_hung_process_missed_it_finds_when_it_wakes(world):
    world.slot.pause()
    world.network.post(world.caller, "echo", "note", "letter")
    world.call("double", 3)
    world.clock.run(1.0)
    assert world.echo.received == [] and world.outcomes == []
    world.slot.wake()
    world.clock.run(2.0)
    assert world.echo.received == ["letter"] and world.outcomes == [(1.0, 6)]
