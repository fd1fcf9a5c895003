"""A cluster as endpoints.json tells of it, without one: five groups whose processes do not exist."""

import json

import pytest

from chaos.faults import ACTORS
from chaos.target import Target


@pytest.fixture
def target(tmp_path):
    groups = [
        {
            "name": f"sequencer-{number}",
            "actors": {
                actor: {"pid": 2**22 + 100 * number + place, "rpc": f"http://127.0.0.1:{9000 + 10 * number + place}"}
                for place, actor in enumerate(ACTORS)
            },
        }
        for number in range(5)
    ]
    path = tmp_path / "endpoints.json"
    known = {
        "groups": groups,
        "data_dir": str(tmp_path / "data"),
        "chain_id": 901,
        "block_time_s": 2,
        "rpc": {"http": "http://127.0.0.1:9999", "ws": "ws://127.0.0.1:9999"},
        "rpc_nodes": [],
        "ingress": [],
        "stream": [],
        "accounts": [{"address": "0x" + "11" * 20, "private_key": "0x" + "22" * 32}],
    }
    path.write_text(json.dumps(known))
    return Target(path)
