"""The cluster table: every component is there once, and every address one names is another's own."""

import re
from pathlib import Path

import pytest

from actors.placement import Host, place
from actors.plan import ClusterOptions, ComponentPlan, OptionsError, build_plan
from actors.ports import cluster_ports, placed_ports

DATA_DIR = Path("/data")


def plan_of(**changes: int) -> list[ComponentPlan]:
    options = ClusterOptions(**changes)
    ports = cluster_ports(
        groups=options.groups, proxies=options.proxies, rpc_nodes=options.rpc_nodes, ingresses=options.ingresses
    )
    return build_plan(options, ports, DATA_DIR)


def find(plan: list[ComponentPlan], actor_name: str) -> ComponentPlan:
    return next(each for each in plan if each.actor_name == actor_name)


def test_the_default_cluster_has_twenty_nine_components_each_once() -> None:
    plan = plan_of()
    names = [each.actor_name for each in plan]
    assert len(names) == len(set(names)) == 29
    assert sum(each.component == "conductor" for each in plan) == 5
    assert {each.instance for each in plan} == {f"sequencer-{i}" for i in range(5)} | {
        "proxy-0",
        "proxy-1",
        "rpc-0",
        "ingress-0",
    }


def test_what_the_first_flashblock_needs_comes_first() -> None:
    first = [each.actor_name for each in plan_of()[:9]]
    assert [name for name in first if name.endswith("conductor")] == [f"sequencer-{i}/conductor" for i in range(3)]
    assert {"sequencer-0/op-node", "sequencer-0/builder", "sequencer-0/rollup-boost", "sequencer-0/fallback-el"} <= set(
        first
    )
    assert "proxy-0/websocket-proxy" in first


@pytest.mark.parametrize("groups", [1, 3, 5, 9])
def test_every_url_in_the_settings_is_served_by_some_component(groups: int) -> None:
    plan = plan_of(groups=groups, rpc_nodes=2, ingresses=2)
    served = {
        int(value) for each in plan for key, value in each.settings.items() if key == "port" or key.endswith("_port")
    }
    named = {int(port) for each in plan for port in re.findall(r"127\.0\.0\.1:(\d+)", repr(each.settings))}
    assert named <= served
    assert {int(port) for each in plan for port in re.findall(r":(\d+)", repr(each.addresses))} <= served


def test_no_two_components_listen_on_one_port_or_share_a_directory() -> None:
    plan = plan_of(groups=9, proxies=9, rpc_nodes=9, ingresses=9)
    served = [value for each in plan for key, value in each.settings.items() if key == "port" or key.endswith("_port")]
    assert len(served) == len(set(served))
    directories = [each.settings["data_dir"] for each in plan]
    assert len(directories) == len(set(directories))


def test_a_group_talks_to_its_own_members_and_backfills_from_the_others() -> None:
    op_node = find(plan_of(), "sequencer-1/op-node").settings
    assert op_node["engine_url"] == "http://127.0.0.1:8181"
    assert op_node["conductor_url"] == "http://127.0.0.1:8647"
    assert "http://127.0.0.1:8644" not in op_node["peer_urls"]
    assert "http://127.0.0.1:8544" in op_node["peer_urls"]
    assert len(op_node["peer_urls"]) == 8


def test_every_conductor_names_the_same_raft_members() -> None:
    conductors = [each for each in plan_of() if each.component == "conductor"]
    members = conductors[0].settings["raft_peers"]
    assert members["sequencer-4"] == "127.0.0.1:5450"
    assert all(each.settings["raft_peers"] == members for each in conductors)
    assert all(members[each.instance] == f"127.0.0.1:{each.settings['raft_port']}" for each in conductors)


@pytest.mark.parametrize("wanted", [True, False])
def test_every_conductor_forces_its_journal_to_the_disk_if_that_is_wanted(wanted: bool) -> None:
    conductors = [each for each in plan_of(raft_fsync=wanted) if each.component == "conductor"]
    assert {each.settings["raft_fsync"] for each in conductors} == {wanted}


