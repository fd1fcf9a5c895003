"""Who signed: secp256k1 public-key recovery, native where coincurve is installed (the GIL is released there)."""

from collections.abc import Callable

from flashblocks.execution.errors import InvalidTransaction
from flashblocks.execution.keccak import keccak256

CURVE_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
HALF_CURVE_ORDER = CURVE_ORDER // 2

Recover = Callable[[bytes, int, int, int], bytes]


def _native() -> Recover:
    from coincurve import PublicKey

    def recover(digest: bytes, r: int, s: int, parity: int) -> bytes:
        signature = r.to_bytes(32, "big") + s.to_bytes(32, "big") + bytes((parity,))
        key = PublicKey.from_signature_and_message(signature, digest, hasher=None)
        return keccak256(key.format(compressed=False)[1:])[12:]

    return recover


def _pure() -> Recover:
    from eth_keys.backends.native.ecdsa import ecdsa_raw_recover

    def recover(digest: bytes, r: int, s: int, parity: int) -> bytes:
        return keccak256(ecdsa_raw_recover(digest, (parity, r, s)))[12:]

    return recover


def choose_recover(native: bool = True) -> Recover:
    """The recovery function; without `native`, or without coincurve, the pure Python one (4 ms instead of 30 µs)."""
    if native:
        try:
            return _native()
        except ImportError:
            pass
    return _pure()


_recover = choose_recover()


def recover_any(digest: bytes, r: int, s: int, parity: int) -> bytes:
    """The address whose key signed `digest`, whatever half s lies in; raises InvalidTransaction when none can have."""
    try:
        return _recover(digest, r, s, parity)
    except Exception as error:  # each library has its own exception for "no such point"
        raise InvalidTransaction("invalid sender: recovery failed") from error


def recover_address(digest: bytes, r: int, s: int, parity: int) -> bytes:
    """The signer's address; raises InvalidTransaction when there can be none (EIP-2: s must be in the lower half)."""
    if not 0 < r < CURVE_ORDER or not 0 < s <= HALF_CURVE_ORDER or parity not in (0, 1):
        raise InvalidTransaction("invalid transaction v, r, s values")
    return recover_any(digest, r, s, parity)
