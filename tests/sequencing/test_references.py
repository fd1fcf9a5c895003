import pytest

from flashblocks.sequencing.attributes import next_attributes
from flashblocks.sequencing.deposits import decode_l1_info
from flashblocks.sequencing.origin import select_origin
from flashblocks.sequencing.references import reference_of_block, reference_of_payload
from flashblocks.wire.hexadecimal import WireError, data, quantity
from tests.sequencing.chain import CONFIG, GENESIS, GENESIS_TIME, L1, envelope

PAYLOAD = envelope(
    GENESIS, next_attributes(CONFIG, L1, GENESIS, select_origin(CONFIG, L1, GENESIS, GENESIS_TIME))
).payload
BLOCK = {
    "number": quantity(PAYLOAD.block_number),
    "hash": data(PAYLOAD.block_hash),
    "parentHash": data(PAYLOAD.parent_hash),
    "timestamp": quantity(PAYLOAD.timestamp),
    "transactions": [{"type": "0x7e", "input": data(decode_l1_info(PAYLOAD.transactions[0]).to_calldata())}],
}


def test_payload_and_block_give_the_same_reference() -> None:
    assert reference_of_payload(PAYLOAD) == reference_of_block(BLOCK, CONFIG.genesis_l1)


def test_the_rpc_spelling_is_op_nodes() -> None:
    assert reference_of_payload(PAYLOAD).to_json() == {
        "hash": data(PAYLOAD.block_hash),
        "number": 1,
        "parentHash": data(GENESIS.hash),
        "timestamp": GENESIS_TIME + 2,
        "l1origin": {"hash": data(L1.block(0).hash), "number": 0},
        "sequenceNumber": 1,
    }


def test_genesis_has_the_given_origin() -> None:
    block = BLOCK | {"number": "0x0", "transactions": []}
    assert reference_of_block(block, CONFIG.genesis_l1).l1_origin == CONFIG.genesis_l1


@pytest.mark.parametrize("broken", [{"transactions": []}, {"transactions": [{"type": "0x2"}]}, {"hash": "0x12"}])
def test_a_block_without_l1_attributes_is_refused(broken: dict) -> None:
    with pytest.raises(WireError):
        reference_of_block(BLOCK | broken, CONFIG.genesis_l1)
