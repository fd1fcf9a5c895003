"""The pending state machine as a table of cases: each row a story told in facts, and the decisions it must lead to."""

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from flashblocks.preconf.facts import (
    Backfill,
    BlockRef,
    CanonicalBlock,
    Execute,
    Invalidated,
    Resend,
    Seal,
)
from flashblocks.preconf.pending import LEDGER_RESTART_S
from flashblocks.preconf.waiting import MAX_WAITING_PER_BLOCK
from tests.preconf.story import HEAD, Story, block_of, flashblock, name


def in_order(story: Story) -> None:
    """Index after index of one block is executed and shown."""
    story.stream(*block_of(3))
    assert story.appended == [(101, 0), (101, 1), (101, 2)]
    assert story.machine.view(story.now).source == "flashblocks"
    assert story.machine.view(story.now).index == 2
    assert story.machine.wanted() == (101, 3)
    assert all(story.machine.has(101, a.index, a.digest) for a in block_of(3))
    assert not story.machine.has(101, 2, name("other"))
    assert not story.machine.has(101, 3, name("other"))


def next_block(story: Story) -> None:
    """A child that names what we followed as its parent seals it: no execution client is asked."""
    first = block_of(3)
    story.stream(*first, flashblock(102, 0, parent=first[-1].block_hash))
    assert Seal(BlockRef(101, first[-1].block_hash), first[0].payload_id, 2) in story.log
    assert story.machine.head == BlockRef(101, first[-1].block_hash)
    assert story.appended[-1] == (102, 0)
    assert not story.invalidated


def duplicate(story: Story) -> None:
    """The same flashblock from a second proxy is neither executed nor told again (W5)."""
    story.stream(*block_of(2), *block_of(2))
    assert story.appended == [(101, 0), (101, 1)]
    assert story.dropped == ["duplicate", "duplicate"]


def duplicate_of_sealed(story: Story) -> None:
    """A late copy from the previous block changes nothing (W5: upstream clears `pending` here)."""
    first = block_of(2)
    story.stream(*first, flashblock(102, 0, parent=first[-1].block_hash), *first)
    assert story.dropped == ["duplicate", "duplicate"]
    assert story.machine.view(story.now).source == "flashblocks"


def equivocation(story: Story) -> None:
    """Another body for a shown (block, index) of the same payload is refused and counted."""
    story.stream(*block_of(2), flashblock(101, 1, parent=HEAD.hash, body="other"))
    assert story.dropped == ["equivocation"]
    assert story.appended == [(101, 0), (101, 1)]


def gap_filled_by_another_proxy(story: Story) -> None:
    """A flashblock ahead of its turn waits; when the missing one comes, both are executed, in order."""
    zero, one, two = block_of(3)
    story.stream(zero, two)
    assert story.appended == [(101, 0)]
    story.stream(one)
    assert story.appended == [(101, 0), (101, 1), (101, 2)]
    assert not any(isinstance(d, Resend) for d in story.log)


def gap_asked_for(story: Story) -> None:
    """What stays missing is asked for – that index, after a grace, and again – and never costs what was shown (W22)."""
    zero, _, two = block_of(3)
    story.stream(zero, two)
    assert story.wait(0.005) == []
    assert story.wait(0.02) == [Resend(101, 1)]
    assert story.wait(0.01) == []
    assert story.wait(0.15) == [Resend(101, 1)]
    assert story.machine.view(story.now).index == 0


def gap_announced(story: Story) -> None:
    """A gap the proxies cannot fill is not asked for again; the sealed block closes it."""
    zero, one, two = block_of(3)
    story.stream(zero, two)
    story.carry_out(story.machine.gap_announced(story.now, 101, 1))
    assert story.wait(0.1) == []
    sealed = zero.transactions + one.transactions + two.transactions
    story.seal_elsewhere(101, HEAD.hash, sealed, "sealed")
    assert story.machine.head == BlockRef(101, name("sealed"))
    assert not story.invalidated


def joined_mid_block(story: Story) -> None:
    """Starting with index 4: ask for index 0, then execute all of it."""
    flashblocks = block_of(5)
    story.stream(flashblocks[4])
    assert story.machine.view(story.now).source == "latest"
    assert Resend(101, 0) in story.wait(0.03)
    story.stream(*flashblocks[:4])
    assert story.appended == [(101, index) for index in range(5)]


def behind_by_blocks(story: Story) -> None:
    """Far behind the stream: fetch the blocks between, with the hash the stream names, then go on without a restart."""
    later = block_of(2, number=104, parent=name("103"))
    story.stream(*later)
    assert Backfill(101, 103, name("103")) in story.wait(0.03)
    for number in (101, 102, 103):
        story.seal_elsewhere(number, name(str(number - 1)), (), str(number))
    assert story.appended == [(104, 0), (104, 1)]


