"""The last process of a cluster: it starts the supervisor, outlives it, and leaves nothing behind.

The reaper is the parent of the supervisor and, by PR_SET_CHILD_SUBREAPER, adopts every process of the cluster whose
own parent dies.  When the supervisor ends – cleanly, by SIGKILL, out of memory – it kills whatever is still below it
and removes the cluster's temporary files.  It does nothing else, imports only the standard library, and is started by
its file name without site-packages, so that it costs about ten megabytes and cannot be broken by what it watches.

    python -I -S reaper.py --lock FD --alive FD --remove PATH … -- COMMAND …
"""

from __future__ import annotations

import argparse
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
KILL_ROUNDS_MAX = 100
KILL_PAUSE_S = 0.05

libc = ctypes.CDLL(None, use_errno=True)


def main(arguments: list[str]) -> int:
    """Run the supervisor's command, then clean up after it; returns the supervisor's exit status."""
    split = arguments.index("--")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lock", type=int, required=True, help="descriptor of the locked file")
    parser.add_argument("--alive", type=int, required=True, help="descriptor of the starter's life line")
    parser.add_argument("--remove", action="append", default=[], help="a file or directory to remove at the end")
    options = parser.parse_args(arguments[:split])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    supervisor = subprocess.Popen(
        arguments[split + 1 :],
        pass_fds=(options.lock, options.alive),
        preexec_fn=_prepare_supervisor,  # noqa: PLW1509 – this process has one thread
    )
    os.close(options.alive)
    status = _wait_for(supervisor.pid)
    end_descendants()
    for path in options.remove:
        remove_path(path)
    return status


def _prepare_supervisor() -> None:
    """In the supervisor, before its program starts: signals mean something again, and our death is a SIGTERM to it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def _wait_for(pid: int) -> int:
    """Wait for *pid*, collecting adopted orphans meanwhile; returns its exit status (128 + signal if killed)."""
    while True:
        ended, raw = os.waitpid(-1, 0)
        if ended == pid:
            status = os.waitstatus_to_exitcode(raw)
            return status if status >= 0 else 128 - status


def end_descendants() -> None:
    """SIGKILL every process below this one until there is none.

    A killed process hands its children to us (we are the subreaper), so the walk ends; it is bounded all the same.
    """
    for _ in range(KILL_ROUNDS_MAX):
        for pid in descendants(os.getpid()):
            _kill(pid)
        if not _collect_children():
            return
        time.sleep(KILL_PAUSE_S)


def _collect_children() -> bool:
    """Reap the dead; whether any child is left."""
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return False
        if pid == 0:
            return True


def descendants(root: int) -> list[int]:
    """Every process below *root*, from /proc."""
    children: dict[int, list[int]] = {}
    for pid in _all_pids():
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                parent = int(file.read().rpartition(b")")[2].split()[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(pid)
    found: list[int] = []
    waiting = [root]
    while waiting:
        below = children.get(waiting.pop(), [])
        found.extend(below)
        waiting.extend(below)
    return found


def marked_processes(marker: str) -> list[int]:
    """The processes of this user that were started with *marker* (``NAME=value``) in their environment."""
    wanted = marker.encode()
    found = []
    for pid in _all_pids():
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                if wanted in file.read().split(b"\0"):
                    found.append(pid)
        except OSError:
            continue
    return [pid for pid in found if pid != os.getpid()]


def end_marked_processes(marker: str) -> int:
    """SIGKILL what still carries *marker*: for a cluster whose reaper died too.  Returns how many were ended."""
    ended: set[int] = set()
    for _ in range(KILL_ROUNDS_MAX):
        left = marked_processes(marker)
        if not left:
            break
        for pid in left:
            _kill(pid)
        ended.update(left)
        time.sleep(KILL_PAUSE_S)
    return len(ended)


def remove_path(path: str) -> None:
    """Remove a file, or a directory tree together with its parent if that is empty then (the root of all runs).

    A directory is renamed first: whoever creates it anew while we delete must not lose its fresh files to us.
    """
    if not os.path.isdir(path) or os.path.islink(path):
        try:
            os.unlink(path)
        except OSError:
            pass
        return
    root, name = os.path.split(path)
    leaving = os.path.join(root, f".{name}.{os.getpid()}")
    try:
        os.rename(path, leaving)
        shutil.rmtree(leaving, ignore_errors=True)
        os.rmdir(root)
    except OSError:
        pass


def _all_pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except OSError:
        pass


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
