"""Receipts: what a transaction did, and the encoding of it that the receipts root commits to."""

import msgspec

from flashblocks.execution.header import DEPOSIT_TYPE
from flashblocks.execution.keccak import keccak256
from flashblocks.execution.rlp import encode_bytes, encode_uint, wrap_list

DEPOSIT_RECEIPT_VERSION = 1  # Canyon


class Log(msgspec.Struct, frozen=True, gc=False):
    """One event: the contract's address, up to four 32-byte topics, data."""

    address: bytes
    topics: tuple[bytes, ...]
    data: bytes

    def rlp(self) -> bytes:
        """[address, topics, data]."""
        topics = b"".join([b"\xa0" + topic for topic in self.topics])
        return wrap_list(b"\x94" + self.address + wrap_list(topics) + encode_bytes(self.data))


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a transaction. Gas is gas, fees and prices are wei; fields of rules that do not apply are None."""

    type: int
    status: int  # 1 success, 0 failure
    cumulative_gas_used: int
    gas_used: int
    logs: tuple[Log, ...]
    bloom: bytes
    tx_hash: bytes
    contract_address: bytes | None = None
    effective_gas_price: int = 0
    deposit_nonce: int | None = None
    deposit_receipt_version: int | None = None
    l1_gas_price: int | None = None  # the L1 base fee
    l1_gas_used: int | None = None
    l1_fee: int | None = None
    l1_base_fee_scalar: int | None = None
    l1_blob_base_fee: int | None = None
    l1_blob_base_fee_scalar: int | None = None
    operator_fee_scalar: int | None = None
    operator_fee_constant: int | None = None
    da_footprint_gas_scalar: int | None = None
    blob_gas_used: int | None = None  # Jovian: this transaction's DA footprint

    def consensus_rlp(self) -> bytes:
        """The leaf of the receipts trie: type byte, [status, cumulative gas, bloom, logs], the deposit's fields."""
        payload = (
            (b"\x01" if self.status else b"\x80")
            + encode_uint(self.cumulative_gas_used)
            + encode_bytes(self.bloom)
            + wrap_list(b"".join([log.rlp() for log in self.logs]))
        )
        if self.type == DEPOSIT_TYPE:
            payload += encode_uint(self.deposit_nonce or 0) + encode_uint(self.deposit_receipt_version or 0)
        encoded = wrap_list(payload)
        return bytes((self.type,)) + encoded if self.type else encoded


def bloom_bits(logs: tuple[Log, ...]) -> int:
    """The 2048-bit bloom filter of `logs` as an integer (yellow paper §4.3.1)."""
    bits = 0
    for log in logs:
        for entry in (log.address, *log.topics):
            h = keccak256(entry)
            bits |= (
                1 << ((h[0] << 8 | h[1]) & 2047) | 1 << ((h[2] << 8 | h[3]) & 2047) | 1 << ((h[4] << 8 | h[5]) & 2047)
            )
    return bits
