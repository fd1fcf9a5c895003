"""Where flashblocks ended, noted from what is shown; and real blocks as uses of resources."""

import msgspec

from flashblocks.execution.chain import ChainBlock
from flashblocks.execution.follow import PayloadFollower
from flashblocks.execution.transaction import decode_transaction
from flashblocks.preconf.events import FlashblockShown, HeadChanged
from flashblocks.preconf.fee_samples import FlashblockEnds, sampled
from flashblocks.preconf.priority_fee import BLOCKS_SAMPLED_MAX
from flashblocks.preconf.snapshot import PendingSnapshot
from tests.execution.forge import Forge


def snapshots(forge: Forge, *, randao: int = 7) -> list[PendingSnapshot]:
    """A block of three flashblocks after genesis: the deposit, two transfers, one."""
    pieces = [[forge.transfer(0, 0, tip=5), forge.transfer(1, 0, tip=9)], [forge.transfer(0, 1, tip=7)]]
    made = forge.flashblocks(forge.block.header, forge.state, pieces, randao=randao)
    follower = PayloadFollower(forge.chain())
    taken = []
    for flashblock in made:
        assert follower.apply(flashblock, committed=False).status == "VALID"
        followed = follower.open(flashblock.payload_id)
        assert followed is not None
        taken.append(PendingSnapshot(followed, flashblock.index))
    return taken


def test_the_ends_are_those_of_exactly_this_block() -> None:
    ends, (first, second, third) = FlashblockEnds(), snapshots(Forge())
    ends.event(FlashblockShown(first))
    ends.event(FlashblockShown(second))
    assert ends.of(1, second.header.hash) == (1, 3)
    assert ends.of(1, third.header.hash) == (), "of a block that goes on, only the block so far is known"
    ends.event(HeadChanged((), ()))
    ends.event(FlashblockShown(third))
    assert ends.of(1, third.header.hash) == (1, 3, 4)
    assert ends.of(2, third.header.hash) == ()


def test_a_block_begun_anew_and_one_not_seen_from_its_beginning() -> None:
    ends, forge = FlashblockEnds(), Forge()
    first, second, _ = snapshots(forge)
    other_first, other_second, _ = snapshots(forge, randao=8)
    for snapshot in (first, second, other_first):
        ends.event(FlashblockShown(snapshot))
    assert ends.of(1, other_first.header.hash) == (1,)
    ends.event(FlashblockShown(second))
    assert ends.of(1, second.header.hash) == (), "its index 0 is not the one noted"
    ends.event(FlashblockShown(other_second))
    assert ends.of(1, other_second.header.hash) == ()


def test_only_the_newest_blocks_are_kept() -> None:
    ends, forge = FlashblockEnds(), Forge()
    header, state = forge.block.header, forge.state
    hashes, follower = list[bytes](), PayloadFollower(forge.chain())
    for _ in range(BLOCKS_SAMPLED_MAX + 1):
        (made,) = forge.flashblocks(header, state, [])
        assert follower.apply(made, committed=False).status == "VALID"
        followed = follower.open(made.payload_id)
        assert followed is not None
        snapshot = PendingSnapshot(followed, 0)
        ends.event(FlashblockShown(snapshot))
        header, state = snapshot.header, snapshot.state
        hashes.append(header.hash)
    assert ends.of(1, hashes[0]) == ()
    assert ends.of(2, hashes[1]) == (1,)


def test_a_block_as_uses() -> None:
    forge = Forge()
    sealed = forge.seal(forge.block.header, forge.state, [forge.transfer(0, 0, tip=5)])
    transactions = tuple(decode_transaction(raw) for raw in sealed.block.transactions)
    receipts = (sealed.receipts[0], msgspec.structs.replace(sealed.receipts[1], blob_gas_used=40_000))
    block = ChainBlock(sealed.header, transactions, receipts, sealed.state)
    deposit, transfer = sampled(block, (1, 2), with_data=True).uses
    assert deposit.deposit and deposit.tip == 0 and deposit.amounts[1] == 0
    assert (transfer.tip, transfer.amounts, transfer.deposit) == (5, (21_000, 40_000), False)
    assert sampled(block, (), with_data=True).capacities == (sealed.header.gas_limit,) * 2
    gas_only = sampled(block, (1, 2), with_data=False)
    assert (gas_only.uses[1].amounts, gas_only.capacities, gas_only.ends) == (
        (21_000,),
        (sealed.header.gas_limit,),
        (1, 2),
    )
