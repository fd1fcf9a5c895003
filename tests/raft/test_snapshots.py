"""Snapshots on disk and in transit: written beside the running ledger, read back only if whole."""

import threading
from types import SimpleNamespace

import pytest

from raft import snapshots
from raft.journal import Journal, JournalDamaged
from raft.ledger import Claim, Ledger, SealBlock
from raft.membership import Overlay
from raft.snapshots import FAILED, IDLE, WRITING, WRITTEN, SnapshotStore, keep_from

LAST, PREVIOUS = (b"last", 9, 2), (b"previous", 8, 2)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def ledger_with_blocks(blocks: int = 3) -> Ledger:
    ledger = Ledger(0, bytes(32))
    ledger.apply(Claim(1, "a"))
    for number in range(1, blocks + 1):
        ledger.apply(SealBlock(1, "a", number, ledger.head[1], bytes([number]) * 32, b"payload" * 100_000))
    return ledger


def store_in(directory, ledger=None, clock=None, backlog=lambda node: 0) -> SnapshotStore:
    ledger = ledger or ledger_with_blocks()
    directory.mkdir(exist_ok=True)
    return SnapshotStore(
        directory / "snapshot", lambda: ledger.view, lambda: 5, lambda index: Overlay(), backlog, clock or Clock()
    )


def write(store: SnapshotStore) -> tuple[int, int | None]:
    store.serialize((None, LAST, PREVIOUS, None), 8)
    assert store._writer is not None
    store._writer.join()
    return store.checkSerializing()


def test_a_snapshot_is_written_beside_the_ledger_and_read_back(tmp_path):
    ledger = ledger_with_blocks()
    store = store_in(tmp_path, ledger)
    assert store.load() is None
    assert store.checkSerializing() == (IDLE, None)
    expected = ledger.snapshot()
    assert write(store) == (WRITTEN, 5)
    assert store.checkSerializing() == (IDLE, None)
    read = store.load()
    assert read is not None
    assert (read.header.last, read.header.previous, read.ledger) == (LAST, PREVIOUS, expected)
    store.close()


def test_the_ledger_may_go_on_while_it_is_written(tmp_path, monkeypatch):
    ledger, gate = ledger_with_blocks(), threading.Event()
    store = store_in(tmp_path, ledger)
    expected = ledger.snapshot()
    replace = snapshots.sync_directory
    monkeypatch.setattr(snapshots, "sync_directory", lambda directory: (gate.wait(10), replace(directory)))
    store.serialize((None, LAST, PREVIOUS, None), 8)
    ledger.apply(Claim(2, "b"))
    assert store.checkSerializing() == (WRITING, 5)
    assert store.getTransmissionData(SimpleNamespace(id="b")) is None
    gate.set()
    store.close()
    assert store.checkSerializing()[0] == WRITTEN
    read = store.load()
    assert read is not None
    assert read.ledger == expected


def test_a_failure_is_reported_once_and_not_repeated_at_once(tmp_path):
    clock = Clock()
    store = store_in(tmp_path / "data", clock=clock)
    (tmp_path / "data").rmdir()
    assert write(store) == (WRITING, 5)
    assert "cannot be written" in (store.failure or "")
    clock.now += snapshots.RETRY_S
    assert store.checkSerializing() == (FAILED, 5)
    assert store.checkSerializing() == (IDLE, None)
    (tmp_path / "data").mkdir()
    assert write(store)[0] == WRITTEN
    assert store.failure is None


def transmit(sender: SnapshotStore, receiver: SnapshotStore, alter=lambda chunk: chunk) -> bool:
    node, done = SimpleNamespace(id="b"), False
    for _ in range(100):
        data = sender.getTransmissionData(node)
        assert data is not None
        done = receiver.setTransmissionData((alter(data[0]), data[1], data[2]))
        if data[2]:
            break
    return done


def test_a_member_receives_it_in_chunks(tmp_path):
    sender, receiver = store_in(tmp_path / "a"), store_in(tmp_path / "b")
    write(sender)
    assert transmit(sender, receiver)
    assert receiver.load() == sender.load()
    assert transmit(sender, receiver)


def test_a_snapshot_altered_on_its_way_or_disk_is_not_taken(tmp_path):
    sender, receiver = store_in(tmp_path / "a"), store_in(tmp_path / "b")
    write(sender)
    assert not transmit(sender, receiver, alter=lambda chunk: chunk[:-1])
    assert receiver.load() is None
    assert receiver.setTransmissionData((b"middle", False, False)) is False
    assert receiver.setTransmissionData(None) is False


def test_a_busy_link_gets_no_chunk(tmp_path):
    waiting = {"b": snapshots.LINK_BACKLOG_BYTES_MAX + 1}
    store = store_in(tmp_path, backlog=lambda node: waiting[node])
    write(store)
    assert store.getTransmissionData(SimpleNamespace(id="b")) is None
    waiting["b"] = 0
    chunk = store.getTransmissionData(SimpleNamespace(id="b"))
    assert chunk is not None
    assert chunk[1:] == (True, False)
    store.close()


@pytest.mark.parametrize("position", [0, 12, 40, -1, -40])
def test_an_altered_file_is_refused(tmp_path, position):
    store = store_in(tmp_path)
    write(store)
    data = bytearray((tmp_path / "snapshot").read_bytes())
    data[position] ^= 4
    (tmp_path / "snapshot").write_bytes(data)
    with pytest.raises(JournalDamaged):
        store.load()


def test_the_kept_tail_of_the_log_is_bounded_in_entries_and_bytes(tmp_path):
    log = Journal(tmp_path, 1_000_000, 1, False)
    for index in range(11, 111):
        log.add(bytes(1000), index, 1)
    assert keep_from(log, applied_index=100, entries_max=20, bytes_max=10**9) == 80
    assert keep_from(log, applied_index=100, entries_max=20, bytes_max=5_500) == 95
    assert keep_from(log, applied_index=100, entries_max=2000, bytes_max=10**9) == 11
    log._destroy()