def missing_tail(story: Story) -> None:
    """The next block's parent is not what we followed: its last flashblock is missing; ask for it."""
    zero, one, two = block_of(3)
    child = flashblock(102, 0, parent=two.block_hash)
    story.stream(zero, one, child)
    assert story.wait(0.03) == [Resend(101, 2), Backfill(101, 101, two.block_hash)]
    story.stream(two)
    assert story.appended == [(101, 0), (101, 1), (101, 2), (102, 0)]


def tail_from_sealed_block(story: Story) -> None:
    """The missing tail comes as the sealed block: what was shown is its prefix, so nothing was broken."""
    zero, one, two = block_of(3)
    story.stream(zero, one, flashblock(102, 0, parent=name("sealed101")))
    story.seal_elsewhere(101, HEAD.hash, zero.transactions + one.transactions + two.transactions, "sealed101")
    assert story.appended == [(101, 0), (101, 1), (102, 0)]
    assert not story.invalidated


def new_epoch_republishes(story: Story) -> None:
    """The new leader republishes the open block under its epoch and continues it: nothing told twice (W4)."""
    old = block_of(3)
    new = block_of(5, epoch=8)
    story.stream(*old, *new)
    assert story.appended == [(101, index) for index in range(5)]
    assert story.dropped == ["duplicate"] * 3
    assert not story.invalidated


def stale_epoch(story: Story) -> None:
    """Once epoch 8 speaks, epoch 7 is not heard at its heights (W2, W6)."""
    story.stream(*block_of(1, epoch=8), flashblock(101, 1, parent=HEAD.hash, epoch=7))
    assert story.dropped == ["stale_epoch"]
    assert story.appended == [(101, 0)]


def old_epoch_that_a_newer_one_continues(story: Story) -> None:
    """A replay has the open block's beginning in the epoch of then: what epoch 8 goes on with was committed before."""
    zero, one, two, three = block_of(4)
    other = flashblock(101, 1, parent=HEAD.hash, payload="other")
    story.stream(zero, replace(three, epoch=8), other, one, two)
    assert story.dropped == ["stale_epoch"], "the other payload is nobody's beginning"
    assert story.appended == [(101, 0), (101, 1), (101, 2), (101, 3)]
    assert story.machine.epoch == 8


def a_block_of_many_flashblocks(story: Story) -> None:
    """No index is too high when its turn has come; of what waits, that which is needed last gives way."""
    many = block_of(2 * MAX_WAITING_PER_BLOCK + 1)
    story.stream(*many)
    assert story.appended == [(101, index) for index in range(len(many))]
    story.stream(*reversed(block_of(MAX_WAITING_PER_BLOCK + 2, number=102, parent=many[-1].block_hash)))
    assert story.dropped == []
    assert story.appended[-1] == (102, MAX_WAITING_PER_BLOCK - 1)
    assert story.wait(0.05) == [], "nothing waits behind what is missing"
    story.stream(flashblock(102, MAX_WAITING_PER_BLOCK + 2, parent=many[-1].block_hash))
    assert Resend(102, MAX_WAITING_PER_BLOCK) in story.wait(0.05)


def epochs_from_the_start_again(story: Story) -> None:
    """A wiped ledger counts its epochs from 1: dropped while the newest epoch lives, followed when it is silent."""
    zero, one, two = block_of(3)
    story.stream(zero, one)
    anew = replace(two, epoch=1)
    story.now += LEDGER_RESTART_S - 0.1
    story.stream(anew)
    assert story.dropped == ["stale_epoch"]
    story.now += 0.2
    story.stream(anew)
    assert story.appended == [(101, 0), (101, 1), (101, 2)]
    assert story.machine.epoch == 1
    story.stream(flashblock(102, 0, parent=two.block_hash, epoch=2))
    assert (story.machine.epoch, story.appended[-1]) == (2, (102, 0))


def old_epoch_of_an_older_block(story: Story) -> None:
    """A replayed tail of a block before the new epoch's first keeps its old epoch and is still good."""
    zero, one, two = block_of(3)
    story.stream(zero, one, flashblock(102, 0, parent=two.block_hash, epoch=8), two)
    assert story.appended == [(101, 0), (101, 1), (101, 2), (102, 0)]


