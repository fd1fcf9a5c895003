"""The switch's rules: who gets which frame when, without a socket or a clock."""

from random import Random

import pytest

from tests.hosts.switch import Condition, Switch

BROADCAST = b"\xff" * 6


def address(number: int) -> bytes:
    return bytes([2, 0, 0, 0, 0, number])


def frame(source: int, to: int | None, body: bytes = b"") -> bytes:
    return (BROADCAST if to is None else address(to)) + address(source) + b"\x08\x00" + body


def switch_of(*ports: str, seed: int = 1, in_flight_max: int = 100) -> Switch:
    switch = Switch(Random(seed), in_flight_max)
    for port in ports:
        switch.plug(port)
    return switch


def learnt(ports: str = "abc", seed: int = 1, in_flight_max: int = 100) -> Switch:
    """A switch that knows who is where: port a has address 1, port b address 2, …"""
    switch = switch_of(*ports, seed=seed, in_flight_max=in_flight_max)
    for number in range(1, len(ports) + 1):
        switch.arrived(ports[number - 1], frame(number, None), 0.0)
    return switch


def test_a_broadcast_goes_to_everybody_else() -> None:
    switch = switch_of("a", "b", "c")
    hello = frame(1, None)
    assert switch.arrived("a", hello, 0.0) == [("b", hello), ("c", hello)]


def test_an_unknown_address_is_looked_for_everywhere_and_a_learnt_one_is_not() -> None:
    switch = switch_of("a", "b", "c")
    question = frame(1, 2)
    assert [to for to, _ in switch.arrived("a", question, 0.0)] == ["b", "c"]
    switch.arrived("b", frame(2, 1), 0.0)
    assert switch.arrived("a", question, 0.0) == [("b", question)]


def test_a_frame_to_its_own_port_goes_nowhere() -> None:
    assert learnt().arrived("a", frame(1, 1), 0.0) == []


def test_an_unplugged_port_neither_gets_nor_sends() -> None:
    switch = learnt()
    switch.unplug("b")
    assert switch.arrived("b", frame(2, 1), 0.0) == []
    assert switch.arrived("a", frame(1, 2), 0.0) == [("c", frame(1, 2))], "its address is forgotten: looked for again"


def test_a_cut_holds_in_its_direction_only() -> None:
    switch = learnt()
    switch.set_conditions({("a", "b"): Condition(cut=True)})
    assert switch.arrived("a", frame(1, 2), 0.0) == []
    assert switch.arrived("b", frame(2, 1), 0.0) == [("a", frame(2, 1))]
    assert [to for to, _ in switch.arrived("a", frame(1, None), 0.0)] == ["c"], "a broadcast is cut too"


def test_conditions_are_replaced_as_a_whole() -> None:
    switch = learnt()
    switch.set_conditions({("a", "b"): Condition(cut=True)})
    switch.set_conditions({("a", "c"): Condition(cut=True)})
    assert switch.arrived("a", frame(1, 2), 0.0) == [("b", frame(1, 2))]
    assert switch.arrived("a", frame(1, 3), 0.0) == []


def test_a_delayed_frame_comes_when_it_is_due_and_in_order() -> None:
    switch = learnt()
    switch.set_conditions({("a", "b"): Condition(delay_s=0.05)})
    frames = [frame(1, 2, bytes([number])) for number in range(3)]
    for number, each in enumerate(frames):
        assert switch.arrived("a", each, 1.0 + number / 1000) == []
    assert switch.next_due() == pytest.approx(1.05)
    assert switch.due(1.049) == []
    assert switch.due(1.0511) == [("b", frames[0]), ("b", frames[1])]
    assert switch.due(2.0) == [("b", frames[2])]
    assert switch.next_due() is None


def test_frames_due_at_the_same_moment_keep_their_order() -> None:
    switch = learnt()
    switch.set_conditions({("a", "b"): Condition(delay_s=0.05)})
    frames = [frame(1, 2, bytes([number])) for number in (9, 3, 7)]
    for each in frames:
        switch.arrived("a", each, 1.0)
    assert [each for _, each in switch.due(1.05)] == frames


def test_a_cut_made_while_a_frame_is_on_its_way_drops_it() -> None:
    switch = learnt()
    switch.set_conditions({("a", "b"): Condition(delay_s=0.05)})
    switch.arrived("a", frame(1, 2), 1.0)
    switch.set_conditions({("a", "b"): Condition(cut=True)})
    assert switch.due(2.0) == []
    assert switch.counts["cut"] == 1


def test_a_frame_on_its_way_to_a_port_that_was_unplugged_is_dropped() -> None:
    switch = learnt()
    switch.set_conditions({("a", "b"): Condition(delay_s=0.05)})
    switch.arrived("a", frame(1, 2), 1.0)
    switch.unplug("b")
    assert switch.due(2.0) == []


def lost_of(switch: Switch, count: int) -> list[int]:
    return [number for number in range(count) if not switch.arrived("a", frame(1, 2), 0.0)]


def test_loss_is_the_seeds_and_about_as_much_as_was_asked() -> None:
    losses = []
    for seed in (1, 1, 2):
        switch = learnt(seed=seed)
        switch.set_conditions({("a", "b"): Condition(loss=0.1)})
        losses.append(lost_of(switch, 1000))
        assert 70 <= len(losses[-1]) <= 130
        assert switch.counts["lost"] == len(losses[-1])
    assert losses[0] == losses[1] != losses[2]


def test_what_is_in_flight_is_bounded() -> None:
    switch = learnt(in_flight_max=2)
    switch.set_conditions({("a", "b"): Condition(delay_s=1.0)})
    for _ in range(5):
        switch.arrived("a", frame(1, 2), 0.0)
    assert len(switch.due(1.0)) == 2
    assert switch.counts["overflowed"] == 3


@pytest.mark.parametrize(("delay_s", "loss"), [(-1.0, 0.0), (0.0, 1.5), (0.0, -0.1)])
def test_a_condition_that_cannot_be_is_refused(delay_s: float, loss: float) -> None:
    with pytest.raises(ValueError, match="a delay is not negative"):
        Condition(delay_s=delay_s, loss=loss)
