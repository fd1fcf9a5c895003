"""The agent of a host: files arrive whole and private, reports follow the processes, only its own run is removed."""

import asyncio
import os
import shutil
import signal
import stat
import subprocess
from pathlib import Path

import msgspec
import pytest

from actors.host_agent import HostAgent, delivered_name
from actors.host_book import HostReport
from actors.join_order import JoinOrder
from actors.run_directory import RunState
from actors.shell import note_text
from tests.actors.test_join_order import order

MARKER = "00ff"


def state(marker: str = MARKER, ray_address: str = "10.0.0.1:6379", temporary: bool = True) -> bytes:
    return msgspec.json.encode(
        RunState(
            name="x",
            marker=marker,
            supervisor_pid=0,
            started_at=0.0,
            data_dir="",
            temporary_data=temporary,
            ports=(),
            ray_address=ray_address,
        )
    )


ORDER = msgspec.json.encode(order())
FILES = {"genesis.json": b"{}", "jwt.hex": b"ab", "raft-password": b"cd", "order.json": ORDER, "state.json": state()}


@pytest.fixture
def agent(tmp_path: Path) -> HostAgent:
    return HostAgent(str(tmp_path / "run"), str(tmp_path / "run" / "data"), MARKER)


def test_what_is_delivered_is_private_and_can_be_fetched(agent: HostAgent, tmp_path: Path) -> None:
    assert agent.fetch() == {}
    agent.deliver(FILES)
    for path in ("data/jwt.hex", "data/raft-password", "data/genesis.json", "order.json"):
        info = (tmp_path / "run" / path).stat()
        assert stat.S_IMODE(info.st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o700
    assert agent.fetch() == {name: content for name, content in FILES.items() if name != "state.json"}
    assert (tmp_path / "run" / delivered_name(MARKER)).exists()


def test_what_an_earlier_run_left_goes_before_the_delivery(agent: HostAgent, tmp_path: Path) -> None:
    old = HostAgent(str(tmp_path / "run"), str(tmp_path / "run" / "data"), "0bad")
    old.deliver({**FILES, "state.json": state("0bad")})
    assert agent.prepare() == ""
    assert agent.fetch() == {}
    assert not (tmp_path / "run" / delivered_name("0bad")).exists()


def test_a_cluster_of_this_machine_alone_is_not_touched(agent: HostAgent, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir(mode=0o700)
    (tmp_path / "run" / "state.json").write_bytes(state("0bad", ray_address=""))
    assert "runs on this host by itself" in agent.prepare()
    with pytest.raises(RuntimeError, match="by itself"):
        agent.deliver(FILES)
    agent.remove()
    assert (tmp_path / "run" / "state.json").exists()


def test_a_directory_others_may_read_is_made_private(agent: HostAgent, tmp_path: Path) -> None:
    (tmp_path / "run" / "data" / "logs").mkdir(parents=True, mode=0o755)
    assert agent.prepare() == ""
    for path in ("run", "run/data", "run/notes"):
        assert stat.S_IMODE((tmp_path / path).stat().st_mode) == 0o700


def test_a_file_in_the_place_of_a_directory_is_refused(agent: HostAgent, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    assert agent.prepare() != ""


async def test_the_report_follows_the_processes(agent: HostAgent, tmp_path: Path) -> None:
    agent.deliver(FILES)
    process = subprocess.Popen(["/bin/sleep", "1000"])  # noqa: ASYNC220
    try:
        note = tmp_path / "run" / "notes" / "sequencer-0.conductor"
        note.write_text(note_text(process.pid, True))
        digest, content = await agent.look("", 10.0)
        report = msgspec.json.decode(content, type=HostReport)
        assert report == HostReport(
            agent_pid=os.getpid(),
            delivered=True,
            order_version=1,
            actors={"sequencer-0.conductor": (process.pid, True)},
        )
        assert not agent.send_signal(os.getpid(), signal.SIGKILL)
        waiting = asyncio.create_task(agent.look(digest, 60.0))
        assert agent.send_signal(process.pid, signal.SIGKILL)
        process.wait()
        _, content = await waiting
        assert msgspec.json.decode(content, type=HostReport).actors == {"sequencer-0.conductor": (0, False)}
    finally:
        process.kill()
        process.wait()


async def test_without_a_change_the_report_comes_when_patience_ends(agent: HostAgent) -> None:
    agent.deliver(FILES)
    digest, _ = await agent.look("", 10.0)
    assert (await agent.look(digest, 0.0))[0] == digest


def version_held(agent: HostAgent) -> int:
    held = agent.fetch().get("order.json")
    return msgspec.json.decode(held, type=JoinOrder).version if held else 0


def booted(tmp_path: Path, *, order_version: int = 1, marker: str = MARKER) -> HostAgent:
    """The agent of a host whose /tmp a boot has emptied, and whose data directory it has not."""
    files = {**FILES, "chain.json": b"{}", "state.json": state(temporary=False)}
    files["order.json"] = msgspec.json.encode(order(version=order_version))
    HostAgent(str(tmp_path / "run"), str(tmp_path / "kept"), MARKER).deliver(files)
    shutil.rmtree(tmp_path / "run")
    return HostAgent(str(tmp_path / "run"), str(tmp_path / "kept"), marker)


def test_a_host_that_was_booted_has_its_order_and_needs_no_delivery(tmp_path: Path) -> None:
    agent = booted(tmp_path, order_version=2)
    assert version_held(agent) == 2
    assert (tmp_path / "run" / delivered_name(MARKER)).exists()
    assert stat.S_IMODE((tmp_path / "kept" / "order.json").stat().st_mode) == 0o600
    restored = msgspec.json.decode((tmp_path / "run" / "state.json").read_bytes(), type=RunState)
    assert restored == order(version=2).state()


def test_a_host_that_was_away_for_a_whole_run_has_no_order_of_the_next(tmp_path: Path) -> None:
    agent = booted(tmp_path, marker="0bad")
    assert version_held(agent) == 0
    assert not (tmp_path / "run").exists()


def test_a_booted_host_without_its_secrets_waits_for_the_keeper(tmp_path: Path) -> None:
    booted(tmp_path)
    shutil.rmtree(tmp_path / "run")
    (tmp_path / "kept" / "jwt.hex").unlink()
    agent = HostAgent(str(tmp_path / "run"), str(tmp_path / "kept"), MARKER)
    assert version_held(agent) == 1
    assert not (tmp_path / "run").exists()


def test_the_newest_order_counts_and_goes_with_the_run(agent: HostAgent, tmp_path: Path) -> None:
    agent.deliver(FILES)
    agent.deliver({"order.json": msgspec.json.encode(order(version=3))})
    assert version_held(agent) == 3
    agent.remove()
    assert version_held(agent) == 0
    assert version_held(HostAgent(str(tmp_path / "run"), str(tmp_path / "run" / "data"), MARKER)) == 0


def test_another_chain_is_not_overwritten(agent: HostAgent, tmp_path: Path) -> None:
    agent.deliver(FILES)
    with pytest.raises(RuntimeError, match="another chain"):
        agent.deliver({**FILES, "genesis.json": b'{"other": 1}'})
    assert (tmp_path / "run" / "data" / "genesis.json").read_bytes() == b"{}"


def test_data_of_their_own_directory_outlive_the_run(tmp_path: Path) -> None:
    agent = HostAgent(str(tmp_path / "run"), str(tmp_path / "kept"), MARKER)
    agent.deliver({**FILES, "state.json": state(temporary=False)})
    agent.remove()
    assert not (tmp_path / "run").exists()
    assert (tmp_path / "kept" / "jwt.hex").read_bytes() == b"ab"
    assert not (tmp_path / "kept" / "order.json").exists()


def test_a_port_that_is_taken_is_named(agent: HostAgent) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert agent.busy([("127.0.0.1", port), ("127.0.0.1", 0)]) == [f"127.0.0.1:{port}"]
