"""Every rule of the ledger by example: what it accepts, what it refuses and why, what it keeps."""

from hashlib import sha256

import msgspec
import pytest

from raft import ledger as ledger_module
from raft.commands import TRACE_CONTEXT_CHARACTERS_MAX
from raft.ledger import (
    Accepted,
    Append,
    Appended,
    Claim,
    Claimed,
    Ledger,
    Reason,
    Restored,
    Seal,
    SealBlock,
    Sealed,
    SnapshotError,
)
from raft.view import snapshot_parts

GENESIS = b"\x00" * 32
ONE, TWO = b"payload1", b"payload2"


def hash_of(text: str) -> bytes:
    return sha256(text.encode()).digest()


def append(number=1, index=0, *, epoch=1, node="a", payload=ONE, parent=GENESIS, body=None, block_hash=None) -> Append:
    body = body if body is not None else f"flashblock {number}.{index}".encode()
    block_hash = block_hash or hash_of(f"block {number}.{index}")
    return Append(epoch, node, payload, number, index, parent, block_hash, sha256(body).digest(), body)


def seal(number=1, last_index=0, *, epoch=1, node="a", payload=ONE, block_hash=None) -> Seal:
    return Seal(epoch, node, number, payload, last_index, block_hash or hash_of(f"block {number}.{last_index}"))


def fallback(number=1, *, epoch=1, node="a", parent=GENESIS, payload=b"whole block") -> SealBlock:
    return SealBlock(epoch, node, number, parent, hash_of(f"fallback {number}"), payload)


def ledger_with(*commands) -> Ledger:
    ledger = Ledger(0, GENESIS)
    for command in (Claim(1, "a"), *commands):
        answer, _ = ledger.apply(command)
        assert answer == Accepted(), command
        ledger.check()
    return ledger


def assert_refused(ledger: Ledger, command, reason: Reason) -> None:
    before = ledger.snapshot()
    answer, events = ledger.apply(command)
    assert getattr(answer, "reason", answer) == reason
    assert events == ()
    assert ledger.snapshot() == before
    ledger.check()


def assert_duplicate(ledger: Ledger, command) -> None:
    before = ledger.snapshot()
    assert ledger.apply(command) == (Accepted(duplicate=True), ())
    assert ledger.snapshot() == before


class TestClaim:
    def test_the_first_claim_makes_an_owner_and_is_told(self):
        ledger = Ledger(0, GENESIS)
        assert ledger.apply(Claim(3, "a")) == (Accepted(), (Claimed(3, "a"),))
        assert (ledger.epoch, ledger.owner) == (3, "a")

    def test_the_same_claim_again_by_the_same_node_is_a_duplicate(self):
        assert_duplicate(ledger_with(), Claim(1, "a"))

    @pytest.mark.parametrize("claim", [Claim(1, "b"), Claim(2, "a"), Claim(2, "b")])
    def test_an_epoch_that_is_not_above_the_current_one_is_stale(self, claim):
        assert_refused(ledger_with(Claim(3, "c")), claim, Reason.STALE_EPOCH)

    @pytest.mark.parametrize(
        "claim", [Claim(0, "a"), Claim(-1, "a"), Claim(2**63, "a"), Claim(2, ""), Claim(2, "x" * 65)]
    )
    def test_a_claim_out_of_range_is_malformed(self, claim):
        assert_refused(ledger_with(), claim, Reason.MALFORMED)


class TestFence:
    @pytest.mark.parametrize("command", [append(), seal(), fallback()])
    def test_nothing_is_accepted_before_a_claim(self, command):
        assert_refused(Ledger(0, GENESIS), command, Reason.UNCLAIMED_EPOCH)

    @pytest.mark.parametrize("command", [append(), append(1, 1), seal(), fallback()])
    def test_a_deposed_leader_is_refused_even_for_a_repetition(self, command):
        assert_refused(ledger_with(append(), Claim(2, "b")), command, Reason.STALE_EPOCH)

    @pytest.mark.parametrize("command", [append(epoch=2), seal(epoch=2), fallback(epoch=2)])
    def test_an_epoch_nobody_claimed_is_refused(self, command):
        assert_refused(ledger_with(append()), command, Reason.UNCLAIMED_EPOCH)

    @pytest.mark.parametrize("command", [append(node="b"), seal(node="b"), fallback(node="b")])
    def test_somebody_elses_epoch_is_refused(self, command):
        assert_refused(ledger_with(append()), command, Reason.WRONG_OWNER)


