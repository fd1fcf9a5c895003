"""The Ray actor class without Ray: it hosts a component in a thread, notes itself, answers, and ends."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from actors.shell import note_text, read_note

# A process of its own: the shell freezes the collector, takes the log over, and exits on a failure.
HOST = """
import json, sys, time
from actors.shell import ComponentActor, read_note
from pathlib import Path
note, port = sys.argv[1], int(sys.argv[2])
actor = ComponentActor("tiny_component:Tiny", {"port": port}, sys.argv[3], "info", note)
deadline = time.monotonic() + 20
while read_note(Path(note))[1] is False and time.monotonic() < deadline:
    time.sleep(0.01)
print(json.dumps(actor.info()))
print(json.dumps(actor.stop()), flush=True)
"""


def run(tmp_path: Path, port: int) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-c", HOST, str(tmp_path / "note"), str(port), str(tmp_path / "logs")]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=40)


def test_a_component_is_hosted_noted_and_ended(tmp_path: Path) -> None:
    done = run(tmp_path, 0)
    info, stopped = (json.loads(line) for line in done.stdout.splitlines())
    assert info["serving"] is True
    assert info["status"] == {"component": "tiny", "pid": info["pid"]}
    assert stopped is True
    assert read_note(tmp_path / "note") == (info["pid"], True)
    events = [json.loads(line)["event"] for line in (tmp_path / "logs" / "Tiny-0.jsonl").read_text().splitlines()]
    assert events == ["serving", "ended"]


def test_a_component_that_cannot_start_ends_its_process_loudly_but_not_at_once(tmp_path: Path) -> None:
    began = time.monotonic()
    done = run(tmp_path, -1)
    assert done.returncode == 1
    assert time.monotonic() - began >= 1.0  # or a broken component would be started again and again without pause
    (line,) = (tmp_path / "logs" / "Tiny-0.jsonl").read_text().splitlines()
    assert json.loads(line)["level"] == "error"
    note = read_note(tmp_path / "note")
    assert note is not None
    assert note[1] is False


@pytest.mark.parametrize(
    ("text", "expected"), [(note_text(7, True), (7, True)), (note_text(8, False), (8, False)), ("", None), ("7", None)]
)
def test_notes_are_read_back(tmp_path: Path, text: str, expected: tuple[int, bool] | None) -> None:
    path = tmp_path / "note"
    path.write_text(text)
    assert read_note(path) == expected
    assert read_note(tmp_path / "none") is None
