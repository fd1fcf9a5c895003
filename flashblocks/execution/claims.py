"""What a flashblock says of itself: made from an executed block, and compared with one."""

from collections.abc import Callable, Mapping

import msgspec

from flashblocks.execution.errors import ExecutionError
from flashblocks.execution.header import Header
from flashblocks.execution.open_block import Sealed
from flashblocks.execution.receipt import Receipt
from flashblocks.wire.flashblock import (
    Flashblock,
    FlashblockBase,
    FlashblockDiff,
    FlashblockLog,
    FlashblockMetadata,
    FlashblockReceipt,
)


class Refused(ExecutionError):
    """A flashblock claims what is not so."""


def flashblock_from(
    payload_id: bytes, index: int, sealed: Sealed, balances: Mapping[bytes, int], first_transaction: int
) -> Flashblock:
    """The flashblock that brought a block to `sealed`; its transactions are those from `first_transaction` on.

    `balances` are those of every account the block has written so far, in wei (`OpenBlock.new_account_balances`).
    """
    header = sealed.header
    diff = FlashblockDiff(
        state_root=header.state_root,
        receipts_root=header.receipts_root,
        logs_bloom=header.logs_bloom,
        gas_used=header.gas_used,
        block_hash=header.hash,
        transactions=sealed.transactions[first_transaction:],
        withdrawals_root=header.withdrawals_root,
        blob_gas_used=header.blob_gas_used,
    )
    receipts = {receipt.tx_hash: wire_receipt(receipt) for receipt in sealed.receipts[first_transaction:]}
    metadata = FlashblockMetadata(header.number, dict(balances), receipts)
    return Flashblock(payload_id, index, base_of(header) if index == 0 else None, diff, metadata)


def base_of(header: Header) -> FlashblockBase:
    """What index 0 tells of the whole block."""
    return FlashblockBase(
        parent_beacon_block_root=header.parent_beacon_root,
        parent_hash=header.parent_hash,
        fee_recipient=header.fee_recipient,
        prev_randao=header.prev_randao,
        block_number=header.number,
        gas_limit=header.gas_limit,
        timestamp=header.timestamp,
        extra_data=header.extra_data,
        base_fee_per_gas=header.base_fee_per_gas,
    )


def wire_receipt(receipt: Receipt) -> FlashblockReceipt:
    """A receipt as the stream carries it."""
    return FlashblockReceipt(
        receipt.type,
        receipt.status,
        receipt.cumulative_gas_used,
        tuple(FlashblockLog(log.address, log.topics, log.data) for log in receipt.logs),
        receipt.deposit_nonce,
        receipt.deposit_receipt_version,
    )


def check_claims(claimed: Flashblock, computed: Flashblock, balance_of: Callable[[bytes], int]) -> None:
    """Compare what a flashblock says with what executing it gave; raises Refused naming the first difference.

    Receipts and balances may be left out whole (older streams do), and balances of untouched accounts may be added:
    what is said must be true.
    """
    if claimed.base != computed.base:
        _refuse_field("base", claimed.base, computed.base)
    if claimed.diff != computed.diff:
        diff = claimed.diff
        if diff.blob_gas_used is None:
            diff = msgspec.structs.replace(diff, blob_gas_used=0)
        _refuse_field("diff", diff, computed.diff)
    said, so = claimed.metadata, computed.metadata
    if said.block_number != so.block_number:
        raise Refused(f"metadata.block_number: have {said.block_number}, want {so.block_number}")
    if said.receipts and said.receipts != so.receipts:
        wrong = next(
            each for each in {**so.receipts, **said.receipts} if so.receipts.get(each) != said.receipts.get(each)
        )
        raise Refused(f"metadata.receipts: 0x{wrong.hex()} is not as executed")
    if said.new_account_balances != so.new_account_balances:
        for address, balance in said.new_account_balances.items():
            if balance != balance_of(address):
                raise Refused(
                    f"metadata.new_account_balances: 0x{address.hex()} have {balance}, want {balance_of(address)}"
                )


def _refuse_field(where: str, claimed: msgspec.Struct | None, computed: msgspec.Struct | None) -> None:
    if claimed is None or computed is None:
        raise Refused(f"{where}: must be present exactly at index 0")
    for name in claimed.__struct_fields__:
        have, want = getattr(claimed, name), getattr(computed, name)
        if have != want:
            raise Refused(f"{where}.{name}: have {_shown(have)}, want {_shown(want)}")


def _shown(value: object) -> str:
    return f"0x{value.hex()}" if isinstance(value, bytes) else str(value)
