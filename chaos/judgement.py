"""What a history comes to: the time of each fault, who led before and after, and the verdict. Pure, so that a kept
history is judged again, later and elsewhere, exactly as it was when the drill ended.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from chaos.checker import DUPLICATE, GAP, LOST_FLASHBLOCK, LOST_TRANSACTION, PROMISES, Report, check
from chaos.expectation import Bound, Expect
from chaos.history import (
    Acknowledged,
    Began,
    Event,
    Fault,
    GaveUp,
    Included,
    Leads,
    Lifted,
    Observed,
    Preconfirmed,
    Restored,
    SealedBlock,
    Seen,
    Sent,
)

NOTICED_SILENCE_S = 2.0
"""Where nobody should notice, the public stream may be silent this long: a slow machine is not a fault."""
INTERRUPTION_S = 0.45
"""Two flashblocks further apart than this are a hole in the stream: more than two of its periods of 200 ms."""
FORGOTTEN_S = 10.0
"""An accepted transaction that is in no block this long after belongs to those that ingress should have sent again."""
HALT_GRACE_S = 2.0
"""What was under way when the majority went may still arrive this long after."""


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One fault: who led before and after, and how long until the stream went on (milliseconds).

    `gap_ms` counts from the fault – where the stream has to stop, from the moment the fault was undone – to the next
    flashblock nobody had seen; `silence_ms` is the longest time without one from the fault until all was well again.
    """

    run: int
    fault: str
    actor: str
    group: str
    pid: int
    leader: str
    new_leader: str
    epoch: int
    gap_ms: float
    silence_ms: float
    restored_ms: float


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What `flashblocks drill … --json` prints; `kills` counts the faults, of whatever kind."""

    drill: str
    verdict: str
    kills: int
    lost: int
    duplicates: int
    gaps: int
    gap_ms_p50: float
    gap_ms_p99: float
    gap_ms_max: float
    within_bound: bool | None
    broken_promises: list[int]
    transactions: int
    sent: int
    acknowledged: int
    preconfirmed: int
    included: int
    flashblocks: int
    blocks: int
    seed: int
    runs: list[Run]
    violations: list[str]


class Fresh(msgspec.Struct, frozen=True):
    """One flashblock of the public stream, when it was first seen; `epoch` 0 where nobody told."""

    at: float
    number: int
    index: int
    epoch: int


def judge(history: Sequence[Event]) -> Result:
    """Judge one drill's history. One that does not tell its drill is judged by the promises alone."""
    began = next((event for event in history if isinstance(event, Began)), None)
    expect = began.expect if began is not None else Expect.GOES_ON
    report = check(history)
    runs = list(runs_of(history, expect))
    violations = [f"{violation.rule}: {violation.text}" for violation in report.violations]
    violations += unexpected(history, runs, expect)
    violations += forgotten(history)
    violations += [f"given up: {event.reason}" for event in history if isinstance(event, GaveUp)]
    if began is not None:
        violations += _untested(history, began, runs)
    gaps = sorted(run.gap_ms for run in runs)
    return Result(
        drill=began.drill if began is not None else "",
        verdict="fail" if violations else "pass",
        kills=len(runs),
        lost=report.count(LOST_FLASHBLOCK, LOST_TRANSACTION),
        duplicates=report.count(DUPLICATE),
        gaps=report.count(GAP),
        gap_ms_p50=percentile(gaps, 50),
        gap_ms_p99=percentile(gaps, 99),
        gap_ms_max=percentile(gaps, 100),
        within_bound=within(began.bound, gaps) if began is not None and runs else None,
        broken_promises=list(report.broken()),
        seed=began.seed if began is not None else 0,
        runs=runs,
        violations=violations,
        **_counts(history, report),
    )


def runs_of(history: Sequence[Event], expect: Expect = Expect.GOES_ON) -> Iterator[Run]:
    """The faults of a history that were observed to their end, in order."""
    fresh = fresh_flashblocks(history)
    numbers = sorted({event.run for event in history if isinstance(event, Fault)})
    for number in numbers:
        faults = [event for event in history if isinstance(event, Fault) and event.run == number]
        ends = [event.at for event in history if isinstance(event, Observed) and event.run == number]
        if not ends:
            continue
        lifted = min((event.at for event in history if isinstance(event, Lifted) and event.run == number), default=0.0)
        restored = [event.at for event in history if isinstance(event, Restored) and event.run == number]
        leads = {event.after: event for event in history if isinstance(event, Leads) and event.run == number}
        before, after = leads.get(False), leads.get(True)
        began = faults[0].at
        since = max(began, lifted) if expect is Expect.HALTS else began
        yield Run(
            run=number,
            fault=faults[0].kind,
            actor=_one_of([fault.actor for fault in faults]),
            group=_one_of([fault.group for fault in faults]),
            pid=faults[0].pid,
            leader=before.group if before is not None else "",
            new_leader=after.group if after is not None else "",
            epoch=after.epoch if after is not None else 0,
            gap_ms=_next_ms(fresh, since, ends[0], expect),
            silence_ms=silence_ms(fresh, began, max([ends[0], *restored])),
            restored_ms=round((max([ends[0], *restored]) - began) * 1000, 1),
        )


