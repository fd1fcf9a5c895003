"""The start as people see it: events read as they are written, turned into lines; an early end is an error."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from actors.run_directory import ROOT_VARIABLE, RunDirectory, claim
from actors.starter import Started
from cli.output import CommandError
from cli.start_progress import StartProgress, events


@pytest.fixture
def directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[RunDirectory]:
    monkeypatch.setenv(ROOT_VARIABLE, f"/tmp/fbp{os.getpid()}")
    taken = claim("one")
    taken.release()
    yield taken.directory
    taken.directory.remove()
    assert not Path(f"/tmp/fbp{os.getpid()}").exists()


def started_with(directory: RunDirectory, program: list[str]) -> Started:
    """A start whose supervisor is some small program."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    return Started(directory, subprocess.Popen(program), write_end)


def write(directory: RunDirectory, content: bytes) -> None:
    with open(directory.progress, "ab") as file:
        file.write(content)


async def test_events_are_read_as_they_are_written_and_half_a_line_waits(directory: RunDirectory) -> None:
    started = started_with(directory, ["sleep", "600"])
    try:
        write(directory, orjson.dumps({"event": "starting"}) + b"\n" + b'{"event"')
        read = events(started)
        assert (await anext(read))["event"] == "starting"
        write(directory, b': "ready"}\n')
        assert (await anext(read))["event"] == "ready"
        await read.aclose()
    finally:
        os.kill(started.pid, signal.SIGKILL)
        started.wait(5)


async def test_the_last_events_of_a_cluster_that_ended_are_read_before_that_is_said(directory: RunDirectory) -> None:
    started = started_with(directory, ["true"])
    started.wait(5)
    write(directory, orjson.dumps({"event": "failed"}) + b"\n")
    read = events(started)
    assert (await anext(read))["event"] == "failed"
    with pytest.raises(CommandError, match="ended while starting"):
        await anext(read)


def test_lines_for_people() -> None:
    lines: list[str] = []
    progress = StartProgress(lines.append)
    shown: list[dict[str, Any]] = [
        {"event": "starting", "components": 2},
        {"event": "ray-up"},
        {"event": "chain-prepared", "chain_id": 901, "genesis_hash": "0xab"},
        {"event": "component-up", "component": "a/op-node"},
        {"event": "component-ended", "component": "b/builder"},
        {"event": "component-up", "component": "a/op-node"},
        {"event": "ray-lost", "process": "gcs_server", "remark": "nothing is started again"},
        {"event": "something-new"},
    ]
    for number, event in enumerate(shown):
        progress.add({"after_s": float(number), **event})
    assert lines == [
        "   0.0 s  starting Ray for 2 actors",
        "   1.0 s  Ray is up",
        "   2.0 s  chain 901, genesis 0xab",
        "   3.0 s  [ 1/2] a/op-node",
        "   4.0 s  b/builder ended; Ray starts it again (see its log)",
        "   5.0 s  [ 1/2] a/op-node",
        "   6.0 s  Ray's gcs_server ended: nothing is started again",
    ]
    assert progress.summary() == "1 of 2 components serve"
