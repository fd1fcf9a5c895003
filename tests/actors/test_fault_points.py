"""Fault points: nothing without a directory, death at an armed place, a clock that a file moves."""

import os
import signal
import subprocess
import sys
import time

import pytest

from actors import fault_points
from actors.fault_points import BEFORE_PUBLISH, PLACES, VARIABLE, ShiftedClock, arm


def test_a_process_without_the_variable_has_none(monkeypatch, tmp_path):
    monkeypatch.setattr(fault_points, "_directory", "")
    arm(tmp_path, os.getpid(), BEFORE_PUBLISH)
    for place in PLACES:
        fault_points.reach(place)
    before = time.time
    fault_points.let_the_clock_be_moved()
    assert time.time is before


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


def test_the_clock_follows_its_file(tmp_path):
    ticks = iter(range(100))
    clock = ShiftedClock(tmp_path / "clock")
    clock._real, clock._monotonic = (lambda: 1000.0), (lambda: float(next(ticks)))
    assert clock() == 1000.0
    (tmp_path / "clock").write_text("-2.0")
    assert clock() == 998.0
    (tmp_path / "clock").write_text("nonsense")
    assert clock() == 1000.0
    (tmp_path / "clock").write_text("2")
    assert clock() == 1002.0
    (tmp_path / "clock").unlink()
    assert clock() == 1000.0


def test_the_file_is_not_read_for_every_call(tmp_path):
    clock = ShiftedClock(tmp_path / "clock")
    clock._real, clock._monotonic = (lambda: 1000.0), (lambda: 5.0)
    assert clock() == 1000.0
    (tmp_path / "clock").write_text("2")
    assert clock() == 1000.0