class TestAppend:
    def test_the_first_flashblock_opens_the_next_block(self):
        ledger = ledger_with()
        command = append()
        answer, events = ledger.apply(command)
        assert answer == Accepted()
        assert events == (Appended(*msgspec.structs.astuple(command)),)
        assert ledger.open is not None
        assert (ledger.open.number, ledger.open.payload_id, ledger.open.parent_hash) == (1, ONE, GENESIS)
        assert ledger.head == (0, GENESIS)

    def test_further_flashblocks_extend_it_and_keep_their_bodies(self):
        ledger = ledger_with(append(), append(1, 1), append(1, 2))
        assert ledger.open is not None
        assert [entry.body for entry in ledger.open.entries] == [f"flashblock 1.{k}".encode() for k in range(3)]
        assert (ledger.open.last_index, ledger.open.block_hash) == (2, hash_of("block 1.2"))

    def test_a_new_leader_continues_the_open_block(self):
        ledger = ledger_with(append(), Claim(2, "b"), append(1, 1, epoch=2, node="b"))
        assert ledger.open is not None
        assert [(entry.epoch, entry.node) for entry in ledger.open.entries] == [(1, "a"), (2, "b")]

    def test_the_same_flashblock_again_is_a_duplicate(self):
        ledger = ledger_with(append(), append(1, 1))
        assert_duplicate(ledger, append())
        assert_duplicate(ledger, append(1, 1))

    def test_a_new_leader_may_repeat_what_is_committed(self):
        assert_duplicate(ledger_with(append(), Claim(2, "b")), append(epoch=2, node="b"))

    def test_another_body_at_a_committed_index_is_refused(self):
        assert_refused(ledger_with(append(), append(1, 1)), append(body=b"other"), Reason.CONFLICTING_DIGEST)

    def test_the_same_body_under_another_block_hash_is_refused(self):
        assert_refused(ledger_with(append()), append(block_hash=hash_of("x")), Reason.CONFLICTING_DIGEST)

    def test_a_repetition_after_the_seal_is_a_duplicate_and_another_body_is_not(self):
        ledger = ledger_with(append(), seal())
        assert_duplicate(ledger, append())
        assert_refused(ledger, append(body=b"other"), Reason.CONFLICTING_DIGEST)

    def test_a_flashblock_more_or_another_payload_after_the_seal_is_refused(self):
        ledger = ledger_with(append(), seal())
        assert_refused(ledger, append(1, 1), Reason.ALREADY_SEALED)
        assert_refused(ledger, append(payload=TWO), Reason.ALREADY_SEALED)

    def test_a_flashblock_at_a_fallback_blocks_height_is_refused(self):
        assert_refused(ledger_with(fallback()), append(), Reason.ALREADY_SEALED)

    def test_a_height_below_the_window_is_refused(self):
        assert_refused(Ledger_at_five(), append(3, parent=hash_of("x")), Reason.WRONG_NUMBER)

    @pytest.mark.parametrize("index", [1, 7])
    def test_the_first_flashblock_must_have_index_0(self, index):
        assert_refused(ledger_with(), append(1, index), Reason.INDEX_GAP)

    def test_an_index_may_not_be_skipped(self):
        assert_refused(ledger_with(append()), append(1, 2), Reason.INDEX_GAP)

    @pytest.mark.parametrize("number", [2, 3])
    def test_the_first_flashblock_must_be_of_the_next_block(self, number):
        assert_refused(ledger_with(), append(number), Reason.WRONG_NUMBER)

    def test_the_first_flashblock_must_stand_on_the_head(self):
        assert_refused(ledger_with(), append(parent=hash_of("elsewhere")), Reason.WRONG_PARENT)

    def test_an_open_block_does_not_change_its_parent(self):
        assert_refused(ledger_with(append()), append(1, 1, parent=hash_of("elsewhere")), Reason.WRONG_PARENT)

    def test_the_next_block_waits_for_the_seal(self):
        assert_refused(ledger_with(append()), append(2, parent=hash_of("block 1.0")), Reason.NOT_SEALED)

    def test_a_block_further_on_is_refused_while_one_is_open(self):
        assert_refused(ledger_with(append()), append(3), Reason.WRONG_NUMBER)

    @pytest.mark.parametrize("index", [0, 1])
    def test_an_open_block_does_not_change_its_payload_id(self, index):
        assert_refused(ledger_with(append()), append(1, index, payload=TWO), Reason.OTHER_PAYLOAD)

    def test_a_digest_that_is_not_the_bodys_is_refused(self):
        wrong = msgspec.structs.replace(append(), digest=hash_of("other"))
        assert_refused(ledger_with(), wrong, Reason.WRONG_DIGEST)

    def test_a_body_above_the_cap_is_refused(self, monkeypatch):
        monkeypatch.setattr(ledger_module, "ENTRY_SIZE_BYTES_MAX", 100)
        assert_refused(ledger_with(append(body=b"x" * 100)), append(1, 1, body=b"x" * 101), Reason.TOO_LARGE)

    def test_the_trace_context_is_kept_with_the_flashblock_within_its_bound(self):
        named = msgspec.structs.replace(append(), traceparent="x" * TRACE_CONTEXT_CHARACTERS_MAX)
        ledger = Ledger(0, GENESIS)
        ledger.apply(Claim(1, "a"))
        answer, (event,) = ledger.apply(named)
        assert answer == Accepted()
        assert event.traceparent == ledger.open.entries[0].traceparent == named.traceparent
        assert_duplicate(ledger, append())
        more = msgspec.structs.replace(append(1, 1), traceparent=named.traceparent + "x")
        assert_refused(ledger, more, Reason.TOO_LARGE)

    def test_the_number_of_flashblocks_per_block_is_bounded(self, monkeypatch):
        monkeypatch.setattr(ledger_module, "FLASHBLOCKS_PER_BLOCK_MAX", 2)
        assert_refused(ledger_with(append(), append(1, 1)), append(1, 2), Reason.TOO_MANY_FLASHBLOCKS)

    @pytest.mark.parametrize(
        "change",
        [
            {"payload_id": b"short"},
            {"parent_hash": b"short"},
            {"block_hash": b"short"},
            {"digest": b"short"},
            {"index": -1},
            {"number": -1},
            {"number": 2**63},
            {"body": b""},
        ],
    )
    def test_fields_of_the_wrong_size_are_malformed(self, change):
        assert_refused(ledger_with(), msgspec.structs.replace(append(), **change), Reason.MALFORMED)


