"""The journal on a real disk: what it keeps, and that every damage or lack of room is a clear error."""

import contextlib
import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raft.journal import Journal, JournalDamaged, JournalFull, StorageError, move_aside
from raft.records import RECORD_OVERHEAD_BYTES, SEGMENT_HEADER_BYTES

SEGMENT_BYTES = 2_000


def opened(directory: Path, segment_bytes: int = SEGMENT_BYTES, *, fsync: bool = False, free: int = 1) -> Journal:
    return Journal(directory, segment_bytes, free, fsync)


def filled(directory: Path, entries: int = 30, command_bytes: int = 100) -> Journal:
    journal = opened(directory)
    for index in range(1, entries + 1):
        journal.add(bytes([index % 251]) * command_bytes, index, 1 + index // 10)
    return journal


@contextlib.contextmanager
def small_file_system(path: Path) -> Iterator[None]:
    """256 KiB, mounted on a directory."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(path)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def contents(journal: Journal) -> list:
    return journal[:]


def segments(directory: Path) -> list[Path]:
    return sorted(directory.glob("log-*.segment"))


def reopened(journal: Journal, directory: Path) -> Journal:
    journal._destroy()
    return opened(directory)


class TestLog:
    def test_entries_survive_a_restart(self, tmp_path):
        journal = filled(tmp_path)
        before = contents(journal)
        assert len(segments(tmp_path)) > 1
        journal = reopened(journal, tmp_path)
        assert contents(journal) == before
        assert (len(journal), journal[0], journal[-1], journal.last_index) == (30, before[0], before[-1], 30)
        assert journal.entry_bytes == 3000
        journal._destroy()

    def test_nothing_is_lost_if_the_process_just_ends(self, tmp_path):
        script = (
            "import os, sys; from pathlib import Path; from raft.journal import Journal\n"
            "j = Journal(Path(sys.argv[1]), 2000, 1, False)\n"
            "for i in range(1, 51): j.add(b'x' * 100, i, 1)\n"
            "j.setCurrentTerm(7, 'n1'); os.kill(os.getpid(), 9)"
        )
        root = str(Path(__file__).parents[2])
        done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], cwd=root, check=False, timeout=30)
        assert done.returncode == -9
        journal = opened(tmp_path)
        assert [entry[1] for entry in contents(journal)] == list(range(1, 51))
        assert (journal.getCurrentTerm(), journal.getVotedForNodeId()) == (7, "n1")
        journal._destroy()

    def test_cutting_and_going_on_survives_a_restart(self, tmp_path):
        journal = filled(tmp_path)
        journal.deleteEntriesFrom(20)
        journal.add(b"other", 21, 9)
        before = contents(journal)
        assert [entry[1] for entry in before] == list(range(1, 22))
        journal = reopened(journal, tmp_path)
        assert contents(journal) == before
        journal._destroy()

    def test_cutting_is_suspended_while_the_rest_is_to_be_kept(self, tmp_path):
        journal = filled(tmp_path, 5)
        journal.keep_suffix = True
        journal.deleteEntriesFrom(2)
        assert len(journal) == 5
        journal.keep_suffix = False
        journal.deleteEntriesFrom(2)
        assert len(journal) == 2
        journal._destroy()

    def test_compaction_survives_a_restart_and_removes_files(self, tmp_path):
        journal = filled(tmp_path)
        journal.setRaftCommitIndex(29)
        count = len(segments(tmp_path))
        journal.deleteEntriesTo(25)
        before = contents(journal)
        assert [entry[1] for entry in before] == [26, 27, 28, 29, 30]
        assert len(segments(tmp_path)) < count
        assert journal.entry_bytes == 500
        journal = reopened(journal, tmp_path)
        assert contents(journal) == before
        assert journal.getRaftCommitIndex() == 29
        journal._destroy()

    def test_a_cleared_log_begins_anywhere(self, tmp_path):
        journal = filled(tmp_path)
        journal.clear()
        assert journal.last_index == 0
        journal.add(b"a", 100, 5)
        journal.add(b"b", 101, 5)
        journal = reopened(journal, tmp_path)
        assert contents(journal) == [(b"a", 100, 5), (b"b", 101, 5)]
        journal._destroy()

    def test_an_entry_larger_than_a_segment_gets_a_segment_of_its_size(self, tmp_path):
        journal = filled(tmp_path, 2)
        journal.add(b"x" * 10_000, 3, 1)
        journal = reopened(journal, tmp_path)
        assert len(journal[-1][0]) == 10_000
        journal._destroy()

    def test_the_commit_index_is_written_once_a_second_and_never_beyond_the_end(self, tmp_path):
        journal = filled(tmp_path, 5)
        journal.setRaftCommitIndex(4)
        journal.onOneSecondTimer()
        size = journal._segments[-1].end
        journal.onOneSecondTimer()
        assert journal._segments[-1].end == size
        journal = reopened(journal, tmp_path)
        assert journal.getRaftCommitIndex() == 4
        journal.deleteEntriesFrom(1)
        journal = reopened(journal, tmp_path)
        assert journal.getRaftCommitIndex() == 1
        journal._destroy()

    def test_a_second_opener_is_refused(self, tmp_path):
        journal = opened(tmp_path)
        with pytest.raises(OSError, match="in use"):
            opened(tmp_path)
        journal._destroy()
        opened(tmp_path)._destroy()

    def test_a_vote_is_synced_only_if_asked_to(self, tmp_path, monkeypatch):
        calls = []
        for fsync, expected in ((False, 0), (True, 2)):
            journal = opened(tmp_path / str(fsync), fsync=fsync)
            with monkeypatch.context() as context:
                context.setattr("raft.journal.os.fsync", calls.append)
                journal.setCurrentTerm(2, "n1")
            assert len(calls) == expected  # the file, and the directory that names it
            journal._destroy()

    def test_only_what_was_added_since_is_synced_and_only_if_asked_to(self, tmp_path, monkeypatch):
        calls = []
        monkeypatch.setattr("raft.journal.os.fdatasync", calls.append)
        for fsync, expected in ((False, 0), (True, 1)):
            calls.clear()
            journal = opened(tmp_path / str(fsync), fsync=fsync)
            journal.add(b"x", 1, 1)
            journal.add(b"x", 2, 1)
            journal.sync()
            journal.sync()
            assert len(calls) == expected
            journal._destroy()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.integers(0, 400)),
            st.tuples(st.just("cut"), st.integers(0, 30)),
            st.tuples(st.just("base"), st.integers(0, 30)),
            st.tuples(st.just("clear"), st.just(0)),
            st.tuples(st.just("reopen"), st.just(0)),
        ),
        max_size=40,
    )
)
def test_the_log_on_disk_is_the_log_in_a_list(tmp_path_factory, steps):
    directory = tmp_path_factory.mktemp("journal")
    journal, model, next_index = opened(directory), [], 1
    try:
        for step, number in steps:
            if step == "add":
                next_index = model[-1][1] + 1 if model else next_index
                entry = (bytes([next_index % 256]) * number, next_index, 1)
                journal.add(*entry)
                model.append(entry)
            elif step == "cut" and number < len(model):
                journal.deleteEntriesFrom(number)
                del model[number:]
            elif step == "base" and number < len(model):
                journal.deleteEntriesTo(number)
                del model[:number]
            elif step == "clear":
                journal.clear()
                next_index = model[-1][1] + 5 if model else next_index
                model.clear()
            elif step == "reopen":
                journal = reopened(journal, directory)
            assert contents(journal) == model
            assert journal.entry_bytes == sum(len(entry[0]) for entry in model)
        journal = reopened(journal, directory)
        assert contents(journal) == model
    finally:
        journal._destroy()


class TestDamage:
    def test_any_altered_bit_refuses_the_journal_or_alters_nothing(self, tmp_path):
        journal = filled(tmp_path, 12, command_bytes=40)
        before = contents(journal)
        journal._destroy()
        refused = 0
        for path in segments(tmp_path):
            original = path.read_bytes()
            for position in range(0, len(original), 3):
                altered = bytearray(original)
                altered[position] ^= 1 << position % 8
                path.write_bytes(altered)
                try:
                    journal = opened(tmp_path)
                except JournalDamaged:
                    refused += 1
                else:
                    assert contents(journal) == before
                    journal._destroy()
            path.write_bytes(original)
        assert refused > 100

    def test_a_torn_last_record_is_dropped_and_overwritten(self, tmp_path):
        journal = filled(tmp_path, 5)
        end = journal._segments[-1].end
        journal._destroy()
        path = segments(tmp_path)[-1]
        data = path.read_bytes()
        path.write_bytes(data[: end - 10] + bytes(len(data) - end + 10))
        journal = opened(tmp_path)
        assert [entry[1] for entry in contents(journal)] == [1, 2, 3, 4]
        journal.add(b"again", 5, 2)
        journal = reopened(journal, tmp_path)
        assert journal[-1] == (b"again", 5, 2)
        journal._destroy()

    def test_a_truncated_segment_is_refused(self, tmp_path):
        filled(tmp_path)._destroy()
        path = segments(tmp_path)[-1]
        os.truncate(path, path.stat().st_size - 1)
        with pytest.raises(JournalDamaged):
            opened(tmp_path)

    def test_a_missing_segment_is_refused(self, tmp_path):
        filled(tmp_path)._destroy()
        segments(tmp_path)[1].unlink()
        with pytest.raises(JournalDamaged, match="misses"):
            opened(tmp_path)

    def test_a_file_that_is_not_ours_is_refused(self, tmp_path):
        filled(tmp_path)._destroy()
        (tmp_path / "log-copy.segment").write_bytes(b"")
        with pytest.raises(JournalDamaged):
            opened(tmp_path)

    @pytest.mark.parametrize(
        "damage", [b"", b"\x00", lambda data: data[:-1], lambda data: bytes([data[0] ^ 1]) + data[1:]]
    )
    def test_a_damaged_vote_is_refused(self, tmp_path, damage):
        journal = opened(tmp_path)
        journal.setCurrentTerm(3, "n1")
        journal._destroy()
        vote = tmp_path / "vote"
        vote.write_bytes(damage(vote.read_bytes()) if callable(damage) else damage)
        with pytest.raises(JournalDamaged):
            opened(tmp_path)

    def test_moving_aside_keeps_the_vote_and_marks_the_node(self, tmp_path):
        journal = filled(tmp_path)
        journal.setCurrentTerm(3, "n1")
        journal._destroy()
        (tmp_path / "snapshot").write_bytes(b"x")
        aside = move_aside(tmp_path)
        assert aside.name == "damaged-1"
        assert len(segments(aside)) > 1
        assert (aside / "snapshot").exists()
        assert (tmp_path / "rejoining").exists()
        journal = opened(tmp_path)
        assert (len(journal), journal.getCurrentTerm(), journal.getVotedForNodeId()) == (0, 3, "n1")
        journal._destroy()
        (tmp_path / "vote").write_bytes(b"damaged")
        assert move_aside(tmp_path).name == "damaged-2"
        assert not (tmp_path / "vote").exists()

    def test_an_interrupted_segment_creation_is_forgotten(self, tmp_path):
        filled(tmp_path, 3)._destroy()
        (tmp_path / "log-00000099.new").write_bytes(b"half")
        journal = opened(tmp_path)
        assert len(journal) == 3
        assert not (tmp_path / "log-00000099.new").exists()
        journal._destroy()


class TestRoom:
    def test_too_little_free_space_is_a_clear_error_and_changes_nothing(self, tmp_path):
        with pytest.raises(JournalFull, match="free"):
            opened(tmp_path, free=2**60)
        assert segments(tmp_path) == []

    def test_a_full_log_keeps_what_it_has(self, tmp_path, monkeypatch):
        journal = filled(tmp_path, 5)
        before = contents(journal)
        monkeypatch.setattr(journal, "_free_space_bytes_min", 2**60)
        with pytest.raises(JournalFull):
            journal.add(b"x" * SEGMENT_BYTES, 6, 1)
        assert contents(journal) == before
        monkeypatch.undo()
        journal.add(b"x" * SEGMENT_BYTES, 6, 1)
        journal = reopened(journal, tmp_path)
        assert len(journal) == 6
        journal._destroy()

    @pytest.mark.parametrize(
        ("code", "expected"), [(errno.ENOSPC, JournalFull), (errno.EDQUOT, JournalFull), (errno.EIO, StorageError)]
    )
    def test_an_error_while_writing_is_told_by_its_kind(self, tmp_path, monkeypatch, code, expected):
        journal = filled(tmp_path, 2)

        def fails(*_: object) -> int:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr("raft.journal.os.pwritev", fails)
        with pytest.raises(expected) as caught:
            journal.add(b"x", 3, 1)
        assert type(caught.value) is expected
        assert len(journal) == 2
        journal._destroy()

    @pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
    def test_a_really_full_file_system_is_a_clear_error_and_not_a_signal(self, tmp_path):
        with small_file_system(tmp_path):
            journal = opened(tmp_path, segment_bytes=64 * 1024)
            index = 0
            with pytest.raises(JournalFull):
                while index < 1000:
                    journal.add(b"x" * 10_000, index + 1, 1)
                    index += 1
            assert 5 < len(journal) < 30
            before = contents(journal)
            journal = reopened(journal, tmp_path)
            assert contents(journal) == before
            with pytest.raises(JournalFull):
                for _ in range(1000):
                    journal.add(b"x" * 10_000, len(journal) + 1, 1)
            journal._destroy()

    def test_the_room_of_a_segment_is_taken_before_its_first_entry(self, tmp_path):
        journal = opened(tmp_path, segment_bytes=1_000_000)
        status = segments(tmp_path)[0].stat()
        assert status.st_size == 1_000_000
        assert status.st_blocks * 512 >= 1_000_000
        journal._destroy()

    @pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
    def test_a_disk_that_fills_up_fails_the_next_segment_and_not_an_entry_of_this_one(self, tmp_path):
        with small_file_system(tmp_path):
            journal = opened(tmp_path, segment_bytes=64 * 1024)
            with (tmp_path / "ballast").open("wb", buffering=0) as ballast, pytest.raises(OSError, match="No space"):
                while True:
                    ballast.write(bytes(4096))
            room = 64 * 1024 - SEGMENT_HEADER_BYTES
            fit = room // (RECORD_OVERHEAD_BYTES + 1000)
            for index in range(1, fit + 1):
                journal.add(b"x" * 1000, index, 1)
            before = contents(journal)
            with pytest.raises(JournalFull):
                journal.add(b"x" * 1000, fit + 1, 1)
            assert [path.name for path in tmp_path.glob("log-*")] == ["log-00000001.segment"]
            journal = reopened(journal, tmp_path)
            assert contents(journal) == before
            journal._destroy()
