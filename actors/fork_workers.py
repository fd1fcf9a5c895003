"""Sets up the forking of Ray's workers: starts the fork server and writes the stand-in for the interpreter."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from actors import fork_client
from actors.plan import ComponentPlan
from actors.process import module_of

SOCKET_FILE = "f"
LAUNCHER_FILE = "python"
EVM_COMPONENTS = frozenset({"builder", "fallback-el", "rpc-node"})
WARM_UP = "actors.warm_up:warm_up_process"
OTLP_EXPORTER = "tracing.exporting:import_exporter"
OTLP_VARIABLES = frozenset({"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"})


class ForkedWorkers:
    """The fork server of one cluster and the launcher that asks it."""

    def __init__(self, directory: Path, plan: Sequence[ComponentPlan]) -> None:
        self._socket = directory / SOCKET_FILE
        self._launcher = directory / LAUNCHER_FILE
        self._launcher.write_text(
            f"#!/bin/sh\nexec {shlex.quote(sys.executable)} -I -S {shlex.quote(fork_client.__file__)} "
            f'{shlex.quote(sys.executable)} "$@"\n'
        )
        self._launcher.chmod(0o700)
        modules = sorted({module_of(each.component) for each in plan})
        if EVM_COMPONENTS & {each.component for each in plan}:
            modules.append(WARM_UP)
        if OTLP_VARIABLES & os.environ.keys():
            modules.append(OTLP_EXPORTER)
        command = [sys.executable, "-P", "-m", "actors.fork_server", str(self._socket), *modules]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL)

    @contextlib.contextmanager
    def in_place_of_the_interpreter(self) -> Iterator[None]:
        """While Ray starts: the interpreter it will start its workers with is our launcher."""
        usual = sys.executable
        os.environ[fork_client.SOCKET_VARIABLE] = str(self._socket)
        sys.executable = str(self._launcher)
        try:
            yield
        finally:
            sys.executable = usual

    def end(self) -> None:
        """Stop forking; workers that live go on."""
        self._process.kill()
        self._process.wait()
        self._socket.unlink(missing_ok=True)