class TestSeal:
    def test_the_committed_prefix_becomes_the_head_and_keeps_its_flashblocks(self):
        ledger = ledger_with(append(), append(1, 1))
        answer, events = ledger.apply(seal(1, 1))
        assert answer == Accepted()
        assert events == (Sealed(1, "a", 1, hash_of("block 1.1"), fallback=False),)
        assert ledger.head == (1, hash_of("block 1.1"))
        assert ledger.open is None
        block = ledger.sealed(1)
        assert block is not None
        assert [entry.body for entry in block.entries] == [b"flashblock 1.0", b"flashblock 1.1"]

    def test_the_next_block_stands_on_it(self):
        ledger = ledger_with(
            append(), seal(), append(2, parent=hash_of("block 1.0"), payload=TWO), seal(2, payload=TWO)
        )
        assert ledger.head == (2, hash_of("block 2.0"))

    def test_a_new_leader_may_seal_what_its_predecessor_committed(self):
        ledger_with(append(), Claim(2, "b"), seal(epoch=2, node="b"))

    def test_the_same_seal_again_is_a_duplicate_even_later(self):
        ledger = ledger_with(append(), seal())
        assert_duplicate(ledger, seal())
        ledger = ledger_with(append(), seal(), fallback(2, parent=hash_of("block 1.0")))
        assert_duplicate(ledger, seal())

    def test_another_hash_at_a_sealed_height_is_refused(self):
        assert_refused(ledger_with(append(), seal()), seal(block_hash=hash_of("x")), Reason.ALREADY_SEALED)

    @pytest.mark.parametrize("last_index", [0, 2])
    def test_fewer_or_more_flashblocks_than_committed_are_refused(self, last_index):
        assert_refused(ledger_with(append(), append(1, 1)), seal(1, last_index), Reason.PREFIX_MISMATCH)

    def test_another_block_hash_than_committed_is_refused(self):
        assert_refused(ledger_with(append()), seal(block_hash=hash_of("x")), Reason.PREFIX_MISMATCH)

    def test_another_payload_is_refused(self):
        assert_refused(ledger_with(append()), seal(payload=TWO), Reason.OTHER_PAYLOAD)

    @pytest.mark.parametrize("number", [1, 2])
    def test_there_must_be_an_open_block_of_that_number(self, number):
        assert_refused(ledger_with(), seal(number), Reason.NOT_OPEN)
        assert_refused(ledger_with(append()), seal(2), Reason.NOT_OPEN)


