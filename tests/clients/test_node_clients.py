"""viem and ethers, as their users write them, against an edge that works by the clock – and while its leader dies.

Needs Node.js and, the first time, the npm registry: `npm ci` fills tests/clients/node/node_modules from the lock file.
"""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients.live_edge import LiveEdge, live_edge

SUITE = Path(__file__).parent / "node"
INSTALL_S_MAX = 120
SUITE_S_MAX = 150
VIEM_KEY = "0x7c852118294e51e653712a81e05800f419141751be58f605c371e15141b007a6"
ETHERS_KEY = "0x47e179ec197488593b187f80a00eb0da91f1b9d0b13f8733639f19c30a34926a"

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(shutil.which("node") is None or shutil.which("npm") is None, reason="Node.js is not installed"),
]


@pytest.fixture(scope="module")
def suite() -> Path:
    if not (SUITE / "node_modules" / "viem").is_dir():
        install = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        try:
            done = subprocess.run(install, cwd=SUITE, capture_output=True, timeout=INSTALL_S_MAX, check=False)
        except subprocess.TimeoutExpired:
            pytest.skip(f"npm ci did not finish in {INSTALL_S_MAX} s")
        if done.returncode:
            pytest.skip(f"viem and ethers cannot be installed: {done.stderr.decode(errors='replace')[-300:]}")
    return SUITE / "suite.mjs"


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveEdge]:
    with live_edge(tmp_path_factory.mktemp("edge")) as made:
        yield made


def run(suite: Path, edge: LiveEdge, rounds: int) -> dict[str, Any]:
    command = ["node", str(suite), edge.url, edge.ws_url, VIEM_KEY, ETHERS_KEY, str(rounds)]
    done = subprocess.run(command, capture_output=True, timeout=SUITE_S_MAX, check=False, text=True)
    assert done.stdout, done.stderr
    results: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(json.dumps(results, indent=1))
    return results


@pytest.mark.slow  # the gate runs the same suite on a whole cluster
def test_viem_and_ethers(suite: Path, edge: LiveEdge) -> None:
    results = run(suite, edge, rounds=3)
    assert {name: result["error"] for name, result in results.items() if not result["ok"]} == {}
    assert len(results) == 8


@pytest.mark.slow  # the gate kills real leaders instead: tests/system/test_clients_on_system.py
def test_neither_notices_a_dying_leader(suite: Path, edge: LiveEdge) -> None:
    edge.pause(1.5, every_s=4.0)
    results = run(suite, edge, rounds=8)
    edge.pause(0.0)
    assert {name: result["error"] for name, result in results.items() if not result["ok"]} == {}
