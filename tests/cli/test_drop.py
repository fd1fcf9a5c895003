"""`flashblocks drop`: what it refuses, whom it asks, and what it says."""

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import structlog

from actors.operator_token import behind_token
from actors.rpc_server import RpcServer
from cli import drop
from cli.main import main
from flashblocks.wire.jsonrpc import RpcError

SECRET = b"\x5a" * 32
HASH, ACCOUNT = "0x" + "ab" * 32, "0x" + "cd" * 20

Answer = Callable[..., Any]


class Doors:
    """Servers of operators' methods on a loop of their own, as the command has one of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = Thread(target=self.loop.run_forever)
        self._thread.start()
        self.servers: list[RpcServer] = []

    def open(self, name: str, answer: Answer) -> dict[str, str]:
        async def drop_transaction(tx_hash: str) -> Any:
            return answer(tx_hash)

        async def drop_sender(account: str) -> Any:
            return answer(account)

        async def clear() -> Any:
            return answer()

        methods = {
            "admin_dropTransaction": drop_transaction,
            "admin_dropSenderTransactions": drop_sender,
            "admin_clearTxpool": clear,
        }
        server = RpcServer("127.0.0.1", 0, behind_token(SECRET, methods), name=name, log=structlog.get_logger())
        asyncio.run_coroutine_threadsafe(server.start(), self.loop).result(10)
        self.servers.append(server)
        return {"name": name, "http": server.url}

    def close(self) -> None:
        for server in self.servers:
            asyncio.run_coroutine_threadsafe(server.close(), self.loop).result(10)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()


@pytest.fixture
def doors() -> Iterator[Doors]:
    made = Doors()
    yield made
    made.close()


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the command takes for the running cluster."""
    (tmp_path / "jwt.hex").write_text(SECRET.hex())
    found: dict[str, Any] = {"jwt_secret": str(tmp_path / "jwt.hex"), "rpc_nodes": [], "ingress": []}
    monkeypatch.setattr(drop, "find", lambda name: name)
    monkeypatch.setattr(drop, "endpoints", lambda run: found)
    return found


def test_every_rpc_node_is_asked_and_a_transaction_counts_once(
    doors: Doors, cluster: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []
    cluster["rpc_nodes"] = [
        doors.open("rpc-0", lambda what="all": asked.append(what) or {HASH: True, ACCOUNT: [HASH]}.get(what, 3)),
        doors.open("rpc-1", lambda what="all": asked.append(what) or {HASH: False, ACCOUNT: []}.get(what, 0)),
    ]
    assert main(["drop", HASH]) == 0
    assert main(["drop", ACCOUNT]) == 0
    assert main(["drop", "all", "--json"]) == 0
    assert asked == [HASH, HASH, ACCOUNT, ACCOUNT, "all", "all"]
    first, second, *rest = capsys.readouterr().out.splitlines()
    assert (first, second, json.loads("".join(rest))) == ("dropped 1", "dropped 1", {"dropped": 3})


def test_without_an_rpc_node_the_ingresses_are_asked(
    doors: Doors, cluster: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    cluster["ingress"] = [doors.open("ingress-0", lambda *_: False)]
    assert main(["drop", HASH]) == 1
    assert "nothing of that waits" in capsys.readouterr().out


def test_who_does_not_drop_is_named(
    doors: Doors, cluster: dict[str, Any], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def refuse(*_: Any) -> Any:
        raise RpcError(-32000, "dropped here and in 1 of 2 pools; not in http://there")

    cluster["rpc_nodes"] = [doors.open("rpc-0", refuse), doors.open("rpc-1", lambda *_: True)]
    assert main(["drop", HASH]) == 1
    assert "rpc-0: dropped here and in 1 of 2 pools; not in http://there" in capsys.readouterr().err
    other = tmp_path / "other.hex"
    other.write_text("11" * 32)
    assert main(["drop", HASH, "--jwt-secret", str(other)]) == 1
    assert "rpc-1: admin_dropTransaction is for operators: invalid token" in capsys.readouterr().err


@pytest.mark.parametrize("what", ["everything", "0x12", "ab" * 33, "0x" + "ab" * 33])
def test_what_is_neither_hash_nor_account_is_refused(
    what: str, cluster: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["drop", what]) == 1
    assert "expected a transaction's hash, an account or: all" in capsys.readouterr().err


def test_without_the_secret_it_says_what_to_do(
    cluster: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "jwt.hex").unlink()
    assert main(["drop", HASH]) == 1
    assert "--jwt-secret" in capsys.readouterr().err
