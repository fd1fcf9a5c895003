"""The public stream's JSON text of a flashblock, byte for byte as op-rbuilder writes it.

Everything is a hex string but `index` and `metadata.block_number`; `base` and `blob_gas_used` are left out, never null.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from flashblocks.wire.flashblock import (
    Flashblock,
    FlashblockBase,
    FlashblockDiff,
    FlashblockLog,
    FlashblockMetadata,
    FlashblockReceipt,
    check_shape,
)
from flashblocks.wire.hexadecimal import WireError, data, quantity, to_bytes, to_int, to_object

DEPOSIT_TYPE = 0x7E
RECEIPT_TYPES_BY_TAG = {"Legacy": 0, "Eip2930": 1, "Eip1559": 2, "Eip7702": 4, "Deposit": DEPOSIT_TYPE}


def encode_json(flashblock: Flashblock, traceparent: str = "") -> bytes:
    """Return the compact JSON text; maps sorted by key, so that equal flashblocks give equal bytes.

    With a W3C `traceparent` the metadata tells it, which op-rbuilder's does not.
    """
    base, diff, metadata = flashblock.base, flashblock.diff, flashblock.metadata
    obj: dict[str, Any] = {"payload_id": data(flashblock.payload_id), "index": flashblock.index}
    if base is not None:
        obj["base"] = {
            "parent_beacon_block_root": data(base.parent_beacon_block_root),
            "parent_hash": data(base.parent_hash),
            "fee_recipient": data(base.fee_recipient),
            "prev_randao": data(base.prev_randao),
            "block_number": quantity(base.block_number),
            "gas_limit": quantity(base.gas_limit),
            "timestamp": quantity(base.timestamp),
            "extra_data": data(base.extra_data),
            "base_fee_per_gas": quantity(base.base_fee_per_gas),
        }
    obj["diff"] = {
        "state_root": data(diff.state_root),
        "receipts_root": data(diff.receipts_root),
        "logs_bloom": data(diff.logs_bloom),
        "gas_used": quantity(diff.gas_used),
        "block_hash": data(diff.block_hash),
        "transactions": [data(transaction) for transaction in diff.transactions],
        "withdrawals": [],
        "withdrawals_root": data(diff.withdrawals_root),
    }
    if diff.blob_gas_used is not None:
        obj["diff"]["blob_gas_used"] = quantity(diff.blob_gas_used)
    obj["metadata"] = {
        "block_number": metadata.block_number,
        "new_account_balances": {data(a): quantity(v) for a, v in sorted(metadata.new_account_balances.items())},
        "receipts": {data(tx_hash): _receipt_json(receipt) for tx_hash, receipt in sorted(metadata.receipts.items())},
    }
    if traceparent:
        obj["metadata"]["traceparent"] = traceparent
    return orjson.dumps(obj)


def decode_json(text: bytes | str) -> Flashblock:
    """Read a flashblock's JSON text; raises WireError.

    Read besides today's form: externally tagged receipts, metadata with the block number alone, unknown extra keys,
    a left-out blob_gas_used. Receipts come back in the order of the text, which need not be that of the transactions.
    """
    try:
        obj = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise WireError(f"flashblock: not JSON: {error}") from None
    top = to_object(obj, "flashblock")
    index = top.get("index")
    if not isinstance(index, int) or isinstance(index, bool):
        raise WireError("flashblock index: expected a JSON integer")
    flashblock = Flashblock(
        to_bytes(top.get("payload_id"), 8, "payload_id"),
        index,
        None if top.get("base") is None else _base(to_object(top["base"], "base")),
        _diff(to_object(top.get("diff"), "diff")),
        _metadata(to_object(top.get("metadata"), "metadata")),
    )
    check_shape(flashblock)
    return flashblock


def _base(obj: Mapping[str, Any]) -> FlashblockBase:
    return FlashblockBase(
        to_bytes(obj.get("parent_beacon_block_root"), 32, "parent_beacon_block_root"),
        to_bytes(obj.get("parent_hash"), 32, "parent_hash"),
        to_bytes(obj.get("fee_recipient"), 20, "fee_recipient"),
        to_bytes(obj.get("prev_randao"), 32, "prev_randao"),
        to_int(obj.get("block_number"), "block_number"),
        to_int(obj.get("gas_limit"), "gas_limit"),
        to_int(obj.get("timestamp"), "timestamp"),
        to_bytes(obj.get("extra_data"), None, "extra_data"),
        to_int(obj.get("base_fee_per_gas"), "base_fee_per_gas"),
    )


def _diff(obj: Mapping[str, Any]) -> FlashblockDiff:
    if obj.get("withdrawals"):
        raise WireError("diff withdrawals: must be empty on an OP chain")
    transactions = obj.get("transactions")
    if not isinstance(transactions, list):
        raise WireError("diff transactions: expected an array")
    blob_gas_used = obj.get("blob_gas_used")
    return FlashblockDiff(
        to_bytes(obj.get("state_root"), 32, "state_root"),
        to_bytes(obj.get("receipts_root"), 32, "receipts_root"),
        to_bytes(obj.get("logs_bloom"), 256, "logs_bloom"),
        to_int(obj.get("gas_used"), "gas_used"),
        to_bytes(obj.get("block_hash"), 32, "block_hash"),
        tuple(to_bytes(transaction, None, "transactions") for transaction in transactions),
        to_bytes(obj.get("withdrawals_root", "0x" + "00" * 32), 32, "withdrawals_root"),
        None if blob_gas_used is None else to_int(blob_gas_used, "blob_gas_used"),
    )


def _metadata(obj: Mapping[str, Any]) -> FlashblockMetadata:
    number = obj.get("block_number")
    if not isinstance(number, int) or isinstance(number, bool) or number < 0:
        raise WireError("metadata block_number: expected a JSON integer")
    balances = to_object(obj.get("new_account_balances") or {}, "new_account_balances")
    receipts = to_object(obj.get("receipts") or {}, "receipts")
    return FlashblockMetadata(
        number,
        {to_bytes(a, 20, "new_account_balances"): to_int(v, "new_account_balances") for a, v in balances.items()},
        {to_bytes(h, 32, "receipts"): _receipt(to_object(r, "receipt")) for h, r in receipts.items()},
    )


def _receipt_json(receipt: FlashblockReceipt) -> dict[str, Any]:
    obj: dict[str, Any] = {
        "type": quantity(receipt.type),
        "status": quantity(receipt.status),
        "cumulativeGasUsed": quantity(receipt.cumulative_gas_used),
        "logs": [
            {"address": data(log.address), "topics": [data(topic) for topic in log.topics], "data": data(log.data)}
            for log in receipt.logs
        ],
    }
    if receipt.deposit_nonce is not None:
        obj["depositNonce"] = quantity(receipt.deposit_nonce)
    if receipt.deposit_receipt_version is not None:
        obj["depositReceiptVersion"] = quantity(receipt.deposit_receipt_version)
    return obj


def _receipt(obj: Mapping[str, Any]) -> FlashblockReceipt:
    kind = obj.get("type")
    if kind is None and len(obj) == 1:  # the older form: {"Eip1559": {…}}
        tag, inner = next(iter(obj.items()))
        if tag not in RECEIPT_TYPES_BY_TAG:
            raise WireError(f"receipt: unknown type {tag!r}")
        obj, kind = to_object(inner, "receipt"), RECEIPT_TYPES_BY_TAG[tag]
    logs = obj.get("logs", [])
    if not isinstance(logs, list):
        raise WireError("receipt logs: expected an array")
    nonce, version = obj.get("depositNonce"), obj.get("depositReceiptVersion")
    return FlashblockReceipt(
        to_int(kind, "receipt type"),
        to_int(obj.get("status"), "receipt status"),
        to_int(obj.get("cumulativeGasUsed"), "cumulativeGasUsed"),
        tuple(_log(to_object(log, "log")) for log in logs),
        None if nonce is None else to_int(nonce, "depositNonce"),
        None if version is None else to_int(version, "depositReceiptVersion"),
    )


def _log(obj: Mapping[str, Any]) -> FlashblockLog:
    topics = obj.get("topics")
    if not isinstance(topics, list) or len(topics) > 4:
        raise WireError("log topics: expected an array of at most four")
    return FlashblockLog(
        to_bytes(obj.get("address"), 20, "log address"),
        tuple(to_bytes(topic, 32, "log topic") for topic in topics),
        to_bytes(obj.get("data", "0x"), None, "log data"),
    )
