"""Deposit transactions (type 0x7e) as the op-node writes them: the L1-attributes deposit and the users' deposits.

Sources: OP specs, protocol/deposits.md and the L1-attributes pages of Ecotone, Isthmus and Jovian.
"""

from __future__ import annotations

from typing import Final

import msgspec

from flashblocks.execution.errors import InvalidEncoding
from flashblocks.execution.rlp import decode_list, encode_bytes, encode_uint, wrap_list
from flashblocks.wire.hexadecimal import WireError
from flashblocks.wire.keccak import keccak256

L1_INFO_TRANSACTION_TYPE: Final = 0x7E
L1_INFO_DEPOSITOR: Final = bytes.fromhex("deaddeaddeaddeaddeaddeaddeaddeaddead0001")
L1_BLOCK_PREDEPLOY: Final = bytes.fromhex("4200000000000000000000000000000000000015")
L1_INFO_GAS: Final = 1_000_000

USER_DEPOSIT_DOMAIN: Final = 0
L1_INFO_DOMAIN: Final = 1

ECOTONE_SELECTOR: Final = bytes.fromhex("440a5e20")
ISTHMUS_SELECTOR: Final = bytes.fromhex("098999be")
JOVIAN_SELECTOR: Final = bytes.fromhex("3db6be2b")
CALLDATA_BYTES: Final = {ECOTONE_SELECTOR: 164, ISTHMUS_SELECTOR: 176, JOVIAN_SELECTOR: 178}


class L1Info(msgspec.Struct, frozen=True, kw_only=True):
    """What the L1-attributes deposit tells the L1Block contract; amounts in wei, `batcher_hash` 32 bytes.

    The operator fee exists since Isthmus, `da_footprint_gas_scalar` since Jovian (None before).
    """

    number: int
    timestamp: int
    base_fee: int
    blob_base_fee: int
    hash: bytes
    sequence_number: int
    batcher_hash: bytes
    base_fee_scalar: int
    blob_base_fee_scalar: int
    operator_fee_scalar: int = 0
    operator_fee_constant: int = 0
    da_footprint_gas_scalar: int | None = None

    def to_calldata(self) -> bytes:
        """Packed calldata of setL1BlockValuesIsthmus (176 bytes), or …Jovian (178) where the DA scalar is given."""
        jovian = self.da_footprint_gas_scalar is not None
        parts = [
            JOVIAN_SELECTOR if jovian else ISTHMUS_SELECTOR,
            self.base_fee_scalar.to_bytes(4, "big"),
            self.blob_base_fee_scalar.to_bytes(4, "big"),
            self.sequence_number.to_bytes(8, "big"),
            self.timestamp.to_bytes(8, "big"),
            self.number.to_bytes(8, "big"),
            self.base_fee.to_bytes(32, "big"),
            self.blob_base_fee.to_bytes(32, "big"),
            self.hash,
            self.batcher_hash,
            self.operator_fee_scalar.to_bytes(4, "big"),
            self.operator_fee_constant.to_bytes(8, "big"),
        ]
        if self.da_footprint_gas_scalar is not None:
            parts.append(self.da_footprint_gas_scalar.to_bytes(2, "big"))
        return b"".join(parts)

    @classmethod
    def from_calldata(cls, calldata: bytes) -> L1Info:
        """Read the calldata of Ecotone, Isthmus or Jovian; raises WireError for anything else."""
        selector = calldata[:4]
        if CALLDATA_BYTES.get(selector) != len(calldata):
            raise WireError(f"not L1 attributes: selector {selector.hex()}, {len(calldata)} bytes")

        def number(start: int, length: int) -> int:
            return int.from_bytes(calldata[start : start + length], "big")

        isthmus = selector != ECOTONE_SELECTOR
        return cls(
            base_fee_scalar=number(4, 4),
            blob_base_fee_scalar=number(8, 4),
            sequence_number=number(12, 8),
            timestamp=number(20, 8),
            number=number(28, 8),
            base_fee=number(36, 32),
            blob_base_fee=number(68, 32),
            hash=calldata[100:132],
            batcher_hash=calldata[132:164],
            operator_fee_scalar=number(164, 4) if isthmus else 0,
            operator_fee_constant=number(168, 8) if isthmus else 0,
            da_footprint_gas_scalar=number(176, 2) if selector == JOVIAN_SELECTOR else None,
        )


class UserDeposit(msgspec.Struct, frozen=True, kw_only=True):
    """A deposit made on L1: `mint` wei appear at `sender`, then the call runs; `to` None creates a contract."""

    sender: bytes
    to: bytes | None
    mint: int = 0
    value: int = 0
    gas: int = 100_000
    data: bytes = b""


def source_hash(domain: int, l1_block_hash: bytes, position: int) -> bytes:
    """Identity of a deposit: its domain, L1 block and position (log index, or the sequence number for attributes)."""
    inner = keccak256(l1_block_hash + position.to_bytes(32, "big"))
    return keccak256(domain.to_bytes(32, "big") + inner)


def encode_l1_info(info: L1Info) -> bytes:
    """The first transaction of a block."""
    deposit = UserDeposit(sender=L1_INFO_DEPOSITOR, to=L1_BLOCK_PREDEPLOY, gas=L1_INFO_GAS, data=info.to_calldata())
    return encode_deposit(source_hash(L1_INFO_DOMAIN, info.hash, info.sequence_number), deposit)


def encode_user_deposit(deposit: UserDeposit, l1_block_hash: bytes, log_index: int) -> bytes:
    """A user's deposit as a transaction of the first L2 block of that L1 block's epoch."""
    return encode_deposit(source_hash(USER_DEPOSIT_DOMAIN, l1_block_hash, log_index), deposit)


def encode_deposit(source: bytes, deposit: UserDeposit) -> bytes:
    """0x7e ++ rlp([sourceHash, from, to, mint, value, gas, isSystemTx, data])."""
    fields = (
        encode_bytes(source),
        encode_bytes(deposit.sender),
        encode_bytes(deposit.to or b""),
        encode_uint(deposit.mint),
        encode_uint(deposit.value),
        encode_uint(deposit.gas),
        encode_uint(0),  # isSystemTx: false since Regolith
        encode_bytes(deposit.data),
    )
    return bytes((L1_INFO_TRANSACTION_TYPE,)) + wrap_list(b"".join(fields))


def decode_l1_info(transaction: bytes) -> L1Info:
    """Read the L1-attributes deposit of a block; raises WireError if the transaction is something else."""
    if transaction[:1] != bytes((L1_INFO_TRANSACTION_TYPE,)):
        raise WireError("first transaction is not a deposit")
    try:
        fields = decode_list(transaction[1:])
    except InvalidEncoding as error:
        raise WireError(f"first transaction: {error}") from error
    if len(fields) != 8 or fields[1] != L1_INFO_DEPOSITOR or fields[2] != L1_BLOCK_PREDEPLOY:
        raise WireError("first transaction is not the L1-attributes deposit")
    calldata = fields[7]
    if not isinstance(calldata, bytes):
        raise WireError("first transaction has no calldata")
    return L1Info.from_calldata(calldata)
