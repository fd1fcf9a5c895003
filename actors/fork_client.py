"""Stands in for the interpreter Ray starts its workers with: asks `actors.fork_server` for a copy, and is gone.

Everything that is no worker, and a worker nobody forks for us in time, is started the ordinary way.  Standard library
only, run with ``-I -S``: it is started once per worker.
"""

import array
import json
import os
import socket
import sys

SOCKET_VARIABLE = "FLASHBLOCKS_FORK_SOCKET"
WORKER_PROGRAM = "default_worker.py"
ANSWER_S_MAX = 20.0
LENGTH_BYTES = 4
FORKED = b"f"


def main(python: str, arguments: list[str]) -> None:
    """Have *arguments* run by a copy of the fork server, else by *python*."""
    path = os.environ.get(SOCKET_VARIABLE)
    if path and arguments and os.path.basename(arguments[0]) == WORKER_PROGRAM and _is_forked(path, arguments):
        return
    os.execv(python, [python, *arguments])


def _is_forked(path: str, arguments: list[str]) -> bool:
    request = {"arguments": arguments, "environment": dict(os.environ), "directory": os.getcwd()}
    content = json.dumps(request).encode()
    head = len(content).to_bytes(LENGTH_BYTES, "big")
    descriptors = array.array("i", [0, 1, 2])
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
            server.settimeout(ANSWER_S_MAX)
            server.connect(path)
            server.sendmsg([head], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)])
            server.sendall(content)
            return server.recv(1) == FORKED
    except OSError:
        return False


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
