"""Growth is read from /proc, per process, from when it was warm."""

import os
from pathlib import Path

import orjson

from chaos.soak_resources import PAGE_BYTES, WARM_S, Resources, growth_table, processes
from chaos.target import Target

MIB_PAGES = 1024 * 1024 // PAGE_BYTES


def endpoints(tmp_path, pid, proxy_pid=0):
    actors = {"conductor": {"pid": pid}, "builder": {"pid": 0}}
    content = {
        "groups": [{"name": "sequencer-0", "actors": actors}],
        "proxies": [{"name": "proxy-0", "pid": proxy_pid}],
        "stream": ["ws://127.0.0.1:8550/ws"],
    }
    path = tmp_path / "endpoints.json"
    path.write_bytes(orjson.dumps(content))
    return Target(path)


def process(proc: Path, pid: int, mib: int, descriptors: int) -> None:
    (proc / str(pid) / "fd").mkdir(parents=True, exist_ok=True)
    (proc / str(pid) / "statm").write_text(f"99999 {mib * MIB_PAGES} 0 0 0 0 0\n")
    for number in range(descriptors):
        (proc / str(pid) / "fd" / str(number)).touch()


def test_every_process_that_runs_is_named(tmp_path):
    target = endpoints(tmp_path, 11, 12)
    assert list(processes(target.endpoints())) == [("sequencer-0/conductor", 11), ("proxy-0", 12)]


def test_growth_counts_from_when_a_process_is_warm(tmp_path):
    resources = Resources(endpoints(tmp_path, 11), tmp_path)
    for at_s, mib, descriptors in ((0.0, 50, 5), (WARM_S, 100, 10), (WARM_S + 1800, 130, 12), (WARM_S + 3600, 120, 11)):
        process(tmp_path, 11, mib, descriptors)
        resources.sample(at_s)
    (grown,) = resources.growth()
    assert (grown.resident_mib_warm, grown.resident_mib_last, grown.resident_mib_most) == (100, 120, 130)
    assert (grown.descriptors_warm, grown.descriptors_last, grown.descriptors_most) == (10, 12, 12)
    assert grown.mib_per_hour == 20
    assert "sequencer-0/conductor" in growth_table([grown])


def test_one_that_died_young_or_is_gone_says_nothing(tmp_path):
    resources = Resources(endpoints(tmp_path, 11), tmp_path)
    process(tmp_path, 11, 50, 5)
    resources.sample(0.0)
    resources.sample(WARM_S / 2)
    assert resources.growth() == []
    gone = Resources(endpoints(tmp_path, 77), tmp_path)
    gone.sample(0.0)
    assert gone.growth() == []


def test_a_real_process_is_read(tmp_path):
    resources = Resources(endpoints(tmp_path, os.getpid()))
    resources.sample(0.0)
    resources.sample(WARM_S)
    (grown,) = resources.growth()
    assert grown.resident_mib_last > 5 and grown.descriptors_last > 2
