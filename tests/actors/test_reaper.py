"""The reaper alone, with small processes: it ends what its command leaves behind, however that hides, and the files."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from actors import reaper

MARKER = "FLASHBLOCKS_RUN=reaper-test"

# Leaves a process in a session of its own whose parent is gone, and says its pid.
ESCAPES = """
import os, subprocess, sys
middle = "import subprocess, sys; print(subprocess.Popen(['sleep', '600'], start_new_session=True).pid, flush=True)"
subprocess.run([sys.executable, "-c", middle], check=True)
{last}
"""


def start_reaper(tmp_path: Path, last: str, removed: list[Path]) -> "subprocess.Popen[bytes]":
    lock, alive = os.open(tmp_path / "lock", os.O_CREAT | os.O_RDWR), os.open(os.devnull, os.O_RDONLY)
    command = [sys.executable, "-I", "-S", reaper.__file__, "--lock", str(lock), "--alive", str(alive)]
    for path in removed:
        command += ["--remove", str(path)]
    command += ["--", sys.executable, "-c", ESCAPES.format(last=last)]
    name, _, value = MARKER.partition("=")
    process = subprocess.Popen(command, pass_fds=(lock, alive), stdout=subprocess.PIPE, env={**os.environ, name: value})
    os.close(lock)
    os.close(alive)
    return process


@pytest.mark.parametrize(
    ("last", "status"), [("sys.exit(7)", 7), ("os.kill(os.getpid(), 9)", 128 + 9)], ids=["exits", "is killed"]
)
def test_whatever_the_command_leaves_is_ended_and_removed(tmp_path: Path, last: str, status: int) -> None:
    root = tmp_path / "root"
    run = root / "run"
    run.mkdir(parents=True)
    (run / "file").write_text("x")
    extra = tmp_path / "endpoints.json"
    extra.write_text("{}")
    with start_reaper(tmp_path, last, [extra, run]) as process:
        assert process.stdout is not None
        escaped = int(process.stdout.readline())
        assert process.wait() == status
    assert not os.path.exists(f"/proc/{escaped}")
    assert not root.exists()
    assert not extra.exists()


def test_marked_processes_are_found_and_ended() -> None:
    name, _, value = MARKER.partition("=")
    with subprocess.Popen(["sleep", "600"], env={**os.environ, name: value}) as process:
        deadline = time.monotonic() + 5
        while process.pid not in reaper.marked_processes(MARKER):  # between fork and exec it has our environment
            assert time.monotonic() < deadline
        assert reaper.end_marked_processes(MARKER) == 1
        assert process.wait() == -9
    assert reaper.marked_processes(MARKER) == []


def test_a_root_with_another_run_in_it_stays(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "one").mkdir(parents=True)
    (root / "two").mkdir()
    reaper.remove_path(str(root / "one"))
    assert [path.name for path in root.iterdir()] == ["two"]
    reaper.remove_path(str(root / "two"))
    assert not root.exists()


def test_removing_what_is_not_there_is_fine(tmp_path: Path) -> None:
    reaper.remove_path(str(tmp_path / "nothing"))
