"""Engine API types with their OP-Stack fields (execution-apis engine spec; OP specs protocol/exec-engine).

Hashes, roots and addresses are raw bytes, amounts are ints; hex exists only in `to_json` and `from_json`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgpack
import msgspec

from flashblocks.wire.hexadecimal import WireError, data, quantity, to_bytes, to_int, to_object

PAYLOAD_ID_BYTES = 8
ENVELOPE_VERSION = 1
TRANSACTIONS_PER_BLOCK_MAX = 1_048_576

VALID, INVALID, SYNCING, ACCEPTED = "VALID", "INVALID", "SYNCING", "ACCEPTED"

UNKNOWN_PAYLOAD = -38001
INVALID_FORKCHOICE_STATE = -38002
INVALID_PAYLOAD_ATTRIBUTES = -38003
TOO_LARGE_REQUEST = -38004
UNSUPPORTED_FORK = -38005


class PayloadAttributes(msgspec.Struct, frozen=True, kw_only=True):
    """What the op-node asks the execution client to build: PayloadAttributesV3 with the OP fields.

    `eip1559_params` is denominator u32 ++ elasticity u32 (Holocene); `min_base_fee` in wei (Jovian), None before.
    `transactions` are the forced ones: the L1-attributes deposit first.
    """

    timestamp: int
    prev_randao: bytes
    fee_recipient: bytes
    parent_beacon_block_root: bytes
    transactions: tuple[bytes, ...] = ()
    no_tx_pool: bool = False
    gas_limit: int
    eip1559_params: bytes = b"\0" * 8
    min_base_fee: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Spell the attributes as engine_forkchoiceUpdatedV3 takes them."""
        obj: dict[str, Any] = {
            "timestamp": quantity(self.timestamp),
            "prevRandao": data(self.prev_randao),
            "suggestedFeeRecipient": data(self.fee_recipient),
            "withdrawals": [],
            "parentBeaconBlockRoot": data(self.parent_beacon_block_root),
            "transactions": [data(tx) for tx in self.transactions],
            "noTxPool": self.no_tx_pool,
            "gasLimit": quantity(self.gas_limit),
            "eip1559Params": data(self.eip1559_params),
        }
        if self.min_base_fee is not None:
            obj["minBaseFee"] = self.min_base_fee  # the one plain number: op-geth and op-reth read no QUANTITY here
        return obj

    @classmethod
    def from_json(cls, obj: Any) -> PayloadAttributes:
        """Read the attributes; raises WireError naming the field. withdrawals must be empty, as on every OP chain."""
        fields = to_object(obj, "payloadAttributes")
        if fields.get("withdrawals"):
            raise WireError("withdrawals: must be empty on an OP chain")
        no_tx_pool = fields.get("noTxPool", False)
        if not isinstance(no_tx_pool, bool | None):
            raise WireError("noTxPool: expected a boolean")
        min_base_fee = fields.get("minBaseFee")
        return cls(
            timestamp=to_int(_field(fields, "timestamp"), "timestamp"),
            prev_randao=to_bytes(_field(fields, "prevRandao"), 32, "prevRandao"),
            fee_recipient=to_bytes(_field(fields, "suggestedFeeRecipient"), 20, "suggestedFeeRecipient"),
            parent_beacon_block_root=to_bytes(_field(fields, "parentBeaconBlockRoot"), 32, "parentBeaconBlockRoot"),
            transactions=_transactions(fields.get("transactions")),
            no_tx_pool=bool(no_tx_pool),
            gas_limit=to_int(_field(fields, "gasLimit"), "gasLimit"),
            eip1559_params=to_bytes(fields.get("eip1559Params", "0x" + "00" * 8), 8, "eip1559Params"),
            min_base_fee=None if min_base_fee is None else to_int(min_base_fee, "minBaseFee"),
        )


