"""Processes of other hosts: each has one number that no process of this machine has."""

from actors.endpoints import describe_hosts
from actors.far_hosts import far_pid, is_far, with_far_pids
from tests.actors.test_join_order import order

PID_MAX = 4_194_304  # Linux's own limit


def test_numbers_are_unique_over_hosts_and_none_is_a_pid_of_this_machine() -> None:
    numbers = [far_pid(host, pid) for host in (1, 2, 7) for pid in (1, 4711, PID_MAX)]
    assert len(set(numbers)) == len(numbers)
    assert all(is_far(number) and number > PID_MAX for number in numbers)
    assert not is_far(PID_MAX)
    assert far_pid(3, 0) == 0


def test_every_process_of_the_endpoints_gets_its_number() -> None:
    one = order()
    plan = one.plan()
    pids = {each.actor_name: 100 for each in plan}
    del pids["sequencer-1/builder"]
    found = with_far_pids(describe_hosts(one, plan, pids=pids, restarts={}, chain={}, alive=set()))
    actors = found["groups"][1]["actors"]
    assert actors["builder"]["pid"] == 0
    assert actors["conductor"]["pid"] == far_pid(2, 100)
    assert found["ingress"][0]["pid"] == found["rpc_nodes"][0]["pid"] == far_pid(6, 100)
    assert actors["conductor"]["rpc"] == "http://10.0.0.11:8547"