class TestSealBlock:
    def test_a_fallback_block_becomes_the_head_with_its_payload(self):
        ledger = ledger_with()
        answer, events = ledger.apply(fallback())
        assert answer == Accepted()
        assert events == (Sealed(1, "a", 1, hash_of("fallback 1"), fallback=True),)
        block = ledger.sealed(1)
        assert block is not None
        assert (block.payload, block.entries, block.payload_id) == (b"whole block", (), None)
        assert block.fallback

    def test_the_same_block_again_is_a_duplicate(self):
        assert_duplicate(ledger_with(fallback()), fallback())

    def test_it_is_refused_where_a_flashblock_was_committed(self):
        assert_refused(ledger_with(append()), fallback(), Reason.FLASHBLOCKS_COMMITTED)

    def test_it_cannot_jump_over_an_open_block(self):
        assert_refused(ledger_with(append()), fallback(2), Reason.FLASHBLOCKS_COMMITTED)

    def test_a_sealed_height_is_not_sealed_otherwise(self):
        assert_refused(ledger_with(append(), seal()), fallback(), Reason.ALREADY_SEALED)

    def test_the_number_must_follow_the_head(self):
        assert_refused(ledger_with(), fallback(2), Reason.WRONG_NUMBER)

    def test_the_parent_must_be_the_head(self):
        assert_refused(ledger_with(), fallback(parent=hash_of("x")), Reason.WRONG_PARENT)

    def test_a_payload_above_the_cap_is_refused(self, monkeypatch):
        monkeypatch.setattr(ledger_module, "ENTRY_SIZE_BYTES_MAX", 100)
        assert_refused(ledger_with(), fallback(payload=b"x" * 101), Reason.TOO_LARGE)

    @pytest.mark.parametrize(
        "change", [{"parent_hash": b""}, {"block_hash": b"short"}, {"payload": b""}, {"number": -1}]
    )
    def test_fields_of_the_wrong_size_are_malformed(self, change):
        assert_refused(ledger_with(), msgspec.structs.replace(fallback(), **change), Reason.MALFORMED)


def Ledger_at_five() -> Ledger:
    ledger = Ledger(5, GENESIS)
    ledger.apply(Claim(1, "a"))
    return ledger