def another_payload_of_the_same_height(story: Story) -> None:
    """A foreign stream fails over without continuing: the new payload replaces the old one, loudly (W4)."""
    old = block_of(2, epoch=0)
    new = block_of(3, epoch=0, payload="other")
    story.stream(*old, *new)
    assert story.appended == [(101, 0), (101, 1), (101, 0), (101, 1), (101, 2)]
    (gone,) = story.invalidated
    assert gone.lost == old[0].transactions + old[1].transactions
    assert gone.sealed_hash is None


def replay_of_an_old_height(story: Story) -> None:
    """Index 0 of a height at or below the head is refused, whatever it says (W6)."""
    story.stream(flashblock(100, 0, parent=name("99")), flashblock(60, 0, parent=name("59")))
    assert story.dropped == ["stale_block", "stale_block"]
    assert story.machine.view(story.now).source == "latest"


def index_0_on_another_parent(story: Story) -> None:
    """An index 0 whose parent is not our head waits, never executed on a wrong state; the head is looked at again."""
    story.stream(flashblock(101, 0, parent=name("100b")))
    assert not any(isinstance(d, Execute) for d in story.log)
    story.wait(0.03)
    assert Backfill(100, 100, name("100b")) in story.log
    story.seal_elsewhere(100, name("99"), (), "100b")
    assert story.appended == [(101, 0)]
    assert story.invalidated == [Invalidated(100, HEAD.hash, name("100b"), divergent=False, reorg=True, lost=())]


def invalid_flashblock(story: Story) -> None:
    """A flashblock with wrong roots is dropped with its successors; what came before stays (W23)."""
    zero, one, two = block_of(3)
    story.invalid.add(one.digest)
    story.stream(zero, one, two)
    assert story.dropped == ["invalid", "after_invalid"]
    assert story.machine.view(story.now).index == 0
    story.stream(flashblock(102, 0, parent=name("good101")))
    story.wait(0.03)
    assert Backfill(101, 101, name("good101")) in story.log
    story.seal_elsewhere(101, HEAD.hash, zero.transactions, "good101")
    assert story.appended == [(101, 0), (102, 0)]


def executor_lost_its_place(story: Story) -> None:
    """The executor says GAP: everything of the block is asked for again and shown again."""
    zero, one, two = block_of(3)
    story.lost_place.add(one.digest)
    story.stream(zero, one, two)
    story.wait(0.03)
    assert Resend(101, 0) in story.log
    story.stream(zero, one)
    assert story.appended == [(101, 0), (101, 0), (101, 1), (101, 2)]


def canonical_equal(story: Story) -> None:
    """The block that execution clients have is the one we followed: the head moves, nothing is told as lost."""
    flashblocks = block_of(2)
    story.stream(*flashblocks)
    block = CanonicalBlock(101, flashblocks[-1].block_hash, HEAD.hash, sum((f.transactions for f in flashblocks), ()))
    story.carry_out(story.machine.canonical(story.now, block))
    assert story.machine.head == BlockRef(101, flashblocks[-1].block_hash)
    assert story.machine.view(story.now).source == "latest"
    assert not story.invalidated


def divergence(story: Story) -> None:
    """The sealed block lacks a shown transaction: reported with exactly that one (W8)."""
    zero, one = block_of(2)
    story.stream(zero, one)
    story.seal_elsewhere(101, HEAD.hash, zero.transactions, "short")
    (broken,) = story.invalidated
    assert broken == Invalidated(101, one.block_hash, name("short"), divergent=True, reorg=False, lost=one.transactions)


def divergence_in_order(story: Story) -> None:
    """All transactions are there, in another order: nothing is lost, the promise is broken all the same."""
    zero, one = block_of(2)
    story.stream(zero, one)
    story.seal_elsewhere(101, HEAD.hash, one.transactions + zero.transactions, "swapped")
    (broken,) = story.invalidated
    assert broken.divergent
    assert broken.lost == ()


def reorg_of_a_followed_block(story: Story) -> None:
    """A block we sealed from the stream turns out to be another one: a reorg, the lost ones named, and on we go."""
    first = block_of(2)
    story.stream(*first, flashblock(102, 0, parent=first[-1].block_hash))
    story.seal_elsewhere(101, HEAD.hash, first[0].transactions, "101b")
    kinds = [(gone.number, gone.reorg, gone.divergent) for gone in story.invalidated]
    assert (101, True, True) in kinds
    assert (102, False, True) in kinds
    assert story.machine.head == BlockRef(101, name("101b"))
    story.stream(flashblock(102, 0, parent=name("101b"), payload="b", epoch=8))
    assert story.appended[-1] == (102, 0)


