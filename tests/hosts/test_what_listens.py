"""What a host lets others reach is what is documented, and secrets are for their owner only."""

import re
import stat
from pathlib import Path

import pytest

from tests.hosts.deployment import DATA_DIRECTORY, EDGE, HEAD, OPERATOR, RUN_DIRECTORY, SEQUENCERS, SPARE, Deployment
from tests.hosts.listening import listening
from tests.hosts.machine import SSH_PORT, Machine

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(900)]

SECRETS = {"jwt.hex", "raft-password"}
LOG_SUFFIXES = (".jsonl", ".log", ".out", ".err")
RAY_PORT = re.compile(r"^(\d+)(?:-(\d+))?\s+(head|every host)\s", re.MULTILINE)


def secrets_of(machine: Machine) -> list[Path]:
    """The files of a host that are named as the chain's secrets are."""
    places = (machine.file(RUN_DIRECTORY), machine.file(DATA_DIRECTORY))
    return [path for place in places for path in place.rglob("*") if path.name in SECRETS]


def documented_for_ray(deployment: Deployment, machine: Machine) -> set[int]:
    """The ports `flashblocks ray ports` names for this host."""
    table = deployment.machines[OPERATOR].run("flashblocks", "ray", "ports").stdout
    ports: set[int] = set()
    for first, last, where in RAY_PORT.findall(table):
        if where == "every host" or machine.name == HEAD:
            ports.update(range(int(first), int(last or first) + 1))
    return ports


@pytest.mark.parametrize("name", [HEAD, *SEQUENCERS, EDGE])
def test_a_host_listens_where_it_is_documented_and_nowhere_else(deployment: Deployment, name: str) -> None:
    machine = deployment.machines[name]
    ours = {
        (entry["address"], entry["port"])
        for entry in deployment.endpoints["listens"]
        if entry["address"] == machine.address
    }
    for_ray = documented_for_ray(deployment, machine)
    found = set(listening(machine)) - {(machine.address, SSH_PORT)}
    undocumented = {(address, port) for address, port in found - ours if port not in for_ray}
    assert undocumented == set()
    assert ours - found == set(), "documented, and nobody listens there"
    assert list(listening(machine, "--udp")) == []


def test_hosts_that_have_nothing_of_ours_listen_nowhere(deployment: Deployment) -> None:
    for name in (OPERATOR, SPARE):
        machine = deployment.machines[name]
        assert set(listening(machine)) == {(machine.address, SSH_PORT)}


def test_secrets_are_where_they_are_needed_and_their_owners_only(deployment: Deployment) -> None:
    contents: dict[str, set[bytes]] = {name: set() for name in SECRETS}
    for machine in deployment.machines:
        found = secrets_of(machine)
        needed = SECRETS if machine.name in SEQUENCERS else {"jwt.hex"} if machine.name == EDGE else set()
        assert {path.name for path in found} == needed, machine.name
        tokens = [machine.file("/root/.ray/auth_token")] if machine.name != SPARE else []
        for path in (*found, *tokens):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
            assert path.stat().st_uid == 0
            contents.setdefault(path.name, set()).add(path.read_bytes())
        for root in (machine.file(RUN_DIRECTORY), machine.file(DATA_DIRECTORY)):
            assert not root.exists() or stat.S_IMODE(root.stat().st_mode) == 0o700, root
    assert {name: len(each) for name, each in contents.items()} == {"jwt.hex": 1, "raft-password": 1, "auth_token": 1}


def test_secrets_are_not_told_on_command_lines_or_in_logs(deployment: Deployment) -> None:
    machine = deployment.machines[SEQUENCERS[0]]
    secrets = [path.read_text().strip() for path in secrets_of(machine)]
    assert len(secrets) == len(SECRETS)
    secrets.append(machine.file("/root/.ray/auth_token").read_text().strip())
    lines = machine.run("ps", "-e", "-o", "args=").stdout
    places = [machine.file("/tmp"), machine.file(DATA_DIRECTORY)]
    logs = [path for place in places for path in place.rglob("*") if path.is_file() and path.suffix in LOG_SUFFIXES]
    assert logs
    for secret in secrets:
        assert len(secret) >= 32
        assert secret not in lines
        assert [path for path in logs if secret in path.read_text(errors="replace")] == []
