"""The hosts themselves: what they share, what the network does to them, and that nothing of them is left."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.reaper import descendants
from tests.hosts.machine import SSH_PORT, MachineError
from tests.hosts.machines import Machines
from tests.hosts.network import REPOSITORY

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(120)]

PORT = 5999
LISTEN_S = 2.0
LISTEN = f"""
import socket, time
door = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
door.bind(("0.0.0.0", {PORT}))
print("ready", flush=True)
count, end = 0, time.monotonic() + {LISTEN_S}
while (left := end - time.monotonic()) > 0:
    door.settimeout(left)
    try:
        if door.recv(16) == b"end":
            break
        count += 1
    except TimeoutError:
        break
print(count)
"""
SEND = """
import socket, sys
door = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(int(sys.argv[2])):
    door.sendto(b"hello", (sys.argv[1], int(sys.argv[3])))
"""


@pytest.fixture(scope="module")
def three() -> Iterator[Machines]:
    with Machines(["a", "b", "c"]) as machines:
        yield machines


@pytest.fixture(autouse=True)
def healed(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "three" in request.fixturenames:
        request.getfixturevalue("three").network.heal()


def received(machines: Machines, source: str, to: str, count: int = 20) -> int:
    """How many of `count` datagrams sent by one host reach another."""
    listener = subprocess.Popen(
        machines[to].inside(sys.executable, "-S", "-c", LISTEN), stdout=subprocess.PIPE, text=True
    )
    with listener:
        assert listener.stdout is not None
        assert listener.stdout.readline() == "ready\n"
        machines[source].run(sys.executable, "-S", "-c", SEND, machines.address(to), str(count), str(PORT))
        return int(listener.stdout.readline())


def test_each_has_its_own_name_address_processes_and_files(three: Machines) -> None:
    for machine in three:
        assert machine.run("hostname").stdout.strip() == machine.name
        assert machine.address in machine.run("ip", "-4", "-o", "address").stdout
        machine.run("sh", "-c", "for place in ~ /tmp /run /var/tmp /dev/shm; do echo $(hostname) > $place/mine; done")
    for machine in three:
        found = machine.run("sh", "-c", "cat ~/mine /tmp/mine /run/mine /var/tmp/mine /dev/shm/mine").stdout.split()
        assert found == [machine.name] * 5
        assert machine.file("/tmp/mine").read_text().strip() == machine.name
        assert machine.run("ls", "/proc/1/exe").returncode == 0
        assert "sshd" in machine.run("ps", "-p", "1", "-o", "comm=").stdout


@pytest.mark.parametrize("place", ["/etc", "/var", str(REPOSITORY), sys.prefix, sys.base_prefix])
def test_what_they_have_in_common_cannot_be_written(three: Machines, place: str) -> None:
    three["a"].run("test", "-r", place)
    with pytest.raises(MachineError, match="Read-only"):
        three["a"].run("touch", f"{place}/written-by-a-host")


def test_one_reaches_another_by_ssh_and_copies_keep_their_mode(three: Machines) -> None:
    key = three["a"].file("/root/.ssh/id_ed25519")
    key.write_bytes(three.key.read_bytes())
    key.chmod(0o600)
    secret = three["a"].file("/root/secret")
    secret.write_text("word")
    secret.chmod(0o600)
    shell = "ssh -o StrictHostKeyChecking=accept-new"
    assert three["a"].run(*shell.split(), "b", "hostname; which flashblocks").stdout.splitlines()[0] == "b"
    three["a"].run("rsync", "--rsh", shell, "-avz", "/root/secret", "root@b:~/delivered")
    assert three["b"].run("stat", "--format", "%a %s", "/root/delivered").stdout == "600 4\n"


def test_a_cut_holds_between_the_named_and_in_both_directions(three: Machines) -> None:
    three.network.cut(["a"], ["b"])
    assert received(three, "a", "b") == 0
    assert received(three, "b", "a") == 0
    assert received(three, "a", "c") == 20
    three.network.heal()
    assert received(three, "a", "b") == 20


def test_a_cut_of_one_direction_lets_the_other_pass(three: Machines) -> None:
    assert received(three, "b", "a") == 20
    three.network.cut(["a"], both=False)
    assert received(three, "a", "b") == 0
    assert received(three, "b", "a") == 20


def test_frames_take_as_long_as_was_asked(three: Machines) -> None:
    three.network.slow(["a"], ["b"], delay_s=0.05)
    script = f"import socket; socket.create_connection(({three.address('b')!r}, {SSH_PORT})).recv(4)"
    began = time.monotonic()
    three["a"].run(sys.executable, "-S", "-c", script)
    assert time.monotonic() - began > 0.2, "two round trips of 100 ms: the handshake, and the banner"


def test_as_much_is_lost_as_was_asked(three: Machines) -> None:
    before = three.network.counts()["lost"]
    three.network.slow(["a"], ["b"], delay_s=0.0, loss=0.5)
    count = received(three, "a", "b", 200)
    assert 60 <= count <= 140
    assert three.network.counts()["lost"] - before >= 200 - count


def test_a_killed_host_loses_its_processes_and_comes_back_with_its_home(three: Machines) -> None:
    machine = three["c"]
    machine.run("sh", "-c", "echo kept > ~/kept; echo gone > /tmp/gone")
    sleeper = subprocess.Popen(machine.inside("sleep", "600"))
    machine.kill()
    assert sleeper.wait(10) != 0
    assert not machine.is_up
    with pytest.raises(MachineError, match="c is down"):
        machine.run("true")
    machine.boot()
    assert machine.run("cat", "kept").stdout == "kept\n"
    assert not machine.file("/tmp/gone").exists()
    assert received(three, "a", "c") == 20


TWO_HOSTS = """
import sys, time
from tests.hosts.machines import Machines
with Machines(["a", "b"]) as machines:
    machines["a"].run("sh", "-c", "setsid sleep 600 >/dev/null 2>&1 &")
    print(machines.key.parent, flush=True)
    if sys.argv[1] == "raise":
        raise SystemExit("on purpose")
    if sys.argv[1] == "wait":
        time.sleep(600)
