"""Stages, builds, sends, blocks and failovers: which spans they make, and that none is left without its root."""

import random
from collections import defaultdict
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from prometheus_client import CollectorRegistry

from tracing import names
from tracing.building import SAMPLED_PER_FLASHBLOCK_MAX, SLOW_POOL_WAIT_S, BuildTrace
from tracing.conducting import BlockTrace, FailoverTrace
from tracing.context import (
    FrameContext,
    TraceRoot,
    block_root,
    failover_root,
    parse_frame_context,
    root_of,
    transaction_root,
)
from tracing.otlp_json import spans_to_json
from tracing.pending import PendingTrace
from tracing.reading import Span, between_s, orphans, phases, root, shares, spans_of_jaeger, spans_of_otlp, trace
from tracing.sending import ERRORS_PER_S_MAX, WAITING_S_MAX, SendTrace
from tracing.stages import METRIC, Stages
from tracing.tracer import Tracer, no_tracer

PAYLOAD = b"\3" * 8
HASHES = [bytes([number]) * 32 for number in range(1, 41)]


class Kept(SpanExporter):
    def __init__(self):
        self.lines = []

    def export(self, spans):
        self.lines.append(spans_to_json(spans))
        return SpanExportResult.SUCCESS


class Rig:
    """One tracer and what it recorded."""

    def __init__(self, sampled_share=1.0):
        self._kept = Kept()
        self.registry = CollectorRegistry()
        self.tracer = Tracer("test", "0", self._kept, sampled_share=sampled_share)
        self.stages = Stages(self.tracer, self.registry)

    def spans(self):
        self.tracer.close()
        return [span for line in self._kept.lines for span in spans_of_otlp(line)]

    def traces(self):
        found = defaultdict(list)
        for span in self.spans():
            found[span.trace_id].append(span)
        return found


def hex_id(context):
    return f"{context.trace_id:032x}"


def test_any_span_leads_to_the_root_of_its_trace():
    whole = block_root(901, PAYLOAD)
    assert root_of(TraceRoot(whole.trace_id, 77)) == whole


def test_a_frames_text_names_the_build_and_the_transactions():
    context = FrameContext(TraceRoot(1 << 100, 7), tuple(HASHES[:2]))
    assert parse_frame_context(context.text) == context
    assert parse_frame_context(context.build.traceparent) == FrameContext(context.build)
    assert parse_frame_context(context.build.traceparent + " zz") == FrameContext(context.build)
    assert parse_frame_context("") is None


def test_a_stage_is_a_span_of_the_block_and_of_each_traced_transaction_and_a_duration():
    rig = Rig()
    build = TraceRoot(block_root(901, PAYLOAD).trace_id, 99)
    text = FrameContext(build, (HASHES[0],)).text
    rig.stages.flashblock(text, names.JUDGE, 1.0, 1.5, number=7, index=2, payload_id=PAYLOAD, error="gap")
    of_block, of_transaction = rig.spans()
    assert of_block.trace_id == hex_id(build)
    assert of_block.parent_id == f"{block_root(901, PAYLOAD).span_id:016x}"
    assert of_block.links == ((hex_id(build), f"{99:016x}"),)
    assert of_transaction.trace_id == hex_id(transaction_root(HASHES[0]))
    assert of_transaction.links == ((of_block.trace_id, of_block.span_id),)
    assert (of_block.error, of_block.attributes[names.FLASHBLOCK_INDEX]) == ("gap", 2)
    assert rig.registry.get_sample_value(f"{METRIC}_sum", {"stage": names.JUDGE}) == 0.5


def test_without_a_frames_text_only_the_duration_is_counted():
    rig = Rig()
    rig.stages.flashblock("", names.JUDGE, 1.0, 1.5, number=7, index=2, payload_id=PAYLOAD)
    assert rig.spans() == []
    assert rig.registry.get_sample_value(f"{METRIC}_count", {"stage": names.JUDGE}) == 1


def test_a_tracer_that_is_off_makes_no_text_and_keeps_nothing():
    builder = BuildTrace(Stages(no_tracer()), 901)
    builder.arrived(HASHES[0], 1.0)
    assert builder.built(PAYLOAD, 7, 1, 1.0, 2.0, HASHES[:1]) == ""


