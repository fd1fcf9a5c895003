"""Snapshots: the loaded state is the written one, damage is passed over, and half-written files are never seen."""

from pathlib import Path

import pytest

from flashblocks.execution import snapshot, trie
from flashblocks.execution.code import NO_CODE, Code
from flashblocks.execution.keccak import hashed_address, hashed_slot
from flashblocks.execution.snapshot import SnapshotMark, SnapshotWriter, load_snapshots, remove_temporary
from flashblocks.execution.state import Account, WorldState
from flashblocks.execution.store import StoreError


def address(number: int) -> bytes:
    return number.to_bytes(20, "big")


def state_of(accounts: int, slots: int) -> WorldState:
    storage = trie.update(None, {hashed_slot(slot): slot * 7 + 1 for slot in range(slots)})
    contracts = {
        hashed_address(address(1)): Account(1, 2**100, Code.of(b"\x60\x01"), storage),
        hashed_address(address(2)): Account(1, 0, Code.of(b"\x60\x01"), None),
    }
    plain = {hashed_address(address(10 + n)): Account(n, n * 10**18, NO_CODE, None) for n in range(accounts)}
    return WorldState().with_accounts({**contracts, **plain})


def write(directory: Path, number: int, state: WorldState) -> int:
    writer = SnapshotWriter(directory, SnapshotMark(number, number.to_bytes(32, "big"), state.root), state)
    steps = 1
    while not writer.step():
        steps += 1
    return steps


@pytest.mark.parametrize(("accounts", "slots"), [(0, 0), (3, 0), (50, 70), (400, 3)])
def test_the_loaded_state_is_the_written_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accounts: int, slots: int
) -> None:
    monkeypatch.setattr(snapshot, "SLICE_LEAVES_MAX", 20)
    state = state_of(accounts, slots)
    steps = write(tmp_path, 512, state)
    assert steps >= (accounts + slots) // 20
    (loaded,) = load_snapshots(tmp_path)
    assert loaded.mark == SnapshotMark(512, (512).to_bytes(32, "big"), state.root)
    assert loaded.state.root == state.root
    assert loaded.state.code(address(2)) == b"\x60\x01"
    assert loaded.state.storage(address(1), 5) == (5 * 7 + 1 if slots > 5 else 0)


def test_newest_first_and_only_the_last_ones_are_kept(tmp_path: Path) -> None:
    for number in (1, 2, 3, 4):
        write(tmp_path, number, state_of(number, 0))
    assert [loaded.mark.number for loaded in load_snapshots(tmp_path)] == [4, 3]


def test_a_damaged_snapshot_is_passed_over(tmp_path: Path) -> None:
    write(tmp_path, 1, state_of(5, 5))
    write(tmp_path, 2, state_of(6, 5))
    newest = tmp_path / "snapshot-000000000002.bin"
    whole = newest.read_bytes()
    for damaged in (whole[:-5], whole[:40] + b"\xff" + whole[41:], b"", b"no snapshot"):
        newest.write_bytes(damaged)
        assert [loaded.mark.number for loaded in load_snapshots(tmp_path)] == [1]


def test_a_half_written_snapshot_is_never_seen(tmp_path: Path) -> None:
    state = state_of(5, 0)
    writer = SnapshotWriter(tmp_path, SnapshotMark(9, bytes(32), state.root), state)
    writer.step()
    assert list(load_snapshots(tmp_path)) == []
    remove_temporary(tmp_path)
    assert list(tmp_path.iterdir()) == []
    writer.abandon()


def test_a_disk_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = state_of(5, 0)
    writer = SnapshotWriter(tmp_path, SnapshotMark(9, bytes(32), state.root), state)

    def full(_file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(snapshot.os, "fdatasync", full)
    writer.step()
    with pytest.raises(StoreError, match="No space left"):
        writer.step()
    assert list(tmp_path.iterdir()) == []
