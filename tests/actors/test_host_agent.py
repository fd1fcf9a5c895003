"""The agent of a host: files arrive whole and private, reports follow the processes, only its own run is removed."""

import asyncio
import os
import signal
import stat
import subprocess
from pathlib import Path

import msgspec
import pytest

from actors.host_agent import HostAgent, delivered_name
from actors.host_book import HostReport
from actors.run_directory import RunState
from actors.shell import note_text

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


FILES = {"genesis.json": b"{}", "jwt.hex": b"ab", "raft-password": b"cd", "order.json": b"{}", "state.json": state()}


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
            agent_pid=os.getpid(), delivered=True, actors={"sequencer-0.conductor": (process.pid, True)}
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


def test_data_of_their_own_directory_outlive_the_run(tmp_path: Path) -> None:
    agent = HostAgent(str(tmp_path / "run"), str(tmp_path / "kept"), MARKER)
    agent.deliver({**FILES, "state.json": state(temporary=False)})
    agent.remove()
    assert not (tmp_path / "run").exists()
    assert (tmp_path / "kept" / "jwt.hex").read_bytes() == b"ab"


def test_a_port_that_is_taken_is_named(agent: HostAgent) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert agent.busy([("127.0.0.1", port), ("127.0.0.1", 0)]) == [f"127.0.0.1:{port}"]
