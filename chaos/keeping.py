"""Where the outcome of a drill is kept: its history, its result, the cluster's logs, and one report over all."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Sequence
from pathlib import Path

import msgspec

from chaos import history as histories
from chaos.history import Event
from chaos.judgement import Result, judge
from chaos.target import DrillError

HISTORY_SUFFIX = ".history.jsonl"
RESULT_SUFFIX = ".result.json"
REPORT_FILE = "report.html"
SUMMARY_FILE = "report.json"
LOG_DIRECTORY = "logs"


class Kept:
    """One directory of outcomes; made when the first one is kept."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def keep(self, name: str, history: Sequence[Event], result: Result) -> Path:
        """Keep one drill's outcome; returns the path of its history."""
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.directory / f"{name}{HISTORY_SUFFIX}"
        histories.write(path, history)
        path.with_name(f"{name}{RESULT_SUFFIX}").write_bytes(pretty(result))
        return path

    def keep_logs(self, log_directory: Path) -> Path | None:
        """Copy the cluster's logs; None when there are none to be had any more."""
        kept = self.directory / LOG_DIRECTORY
        with contextlib.suppress(OSError, shutil.Error):
            shutil.copytree(log_directory, kept, dirs_exist_ok=True)
            return kept
        return None


def read_back(path: Path) -> list[tuple[str, list[Event], Result]]:
    """The histories of a directory, or the one history a path names, judged anew: (name, history, result).

    Raises DrillError when there is none, or one cannot be read.
    """
    files = sorted(path.glob(f"*{HISTORY_SUFFIX}")) if path.is_dir() else [path]
    if not files:
        raise DrillError(f"no history (*{HISTORY_SUFFIX}) in {path}")
    found = []
    for file in files:
        try:
            history = list(histories.read(file))
        except (OSError, msgspec.DecodeError) as error:
            raise DrillError(f"{file}: {error}") from None
        name = file.name.removesuffix(HISTORY_SUFFIX)
        found.append((name, history, judge(history)))
    return found


def pretty(value: object) -> bytes:
    """Indented JSON with a line end."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"
