"""Following flashblocks: every claim is checked, a committed one wins, and a followed block is not executed twice."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from flashblocks.execution import follow as follow_module
from flashblocks.execution.accounts import TEST_ACCOUNTS
from flashblocks.execution.assembler import assemble as assemble_code
from flashblocks.execution.chain import Imported
from flashblocks.execution.follow import Patience, PayloadFollower, Verdict, finish
from flashblocks.execution.header import Block
from flashblocks.execution.keccak import keccak256
from flashblocks.execution.open_block import OpenBlock
from flashblocks.execution.payloads import block_of, envelope_of
from flashblocks.execution.rlp import encode as rlp_encode
from flashblocks.execution.signing import sign_transaction
from flashblocks.wire.assembly import assemble
from flashblocks.wire.flashblock import Flashblock, decode_body, encode_body

replace = msgspec.structs.replace


def stream(forge: Any, *, tip: int = 10**6, randao: int = 7) -> list[Flashblock]:
    pieces = [[forge.transfer(0, 0, tip=tip), forge.transfer(1, 0)], [], [forge.transfer(0, 1, tip=tip)]]
    made: list[Flashblock] = forge.flashblocks(forge.block.header, forge.state, pieces, randao=randao)
    return made


def following(forge: Any, flashblocks: list[Flashblock], *, committed: bool = False) -> PayloadFollower:
    follower = PayloadFollower(forge.chain())
    for flashblock in flashblocks:
        verdict = follower.apply(decode_body(encode_body(flashblock)), committed=committed)
        assert verdict == Verdict("VALID", flashblock.index + 1, flashblock.diff.block_hash)
    return follower


def block_from(forge: Any, flashblocks: list[Flashblock]) -> Block:
    return block_of(forge.spec, assemble(flashblocks))


def test_a_true_stream_is_valid_and_kept(forge: Any) -> None:
    made = stream(forge)
    followed = following(forge, made).open(made[0].payload_id)
    assert followed is not None
    assert (followed.last_index, followed.committed_index, followed.number) == (3, -1, 1)
    assert followed.flashblocks() == made
    assert [followed.sealed(k).header.hash for k in range(4)] == [each.diff.block_hash for each in made]
    assert followed.sealed().header.gas_used == made[-1].diff.gas_used
    assert len(followed.transactions()) == 4 and len(followed.transactions(0)) == 1


def change_diff(**fields: Any) -> Callable[[Flashblock], Flashblock]:
    return lambda each: replace(each, diff=replace(each.diff, **fields))


def change_metadata(**fields: Any) -> Callable[[Flashblock], Flashblock]:
    return lambda each: replace(each, metadata=replace(each.metadata, **fields))


LIES = {
    "diff.state_root": change_diff(state_root=bytes(32)),
    "diff.receipts_root": change_diff(receipts_root=bytes(32)),
    "diff.logs_bloom": change_diff(logs_bloom=b"\1" * 256),
    "diff.gas_used": change_diff(gas_used=1),
    "diff.block_hash": change_diff(block_hash=bytes(32)),
    "diff.withdrawals_root": change_diff(withdrawals_root=bytes(32)),
    "diff.blob_gas_used": change_diff(blob_gas_used=1),
    "rlp: ": change_diff(transactions=(b"\x02\xc0",)),
    "metadata.block_number": change_metadata(block_number=9),
    "metadata.new_account_balances": change_metadata(new_account_balances={bytes(20): 5}),
    "metadata.receipts": lambda each: change_metadata(
        receipts={key: replace(value, status=0) for key, value in each.metadata.receipts.items()}
    )(each),
}


@pytest.mark.parametrize("text", LIES)
def test_a_lie_is_refused_and_changes_nothing(forge: Any, text: str) -> None:
    made = stream(forge)
    follower = following(forge, made[:1])
    verdict = follower.apply(LIES[text](made[1]))
    assert (verdict.status, verdict.expected_index) == ("INVALID", 1)
    assert verdict.error is not None and text in verdict.error
    followed = follower.open(made[0].payload_id)
    assert followed is not None and followed.last_index == 0
    assert follower.apply(made[1]).status == "VALID"


@pytest.mark.parametrize(
    ("field", "value"),
    [("base_fee_per_gas", 1), ("block_number", 2), ("timestamp", 5), ("gas_limit", 0), ("extra_data", b"\0"),
     ("fee_recipient", bytes(20)), ("prev_randao", bytes(32)), ("parent_beacon_block_root", b"\1" * 32)],
)  # fmt: skip
def test_a_false_base_is_refused(forge: Any, field: str, value: Any) -> None:
    first = stream(forge)[0]
    assert first.base is not None
    false = replace(first, base=replace(first.base, **{field: value}))
    follower = PayloadFollower(forge.chain())
    assert follower.apply(false).status == "INVALID"
    assert follower.blocks() == []


def test_what_a_stream_may_leave_out_or_add(forge: Any) -> None:
    made = stream(forge)
    bare = replace(made[0], metadata=replace(made[0].metadata, new_account_balances={}, receipts={}))
    wordy = {**made[1].metadata.new_account_balances, b"\x77" * 20: 0}
    follower = PayloadFollower(forge.chain())
    assert follower.apply(change_diff(blob_gas_used=None)(bare)).status == "VALID"
    assert follower.apply(change_metadata(new_account_balances=wordy)(made[1])).status == "VALID"


def test_an_invalid_transaction_and_a_late_deposit_are_named(forge: Any) -> None:
    made = stream(forge)
    follower = following(forge, made[:1])
    unplayable = follower.apply(change_diff(transactions=(forge.transfer(0, 5),))(made[1]))
    assert unplayable.error is not None and "could not apply tx 0 [0x" in unplayable.error
    late = follower.apply(change_diff(transactions=(forge.deposit(99),))(made[1]))
    assert late.error is not None and "deposits belong into index 0" in late.error


def test_a_transaction_that_runs_too_long_is_refused_unless_it_is_committed(forge: Any) -> None:
    loop = assemble_code("again: @again jump")
    create = assemble_code(f"0x{loop.hex()} push0 mstore {len(loop)} {32 - len(loop)} return")
    key = TEST_ACCOUNTS[0].private_key
    deploy = sign_transaction(key, chain_id=901, nonce=0, data=create, gas_limit=200_000, max_fee_per_gas=10**10)
    target = keccak256(rlp_encode([TEST_ACCOUNTS[0].address, b""]))[12:]
    spin = sign_transaction(key, chain_id=901, nonce=1, to=target, gas_limit=2_000_000, max_fee_per_gas=10**10)
    made = forge.flashblocks(forge.block.header, forge.state, [[deploy], [spin]])
    follower = following(forge, made[:2])
    ticks = iter(range(10**9))
    patience = Patience(3, lambda: float(next(ticks)))
    refused = finish(follower.apply_steps(made[2], patience=patience))
    assert refused.status == "INVALID" and "deadline passed" in str(refused.error)
    assert finish(follower.apply_steps(made[2], committed=True, patience=patience)).status == "VALID"


def test_a_rollback_in_a_pause_is_noticed(forge: Any) -> None:
    ours, theirs = stream(forge), stream(forge, tip=2 * 10**6)
    follower = following(forge, ours[:3])
    paused = follower.apply_steps(ours[3])
    next(paused)
    assert follower.apply(theirs[1], committed=True).status == "VALID"
    assert finish(paused) == Verdict("GAP", 2)


def test_gap_duplicate_and_unknown_parent(forge: Any) -> None:
    made = stream(forge)
    follower = following(forge, made[:2])
    assert follower.apply(made[3]) == Verdict("GAP", 2)
    assert follower.apply(made[1]) == Verdict("DUPLICATE", 2, made[1].diff.block_hash)
    assert PayloadFollower(forge.chain()).apply(made[1]) == Verdict("GAP", 0)
    assert made[0].base is not None
    orphan = replace(made[0], base=replace(made[0].base, parent_hash=b"\x09" * 32))
    assert PayloadFollower(forge.chain()).apply(orphan) == Verdict("UNKNOWN_PARENT", 0)


def test_a_committed_flashblock_replaces_an_uncommitted_one_and_what_followed_it(forge: Any) -> None:
    ours, theirs = stream(forge), stream(forge, tip=2 * 10**6)
    follower = following(forge, ours)
    assert follower.apply(theirs[1], committed=True) == Verdict("VALID", 2, theirs[1].diff.block_hash)
    followed = follower.open(ours[0].payload_id)
    assert followed is not None
    assert (followed.last_index, followed.committed_index) == (1, 1)
    assert follower.apply(theirs[2]).status == "VALID"
    refused = follower.apply(ours[1])
    assert refused.status == "INVALID" and refused.error == "index 1 differs from the committed flashblock"
    assert follower.apply(ours[1], committed=True).status == "INVALID"  # two committed bodies: never believed
    assert followed.last_index == 2


def test_an_uncommitted_flashblock_can_be_built_anew_but_a_bad_one_replaces_nothing(forge: Any) -> None:
    ours, again = stream(forge), stream(forge, tip=3 * 10**6)
    follower = following(forge, ours)
    assert follower.apply(change_diff(gas_used=7)(again[1])).status == "INVALID"
    followed = follower.open(ours[0].payload_id)
    assert followed is not None and followed.last_index == 3
    assert follower.apply(again[1]).status == "VALID" and followed.last_index == 1


def test_committing_what_is_already_here_marks_it(forge: Any) -> None:
    made = stream(forge)
    follower = following(forge, made[:2])
    assert follower.apply(made[0], committed=True).status == "DUPLICATE"
    followed = follower.open(made[0].payload_id)
    assert followed is not None and followed.committed_index == 0


def test_working_goes_on_where_the_last_flashblock_ended(forge: Any) -> None:
    made = stream(forge)
    follower = following(forge, made[:2])
    followed = follower.open(made[0].payload_id)
    assert followed is not None
    working = followed.working()
    working.append(forge.transfer(0, 1))
    assert working.seal().header.hash == made[3].diff.block_hash
    assert followed.working().transaction_count == 3, "the followed block itself has not moved"
    assert followed.working(0).transaction_count == 1


@pytest.mark.parametrize("with_working", [True, False])
def test_one_s_own_flashblocks_are_adopted_without_executing_them_again(forge: Any, with_working: bool) -> None:
    made = stream(forge)
    attributes = forge.attributes(forge.block.header)
    working = OpenBlock.start(forge.spec, forge.block.header, forge.state, attributes)
    follower = PayloadFollower(forge.chain())
    for flashblock in made:
        for raw in flashblock.diff.transactions:
            working.append(raw)
        sealed = working.seal()
        follower.adopt(flashblock.payload_id, flashblock, sealed, working.fork() if with_working else None)
    followed = follower.open(made[0].payload_id)
    assert followed is not None and followed.last_index == 3
    assert followed.working().seal().header.hash == made[3].diff.block_hash
    assert follower.apply(made[2], committed=True).status == "DUPLICATE"
    with pytest.raises(ValueError, match="does not continue"):
        follower.adopt(made[0].payload_id, made[2], sealed)


def test_a_followed_block_joins_the_chain_without_being_executed_again(
    forge: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = stream(forge)
    follower = following(forge, made)
    block = block_from(forge, made)
    monkeypatch.setattr(OpenBlock, "append", None)
    assert follower.take(block) == Imported("VALID", block.hash)
    assert follower.take(block) == Imported("VALID", block.hash)
    follower.chain.set_head(block.hash)
    assert follower.chain.head.transactions[3].raw == made[3].diff.transactions[0]


def test_a_block_that_goes_beyond_what_was_followed_is_executed_from_there(
    forge: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = stream(forge)
    follower = following(forge, made[:2])
    appended = []
    original = OpenBlock.append

    def counted(self: OpenBlock, transaction: Any, **named: Any) -> Any:
        appended.append(transaction)
        return original(self, transaction, **named)

    monkeypatch.setattr(OpenBlock, "append", counted)
    block = block_from(forge, made)
    assert follower.take(block) == Imported("VALID", block.hash)
    assert len(appended) == 1


def test_a_shorter_or_another_block_is_taken_too(forge: Any) -> None:
    made = stream(forge)
    shorter = block_from(forge, made[:2])
    assert following(forge, made).take(shorter) == Imported("VALID", shorter.hash)
    other = block_from(forge, stream(forge, tip=5, randao=9))
    follower = following(forge, made)
    assert follower.take(other) == Imported("VALID", other.hash)
    orphan = Block(replace(other.header, parent_hash=b"\1" * 32), other.transactions)
    assert follower.take(orphan) == Imported("SYNCING")


def test_a_bad_block_over_a_followed_prefix_is_invalid(forge: Any) -> None:
    made = stream(forge)
    block = block_from(forge, made)
    bad = Block(replace(block.header, receipts_root=bytes(32)), block.transactions)
    verdict = following(forge, made).take(bad)
    assert verdict.status == "INVALID" and "receipts_root" in str(verdict.error)
    unplayable = Block(replace(block.header, gas_used=1), (*block.transactions, forge.transfer(0, 9)))
    assert following(forge, made).take(unplayable).status == "INVALID"
    early = Block(replace(block.header, base_fee_per_gas=1), block.transactions)
    assert PayloadFollower(forge.chain()).take(early).status == "INVALID"


def test_the_next_block_can_begin_before_this_one_is_in_the_chain(forge: Any) -> None:
    made = stream(forge)
    follower = following(forge, made)
    followed = follower.open(made[0].payload_id)
    assert followed is not None
    tip = followed.sealed()
    following_made = forge.flashblocks(tip.header, tip.state, [[forge.transfer(0, 2)]])
    assert [follower.apply(each).status for each in following_made] == ["VALID", "VALID"]
    second = block_from(forge, following_made)
    assert follower.take(second) == Imported("VALID", second.hash), "its parent is settled first"
    assert follower.chain.block(tip.header.hash) is not None
    lookup = follower.ancestor_hashes(second.hash)
    assert [lookup(number) for number in (2, 1, 0)] == [second.hash, tip.header.hash, forge.block.hash]


def test_block_hashes_reach_through_followed_blocks(forge: Any) -> None:
    made = stream(forge)
    follower = following(forge, made)
    lookup = follower.ancestor_hashes(made[3].diff.block_hash)
    assert (lookup(1), lookup(0)) == (made[3].diff.block_hash, forge.block.hash)


def test_only_so_many_blocks_are_followed(forge: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow_module, "FOLLOWED_BLOCKS_MAX", 2)
    streams = [stream(forge, randao=randao) for randao in (1, 2, 3)]
    follower = following(forge, [each[0] for each in streams])
    assert [each.payload_id for each in follower.blocks()] == [each[0].payload_id for each in streams[1:]]
    follower.forget_below(1)
    assert len(follower.blocks()) == 2
    follower.forget_below(2)
    assert follower.blocks() == []


def test_payloads_and_blocks_are_the_same_thing(forge: Any) -> None:
    block = block_from(forge, stream(forge))
    assert block_of(forge.spec, envelope_of(block)) == block
