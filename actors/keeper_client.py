"""Asks the keeper of a cluster on many hosts where everything is."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from actors.rpc_client import RpcClient, RpcUnknown

HTTP_OK = 200


async def fetch_first(urls: Sequence[str], timeout_s: float) -> bytes | None:
    """The content of the first of *urls* that answers, all asked at once; None when none does in time."""
    asking = [asyncio.create_task(_fetch(url, timeout_s)) for url in urls]
    try:
        for each in asyncio.as_completed(asking):
            content = await each
            if content is not None:
                return content
        return None
    finally:
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)


async def _fetch(url: str, timeout_s: float) -> bytes | None:
    base, _, path = url.rpartition("/")
    client = RpcClient(base, timeout_s=timeout_s)
    try:
        status, content = await client.get(f"/{path}")
        return content if status == HTTP_OK else None
    except RpcUnknown:
        return None
    finally:
        await client.close()
