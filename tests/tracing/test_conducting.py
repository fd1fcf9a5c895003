"""The conductor's traces: fallback blocks, and failovers step by step."""

from itertools import pairwise

from tests.tracing.stage_rig import Rig, hex_id
from tracing import names
from tracing.conducting import BlockTrace, FailoverTrace
from tracing.context import block_root, failover_root
from tracing.reading import between_s, orphans, root, trace

PAYLOAD = b"\3" * 8


def test_a_fallback_block_is_in_the_trace_that_the_op_node_names():
    rig = Rig()
    blocks = BlockTrace(rig.stages, 901, "a")
    named = block_root(901, PAYLOAD)
    blocks.sealing(7, named, 1.0, 2.9)
    blocks.sealed(7, "a", None, b"\5" * 32, 3, 3.0)
    whole = root(rig.traces()[hex_id(named)])
    assert (whole.start, whole.end, whole.attributes[names.OUTCOME]) == (1.0, 3.0, "fallback")


def test_a_failover_is_told_in_its_six_steps_without_a_gap():
    rig = Rig()
    failover = FailoverTrace(rig.stages, 901)
    told = []
    failover.on_finished = told.append
    failover.committed(False, 7, 3, 10.0)
    failover.elected(True, 10.2, 10.3)
    failover.claimed(4, 10.35)
    failover.starting(10.36)
    failover.started(10.40)
    failover.committed(True, 7, 4, 10.5)
    failover.committed(True, 7, 5, 10.7)
    spans = trace(rig.spans(), hex_id(failover_root(901, 4)))
    whole, *steps = spans
    assert (whole.start, whole.end, whole.attributes[names.CAUSE]) == (10.0, 10.5, "leader lost")
    assert [step.name for step in steps] == [
        names.DETECT,
        names.ELECT,
        names.CLAIM,
        names.CATCH_UP,
        names.RESUME,
        names.FIRST_FLASHBLOCK,
    ]
    for earlier, later in pairwise(steps):
        assert earlier.end == later.start
    assert between_s(spans) < 1e-6
    assert told == [
        {
            "epoch": 4,
            "cause": "leader lost",
            "block": 7,
            "index": 4,
            "took_ms": 500.0,
            "steps_ms": {
                "detect": 200.0,
                "elect": 100.0,
                "claim": 50.0,
                "catch-up": 10.0,
                "resume": 40.0,
                "first flashblock": 100.0,
            },
            "trace_id": hex_id(failover_root(901, 4)),
        }
    ]


def test_a_hand_over_and_a_first_leader_are_told_apart():
    causes = []
    for last_commit, noticed in ((10.0, None), (10.0, 2.0), (None, None)):  # the second: another one was lost before
        rig = Rig()
        failover = FailoverTrace(rig.stages, 901)
        if last_commit is not None:
            failover.committed(False, 7, 3, last_commit)
        failover.elected(True, noticed, 10.3)
        failover.claimed(4, 10.35)
        failover.committed(True, 7, 4, 10.5)
        causes.append(root(rig.spans()).attributes[names.CAUSE])
    assert causes == ["transfer", "transfer", "start"]


def test_leadership_lost_before_the_first_flashblock_is_no_failover():
    rig = Rig()
    failover = FailoverTrace(rig.stages, 901)
    failover.elected(True, None, 10.3)
    failover.claimed(4, 10.35)
    failover.elected(False, None, 10.4)
    failover.committed(False, 7, 4, 10.5)
    assert rig.spans() == []


def test_the_old_leader_tells_its_side_of_a_hand_over():
    rig = Rig()
    old, new = FailoverTrace(rig.stages, 901), FailoverTrace(rig.stages, 901)
    for each in (old, new):
        each.committed(each is old, 7, 3, 10.0)
    old.handing_over(10.1)
    old.elected(False, None, 10.2)
    new.elected(True, None, 10.25)
    for each in (old, new):
        each.claimed(4, 10.3) if each is new else each.claimed_elsewhere(4, 10.3)
    new.committed(True, 7, 4, 10.5)
    spans = trace(rig.spans(), hex_id(failover_root(901, 4)))
    assert not orphans(spans)
    assert {(span.name, span.start, span.end) for span in spans} >= {
        (names.DETECT, 10.0, 10.1),
        (names.HAND_OVER, 10.1, 10.2),
        (names.CLAIM, 10.25, 10.3),
    }
    assert [span.name for span in spans].count(names.DETECT) == 1


def test_a_hand_over_that_failed_is_nobodys():
    rig = Rig()
    failover = FailoverTrace(rig.stages, 901)
    failover.handing_over(10.1)
    failover.claimed_elsewhere(4, 30.0)
    failover.handing_over(40.0)
    failover.elected(False, None, 41.0)
    failover.claimed_elsewhere(5, 60.0)
    assert rig.spans() == []
