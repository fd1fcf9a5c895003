"""The JSON of what an rpc-node shows, sealed or pending, through the execution client's own shapes.

Pending things carry the number of the block they will be in and, as the deployed node does, a block hash of zeros: the
hash of a block so far changes with every flashblock, and no client may take it for a block it can ask for later.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from flashblocks.execution import rpc_shapes
from flashblocks.execution.chain import ChainBlock
from flashblocks.execution.header import ZERO_HASH, Header
from flashblocks.execution.receipt import Receipt
from flashblocks.execution.rpc_arguments import LogFilter
from flashblocks.execution.transaction import Transaction
from flashblocks.preconf.snapshot import PendingSnapshot

header_json = rpc_shapes.header_json
pool_transaction_json = rpc_shapes.transaction_json


def block_json(block: ChainBlock, *, full: bool) -> dict[str, Any]:
    """A sealed block."""
    return rpc_shapes.block_json(block.header, block.transactions, block.receipts, full=full)


def pending_block_json(snapshot: PendingSnapshot, *, full: bool, block_hash: bytes = ZERO_HASH) -> dict[str, Any]:
    """The pending block so far."""
    return rpc_shapes.block_json(
        snapshot.header, snapshot.transactions, snapshot.receipts, full=full, block_hash=block_hash
    )


def block_transaction_json(block: ChainBlock, position: int) -> dict[str, Any]:
    """A transaction of a sealed block."""
    return rpc_shapes.transaction_json(
        block.transactions[position],
        block.receipts[position],
        block_hash=block.hash,
        number=block.number,
        index=position,
        base_fee=block.header.base_fee_per_gas,
    )


def pending_transaction_json(snapshot: PendingSnapshot, position: int) -> dict[str, Any]:
    """A preconfirmed transaction: its block hash is null, its number and index are known."""
    return rpc_shapes.transaction_json(
        snapshot.transactions[position],
        snapshot.receipts[position],
        number=snapshot.number,
        index=position,
        base_fee=snapshot.header.base_fee_per_gas,
    )


def block_receipts(block: ChainBlock) -> list[dict[str, Any]]:
    """Every receipt of a sealed block."""
    return rpc_shapes.block_receipts_json(block.header, block.transactions, block.receipts)


def block_receipt(block: ChainBlock, position: int) -> dict[str, Any]:
    """One receipt of a sealed block."""
    return _one_receipt(block.header, block.hash, block.transactions, block.receipts, position)


def pending_receipts(snapshot: PendingSnapshot) -> list[dict[str, Any]]:
    """Every receipt of the pending block so far."""
    return rpc_shapes.block_receipts_json(
        snapshot.header, snapshot.transactions, snapshot.receipts, block_hash=ZERO_HASH
    )


def pending_receipt(snapshot: PendingSnapshot, position: int) -> dict[str, Any]:
    """The receipt of one preconfirmed transaction."""
    return _one_receipt(snapshot.header, ZERO_HASH, snapshot.transactions, snapshot.receipts, position)


def _one_receipt(
    header: Header, block_hash: bytes, transactions: Sequence[Transaction], receipts: Sequence[Receipt], position: int
) -> dict[str, Any]:
    return rpc_shapes.receipt_json(
        transactions[position],
        receipts[position],
        block_hash=block_hash,
        number=header.number,
        index=position,
        first_log_index=sum(len(receipt.logs) for receipt in receipts[:position]),
        timestamp=header.timestamp,
    )


def block_logs(block: ChainBlock, wanted: LogFilter) -> list[dict[str, Any]]:
    """The wanted logs of a sealed block."""
    if not wanted.may_match(block.header.logs_bloom):
        return []
    return _logs(block.header, block.hash, block.transactions, block.receipts, wanted)


def pending_logs(
    snapshot: PendingSnapshot, wanted: LogFilter, first: int = 0, end: int | None = None
) -> list[dict[str, Any]]:
    """The wanted logs of the transactions at positions first..end-1 of the pending block."""
    return _logs(snapshot.header, ZERO_HASH, snapshot.transactions, snapshot.receipts, wanted, first, end)


def _logs(
    header: Header,
    block_hash: bytes,
    transactions: Sequence[Transaction],
    receipts: Iterable[Receipt],
    wanted: LogFilter,
    first: int = 0,
    end: int | None = None,
) -> list[dict[str, Any]]:
    last = len(transactions) if end is None else end
    return [
        rpc_shapes.log_json(
            log,
            block_hash=block_hash,
            number=header.number,
            timestamp=header.timestamp,
            tx_hash=transactions[index].hash,
            index=index,
            log_index=log_index,
        )
        for index, log_index, _, log in rpc_shapes.numbered_logs(receipts)
        if first <= index < last and wanted.matches(log)
    ]
