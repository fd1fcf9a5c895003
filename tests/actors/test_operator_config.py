"""op-conductor-ops.toml, read back as the tool reads it."""

import tomllib
from pathlib import Path

from actors.endpoints import describe
from actors.operator_config import operator_config
from actors.plan import ClusterOptions, build_plan
from actors.ports import cluster_ports


def test_every_sequencer_is_described_as_the_tool_wants_it() -> None:
    options = ClusterOptions(name="my.net", groups=2, proxies=1)
    plan = build_plan(options, cluster_ports(groups=2, proxies=1, rpc_nodes=1, ingresses=1), Path("/data"))
    pids = {each.actor_name: 1 for each in plan}
    found = tomllib.loads(
        operator_config(describe(options, plan, pids=pids, restarts={}, data_dir=Path("/data"), chain={}))
    )
    assert found == {
        "networks": {"my.net": {"sequencers": ["sequencer-0", "sequencer-1"]}},
        "sequencers": {
            f"sequencer-{group}": {
                "raft_addr": f"127.0.0.1:{5050 + 100 * group}",
                "conductor_rpc_url": f"http://127.0.0.1:{8547 + 100 * group}",
                "node_rpc_url": f"http://127.0.0.1:{9545 + 100 * group}",
                "rollup_boost_rpc_url": f"http://127.0.0.1:{5555 + 100 * group}",
                "voting": True,
            }
            for group in (0, 1)
        },
    }
    conductor = next(each for each in plan if each.actor_name == "sequencer-1/conductor")
    assert conductor.settings["raft_peers"]["sequencer-1"] == found["sequencers"]["sequencer-1"]["raft_addr"]
