from chaos.history import Fault, Restored, Seen
from chaos.simulation import schedule as faults
from chaos.simulation.judge import SILENCE_S_MAX, STALLED, judge, silences

LONG_S = SILENCE_S_MAX + 2.0


def seen(at, number, index=0):
    return Seen(at, "proxy", number, index, "id", f"h{number - 1}", f"h{number}", (), 1)


def fault(at, kind, group, run=0):
    return Fault(at, run, kind, "conductor", group, 0)


def stalled(*history, groups=5):
    report = judge([seen(0.0, 1), *history], groups, 1.0)
    return [violation for violation in report.violations if violation.rule == STALLED]


def test_silence_while_everybody_is_well_is_a_stall():
    assert stalled(seen(LONG_S, 2))
    assert not stalled(seen(SILENCE_S_MAX, 2))


def test_a_hurt_minority_is_no_excuse_a_hurt_majority_is():
    two = [fault(0.1, faults.CRASH, "g0"), fault(0.2, faults.HANG, "g1", run=1)]
    assert stalled(*two, seen(LONG_S, 2))
    assert not stalled(*two, fault(0.3, faults.CRASH, "g2", run=2), seen(LONG_S, 2))


def test_time_counts_anew_once_a_majority_is_well_again():
    began, ended = fault(0.1, faults.MAJORITY, "g0"), Restored(10.0, 0, 0)
    assert not stalled(began, ended, seen(10.0 + SILENCE_S_MAX, 2))
    assert stalled(began, ended, seen(10.0 + LONG_S, 2))


def test_what_is_seen_again_or_late_ends_no_silence():
    history = [seen(0.0, 2), seen(1.0, 1), seen(2.0, 2), seen(3.0, 3)]
    assert list(silences(history, 5)) == [(0.0, 0.0), (0.0, 3.0)]
