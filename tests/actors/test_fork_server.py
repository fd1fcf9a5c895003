"""Forking workers without Ray: a real server, the real client, and a stand-in for Ray's worker program."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors import fork_client

WORKER = """
import json, os, sys
os.write(1, (json.dumps({"pid": os.getpid(), "arguments": sys.argv, "directory": os.getcwd(),
    "secret": os.environ.get("SECRET"), "warm": "warm_module" in sys.modules}) + "\\n").encode())
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / fork_client.WORKER_PROGRAM
    path.write_text(WORKER)
    return path


@pytest.fixture
def socket_path(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "warm_module.py").write_text("VALUE = 1\ndef prepare():\n    global VALUE\n    VALUE = 2\n")
    for name in ("ray", "ray.actor", "ray._private.node", "ray._private.parameter", "ray._private.async_compat"):
        path = tmp_path.joinpath(*name.split("."))
        path.mkdir(parents=True, exist_ok=True)  # a Ray that is quick to import
    (tmp_path / "ray" / "_private" / "runtime_env" / "setup_hook").mkdir(parents=True)
    path = tmp_path / "s"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-P", "-m", "actors.fork_server", str(path), "warm_module:prepare"]
    with subprocess.Popen(command, env=environment) as server:
        deadline = time.monotonic() + 20
        while not path.exists():
            assert server.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield path
        server.kill()


def run(program: Path, socket_path: Path, **environment: str) -> dict[str, object]:
    """Start the worker program through the client, as Ray does; what it said."""
    import orjson

    command = [sys.executable, "-I", "-S", fork_client.__file__, sys.executable, str(program), "--id", "7"]
    variables = {**os.environ, fork_client.SOCKET_VARIABLE: str(socket_path), "SECRET": "s", **environment}
    done = subprocess.run(command, env=variables, stdout=subprocess.PIPE, check=True, cwd=program.parent)
    found: dict[str, object] = orjson.loads(done.stdout)
    return found


def test_a_worker_is_a_copy_of_the_server_with_its_own_arguments(program: Path, socket_path: Path) -> None:
    first, second = run(program, socket_path, RAY_X="1"), run(program, socket_path, RAY_X="1", SECRET="t")
    assert first["warm"] is second["warm"] is True
    assert first["arguments"] == [str(program), "--id", "7"]
    assert first["directory"] == str(program.parent)
    assert (first["secret"], second["secret"]) == ("s", "t")
    assert first["pid"] != second["pid"]


def test_another_environment_of_ray_is_declined_and_started_the_usual_way(program: Path, socket_path: Path) -> None:
    assert run(program, socket_path, RAY_X="1")["warm"] is True
    assert run(program, socket_path, RAY_X="2")["warm"] is False
    assert run(program, socket_path, RAY_X="1", RAY_JOB_ID="01000000")["warm"] is True


def test_without_a_server_workers_start_the_usual_way(program: Path, tmp_path: Path) -> None:
    assert run(program, tmp_path / "nobody")["warm"] is False
