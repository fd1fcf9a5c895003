"""Methods for operators on a port that others use too: each call carries the JWT, or it is refused."""

from __future__ import annotations

import inspect
import time
from collections.abc import Mapping
from typing import Any

from actors.rpc_server import CALLER, Method
from flashblocks.wire.jsonrpc import INVALID_PARAMS, SERVER_ERROR, RpcError
from flashblocks.wire.jwt import TokenError, check_token


def behind_token(secret: bytes | None, methods: Mapping[str, Method]) -> dict[str, Method]:
    """The same methods, refusing callers without a fresh token of `secret`; none at all where there is no secret."""
    if secret is None:
        return {}
    return {name: _checked(secret, name, method) for name, method in methods.items()}


def _checked(secret: bytes, name: str, method: Method) -> Method:
    signature = inspect.signature(method)

    async def call(*params: Any) -> Any:
        try:
            check_token(secret, CALLER.get().authorization, time.time())
        except TokenError as error:
            raise RpcError(SERVER_ERROR, f"{name} is for operators: {error}") from None
        try:
            signature.bind(*params)
        except TypeError:
            raise RpcError(INVALID_PARAMS, f"wrong number of arguments for {name}") from None
        return await method(*params)

    return call