def test_the_builder_traces_a_bounded_sample_the_slow_ones_and_all_after_a_failover():
    rig = Rig()
    builder = BuildTrace(rig.stages, 901)
    slow = HASHES[-1]
    for tx_hash in HASHES:
        builder.arrived(tx_hash, 5.0 if tx_hash != slow else 5.0 - 2 * SLOW_POOL_WAIT_S)
    foreign = b"\xfe" * 32
    text = builder.built(PAYLOAD, 7, 1, 5.1, 5.2, [*HASHES, foreign])
    chosen = parse_frame_context(text).transactions
    assert chosen == (*HASHES[:SAMPLED_PER_FLASHBLOCK_MAX], slow)
    builder.took_over()
    assert parse_frame_context(builder.built(PAYLOAD, 7, 1, 5.1, 5.2, HASHES)).transactions == tuple(HASHES)
    builder.published(PAYLOAD, 7, 1, HASHES, 5.3)
    spans = rig.spans()
    (include,) = [
        span for span in spans if span.name == names.INCLUDE and span.trace_id == hex_id(transaction_root(slow))
    ]
    (wait,) = [span for span in spans if span.name == names.POOL and span.trace_id == include.trace_id]
    assert (wait.start, wait.end, include.start, include.end) == (3.0, 5.1, 5.1, 5.3)
    assert include.links[0] == [(span.trace_id, span.span_id) for span in spans if span.name == names.BUILD][-1]


def test_a_build_that_is_given_up_leaves_its_transactions_waiting():
    rig = Rig()
    builder = BuildTrace(rig.stages, 901)
    builder.arrived(HASHES[0], 1.0)
    builder.built(PAYLOAD, 7, 1, 2.0, 2.1, HASHES[:1])
    text = builder.built(PAYLOAD, 7, 2, 3.0, 3.1, HASHES[:1])
    builder.published(PAYLOAD, 7, 2, HASHES[:1], 3.2)
    assert parse_frame_context(text).transactions == (HASHES[0],)
    assert [span.end for span in rig.spans() if span.name == names.POOL] == [3.0]


def test_a_transaction_of_a_flashblock_that_came_to_nothing_is_traced_in_the_next():
    rig = Rig()
    builder = BuildTrace(rig.stages, 901)
    late = HASHES[-1]
    builder.arrived(late, 1.0)
    builder.built(PAYLOAD, 7, 10, 2.0, 2.1, [late])
    builder.published(PAYLOAD, 7, 10, [late], 2.2)  # too late: its block was sealed without it
    for tx_hash in HASHES:
        builder.arrived(tx_hash, 2.5)
    text = builder.built(b"\4" * 8, 8, 1, 2.6, 2.7, HASHES)
    chosen = parse_frame_context(text).transactions
    assert chosen == (late, *HASHES[: SAMPLED_PER_FLASHBLOCK_MAX - 1])
    builder.published(b"\4" * 8, 8, 1, HASHES, 2.8)
    own = [span for span in rig.spans() if span.trace_id == hex_id(transaction_root(late))]
    assert [(span.name, span.start, span.end) for span in own] == [
        (names.POOL, 1.0, 2.0),
        (names.INCLUDE, 2.0, 2.2),
        (names.POOL, 2.2, 2.6),
        (names.INCLUDE, 2.6, 2.8),
    ]


def test_the_sampler_has_a_say_in_ordinary_transactions_only():
    builder = BuildTrace(Rig(0.0).stages, 901)
    slow = HASHES[-1]
    for tx_hash in HASHES:
        builder.arrived(tx_hash, 5.0 if tx_hash != slow else 5.0 - 2 * SLOW_POOL_WAIT_S)
    context = parse_frame_context(builder.built(PAYLOAD, 7, 1, 5.1, 5.2, HASHES))
    assert context.transactions == (slow,)
    assert not context.build.sampled
    builder.took_over()
    context = parse_frame_context(builder.built(PAYLOAD, 7, 2, 5.1, 5.2, HASHES))
    assert context.transactions == tuple(HASHES)
    assert context.build.sampled


def test_a_share_of_the_transactions_is_the_same_share_everywhere():
    half = BuildTrace(Rig(0.5).stages, 901)
    for tx_hash in HASHES:
        half.arrived(tx_hash, 5.0)
    chosen = parse_frame_context(half.built(PAYLOAD, 7, 1, 5.1, 5.2, HASHES)).transactions
    assert 0 < len(chosen) < len(HASHES)
    rig = Rig(0.5)
    node = SendTrace(rig.stages, names.SEND)
    for tx_hash in HASHES:
        node.took(tx_hash, 5.0, 5.0, "")
    node.seen("", 7, None, HASHES, 5.5, 5.5)
    roots = {span.trace_id for span in rig.spans() if not span.parent_id}
    assert roots >= {hex_id(transaction_root(tx_hash)) for tx_hash in chosen}
    assert len(roots) < len(HASHES)


