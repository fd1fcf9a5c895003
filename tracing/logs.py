"""Structured logs: one JSON object per line, the same keys for every actor.

A component writes ``<log_dir>/<component>-<group>.jsonl``; a plain process (without Ray) also writes to stderr.
Files are cut at a bound: the previous part is kept once as ``….jsonl.1``.
"""

from __future__ import annotations

import logging
import os
import sys
import weakref
from pathlib import Path
from typing import Any

import orjson
import structlog

from tracing.context import parse_frame_context, transaction_root

LOG_FILE_BYTES_MAX = 64 * 1024 * 1024
COLLECTOR_NEWS_S = 60.0
TX_HASH_TEXT_LENGTH = 66
OWN_CLASS = "OwnLogger"
LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}

Logger = structlog.typing.FilteringBoundLogger


class LogFile:
    """An append-only file that starts anew when it has reached its bound."""

    def __init__(self, path: Path, bytes_max: int = LOG_FILE_BYTES_MAX) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._bytes_max = bytes_max
        self._open()

    def write(self, line: bytes) -> int:
        """Append *line*; a full disk loses the line, not the component."""
        if self._size + len(line) > self._bytes_max:
            self.close()
            os.replace(self._path, self._path.with_name(self._path.name + ".1"))
            self._open()
        try:
            written = os.write(self._descriptor, line)
        except OSError:
            return 0
        self._size += written
        return written

    def flush(self) -> None:
        """Nothing waits in this process: every line is written at once."""

    def close(self) -> None:
        """Close the file; done by itself when the log is no longer used."""
        self._finalizer()

    def _open(self) -> None:
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._size = os.fstat(self._descriptor).st_size
        self._finalizer = weakref.finalize(self, os.close, self._descriptor)


class _Both:
    """Writes each line to the file and to stderr."""

    def __init__(self, file: LogFile | None) -> None:
        self._file = file

    def write(self, line: bytes) -> int:
        if self._file is not None:
            self._file.write(line)
        return sys.stderr.buffer.write(line)

    def flush(self) -> None:
        sys.stderr.buffer.flush()


def get_logger(
    component: str, group: int, *, log_dir: Path | None = None, level: str = "info", stderr: bool = False
) -> Logger:
    """The logger of one component, bound to its name and group.

    Without *log_dir* it writes to stderr only.  *level* is one of ``LEVELS``; lower events cost next to nothing.
    """
    file = LogFile(log_dir / f"{component}-{group}.jsonl") if log_dir is not None else None
    sink: Any = file if file is not None and not stderr else _Both(file)
    logger: Logger = structlog.wrap_logger(
        structlog.BytesLogger(sink),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            structlog.processors.format_exc_info,
            _name_trace,
            _encode,
        ],
        wrapper_class=type(OWN_CLASS, (structlog.make_filtering_bound_logger(LEVELS[level]),), {}),
        component=component,
        group=group,
    )
    return logger


def set_level(logger: Logger, level: str) -> None:
    """Change the level of a logger made by `get_logger`, and of all that were bound from it; one of ``LEVELS``."""
    own = type(logger.bind())
    assert own.__name__ == OWN_CLASS, "a logger that others made"
    # Each has a class of its own, whose base is that of its level: what is left out costs as little as before.
    own.__bases__ = (structlog.make_filtering_bound_logger(LEVELS[level]),)


def _name_trace(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """What is said of a transaction (`tx`) gets the id of its trace; of what came with a `traceparent`, of that one."""
    traceparent = event.pop("traceparent", None)
    if isinstance(traceparent, str) and (context := parse_frame_context(traceparent)) is not None:
        event.setdefault("trace_id", f"{context.build.trace_id:032x}")
    tx_hash = event.get("tx")
    if isinstance(tx_hash, str) and len(tx_hash) == TX_HASH_TEXT_LENGTH:
        event.setdefault("trace_id", f"{transaction_root(bytes.fromhex(tx_hash[2:])).trace_id:032x}")
    return event


def _encode(_logger: Any, _method: str, event: structlog.typing.EventDict) -> bytes:
    """One line of JSON; bytes are shown as 0x-hex, anything else JSON does not know as its text."""
    return orjson.dumps(event, default=_json_form, option=orjson.OPT_NON_STR_KEYS)


def _json_form(value: Any) -> str:
    return "0x" + value.hex() if isinstance(value, bytes) else str(value)


class _Forward(logging.Handler):
    """Hands the standard library's records (asyncio, aiohttp, websockets) to our logger."""

    def __init__(self, logger: Logger) -> None:
        super().__init__(logging.WARNING)
        self._logger = logger
        self._quiet_until = float("-inf")

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.startswith("opentelemetry"):  # a collector that is gone is news once a minute
            if record.created < self._quiet_until:
                return
            self._quiet_until = record.created + COLLECTOR_NEWS_S
        write = self._logger.error if record.levelno >= logging.ERROR else self._logger.warning
        write(record.getMessage(), logger=record.name, exc_info=record.exc_info)


def forward_standard_library(logger: Logger) -> None:
    """Send warnings and errors of the standard ``logging`` module to *logger*, and nowhere else."""
    root = logging.getLogger()
    root.handlers = [_Forward(logger)]
    root.setLevel(logging.WARNING)