def chain(ledger: Ledger, blocks: int, payload: bytes = b"whole block") -> None:
    for _ in range(blocks):
        number, head_hash = ledger.head
        answer, _ = ledger.apply(fallback(number + 1, parent=head_hash, payload=payload))
        assert answer == Accepted()


class TestWindow:
    def test_a_gap_is_answered_from_the_window(self):
        ledger = ledger_with()
        chain(ledger, 5)
        assert [block.number for block in ledger.sealed_since(2) or ()] == [3, 4, 5]
        assert ledger.sealed_since(5) == ()
        assert ledger.sealed_since(9) == ()

    def test_a_gap_deeper_than_the_window_is_not_answered_in_part(self, monkeypatch):
        monkeypatch.setattr(ledger_module, "SEALED_BLOCKS_MAX", 3)
        ledger = ledger_with()
        chain(ledger, 5)
        assert ledger.sealed_since(1) is None
        assert [block.number for block in ledger.sealed_since(2) or ()] == [3, 4, 5]
        assert ledger.sealed(2) is None

    def test_it_is_bounded_in_bytes_but_keeps_the_newest_block(self, monkeypatch):
        monkeypatch.setattr(ledger_module, "SEALED_BYTES_MAX", 1000)
        ledger = ledger_with()
        chain(ledger, 3, payload=b"x" * 400)
        assert [block.number for block in ledger.view.sealed_blocks] == [2, 3]
        chain(ledger, 1, payload=b"x" * 2000)
        assert [block.number for block in ledger.view.sealed_blocks] == [4]

    def test_a_view_stays_as_it_was(self):
        ledger = ledger_with(append())
        view = ledger.view
        ledger.apply(append(1, 1))
        ledger.apply(seal(1, 1))
        assert view.open is not None
        assert (view.open.last_index, view.head_number) == (0, 0)


class TestSnapshot:
    def test_a_restored_ledger_is_the_same_and_goes_on(self):
        ledger = ledger_with(append(), append(1, 1), seal(1, 1), append(2, parent=hash_of("block 1.1"), payload=TWO))
        other = Ledger(0, GENESIS)
        assert other.restore(ledger.snapshot()) == Restored(1, "a", 1, hash_of("block 1.1"))
        other.check()
        assert other.view == ledger.view
        more = append(2, 1, parent=hash_of("block 1.1"), payload=TWO)
        assert other.apply(more) == ledger.apply(more)
        assert other.snapshot() == ledger.snapshot()

    def test_a_snapshot_of_before_entries_named_their_trace_is_read(self):
        ledger = ledger_with(append(), append(1, 1), seal(1, 1), append(2, parent=hash_of("block 1.1"), payload=TWO))
        parts = [msgspec.msgpack.decode(part[4:]) for part in snapshot_parts(ledger.view)]
        head, block = parts
        for entry in [*head[5][3], *block[4]]:
            assert entry.pop() == ""
        encoded = [msgspec.msgpack.encode(part) for part in parts]
        other = Ledger(0, GENESIS)
        other.restore(b"".join(len(part).to_bytes(4, "big") + part for part in encoded))
        assert other.view == ledger.view

    @pytest.mark.parametrize(
        "damage",
        [
            lambda snapshot: b"",
            lambda snapshot: snapshot[:-1],
            lambda snapshot: snapshot[:3],
            lambda snapshot: b"\x00\x00\x00\x01\xc0" + snapshot,
            lambda snapshot: snapshot + snapshot[-40:],
        ],
    )
    def test_bytes_that_are_no_snapshot_change_nothing(self, damage):
        ledger = ledger_with(append(), seal())
        before = ledger.snapshot()
        with pytest.raises(SnapshotError):
            ledger.restore(damage(before))
        assert ledger.snapshot() == before

    def test_a_snapshot_that_breaks_an_invariant_is_refused(self):
        ledger = ledger_with(append(), seal())
        forged = ledger.snapshot().replace(hash_of("block 1.0"), hash_of("other"), 1)
        with pytest.raises(SnapshotError):
            Ledger(0, GENESIS).restore(forged)
