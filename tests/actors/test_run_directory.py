"""The run directory: one owner at a time, told by the kernel; what a crash left is cleaned; strangers are refused."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from actors.run_directory import (
    MARKER_VARIABLE,
    ROOT_VARIABLE,
    AlreadyRunning,
    RunDirectory,
    RunState,
    all_runs,
    claim,
    clean_after_crash,
    ports_of_running_clusters,
)


@pytest.fixture(autouse=True)
def root(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    path = Path(f"/tmp/fbr{os.getpid()}")
    monkeypatch.setenv(ROOT_VARIABLE, str(path))
    yield path
    for run in list(all_runs()):
        run.remove()
    assert not path.exists()


def write_state(directory: RunDirectory, marker: str = "m", ports: tuple[int, ...] = ()) -> None:
    state = RunState(
        name=directory.name,
        marker=marker,
        supervisor_pid=0,
        started_at=0.0,
        data_dir="/nowhere",
        temporary_data=False,
        ports=ports,
    )
    directory.state.write_bytes(msgspec.json.encode(state))


def test_a_claim_is_held_until_it_is_released() -> None:
    first = claim("one")
    assert first.directory.is_running()
    with pytest.raises(AlreadyRunning, match="flashblocks down --name one"):
        claim("one")
    first.release()
    assert not first.directory.is_running()
    claim("one").release()


def test_the_directory_is_private_and_goes_with_its_root(root: Path) -> None:
    taken = claim("one")
    assert root.stat().st_mode & 0o777 == 0o700
    assert taken.directory.path.stat().st_mode & 0o777 == 0o700
    taken.directory.remove()
    taken.release()
    assert not root.exists()


def test_a_root_others_can_write_to_is_refused(root: Path) -> None:
    root.mkdir(mode=0o700)
    root.chmod(0o777)
    with pytest.raises(PermissionError, match="mode 0700"):
        claim("one")
    root.chmod(0o700)
    root.rmdir()


def test_a_name_whose_sockets_would_be_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ROOT_VARIABLE, "/tmp/" + "x" * 60)
    with pytest.raises(PermissionError, match=f"set {ROOT_VARIABLE} to a shorter directory"):
        claim("one")


def test_what_a_crash_left_is_ended_and_removed_by_the_next_claim() -> None:
    first = claim("one")
    write_state(first.directory, marker="left-behind")
    (first.directory.path / "r").mkdir()
    (first.directory.path / "r" / "file").write_text("x")
    environment = {**os.environ, MARKER_VARIABLE: "left-behind"}
    with subprocess.Popen([sys.executable, "-c", "input()"], env=environment, stdin=subprocess.PIPE) as orphan:
        first.release()  # as the kernel does for a dead supervisor
        second = claim("one")
        assert orphan.wait() == -9
    assert sorted(path.name for path in second.directory.path.iterdir()) == ["lock"]
    second.release()


def test_cleaning_up_leaves_a_living_cluster_alone() -> None:
    taken = claim("one")
    write_state(taken.directory)
    assert clean_after_crash(taken.directory) == 0
    assert taken.directory.state.exists()
    taken.release()


def test_cleaning_up_removes_a_dead_one_and_knows_nothing_of_one_that_never_was() -> None:
    taken = claim("one")
    taken.release()
    clean_after_crash(taken.directory)
    assert not taken.directory.path.exists()
    assert clean_after_crash(RunDirectory("never")) == 0


def test_ports_are_those_of_the_living() -> None:
    one, two = claim("one"), claim("two")
    write_state(one.directory, ports=(1, 2))
    write_state(two.directory, ports=(3,))
    assert ports_of_running_clusters() == {1, 2, 3}
    two.release()
    assert ports_of_running_clusters() == {1, 2}
    one.release()


def test_half_a_state_file_is_no_state() -> None:
    taken = claim("one")
    taken.directory.state.write_bytes(b'{"name":')
    assert taken.directory.read_state() is None
    taken.release()
