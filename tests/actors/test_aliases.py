"""Names operators know from the original components: each means a setting that exists, with its unit."""

import pytest

from actors.aliases import aliases_of
from actors.process import COMPONENTS, settings_type
from actors.settings import environment_name, field_types, from_environment, load

EVERY = [(component, flag) for component in sorted(COMPONENTS) for flag in aliases_of(component)]


@pytest.mark.parametrize(("component", "flag"), EVERY, ids=[f"{component} --{flag}" for component, flag in EVERY])
def test_every_alias_means_a_setting_that_exists(component: str, flag: str) -> None:
    assert aliases_of(component)[flag].field in field_types(settings_type(component))


@pytest.mark.parametrize(
    ("component", "flag", "name"),
    [
        ("conductor", "raft.server.id", "OP_CONDUCTOR_RAFT_SERVER_ID"),
        ("op-node", "sequencer.sealing-duration", "OP_NODE_SEQUENCER_SEALING_DURATION"),
        ("websocket-proxy", "upstream-ws", "UPSTREAM_WS"),
        ("rollup-boost", "l2-jwt-path", "L2_JWT_PATH"),
    ],
)
def test_environment_names_are_the_upstream_ones(component: str, flag: str, name: str) -> None:
    assert environment_name(component, flag) == name


@pytest.mark.parametrize(
    ("component", "environment", "field", "value"),
    [
        ("builder", {"CHAIN_BLOCK_TIME": "2000"}, "block_time_s", "2"),
        ("builder", {"FLASHBLOCK_BLOCK_TIME": "250"}, "flashblock_time_ms", "250"),
        ("op-node", {"OP_NODE_SEQUENCER_SEALING_DURATION": "1.5s"}, "sealing_duration_ms", "1500"),
        ("op-node", {"OP_NODE_SEQUENCER_SEALING_DURATION": "60"}, "sealing_duration_ms", "60"),
        ("websocket-proxy", {"LISTEN_ADDR": "0.0.0.0:8545"}, "port", "8545"),
        ("websocket-proxy", {"LISTEN_ADDR": "0.0.0.0:8545"}, "host", "0.0.0.0"),
        ("websocket-proxy", {"LISTEN_ADDR": "[::1]:8545"}, "host", "::1"),
        ("websocket-proxy", {"LISTEN_ADDR": ":8545"}, "host", "0.0.0.0"),
        ("websocket-proxy", {"SUBSCRIBER_MAX_INTERVAL": "20"}, "subscriber_max_interval_ms", "20000"),
        ("websocket-proxy", {"GLOBAL_CONNECTIONS_LIMIT": "7"}, "instance_connection_limit", "7"),
        ("websocket-proxy", {"INSTANCE_CONNECTIONS_LIMIT": "7"}, "instance_connection_limit", "7"),
        ("websocket-proxy", {"PER_IP_CONNECTIONS_LIMIT": "7"}, "per_ip_connection_limit", "7"),
        ("rpc-node", {"FLASHBLOCKS_URL": "ws://a/ws"}, "stream_urls", "ws://a/ws"),
        ("rpc-node", {"WEBSOCKET_URL": "ws://a/ws"}, "stream_urls", "ws://a/ws"),
        ("rpc-node", {"HTTP_ADDR": "0.0.0.0"}, "host", "0.0.0.0"),
        ("rpc-node", {"HTTP_CORSDOMAIN": "https://a"}, "cors_origins", "https://a"),
        ("ingress", {"BUILDER_RPC_URLS": "http://a,http://b"}, "target_urls", "http://a,http://b"),
        ("ingress", {"TX_FORWARDING_RESEND_AFTER_MS": "2000"}, "resend_after_ms", "2000"),
    ],
)
def test_units_are_converted(component: str, environment: dict[str, str], field: str, value: str) -> None:
    warnings: list[str] = []
    found = from_environment(component, settings_type(component), environment, warnings.append)
    assert found[field] == value
    assert warnings == []


def test_a_proxy_can_be_set_up_by_the_original_names_alone() -> None:
    environment = {
        "UPSTREAM_WS": "ws://a/ws,ws://b/ws",
        "PER_IP_CONNECTION_LIMIT": "0",
        "ENABLE_COMPRESSION": "true",
        "METRICS_GLOBAL_LABELS": "env=test,zone=a",
        "METRICS_HOST_LABEL": "true",
    }
    kind = settings_type("websocket-proxy")
    settings = load(kind, from_environment("websocket-proxy", kind, environment, lambda text: None))
    assert getattr(settings, "upstream_ws") == ["ws://a/ws", "ws://b/ws"]  # noqa: B009 – the type is only known here
    assert getattr(settings, "enable_compression") is True  # noqa: B009
    assert getattr(settings, "metrics_global_labels") == {"env": "test", "zone": "a"}  # noqa: B009
