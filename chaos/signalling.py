"""Signals to the processes of a cluster, on this machine or – for a cluster on many hosts – on another one."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

from actors.far_hosts import FarHosts, is_far
from actors.joined_starter import NoToken
from actors.run_directory import RunDirectory
from chaos.target import DrillError, Target

_far: list[FarHosts] = []  # the hosts of the cluster that is drilled, if it has any


def signal_process(pid: int, number: signal.Signals) -> None:
    """Signal a process of ``endpoints.json``; raises `ProcessLookupError` when it is not there."""
    if not is_far(pid):
        os.kill(pid, number)
    elif _far:
        _far[-1].signal(pid, number)
    else:
        raise ProcessLookupError(f"{pid} stands for a process of another host, and no host can be reached")


@contextlib.contextmanager
def reaching(directory: RunDirectory) -> Iterator[RunDirectory]:
    """The same cluster with the processes of its other hosts in reach; raises `DrillError` when they are not."""
    if not directory.is_joined():
        yield directory
        return
    try:
        far = FarHosts(directory)
        far.__enter__()
    except (ConnectionError, NoToken, ValueError) as error:
        raise DrillError(str(error)) from None
    try:
        reached = RunDirectory(directory.name)
        reached.endpoints = far.endpoints
        _far.append(far)
        yield reached
    finally:
        _far.remove(far)
        far.__exit__(None, None, None)


def elsewhere(target: Target) -> str | None:
    """Why the files and connections of the cluster's processes are out of reach; None when they are not."""
    pids = [int(actor["pid"] or 0) for group in target.groups() for actor in group["actors"].values()]
    if any(is_far(pid) for pid in pids):
        return "it needs files or connections of processes that live on other hosts; signals and RPC reach those"
    return None
