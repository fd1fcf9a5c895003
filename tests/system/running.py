"""The real command line, pointed at the cluster of these tests."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

NAME = "sys"
COMMAND_S_MAX = 240.0
FLASHBLOCKS = Path(sys.executable).with_name("flashblocks")


def flashblocks(
    *words: str, root: Path, check: bool = True, timeout_s: float = COMMAND_S_MAX
) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does."""
    environment = {**os.environ, "FLASHBLOCKS_RUN_ROOT": str(root)}
    done = subprocess.run(
        [FLASHBLOCKS, *words], env=environment, capture_output=True, text=True, timeout=timeout_s, check=False
    )
    assert not check or done.returncode == 0, f"flashblocks {' '.join(words)}: {done.stdout}{done.stderr}"
    return done


class Cluster:
    """A running cluster and the command line pointed at it."""

    def __init__(self, root: Path, endpoints: dict[str, Any]) -> None:
        self.root, self.endpoints = root, endpoints

    def run(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command on this cluster."""
        return flashblocks(*words, "--name", NAME, root=self.root, check=check)

    def json(self, *words: str) -> Any:
        """Run a reading command and parse what it prints."""
        return json.loads(self.run(*words, "--json").stdout)
