import subprocess
import sys

import msgspec
import pytest

from chaos.cli import app as drill
from chaos.history import read
from chaos.simulation.cli import Summary, app, run_many
from chaos.simulation.schedule import KINDS


def test_many_seeds_are_summed_up_and_pass(capsys):
    assert app(["--seeds", "3", "--jobs", "1"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("PASS: 3 seeds, 0 failed")
    assert "seeds per processor minute" in out


def test_a_mutant_fails_and_the_seed_to_replay_is_named(capsys):
    assert drill(["simulate", "--seeds", "3", "--jobs", "1", "--mutant", "careless-seal", "--json"]) == 1
    captured = capsys.readouterr()
    summary = msgspec.json.decode(captured.out, type=Summary)
    assert summary.failed == [0, 1, 2] and summary.rules["lost flashblock"] == 3
    assert "seed 0: " in captured.err
    assert app(["--seeds", "1", "--mutant", "careless-seal"]) == 1
    assert "drill simulate --seed 0 --mutant careless-seal" in capsys.readouterr().out


def test_one_seed_is_shown_and_its_history_kept(tmp_path, capsys):
    kept = tmp_path / "one.history.jsonl"
    assert app(["--seed", "9", "--faults", "crash,hang", "--history", str(kept)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("seed 9: ") and "PASS" in out and "crash" in out + " hang"
    assert len(list(read(kept))) > 100


def test_several_processes_come_to_the_same():
    command = [sys.executable, "-m", "chaos.simulation", "--seed", "20", "--seeds", "12", "--jobs", "2", "--json"]
    done = subprocess.run(command, check=True, capture_output=True, timeout=55)
    two, one = msgspec.json.decode(done.stdout, type=Summary), run_many(range(20, 32), tuple(KINDS))
    assert (one.failed, one.flashblocks, one.simulated_s) == (two.failed, two.flashblocks, two.simulated_s)


def test_a_fault_that_does_not_exist_is_refused(capsys):
    with pytest.raises(SystemExit):
        app(["--faults", "crash,earthquake"])
    assert "no such fault: earthquake" in capsys.readouterr().err
