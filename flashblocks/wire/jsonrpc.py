"""JSON-RPC 2.0 (jsonrpc.org) with the error codes in use on Ethereum's links (EIP-1474)."""

from __future__ import annotations

from typing import Any

import msgspec

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
SERVER_ERROR = -32000
RESOURCE_NOT_FOUND = -32001
LIMIT_EXCEEDED = -32005
EXECUTION_REVERTED = 3


class RpcError(Exception):
    """A protocol error that the peer is told: code, message, and data where the method defines some."""

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.code, self.message, self.data = code, message, data

    def to_json(self) -> dict[str, Any]:
        """Return the `error` member of a response."""
        error: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.data is not None:
            error["data"] = self.data
        return error


class Request(msgspec.Struct, frozen=True):
    """One call; `id` is None for a notification, which gets no answer."""

    method: str
    params: list[Any]
    id: int | float | str | None
    notification: bool = False


def read_request(obj: Any) -> Request:
    """Read one call out of parsed JSON; raises RpcError INVALID_REQUEST. Named parameters are refused."""
    if not isinstance(obj, dict) or not isinstance(obj.get("method"), str):
        raise RpcError(INVALID_REQUEST, "invalid request")
    identifier = obj.get("id")
    if isinstance(identifier, bool) or not isinstance(identifier, int | float | str | None):
        raise RpcError(INVALID_REQUEST, "invalid request: id")
    params = obj.get("params")
    if params is None:
        params = []
    if not isinstance(params, list):
        raise RpcError(INVALID_PARAMS, "non-array args")
    return Request(obj["method"], params, identifier, "id" not in obj)


def answer(identifier: Any, result: Any) -> dict[str, Any]:
    """Return a response that carries a result."""
    return {"jsonrpc": "2.0", "id": identifier, "result": result}


def refusal(identifier: Any, error: RpcError) -> dict[str, Any]:
    """Return a response that carries an error."""
    return {"jsonrpc": "2.0", "id": identifier, "error": error.to_json()}