def test_a_block_whose_builder_kept_it_has_its_root_whatever_the_sampler_says():
    for kept in (False, True):
        rig = Rig(0.0)
        blocks = BlockTrace(rig.stages, 901, "a")
        assert not blocks.trace_of(PAYLOAD).sampled
        if kept:
            blocks.kept(7)
        blocks.sealing(7, None, 1.0, 2.9)
        blocks.sealed(7, "a", PAYLOAD, b"\5" * 32, 3, 3.0)
        assert [span.name for span in rig.spans()] == ([names.SEAL, names.BLOCK] if kept else [])


def test_streams_are_messaging_and_calls_are_rpc_by_the_conventions():
    kept = Kept()
    stages = Stages(Tracer("test", "0", kept))
    text = FrameContext(TraceRoot(block_root(901, PAYLOAD).trace_id, 9)).text
    for stage in (names.PUBLISH, names.FAN_OUT, names.PENDING, names.JUDGE):
        stages.flashblock(text, stage, 1.0, 1.1, number=7, index=1, payload_id=PAYLOAD)
    stages.call(block_root(901, PAYLOAD).traceparent, names.NEW_PAYLOAD, 1.0, 1.1, method="engine_newPayloadV4")
    stages.close()
    raw = [span for line in kept.lines for scope in line["resourceSpans"][0]["scopeSpans"] for span in scope["spans"]]
    producer, consumer, server, internal = 4, 5, 2, 1  # opentelemetry-proto, Span.SpanKind
    assert [span["kind"] for span in raw] == [producer, producer, consumer, internal, server]
    told = [{one["key"]: one["value"].get("stringValue") for one in span["attributes"]} for span in raw]
    operations = [(one.get("messaging.operation.name"), one.get("messaging.operation.type")) for one in told]
    assert operations == [("publish", "send"), ("fan-out", "send"), ("show", "process"), (None, None), (None, None)]
    assert all(one["messaging.system"] == one["messaging.destination.name"] == "flashblocks" for one in told[:3])
    assert (told[4]["rpc.system.name"], told[4]["rpc.method"]) == ("jsonrpc", "engine_newPayloadV4")


def test_what_a_block_holds_no_longer_waits():
    rig = Rig()
    builder = BuildTrace(rig.stages, 901)
    builder.arrived(HASHES[0], 1.0)
    builder.landed(HASHES[0])
    builder.landed(HASHES[0])
    text = builder.built(PAYLOAD, 7, 1, 2.0, 2.1, HASHES[:1])
    assert parse_frame_context(text).transactions == ()


def test_the_ingress_records_the_root_only_when_no_rpc_node_did():
    rig = Rig()
    ingress = SendTrace(rig.stages, names.ADMIT)
    ours = transaction_root(HASHES[0]).traceparent
    wallet = TraceRoot(5 << 70, 6)
    ingress.took(HASHES[0], 1.0, 1.1, ours)
    ingress.took(HASHES[1], 1.0, 1.1, wallet.traceparent)
    text = FrameContext(TraceRoot(block_root(901, PAYLOAD).trace_id, 9), tuple(HASHES[:2])).text
    ingress.seen(text, 7, 1, HASHES[:2], 1.4, 1.4)
    traces = rig.traces()
    assert [span.name for span in traces[hex_id(transaction_root(HASHES[0]))]] == [names.ADMIT]
    whole = root(traces[hex_id(transaction_root(HASHES[1]))])
    assert whole.name == names.SEND
    assert whole.links == ((hex_id(wallet), f"{6:016x}"),)


def test_a_slow_transaction_that_the_builder_did_not_choose_has_its_admission_below_its_root():
    rig = Rig()
    node, ingress = SendTrace(rig.stages, names.SEND), SendTrace(rig.stages, names.ADMIT)
    node.took(HASHES[0], 1.0, 1.0, "")
    ingress.took(HASHES[0], 1.1, 1.1, transaction_root(HASHES[0]).traceparent)
    ingress.answered(HASHES[0], 2.6)
    text = FrameContext(TraceRoot(block_root(901, PAYLOAD).trace_id, 9)).text
    ingress.seen(text, 7, 1, HASHES[:1], 2.8, 2.8)
    node.seen(text, 7, 1, HASHES[:1], 2.8, 2.9)
    spans = trace(rig.spans(), hex_id(transaction_root(HASHES[0])))
    assert [span.name for span in spans] == [names.SEND, names.ADMIT, names.PRECONFIRM]
    assert not orphans(spans)


