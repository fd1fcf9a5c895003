"""Blocks, transactions, receipts and logs as Ethereum JSON-RPC spells them, with the fields that op-geth adds.

Hexadecimal appears here and nowhere before. An execution client and the Flashblocks-aware node answer through these.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from flashblocks.execution.header import EMPTY_UNCLES_HASH, Block, Header
from flashblocks.execution.receipt import Log, Receipt
from flashblocks.execution.rlp import decode_list
from flashblocks.execution.transaction import LEGACY_TYPE, SET_CODE_TYPE, AccessList, Authorization, Transaction
from flashblocks.wire.hexadecimal import data, quantity

Json = dict[str, Any]

ZERO_HASH = bytes(32)


def header_json(header: Header, block_hash: bytes | None = None) -> Json:
    """A header as eth_subscribe("newHeads") sends it; `block_hash` overrides the computed hash (pending: zero)."""
    obj: Json = {
        "number": quantity(header.number),
        "hash": data(header.hash if block_hash is None else block_hash),
        "parentHash": data(header.parent_hash),
        "nonce": data(header.nonce),
        "mixHash": data(header.prev_randao),
        "sha3Uncles": data(EMPTY_UNCLES_HASH),
        "logsBloom": data(header.logs_bloom),
        "transactionsRoot": data(header.transactions_root),
        "stateRoot": data(header.state_root),
        "receiptsRoot": data(header.receipts_root),
        "miner": data(header.fee_recipient),
        "difficulty": quantity(header.difficulty),
        "extraData": data(header.extra_data),
        "gasLimit": quantity(header.gas_limit),
        "gasUsed": quantity(header.gas_used),
        "timestamp": quantity(header.timestamp),
        "baseFeePerGas": quantity(header.base_fee_per_gas),
        "withdrawalsRoot": data(header.withdrawals_root),
        "blobGasUsed": quantity(header.blob_gas_used),
        "excessBlobGas": quantity(header.excess_blob_gas),
        "parentBeaconBlockRoot": data(header.parent_beacon_root),
    }
    if header.requests_hash is not None:
        obj["requestsHash"] = data(header.requests_hash)
    return obj


def block_json(
    header: Header,
    transactions: Sequence[Transaction],
    receipts: Sequence[Receipt] = (),
    *,
    full: bool,
    block_hash: bytes | None = None,
) -> Json:
    """A block with hashes of transactions or, when `full`, whole ones; deposits take their nonce from `receipts`."""
    named = header.hash if block_hash is None else block_hash
    listed: list[Any]
    if full:
        listed = [
            transaction_json(
                tx,
                receipts[index] if index < len(receipts) else None,
                block_hash=named,
                number=header.number,
                index=index,
                base_fee=header.base_fee_per_gas,
            )
            for index, tx in enumerate(transactions)
        ]
    else:
        listed = [data(tx.hash) for tx in transactions]
    return {
        **header_json(header, block_hash),
        "size": quantity(len(Block(header, tuple(tx.raw for tx in transactions)).rlp())),
        "transactions": listed,
        "uncles": [],
        "withdrawals": [],
    }


def transaction_json(
    tx: Transaction,
    receipt: Receipt | None = None,
    *,
    block_hash: bytes | None = None,
    number: int | None = None,
    index: int | None = None,
    base_fee: int | None = None,
) -> Json:
    """A transaction in a block, or (with nothing else given) one that waits in a pool."""
    included = number is not None and base_fee is not None
    price = tx.effective_gas_price(base_fee) if included and base_fee is not None else tx.max_fee_per_gas
    obj: Json = {
        "blockHash": None if block_hash is None else data(block_hash),
        "blockNumber": None if number is None else quantity(number),
        "transactionIndex": None if index is None else quantity(index),
        "hash": data(tx.hash),
        "type": quantity(tx.type),
        "nonce": quantity(tx.nonce),
        "from": data(tx.sender),
        "to": None if tx.to is None else data(tx.to),
        "value": quantity(tx.value),
        "gas": quantity(tx.gas_limit),
        "gasPrice": quantity(price),
        "input": data(tx.data),
    }
    if tx.is_deposit:
        _add_deposit_fields(obj, tx, receipt)
    else:
        _add_signed_fields(obj, tx)
    return obj


def _add_deposit_fields(obj: Json, tx: Transaction, receipt: Receipt | None) -> None:
    obj |= {"gasPrice": "0x0", "sourceHash": data(tx.source_hash)}
    if tx.is_system:  # as op-geth: never since Regolith; op-alloy's parser wants it absent or a quantity
        obj["isSystemTx"] = True
    obj |= {"v": "0x0", "r": "0x0", "s": "0x0"}
    if tx.mint:
        obj["mint"] = quantity(tx.mint)
    if receipt is not None and receipt.deposit_nonce is not None:
        obj["nonce"] = quantity(receipt.deposit_nonce)
        obj["depositReceiptVersion"] = quantity(receipt.deposit_receipt_version or 0)


def _add_signed_fields(obj: Json, tx: Transaction) -> None:
    fields = decode_list(tx.raw if tx.type == LEGACY_TYPE else tx.raw[1:])
    v, r, s = (int.from_bytes(item, "big") for item in fields[-3:] if isinstance(item, bytes))
    obj |= {"v": quantity(v), "r": quantity(r), "s": quantity(s)}
    if tx.chain_id is not None:
        obj["chainId"] = quantity(tx.chain_id)
    if tx.type == LEGACY_TYPE:
        return
    obj["yParity"] = quantity(v)
    obj["accessList"] = access_list_json(tx.access_list)
    if tx.type > 1:
        obj["maxFeePerGas"] = quantity(tx.max_fee_per_gas)
        obj["maxPriorityFeePerGas"] = quantity(tx.max_priority_fee_per_gas)
    if tx.type == SET_CODE_TYPE:
        obj["authorizationList"] = [_authorization_json(entry) for entry in tx.authorization_list]


def access_list_json(access_list: AccessList) -> list[Json]:
    """An EIP-2930 access list."""
    return [
        {"address": data(address), "storageKeys": [data(slot.to_bytes(32, "big")) for slot in slots]}
        for address, slots in access_list
    ]


def _authorization_json(entry: Authorization) -> Json:
    return {
        "chainId": quantity(entry.chain_id),
        "address": data(entry.address),
        "nonce": quantity(entry.nonce),
        "yParity": quantity(entry.y_parity),
        "r": quantity(entry.r),
        "s": quantity(entry.s),
    }


# Fields of op-geth's receipts: our name, JSON name. Those that do not apply to a block's fork are left out.
_L1_FIELDS = (
    ("l1_gas_price", "l1GasPrice"),
    ("l1_gas_used", "l1GasUsed"),
    ("l1_fee", "l1Fee"),
    ("l1_base_fee_scalar", "l1BaseFeeScalar"),
    ("l1_blob_base_fee", "l1BlobBaseFee"),
    ("l1_blob_base_fee_scalar", "l1BlobBaseFeeScalar"),
    ("operator_fee_scalar", "operatorFeeScalar"),
    ("operator_fee_constant", "operatorFeeConstant"),
    ("da_footprint_gas_scalar", "daFootprintGasScalar"),
    ("blob_gas_used", "blobGasUsed"),
)


def receipt_json(
    tx: Transaction,
    receipt: Receipt,
    *,
    block_hash: bytes,
    number: int,
    index: int,
    first_log_index: int,
    timestamp: int,
) -> Json:
    """One receipt; `first_log_index` counts the logs of the transactions before it in the block."""
    obj: Json = {
        "transactionHash": data(tx.hash),
        "transactionIndex": quantity(index),
        "blockHash": data(block_hash),
        "blockNumber": quantity(number),
        "from": data(tx.sender),
        "to": None if tx.to is None else data(tx.to),
        "type": quantity(tx.type),
        "status": quantity(receipt.status),
        "cumulativeGasUsed": quantity(receipt.cumulative_gas_used),
        "gasUsed": quantity(receipt.gas_used),
        "effectiveGasPrice": quantity(receipt.effective_gas_price),
        "contractAddress": None if receipt.contract_address is None else data(receipt.contract_address),
        "logsBloom": data(receipt.bloom),
        "logs": [
            log_json(
                log,
                block_hash=block_hash,
                number=number,
                timestamp=timestamp,
                tx_hash=tx.hash,
                index=index,
                log_index=first_log_index + position,
            )
            for position, log in enumerate(receipt.logs)
        ],
    }
    if receipt.deposit_nonce is not None:
        obj["depositNonce"] = quantity(receipt.deposit_nonce)
        obj["depositReceiptVersion"] = quantity(receipt.deposit_receipt_version or 0)
    for name, spelled in _L1_FIELDS:
        value = getattr(receipt, name)
        if value is not None:
            obj[spelled] = quantity(value)
    return obj


def block_receipts_json(
    header: Header,
    transactions: Sequence[Transaction],
    receipts: Sequence[Receipt],
    *,
    block_hash: bytes | None = None,
    only: int | None = None,
) -> list[Json]:
    """All receipts of a block in order, or `only` the one at that index; the log indices count through the block."""
    named = header.hash if block_hash is None else block_hash
    made = []
    logs_before = 0
    for index, (tx, receipt) in enumerate(zip(transactions, receipts, strict=True)):
        if only is None or only == index:
            made.append(
                receipt_json(
                    tx,
                    receipt,
                    block_hash=named,
                    number=header.number,
                    index=index,
                    first_log_index=logs_before,
                    timestamp=header.timestamp,
                )
            )
        logs_before += len(receipt.logs)
    return made


def log_json(
    log: Log, *, block_hash: bytes, number: int, timestamp: int, tx_hash: bytes, index: int, log_index: int
) -> Json:
    """One event."""
    return {
        "address": data(log.address),
        "topics": [data(topic) for topic in log.topics],
        "data": data(log.data),
        "blockHash": data(block_hash),
        "blockNumber": quantity(number),
        "blockTimestamp": quantity(timestamp),
        "transactionHash": data(tx_hash),
        "transactionIndex": quantity(index),
        "logIndex": quantity(log_index),
        "removed": False,
    }


def numbered_logs(receipts: Iterable[Receipt]) -> Iterator[tuple[int, int, Receipt, Log]]:
    """Every log of a block with the index of its transaction and its index in the block."""
    log_index = 0
    for index, receipt in enumerate(receipts):
        for log in receipt.logs:
            yield index, log_index, receipt, log
            log_index += 1
