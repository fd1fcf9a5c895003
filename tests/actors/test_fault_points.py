"""Fault points: nothing without a directory, death at an armed place, a clock that a file moves."""

import os
import signal
import subprocess
import sys
import time

import pytest

from actors import fault_points
from actors.fault_points import BEFORE_PUBLISH, PLACES, VARIABLE, Dial, arm, shifted, slowed


def test_a_process_without_the_variable_has_none(monkeypatch, tmp_path):
    monkeypatch.setattr(fault_points, "_directory", "")
    arm(tmp_path, os.getpid(), BEFORE_PUBLISH)
    for place in PLACES:
        fault_points.reach(place)
    before = time.time, os.pwrite
    fault_points.fit_dials()
    assert (time.time, os.pwrite) == before


@pytest.mark.parametrize("place", PLACES)
def test_an_armed_place_kills_and_is_disarmed(tmp_path, place):
    program = (
        "import sys; from actors import fault_points as f;"
        "print('up', flush=True); sys.stdin.readline(); f.reach('another'); print('alive', flush=True);"
        f"f.reach({place!r}); print('never', flush=True)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, VARIABLE: str(tmp_path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"up\n"
    arm(tmp_path, process.pid, place)
    out, _ = process.communicate(b"\n", timeout=30)
    assert (out, process.returncode) == (b"alive\n", -signal.SIGKILL)
    assert list(tmp_path.iterdir()) == []


def test_a_state_diverges_while_it_is_armed(monkeypatch, tmp_path):
    minted = []
    monkeypatch.setattr(fault_points, "_directory", str(tmp_path))
    armed = tmp_path / f"{os.getpid()}.{fault_points.DIVERGES}"
    for step in (armed.exists, armed.touch, armed.unlink):
        step()
        fault_points.diverge(lambda address, wei: minted.append((address, wei)))
    assert minted == [(fault_points.DIVERGED_ACCOUNT, 1)]


def test_a_dial_follows_its_file(tmp_path):
    ticks = iter(range(100))
    dial = Dial(tmp_path / "dial", lambda: float(next(ticks)))
    clock = shifted(lambda: 1000.0, dial)
    assert clock() == 1000.0
    (tmp_path / "dial").write_text("-2.0")
    assert clock() == 998.0
    (tmp_path / "dial").write_text("nonsense")
    assert clock() == 1000.0
    (tmp_path / "dial").write_text("2")
    assert clock() == 1002.0
    (tmp_path / "dial").unlink()
    assert clock() == 1000.0


def test_the_file_is_not_read_for_every_call(tmp_path):
    dial = Dial(tmp_path / "dial", lambda: 5.0)
    assert dial.read() == 0.0
    (tmp_path / "dial").write_text("2")
    assert dial.read() == 0.0


def test_a_slow_write_writes_all_the_same(tmp_path, monkeypatch):
    slept = []
    monkeypatch.setattr(fault_points.time, "sleep", slept.append)
    (tmp_path / "dial").write_text("0.05")
    with open(tmp_path / "file", "w+b") as file:
        assert slowed(os.pwrite, Dial(tmp_path / "dial"))(file.fileno(), b"abc", 1) == 3
        assert slowed(os.pwrite, Dial(tmp_path / "none"))(file.fileno(), b"d", 0) == 1
    assert (tmp_path / "file").read_bytes() == b"dabc"
    assert slept == [0.05]
