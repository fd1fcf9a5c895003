"""``flashblocks replay``: rebuild recorded real blocks from their witnesses and compare every hash."""

from __future__ import annotations

import argparse
import time
from typing import Any

from cli.output import CommandError, say, say_json

MISMATCH_STATUS = 1


def configure(parser: argparse.ArgumentParser, _: list[str]) -> None:
    """Add the options."""
    parser.add_argument("files", nargs="+", metavar="FILE", help="a block with its witness: JSON, perhaps gzipped")
    parser.add_argument("--sub-blocks", type=int, default=1, help="build the block in this many flashblocks")
    parser.add_argument("--engine", choices=("fast", "stock"), default="fast", help="ours, or py-evm as it is")
    parser.add_argument("--json", action="store_true", help="machine-readable")


def run(options: argparse.Namespace) -> int:
    """Replay each file; 0 when every hash matches."""
    from flashblocks.execution.replay import replay_file

    failures = 0
    rows = []
    for file in options.files:
        try:
            result = replay_file(file, options.sub_blocks, options.engine, time.process_time)
        except (OSError, ValueError, KeyError) as error:
            raise CommandError(f"{file}: {type(error).__name__}: {error}") from None
        failures += not result.hash_match
        if options.json:
            rows.append(_row(result))
        else:
            _tell(result)
    if options.json:
        say_json({"files": rows})
    return MISMATCH_STATUS if failures else 0


def _row(result: Any) -> dict[str, Any]:
    return {
        "file": result.file,
        "hash_match": result.hash_match,
        "gas": result.gas,
        "cpu_ms": round(result.cpu_ms, 3),
        "mgas_per_s": round(result.mgas_per_s, 2),
        "block_hash": "0x" + result.block_hash.hex(),
        "expected_hash": "0x" + result.expected_hash.hex(),
    }


def _tell(result: Any) -> None:
    verdict = "ok      " if result.hash_match else "MISMATCH"
    say(f"{verdict}  {result.gas:>11,} gas  {result.cpu_ms:8.1f} ms  {result.mgas_per_s:6.1f} Mgas/s  {result.file}")
    if not result.hash_match:
        say(f"          got 0x{result.block_hash.hex()}, expected 0x{result.expected_hash.hex()}")
