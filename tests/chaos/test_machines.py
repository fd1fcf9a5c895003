"""Damage to files, full disks, clocks and fault points – on real files, file systems and processes."""

import asyncio
import contextlib
import errno
import os
import random
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from actors.fault_points import BEFORE_PUBLISH, VARIABLE
from chaos import commit_stages, disk
from chaos.commit_stages import DiesAt, fault_point_directory
from chaos.damage import TORN_BYTES, alter, newest_log, tear, wipe
from chaos.dials import clock_jump, slow_disk
from chaos.disk import FullDisk
from chaos.faults import Victim
from chaos.flood import bad_requests
from chaos.outages import FAILING_CODES, FAILING_GAS
from chaos.target import DrillError
from flashblocks.execution import call, default_genesis, load_genesis
from flashblocks.execution.accounts import TEST_ACCOUNTS
from flashblocks.execution.store import ChainStore
from raft.journal import Journal, JournalDamaged

JOURNAL_BYTES = 1 << 16


def journal(directory: Path) -> Journal:
    return Journal(directory, JOURNAL_BYTES, 0, False)


def written_journal(directory: Path) -> None:
    made = journal(directory)
    for index in range(2, 8):
        made.add(bytes([index]) * 100, index, 1)
    made._destroy()


def test_a_torn_journal_lacks_its_last_record(tmp_path):
    written_journal(tmp_path)
    before = journal(tmp_path)
    last = before.last_index
    before._destroy()
    tear(tmp_path)
    after = journal(tmp_path)
    assert 0 < after.last_index < last
    after._destroy()


def test_an_altered_journal_is_refused(tmp_path):
    written_journal(tmp_path)
    alter(tmp_path)
    with pytest.raises(JournalDamaged):
        journal(tmp_path)


def test_a_torn_chain_store_is_shorter_and_keeps_what_was_whole(tmp_path):
    store = ChainStore(tmp_path / "chain")
    store.close()
    log = newest_log(tmp_path)
    log.write_bytes(log.read_bytes() + b"x" * 1000)
    size = log.stat().st_size
    tear(tmp_path)
    assert log.stat().st_size == size - TORN_BYTES
    ChainStore(tmp_path / "chain").close()


def test_a_wiped_machine_has_nothing_but_its_directory(tmp_path):
    (tmp_path / "raft").mkdir()
    (tmp_path / "raft" / "vote").write_text("x")
    (tmp_path / "file").write_text("x")
    wipe(tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(DrillError, match="nothing to be hurt"):
        tear(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it mounts")
async def test_a_full_disk_has_no_room_and_has_room_again(target, tmp_path):
    data = tmp_path / "data"
    with disk.disks_of_their_own(data, 1):
        group = target.groups()[0]
        if (missing := disk.missing(target)) is not None:
            pytest.skip(missing)
        fault = FullDisk(target, group)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(disk, "BALLAST_BLOCK_BYTES", 8 << 20)
            await fault.inject()
        with pytest.raises(OSError) as full:
            (data / group["name"] / "more").write_bytes(b"x" * 8192)
        assert full.value.errno == errno.ENOSPC
        await fault.lift()
        (data / group["name"] / "more").write_bytes(b"x" * 8192)
    assert disk.missing(target) is not None


async def test_an_ordinary_directory_is_never_filled(target, tmp_path):
    (tmp_path / "data" / "sequencer-0").mkdir(parents=True)
    assert "no disks of their own" in disk.missing(target)
    with pytest.raises(DrillError, match="not a file system of its own"):
        await FullDisk(target, target.groups()[0]).inject()


@contextlib.contextmanager
def process_with_fault_points(directory: Path):
    program = (
        "import time; from actors import fault_points as f; f.fit_dials(); print('up', flush=True)\n"
        "while True:\n time.sleep(0.01); f.reach('before-publish'); print(time.time(), flush=True)"
    )
    environment = {**os.environ, VARIABLE: str(directory)}
    process = subprocess.Popen([sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"up\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


async def test_a_process_dies_where_it_was_armed(target, tmp_path):
    with process_with_fault_points(tmp_path) as process:
        assert fault_point_directory(process.pid) == tmp_path
        fault = DiesAt(target, Victim("sequencer-0", "conductor", process.pid), BEFORE_PUBLISH)
        await asyncio.wait_for(fault.prepare(), 30)
        assert process.wait(20) == -9
        fault.abandon()


async def test_a_clock_is_moved_and_put_right(target, tmp_path):
    with process_with_fault_points(tmp_path) as process:
        fault = clock_jump(target, [], -1000.0)
        fault.victims = [Victim("sequencer-0", "conductor", process.pid)]
        first = float(process.stdout.readline())
        await fault.inject()
        while float(process.stdout.readline()) > first - 900:
            pass
        fault.abandon()
        while float(process.stdout.readline()) < first:
            pass


def test_dials_are_named_in_the_history(target):
    groups = target.groups()[:1]
    assert clock_jump(target, groups, -2.0).kind == "clock -2 s"
    assert slow_disk(target, groups, 0.05).kind == "slow disk +50 ms"


async def test_without_fault_points_it_is_said(target, tmp_path):
    assert fault_point_directory(2**22 + 1) is None
    assert VARIABLE in commit_stages.missing(target)
    with pytest.raises(DrillError, match="no fault points"):
        await DiesAt(target, Victim("sequencer-0", "conductor", 2**22 + 1), BEFORE_PUBLISH).prepare()


def test_bad_requests_are_bytes_and_differ():
    makers = bad_requests(901, random.Random(1))
    bodies = [make() for make in makers]
    assert all(isinstance(body, bytes) and body for body in bodies)
    assert len(set(bodies)) == len(bodies)
    sent = [orjson.loads(body) for body in bodies[:6]]
    assert {one["method"] for one in sent} == {"eth_sendRawTransaction"}


@pytest.mark.parametrize("code", FAILING_CODES, ids=lambda code: code.hex())
def test_what_is_to_fail_fails_after_it_has_written(code):
    spec, block, state = load_genesis(default_genesis())
    result = call(spec, block.header, state, sender=TEST_ACCOUNTS[0].address, data=code, gas=FAILING_GAS)
    assert result.error is not None
    assert len(set(FAILING_CODES)) == len(FAILING_CODES)