def fresh_flashblocks(history: Sequence[Event]) -> list[Fresh]:
    """The public stream: each flashblock when the first subscriber of a proxy saw it, and nothing that came late."""
    epochs: dict[tuple[int, int], int] = {}
    for event in history:  # the plain stream carries no epoch, the frames of the same flashblock do
        if isinstance(event, Seen) and event.edge and event.epoch:
            epochs.setdefault((event.number, event.index), event.epoch)
    fresh: list[Fresh] = []
    newest = (-1, -1)
    for event in history:
        if isinstance(event, Seen) and event.edge and (event.number, event.index) > newest:
            newest = (event.number, event.index)
            fresh.append(Fresh(event.at, event.number, event.index, epochs.get(newest, 0)))
    return fresh


def silence_ms(fresh: Sequence[Fresh], since: float, until: float) -> float:
    """The longest time without a new flashblock of which some lies between the two moments, milliseconds."""
    longest, last = 0.0, since
    for event in fresh:
        if event.at > since and last < until:
            longest = max(longest, event.at - last)
        if event.at <= until or last < until:
            last = event.at
    return round(max(longest, until - last) * 1000, 1)


def _next_ms(fresh: Sequence[Fresh], since: float, until: float, expect: Expect) -> float:
    """Milliseconds until the stream went on: what the dead leader still had on the wire says nothing of that.

    It went on with a successor's first flashblock, or with the first one after an interruption; else with the next.
    """
    before = max((event.epoch for event in fresh if event.at <= since), default=0)
    after = [event for event in fresh if since < event.at <= until]
    if expect is Expect.GOES_ON:
        last = since
        for event in after:
            if event.epoch > before or event.at - last > INTERRUPTION_S:
                return round((event.at - since) * 1000, 1)
            last = event.at
    return round(((after[0].at if after else until) - since) * 1000, 1)


def unexpected(history: Sequence[Event], runs: Sequence[Run], expect: Expect) -> list[str]:
    """What the drill says of the stream and was not so: it noticed the fault, or did not stop."""
    if expect is Expect.UNNOTICED:
        return [
            f"noticed: fault {run.run}: no flashblock for {run.silence_ms:.0f} ms"
            for run in runs
            if run.silence_ms > NOTICED_SILENCE_S * 1000
        ]
    if expect is not Expect.HALTS:
        return []
    texts = []
    fresh = fresh_flashblocks(history)
    for run in runs:
        began = min(event.at for event in history if isinstance(event, Fault) and event.run == run.run)
        lifted = min((event.at for event in history if isinstance(event, Lifted) and event.run == run.run), default=0.0)
        late = [event for event in fresh if began + HALT_GRACE_S < event.at < lifted]
        if late:
            text = f"did not halt: fault {run.run}: {len(late)} flashblocks without a majority"
            texts.append(f"{text}, the first is {late[0].number}/{late[0].index}")
    return texts


def forgotten(history: Sequence[Event]) -> list[str]:
    """Accepted transactions that never came into a block: no promise of the stream, but one of the RPC."""
    sealed = {transaction for event in history if isinstance(event, SealedBlock) for transaction in event.transactions}
    if not sealed:
        return []
    end = max((event.at for event in history if isinstance(event, Seen) and event.edge), default=0.0)
    lost = [
        event.transaction
        for event in history
        if isinstance(event, Acknowledged) and event.at < end - FORGOTTEN_S and event.transaction not in sealed
    ]
    return [f"forgotten: {len(lost)} accepted transactions are in no block, the first is {lost[0]}"] if lost else []


def _untested(history: Sequence[Event], began: Began, runs: Sequence[Run]) -> list[str]:
    texts = []
    if len(runs) < began.count:
        texts.append(f"unfinished: {len(runs)} of {began.count} faults were carried out")
    if began.tps and not any(isinstance(event, Acknowledged) for event in history):
        texts.append("no transaction was sent: nothing was tested")
    return texts


def within(bound: Bound | None, gaps: Sequence[float]) -> bool | None:
    """Whether sorted gaps keep a bound; None when there is none to keep."""
    if bound is None:
        return None
    return percentile(gaps, 50) <= bound.p50_ms and percentile(gaps, 99) <= bound.p99_ms


def _counts(history: Sequence[Event], report: Report) -> dict[str, int]:
    def distinct(kind: type[Sent | Acknowledged | Preconfirmed | Included]) -> int:
        return len({event.transaction for event in history if isinstance(event, kind)})

    return {
        "transactions": report.transactions,
        "sent": distinct(Sent),
        "acknowledged": distinct(Acknowledged),
        "preconfirmed": distinct(Preconfirmed),
        "included": distinct(Included),
        "flashblocks": report.flashblocks,
        "blocks": report.blocks,
    }


def kept(result: Result) -> dict[int, bool]:
    """Promise → whether this drill saw it kept."""
    return {number: number not in result.broken_promises for number in PROMISES}


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile of sorted values; 0.0 when there are none."""
    if not values:
        return 0.0
    rank = max(1, -(-len(values) * percent // 100))
    return values[int(rank) - 1]


def _one_of(names: Sequence[str]) -> str:
    """The one name, or how many there are: what was done to several is shown in the history."""
    distinct = list(dict.fromkeys(names))
    return distinct[0] if len(distinct) == 1 else "+".join(distinct)
