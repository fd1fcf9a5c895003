"""The chain log: what was written is there again after any kill, and damage is cut off or named, never believed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flashblocks.execution.state import StateDiff, WorldState
from flashblocks.execution.store import (
    ChainStore,
    StoreCorrupt,
    StoredBlock,
    StoredForkchoice,
    StoreFull,
    StoreLocked,
)

NO_CHANGE = StateDiff(WorldState().root, WorldState().root, (), {})


def block(number: int, fork: int = 0, size_bytes: int = 100) -> StoredBlock:
    return StoredBlock(number, name(number, fork), name(number - 1, 0), bytes(size_bytes), (b"\x01",), NO_CHANGE)


def name(number: int, fork: int = 0) -> bytes:
    return bytes((fork,)) + number.to_bytes(31, "big", signed=True)


def head(number: int) -> StoredForkchoice:
    return StoredForkchoice(name(number), name(0), name(0))


def test_what_was_written_is_there_after_reopening(tmp_path: Path) -> None:
    store = ChainStore(tmp_path)
    for number in range(5):
        store.append_block(block(number))
    store.append_forkchoice(head(4))
    store.close()

    again = ChainStore(tmp_path)
    assert len(again) == 5
    assert again.read_block(name(3)) == block(3)
    assert again.link_of(name(3)) == (3, name(2)) and again.link_of(name(9)) is None
    assert name(9) not in again and again.read_block(name(9)) is None
    assert list(again.records_from()) == [*(block(number) for number in range(5)), head(4)]
    place = again.place_of(name(3))
    assert place is not None
    assert list(again.records_from(place)) == [block(3), block(4), head(4)]
    assert again.dropped_bytes == 0
    again.close()


def test_a_block_is_written_once(tmp_path: Path) -> None:
    store = ChainStore(tmp_path)
    store.append_block(block(1))
    store.append_block(block(1))
    assert list(store.records_from()) == [block(1)]
    store.close()


def test_a_record_torn_at_any_byte_is_dropped_and_the_rest_kept(tmp_path: Path) -> None:
    store = ChainStore(tmp_path)
    store.append_block(block(1))
    whole = os.stat(tmp_path / "blocks-00000000.log").st_size
    store.append_block(block(2, size_bytes=20))
    store.close()
    log = tmp_path / "blocks-00000000.log"
    full = log.read_bytes()
    for cut in range(whole, len(full)):
        log.write_bytes(full[:cut])
        again = ChainStore(tmp_path)
        assert list(again.records_from()) == [block(1)]
        assert again.dropped_bytes == cut - whole
        again.append_block(block(2, fork=1))  # writing goes on where the good part ends
        assert list(again.records_from()) == [block(1), block(2, fork=1)]
        again.close()


def test_a_flipped_bit_is_never_believed(tmp_path: Path) -> None:
    store = ChainStore(tmp_path)
    store.append_block(block(1))
    store.append_block(block(2))
    store.close()
    log = tmp_path / "blocks-00000000.log"
    good = log.read_bytes()
    second = len(good) // 2 + 8
    for position in range(second, len(good), 7):
        bad = bytearray(good)
        bad[position] ^= 0x10
        log.write_bytes(bad)
        again = ChainStore(tmp_path)
        assert list(again.records_from()) == [block(1)]
        again.close()


def test_damage_while_open_is_named(tmp_path: Path) -> None:
    store = ChainStore(tmp_path)
    store.append_block(block(1))
    with (tmp_path / "blocks-00000000.log").open("r+b") as file:
        file.seek(-3, os.SEEK_END)
        file.write(b"\xff\xff\xff")
    with pytest.raises(StoreCorrupt, match="damaged at byte"):
        store.read_block(name(1))
    store.close()


def test_segments_follow_each_other(tmp_path: Path) -> None:
    store = ChainStore(tmp_path, segment_size_bytes_max=500)
    written = [block(number) for number in range(20)]
    for each in written:
        store.append_block(each)
    store.close()
    assert len(list(tmp_path.glob("blocks-*.log"))) > 3
    again = ChainStore(tmp_path, segment_size_bytes_max=500)
    assert list(again.records_from()) == written
    place = again.place_of(name(10))
    assert place is not None
    assert list(again.records_from(place)) == written[10:]
    assert again.read_block(name(7)) == block(7)
    again.close()


def test_a_missing_or_foreign_segment_is_refused(tmp_path: Path) -> None:
    store = ChainStore(tmp_path, segment_size_bytes_max=200)
    for number in range(6):
        store.append_block(block(number))
    store.close()
    first, second = tmp_path / "blocks-00000000.log", tmp_path / "blocks-00000001.log"
    kept = second.read_bytes()
    second.unlink()
    with pytest.raises(StoreCorrupt, match=r"blocks-00000001\.log is missing"):
        ChainStore(tmp_path)
    second.write_bytes(kept)
    first.write_bytes(b"something else entirely")
    with pytest.raises(StoreCorrupt, match="not a chain log"):
        ChainStore(tmp_path)


def test_a_store_has_one_owner(tmp_path: Path) -> None:
    store = ChainStore(tmp_path)
    with pytest.raises(StoreLocked, match="another process"):
        ChainStore(tmp_path)
    store.close()
    ChainStore(tmp_path).close()


def test_a_full_disk_refuses_the_block_and_keeps_the_chain(tmp_path: Path) -> None:
    """The limit on the size of a file stands for the disk: the kernel cuts the write in the same way."""
    script = f"""
