"""What a history comes to: the times of its faults, and a verdict that needs every fault, load, and the expected."""

from itertools import pairwise

import msgspec
import pytest

from chaos.expectation import Bound, Expect
from chaos.history import Acknowledged, Began, Fault, GaveUp, Lifted, Link, Observed, SealedBlock, Seen
from chaos.judgement import judge, kept, percentile, runs_of, silence_ms, within
from tests.chaos.histories import began, chain, failover, seen, stream


def test_a_failover_is_measured_from_the_fault_to_the_successors_first_flashblock():
    (run,) = runs_of(failover())
    assert (run.leader, run.new_leader, run.epoch) == ("sequencer-0", "sequencer-1", 2)
    assert (run.group, run.actor, run.fault, run.pid) == ("sequencer-0", "conductor", "kill", 4711)
    assert run.gap_ms == pytest.approx(351, abs=1.5)
    assert run.silence_ms == pytest.approx(450, abs=3)  # since the last flashblock before the fault
    assert run.restored_ms == pytest.approx(1900, abs=1)


def test_a_kept_history_says_the_same_as_the_drill():
    result = judge(failover())
    assert (result.verdict, result.drill, result.kills, result.seed) == ("pass", "kill-conductor", 1, 7)
    assert (result.sent, result.acknowledged, result.preconfirmed, result.included) == (1, 1, 1, 1)
    assert result.gap_ms_p50 == result.gap_ms_p99 == result.gap_ms_max == result.runs[0].gap_ms
    assert all(kept(result).values())


def test_what_the_dead_leader_still_had_on_the_wire_is_not_the_failover():
    late = seen(103.15, 2, 6, "proxy-0 frames", 1)
    history = sorted_stream([*failover(), late])
    assert judge(history).runs[0].gap_ms == pytest.approx(351, abs=1.5)


def test_a_stream_that_is_taken_up_again_by_the_same_leader_went_on_then():
    """A hung builder: 2/5 was on the wire, the fallback EL stands in after 0.6 s, the lead moves at the block's end."""
    on_the_wire = [seen(100.0, 2, 4, "proxy-0 frames", 1), seen(100.2, 2, 5, "proxy-0 frames", 1)]
    stood_in = [seen(100.8, 2, 6, "proxy-0 frames", 1), seen(101.0, 2, 7, "proxy-0 frames", 1)]
    successor = [seen(101.4, 3, 0, "proxy-0 frames", 2)]
    marks = [Fault(100.1, 1, "hang", "builder", "sequencer-0", 1), Observed(101.5, 1)]
    (run,) = runs_of([*on_the_wire, *stood_in, *successor, *marks])
    assert run.gap_ms == pytest.approx(700, abs=0.2)
    assert run.silence_ms == pytest.approx(600, abs=0.2)


def sorted_stream(history):
    head = [event for event in history if isinstance(event, Began)]
    timed = [event for event in history if not isinstance(event, Began) and hasattr(event, "at")]
    rest = [event for event in history if not hasattr(event, "at")]
    return [*head, *sorted(timed, key=lambda event: event.at), *rest]


@pytest.mark.parametrize(
    ("bound", "fine"), [(Bound(400, 400), True), (Bound(300, 800), False), (Bound(900, 300), False)]
)
def test_the_bound_is_judged_apart_from_the_promises(bound, fine):
    result = judge(failover(began(bound=bound)))
    assert (result.verdict, result.within_bound) == ("pass", fine)


def test_no_bound_nothing_to_keep():
    assert within(None, [1.0]) is None


def test_a_drill_with_a_fault_missing_is_no_pass():
    result = judge(failover(began(count=2)))
    assert result.verdict == "fail"
    assert "unfinished" in result.violations[0]


def test_a_fault_without_an_observed_end_does_not_count():
    history = [event for event in failover() if not isinstance(event, Observed)]
    assert judge(history).kills == 0


def test_a_drill_that_was_given_up_is_no_pass_and_says_why():
    result = judge([*failover(), GaveUp(110.0, "nobody leads")])
    assert (result.verdict, result.violations) == ("fail", ["given up: nobody leads"])


