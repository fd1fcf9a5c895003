"""Drills on a real cluster: a short form for every change, the whole catalogue on request (`pytest -m slow`)."""

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.system.running import Cluster, flashblocks

SHORT = ["hang-op-node", "failing-transactions"]
ON_THE_NETWORK = "leader-deaf"
ALL_S_MAX = 1500


@pytest.mark.cluster
@pytest.mark.timeout(300)
def test_the_short_form_passes_and_its_page_is_kept(cluster: Cluster, tmp_path: Path) -> None:
    cuts = [ON_THE_NETWORK] if os.geteuid() == 0 and shutil.which("nft") else []
    run = cluster.run("drill", "run", *SHORT, *cuts, "--tps", "10", "--json", "--report", str(tmp_path), check=False)
    results = json.loads(run.stdout)
    assert [(one["drill"], one["verdict"]) for one in results] == [(name, "pass") for name in (*SHORT, *cuts)], results
    assert all(one["included"] > 0 and one["kills"] == 1 for one in results)
    again = flashblocks("drill", "report", str(tmp_path), "--json", root=cluster.root)
    judged = {one["drill"]: one for one in json.loads(again.stdout)}
    assert [judged[one["drill"]] for one in results] == results  # from the histories alone
    assert "<svg" in (tmp_path / "report.html").read_text()


@pytest.mark.slow
@pytest.mark.timeout(ALL_S_MAX)
def test_the_whole_catalogue_passes(tmp_path: Path) -> None:
    root = Path(f"/tmp/fb-all-{os.getpid()}")  # short: Ray's socket paths end at 107 bytes
    root.mkdir(mode=0o700)
    run = flashblocks(
        "drill", "run", "all", "--json", "--report", str(tmp_path), root=root, check=False, timeout_s=ALL_S_MAX
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert {one["verdict"] for one in json.loads(run.stdout)} == {"pass"}
