"""A small drill's history, made by hand: two groups, one fault, one proxy, and what each subscriber saw."""

from chaos.expectation import Bound, Expect
from chaos.history import (
    Acknowledged,
    Began,
    Event,
    Fault,
    Included,
    Leads,
    Lifted,
    Link,
    Observed,
    Preconfirmed,
    Restored,
    SealedBlock,
    Seen,
    Sent,
)

INDICES = 10
STEP_S = 0.2


def began(
    drill: str = "kill-conductor",
    count: int = 1,
    expect: Expect = Expect.GOES_ON,
    bound: Bound | None = None,
    tps: float = 20.0,
) -> Began:
    return Began(at=99.0, drill=drill, count=count, seed=7, tps=tps, expect=expect, bound=bound or Bound(300, 800))


def seen(at: float, number: int, index: int, source: str, epoch: int, *, edge: bool = True) -> Seen:
    parent = f"h{number - 1}.{INDICES - 1}" if index == 0 else None
    transactions = (f"t{number}.{index}",)
    return Seen(at, source, number, index, f"id{number}", parent, f"h{number}.{index}", transactions, epoch, edge)


def stream(
    first: float, blocks: range, epoch: int, door: str, *, silent: tuple[float, float] = (0.0, 0.0)
) -> list[Seen]:
    """Flashblocks every 200 ms from `first` on, at one proxy twice and at the leader's door; those due while it was
    silent all come when the silence ends."""
    events: list[Seen] = []
    at = first
    for number in blocks:
        for index in range(INDICES):
            shown = silent[1] if silent[0] <= at < silent[1] else at
            leader = epoch if at < silent[0] or silent[1] == 0.0 else epoch + 1
            source = door if leader == epoch else "sequencer-1/conductor"
            events.append(seen(shown, number, index, source, leader, edge=False))
            events.append(seen(shown + 0.001, number, index, "proxy-0 text", 0))
            events.append(seen(shown + 0.002, number, index, "proxy-0 frames", leader))
            at = round(at + STEP_S, 3)
    return events


def chain(blocks: range) -> list[SealedBlock]:
    return [
        SealedBlock(
            "sequencer-0/builder",
            number,
            f"h{number}.{INDICES - 1}",
            f"h{number - 1}.{INDICES - 1}",
            tuple(f"t{number}.{index}" for index in range(INDICES)),
        )
        for number in blocks
    ]


def failover(header: Began | None = None, silence_s: float = 0.35) -> list[Event]:
    """One SIGKILL at 103.1 s; the successor speaks `silence_s` later."""
    blocks = range(1, 6)
    clients: list[Event] = [
        Sent(100.0, "t1.1"),
        Acknowledged(100.01, "t1.1"),
        Preconfirmed(100.2, "t1.1", 1),
        Included(102.1, "t1.1", 1),
    ]
    fault: list[Event] = [
        Leads(103.05, 1, "sequencer-0", 1, False),
        Fault(103.1, 1, "kill", "conductor", "sequencer-0", 4711),
        Link(103.11, "proxy-0 text", False),
        Link(103.12, "proxy-0 text", True),
        Leads(103.6, 1, "sequencer-1", 2, True),
        Observed(103.6, 1),
        Lifted(103.61, 1),
        Restored(105.0, 1, 4712),
    ]
    events = [*stream(100.0, blocks, 1, "sequencer-0/conductor", silent=(103.1, 103.1 + silence_s)), *clients, *fault]
    return [header or began(), *sorted(events, key=lambda event: event.at), *chain(blocks)]
