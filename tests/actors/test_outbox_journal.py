"""The ingress's journal on a real disk: what was added is there after any end, and nothing else."""

from pathlib import Path

import pytest

from actors.outbox_journal import FILE, REWRITE_BYTES_MIN, OutboxJournal


def reopened(directory: Path) -> list[tuple[float, bytes]]:
    journal = OutboxJournal(directory)
    found = journal.load()
    journal.close()
    return found


def test_what_was_added_is_there_when_it_is_opened_again(tmp_path: Path) -> None:
    journal = OutboxJournal(tmp_path / "new")
    assert journal.load() == []
    journal.add(1.5, b"one")
    journal.add(2.5, b"two")
    assert reopened(tmp_path / "new") == [(1.5, b"one"), (2.5, b"two")]  # nobody closed it: a killed process does not
    journal.close()
    journal.close()


@pytest.mark.parametrize("cut", [1, 5, 12])
def test_a_torn_end_is_cut_off_and_written_over(tmp_path: Path, cut: int) -> None:
    journal = OutboxJournal(tmp_path)
    journal.load()
    journal.add(1.0, b"whole")
    journal.add(2.0, b"torn")
    journal.close()
    path = tmp_path / FILE
    path.write_bytes(path.read_bytes()[:-cut])
    journal = OutboxJournal(tmp_path)
    assert journal.load() == [(1.0, b"whole")]
    journal.add(3.0, b"after")
    journal.close()
    assert reopened(tmp_path) == [(1.0, b"whole"), (3.0, b"after")]


def test_a_flipped_bit_ends_what_is_read(tmp_path: Path) -> None:
    journal = OutboxJournal(tmp_path)
    journal.load()
    journal.add(1.0, b"whole")
    journal.add(2.0, b"altered")
    journal.close()
    content = bytearray((tmp_path / FILE).read_bytes())
    content[-1] ^= 1
    (tmp_path / FILE).write_bytes(content)
    assert reopened(tmp_path) == [(1.0, b"whole")]


def test_rewriting_keeps_what_is_held(tmp_path: Path) -> None:
    journal = OutboxJournal(tmp_path)
    journal.load()
    large = bytes(1024 * 1024)
    while not journal.wants_rewriting():
        journal.add(1.0, large)
    assert (tmp_path / FILE).stat().st_size >= REWRITE_BYTES_MIN
    journal.rewrite([(7.0, b"held")])
    assert not journal.wants_rewriting()
    journal.add(8.0, b"later")
    journal.close()
    assert reopened(tmp_path) == [(7.0, b"held"), (8.0, b"later")]


def test_a_disk_that_refuses_says_so() -> None:
    journal = OutboxJournal.__new__(OutboxJournal)
    with Path("/dev/full").open("r+b", buffering=0) as full:
        journal._file, journal._written_bytes = full.fileno(), 0
        with pytest.raises(OSError, match="No space left"):
            journal.add(1.0, b"raw")