def test_every_part_of_send_to_preconfirmed_is_a_histogram():
    rig = Rig()
    builder = BuildTrace(rig.stages, 901)
    node, ingress = SendTrace(rig.stages, names.SEND), SendTrace(rig.stages, names.ADMIT)
    builder.arrived(HASHES[0], 1.2)
    node.took(HASHES[0], 1.0, 1.0, "")
    ingress.took(HASHES[0], 1.1, 1.1, transaction_root(HASHES[0]).traceparent)
    ingress.answered(HASHES[0], 1.15)
    text = builder.built(PAYLOAD, 7, 1, 1.4, 1.5, HASHES[:1])
    builder.published(PAYLOAD, 7, 1, HASHES[:1], 1.6)
    ingress.seen(text, 7, 1, HASHES[:1], 1.7, 1.7)
    node.seen(text, 7, 1, HASHES[:1], 1.7, 1.9)
    sums = {
        stage: rig.registry.get_sample_value(f"{METRIC}_sum", {"stage": stage})
        for stage in ("send to preconfirmed", names.ADMIT, names.POOL, names.INCLUDE, names.PRECONFIRM)
    }
    assert sums == pytest.approx(
        {"send to preconfirmed": 0.9, names.ADMIT: 0.05, names.POOL: 0.2, names.INCLUDE: 0.2, names.PRECONFIRM: 0.2}
    )


def test_a_refusal_is_a_trace_apart_and_bounded():
    rig = Rig()
    node = SendTrace(rig.stages, names.SEND)
    for _ in range(ERRORS_PER_S_MAX + 20):
        node.refused(HASHES[0], 1.0, 1.1, "", "nonce too low")
    spans = rig.spans()
    assert len(spans) == ERRORS_PER_S_MAX
    assert {span.error for span in spans} == {"nonce too low"}
    assert hex_id(transaction_root(HASHES[0])) not in {span.trace_id for span in spans}


def test_a_refused_copy_does_not_forget_the_transaction_that_was_accepted():
    rig = Rig()
    node = SendTrace(rig.stages, names.SEND)
    node.took(HASHES[0], 1.0, 1.0, "")
    node.took(HASHES[0], 1.1, 1.1, "")
    node.refused(HASHES[0], 1.1, 1.2, "", "already known")
    node.seen("", 7, 1, HASHES[:1], 1.5, 1.5)
    assert root(rig.traces()[hex_id(transaction_root(HASHES[0]))]).end == 1.5


def test_what_is_never_seen_again_is_an_error():
    rig = Rig()
    node = SendTrace(rig.stages, names.SEND)
    node.took(HASHES[0], 1.0, 1.0, "")
    node.took(HASHES[1], 2.0 + WAITING_S_MAX, 2.0 + WAITING_S_MAX, "")
    (lost,) = rig.spans()
    assert (lost.name, lost.error) == (names.SEND, names.LOST)


@given(seed=st.integers(0, 2**32))
@settings(max_examples=25, deadline=None)
def test_no_span_is_without_its_root_whatever_is_republished_or_sealed_unseen(seed):
    """The rpc-node and the ingress may hear of a flashblock with its text, without it, or only of the block."""
    rig, dice = Rig(), random.Random(seed)
    builder = BuildTrace(rig.stages, 901)
    node, ingress = SendTrace(rig.stages, names.SEND), SendTrace(rig.stages, names.ADMIT)
    pending = PendingTrace(rig.stages, node)
    blocks = BlockTrace(rig.stages, 901, "a")
    hashes = HASHES[: dice.randrange(1, 40)]
    through_node = [tx_hash for tx_hash in hashes if dice.random() < 0.7]
    for tx_hash in hashes:
        header = ""
        if tx_hash in through_node:
            node.took(tx_hash, 1.0, 1.0, "")
            header = transaction_root(tx_hash).traceparent
        ingress.took(tx_hash, 1.0, 1.1, header)
        builder.arrived(tx_hash, 1.1)
    text = builder.built(PAYLOAD, 7, 1, 1.2, 1.3, hashes)
    builder.published(PAYLOAD, 7, 1, hashes, 1.3)
    rig.stages.flashblock(text, names.JUDGE, 1.3, 1.4, number=7, index=1, payload_id=PAYLOAD)
    for sees in (ingress.seen, node.seen):
        heard = dice.choice((text, "", None))
        if heard is None:
            sees("", 7, None, hashes, 1.6, 1.6)
        elif sees == node.seen:
            pending.arrived(b"d", 1.5)
            pending.shown(heard, b"d", 7, 1, PAYLOAD, hashes, 1.6)
        else:
            sees(heard, 7, 1, hashes, 1.6, 1.6)
    blocks.sealing(7, None, 1.0, 1.7)
    blocks.sealed(7, "a", PAYLOAD, b"\5" * 32, 3, 1.8)
    for spans in rig.traces().values():
        assert len([span for span in spans if not span.parent_id]) == 1
        assert not orphans(spans)


