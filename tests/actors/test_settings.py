"""Settings from text: types, lists and tables; unknown keys are refused with a hint; upstream names are understood."""

from typing import Any, Literal

import msgspec
import pytest

from actors.settings import SettingsError, from_environment, load


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    port: int
    upstream_ws: list[str]
    name: str = "proxy-0"
    per_ip_connection_limit: int = 10
    enable_compression: bool = False
    ratio: float = 0.5
    peers: dict[str, str] = {}
    api_keys: str | None = None
    mode: Literal["enabled", "dry-run"] = "enabled"


def test_text_becomes_the_type_of_the_field() -> None:
    settings = load(
        Settings,
        {
            "port": "8550",
            "upstream_ws": "ws://a/ws, ws://b/ws",
            "name": "123",
            "enable_compression": "true",
            "ratio": "0.25",
            "peers": "a=1:2,b=3:4",
            "api_keys": "app:key",
            "mode": "dry-run",
        },
    )
    assert settings == Settings(
        port=8550,
        upstream_ws=["ws://a/ws", "ws://b/ws"],
        name="123",
        enable_compression=True,
        ratio=0.25,
        peers={"a": "1:2", "b": "3:4"},
        api_keys="app:key",
        mode="dry-run",
    )


def test_values_that_are_not_text_are_taken_as_they_are() -> None:
    assert load(Settings, {"port": 1, "upstream_ws": ["x"]}).upstream_ws == ["x"]


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"prot": "1"}, r"unknown setting --prot; did you mean --port\?"),
        ({"zzzzzz": "1"}, r"unknown setting --zzzzzz; known: --port, "),
        ({"port": "1"}, r"missing: --upstream-ws"),
        ({}, r"missing: --port, --upstream-ws"),
        ({"port": "many", "upstream_ws": "x"}, r"--port: .*got 'many'"),
        ({"port": 1, "upstream_ws": ["x"], "mode": "off"}, r"--mode"),
        ({"port": 1, "upstream_ws": ["x"], "peers": "a"}, r"--peers: expected key=value"),
        ({"port": 1, "upstream_ws": [2]}, r"upstream_ws"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_name(values: dict[str, Any], text: str) -> None:
    with pytest.raises(SettingsError, match=text):
        load(Settings, values)


def environment(values: dict[str, str]) -> tuple[dict[str, Any], list[str]]:
    warnings: list[str] = []
    return from_environment("websocket-proxy", Settings, values, warnings.append), warnings


def test_upstream_environment_names_are_understood() -> None:
    values, warnings = environment(
        {"UPSTREAM_WS": "ws://a/ws", "LISTEN_ADDR": "0.0.0.0:8545", "PER_IP_CONNECTIONS_LIMIT": "3", "HOME": "/root"}
    )
    assert values == {"upstream_ws": "ws://a/ws", "port": "8545", "per_ip_connection_limit": "3"}
    assert warnings == []


def test_our_own_name_wins_over_the_upstream_one_in_either_order() -> None:
    own, upstream = {"FLASHBLOCKS_WEBSOCKET_PROXY_PORT": "1"}, {"LISTEN_ADDR": ":2"}
    assert environment({**own, **upstream})[0] == environment({**upstream, **own})[0] == {"port": "1"}


def test_an_unknown_name_with_our_prefix_is_warned_about() -> None:
    values, warnings = environment({"FLASHBLOCKS_WEBSOCKET_PROXY_PROT": "1"})
    assert values == {}
    assert warnings == ["FLASHBLOCKS_WEBSOCKET_PROXY_PROT is not a setting of websocket-proxy; it is ignored"]


def test_an_unknown_name_with_the_upstream_prefix_is_warned_about_and_units_are_converted() -> None:
    class OpNode(msgspec.Struct, frozen=True, kw_only=True):
        sealing_duration_ms: int = 50

    warnings: list[str] = []
    found = from_environment(
        "op-node", OpNode, {"OP_NODE_SEQUENCER_SEALING_DURATION": "75ms", "OP_NODE_P2P_LISTEN": "x"}, warnings.append
    )
    assert load(OpNode, found).sealing_duration_ms == 75
    assert warnings == ["OP_NODE_P2P_LISTEN is not a setting of op-node; it is ignored"]
