"""Between the Engine API's payloads and blocks: the same fields under other names, and the roots that are left out."""

from collections.abc import Iterable

from flashblocks.execution.chain_spec import ChainSpec
from flashblocks.execution.errors import InvalidBlock
from flashblocks.execution.header import DEPOSIT_TYPE, EMPTY_REQUESTS_HASH, Block, Header
from flashblocks.execution.receipt import Receipt
from flashblocks.execution.trie import EMPTY_ROOT, ordered_root
from flashblocks.wire.engine import Envelope, ExecutionPayload


def block_of(spec: ChainSpec, envelope: Envelope) -> Block:
    """The block that a payload describes; raises InvalidBlock when it does not hash to the payload's blockHash."""
    payload = envelope.payload
    isthmus = spec.is_isthmus(payload.timestamp)
    if isthmus != (payload.withdrawals_root is not None):
        raise InvalidBlock("withdrawalsRoot must be present exactly since Isthmus")
    header = Header(
        parent_hash=payload.parent_hash,
        fee_recipient=payload.fee_recipient,
        state_root=payload.state_root,
        transactions_root=ordered_root(list(payload.transactions)),
        receipts_root=payload.receipts_root,
        logs_bloom=payload.logs_bloom,
        number=payload.block_number,
        gas_limit=payload.gas_limit,
        gas_used=payload.gas_used,
        timestamp=payload.timestamp,
        extra_data=payload.extra_data,
        prev_randao=payload.prev_randao,
        base_fee_per_gas=payload.base_fee_per_gas,
        withdrawals_root=payload.withdrawals_root or EMPTY_ROOT,
        blob_gas_used=payload.blob_gas_used,
        excess_blob_gas=payload.excess_blob_gas,
        parent_beacon_root=envelope.parent_beacon_block_root,
        requests_hash=EMPTY_REQUESTS_HASH if isthmus else None,
    )
    if header.hash != payload.block_hash:
        raise InvalidBlock(f"blockhash mismatch, want 0x{payload.block_hash.hex()}, got 0x{header.hash.hex()}")
    return Block(header, payload.transactions)


def block_value(header: Header, receipts: Iterable[Receipt]) -> int:
    """What the fee recipient earns by a block, in wei: the priority fees of its paid transactions."""
    return sum(
        (receipt.effective_gas_price - header.base_fee_per_gas) * receipt.gas_used
        for receipt in receipts
        if receipt.type != DEPOSIT_TYPE
    )


def envelope_of(block: Block, receipts: Iterable[Receipt] = ()) -> Envelope:
    """The payload of a block, with its parent beacon block root and, where the receipts are given, its value."""
    header = block.header
    payload = ExecutionPayload(
        parent_hash=header.parent_hash,
        fee_recipient=header.fee_recipient,
        state_root=header.state_root,
        receipts_root=header.receipts_root,
        logs_bloom=header.logs_bloom,
        prev_randao=header.prev_randao,
        block_number=header.number,
        gas_limit=header.gas_limit,
        gas_used=header.gas_used,
        timestamp=header.timestamp,
        extra_data=header.extra_data,
        base_fee_per_gas=header.base_fee_per_gas,
        block_hash=block.hash,
        transactions=block.transactions,
        blob_gas_used=header.blob_gas_used,
        excess_blob_gas=header.excess_blob_gas,
        withdrawals_root=None if header.requests_hash is None else header.withdrawals_root,
    )
    return Envelope(header.parent_beacon_root, payload, block_value(header, receipts))
