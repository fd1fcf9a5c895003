"""The load's own arithmetic, refusals and patience; what it does to a cluster is in tests/system."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
import structlog

from actors.rpc_server import RpcServer
from chaos import load
from chaos.load import Load, LoadError, LoadOptions, quantiles
from flashblocks.wire.hexadecimal import data, to_bytes, to_int
from flashblocks.wire.jsonrpc import RpcError
from flashblocks.wire.keccak import keccak256

ENDPOINTS: dict[str, Any] = {
    "chain_id": 901,
    "accounts": [],
    "stream": [],
    "rpc": {"http": "http://127.0.0.1:1", "ws": "ws://127.0.0.1:1"},
}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], {}),
        ([7.0], {"p50": 7.0, "p90": 7.0, "p99": 7.0, "max": 7.0}),
        ([float(n) for n in range(100, 0, -1)], {"p50": 50.0, "p90": 90.0, "p99": 99.0, "max": 100.0}),
        ([1.0, 2.0, 3.0, 1000.0], {"p50": 2.0, "p90": 1000.0, "p99": 1000.0, "max": 1000.0}),
    ],
)
def test_quantiles_are_the_nearest_rank(values: list[float], expected: dict[str, float]) -> None:
    assert quantiles(values) == expected


@pytest.mark.parametrize(
    ("endpoints", "options", "text"),
    [
        ({**ENDPOINTS, "rpc": None}, LoadOptions(tps=1), "no rpc-node"),
        (ENDPOINTS, LoadOptions(tps=0), "--tps"),
        (ENDPOINTS, LoadOptions(tps=1, mix=("transfer", "erc721")), "--mix: choose from transfer, erc20"),
        (ENDPOINTS, LoadOptions(tps=1, mix=()), "--mix"),
    ],
)
def test_load_that_cannot_be_made_is_refused(endpoints: dict[str, Any], options: LoadOptions, text: str) -> None:
    with pytest.raises(LoadError, match=text):
        Load(endpoints, options)


class Node:
    """Answers nothing to the first `silent` transactions it is sent, refuses `refused` more, and seals the others."""

    def __init__(self, silent: int = 0, refused: int = 0) -> None:
        self.silent, self.refused = silent, refused
        self.over = asyncio.Event()
        self.hashes: list[str] = []
        self.sealed: list[list[str]] = []

    async def transaction(self, raw: Any) -> str:
        if self.silent:
            self.silent -= 1
            await self.over.wait()
        if self.refused:
            self.refused -= 1
            raise RpcError(-32000, "no room")
        name = data(keccak256(to_bytes(raw)))
        if name in self.hashes:
            raise RpcError(-32000, "already known")
        self.hashes.append(name)
        return name

    async def block(self, number: Any, _full: Any) -> dict[str, Any] | None:
        if to_int(number) > len(self.sealed):
            new = self.hashes[sum(map(len, self.sealed)) :]
            if not new:
                return None
            self.sealed.append(new)
        return {"number": number, "transactions": self.sealed[to_int(number) - 1]}


@contextlib.asynccontextmanager
async def serving(node: Node) -> AsyncIterator[dict[str, Any]]:
    async def nothing(*_: Any) -> str:
        return "0x0"

    methods = {
        "eth_blockNumber": nothing,
        "eth_getTransactionCount": nothing,
        "eth_sendRawTransaction": node.transaction,
        "eth_getBlockByNumber": node.block,
    }
    server = RpcServer("127.0.0.1", 0, methods, name="node", log=structlog.get_logger())
    await server.start()
    account = {"address": "0x7e5f4552091a69125d5dfcb7b8c2659029395bdf", "private_key": "0x" + "01".rjust(64, "0")}
    try:
        yield {**ENDPOINTS, "accounts": [account], "rpc": {"http": server.url}}
    finally:
        node.over.set()
        await server.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "SEND_S_MAX", 0.2)
    monkeypatch.setattr(load, "RETRY_S", 0.01)
    monkeypatch.setattr(load, "SEALED_POLL_S", 0.01)


@pytest.mark.usefixtures("impatient")
async def test_what_got_no_answer_is_sent_again_until_it_has_one() -> None:
    """One nonce that stays out would keep all later transactions of its account from ever being sealed."""
    node = Node(silent=60)
    async with serving(node) as endpoints:
        report = await Load(endpoints, LoadOptions(tps=50, duration_s=0.4)).run()
    assert (report.due, report.sent, report.sealed, report.unknown, report.refused) == (20, 20, 20, 0, 0)
    assert sum(report.errors.values()) == 60


@pytest.mark.usefixtures("impatient")
async def test_what_never_gets_an_answer_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "SETTLE_S_MAX", 0.5)
    async with serving(Node(silent=10**6)) as endpoints:
        report = await Load(endpoints, LoadOptions(tps=50, duration_s=0.1)).run()
    assert (report.due, report.sent, report.sealed, report.unknown) == (5, 0, 0, 5)


@pytest.mark.usefixtures("impatient")
async def test_a_refused_nonce_is_used_again() -> None:
    node = Node(refused=3)
    async with serving(node) as endpoints:
        report = await Load(endpoints, LoadOptions(tps=50, duration_s=0.2)).run()
    assert (report.due, report.sent, report.sealed, report.unknown, report.refused) == (10, 7, 7, 0, 3)
