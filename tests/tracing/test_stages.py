"""Stages, builds, sends and blocks: which spans they make, and that none is left without its root."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tracing.stage_rig import Kept, Rig, hex_id
from tracing import names
from tracing.building import SAMPLED_PER_FLASHBLOCK_MAX, SLOW_POOL_WAIT_S, BuildTrace
from tracing.conducting import BlockTrace
from tracing.context import (
    FrameContext,
    TraceRoot,
    block_root,
    parse_frame_context,
    root_of,
    transaction_root,
)
from tracing.pending import PendingTrace
from tracing.reading import orphans, root, trace
from tracing.sending import ERRORS_PER_S_MAX, WAITING_S_MAX, SendTrace
from tracing.stages import METRIC, Stages
from tracing.tracer import Tracer, no_tracer

PAYLOAD = b"\3" * 8
HASHES = [bytes([number]) * 32 for number in range(1, 41)]


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
