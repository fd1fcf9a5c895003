"""Signed transactions made from a private key: for wallets of our own (load, drills, benchmarks, tests)."""

from collections.abc import Sequence

from coincurve import PrivateKey

from flashblocks.execution.keccak import keccak256
from flashblocks.execution.rlp import RlpItem, encode, minimal_bytes
from flashblocks.execution.transaction import (
    ACCESS_LIST_TYPE,
    AUTHORIZATION_MAGIC,
    DYNAMIC_FEE_TYPE,
    LEGACY_TYPE,
    SET_CODE_TYPE,
    AccessList,
    Authorization,
)


def sign_digest(digest: bytes, private_key: bytes) -> tuple[int, int, int]:
    """(r, s, parity) over a 32-byte digest; s is in the lower half."""
    signature = PrivateKey(private_key).sign_recoverable(digest, hasher=None)
    return int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:64], "big"), signature[64]


def address_of(private_key: bytes) -> bytes:
    """The account that a private key controls."""
    return keccak256(PrivateKey(private_key).public_key.format(compressed=False)[1:])[12:]


def sign_authorization(private_key: bytes, chain_id: int, address: bytes, nonce: int) -> Authorization:
    """EIP-7702: the key's account asks to run the code of `address`."""
    message = encode([minimal_bytes(chain_id), address, minimal_bytes(nonce)])
    r, s, parity = sign_digest(keccak256(AUTHORIZATION_MAGIC + message), private_key)
    return Authorization(chain_id, address, nonce, parity, r, s)


def sign_transaction(
    private_key: bytes,
    *,
    chain_id: int,
    nonce: int,
    to: bytes | None = None,
    value: int = 0,
    data: bytes = b"",
    gas_limit: int = 21_000,
    max_fee_per_gas: int = 10**9,
    max_priority_fee_per_gas: int = 0,
    access_list: AccessList = (),
    authorization_list: Sequence[Authorization] = (),
    kind: int = DYNAMIC_FEE_TYPE,
) -> bytes:
    """The EIP-2718 bytes of a signed transaction. Amounts in wei; types 0 and 1 use `max_fee_per_gas` as gas price."""
    fee, tip = minimal_bytes(max_fee_per_gas), minimal_bytes(max_priority_fee_per_gas)
    tail: list[RlpItem] = [minimal_bytes(gas_limit), to or b"", minimal_bytes(value), data]
    chain, count = minimal_bytes(chain_id), minimal_bytes(nonce)
    if kind == LEGACY_TYPE:
        fields: list[RlpItem] = [count, fee, *tail]
        r, s, parity = sign_digest(keccak256(encode([*fields, chain, b"", b""])), private_key)
        return encode([*fields, *map(minimal_bytes, (35 + 2 * chain_id + parity, r, s))])
    entries: list[RlpItem] = [[address, [slot.to_bytes(32, "big") for slot in slots]] for address, slots in access_list]
    if kind == ACCESS_LIST_TYPE:
        fields = [chain, count, fee, *tail, entries]
    else:
        fields = [chain, count, tip, fee, *tail, entries]
    if kind == SET_CODE_TYPE:
        fields.append([_authorization(entry) for entry in authorization_list])
    r, s, parity = sign_digest(keccak256(bytes((kind,)) + encode(fields)), private_key)
    return bytes((kind,)) + encode([*fields, *map(minimal_bytes, (parity, r, s))])


def _authorization(entry: Authorization) -> RlpItem:
    numbers = minimal_bytes(entry.y_parity), minimal_bytes(entry.r), minimal_bytes(entry.s)
    return [minimal_bytes(entry.chain_id), entry.address, minimal_bytes(entry.nonce), *numbers]
