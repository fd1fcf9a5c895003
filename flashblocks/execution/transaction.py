"""Transactions as they arrive: EIP-2718 bytes decoded strictly, with sender, hash and sizes made when first asked for.

Types: legacy, 2930 (0x01), 1559 (0x02), 7702 (0x04) and OP deposits (0x7e). Blob transactions do not exist on OP.
"""

from typing import NamedTuple, cast

from flashblocks.execution.errors import InvalidEncoding, InvalidTransaction
from flashblocks.execution.fastlz import fastlz_size
from flashblocks.execution.header import DEPOSIT_TYPE
from flashblocks.execution.keccak import keccak256
from flashblocks.execution.rlp import RlpItem, decode_list, encode, minimal_bytes
from flashblocks.execution.signature import recover_address

LEGACY_TYPE = 0
ACCESS_LIST_TYPE = 1
DYNAMIC_FEE_TYPE = 2
BLOB_TYPE = 3
SET_CODE_TYPE = 4

GAS_TRANSACTION = 21_000
GAS_CREATE = 32_000
GAS_ZERO_BYTE = 4
GAS_NONZERO_BYTE = 16
GAS_FLOOR_PER_TOKEN = 10  # EIP-7623
TOKENS_PER_NONZERO_BYTE = 4
GAS_ACCESS_LIST_ADDRESS = 2_400
GAS_ACCESS_LIST_SLOT = 1_900
GAS_AUTHORIZATION = 25_000  # EIP-7702, PER_EMPTY_ACCOUNT_COST
GAS_INITCODE_WORD = 2  # EIP-3860

UINT64_END = 1 << 64
# Compressed data is at most 33/32 of its length, and only from 171 compressed bytes on the L1 fee exceeds its minimum.
MINIMUM_FEE_UP_TO_BYTES = 164
AUTHORIZATION_MAGIC = b"\x05"


class Authorization(NamedTuple):
    """EIP-7702: an account's signed wish to run the code of `address`."""

    chain_id: int
    address: bytes
    nonce: int
    y_parity: int
    r: int
    s: int

    def authority(self) -> bytes:
        """The account that signed; raises InvalidTransaction where the signature is none."""
        message = encode([minimal_bytes(self.chain_id), self.address, minimal_bytes(self.nonce)])
        return recover_address(keccak256(AUTHORIZATION_MAGIC + message), self.r, self.s, self.y_parity)


AccessList = tuple[tuple[bytes, tuple[int, ...]], ...]


