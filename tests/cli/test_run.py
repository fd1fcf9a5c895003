"""``run``: flags from the settings, the original component's flags and environment, in that order of weight."""

import argparse
from typing import Any

import pytest

from actors import process
from cli import run
from cli.main import main


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """What would have been started: the component and its values."""
    calls: list[tuple[str, dict[str, Any]]] = []

    def remember(component: str, values: dict[str, Any]) -> int:
        calls.append((component, values))
        return 0

    monkeypatch.setattr(process, "run_component", remember)
    return calls


def test_a_flag_weighs_more_than_the_environment_and_that_more_than_nothing(
    started: list[tuple[str, dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UPSTREAM_WS", "ws://from-environment/ws")
    monkeypatch.setenv("LISTEN_ADDR", "0.0.0.0:1")
    assert main(["run", "websocket-proxy", "--port", "2"]) == 0
    ((component, values),) = started
    assert component == "websocket-proxy"
    assert values == {
        "upstream_ws": "ws://from-environment/ws",
        "host": "0.0.0.0",
        "port": "2",
        "name": "websocket-proxy",
    }


def test_the_originals_flags_are_understood(started: list[tuple[str, dict[str, Any]]]) -> None:
    assert main(["run", "conductor", "--raft.server.id", "sequencer-1", "--consensus.port=50051"]) == 0
    assert started[0][1] == {"name": "sequencer-1", "raft_port": "50051"}


def test_a_script_written_for_the_original_rollup_boost_runs(
    started: list[tuple[str, dict[str, Any]]], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = """--l2-jwt-token 0x11 --builder-jwt-path /b --l2-url http://l2:8551 --builder-url http://b:8551
        --rpc-port 8081 --flashblocks --flashblocks-builder-url ws://b:1111 --flashblocks-port 1112
        --debug-server-port 5555 --execution-mode dry-run --ignore-unhealthy-builders=true
        --metrics --metrics-port 9090 --log-level debug --flashblock-builder-ws-max-reconnect-ms 5000"""
    assert main(["run", "rollup-boost", *arguments.split()]) == 0
    assert started[0][1] == {
        "name": "rollup-boost",
        "l2_jwt_token": "0x11",
        "builder_jwt_path": "/b",
        "l2_url": "http://l2:8551",
        "builder_url": "http://b:8551",
        "engine_port": "8081",
        "builder_ws_url": "ws://b:1111",
        "ws_port": "1112",
        "debug_port": "5555",
        "execution_mode": "dry-run",
        "ignore_unhealthy_builders": "true",
        "metrics_port": "9090",
        "log_level": "debug",
        "builder_ws_max_reconnect_ms": "5000",
    }
    assert "--flashblocks has no effect" in capsys.readouterr().err


def test_a_switch_is_set_by_naming_it(started: list[tuple[str, dict[str, Any]]]) -> None:
    assert (
        main(["run", "builder", "--builder.enable-revert-protection", "--gas-limiter.enabled", "--rpc-port", "1"]) == 0
    )
    assert started[0][1] == {
        "name": "builder",
        "enable_revert_protection": "true",
        "gas_limiter_enabled": "true",
        "rpc_port": "1",
    }


def test_an_unknown_flag_ends_with_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["run", "websocket-proxy", "--prot", "3"])
    assert end.value.code == 2
    assert "--prot" in capsys.readouterr().err


def test_missing_settings_are_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UPSTREAM_WS", raising=False)
    assert main(["run", "websocket-proxy"]) == 2
    assert "missing: --upstream-ws" in capsys.readouterr().err


@pytest.mark.parametrize("component", sorted(process.COMPONENTS))
def test_every_component_has_flags(component: str) -> None:
    parser = argparse.ArgumentParser()
    run.configure(parser, [component])
    assert "--log-level" in parser.format_help()
