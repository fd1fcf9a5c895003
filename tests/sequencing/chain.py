"""A small chain for the tests of this room: configuration, heads and payloads that fit together."""

from flashblocks.sequencing.l1 import SimulatedL1
from flashblocks.sequencing.references import L2BlockRef
from flashblocks.sequencing.rollup import RollupConfig, SystemConfig
from flashblocks.wire.engine import Envelope, ExecutionPayload, PayloadAttributes

GENESIS_TIME = 1_700_000_000
L1 = SimulatedL1(b"tests", GENESIS_TIME)
CONFIG = RollupConfig(
    l2_chain_id=901,
    genesis_hash=b"\xaa" * 32,
    genesis_time=GENESIS_TIME,
    genesis_l1=L1.block(0).id,
    system_config=SystemConfig(gas_limit=140_000_000),
)
GENESIS = L2BlockRef(
    hash=CONFIG.genesis_hash,
    number=0,
    parent_hash=b"\0" * 32,
    timestamp=GENESIS_TIME,
    l1_origin=CONFIG.genesis_l1,
    sequence_number=0,
)


def envelope(head: L2BlockRef, attributes: PayloadAttributes, extra: bytes = b"") -> Envelope:
    """A payload on `head`; its hash is a name, as nothing is executed here."""
    number = head.number + 1
    payload = ExecutionPayload(
        parent_hash=head.hash,
        fee_recipient=attributes.fee_recipient,
        state_root=b"\0" * 32,
        receipts_root=b"\0" * 32,
        logs_bloom=b"\0" * 256,
        prev_randao=attributes.prev_randao,
        block_number=number,
        gas_limit=attributes.gas_limit,
        gas_used=0,
        timestamp=attributes.timestamp,
        extra_data=b"",
        base_fee_per_gas=1,
        block_hash=(head.hash[:2] + extra + number.to_bytes(8, "big")).rjust(32, b"\x01"),
        transactions=attributes.transactions,
        withdrawals_root=b"\0" * 32,
    )
    return Envelope(attributes.parent_beacon_block_root, payload)
