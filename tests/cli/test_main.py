"""The command line's door: help without loading anything, unknown commands, errors as one line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from actors.ray_guard import GuardFiles
from actors.run_directory import ROOT_VARIABLE
from cli.main import COMMANDS, main


@pytest.fixture(autouse=True)
def nothing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ROOT_VARIABLE, str(tmp_path / "none"))
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"]])
def test_help_names_every_command(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in COMMANDS)


def test_help_loads_no_library_that_is_slow_to_import() -> None:
    script = (
        "import sys, cli.main; cli.main.main(['--help'])\n"
        "slow = {'aiohttp', 'asyncio', 'ray', 'rich', 'web3', 'eth', 'websockets', 'structlog', 'msgspec'}\n"
        "print('loaded:', sorted(slow & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert shown.endswith("loaded: []\n")


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    assert f"usage: flashblocks {command}" in capsys.readouterr().out


def test_an_unknown_command_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["upp"]) == 2
    assert "unknown command 'upp'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [["status"], ["watch"], ["leader", "show"], ["load", "--tps", "1", "--duration", "1"]]
)
def test_without_a_cluster_a_command_says_how_to_start_one(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 1
    assert "no cluster named 'default' is running; start one with: flashblocks up" in capsys.readouterr().err


def test_down_without_a_cluster_is_fine(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["down"]) == 0
    assert main(["down", "--name", "other"]) == 0
    assert capsys.readouterr().out == "nothing is running\nother: was not running\n"


def test_down_where_only_ray_is_left_says_how_to_end_a_system_whose_files_are_lost(
    capsys: pytest.CaptureFixture[str],
) -> None:
    files = GuardFiles("192.0.2.7")
    files.make_root()
    lock = files.take()
    assert lock is not None
    assert main(["down"]) == 0
    assert "flashblocks down --address auto" in capsys.readouterr().out
    os.close(lock)
    assert main(["down"]) == 0
    assert capsys.readouterr().out == "nothing is running\n"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["up", "--groups", "10"], "--groups 10: must be between 1 and 9"),
        (["up", "--name", "Ä"], "--name 'Ä'"),
        (["up", "--flashblock-time", "3000"], "--flashblock-time 3000"),
    ],
)
def test_up_refuses_options_out_of_range_before_it_starts_anything(
    words: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 1
    assert text in capsys.readouterr().err