def test_without_load_nothing_was_tested_unless_none_was_wanted():
    idle = [event for event in failover() if not isinstance(event, Acknowledged)]
    assert judge(idle).verdict == "fail"
    assert judge([began(tps=0), *idle[1:]]).verdict == "pass"


def test_a_transaction_that_was_accepted_and_is_in_no_block_was_forgotten():
    late, early = Acknowledged(109.0, "late"), Acknowledged(99.5, "early")
    assert judge([*failover(), late]).verdict == "pass"
    result = judge([*failover(), early, late])
    assert result.violations == ["forgotten: 1 accepted transactions are in no block, the first is early"]
    headless = [event for event in [*failover(), early] if not isinstance(event, SealedBlock)]
    assert not any("forgotten" in text for text in judge(headless).violations)


def test_a_broken_promise_fails_and_is_named():
    result = judge([*failover(), seen(109.0, 2, 1, "proxy-0 text", 0)])
    assert (result.verdict, result.duplicates, result.broken_promises) == ("fail", 1, [5])


def test_a_fault_that_nobody_should_notice_was_noticed():
    quiet = judge(failover(began(expect=Expect.UNNOTICED)))
    assert quiet.verdict == "pass"
    loud = judge(failover(began(expect=Expect.UNNOTICED), silence_s=2.5))
    assert loud.violations == [f"noticed: fault 1: no flashblock for {loud.runs[0].silence_ms:.0f} ms"]


def halted(*, lifted, leak=False):
    """Three of five gone at 102 s; the stream stops, and goes on 0.3 s after they may come back."""
    before = stream(100.0, range(1, 2), 1, "sequencer-0/conductor")
    after = stream(lifted + 0.3, range(2, 4), 2, "sequencer-1/conductor")
    leaked = [seen(lifted - 1.0, 2, 0, "proxy-0 frames", 1)] if leak else []
    after = [event for event in after if not (leak and (event.number, event.index) == (2, 0))]
    marks = [Fault(102.0, 1, "down", "conductor", "sequencer-0", 1), Lifted(lifted, 1), Observed(lifted + 1, 1)]
    timed = sorted([*before, *after, *leaked, *marks, Acknowledged(100.5, "t1.1")], key=lambda event: event.at)
    return [began(expect=Expect.HALTS), *timed, *chain(range(1, 4))]


def test_without_a_majority_it_has_to_stop_and_the_time_counts_from_the_return():
    result = judge(halted(lifted=110.0))
    assert result.verdict == "pass", result.violations
    assert result.runs[0].gap_ms == pytest.approx(302, abs=1)
    assert result.runs[0].silence_ms > 8000


def test_a_stream_that_goes_on_without_a_majority_fails_the_drill():
    result = judge(halted(lifted=110.0, leak=True))
    assert any("did not halt" in text and "2/0" in text for text in result.violations)


def test_silence_is_counted_over_the_edges_of_the_window():
    fresh = [event for event in stream(0.0, range(1, 2), 1, "d") if event.source == "proxy-0 text"]
    longest = max(later.at - earlier.at for earlier, later in pairwise(fresh))
    assert silence_ms(fresh, 0.5, 1.0) == pytest.approx(longest * 1000, abs=0.2)
    assert silence_ms(fresh, 1.0, 9.0) == pytest.approx((9.0 - fresh[-1].at) * 1000, abs=0.2)
    assert silence_ms([], 1.0, 3.0) == 2000.0


def test_a_history_without_a_header_is_judged_by_the_promises_alone():
    history = [event for event in failover() if not isinstance(event, Began)]
    assert (judge(history).verdict, judge(history).drill) == ("pass", "")
    assert judge([event for event in history if not isinstance(event, Seen)]).verdict == "fail"


def test_a_result_is_json_and_comes_back():
    result = judge(failover())
    assert msgspec.json.decode(msgspec.json.encode(result), type=type(result)) == result


def test_links_do_not_matter_for_the_times():
    history = [event for event in failover() if not isinstance(event, Link)]
    assert judge(history).runs == judge(failover()).runs


def test_percentiles_are_nearest_rank():
    values = [float(value) for value in range(1, 101)]
    assert [percentile(values, p) for p in (50, 90, 99, 100)] == [50.0, 90.0, 99.0, 100.0]
    assert percentile([3.0], 99) == 3.0
    assert percentile([], 50) == 0.0
