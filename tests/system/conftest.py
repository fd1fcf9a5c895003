"""One whole cluster for the tests of this folder: the real command, real Ray, real processes."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.running import NAME, Cluster, flashblocks


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Five groups, up as long as the tests of this folder run; afterwards nothing of it is left."""
    root = Path(f"/tmp/fb-sys-{os.getpid()}")  # short: Ray's socket paths end at 107 bytes
    root.mkdir(mode=0o700)
    try:
        up = flashblocks("up", "--name", NAME, "--detach", "--json", root=root)
        yield Cluster(root, json.loads(up.stdout))
    finally:
        flashblocks("down", "--name", NAME, root=root, check=False)
        left = [str(path) for path in root.rglob("*")]
        assert not root.exists(), f"down left files behind: {left}"  # the last cluster takes the root with it
