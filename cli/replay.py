"""``flashblocks replay``: rebuild recorded real blocks from their witnesses and compare every hash."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from cli.output import CommandError, note, say, say_json

MISMATCH_STATUS = 1


def configure(parser: argparse.ArgumentParser, _: list[str]) -> None:
    """Add the options."""
    parser.add_argument("files", nargs="+", metavar="FILE", help="a block with its witness: JSON, perhaps gzipped")
    parser.add_argument("--sub-blocks", type=int, default=1, help="build the block in this many flashblocks")
    parser.add_argument("--engine", choices=("fast", "stock"), default="fast", help="ours, or py-evm as it is")
    parser.add_argument(
        "--trace-cache",
        metavar="DIR",
        type=Path,
        help="take over the compiled traces kept here, and keep this run's (default: every run compiles anew)",
    )
    parser.add_argument("--json", action="store_true", help="machine-readable")


def run(options: argparse.Namespace) -> int:
    """Replay each file; 0 when every hash matches, 1 when one does not or cannot be replayed."""
    from actors.collector import BlockCollector
    from flashblocks.execution.replay import ReplayResult

    if options.sub_blocks < 1:
        raise CommandError("--sub-blocks must be at least 1", 2)
    traces = _take_over(options.trace_cache)
    results: list[ReplayResult] = []
    with BlockCollector() as collector:  # as in the components: no collector runs within a block
        for file in options.files:
            results.append(_replay(file, options))
            if not options.json:
                _tell(results[-1])
            collector.between_blocks()
    if traces is not None:
        traces.close()
    if options.json:
        say_json({"files": [_row(result) for result in results]})
    return 0 if all(result.hash_match for result in results) else MISMATCH_STATUS


def _replay(file: str, options: argparse.Namespace) -> Any:
    from flashblocks.execution.errors import ExecutionError
    from flashblocks.execution.replay import ReplayResult, replay_file

    try:
        return replay_file(file, options.sub_blocks, options.engine, time.process_time)
    except (OSError, ValueError, ExecutionError) as error:
        return ReplayResult.failed(file, f"{type(error).__name__}: {error}")


def _take_over(directory: Path | None) -> Any:
    if directory is None:
        return None
    from actors.trace_keeping import TraceKeeper

    return TraceKeeper(directory, Log())


class Log:
    """What the trace keeper has to say, on stderr."""

    def warning(self, event: str, **fields: Any) -> None:
        """One line."""
        note(f"{event}: {fields['path']}: {fields['error']}")


def _row(result: Any) -> dict[str, Any]:
    row = {
        "file": result.file,
        "hash_match": result.hash_match,
        "gas": result.gas,
        "cpu_ms": round(result.cpu_ms, 3),
        "mgas_per_s": round(result.mgas_per_s, 2),
        "block_hash": "0x" + result.block_hash.hex(),
        "expected_hash": "0x" + result.expected_hash.hex(),
    }
    return row if result.error is None else {**row, "error": result.error}


def _tell(result: Any) -> None:
    verdict = "ok      " if result.hash_match else "MISMATCH" if result.error is None else "FAILED  "
    say(f"{verdict}  {result.gas:>11,} gas  {result.cpu_ms:8.1f} ms  {result.mgas_per_s:6.1f} Mgas/s  {result.file}")
    if result.error is not None:
        say(f"          {result.error}")
    elif not result.hash_match:
        say(f"          got 0x{result.block_hash.hex()}, expected 0x{result.expected_hash.hex()}")
