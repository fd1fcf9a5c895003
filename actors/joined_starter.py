"""Starts and ends a cluster on many hosts from the command line, without importing Ray there.

The same shape as `actors.starter`, so that ``flashblocks up`` shows both alike.  What speaks with Ray are two short
programs, `actors.join` and `actors.leave`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec
import orjson

from actors.data_directory import write_atomically
from actors.join_order import REQUEST_FILE, JoinRequest
from actors.plan import ClusterOptions
from actors.ray_environment import TOKEN_PATH_DEFAULT, joining_environment
from actors.run_directory import RunDirectory, RunState, claim

LEAVE_S_MAX = 120.0


class NoToken(Exception):
    """Ray asks for a token and there is none here."""


class Joined:
    """A cluster on many hosts, seen from the command that starts it."""

    def __init__(self, directory: RunDirectory, process: subprocess.Popen[bytes]) -> None:
        self.directory = directory
        self.detached = False
        self._process = process

    def detach(self) -> None:
        """Let the cluster live on after us."""
        self.detached = True

    def has_ended(self) -> bool:
        """Whether its start failed, or somebody has ended it."""
        return self._process.poll() not in (None, 0) or not self.directory.state.exists()

    def stop(self) -> None:
        """End the cluster and wait until nothing of it is left."""
        if self._process.poll() is None:
            self._process.terminate()
            self._process.wait()
        if self.directory.state.exists():
            leave(self.directory)


def start(
    options: ClusterOptions,
    data_dir: Path | None,
    command_at: float,
    *,
    address: str,
    port_offset: int,
    wait_s: int,
    otlp_url: str,
) -> Joined:
    """Begin to start the cluster in the Ray at *address*; its progress is in ``RunDirectory.progress``.

    Raises `OptionsError`, `AlreadyRunning`, `PermissionError`, `NoToken`.
    """
    options.check()
    environment = environment_for_joining()
    taken = claim(options.name)
    try:
        directory = taken.directory
        data = (data_dir or directory.temporary_data).absolute()
        request = JoinRequest(
            options=options,
            address=address,
            data_dir=str(data),
            temporary_data=data_dir is None,
            port_offset=port_offset,
            wait_s=wait_s,
            marker=taken.marker,
            command_at=command_at,
            otlp_url=otlp_url,
        )
        (directory.path / REQUEST_FILE).write_bytes(msgspec.json.encode(request))
        state = RunState(
            name=options.name,
            marker=taken.marker,
            supervisor_pid=0,
            started_at=command_at,
            data_dir=str(data),
            temporary_data=request.temporary_data,
            ports=(),
            ray_address=address,
        )
        write_atomically(directory.state, msgspec.json.encode(state))
        with open(directory.supervisor_log, "ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "actors.join", directory.name],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return Joined(directory, process)
    except BaseException:
        taken.directory.remove()
        raise
    finally:
        taken.release()


class Left(msgspec.Struct, frozen=True, kw_only=True):
    """What ending a cluster on many hosts did."""

    actors: int = 0
    ended_cleanly: int = 0
    cleaned: list[str] = []
    silent: list[str] = []
    error: str = ""  # why Ray could not be asked


def leave(directory: RunDirectory, address: str = "") -> Left:
    """End the cluster of *directory* on all its hosts and remove what this host has of it.

    Where Ray does not answer any more only this host's files are removed, and the result says so.
    """
    state = directory.read_state()
    address = address or (state.ray_address if state is not None else "auto")
    command = [sys.executable, "-P", "-m", "actors.leave", directory.name, address]
    try:
        done = subprocess.run(
            command, env=environment_for_joining(), capture_output=True, timeout=LEAVE_S_MAX, check=False
        )
        left = _read_left(done)
    except subprocess.TimeoutExpired:
        left = Left(error=f"Ray at {address} did not answer within {LEAVE_S_MAX:.0f} s")
    directory.remove()
    return left


def _read_left(done: subprocess.CompletedProcess[bytes]) -> Left:
    lines = [line for line in done.stdout.splitlines() if line.startswith(b"{")]  # Ray may print lines of its own
    if done.returncode == 0 and lines:
        return msgspec.convert(orjson.loads(lines[-1]), Left)
    said = done.stderr.decode(errors="replace").strip().splitlines()
    return Left(error=said[-1] if said else f"exit status {done.returncode}")


def environment_for_joining(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment of a program that joins Ray; raises `NoToken`.

    A client without the token is refused by Ray too, but only after a minute of trying.
    """
    found = joining_environment(environment)
    if found.get("RAY_AUTH_MODE") == "token" and "RAY_AUTH_TOKEN" not in found:
        path = Path(found.get("RAY_AUTH_TOKEN_PATH") or TOKEN_PATH_DEFAULT).expanduser()
        if not path.is_file():
            raise NoToken(
                f"Ray's token is not at {path}; copy it from another host (flashblocks ray token makes one for a new "
                "cluster), or set RAY_AUTH_MODE=disabled for a Ray without authentication"
            )
    return found