"""


def started(way: str) -> tuple[subprocess.Popen[str], Path]:
    """A process that makes two hosts and then ends in a way of its own; and its folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", TWO_HOSTS, way],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def left_of(folder: Path, watched: set[int], until_s: float = 10.0) -> list[str]:
    """What is still there of a run some time after its end: processes, devices, namespaces, mounts."""
    deadline = time.monotonic() + until_s
    while True:
        left = [f"process {pid}" for pid in watched if Path(f"/proc/{pid}").exists()]
        devices = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
        left += [line for line in devices.splitlines() if folder.name[-8:] in line]
        names = subprocess.run(["lsns", "-o", "COMMAND"], capture_output=True, text=True, check=True).stdout
        left += [line for line in names.splitlines() if folder.name in line]
        left += [line for line in Path("/proc/self/mounts").read_text().splitlines() if folder.name in line]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.05)


@pytest.mark.parametrize(("way", "status"), [("end", 0), ("raise", 1), ("wait", -signal.SIGINT)])
def test_nothing_is_left_after_success_failure_and_ctrl_c(way: str, status: int) -> None:
    process, folder = started(way)
    with process:
        watched = set(descendants(process.pid))
        if way == "wait":
            assert watched, "the hosts run"
            process.send_signal(signal.SIGINT)
        assert process.wait(30) == status, process.stderr and process.stderr.read()
    assert left_of(folder, watched) == []
    assert not folder.exists()


def test_a_killed_test_run_leaves_no_process_and_its_files_only_until_the_next_run() -> None:
    process, folder = started("wait")
    with process:
        watched = set(descendants(process.pid))
        process.kill()
    assert left_of(folder, watched) == []
    assert folder.exists()
    with Machines([]):
        assert not folder.exists()


def test_a_host_that_cannot_start_says_why_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.hosts.machine.SSHD_CONFIG", "no such setting\n")
    machines = Machines(["a"])
    before = set(descendants(os.getpid()))
    with pytest.raises(MachineError, match=r"no such setting|Bad configuration"):
        machines.__enter__()
    assert set(descendants(os.getpid())) <= before
    assert not machines.key.parent.exists()
