"""The Engine API's spans of an execution client: in the caller's trace, with what the conventions want."""

from pathlib import Path
from typing import Any

import pytest

from actors.engine_trace import traced_methods
from actors.rpc_server import CALLER, Caller
from flashblocks.wire.jsonrpc import RpcError
from tracing import names
from tracing.context import block_root
from tracing.reading import Span, read_files
from tracing.stages import Stages
from tracing.tracer import make_tracer, no_tracer

ROOT = block_root(901, b"\3" * 8)


async def spans_of(directory: Path, method: str, answer: Any, traceparent: str) -> list[Span]:
    async def serve(*_: Any) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    stages = Stages(make_tracer("fallback-el", "sequencer-0", directory, {}))
    CALLER.set(Caller(traceparent=traceparent))
    served = traced_methods(stages, {method: serve})[method]
    if isinstance(answer, Exception):
        with pytest.raises(type(answer)):
            await served("params")
    else:
        assert await served("params") == answer
    stages.close()
    return read_files(directory)


async def test_a_call_that_names_its_trace_has_a_span_there(tmp_path):
    answer = {"payloadStatus": {"status": "VALID"}, "payloadId": "0x03"}
    (span,) = await spans_of(tmp_path, "engine_forkchoiceUpdatedV3", answer, ROOT.traceparent)
    assert (span.name, span.service, span.parent_id) == (
        names.FORKCHOICE_UPDATED,
        "fallback-el",
        f"{ROOT.span_id:016x}",
    )
    assert span.trace_id == f"{ROOT.trace_id:032x}"
    assert span.error is None
    assert span.attributes == {
        "rpc.system.name": "jsonrpc",
        "rpc.method": "engine_forkchoiceUpdatedV3",
        "jsonrpc.protocol.version": "2.0",
    }


@pytest.mark.parametrize("traceparent", ["", "no traceparent"])
async def test_a_call_that_names_none_has_none(tmp_path, traceparent):
    assert await spans_of(tmp_path, "engine_newPayloadV4", {"status": "VALID"}, traceparent) == []


async def test_a_refusal_is_an_error_with_its_code(tmp_path):
    (span,) = await spans_of(tmp_path, "engine_getPayloadV4", RpcError(-38001, "Unknown payload"), ROOT.traceparent)
    assert (span.name, span.error) == (names.GET_PAYLOAD, "Unknown payload")
    assert span.attributes["rpc.response.status_code"] == span.attributes["error.type"] == "-38001"


async def test_an_invalid_payload_is_an_error_and_syncing_is_none(tmp_path):
    invalid = {"status": "INVALID", "validationError": "state root"}
    (span,) = await spans_of(tmp_path / "a", "engine_newPayloadV4", invalid, ROOT.traceparent)
    assert span.error == "INVALID state root"
    (span,) = await spans_of(tmp_path / "b", "engine_newPayloadV4", {"status": "SYNCING"}, ROOT.traceparent)
    assert span.error is None


def test_without_tracing_methods_are_as_they_were():
    async def serve() -> None: ...

    methods = {"engine_newPayloadV4": serve}
    assert traced_methods(Stages(no_tracer()), methods) == methods