class Transaction:
    """A decoded transaction. Amounts are wei. `to` is None for a contract creation.

    `sender`, `hash` and `fastlz_size` are computed once, on first use; `recover_sender` may run in another thread.
    """

    __slots__ = (
        "_fastlz_size",
        "_hash",
        "_sender",
        "_signature",
        "access_list",
        "authorization_list",
        "chain_id",
        "data",
        "floor_gas",
        "gas_limit",
        "intrinsic_gas",
        "is_system",
        "max_fee_per_gas",
        "max_priority_fee_per_gas",
        "mint",
        "nonce",
        "raw",
        "source_hash",
        "to",
        "type",
        "value",
    )

    raw: bytes
    type: int
    chain_id: int | None
    nonce: int
    max_priority_fee_per_gas: int
    max_fee_per_gas: int
    gas_limit: int
    to: bytes | None
    value: int
    data: bytes
    access_list: AccessList
    authorization_list: tuple[Authorization, ...]
    mint: int  # deposits: wei created for the sender
    source_hash: bytes  # deposits
    is_system: bool  # deposits
    intrinsic_gas: int
    floor_gas: int  # EIP-7623
    _signature: tuple[bytes, int, int, int] | None  # preimage of the signed digest, r, s, parity
    _sender: bytes | None
    _hash: bytes | None
    _fastlz_size: int | None

    def __init__(self, raw: bytes, kind: int) -> None:
        self.raw = raw
        self.type = kind
        self.access_list = ()
        self.authorization_list = ()
        self.mint = 0
        self.source_hash = b""
        self.is_system = False
        self._signature = None
        self._sender = None
        self._hash = None
        self._fastlz_size = None

    @property
    def is_deposit(self) -> bool:
        """Whether L1 forced this transaction (type 0x7e)."""
        return self.type == DEPOSIT_TYPE

    @property
    def sender(self) -> bytes:
        """The account that pays; raises InvalidTransaction when the signature is none."""
        if self._sender is None:
            recover_sender(self)
        return cast(bytes, self._sender)

    @property
    def sender_unknown(self) -> bool:
        """Whether nobody has recovered the sender yet."""
        return self._sender is None

    @property
    def hash(self) -> bytes:
        """The transaction hash."""
        if self._hash is None:
            self._hash = keccak256(self.raw)
        return self._hash

    @property
    def fastlz_size(self) -> int:
        """Compressed size in bytes, the basis of the L1 fee and of the DA footprint."""
        if self._fastlz_size is None:
            self._fastlz_size = fastlz_size(self.raw)
        return self._fastlz_size

    @property
    def fee_size(self) -> int:
        """What the fee formulas need of `fastlz_size`: 0, uncompressed, where any value gives the minimum."""
        return 0 if len(self.raw) <= MINIMUM_FEE_UP_TO_BYTES else self.fastlz_size

    def effective_gas_price(self, base_fee: int) -> int:
        """What a unit of gas costs the sender, in wei."""
        return min(self.max_fee_per_gas, base_fee + self.max_priority_fee_per_gas)

    def __repr__(self) -> str:
        return f"<Transaction type {self.type} 0x{self.hash.hex()}>"


def recover_sender(transaction: Transaction) -> bytes:
    """Recover and remember the sender. Releases the GIL for most of its 30 µs, so a thread pool helps."""
    if transaction._sender is None:
        assert transaction._signature is not None
        preimage, r, s, parity = transaction._signature
        transaction._sender = recover_address(keccak256(preimage), r, s, parity)
    return transaction._sender


def claim_sender(transaction: Transaction, sender: bytes) -> None:
    """Take the word of somebody trusted for who signed; nothing is recovered then."""
    if transaction._sender is None:
        transaction._sender = sender


def decode_transaction(raw: bytes) -> Transaction:
    """Decode EIP-2718 bytes; raises InvalidTransaction for anything but a canonical transaction of an OP chain."""
    if not raw:
        raise InvalidTransaction("typed transaction too short")
    kind = raw[0]
    try:
        if kind >= 0xC0:
            transaction = _legacy(raw, decode_list(raw))
        elif kind == DYNAMIC_FEE_TYPE:
            transaction = _dynamic_fee(raw, decode_list(raw[1:]))
        elif kind == DEPOSIT_TYPE:
            transaction = _deposit(raw, decode_list(raw[1:]))
        elif kind == SET_CODE_TYPE:
            transaction = _set_code(raw, decode_list(raw[1:]))
        elif kind == ACCESS_LIST_TYPE:
            transaction = _access_list(raw, decode_list(raw[1:]))
        else:
            raise InvalidTransaction("transaction type not supported")
    except InvalidEncoding as error:
        raise InvalidTransaction(str(error)) from error
    transaction.intrinsic_gas, transaction.floor_gas = gas_bounds(
        transaction.data, transaction.to is None, transaction.access_list, len(transaction.authorization_list)
    )
    return transaction


