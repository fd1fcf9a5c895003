"""Hosting a component: its life in order, its failures coming out, and the clean end of a plain process."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from actors.process import COMPONENTS, ComponentEnded, display_name, host, module_of, settings_type


class Recorded:
    """A component that writes its life down."""

    def __init__(self, *, start_fails: bool = False, run: str = "waits") -> None:
        self.life: list[str] = []
        self._start_fails = start_fails
        self._run = run

    async def start(self) -> None:
        self.life.append("start")
        if self._start_fails:
            raise OSError("port taken")

    async def run(self) -> None:
        self.life.append("run")
        if self._run == "fails":
            raise ValueError("bug")
        if self._run == "waits":
            await asyncio.Event().wait()

    async def close(self) -> None:
        self.life.append("close")

    def status(self) -> dict[str, Any]:
        return {}


async def test_a_component_is_started_run_and_closed() -> None:
    component, stopping = Recorded(), asyncio.Event()

    def started() -> None:
        component.life.append("started")
        stopping.set()

    await host(component, stopping, started)
    assert component.life in (["start", "started", "run", "close"], ["start", "started", "close"])


@pytest.mark.parametrize(
    ("component", "error", "life"),
    [
        (Recorded(start_fails=True), OSError, ["start", "close"]),
        (Recorded(run="fails"), ValueError, ["start", "run", "close"]),
        (Recorded(run="returns"), ComponentEnded, ["start", "run", "close"]),
    ],
    ids=["start fails", "run fails", "run returns"],
)
async def test_a_failure_comes_out_after_closing(component: Recorded, error: type[Exception], life: list[str]) -> None:
    with pytest.raises(error):
        await host(component, asyncio.Event(), lambda: None)
    assert component.life == life


def test_names_of_components() -> None:
    assert module_of("op-node") == "actors.op_node"
    assert display_name("op-node") == "op-node"
    assert display_name("some.module:Tiny") == "Tiny"
    with pytest.raises(KeyError):
        module_of("op-nod")


@pytest.mark.parametrize("component", sorted(COMPONENTS))
def test_every_component_has_the_settings_all_share(component: str) -> None:
    fields = set(settings_type(component).__struct_fields__)
    assert {"name", "group", "host", "data_dir", "log_level"} <= fields


RUN = """
import sys
from actors.process import run_component
sys.exit(run_component("tiny_component:Tiny", {"port": "0", "data_dir": sys.argv[1]}))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_plain_process_ends_cleanly_on_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-c", RUN, str(tmp_path)]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        assert orjson.loads(process.stderr.readline())["event"] == "serving"
        process.send_signal(number)
        assert process.wait() == 0
        assert orjson.loads(process.stderr.readline())["event"] == "ended"
    written = [orjson.loads(line) for line in (tmp_path / "logs" / "Tiny-0.jsonl").read_bytes().splitlines()]
    assert [line["event"] for line in written] == ["serving", "ended"]
