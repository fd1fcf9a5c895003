"""What the operator tool op-conductor-ops asks, call by call, from the configuration file it reads."""

import json
import tomllib
import urllib.request
from pathlib import Path
from typing import Any

ANSWER_S_MAX = 10.0


class Refused(Exception):
    """The answer was a JSON-RPC error."""


def post(url: str, method: str, *params: Any) -> Any:
    """One JSON-RPC call over HTTP as any client makes it."""
    body = json.dumps({"id": 1, "jsonrpc": "2.0", "method": method, "params": list(params)}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=ANSWER_S_MAX) as response:
        answer = json.load(response)
    if "error" in answer:
        raise Refused(answer["error"]["message"])
    return answer["result"]


class Sequencer:
    """One `[sequencers.ID]` of the file."""

    def __init__(self, name: str, described: dict[str, Any]) -> None:
        self.name, self.raft_addr, self.voting = name, described["raft_addr"], described["voting"]
        self._conductor, self._node = described["conductor_rpc_url"], described["node_rpc_url"]
        self._rollup_boost = described["rollup_boost_rpc_url"]

    def conductor(self, method: str, *params: Any) -> Any:
        return post(self._conductor, f"conductor_{method}", *params)

    def admin(self, method: str, *params: Any) -> Any:
        return post(self._node, f"admin_{method}", *params)

    def boost(self, method: str, *params: Any) -> Any:
        return post(self._rollup_boost, f"debug_{method}", *params)

    def unsafe_head(self) -> tuple[int, str]:
        unsafe = post(self._node, "optimism_syncStatus")["unsafe_l2"]
        return unsafe["number"], unsafe["hash"]


class Network:
    """One `[networks.NAME]` of the file."""

    def __init__(self, path: Path, name: str) -> None:
        found = tomllib.loads(path.read_text())
        self.sequencers = [Sequencer(each, found["sequencers"][each]) for each in found["networks"][name]["sequencers"]]

    def leader(self) -> Sequencer | None:
        return next((each for each in self.sequencers if each.conductor("leader")), None)

    def active(self) -> Sequencer | None:
        return next((each for each in self.sequencers if each.admin("sequencerActive")), None)
