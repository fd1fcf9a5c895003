"""The guard: Ray that ends by accident is started again, Ray that is ended politely is not.

Ray is played by a script that leaves a process called ``raylet`` behind, as ``ray start`` does.
"""

import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from actors import ray_guard
from actors.ray_guard import GuardFiles, GuardOrder, launch
from actors.reaper import descendants

WAIT_S_MAX = 40.0


def order_of(script: Path, *, again: bool = True) -> GuardOrder:
    return GuardOrder(command=[str(script)], environment={}, again=again)


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + WAIT_S_MAX
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


class Guarded:
    def __init__(self, tmp_path: Path, *, again: bool = True) -> None:
        shutil.copy("/bin/sleep", tmp_path / "raylet")
        script = tmp_path / "ray"
        script.write_text(f"#!/bin/sh\n{tmp_path}/raylet 1000 >/dev/null 2>&1 &\necho started >> {tmp_path}/starts\n")
        script.chmod(0o700)
        self.starts = tmp_path / "starts"
        self.files = GuardFiles("10.0.0.11")
        self.process = launch(self.files, order_of(script, again=again))
        wait_until(self.is_running)

    def is_running(self) -> bool:
        return self.files.guard() == (self.process.pid, True)

    def raylet(self) -> int:
        found = [pid for pid in descendants(self.process.pid) if Path(f"/proc/{pid}/comm").read_text() == "raylet\n"]
        assert len(found) == 1
        return found[0]


@pytest.fixture
def guarded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Guarded]:
    monkeypatch.setenv("HOME", str(tmp_path))
    made = Guarded(tmp_path)
    yield made
    if made.process.poll() is None:
        made.process.terminate()
        made.process.wait(WAIT_S_MAX)


def test_a_killed_raylet_is_started_again(guarded: Guarded) -> None:
    first = guarded.raylet()
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: guarded.starts.read_text().count("started") == 2 and guarded.is_running())
    assert guarded.raylet() != first


def test_a_raylet_that_was_ended_politely_stays_ended(guarded: Guarded) -> None:
    os.kill(guarded.raylet(), signal.SIGTERM)
    assert guarded.process.wait(WAIT_S_MAX) == 0
    assert guarded.files.guard() is None
    assert guarded.starts.read_text().count("started") == 1
    assert not guarded.files.lock.exists()


def test_the_guards_own_end_takes_ray_along(guarded: Guarded) -> None:
    raylet = guarded.raylet()
    guarded.process.terminate()
    assert guarded.process.wait(WAIT_S_MAX) == 0
    assert not Path(f"/proc/{raylet}").exists()


def test_a_second_guard_of_the_same_host_leaves_the_first_alone(guarded: Guarded) -> None:
    order = GuardOrder(command=["/bin/false"], environment={})
    second: subprocess.Popen[bytes] = launch(guarded.files, order)
    assert second.wait(WAIT_S_MAX) == 1
    assert guarded.is_running()


def waiting_in_the_foreground(guarded: Guarded) -> subprocess.Popen[bytes]:
    """A second guard in the foreground, as a unit of systemd starts it, that has seen the first one."""
    script = f"""
import sys
from pathlib import Path
from actors.ray_guard import GuardFiles, GuardOrder, become
order = GuardOrder(command=[{str(guarded.starts.with_name("ray"))!r}], environment={{}})
sys.exit(become(GuardFiles("10.0.0.11"), order))
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert b"another guard" in process.stdout.readline()
    return process


def test_a_unit_waits_for_the_guard_that_is_there_and_ends_with_it(guarded: Guarded) -> None:
    with waiting_in_the_foreground(guarded) as unit:
        guarded.process.terminate()
        assert guarded.process.wait(WAIT_S_MAX) == 0
        assert unit.wait(WAIT_S_MAX) == 0
    assert guarded.starts.read_text().count("started") == 1


def test_a_unit_takes_the_place_of_a_guard_that_was_killed(guarded: Guarded) -> None:
    raylet = guarded.raylet()
    with waiting_in_the_foreground(guarded) as unit:
        guarded.process.kill()
        guarded.process.wait(WAIT_S_MAX)
        os.kill(raylet, signal.SIGKILL)  # what systemd or a boot does to what a killed guard leaves
        wait_until(lambda: guarded.files.guard() == (unit.pid, True))
        unit.terminate()
        assert unit.wait(WAIT_S_MAX) == 0
    assert guarded.starts.read_text().count("started") == 2


def test_a_restart_runs_the_same_command_again_under_a_new_guard(guarded: Guarded) -> None:
    first = guarded.raylet()
    restart, stop = (
        [sys.executable, "-m", "cli.main", "ray", verb, "--node-address", "10.0.0.11"] for verb in ("restart", "stop")
    )
    subprocess.run(restart, check=True)
    assert guarded.process.wait(WAIT_S_MAX) == 0
    assert not Path(f"/proc/{first}").exists()
    assert guarded.starts.read_text().count("started") == 2
    found = guarded.files.guard()
    assert found is not None
    assert found[1]
    subprocess.run(stop, check=True)
    assert "no Ray is kept running" in subprocess.run(restart, capture_output=True, text=True, check=False).stderr


def test_its_log_is_private_and_has_no_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    files = GuardFiles("10.0.0.11")
    files.root.mkdir(mode=0o755)  # as python3 -m venv makes it
    files.log.write_text("an older version's\n")
    files.log.chmod(0o644)
    order = GuardOrder(command=["/bin/false", "--redis-password=s3cret"], environment={}, again=False)
    assert launch(files, order).wait(WAIT_S_MAX) == 0
    said = files.log.read_text()
    assert "/bin/false '--redis-password=" in said
    assert "s3cret" not in said
    assert stat.S_IMODE(files.log.stat().st_mode) == 0o600
    assert stat.S_IMODE(files.root.stat().st_mode) == 0o700


def test_a_head_without_a_storage_is_not_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    guarded = Guarded(tmp_path, again=False)
    os.kill(guarded.raylet(), signal.SIGKILL)
    assert guarded.process.wait(WAIT_S_MAX) == 0
    assert guarded.starts.read_text().count("started") == 1
    assert "directory" in guarded.files.log.read_text()


def test_a_guard_that_ends_while_it_is_looked_for_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_guard, "ROOT", str(tmp_path))
    monkeypatch.setattr(ray_guard, "is_locked", lambda path: True)  # it removes its lock right after that answer
    assert GuardFiles("127.0.0.9").guard() is None