class ExecutionPayload(msgspec.Struct, frozen=True, kw_only=True):
    """A block as the Engine API carries it: ExecutionPayloadV3 and OP's withdrawalsRoot; withdrawals are []."""

    parent_hash: bytes
    fee_recipient: bytes
    state_root: bytes
    receipts_root: bytes
    logs_bloom: bytes
    prev_randao: bytes
    block_number: int
    gas_limit: int
    gas_used: int
    timestamp: int
    extra_data: bytes
    base_fee_per_gas: int
    block_hash: bytes
    transactions: tuple[bytes, ...]
    blob_gas_used: int = 0
    excess_blob_gas: int = 0
    withdrawals_root: bytes | None = None

    def to_json(self) -> dict[str, Any]:
        """Spell the payload as engine_newPayload takes it and engine_getPayload answers it."""
        obj: dict[str, Any] = {
            "parentHash": data(self.parent_hash),
            "feeRecipient": data(self.fee_recipient),
            "stateRoot": data(self.state_root),
            "receiptsRoot": data(self.receipts_root),
            "logsBloom": data(self.logs_bloom),
            "prevRandao": data(self.prev_randao),
            "blockNumber": quantity(self.block_number),
            "gasLimit": quantity(self.gas_limit),
            "gasUsed": quantity(self.gas_used),
            "timestamp": quantity(self.timestamp),
            "extraData": data(self.extra_data),
            "baseFeePerGas": quantity(self.base_fee_per_gas),
            "blockHash": data(self.block_hash),
            "transactions": [data(tx) for tx in self.transactions],
            "withdrawals": [],
            "blobGasUsed": quantity(self.blob_gas_used),
            "excessBlobGas": quantity(self.excess_blob_gas),
        }
        if self.withdrawals_root is not None:
            obj["withdrawalsRoot"] = data(self.withdrawals_root)
        return obj

    @classmethod
    def from_json(cls, obj: Any) -> ExecutionPayload:
        """Read a payload; raises WireError naming the field. Its hash is the executor's to check."""
        fields = to_object(obj, "executionPayload")
        if fields.get("withdrawals"):
            raise WireError("withdrawals: must be empty on an OP chain")

        def fixed(name: str, length: int) -> bytes:
            return to_bytes(_field(fields, name), length, name)

        def number(name: str) -> int:
            return to_int(_field(fields, name), name)

        root = fields.get("withdrawalsRoot")
        return cls(
            parent_hash=fixed("parentHash", 32),
            fee_recipient=fixed("feeRecipient", 20),
            state_root=fixed("stateRoot", 32),
            receipts_root=fixed("receiptsRoot", 32),
            logs_bloom=fixed("logsBloom", 256),
            prev_randao=fixed("prevRandao", 32),
            block_number=number("blockNumber"),
            gas_limit=number("gasLimit"),
            gas_used=number("gasUsed"),
            timestamp=number("timestamp"),
            extra_data=to_bytes(_field(fields, "extraData"), None, "extraData"),
            base_fee_per_gas=number("baseFeePerGas"),
            block_hash=fixed("blockHash", 32),
            transactions=_transactions(_field(fields, "transactions")),
            blob_gas_used=to_int(fields.get("blobGasUsed", 0), "blobGasUsed"),
            excess_blob_gas=to_int(fields.get("excessBlobGas", 0), "excessBlobGas"),
            withdrawals_root=None if root is None else to_bytes(root, 32, "withdrawalsRoot"),
        )


class Envelope(msgspec.Struct, frozen=True):
    """ExecutionPayloadEnvelope of op-node and op-conductor: the payload and its parent beacon block root."""

    parent_beacon_block_root: bytes
    payload: ExecutionPayload
    block_value: int = 0  # wei of priority fees; engine_getPayload alone tells it

    def to_json(self) -> dict[str, Any]:
        """Spell the envelope as conductor_commitUnsafePayload and admin_postUnsafePayload take it."""
        return {
            "parentBeaconBlockRoot": data(self.parent_beacon_block_root),
            "executionPayload": self.payload.to_json(),
        }

    @classmethod
    def from_json(cls, obj: Any) -> Envelope:
        """Read an envelope; an absent parentBeaconBlockRoot is the zero hash. Raises WireError."""
        fields = to_object(obj, "envelope")
        root = fields.get("parentBeaconBlockRoot")
        return cls(
            parent_beacon_block_root=b"\0" * 32 if root is None else to_bytes(root, 32, "parentBeaconBlockRoot"),
            payload=ExecutionPayload.from_json(_field(fields, "executionPayload")),
        )


