"""Block headers and blocks: their fields, their RLP, their hash (Holocene: 20 fields; Isthmus adds requests_hash)."""

from functools import cached_property

import msgspec

from flashblocks.execution import rlp
from flashblocks.execution.errors import InvalidBlock, InvalidEncoding
from flashblocks.execution.keccak import keccak256
from flashblocks.execution.rlp import encode_bytes, encode_uint, wrap_list
from flashblocks.execution.trie import EMPTY_ROOT

ZERO_HASH = bytes(32)
ZERO_BLOOM = bytes(256)
EMPTY_UNCLES_HASH = bytes.fromhex("1dcc4de8dec75d7aab85b567b6ccd41ad312451b948a7413f0a142fd40d49347")  # keccak(rlp([]))
EMPTY_REQUESTS_HASH = bytes.fromhex("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")  # sha256("")
DEPOSIT_TYPE = 0x7E


class Header(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """A block header. Amounts are wei, times seconds since 1970, gas is gas; hashes, roots and addresses are bytes."""

    parent_hash: bytes
    uncles_hash: bytes = EMPTY_UNCLES_HASH
    fee_recipient: bytes
    state_root: bytes
    transactions_root: bytes = EMPTY_ROOT
    receipts_root: bytes = EMPTY_ROOT
    logs_bloom: bytes = ZERO_BLOOM
    difficulty: int = 0
    number: int
    gas_limit: int
    gas_used: int = 0
    timestamp: int
    extra_data: bytes = b""
    prev_randao: bytes = ZERO_HASH
    nonce: bytes = bytes(8)
    base_fee_per_gas: int
    withdrawals_root: bytes = EMPTY_ROOT
    blob_gas_used: int = 0
    excess_blob_gas: int = 0
    parent_beacon_root: bytes = ZERO_HASH
    requests_hash: bytes | None = EMPTY_REQUESTS_HASH  # None before Isthmus

    def rlp(self) -> bytes:
        """The encoding that is hashed."""
        parts = [
            encode_bytes(self.parent_hash),
            encode_bytes(self.uncles_hash),
            encode_bytes(self.fee_recipient),
            encode_bytes(self.state_root),
            encode_bytes(self.transactions_root),
            encode_bytes(self.receipts_root),
            encode_bytes(self.logs_bloom),
            encode_uint(self.difficulty),
            encode_uint(self.number),
            encode_uint(self.gas_limit),
            encode_uint(self.gas_used),
            encode_uint(self.timestamp),
            encode_bytes(self.extra_data),
            encode_bytes(self.prev_randao),
            encode_bytes(self.nonce),
            encode_uint(self.base_fee_per_gas),
            encode_bytes(self.withdrawals_root),
            encode_uint(self.blob_gas_used),
            encode_uint(self.excess_blob_gas),
            encode_bytes(self.parent_beacon_root),
        ]
        if self.requests_hash is not None:
            parts.append(encode_bytes(self.requests_hash))
        return wrap_list(b"".join(parts))

    @cached_property
    def hash(self) -> bytes:
        """The block hash."""
        return keccak256(self.rlp())

    @staticmethod
    def from_rlp(encoded: bytes) -> "Header":
        """Read `rlp()`; raises InvalidBlock for anything that is not a header of a supported fork."""
        return _header(_list(encoded))


class Block(msgspec.Struct, frozen=True):
    """A header with the transactions (EIP-2718 bytes) it commits to. OP blocks have no uncles and no withdrawals."""

    header: Header
    transactions: tuple[bytes, ...]

    @property
    def hash(self) -> bytes:
        """The hash of the header."""
        return self.header.hash

    def rlp(self) -> bytes:
        """[header, transactions, uncles, withdrawals], as `debug_getRawBlock` answers it."""
        # A legacy transaction is a list inside the list; a typed one is a byte string (EIP-2718).
        body = b"".join([raw if raw[0] >= 0xC0 else encode_bytes(raw) for raw in self.transactions])
        return wrap_list(self.header.rlp() + wrap_list(body) + b"\xc0\xc0")

    @staticmethod
    def from_rlp(encoded: bytes) -> "Block":
        """Read `rlp()`; raises InvalidBlock. The transactions are not decoded here."""
        parts = _list(encoded)
        if len(parts) != 4 or parts[2] != [] or parts[3] != []:
            raise InvalidBlock("block must be [header, transactions, no uncles, no withdrawals]")
        if not isinstance(parts[0], list) or not isinstance(parts[1], list):
            raise InvalidBlock("block header and transactions must be lists")
        return Block(_header(parts[0]), tuple(_transaction(item) for item in parts[1]))


def _list(encoded: bytes) -> list[rlp.RlpItem]:
    try:
        return rlp.decode_list(encoded)
    except InvalidEncoding as error:
        raise InvalidBlock(str(error)) from error


def _transaction(item: rlp.RlpItem) -> bytes:
    if isinstance(item, list):
        return rlp.encode(item)
    if not item:
        raise InvalidBlock("empty transaction")
    return item


def _header(fields: list[rlp.RlpItem]) -> Header:
    if len(fields) not in (20, 21):
        raise InvalidBlock(f"a header has 20 or 21 fields, not {len(fields)}")
    values = [item for item in fields if isinstance(item, bytes)]
    if len(values) != len(fields):
        raise InvalidBlock("header fields are byte strings")
    return Header(
        parent_hash=_fixed(values[0], 32),
        uncles_hash=_fixed(values[1], 32),
        fee_recipient=_fixed(values[2], 20),
        state_root=_fixed(values[3], 32),
        transactions_root=_fixed(values[4], 32),
        receipts_root=_fixed(values[5], 32),
        logs_bloom=_fixed(values[6], 256),
        difficulty=_uint(values[7]),
        number=_uint(values[8]),
        gas_limit=_uint(values[9]),
        gas_used=_uint(values[10]),
        timestamp=_uint(values[11]),
        extra_data=values[12],
        prev_randao=_fixed(values[13], 32),
        nonce=_fixed(values[14], 8),
        base_fee_per_gas=_uint(values[15], 32),
        withdrawals_root=_fixed(values[16], 32),
        blob_gas_used=_uint(values[17]),
        excess_blob_gas=_uint(values[18]),
        parent_beacon_root=_fixed(values[19], 32),
        requests_hash=_fixed(values[20], 32) if len(values) == 21 else None,
    )


def _fixed(value: bytes, size: int) -> bytes:
    if len(value) != size:
        raise InvalidBlock(f"header field of {len(value)} bytes where {size} belong")
    return value


def _uint(value: bytes, size: int = 8) -> int:
    if len(value) > size or value[:1] == b"\0":
        raise InvalidBlock("header number is not canonical")
    return int.from_bytes(value, "big")
