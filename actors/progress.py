"""The events of a start and of a life, written for whoever shows them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import orjson


class Progress:
    """A file of one JSON object per line, seconds counted from the user's command."""

    def __init__(self, path: Path, command_at: float) -> None:
        self._file: BinaryIO = open(path, "ab", buffering=0)  # noqa: SIM115 – open as long as the process
        self._command_at = command_at

    def tell(self, event: str, **details: Any) -> None:
        """Append one event."""
        after_s = round(time.time() - self._command_at, 3)
        self.pass_on({"event": event, "after_s": after_s, **details})

    def pass_on(self, event: Mapping[str, Any]) -> None:
        """Append an event that somebody else told."""
        self._file.write(orjson.dumps(event) + b"\n")