def test_proxies_listen_to_every_conductor() -> None:
    proxy = find(plan_of(groups=3), "proxy-1/websocket-proxy")
    assert proxy.settings["upstream_ws"] == [f"ws://127.0.0.1:{8546 + 100 * g}/ws" for g in range(3)]
    assert proxy.addresses["ws"] == "ws://127.0.0.1:8560/ws"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"groups": 0}, "--groups 0"),
        ({"groups": 10}, "between 1 and 9"),
        ({"name": "No Spaces"}, "--name"),
        ({"name": "x" * 17}, "--name"),
        ({"flashblock_time_ms": 2001}, "--flashblock-time 2001"),
        ({"rpc_nodes": 1, "ingresses": 0}, "--ingresses 0"),
        ({"log_level": "loud"}, "--log-level loud"),
    ],
)
def test_options_out_of_range_are_refused_with_the_flag_named(changes: dict[str, int], text: str) -> None:
    with pytest.raises(OptionsError, match=text):
        ClusterOptions(**changes).check()


def test_the_defaults_are_within_their_ranges() -> None:
    ClusterOptions().check()


HOSTS = [
    Host(address="10.0.0.1", head=True),
    *(Host(address=f"10.0.0.1{index}", sequencer=True) for index in range(5)),
    Host(address="10.0.0.21", edge=True),
]


def placed_plan(hosts: list[Host], groups: int = 5) -> list[ComponentPlan]:
    placement = place(hosts, groups=groups, proxies=2, rpc_nodes=1, ingresses=1)
    return build_plan(ClusterOptions(groups=groups), placed_ports(placement), DATA_DIR, placement)


def test_on_many_hosts_all_groups_use_the_usual_ports_of_their_own_host() -> None:
    plan = placed_plan(HOSTS)
    conductors = [each for each in plan if each.component == "conductor"]
    assert [each.host for each in conductors] == [f"10.0.0.1{index}" for index in range(5)]
    assert conductors[0].settings["raft_peers"] == {f"sequencer-{i}": f"10.0.0.1{i}:5050" for i in range(5)}
    assert all(each.settings["host"] == each.host for each in conductors)
    assert find(plan, "proxy-1/websocket-proxy").settings["upstream_ws"][4] == "ws://10.0.0.14:8546/ws"
    assert find(plan, "rpc-0/rpc-node").addresses == {"http": "http://10.0.0.21:8545", "ws": "ws://10.0.0.21:8545"}


def test_what_only_the_group_talks_to_stays_on_loopback() -> None:
    plan = placed_plan(HOSTS)
    for group in range(5):
        boost = find(plan, f"sequencer-{group}/rollup-boost")
        assert boost.settings["host"] == "127.0.0.1"
        assert boost.addresses["metrics"] == f"http://10.0.0.1{group}:7300"
        for component in ("builder", "fallback-el"):
            client = find(plan, f"sequencer-{group}/{component}")
            assert client.settings["engine_host"] == "127.0.0.1"
            assert client.addresses["rpc"].startswith(f"http://10.0.0.1{group}:")


def test_a_component_names_loopback_only_for_what_its_own_host_serves_there() -> None:
    for plan in (placed_plan(HOSTS), placed_plan(HOSTS[1:3])):
        for each in plan:
            for port in re.findall(r"127\.0\.0\.1:(\d+)", repr(each.settings)):
                servers = [
                    other.instance
                    for other in plan
                    if other.host == each.host and f"//127.0.0.1:{port}" in repr(other.addresses)
                ]
                assert servers == [each.instance], f"{each.actor_name} and port {port}"


@pytest.mark.parametrize("hosts", [1, 2, 5])
def test_no_two_components_of_one_host_share_a_port(hosts: int) -> None:
    plan = placed_plan(HOSTS[1 : 1 + hosts], groups=5)
    taken = [
        (each.host, value)
        for each in plan
        for key, value in each.settings.items()
        if key == "port" or key.endswith("_port")
    ]
    assert len(taken) == len(set(taken))
