"""The op-node's spans: each step in the trace of the block it is about, found again from the id alone."""

from pathlib import Path

from prometheus_client import CollectorRegistry

from actors.op_node_trace import OpNodeTrace
from actors.rpc_server import CALLER, Caller
from flashblocks.sequencing.driver import AskOpenBlock, Commit, Insert, SealBlock
from flashblocks.wire.engine import Envelope, ExecutionPayload
from tracing import names
from tracing.context import block_root, parse_traceparent
from tracing.reading import Span, read_files

PAYLOAD = b"\3" * 8
ENVELOPE = Envelope(
    parent_beacon_block_root=b"\0" * 32,
    payload=ExecutionPayload(
        parent_hash=b"\1" * 32,
        fee_recipient=b"\0" * 20,
        state_root=b"\0" * 32,
        receipts_root=b"\0" * 32,
        logs_bloom=b"\0" * 256,
        prev_randao=b"\0" * 32,
        block_number=22,
        gas_limit=1,
        gas_used=0,
        timestamp=1,
        extra_data=b"",
        base_fee_per_gas=1,
        block_hash=b"\2" * 32,
        transactions=(),
        blob_gas_used=0,
        excess_blob_gas=0,
        withdrawals_root=b"\0" * 32,
    ),
)


def recorded(trace: OpNodeTrace, directory: Path) -> list[Span]:
    trace.stages.close()
    return sorted(read_files(directory), key=lambda span: span.start)


def test_the_steps_of_a_block_are_in_its_trace(tmp_path: Path) -> None:
    trace = OpNodeTrace(901, "sequencer-0", str(tmp_path), CollectorRegistry())
    root = block_root(901, PAYLOAD)
    assert trace.begins(AskOpenBlock(1)) is None
    headers = trace.begins(SealBlock(1, PAYLOAD))
    assert headers is not None
    assert parse_traceparent(headers["traceparent"]) == root
    trace.ended(SealBlock(1, PAYLOAD), 0.3)
    for step in (Commit(1, ENVELOPE), Insert(1, ENVELOPE)):
        assert trace.begins(step) == headers
    trace.ended(Commit(1, ENVELOPE), 0.2, "prefix mismatch")
    trace.ended(Insert(1, ENVELOPE), 0.1)
    spans = recorded(trace, tmp_path)
    assert [span.name for span in spans] == [names.GET_PAYLOAD, names.COMMIT_PAYLOAD, names.IMPORT]
    assert {(span.trace_id, span.parent_id) for span in spans} == {(f"{root.trace_id:032x}", f"{root.span_id:016x}")}
    assert [span.error for span in spans] == [None, "prefix mismatch", None]
    assert spans[2].attributes[names.BLOCK_NUMBER] == 22


def test_an_import_is_in_the_trace_that_the_conductor_names(tmp_path: Path) -> None:
    trace = OpNodeTrace(901, "sequencer-1", str(tmp_path), CollectorRegistry())
    trace.imported(ENVELOPE, 0.2, "next")  # nobody named one: only counted
    token = CALLER.set(Caller(traceparent=block_root(901, PAYLOAD).traceparent))
    trace.imported(ENVELOPE, 0.1, "next")
    CALLER.reset(token)
    (span,) = recorded(trace, tmp_path)
    assert (span.name, span.trace_id) == (names.IMPORT, f"{block_root(901, PAYLOAD).trace_id:032x}")
    assert (span.service, span.instance, span.attributes[names.OUTCOME]) == ("op-node", "sequencer-1", "next")
