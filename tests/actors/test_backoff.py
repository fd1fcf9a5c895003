import random

from actors.backoff import Backoff


def backoff():
    return Backoff(0.01, 0.5, growth=2, steady_after_s=1.0, chance=random.Random(7))


def bounds(pauses, wanted):
    return all(full / 2 <= pause <= full for pause, full in zip(pauses, wanted, strict=True))


def test_pauses_double_up_to_the_longest_and_are_never_quite_the_same():
    made = backoff()
    pauses = [made.pause_s(0) for _ in range(9)]
    assert bounds(pauses, [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.5, 0.5, 0.5])
    assert len({pause / pauses[-1] for pause in pauses}) == len(pauses)


def test_a_peer_that_accepts_and_closes_is_not_asked_in_a_busy_loop():
    made = backoff()
    pauses = [made.pause_s(0.9) for _ in range(20)]
    assert min(pauses[6:]) >= 0.25


def test_a_connection_that_lasted_is_missed_at_once():
    made = backoff()
    for _ in range(9):
        made.pause_s(0)
    assert bounds([made.pause_s(1.0), made.pause_s(0)], [0.01, 0.02])
