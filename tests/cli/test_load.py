"""What `flashblocks load` refuses before it looks for a cluster."""

from pathlib import Path

import pytest

from actors.run_directory import ROOT_VARIABLE
from cli.main import main


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "give --tps and --duration, or --burst"),
        (["--tps", "5"], "give --tps and --duration"),
        (["--tps", "5", "--duration", "0"], "--duration must be more than 0"),
        (["--burst", "0"], "--burst must be more than 0"),
        (["--burst", "10", "--tps", "5"], "instead of"),
        (["--burst", "10"], "no cluster named 'default'"),
    ],
)
def test_a_load_that_makes_no_sense_is_refused(
    words: list[str], text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(ROOT_VARIABLE, str(tmp_path / "none"))
    assert main(["load", *words]) == 1
    assert text in capsys.readouterr().err
