import pytest

from flashblocks.conductor.health import HealthLimits, HealthMonitor, Readiness, Sickness

GENESIS_TIME = 1000.0
LIMITS = HealthLimits()


def well(now: float = GENESIS_TIME, limits: HealthLimits = LIMITS) -> HealthMonitor:
    monitor = HealthMonitor(limits)
    monitor.on_ledger(now, 10)
    monitor.on_op_node(now, True)
    monitor.on_op_node_answer(now, 10, now, 4)
    monitor.on_rollup_boost(now, 200)
    assert monitor.health(now).healthy
    return monitor


def sickness(monitor: HealthMonitor, now: float) -> Sickness:
    return monitor.health(now).sickness


def test_before_anything_is_known_a_group_is_neither_well_nor_sick() -> None:
    verdict = HealthMonitor(LIMITS).health(GENESIS_TIME)
    assert (verdict.sickness, verdict.readiness, verdict.healthy) == (Sickness.STARTING, Readiness.UNKNOWN, False)


def test_a_group_is_well_as_soon_as_everything_answered_for_the_first_time() -> None:
    monitor = HealthMonitor(LIMITS)
    monitor.on_op_node(0.0, True)
    assert sickness(monitor, 0.0) is Sickness.STARTING
    monitor.on_op_node_answer(0.0, 0, 0.0, 4)
    assert sickness(monitor, 0.0) is Sickness.STARTING
    monitor.on_rollup_boost(0.0, 200)
    assert sickness(monitor, 0.0) is Sickness.NONE


def test_an_op_node_that_waits_for_its_engine_is_not_sick_but_unknown() -> None:
    monitor = HealthMonitor(LIMITS)
    monitor.on_op_node(0.0, True)
    monitor.on_rollup_boost(60.0, 200)
    verdict = monitor.health(60.0)
    assert (verdict.sickness, verdict.readiness) == (Sickness.STARTING, Readiness.UNKNOWN)


def test_a_closed_socket_is_noticed_at_once() -> None:
    monitor = well()
    monitor.on_op_node(GENESIS_TIME, False)
    assert sickness(monitor, GENESIS_TIME) is Sickness.CONNECTION_DOWN


def test_a_silent_op_node_is_noticed_after_its_silence() -> None:
    monitor = well()
    monitor.on_rollup_boost(GENESIS_TIME + 0.7, 200)
    assert sickness(monitor, GENESIS_TIME + LIMITS.silence_s_max) is Sickness.NONE
    assert sickness(monitor, GENESIS_TIME + LIMITS.silence_s_max + 0.01) is Sickness.CONNECTION_DOWN


def test_a_silent_rollup_boost_is_noticed_too() -> None:
    monitor = well()
    later = GENESIS_TIME + LIMITS.silence_s_max + 0.1
    monitor.on_op_node_answer(later, 10, later, 4)
    assert sickness(monitor, later) is Sickness.ROLLUP_BOOST_DOWN


@pytest.mark.parametrize(
    ("status", "expected", "readiness"),
    [
        (200, Sickness.NONE, Readiness.READY),
        (206, Sickness.ROLLUP_BOOST_PARTIAL, Readiness.WITHOUT_BUILDER),
        (503, Sickness.ROLLUP_BOOST_UNHEALTHY, Readiness.UNABLE),
        (None, Sickness.ROLLUP_BOOST_DOWN, Readiness.UNABLE),
    ],
)
def test_rollup_boosts_answers(status, expected, readiness) -> None:
    monitor = well()
    monitor.on_rollup_boost(GENESIS_TIME, status)
    verdict = monitor.health(GENESIS_TIME)
    assert (verdict.sickness, verdict.readiness) == (expected, readiness)


def test_partial_answers_are_tolerated_up_to_the_limit_of_their_time_bucket() -> None:
    limits = HealthLimits(partial_tolerance_limit=3, partial_tolerance_interval_s=10.0)
    monitor, seen = well(limits=limits), []
    for now in (1000.0, 1000.1, 1000.2):
        monitor.on_rollup_boost(now, 206)
        seen.append(sickness(monitor, now))
    assert seen == [Sickness.NONE, Sickness.NONE, Sickness.ROLLUP_BOOST_PARTIAL]
    assert monitor.health(1000.2).readiness is Readiness.WITHOUT_BUILDER


