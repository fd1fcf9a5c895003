"""``flashblocks ray``: what it would run, whose address it takes, a token nobody else can read."""

import stat
from pathlib import Path

import pytest

from cli.host_ray import app, local_addresses
from cli.output import CommandError

FIB_TRIE = """Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 10.77.3.0
        /24 link UNICAST
     |-- 10.77.3.11
        /32 host LOCAL
     |-- 127.0.0.1
        /32 host LOCAL
     |-- 10.77.3.255
        /32 link BROADCAST
Local:
     |-- 10.77.3.11
        /32 host LOCAL
"""


def test_the_addresses_of_a_host_are_those_of_its_routing_table() -> None:
    assert local_addresses(FIB_TRIE) == ["10.77.3.11"]
    assert local_addresses("") == []


def test_a_dry_run_prints_environment_and_command(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["start", "--head-address", "10.0.0.1", "--node-address", "10.0.0.21", "--edge", "10.0.0.21", "--dry-run"]
    assert app(words) == 0
    printed = capsys.readouterr().out
    assert "RAY_AUTH_MODE=token" in printed
    assert "--address=10.0.0.1:6379 --node-ip-address=10.0.0.21" in printed
    assert """'--resources={"edge": 1.0}'""" in printed


def test_on_a_cloud_the_launcher_says_what_the_host_is_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_OVERRIDE_RESOURCES", '{"edge": 1}')
    assert app(["start", "--head-address", "10.0.0.1", "--node-address", "10.0.0.21", "--dry-run"]) == 0
    assert "--resources={}" in capsys.readouterr().out


def test_a_token_is_made_once_and_is_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / ".ray" / "auth_token"
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(path))
    assert app(["token"]) == 0
    token = path.read_text()
    assert len(token) == 64
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    assert app(["token"]) == 0
    assert path.read_text() == token
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_without_a_token_nothing_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    with pytest.raises(CommandError, match="flashblocks ray token"):
        app(["start", "--head-address", "10.0.0.1", "--node-address", "10.0.0.11"])
    assert not (tmp_path / ".flashblocks").exists()


def test_wrong_words_are_explained() -> None:
    with pytest.raises(CommandError, match="either --head or --head-address"):
        app(["start", "--node-address", "10.0.0.11", "--dry-run"])
    with pytest.raises(CommandError, match="expected JSON"):
        app(["start", "--head-address", "h", "--node-address", "10.0.0.11", "--resources", "sequencer", "--dry-run"])
