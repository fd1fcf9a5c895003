"""The operator's own command on a host of the system: its signals reach the processes of all others."""

import json

import pytest

from tests.hosts.deployment import EDGE, HEAD, NAME, Deployment

pytestmark = [pytest.mark.hosts, pytest.mark.slow, pytest.mark.timeout(900)]

DRILLS_S_MAX = 600.0


@pytest.mark.parametrize(
    ("where", "drills"),
    [(HEAD, ["kill-conductor", "hang-op-node", "partition-leader"]), (EDGE, ["transfer", "kill-group"])],
)
def test_drills_run_from_a_host_of_the_system(deployment: Deployment, where: str, drills: list[str]) -> None:
    host = deployment.machines[where]
    said = host.run(
        *("flashblocks", "drill", "run", *drills, "--name", NAME, "--count", "2", "--tps", "10", "--json"),
        timeout_s=DRILLS_S_MAX,
        check=False,
    )
    assert said.returncode == 0, said.stdout + said.stderr
    results = {result["drill"]: result for result in json.loads(said.stdout)}
    assert list(results) == [name for name in drills if name != "partition-leader"]
    assert all(result["verdict"] == "pass" and result["kills"] == 2 for result in results.values()), results
    assert ("partition-leader" in drills) == ("skipped partition-leader: it needs files or connections" in said.stderr)
    assert not (host.file("/tmp/flashblocks-0") / NAME / "far-endpoints.json").exists()
