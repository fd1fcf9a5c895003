"""The order: plan, addresses and the firewall's table follow from it; a replaced host makes the next version."""

import msgspec

from actors.endpoints import describe_hosts
from actors.join_order import JoinOrder, newest
from actors.listening import listens
from actors.placement import Host, place
from actors.plan import ClusterOptions

HOSTS = [
    Host(address="10.0.0.1", head=True),
    *(Host(address=f"10.0.0.1{index}", sequencer=True) for index in range(5)),
    Host(address="10.0.0.21", edge=True),
]


def order(**changes: object) -> JoinOrder:
    placement = place(HOSTS, groups=5, proxies=2, rpc_nodes=1, ingresses=1)
    values = {
        "marker": "00ff",
        "options": ClusterOptions(name="x"),
        "placement": placement,
        "run_dir": "/tmp/run/x",
        "data_dir": "/tmp/run/x/data",
        "temporary_data": True,
        "ray_address": "10.0.0.1:6379",
        "command_at": 0.0,
        **changes,
    }
    return JoinOrder(**values)  # type: ignore[arg-type]


def test_it_survives_its_file() -> None:
    assert msgspec.json.decode(msgspec.json.encode(order()), type=JoinOrder) == order()


def test_the_newest_version_of_the_same_run_counts() -> None:
    second = order().replacing("10.0.0.12", "10.0.0.99")
    assert second.version == 2
    assert newest([order(), second, order(marker="other", version=9)], "00ff") == second
    assert newest([], "00ff") is None


def test_a_replaced_host_changes_every_address_of_it_and_no_other() -> None:
    before = {each.actor_name: each for each in order().plan()}
    after = {each.actor_name: each for each in order().replacing("10.0.0.12", "10.0.0.99").plan()}
    assert before.keys() == after.keys()
    assert {name for name in before if after[name].host == "10.0.0.99"} == {
        name for name in before if name.startswith("sequencer-2/")
    }
    assert "10.0.0.12" not in repr(after)


def test_what_listens_beyond_loopback_is_on_its_own_host_and_has_a_reason() -> None:
    found = listens(order(), order().plan())
    by_host = {host: {each.port for each in found if each.address == host} for host in {each.address for each in found}}
    for index in range(5):
        assert by_host[f"10.0.0.1{index}"] == {5050, 7300, 8543, 8544, 8546, 8547, 9545}
    assert by_host["10.0.0.21"] == {8070, 8080, 8545, 8550, 8560}
    assert "10.0.0.1" not in by_host
    assert all(each.for_whom for each in found)


def test_the_description_says_which_hosts_answer() -> None:
    one = order()
    plan = one.plan()
    found = describe_hosts(
        one, plan, pids={plan[0].actor_name: 7}, restarts={}, chain={}, alive={"10.0.0.10", "10.0.0.21"}
    )
    assert [host["alive"] for host in found["hosts"]] == [True, False, False, False, False, True]
    assert found["hosts"][5]["for"] == "edge"
    assert found["groups"][0]["actors"]["conductor"]["host"] == "10.0.0.10"
    assert found["groups"][0]["actors"]["conductor"]["pid"] == 7
    assert found["groups"][1]["actors"]["conductor"]["pid"] == 0
    assert found["keeper"] == ["http://10.0.0.21:8070"]
    assert found["rpc"]["http"] == "http://10.0.0.21:8545"
