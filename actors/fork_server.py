"""One warmed-up interpreter from which Ray's workers are forked.

Starting 29 Python workers one by one costs 0.9 s of processor time each – importing Ray, the web server, the EVM –,
which is 13 s on two cores.  This process imports all of it once; whenever Ray starts a worker, `actors.fork_client`
hands over its arguments, environment and descriptors, and a copy of this process goes on as that worker: 0.06 s, and
the imported code is shared memory.  A killed actor is back sooner for the same reason.

    python -P -m actors.fork_server SOCKET MODULE[:FUNCTION] …

Ray itself is imported at the first request, with that request's environment: it reads RAY_… names once, when it is
imported.  A later request whose RAY_… environment says something else is declined; the client then starts a worker
the ordinary way, as it does when this process is gone.
"""

from __future__ import annotations

import array
import gc
import importlib
import os
import runpy
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from actors.shell import spare_imports

WAITING_CLIENTS_MAX = 128
LENGTH_BYTES = 4
REQUEST_BYTES_MAX = 1024 * 1024
DESCRIPTORS = 3  # stdin, stdout, stderr
REQUEST_S_MAX = 5.0
FORKED = b"f"

# A worker that is started ahead of any job carries the nil job and is given one later; ours are all of one job.
RAY_NAMES_THAT_MAY_DIFFER = frozenset({"RAY_JOB_ID"})


class Request(msgspec.Struct, frozen=True):
    """What a worker's process would have been started with (JSON on the wire)."""

    arguments: list[str]
    environment: dict[str, str]
    directory: str


class ForkServer:
    """Accepts requests one after another; `serve` returns in the forked child only."""

    def __init__(self, path: Path) -> None:
        self._ray_environment: dict[str, str] | None = None
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen(WAITING_CLIENTS_MAX)

    def serve(self) -> Sequence[str]:
        """Fork for every request; returns the worker's arguments in the child."""
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel collects the dead
        while True:
            client, _ = self._listener.accept()
            with client:
                client.settimeout(REQUEST_S_MAX)
                try:
                    received = _receive(client)
                except (OSError, ValueError, msgspec.DecodeError):
                    continue
                request, descriptors = received
                if self._accepts(request.environment) and _is_waiting(client) and os.fork() == 0:
                    self._listener.close()
                    _become(request, descriptors)
                    client.sendall(FORKED)
                    return request.arguments
                for descriptor in descriptors:
                    os.close(descriptor)

    def _accepts(self, environment: Mapping[str, str]) -> bool:
        """Whether a worker with this environment can be a copy of us; the first one decides what Ray reads."""
        wanted = {
            name: value
            for name, value in environment.items()
            if name.startswith("RAY_") and name not in RAY_NAMES_THAT_MAY_DIFFER
        }
        if self._ray_environment is None:
            self._ray_environment = wanted
            os.environ.clear()
            os.environ.update(environment)
            _import_ray()
        return wanted == self._ray_environment


def _receive(client: socket.socket) -> tuple[Request, list[int]]:
    """One request and its descriptors; raises OSError or ValueError for a client that is cut off or not ours."""
    head, ancillary, _, _ = client.recvmsg(LENGTH_BYTES, socket.CMSG_SPACE(DESCRIPTORS * array.array("i").itemsize))
    descriptors = array.array("i")
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(content)
    length = int.from_bytes(head, "big")
    if len(head) != LENGTH_BYTES or len(descriptors) != DESCRIPTORS or length > REQUEST_BYTES_MAX:
        raise ValueError("not a request")
    content = b""
    while len(content) < length:
        part = client.recv(length - len(content))
        if not part:
            raise ValueError("cut off")
        content += part
    return msgspec.json.decode(content, type=Request), list(descriptors)


def _is_waiting(client: socket.socket) -> bool:
    """Whether the client still waits: one that gave up has started its worker by itself."""
    client.setblocking(False)
    try:
        return client.recv(1, socket.MSG_PEEK) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        client.settimeout(REQUEST_S_MAX)


def _become(request: Request, descriptors: Sequence[int]) -> None:
    """In the child: take the place of the process Ray started."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for target, descriptor in enumerate(descriptors):
        os.dup2(descriptor, target)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(request.environment)
    os.chdir(request.directory)


def _prepare(name: str) -> None:
    """Import ``module``, or call ``module:function``."""
    module, _, function = name.partition(":")
    imported = importlib.import_module(module)
    if function:
        getattr(imported, function)()


def _import_ray() -> None:
    """What Ray's default worker imports before it connects."""
    for name in (
        "ray",
        "ray.actor",
        "ray._private.node",
        "ray._private.parameter",
        "ray._private.runtime_env.setup_hook",
        "ray._private.async_compat",
    ):
        importlib.import_module(name)
    _keep()


def _keep() -> None:
    """Put all that exists out of the collector's reach, so that collections in children do not copy its pages."""
    gc.collect()
    gc.freeze()


def main(arguments: Sequence[str]) -> None:
    """Import, serve, and – in a child – run the worker's program."""
    path, modules = Path(arguments[0]), arguments[1:]
    spare_imports()
    server = ForkServer(path)  # clients may come while we import: they wait
    for name in modules:
        _prepare(name)
    _keep()
    worker = list(server.serve())
    sys.argv = worker
    sys.path.insert(0, os.path.dirname(worker[0]))  # as the interpreter does for a script
    runpy.run_path(worker[0], run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
