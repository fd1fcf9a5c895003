"""Structured logs: one JSON object per line with the same keys, a level, and a bound on the file."""

import asyncio
import logging
from pathlib import Path

import orjson
import pytest

from tracing.context import transaction_root
from tracing.logs import LogFile, Logger, forward_standard_library, get_logger, set_level


def lines(path: Path) -> list[dict[str, object]]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def test_a_line_names_component_group_level_and_time(tmp_path: Path) -> None:
    log = get_logger("conductor", 3, log_dir=tmp_path)
    log.info("epoch claimed", epoch=7, block_hash=b"\xab\xcd", where=Path("/x"))
    (line,) = lines(tmp_path / "conductor-3.jsonl")
    assert line.pop("time")
    assert line == {
        "component": "conductor",
        "group": 3,
        "level": "info",
        "event": "epoch claimed",
        "epoch": 7,
        "block_hash": "0xabcd",
        "where": "/x",
    }


def test_lower_levels_are_left_out(tmp_path: Path) -> None:
    log = get_logger("builder", 0, log_dir=tmp_path, level="warning")
    log.info("not this")
    log.warning("this")
    assert [line["event"] for line in lines(tmp_path / "builder-0.jsonl")] == ["this"]


def test_what_came_with_a_traceparent_names_its_trace(tmp_path: Path) -> None:
    log, root = get_logger("conductor", 0, log_dir=tmp_path), transaction_root(b"\1" * 32)
    log.info("one", traceparent=root.traceparent)
    log.info("two", traceparent=f"{root.traceparent} {'ab' * 32}")
    log.info("three", traceparent="")
    told = lines(tmp_path / "conductor-0.jsonl")
    assert [line.get("trace_id") for line in told] == [f"{root.trace_id:032x}"] * 2 + [None]
    assert not any("traceparent" in line for line in told)


def test_the_level_of_a_running_component_can_be_changed(tmp_path: Path) -> None:
    log, other = get_logger("builder", 0, log_dir=tmp_path), get_logger("op-node", 0, log_dir=tmp_path)
    bound = log.bind(block=7)
    for level in ("info", "debug", "error", "info"):
        set_level(log, level)
        for logger in (log, bound, other):
            logger.debug(f"debug at {level}")
            logger.warning(f"warning at {level}")
    told = [line["event"] for line in lines(tmp_path / "builder-0.jsonl")]
    assert told == [
        *["warning at info"] * 2,
        *["debug at debug", "warning at debug"] * 2,
        *["warning at info"] * 2,
    ]
    assert [line["event"] for line in lines(tmp_path / "op-node-0.jsonl")] == [
        f"warning at {level}" for level in ("info", "debug", "error", "info")
    ]


def test_exceptions_carry_their_trace(tmp_path: Path) -> None:
    log = get_logger("builder", 0, log_dir=tmp_path)
    try:
        raise ValueError("the reason")
    except ValueError:
        log.error("failed", exc_info=True)
    assert "ValueError: the reason" in str(lines(tmp_path / "builder-0.jsonl")[0]["exception"])


def test_a_full_file_is_kept_once_and_started_anew(tmp_path: Path) -> None:
    file = LogFile(tmp_path / "log", bytes_max=10)
    for number in range(4):
        file.write(b"line %d\n" % number)
    file.close()
    assert (tmp_path / "log").read_bytes() == b"line 3\n"
    assert (tmp_path / "log.1").read_bytes() == b"line 2\n"


def test_an_existing_file_is_continued(tmp_path: Path) -> None:
    get_logger("a", 0, log_dir=tmp_path).info("one")
    get_logger("a", 0, log_dir=tmp_path).info("two")
    assert [line["event"] for line in lines(tmp_path / "a-0.jsonl")] == ["one", "two"]


def test_on_stderr_too_when_asked(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    get_logger("a", 0, log_dir=tmp_path, stderr=True).info("both")
    get_logger("b", 0).info("only stderr")
    written = [orjson.loads(line)["event"] for line in capfdbinary.readouterr().err.splitlines()]
    assert written == ["both", "only stderr"]
    assert [line["event"] for line in lines(tmp_path / "a-0.jsonl")] == ["both"]


def test_warnings_of_the_standard_library_arrive(tmp_path: Path) -> None:
    root = logging.getLogger()
    before, level = root.handlers, root.level
    try:
        forward_standard_library(get_logger("a", 0, log_dir=tmp_path))
        logging.getLogger("aiohttp.server").error("broken %s", "pipe")
        logging.getLogger("asyncio").info("nobody cares")
        asyncio.run(asyncio.sleep(0))
    finally:
        root.handlers = before
        root.setLevel(level)
    (line,) = lines(tmp_path / "a-0.jsonl")
    assert (line["event"], line["logger"], line["level"]) == ("broken pipe", "aiohttp.server", "error")


def test_what_is_said_of_a_transaction_names_its_trace(tmp_path: Path) -> None:
    log = get_logger("builder", 0, log_dir=tmp_path)
    log.info("transaction dropped", tx="0x" + "ab" * 32)
    log.info("something else", tx="0xab")
    told, other = lines(tmp_path / "builder-0.jsonl")
    assert told["trace_id"] == f"{transaction_root(bytes.fromhex('ab' * 32)).trace_id:032x}"
    assert "trace_id" not in other


def test_a_collector_that_is_gone_is_news_once_a_minute(tmp_path: Path) -> None:
    (handler,) = forwarding(get_logger("a", 0, log_dir=tmp_path))
    for at in (1000.0, 1010.0, 1059.0, 1061.0):
        record = logging.LogRecord("opentelemetry.exporter.x", logging.WARNING, "", 0, "gone at %d", (int(at),), None)
        record.created = at
        handler.handle(record)
    assert [line["event"] for line in lines(tmp_path / "a-0.jsonl")] == ["gone at 1000", "gone at 1061"]


def forwarding(logger: Logger) -> list[logging.Handler]:
    root = logging.getLogger()
    before, level = root.handlers, root.level
    try:
        forward_standard_library(logger)
        return root.handlers
    finally:
        root.handlers = before
        root.setLevel(level)