def test_a_successor_tells_again_of_the_block_its_killed_leader_sealed_last():
    rig = Rig()
    blocks = BlockTrace(rig.stages, 901, "b")
    blocks.began(7, 10.0)
    blocks.sealed(7, "a", PAYLOAD, b"\5" * 32, 3, 11.0)
    blocks.claimed(11.2)
    (whole,) = rig.spans()
    assert (whole.name, whole.parent_id, whole.start, whole.end) == (names.BLOCK, "", 10.0, 11.0)
    later = Rig()
    blocks = BlockTrace(later.stages, 901, "b")
    blocks.sealed(7, "a", PAYLOAD, b"\5" * 32, 3, 11.0)
    blocks.claimed(13.0)  # the leader had time to tell itself
    blocks.sealed(8, "a", PAYLOAD, b"\5" * 32, 3, 13.5)
    blocks.claimed(13.0)  # it was another one's death
    blocks.claimed(None)
    assert later.spans() == []


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


def span(name, start, end, parent="r", span_id=None):
    return Span(
        trace_id="t", span_id=span_id or name, parent_id=parent, name=name, service="s", instance="i", start=start,
        end=end, attributes={},
    )  # fmt: skip


def test_time_is_shared_out_and_the_rest_lies_between():
    spans = [
        span("whole", 0.0, 10.0, "", "r"),
        span("a", 1.0, 3.0),
        span("a", 2.0, 4.0, span_id="a2"),
        span("b", 9, 11),
    ]
    assert [(share.stage, share.seconds, share.count, share.seconds_max) for share in shares(spans)] == [
        ("a", 4.0, 2, 2.0),
        ("b", 2.0, 1, 2.0),
    ]
    assert between_s(spans) == 6.0
    assert [each.name for each in orphans([*spans, span("c", 1, 2, "gone")])] == ["c"]


def test_phases_count_what_goes_on_at_once_once():
    spans = [
        span("whole", 0.0, 10.0, "", "r"),
        span(names.POOL, 0.0, 3.0),
        span(names.INCLUDE, 3.0, 3.5),
        span(names.FAN_OUT, 5.0, 6.0),
        span(names.FAN_OUT, 5.5, 7.0, span_id="f2"),
        span(names.PRECONFIRM, 8.0, 8.5),
    ]
    assert phases(spans) == {"queue": 3.0, "build": 0.5, "fan-out": 2.5}
    assert phases([span("failover", 0.0, 1.0, "", "r")]) == {}


def test_jaegers_answer_reads_as_our_files_do():
    answer = {
        "data": [
            {
                "processes": {"p1": {"serviceName": "builder", "tags": [{"key": names.GROUP, "value": "sequencer-0"}]}},
                "spans": [
                    {
                        "traceID": "ab",
                        "spanID": "1",
                        "operationName": "block",
                        "processID": "p1",
                        "startTime": 2_000_000,
                        "duration": 500_000,
                        "references": [],
                        "tags": [{"key": "epoch", "value": 3}],
                    },
                    {
                        "traceID": "ab",
                        "spanID": "2",
                        "operationName": "flashblock judge",
                        "processID": "p1",
                        "startTime": 2_100_000,
                        "duration": 1_000,
                        "references": [{"refType": "CHILD_OF", "traceID": "ab", "spanID": "1"}],
                        "tags": [{"key": "error", "value": True}, {"key": names.OUTCOME, "value": "gap"}],
                    },
                ],
            }
        ]
    }
    whole, judge = spans_of_jaeger(answer)
    assert (whole.service, whole.instance, whole.start, whole.end) == ("builder", "sequencer-0", 2.0, 2.5)
    assert whole.attributes["epoch"] == 3
    assert (judge.parent_id, judge.error) == (whole.span_id, "gap")


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
