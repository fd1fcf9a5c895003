"""flashblocks replay: its output and its exit status, with and without a trace cache."""

import json
import os
from pathlib import Path

import pytest

from cli.main import main
from flashblocks.execution.compiler import program


@pytest.fixture
def block() -> str:
    """The smallest of the real blocks, where they are."""
    default = Path(__file__).parents[2].parent / "shared" / "vectors"
    found = sorted(Path(os.environ.get("FLASHBLOCKS_VECTORS", default)).glob("**/block-26207960.json.gz"))
    if not found:
        pytest.skip("no block vectors")
    return str(found[0])


def replay(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, object]]:
    assert main(["replay", "--json", *arguments]) == 0
    rows: list[dict[str, object]] = json.loads(capsys.readouterr().out)["files"]
    return rows


@pytest.mark.parametrize("engine", ["fast", "stock"])
def test_the_json_of_both_engines(block: str, engine: str, capsys: pytest.CaptureFixture[str]) -> None:
    (row,) = replay(capsys, block, "--engine", engine, "--sub-blocks", "3")
    assert {"file", "hash_match", "gas", "cpu_ms", "mgas_per_s"} <= set(row)
    assert (row["file"], row["hash_match"], row["gas"]) == (block, True, 953_624)


def test_a_trace_cache_spares_the_second_run_the_compiling(
    block: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "HOT_VISITS", 1)
    compiled = []
    for _ in range(2):
        monkeypatch.setattr(program, "cache", program.TraceCache())
        (row,) = replay(capsys, block, "--trace-cache", str(tmp_path))
        assert row["hash_match"]
        compiled.append(program.cache.compiled_ops)
    assert compiled[0] > 0
    assert compiled[1] == 0


def test_what_cannot_be_read_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(tmp_path / "nothing.json")]) == 1
    assert "FileNotFoundError" in capsys.readouterr().out
