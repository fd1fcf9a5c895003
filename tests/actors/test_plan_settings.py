"""The plan and the components agree: each component accepts the settings the plan gives it."""

from pathlib import Path

import pytest

from actors import settings
from actors.plan import ClusterOptions, ComponentPlan, build_plan
from actors.ports import cluster_ports
from actors.process import settings_type

OPTIONS = ClusterOptions(groups=2, flashblock_time_ms=250, block_time_s=1)
PLAN = build_plan(OPTIONS, cluster_ports(groups=2, proxies=2, rpc_nodes=1, ingresses=1), Path("/data"))


@pytest.mark.parametrize("each", PLAN, ids=[each.actor_name for each in PLAN])
def test_a_component_accepts_its_settings(each: ComponentPlan) -> None:
    kind = settings_type(each.component)
    loaded = settings.load(kind, each.settings)
    for name, value in (("flashblock_time_ms", 250), ("block_time_s", 1), ("log_level", "info")):
        if name in kind.__struct_fields__:
            assert getattr(loaded, name) == value
