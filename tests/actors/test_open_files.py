"""A process gets as many files as the host lets it, and hands that on to its children; a higher limit stays."""

import subprocess
import sys

import pytest

SCRIPT = """
import resource, subprocess, sys
from actors.open_files import raise_limit
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
print(raise_limit(), flush=True)
print(raise_limit(), flush=True)
subprocess.run(["sh", "-c", "ulimit -Sn; ulimit -Hn"], check=True)
"""


@pytest.mark.parametrize(("soft", "hard"), [(64, 512), (512, 512)])
def test_the_soft_limit_becomes_the_hard_one(soft: int, hard: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(soft=soft, hard=hard)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(hard)] * 4