import resource, signal, sys
sys.path[:0] = {sys.path!r}
from pathlib import Path
from flashblocks.execution.store import ChainStore, StoreError, StoreFull
from flashblocks.execution.state import StateDiff, WorldState
from flashblocks.execution.store import StoredBlock
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
nothing = StateDiff(WorldState().root, WorldState().root, (), {{}})
store = ChainStore(Path({str(tmp_path)!r}))
written = 0
try:
    for number in range(100):
        store.append_block(StoredBlock(number, number.to_bytes(32, "big"), bytes(32), bytes(100), (), nothing))
        written += 1
except StoreError as error:
    print(written, [record.number for record in store.records_from()] == list(range(written)))
    print(error)
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    first, message = ran.stdout.splitlines()
    count, intact = first.split()
    assert 0 < int(count) < 100 and intact == "True"
    assert "File too large" in message
    again = ChainStore(tmp_path)
    assert len(again) == int(count) and again.dropped_bytes == 0
    again.close()


def test_no_space_is_its_own_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ChainStore(tmp_path)
    store.append_block(block(1))

    def full(_file: int, data: bytes, _offset: int) -> int:
        raise OSError(28, "No space left on device", len(data))

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        with pytest.raises(StoreFull, match="no space left"):
            store.append_block(block(2))
    assert name(2) not in store
    store.append_block(block(2))  # space was made: it goes on
    assert list(store.records_from()) == [block(1), block(2)]
    store.close()


@pytest.mark.parametrize("after_blocks", [1, 37])
def test_a_killed_writer_loses_nothing_it_had_written(tmp_path: Path, after_blocks: int) -> None:
    script = f"""
import sys
sys.path[:0] = {sys.path!r}
from pathlib import Path
from flashblocks.execution.store import ChainStore, StoredBlock
from flashblocks.execution.state import StateDiff, WorldState
nothing = StateDiff(WorldState().root, WorldState().root, (), {{}})
store = ChainStore(Path({str(tmp_path)!r}), segment_size_bytes_max=5000)
for number in range(1_000_000):
    store.append_block(StoredBlock(number, number.to_bytes(32, "big"), bytes(32), bytes(300), (), nothing))
    print(number, flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        told = [writer.stdout.readline() for _ in range(after_blocks)]
        writer.send_signal(signal.SIGKILL)
        told += writer.stdout.readlines()
    last_told = int([line for line in told if line.endswith("\n")][-1])
    store = ChainStore(tmp_path, segment_size_bytes_max=5000)
    numbers = [record.number for record in store.records_from() if isinstance(record, StoredBlock)]
    assert numbers == list(range(len(numbers))) and len(numbers) > last_told
    store.close()