def _legacy(raw: bytes, fields: list[RlpItem]) -> Transaction:
    _expect(fields, 9)
    tx = Transaction(raw, LEGACY_TYPE)
    tx.nonce, tx.gas_limit = _uint64(fields[0]), _uint64(fields[2])
    tx.max_fee_per_gas = tx.max_priority_fee_per_gas = _uint(fields[1])
    tx.to, tx.value, tx.data = _to(fields[3]), _uint(fields[4]), _bytes(fields[5])
    v, r, s = _uint(fields[6]), _uint(fields[7]), _uint(fields[8])
    if v >= 35:  # EIP-155
        tx.chain_id = (v - 35) >> 1
        signed = [*fields[:6], minimal_bytes(tx.chain_id), b"", b""]
        tx._signature = (encode(signed), r, s, (v - 35) & 1)
    elif v in (27, 28):
        tx.chain_id = None
        tx._signature = (encode(fields[:6]), r, s, v - 27)
    else:
        raise InvalidTransaction("invalid transaction v, r, s values")
    return tx


def _typed(raw: bytes, kind: int, fields: list[RlpItem], signed: int) -> Transaction:
    """What every signed typed transaction has: chain id first, y parity, r and s after the `signed` first fields."""
    _expect(fields, signed + 3)
    tx = Transaction(raw, kind)
    tx.chain_id, tx.nonce = _uint(fields[0]), _uint64(fields[1])
    parity, r, s = _uint(fields[signed]), _uint(fields[signed + 1]), _uint(fields[signed + 2])
    tx._signature = (bytes((kind,)) + encode(fields[:signed]), r, s, parity)
    return tx


def _access_list(raw: bytes, fields: list[RlpItem]) -> Transaction:
    tx = _typed(raw, ACCESS_LIST_TYPE, fields, 8)
    tx.max_fee_per_gas = tx.max_priority_fee_per_gas = _uint(fields[2])
    tx.gas_limit, tx.to, tx.value, tx.data = _uint64(fields[3]), _to(fields[4]), _uint(fields[5]), _bytes(fields[6])
    tx.access_list = _read_access_list(fields[7])
    return tx


def _dynamic_fee(raw: bytes, fields: list[RlpItem], kind: int = DYNAMIC_FEE_TYPE, signed: int = 9) -> Transaction:
    tx = _typed(raw, kind, fields, signed)
    tx.max_priority_fee_per_gas, tx.max_fee_per_gas = _uint(fields[2]), _uint(fields[3])
    tx.gas_limit, tx.to, tx.value, tx.data = _uint64(fields[4]), _to(fields[5]), _uint(fields[6]), _bytes(fields[7])
    tx.access_list = _read_access_list(fields[8])
    return tx


def _set_code(raw: bytes, fields: list[RlpItem]) -> Transaction:
    tx = _dynamic_fee(raw, fields, SET_CODE_TYPE, 10)
    if tx.to is None:
        raise InvalidTransaction("EIP-7702 transaction cannot be used to create contract")
    tx.authorization_list = tuple(_authorization(item) for item in _items(fields[9]))
    if not tx.authorization_list:
        raise InvalidTransaction("EIP-7702 transaction with empty auth list")
    return tx


def _deposit(raw: bytes, fields: list[RlpItem]) -> Transaction:
    _expect(fields, 8)
    tx = Transaction(raw, DEPOSIT_TYPE)
    tx.chain_id = None
    tx.nonce = tx.max_fee_per_gas = tx.max_priority_fee_per_gas = 0
    tx.source_hash = _sized(fields[0], 32)
    tx._sender, tx.to = _sized(fields[1], 20), _to(fields[2])
    tx.mint, tx.value, tx.gas_limit = _uint(fields[3]), _uint(fields[4]), _uint64(fields[5])
    system = _uint(fields[6])
    if system > 1:
        raise InvalidTransaction("rlp: invalid boolean value")
    tx.is_system, tx.data = bool(system), _bytes(fields[7])
    return tx


def encode_deposit(
    *,
    source_hash: bytes,
    sender: bytes,
    to: bytes | None,
    mint: int,
    value: int,
    gas_limit: int,
    data: bytes,
    is_system: bool = False,
) -> bytes:
    """The bytes of a deposit transaction (specs, protocol/deposits.md). Amounts in wei; without `to` it creates."""
    flag = b"\x01" if is_system else b""
    fields: list[RlpItem] = [source_hash, sender, to or b"", minimal_bytes(mint), minimal_bytes(value)]
    return bytes((DEPOSIT_TYPE,)) + encode([*fields, minimal_bytes(gas_limit), flag, data])