class ForkchoiceState(msgspec.Struct, frozen=True):
    """ForkchoiceStateV1: the head, safe and finalized block hashes."""

    head: bytes
    safe: bytes
    finalized: bytes

    def to_json(self) -> dict[str, Any]:
        """Spell the state as engine_forkchoiceUpdated takes it."""
        return {
            "headBlockHash": data(self.head),
            "safeBlockHash": data(self.safe),
            "finalizedBlockHash": data(self.finalized),
        }

    @classmethod
    def from_json(cls, obj: Any) -> ForkchoiceState:
        """Read the state; raises WireError naming the field."""
        fields = to_object(obj, "forkchoiceState")
        return cls(
            head=to_bytes(_field(fields, "headBlockHash"), 32, "headBlockHash"),
            safe=to_bytes(_field(fields, "safeBlockHash"), 32, "safeBlockHash"),
            finalized=to_bytes(_field(fields, "finalizedBlockHash"), 32, "finalizedBlockHash"),
        )


class PayloadStatus(msgspec.Struct, frozen=True):
    """PayloadStatusV1; `status` is one of VALID, INVALID, SYNCING, ACCEPTED."""

    status: str
    latest_valid_hash: bytes | None = None
    validation_error: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Spell the status as the engine answers it."""
        return {
            "status": self.status,
            "latestValidHash": None if self.latest_valid_hash is None else data(self.latest_valid_hash),
            "validationError": self.validation_error,
        }

    @classmethod
    def from_json(cls, obj: Any) -> PayloadStatus:
        """Read a status; raises WireError."""
        fields = to_object(obj, "payloadStatus")
        status = _field(fields, "status")
        if status not in (VALID, INVALID, SYNCING, ACCEPTED, "INVALID_BLOCK_HASH"):
            raise WireError(f"status: unknown payload status {status!r}")
        latest, error = fields.get("latestValidHash"), fields.get("validationError")
        return cls(
            status=status,
            latest_valid_hash=None if latest is None else to_bytes(latest, 32, "latestValidHash"),
            validation_error=None if error is None else str(error),
        )


def envelope_to_bytes(envelope: Envelope) -> bytes:
    """Pack an envelope for the ledger: a MessagePack array, version first."""
    values = msgspec.structs.asdict(envelope.payload)
    values["base_fee_per_gas"] = envelope.payload.base_fee_per_gas.to_bytes(
        32, "big"
    )  # u256: beyond MessagePack's ints
    fields = list(values.values())
    packed: bytes = msgpack.packb([ENVELOPE_VERSION, envelope.parent_beacon_block_root, fields])
    return packed


def envelope_from_bytes(raw: bytes) -> Envelope:
    """Unpack what `envelope_to_bytes` made; raises WireError for anything else."""
    try:
        version, root, fields = msgpack.unpackb(raw, use_list=True)
        if version != ENVELOPE_VERSION:
            raise WireError(f"envelope: unknown version {version!r}")
        names = ExecutionPayload.__struct_fields__
        values = dict(zip(names, fields, strict=True))
        values["base_fee_per_gas"] = int.from_bytes(values["base_fee_per_gas"], "big")
        payload = msgspec.convert(values, ExecutionPayload)
        return Envelope(msgspec.convert(root, bytes), payload)
    except WireError:
        raise
    except Exception as error:  # whatever msgpack or msgspec found, the peer's bytes are at fault
        raise WireError(f"envelope: {error}") from error


def _field(fields: Mapping[str, Any], name: str) -> Any:
    if name not in fields:
        raise WireError(f"missing field {name}")
    return fields[name]


def _transactions(value: Any) -> tuple[bytes, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > TRANSACTIONS_PER_BLOCK_MAX:
        raise WireError("transactions: expected an array of hex data")
    return tuple(to_bytes(tx, None, "transactions") for tx in value)
