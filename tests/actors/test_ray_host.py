"""How Ray is started on a host: pinned ports, the token, a storage where asked for; contradictions are refused."""

import pytest

from actors.ray_environment import joining_environment
from actors.ray_host import RayOptions, RayOptionsError, command, environment, ports, resources_of, shown


def options(**changes: object) -> RayOptions:
    return RayOptions(**{"address": "10.0.0.11", "head_address": "10.0.0.1", **changes})  # type: ignore[arg-type]


def test_a_worker_joins_the_head_at_its_pinned_port_and_says_what_it_is_for() -> None:
    words = command(options(resources={"sequencer": 1.0}), "/venv/bin/ray")
    assert words[:3] == ["/venv/bin/ray", "start", "--address=10.0.0.1:6379"]
    assert "--node-ip-address=10.0.0.11" in words
    assert '--resources={"sequencer": 1.0}' in words
    assert "--head" not in words


def test_the_head_offers_nothing_to_our_actors() -> None:
    words = command(options(head=True, head_address="", autoscaling_config="/root/c.yaml"), "ray")
    assert {"--head", "--port=6379", "--num-cpus=0", "--resources={}"} <= set(words)
    assert "--autoscaling-config=/root/c.yaml" in words


def test_the_redis_password_reaches_ray_and_no_log() -> None:
    words = command(options(head=True, head_address="", redis_password="s3cret"), "ray")
    assert "--redis-password=s3cret" in words
    assert "s3cret" not in shown(words)
    assert "--redis-password=" in shown(words)
    assert shown(["ray", "start", "--resources={}"]) == "ray start '--resources={}'"


def test_every_port_of_the_table_is_pinned_by_the_command() -> None:
    words = command(options(head=True, head_address="", port_offset=100), "ray")
    for each in ports(100):
        numbers = each.port.split("-")
        for flag, number in zip(each.flag.split("/"), numbers, strict=True) if each.flag else ():
            assert f"--{flag}={number}" in words


def test_ray_asks_for_the_token_and_survives_the_absence_of_its_head() -> None:
    found = environment(options())
    assert found["RAY_AUTH_MODE"] == "token"
    assert int(found["RAY_gcs_rpc_server_reconnect_timeout_s"]) > 24 * 3600
    assert "RAY_gcs_storage" not in found


@pytest.mark.cluster  # imports Ray; starts nothing
def test_hosts_may_differ_in_the_last_number_of_their_python(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray._private.utils import check_version_info, compute_version_info

    ray_version, python, *_ = compute_version_info()
    there = {"ray_version": ray_version, "python_version": python.rpartition(".")[0] + ".99"}
    with pytest.raises(RuntimeError, match="Version mismatch"):
        check_version_info(there, "here", raise_on_mismatch=True)
    for found in (environment(options()), joining_environment({})):
        with monkeypatch.context() as patch:
            patch.setenv("RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL", found["RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL"])
            check_version_info(there, "here", raise_on_mismatch=True)


@pytest.mark.parametrize(
    ("storage", "wanted"),
    [
        ("rocksdb:/var/lib/gcs", {"RAY_gcs_storage": "rocksdb", "RAY_gcs_storage_path": "/var/lib/gcs"}),
        ("redis://10.0.0.5:6380", {"RAY_REDIS_ADDRESS": "10.0.0.5:6380"}),
        ("rediss://10.0.0.5:6380", {"RAY_REDIS_ADDRESS": "rediss://10.0.0.5:6380"}),
    ],
)
def test_the_storage_of_the_head(storage: str, wanted: dict[str, str]) -> None:
    found = environment(options(head=True, head_address="", gcs_storage=storage))
    assert wanted.items() <= found.items()


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"head": True}, "either --head or --head-address"),
        ({"head_address": ""}, "either --head or --head-address"),
        ({"gcs_storage": "rocksdb:/x"}, "is the head's"),
        ({"head": True, "head_address": "", "gcs_storage": "rocksdb:relative"}, "ABSOLUTE"),
        ({"head": True, "head_address": "", "gcs_storage": "etcd://x"}, "redis://HOST"),
    ],
)
def test_contradictions_are_refused(changes: dict[str, object], text: str) -> None:
    with pytest.raises(RayOptionsError, match=text):
        command(options(**changes), "ray")


def test_a_host_is_an_edge_where_it_is_named_as_one() -> None:
    assert resources_of(["10.0.0.21"], ["10.0.0.21", "10.0.0.22"]) == {"edge": 1.0}
    assert resources_of(["10.0.0.11"], ["10.0.0.21"]) == {"sequencer": 1.0}
    assert resources_of(["10.0.0.11"], [""]) == {"sequencer": 1.0}
