"""Payload ids against the values op-geth and op-reth agree on."""

from flashblocks.wire.engine import PayloadAttributes
from flashblocks.wire.payload_id import payload_id

PARENT = bytes.fromhex("3533bf30edaf9505d0810bf475cbe4e5f4b9889904b9845e83efdeab4e92eb1e")
DEPOSIT = bytes.fromhex(
    "7ef8f8a0dc19cfa777d90980e4875d0a548a881baaa3f83f14d1bc0d3038bc329350e54194deaddeaddeaddeaddeaddeaddeaddeaddead0001"
    "9442000000000000000000000000000000000000158080830f424080b8a4440a5e20000f424000000000000000000000000300000000670d6d"
    "890000000000000125000000000000000000000000000000000000000000000000000000000000000700000000000000000000000000000000"
    "000000000000000000000000000000014bf9181db6e381d4384bbf69c48b0ee0eed23c6ca26143c6d2544f9d39997a59000000000000000000"
    "0000007f83d659683caf2767fd3c720981d51f5bc365bc"
)


def attributes(**changes):
    fields = {
        "timestamp": 1728933301,
        "prev_randao": bytes.fromhex("9158595abbdab2c90635087619aa7042bbebe47642dfab3c9bfb934f6b082765"),
        "fee_recipient": bytes.fromhex("4200000000000000000000000000000000000011"),
        "parent_beacon_block_root": bytes.fromhex("8fe0193b9bf83cb7e5a08538e494fecc23046aab9a497af3704f4afdae3250ff"),
        "transactions": (DEPOSIT,),
        "gas_limit": 30_000_000,
        "eip1559_params": b"",
        "min_base_fee": None,
    }
    return PayloadAttributes(**{**fields, **changes})


def test_the_id_of_op_geth_before_jovian():
    assert payload_id(PARENT, attributes(), version=3).hex() == "03d2dae446d2a86a"


def test_the_id_of_op_geth_in_jovian():
    assert payload_id(PARENT, attributes(min_base_fee=100), version=4).hex() == "046c65ffc4d659ec"


def test_every_field_names_another_build():
    changes = [
        {"timestamp": 1},
        {"prev_randao": b"\1" * 32},
        {"fee_recipient": b"\1" * 20},
        {"parent_beacon_block_root": b"\1" * 32},
        {"transactions": ()},
        {"transactions": (DEPOSIT, DEPOSIT)},
        {"no_tx_pool": True},
        {"gas_limit": 1},
        {"eip1559_params": b"\1" * 8},
        {"min_base_fee": 1},
    ]
    ids = {payload_id(PARENT, attributes(**change)) for change in changes} | {payload_id(PARENT, attributes())}
    assert len(ids) == len(changes) + 1
    assert payload_id(b"\1" * 32, attributes()) not in ids
