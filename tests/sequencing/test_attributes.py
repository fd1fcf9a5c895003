import msgspec

from flashblocks.sequencing.attributes import next_attributes
from flashblocks.sequencing.deposits import UserDeposit, decode_l1_info, encode_user_deposit
from flashblocks.sequencing.l1 import SimulatedL1
from flashblocks.sequencing.origin import Origin, select_origin
from tests.sequencing.chain import CONFIG, GENESIS, GENESIS_TIME, L1


def test_a_block_opens_with_its_l1_attributes() -> None:
    origin = select_origin(CONFIG, L1, GENESIS, GENESIS_TIME)
    attributes = next_attributes(CONFIG, L1, GENESIS, origin)
    info = decode_l1_info(attributes.transactions[0])
    assert (info.number, info.sequence_number, info.hash) == (0, 1, L1.block(0).hash)
    assert (attributes.timestamp, attributes.prev_randao) == (GENESIS_TIME + 2, L1.block(0).mix_hash)
    assert attributes.parent_beacon_block_root == L1.block(0).parent_beacon_block_root
    assert attributes.fee_recipient.hex() == "4200000000000000000000000000000000000011"
    assert attributes.eip1559_params.hex() == "000000fa00000006"
    assert (attributes.gas_limit, attributes.no_tx_pool, attributes.min_base_fee) == (140_000_000, False, None)


def test_user_deposits_land_in_the_first_block_of_their_epoch_only() -> None:
    l1 = SimulatedL1(b"tests", GENESIS_TIME)
    deposits = [UserDeposit(sender=bytes((n,)) * 20, to=None, mint=n) for n in (1, 2)]
    for n, deposit in enumerate(deposits):
        l1.place(1, bytes((n,)), deposit)
    block = l1.block(1)
    first = next_attributes(CONFIG, l1, GENESIS, Origin(block, 0, False))
    later = next_attributes(CONFIG, l1, GENESIS, Origin(block, 1, False))
    assert first.transactions[1:] == tuple(encode_user_deposit(d, block.hash, n) for n, d in enumerate(deposits))
    assert len(later.transactions) == 1


def test_the_first_jovian_block_keeps_the_old_deposit_and_takes_nothing_from_the_pool() -> None:
    config = msgspec.structs.replace(CONFIG, jovian_time=GENESIS_TIME + 4)
    seen = []
    for step in range(3):
        head = msgspec.structs.replace(GENESIS, timestamp=GENESIS_TIME + 2 * step)
        attributes = next_attributes(config, L1, head, Origin(L1.block(0), 1, False))
        info = decode_l1_info(attributes.transactions[0])
        seen.append((attributes.no_tx_pool, attributes.min_base_fee, info.da_footprint_gas_scalar))
    assert seen == [(False, None, None), (True, 0, None), (False, 0, 400)]