def deep_reorg_finds_the_fork(story: Story) -> None:
    """A block whose parent is not ours: its parent is fetched first."""
    first = block_of(1)
    story.stream(*first, flashblock(102, 0, parent=first[-1].block_hash))
    asked = story.seal_elsewhere(102, name("101b"), (), "102b")
    assert asked == [Backfill(101, 101, name("101b"))]
    assert story.machine.head.number == 101


def stale_stream(story: Story) -> None:
    """No flashblock for three flashblock times: `pending` is `latest` and says why; clients are polled."""
    zero, one = block_of(2)
    story.stream(zero)
    story.wait(0.5)
    assert story.machine.view(story.now).source == "flashblocks"
    assert Backfill(101, None, None) in story.wait(0.2)
    assert story.machine.view(story.now).reason == "stream is stale"
    assert story.wait(0.1) == []
    assert Backfill(101, None, None) in story.wait(0.5)
    story.stream(one)
    assert story.machine.view(story.now).index == 1


def never_a_flashblock(story: Story) -> None:
    """Before any flashblock `pending` is `latest`, never nothing."""
    view = story.machine.view(story.now)
    assert (view.source, view.reason) == ("latest", "no flashblock yet")
    assert story.machine.stream_age_s(story.now) is None


def depth(story: Story) -> None:
    """The stream alone leads us only so far; one agreeing execution client lets it go on, without a restart."""
    parent, numbers = HEAD.hash, range(101, 115)
    for number in numbers:
        arrival = flashblock(number, 0, parent=parent)
        story.stream(arrival)
        parent = arrival.block_hash
    assert story.machine.unconfirmed_blocks == 8
    assert story.machine.head.number == 108
    head = story.machine.head
    story.carry_out(story.machine.observed(story.now, "el-0", head))
    assert story.machine.unconfirmed_blocks < 8
    assert story.appended[-1] == (114, 0)


def one_client_disagrees(story: Story) -> None:
    """One execution client alone cannot talk us out of a block; a second one with the same hash can."""
    first = block_of(1)
    story.stream(*first, flashblock(102, 0, parent=first[0].block_hash))
    other = BlockRef(101, name("fork"))
    assert story.carry_out(story.machine.observed(story.now, "el-0", other)) == []
    assert story.carry_out(story.machine.observed(story.now, "el-0", other)) == []
    assert story.carry_out(story.machine.observed(story.now, "el-1", other)) == [Backfill(101, 101, name("fork"))]


def clients_that_are_behind(story: Story) -> None:
    """Clients that stand below what we remember – after our restart, that is below our head – disprove nothing."""
    story.stream(*block_of(2))
    behind = BlockRef(HEAD.number - 1, name("99"))
    for client in ("el-0", "el-1", "el-2"):
        assert story.carry_out(story.machine.observed(story.now, client, behind)) == []
    assert story.machine.head == HEAD
    assert not story.invalidated


def sealed_by_the_stream(story: Story) -> None:
    """A seal announcement makes the followed block the head before its child arrives."""
    first = block_of(2)
    story.stream(*first)
    story.carry_out(story.machine.sealed(story.now, BlockRef(101, first[-1].block_hash)))
    assert story.machine.head == BlockRef(101, first[-1].block_hash)


def canonical_before_the_tail(story: Story) -> None:
    """The sealed block overtakes its last flashblocks: they are stale then, and nobody is told of a loss."""
    zero, one, two = block_of(3)
    story.stream(zero)
    story.seal_elsewhere(101, HEAD.hash, zero.transactions + one.transactions + two.transactions, "sealed")
    story.stream(one, two)
    assert story.dropped == ["stale_block", "stale_block"]
    assert not story.invalidated


CASES: list[Callable[[Story], None]] = [
    in_order,
    next_block,
    duplicate,
    duplicate_of_sealed,
    equivocation,
    gap_filled_by_another_proxy,
    gap_asked_for,
    gap_announced,
    joined_mid_block,
    behind_by_blocks,
    missing_tail,
    tail_from_sealed_block,
    new_epoch_republishes,
    stale_epoch,
    old_epoch_that_a_newer_one_continues,
    a_block_of_many_flashblocks,
    epochs_from_the_start_again,
    old_epoch_of_an_older_block,
    another_payload_of_the_same_height,
    replay_of_an_old_height,
    index_0_on_another_parent,
    invalid_flashblock,
    executor_lost_its_place,
    canonical_equal,
    divergence,
    divergence_in_order,
    reorg_of_a_followed_block,
    deep_reorg_finds_the_fork,
    stale_stream,
    never_a_flashblock,
    depth,
    one_client_disagrees,
    clients_that_are_behind,
    sealed_by_the_stream,
    canonical_before_the_tail,
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_case(case: Callable[[Story], None]) -> None:
    case(Story())
