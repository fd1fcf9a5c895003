"""What the commands say and ask where a cluster lives on many hosts."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec
import orjson
import pytest
from aiohttp import web

import cli.up
from actors.endpoints import describe_hosts
from actors.join_order import ORDER_FILE
from actors.joined_starter import Joined, Left, NoToken, environment_for_joining
from actors.keeper_client import fetch_first
from actors.placement import Host, place
from actors.plan import ClusterOptions
from actors.run_directory import ROOT_VARIABLE, AlreadyRunning, RunDirectory, claim, clean_after_crash
from cli.down import left_words
from cli.output import CommandError
from cli.replace_host import words_for
from cli.running import find
from cli.snapshot import components
from cli.up import hosts_words
from cli.view import StreamView
from tests.actors.test_join_order import order

ONE = order()
FOUND = describe_hosts(ONE, ONE.plan(), pids={}, restarts={}, chain={}, alive=set())


@pytest.fixture
def directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[RunDirectory]:
    root = Path(f"/tmp/fbm{os.getpid()}")  # short: Ray's socket paths end at 107 bytes
    monkeypatch.setenv(ROOT_VARIABLE, str(root))
    made = RunDirectory("x")
    made.path.mkdir(mode=0o700, parents=True)
    root.chmod(0o700)
    made.state.write_bytes(msgspec.json.encode(ONE.state()))
    yield made
    made.remove()
    assert not root.exists()


def test_status_looks_at_rollup_boost_where_other_hosts_may() -> None:
    urls = {(instance, component): url for instance, component, _, url in components(FOUND)}
    assert urls["sequencer-2", "rollup-boost"] == "http://10.0.0.12:7300"
    assert urls["sequencer-2", "builder"] == "http://10.0.0.12:8543"


def test_up_says_what_runs_where_and_what_can_be_reached() -> None:
    lines = hosts_words(FOUND)
    assert lines[0].split("; ") == [
        "10.0.0.10        sequencer-0",
        "beyond loopback: 5050 7300 8543 8544 8546 8547 9545",
    ]
    assert lines[5].startswith("10.0.0.21        proxy-0, proxy-1, ingress-0, rpc-0;")
    assert hosts_words({"groups": []}) == []


def test_down_names_the_hosts_it_could_not_clean(directory: RunDirectory) -> None:
    done, silent = left_words(directory, Left(actors=36, cleaned=["a", "b"], silent=["10.0.0.13"]))
    assert "36 actors ended, files removed on 2 hosts; Ray goes on" in done
    assert f"no answer from 10.0.0.13: remove {directory.path} there by hand" in silent
    (only,) = left_words(directory, Left(error="no route"))
    assert "only this host's files were removed" in only


async def test_a_system_that_serves_is_not_ended_because_this_host_cannot_reach_its_stream(
    directory: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = [Host(address="127.0.0.9", sequencer=True, edge=True)]  # where nobody listens
    placement = place(here, groups=5, proxies=1, rpc_nodes=1, ingresses=1)
    one = order(placement=placement, options=ClusterOptions(name="x", proxies=1))
    (directory.path / ORDER_FILE).write_bytes(msgspec.json.encode(one))
    happened = [{"event": event, "after_s": 0.1} for event in ("actors-created", "going-on-without", "ready")]
    happened[1]["hosts"] = ["127.0.0.10"]
    directory.progress.write_bytes(b"".join(orjson.dumps(event) + b"\n" for event in happened))
    monkeypatch.setattr(cli.up, "FIRST_FLASHBLOCK_S_MAX", 0.1)
    process = subprocess.Popen(["true"])  # noqa: ASYNC220
    process.wait()
    started, shown = Joined(directory, process), list[str]()
    with pytest.raises(CommandError, match=r"ws://127\.0\.0\.9:8550/ws: does a firewall"):
        await cli.up._until_first_flashblock(started, StreamView(), shown.append, 0)
    assert started.detached
    assert shown == ["   0.1 s  no answer from 127.0.0.10: going on without"]


def test_it_runs_until_it_is_ended_by_command(directory: RunDirectory) -> None:
    assert directory.is_joined()
    assert find("x").name == "x"
    assert clean_after_crash(directory) == 0
    assert directory.state.exists()
    with pytest.raises(AlreadyRunning):
        claim("x")


def test_a_missing_token_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(NoToken, match="flashblocks ray token"):
        environment_for_joining({"RAY_AUTH_TOKEN_PATH": str(tmp_path / "none")})
    (tmp_path / "token").write_text("ab")
    found = environment_for_joining({"RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")})
    assert found["RAY_AUTH_MODE"] == "token"
    assert environment_for_joining({"RAY_AUTH_MODE": "disabled"})["RAY_AUTH_MODE"] == "disabled"


async def test_the_keeper_is_wherever_one_of_the_edge_hosts_answers() -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=orjson.dumps({"name": "x"}))

    app = web.Application()
    app.router.add_get("/endpoints.json", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        urls = ["http://127.0.0.1:1/endpoints.json", f"http://127.0.0.1:{port}/endpoints.json"]
        assert await fetch_first(urls, 10.0) == b'{"name":"x"}'
        assert await fetch_first([f"http://127.0.0.1:{port}/other"], 10.0) is None
        assert await fetch_first(urls[:1], 10.0) is None
    finally:
        await runner.cleanup()


def test_a_replacement_tells_what_an_operator_waits_for() -> None:
    assert words_for({"event": "ordered", "version": 2, "hosts": 5}) == "order 2 is with 5 hosts"
    assert words_for({"event": "renewed", "host": "10.0.0.11"}) == "10.0.0.11: serves"
    assert words_for({"event": "component-up", "component": "x"}) == ""
