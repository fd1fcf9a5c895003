"""From the flashblocks of a block to the block itself, and from its first one back to the attributes that opened it."""

from __future__ import annotations

from collections.abc import Sequence

from flashblocks.wire.engine import Envelope, ExecutionPayload, PayloadAttributes
from flashblocks.wire.flashblock import Flashblock
from flashblocks.wire.hexadecimal import WireError

EXTRA_DATA_BYTES_HOLOCENE = 9
EXTRA_DATA_BYTES_JOVIAN = 17


def assemble(flashblocks: Sequence[Flashblock]) -> Envelope:
    """Return the block that flashblocks 0..k of one payload make: base from the first, roots from the last.

    Raises WireError when the sequence is empty, has a gap, or mixes payloads.
    """
    if not flashblocks or flashblocks[0].base is None:
        raise WireError("assembly: needs the flashblocks from index 0 on")
    first, last = flashblocks[0], flashblocks[-1]
    base, diff = flashblocks[0].base, last.diff
    for position, flashblock in enumerate(flashblocks):
        if flashblock.index != position or flashblock.payload_id != first.payload_id:
            raise WireError(f"assembly: expected index {position} of one payload, got {flashblock.index}")
    payload = ExecutionPayload(
        parent_hash=base.parent_hash,
        fee_recipient=base.fee_recipient,
        state_root=diff.state_root,
        receipts_root=diff.receipts_root,
        logs_bloom=diff.logs_bloom,
        prev_randao=base.prev_randao,
        block_number=base.block_number,
        gas_limit=base.gas_limit,
        gas_used=diff.gas_used,
        timestamp=base.timestamp,
        extra_data=base.extra_data,
        base_fee_per_gas=base.base_fee_per_gas,
        block_hash=diff.block_hash,
        transactions=tuple(tx for flashblock in flashblocks for tx in flashblock.diff.transactions),
        blob_gas_used=diff.blob_gas_used or 0,
        excess_blob_gas=0,
        withdrawals_root=diff.withdrawals_root,
    )
    return Envelope(base.parent_beacon_block_root, payload)


def attributes_of(first: Flashblock) -> PayloadAttributes:
    """Return the attributes that opened the block of this index-0 flashblock: same attributes, same payload id.

    Index 0 holds the forced transactions only, so they are the attributes' own; extraData carries the EIP-1559
    parameters (Holocene: 0x00, u32, u32; Jovian: 0x01, u32, u32, u64 minimum base fee). Raises WireError.
    """
    base = first.base
    if base is None:
        raise WireError("attributes: only index 0 carries the base")
    extra = base.extra_data
    if len(extra) not in (EXTRA_DATA_BYTES_HOLOCENE, EXTRA_DATA_BYTES_JOVIAN):
        raise WireError(f"attributes: extraData of {len(extra)} bytes is neither Holocene's nor Jovian's")
    jovian = len(extra) == EXTRA_DATA_BYTES_JOVIAN
    return PayloadAttributes(
        timestamp=base.timestamp,
        prev_randao=base.prev_randao,
        fee_recipient=base.fee_recipient,
        parent_beacon_block_root=base.parent_beacon_block_root,
        transactions=first.diff.transactions,
        no_tx_pool=False,
        gas_limit=base.gas_limit,
        eip1559_params=extra[1:9],
        min_base_fee=int.from_bytes(extra[9:17], "big") if jovian else None,
    )