def gas_bounds(data: bytes, creates: bool, access_list: AccessList, authorizations: int) -> tuple[int, int]:
    """Gas paid before anything runs (EIP-2028, 2930, 3860, 7702), and the least that is paid at all (7623)."""
    zeros = data.count(0)
    nonzeros = len(data) - zeros
    gas = GAS_TRANSACTION + GAS_ZERO_BYTE * zeros + GAS_NONZERO_BYTE * nonzeros + GAS_AUTHORIZATION * authorizations
    if creates:
        gas += GAS_CREATE + GAS_INITCODE_WORD * ((len(data) + 31) >> 5)
    for _, slots in access_list:
        gas += GAS_ACCESS_LIST_ADDRESS + GAS_ACCESS_LIST_SLOT * len(slots)
    return gas, GAS_TRANSACTION + GAS_FLOOR_PER_TOKEN * (zeros + TOKENS_PER_NONZERO_BYTE * nonzeros)


def unsigned_transaction(
    *,
    sender: bytes,
    to: bytes | None,
    data: bytes,
    value: int,
    gas_limit: int,
    access_list: AccessList,
    authorizations: tuple[Authorization, ...],
) -> Transaction:
    """What eth_call executes: a transaction that nobody signed and that no block will contain."""
    tx = Transaction(b"", DYNAMIC_FEE_TYPE)
    tx.chain_id = None
    tx.nonce = tx.max_fee_per_gas = tx.max_priority_fee_per_gas = 0
    tx.gas_limit, tx.to, tx.value, tx.data = gas_limit, to, value, data
    tx.access_list, tx.authorization_list, tx._sender = access_list, authorizations, sender
    tx.intrinsic_gas, tx.floor_gas = gas_bounds(data, to is None, access_list, len(authorizations))
    return tx


def _expect(fields: list[RlpItem], count: int) -> None:
    if len(fields) != count:
        raise InvalidEncoding(f"rlp: expected {count} fields, found {len(fields)}")


def _bytes(item: RlpItem) -> bytes:
    if not isinstance(item, bytes):
        raise InvalidEncoding("rlp: expected a byte string")
    return item


def _items(item: RlpItem) -> list[RlpItem]:
    if not isinstance(item, list):
        raise InvalidEncoding("rlp: expected a list")
    return item


def _sized(item: RlpItem, size: int) -> bytes:
    value = _bytes(item)
    if len(value) != size:
        raise InvalidEncoding(f"rlp: expected {size} bytes, found {len(value)}")
    return value


def _to(item: RlpItem) -> bytes | None:
    return None if item == b"" else _sized(item, 20)


def _uint(item: RlpItem, size: int = 32) -> int:
    value = _bytes(item)
    if len(value) > size:
        raise InvalidEncoding("rlp: integer too large")
    if value[:1] == b"\0":
        raise InvalidEncoding("rlp: non-canonical integer (leading zero bytes)")
    return int.from_bytes(value, "big")


def _uint64(item: RlpItem) -> int:
    return _uint(item, 8)


def _read_access_list(item: RlpItem) -> AccessList:
    entries = []
    for entry in _items(item):
        pair = _items(entry)
        _expect(pair, 2)
        keys = tuple(int.from_bytes(_sized(key, 32), "big") for key in _items(pair[1]))
        entries.append((_sized(pair[0], 20), keys))
    return tuple(entries)


def _authorization(item: RlpItem) -> Authorization:
    fields = _items(item)
    _expect(fields, 6)
    return Authorization(
        _uint(fields[0]),
        _sized(fields[1], 20),
        _uint64(fields[2]),
        _uint(fields[3], 1),
        _uint(fields[4]),
        _uint(fields[5]),
    )
