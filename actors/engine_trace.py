"""The Engine API's spans in an execution client: what it was asked about a block, in that block's trace."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from actors.rpc_server import CALLER, Method
from flashblocks.wire.jsonrpc import RpcError
from tracing import names
from tracing.stages import Stages

SPANS = {
    "engine_forkchoiceUpdatedV3": names.FORKCHOICE_UPDATED,
    "engine_newPayloadV3": names.NEW_PAYLOAD,
    "engine_newPayloadV4": names.NEW_PAYLOAD,
    "engine_getPayloadV3": names.GET_PAYLOAD,
    "engine_getPayloadV4": names.GET_PAYLOAD,
}


def traced_methods(stages: Stages, methods: Mapping[str, Method]) -> dict[str, Method]:
    """The same methods, those of `SPANS` with a span for each call that names its block's trace."""
    if not stages.tracer.enabled:
        return dict(methods)
    return {name: _traced(stages, name, serve) if name in SPANS else serve for name, serve in methods.items()}


def _traced(stages: Stages, method: str, serve: Method) -> Method:
    async def served(*params: Any) -> Any:
        traceparent = CALLER.get().traceparent
        if not traceparent:
            return await serve(*params)
        began, error, status = time.time(), None, ""
        try:
            answer = await serve(*params)
            error = _refusal(answer)
            return answer
        except RpcError as refused:
            error, status = refused.message, str(refused.code)
            raise
        finally:
            stages.call(traceparent, SPANS[method], began, time.time(), error, method=method, status=status)

    return served


def _refusal(answer: Any) -> str | None:
    """What is wrong with a payload, in the answer's own words; SYNCING is no error."""
    status = answer.get("payloadStatus", answer) if isinstance(answer, dict) else {}
    return f"INVALID {status.get('validationError') or ''}".rstrip() if status.get("status") == "INVALID" else None