def test_a_tolerated_partial_answer_is_still_the_lesser_readiness() -> None:
    limits = HealthLimits(partial_tolerance_limit=3, partial_tolerance_interval_s=10.0)
    monitor = well(limits=limits)
    monitor.on_rollup_boost(1000.0, 206)
    assert monitor.health(1000.0).readiness is Readiness.WITHOUT_BUILDER


def test_tolerance_is_set_whole_or_not_at_all() -> None:
    with pytest.raises(ValueError, match="belong together"):
        HealthLimits(partial_tolerance_limit=3)


def keep_talking(monitor: HealthMonitor, now: float, head: int, head_time: float, peers: int = 4) -> None:
    monitor.on_op_node_answer(now, head, head_time, peers)
    monitor.on_rollup_boost(now, 200)


def test_an_old_head_with_nothing_newer_in_the_ledger_is_the_chains_trouble() -> None:
    monitor = well()
    at_limit = GENESIS_TIME + LIMITS.unsafe_interval_s
    keep_talking(monitor, at_limit, 10, GENESIS_TIME)
    assert sickness(monitor, at_limit) is Sickness.NONE, "exactly the interval is healthy"
    keep_talking(monitor, at_limit + 0.1, 10, GENESIS_TIME)
    verdict = monitor.health(at_limit + 0.1)
    assert (verdict.sickness, verdict.readiness) == (Sickness.CHAIN_STALLED, Readiness.READY)


def test_a_head_behind_the_ledger_is_our_own_sickness() -> None:
    monitor = well()
    monitor.on_ledger(GENESIS_TIME, 11)
    assert sickness(monitor, GENESIS_TIME) is Sickness.NONE, "one block behind for a moment is normal"
    later = GENESIS_TIME + LIMITS.lag_s_max + 0.1
    keep_talking(monitor, later, 10, later)
    assert sickness(monitor, later) is Sickness.LAGGING
    monitor.on_head(later, 11, later)
    assert sickness(monitor, later + LIMITS.recovery_s) is not Sickness.LAGGING


def test_far_behind_is_sick_at_once() -> None:
    monitor = well()
    monitor.on_ledger(GENESIS_TIME, 20)
    assert sickness(monitor, GENESIS_TIME) is Sickness.LAGGING


def test_too_few_peers() -> None:
    monitor = well()
    keep_talking(monitor, GENESIS_TIME, 10, GENESIS_TIME, peers=0)
    assert sickness(monitor, GENESIS_TIME) is Sickness.FEW_PEERS


def test_recovery_takes_its_time_so_that_nothing_flaps() -> None:
    monitor = well()
    monitor.on_rollup_boost(GENESIS_TIME, 503)
    assert not monitor.health(GENESIS_TIME).healthy
    monitor.on_rollup_boost(GENESIS_TIME + 0.1, 200)
    verdict = monitor.health(GENESIS_TIME + 0.1)
    assert (verdict.sickness, verdict.readiness) == (Sickness.ROLLUP_BOOST_UNHEALTHY, Readiness.UNABLE)
    later = GENESIS_TIME + LIMITS.recovery_s + 0.1
    keep_talking(monitor, later, 10, later)
    assert monitor.health(later).healthy


def test_an_old_safe_head_is_a_sickness_where_it_is_checked() -> None:
    checked = well(limits=HealthLimits(safe_interval_s=60.0))
    unchecked = well()
    for monitor, expected in ((checked, Sickness.SAFE_HEAD_OLD), (unchecked, Sickness.NONE)):
        monitor.on_op_node_answer(GENESIS_TIME, 10, GENESIS_TIME, 4, GENESIS_TIME - 61)
        assert sickness(monitor, GENESIS_TIME) is expected
    checked.on_op_node_answer(GENESIS_TIME, 10, GENESIS_TIME, 4, GENESIS_TIME - 60)
    assert sickness(checked, GENESIS_TIME + LIMITS.recovery_s) is not Sickness.SAFE_HEAD_OLD
