"""A flashblock: the types, and the MessagePack body that travels between our processes and lies in the ledger.

The body is encoded once, by the builder, and passed on as the same bytes; its digest names it. The public JSON text
is made from it in `flashblock_json`. Fields and scopes: transactions and receipts are this flashblock's own, everything
else is cumulative for the block so far.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any, TypeVar

import msgpack
import msgspec

from flashblocks.wire.hexadecimal import WireError

_T = TypeVar("_T", bound=msgspec.Struct)

BODY_VERSION = 1
BODY_SIZE_BYTES_MAX = 8 * 1024 * 1024


class FlashblockBase(msgspec.Struct, frozen=True):
    """What holds for the whole block; present exactly at index 0."""

    parent_beacon_block_root: bytes
    parent_hash: bytes
    fee_recipient: bytes
    prev_randao: bytes
    block_number: int
    gas_limit: int
    timestamp: int
    extra_data: bytes
    base_fee_per_gas: int


class FlashblockDiff(msgspec.Struct, frozen=True):
    """Roots, bloom, gas and hash of the block so far; `transactions` are this flashblock's alone.

    `blob_gas_used` is None where the sender left it out; from Jovian on it is the DA footprint so far.
    """

    state_root: bytes
    receipts_root: bytes
    logs_bloom: bytes
    gas_used: int
    block_hash: bytes
    transactions: tuple[bytes, ...]
    withdrawals_root: bytes
    blob_gas_used: int | None = 0


class FlashblockLog(msgspec.Struct, frozen=True):
    """One event of a receipt."""

    address: bytes
    topics: tuple[bytes, ...]
    data: bytes


class FlashblockReceipt(msgspec.Struct, frozen=True):
    """A receipt as the stream carries it: no bloom, no gas used of its own; gas is cumulative for the block."""

    type: int
    status: int
    cumulative_gas_used: int
    logs: tuple[FlashblockLog, ...] = ()
    deposit_nonce: int | None = None
    deposit_receipt_version: int | None = None


class FlashblockMetadata(msgspec.Struct, frozen=True):
    """Block number, balances of every account the block touched so far (wei), receipts of this flashblock by hash.

    `receipts` keeps the order of the transactions.
    """

    block_number: int
    new_account_balances: dict[bytes, int] = {}
    receipts: dict[bytes, FlashblockReceipt] = {}


class Flashblock(msgspec.Struct, frozen=True):
    """One flashblock of the stream; `base` is there exactly when `index` is 0."""

    payload_id: bytes
    index: int
    base: FlashblockBase | None
    diff: FlashblockDiff
    metadata: FlashblockMetadata

    @property
    def number(self) -> int:
        """The number of the block it belongs to."""
        return self.metadata.block_number


def body_digest(body: bytes) -> bytes:
    """Return the 32-byte name of a body: SHA-256 of its bytes."""
    return sha256(body).digest()


def encode_body(flashblock: Flashblock) -> bytes:
    """Pack a flashblock: nested MessagePack arrays of raw bytes, version first; u256 as big-endian bytes."""
    base, diff, metadata = flashblock.base, flashblock.diff, flashblock.metadata
    packed: bytes = msgpack.packb(
        (
            BODY_VERSION,
            flashblock.payload_id,
            flashblock.index,
            None if base is None else (*msgspec.structs.astuple(base)[:-1], _wide(base.base_fee_per_gas)),
            msgspec.structs.astuple(diff),
            (
                metadata.block_number,
                [(address, _wide(balance)) for address, balance in sorted(metadata.new_account_balances.items())],
                [(tx_hash, _pack_receipt(receipt)) for tx_hash, receipt in metadata.receipts.items()],
            ),
        )
    )
    return packed


def decode_body(body: bytes) -> Flashblock:
    """Unpack a body and check its shape, lengths and the base-at-index-0 rule; raises WireError."""
    if len(body) > BODY_SIZE_BYTES_MAX:
        raise WireError(f"flashblock body: {len(body)} bytes, at most {BODY_SIZE_BYTES_MAX}")
    try:
        version, payload_id, index, base, diff, metadata = msgpack.unpackb(body, use_list=False)
        if version != BODY_VERSION:
            raise WireError(f"flashblock body: unknown version {version!r}")
        flashblock = Flashblock(
            msgspec.convert(payload_id, bytes),
            msgspec.convert(index, int),
            None if base is None else _unpack_base(base),
            _unpack(FlashblockDiff, diff),
            _unpack_metadata(metadata),
        )
    except WireError:
        raise
    except Exception as error:  # whatever msgpack or msgspec found, the peer's bytes are at fault
        raise WireError(f"flashblock body: {error}") from error
    check_shape(flashblock)
    return flashblock


def check_shape(flashblock: Flashblock) -> None:
    """Raise WireError unless lengths are right and `base` is present exactly at index 0."""
    diff, base = flashblock.diff, flashblock.base
    lengths: list[tuple[str, bytes, int]] = [
        ("payload_id", flashblock.payload_id, 8),
        ("state_root", diff.state_root, 32),
        ("receipts_root", diff.receipts_root, 32),
        ("logs_bloom", diff.logs_bloom, 256),
        ("block_hash", diff.block_hash, 32),
        ("withdrawals_root", diff.withdrawals_root, 32),
    ]
    if base is not None:
        lengths += [
            ("parent_beacon_block_root", base.parent_beacon_block_root, 32),
            ("parent_hash", base.parent_hash, 32),
            ("fee_recipient", base.fee_recipient, 20),
            ("prev_randao", base.prev_randao, 32),
        ]
    for name, value, length in lengths:
        if len(value) != length:
            raise WireError(f"flashblock {name}: expected {length} bytes, got {len(value)}")
    if flashblock.index < 0:
        raise WireError("flashblock index: negative")
    if (flashblock.index == 0) != (base is not None):
        raise WireError("flashblock base: must be present exactly at index 0")
    if base is not None and base.block_number != flashblock.number:
        raise WireError("flashblock block_number: base and metadata differ")


def _wide(amount: int) -> bytes:
    return amount.to_bytes((amount.bit_length() + 7) // 8, "big")


def _pack_receipt(receipt: FlashblockReceipt) -> tuple[Any, ...]:
    return (
        receipt.type,
        receipt.status,
        receipt.cumulative_gas_used,
        [(log.address, log.topics, log.data) for log in receipt.logs],
        receipt.deposit_nonce,
        receipt.deposit_receipt_version,
    )


def _unpack(kind: type[_T], values: Any) -> _T:
    return msgspec.convert(dict(zip(kind.__struct_fields__, values, strict=True)), kind)


def _unpack_base(values: Any) -> FlashblockBase:
    return _unpack(FlashblockBase, (*values[:-1], int.from_bytes(values[-1], "big")))


def _unpack_receipt(values: Any) -> FlashblockReceipt:
    kind, status, gas, logs, nonce, version = values
    unpacked = tuple(_unpack(FlashblockLog, log) for log in logs)
    return FlashblockReceipt(
        msgspec.convert(kind, int), msgspec.convert(status, int), msgspec.convert(gas, int), unpacked, nonce, version
    )


def _unpack_metadata(values: Any) -> FlashblockMetadata:
    number, balances, receipts = values
    return FlashblockMetadata(
        msgspec.convert(number, int),
        {msgspec.convert(address, bytes): int.from_bytes(balance, "big") for address, balance in balances},
        {msgspec.convert(tx_hash, bytes): _unpack_receipt(receipt) for tx_hash, receipt in receipts},
    )
